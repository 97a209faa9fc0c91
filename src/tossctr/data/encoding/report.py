"""Counts of unseen, missing and null values in encoded rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from tossctr.progress import say

MANY_UNSEEN = 0.2  # share of unseen values in a column that probably is an error
_NAMED = 12  # most columns in one line


@dataclass
class EncodingReport:
    """Mergeable counts over rows, without columns whose count is zero.

    Attributes:
        rows: number of rows.
        values: present values (events of a sequence), by column with a vocabulary.
        unseen: values that are not in the vocabulary and became OOV.
        missing: missing values, by column.
        null_events: null events, by sequence: dropped, or OOV if several sequences must keep equal
            lengths.
    """

    rows: int = 0
    values: Counter[str] = field(default_factory=Counter)
    unseen: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    null_events: Counter[str] = field(default_factory=Counter)

    def merge(self, other: EncodingReport) -> None:
        self.rows += other.rows
        for name in _COUNTERS:
            getattr(self, name).update(getattr(other, name))

    def count(
        self,
        column: str,
        *,
        values: int = 0,
        unseen: int = 0,
        missing: int = 0,
        null_events: int = 0,
    ) -> None:
        counted = zip(_COUNTERS, (values, unseen, missing, null_events), strict=True)
        for name, number in counted:
            if number:
                getattr(self, name)[column] += number

    def drain(self) -> EncodingReport:
        """Return the counts and reset them."""
        drained = EncodingReport()
        drained.merge(self)
        self.rows = 0
        for name in _COUNTERS:
            getattr(self, name).clear()
        return drained

    def unseen_shares(self) -> dict[str, float]:
        """The share of unseen values, by column with a vocabulary."""
        return {name: self.unseen[name] / count for name, count in self.values.items()}

    def say(self, split: str) -> None:
        """Print the shares of unseen values, and the null events."""
        shares = self.unseen_shares()
        some = {name: share for name, share in shares.items() if share}
        if shares:
            ordered = sorted(some, key=lambda name: -some[name])
            named = [f"{name} {some[name] * 100:.2f} %" for name in ordered[:_NAMED]]
            if len(some) < len(shares):
                none = len(shares) - len(some)
                named.append(f"{none} {'column' if none == 1 else 'columns'} 0 %")
            if len(ordered) > _NAMED:
                named.insert(_NAMED, f"{len(ordered) - _NAMED} more columns")
            say(f"{split}: values that are not in the vocabulary: {', '.join(named)}")
        many = [f"{name} {share:.0%}" for name, share in some.items() if share > MANY_UNSEEN]
        if many:
            say(
                f"warning: {split}: many values are not in the vocabulary: {', '.join(many)};"
                " check that these columns hold the same ids as the training file"
            )
        self.say_nulls(split)

    def say_nulls(self, split: str) -> None:
        """Print the numbers of null events."""
        for name, count in self.null_events.items():
            say(f"{split}: {count:,} null events in {name}")

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        counters = {name: dict(getattr(self, name)) for name in _COUNTERS}
        return {"rows": self.rows, **counters}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> EncodingReport:
        """The inverse of `as_dict`."""
        return cls(value["rows"], *(Counter(value[name]) for name in _COUNTERS))


_COUNTERS = tuple(f.name for f in fields(EncodingReport))[1:]
