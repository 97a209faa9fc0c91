"""Statistics of one column of a raw file, updated batch by batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tossctr.config.nulls import NA_VALUES
from tossctr.data.encoding.ids import dictionary_of
from tossctr.data.encoding.lists import as_text, is_list
from tossctr.data.encoding.numbers import as_floats
from tossctr.data.encoding.quantiles import QuantileSample, row_hashes
from tossctr.data.encoding.tokens import IntTokens, TextTokens, split_tokens
from tossctr.data.health.kinds import Kind, numbers_in
from tossctr.data.where import Where
from tossctr.errors import UserError

Array = NDArray[Any]

SAMPLE = 1 << 14  # least rows to sample; the error of a rank is at most 1.2 %
MAX_DISTINCT = 50_000
QUANTILES = {"5 %": 0.05, "median": 0.5, "95 %": 0.95}


@dataclass
class ColumnHealth:
    """Statistics of a column.

    Attributes:
        type: the type in the file; for CSV, a dtype of the config.
        rows, missing: numbers of rows, and of missing values (null, NaN, empty text or sequence).
        invalid, first_invalid: number of values that `prepare` refuses (not counted as missing or
            present), and the position of the first.
        infinite: number of infinite values.
        null_events: number of null events in sequences.
        low, high: range of the finite numbers, or of the lengths of sequences.
        total: sum of the finite numbers.
        zeros, ones, fractions: numbers of values that are 0, 1, and not integers.
        sample: numbers (NaN if missing) or lengths of a random sample of rows.
        counts: counts of texts or tokens, up to `MAX_DISTINCT`.
        numbers, number_counts: distinct numbers and their counts, up to `MAX_DISTINCT`.
        distinct_more: there are more than that.
        problems: values that `prepare` refuses, or that do not help a model.
    """

    name: str
    type: str
    kind: Kind
    splitter: str | None = None
    rows: int = 0
    missing: int = 0
    invalid: int = 0
    first_invalid: str | None = None
    infinite: int = 0
    null_events: int = 0
    low: float = float("inf")
    high: float = float("-inf")
    total: float = 0.0
    zeros: int = 0
    ones: int = 0
    fractions: int = 0
    sample: QuantileSample = field(default_factory=lambda: QuantileSample(SAMPLE))
    counts: Counter[str] = field(default_factory=Counter)
    numbers: Array = field(default_factory=lambda: np.empty(0))
    number_counts: Array = field(default_factory=lambda: np.empty(0))
    distinct_more: bool = False
    problems: list[str] = field(default_factory=list)

    def update(self, array: pa.Array, where: Where) -> None:
        """Add the next rows; `where` has their row numbers.

        Raises:
            UserError, ArrowInvalid, UnicodeDecodeError: values that do not fit the first ones
                (bytes that are not text).
        """
        match self.kind:
            case "numbers" | "times":
                self._count_numbers(array, where)
            case "texts":
                codes, texts = dictionary_of(array, NA_VALUES, self.name, where)
                self.missing += int((codes < 0).sum())
                self._count_texts(codes[codes >= 0], texts)
            case "sequences":
                text = array if is_list(array) else as_text(array, self.name, where)
                for first_row, tokens in self._readable(text, where):
                    self._count_tokens(tokens, first_row)
            case "other":
                self.missing += array.null_count
        self.rows += len(array)

    def _refuse(self, count: int, first: UserError) -> None:
        self.invalid += count
        if self.first_invalid is None:
            self.first_invalid = first.line()

    def _count_numbers(self, array: pa.Array, where: Where) -> None:
        wrong = np.zeros(len(array), bool)
        if pa.types.is_string(array.type):  # in CSV
            texts = array
            array, wrong = numbers_in(texts)
            if wrong.any():
                at = int(wrong.argmax())
                error = where.error("not a number", self.name, at, texts[at].as_py())
                self._refuse(int(wrong.sum()), error)
        values = as_floats(array, self.name, where)
        self.add_sample(values, where.first_row)
        values = values[~wrong].astype(np.float64)
        missing, infinite = np.isnan(values), np.isinf(values)
        self.missing += int(missing.sum())
        self.infinite += int(infinite.sum())
        finite = values[~(missing | infinite)]
        self._range(finite)
        self.total += float(finite.sum())
        self.zeros += int((finite == 0).sum())
        self.ones += int((finite == 1).sum())
        self.fractions += int((finite != np.floor(finite)).sum())
        if not self.distinct_more:
            self._count_distinct(finite)

    def _count_distinct(self, finite: Array) -> None:
        distinct, counts = np.unique(finite, return_counts=True)
        both, places = np.unique(np.append(self.numbers, distinct), return_inverse=True)
        total = np.bincount(places, np.append(self.number_counts, counts), len(both))
        self.distinct_more = len(both) > MAX_DISTINCT
        self.numbers, self.number_counts = both[:MAX_DISTINCT], total[:MAX_DISTINCT]

    def _readable(
        self, array: pa.Array, where: Where
    ) -> Iterator[tuple[int, IntTokens | TextTokens]]:
        """The tokens of ranges of rows, with the first row of each. Rows that cannot be parsed are
        found by bisection, and counted as invalid."""
        try:
            splitter = self.splitter or ","
            tokens = split_tokens(array, splitter, "str", NA_VALUES, self.name, where)
        except UserError as error:
            half = len(array) // 2
            if not half:
                self._refuse(1, error)
                return
            after = Where(where.first_row + half, where.file)
            yield from self._readable(array.slice(0, half), where)
            yield from self._readable(array.slice(half), after)
        else:
            yield where.first_row, tokens

    def _count_tokens(self, tokens: IntTokens | TextTokens, first_row: int) -> None:
        self.null_events += tokens.nulls
        lengths = np.diff(tokens.offsets)
        self.missing += int((lengths == 0).sum())
        self._range(lengths)
        self.total += float(lengths.sum())
        self.add_sample(lengths, first_row)
        if isinstance(tokens, IntTokens):
            ids, codes = np.unique(tokens.values, return_inverse=True)
            self._count_texts(codes, list(map(str, ids.tolist())))
        else:
            self._count_texts(tokens.codes, tokens.texts)

    def add_sample(self, values: Array, first_row: int) -> None:
        """Sample from (B,) values of consecutive rows."""
        rows = np.arange(first_row, first_row + len(values))
        self.sample.update(values, np.nan, row_hashes(rows))

    def _range(self, values: Array) -> None:
        if len(values):
            self.low = min(self.low, float(values.min()))
            self.high = max(self.high, float(values.max()))

    def _count_texts(self, codes: Array, texts: list[str]) -> None:
        counts = np.bincount(codes, minlength=len(texts))
        for code in np.flatnonzero(counts).tolist():
            text = texts[code]
            if text in self.counts or len(self.counts) < MAX_DISTINCT:
                self.counts[text] += int(counts[code])
            else:
                self.distinct_more = True

    @property
    def known(self) -> int:
        """Number of rows whose value is neither missing, invalid nor infinite."""
        return self.rows - self.missing - self.invalid - self.infinite

    @property
    def distinct(self) -> int | None:
        """Number of distinct finite numbers, texts or tokens, at most `MAX_DISTINCT`."""
        if self.kind == "other":
            return None
        return len(self.counts) if self.kind in ("texts", "sequences") else len(self.numbers)

    @property
    def mean(self) -> float | None:
        """Mean of the finite numbers, or of the lengths of all sequences."""
        of = self.rows - self.invalid if self.kind == "sequences" else self.known
        return self.total / of if of and self.kind in ("numbers", "sequences") else None

    @property
    def share_of_ones(self) -> float | None:
        """Share of 1 in a column of 0 and 1."""
        both = self.zeros and self.ones and self.zeros + self.ones == self.known
        return self.ones / self.known if both else None

    def quantiles(self) -> dict[str, float]:
        """Quantiles of the numbers or lengths; minimum and maximum are exact."""
        values = self.sample.values[np.isfinite(self.sample.values)]
        if not len(values):
            return {}
        inner = np.quantile(values, list(QUANTILES.values())).tolist()
        return {"min": self.low, **dict(zip(QUANTILES, inner, strict=True)), "max": self.high}

    def finish(self) -> None:
        """Collect `problems`."""
        if self.invalid:
            self.problems.append(
                f"{self.invalid:,} that prepare refuses, the first {self.first_invalid}"
            )
        if self.null_events:
            self.problems.append(f"{self.null_events:,} null events, which prepare leaves out")
        if self.infinite:
            self.problems.append(f"{self.infinite:,} infinite numbers, which prepare refuses")
        if self.rows and self.missing == self.rows:
            self.problems.append("no value at all")
        elif self.missing > self.rows / 2:
            self.problems.append(f"{self.missing / self.rows:.0%} missing")
        elif self.low == self.high or self.distinct == 1:
            self.problems.append("one value only")

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        found: dict[str, Any] = {"type": self.type, "kind": self.kind, "missing": self.missing}
        found["invalid"] = self.invalid
        if self.kind in ("numbers", "times", "sequences"):
            found |= {
                "quantiles": self.quantiles(),
                "quantiles_are_exact": self.sample.limit == QuantileSample.limit,
                "mean": self.mean,
            }
        if self.kind in ("numbers", "times"):
            found |= {"infinite": self.infinite, "share_of_ones": self.share_of_ones}
        if self.kind != "other":
            found |= {"distinct": self.distinct, "distinct_is_more": self.distinct_more}
        if self.kind in ("texts", "sequences"):
            found["most_common"] = self.counts.most_common(5)
        if self.splitter is not None:
            found["splitter"] = self.splitter
        return {**found, "problems": self.problems}
