"""Columns for trees: those of the encoder, and features derived from histories and ids.

For each categorical field c, each numeric field x, each id sequence s and each field t of
`target_field`:

    c, x                    encoded ids and numbers
    s.length, s.distinct    number of events, cut to `max_len`, and of distinct ids
    s.count[e], ~h          plain and recency-weighted counts (half-life h) of the selected ids e
    rate[c], rate[c x t]    click log-odds of the id, and of its pair with t
    rate[s.last1], ...      the same for the newest ids of s
    history[s], history[s x t]  mean log-odds of the events' ids (paired with t), plain and
                            recency-weighted

Log-odds are relative to the mean rate, smoothed towards it, and estimated out of fold: training
rows are divided into K folds by a hash of the row number, and a row's rates come from the labels of
the other folds. Rows to predict use the labels of all folds. The selected ids are those whose
counts correlate most with the label (by the t-statistic) on training rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tossctr.data.features import FeatureMap
from tossctr.data.rows import EncodedRows
from tossctr.models.fields import check_fields
from tossctr.progress import say, track
from tossctr.trees.block import Block, RateTable, summary
from tossctr.trees.config import LightGBMConfig
from tossctr.trees.counting import add_clicks, add_keys, add_moments, count_events, mean_of_events

Array = NDArray[Any]

BLOCK_ROWS = 4096
MAX_KEYS = 1 << 22  # of one rate table
MAX_CATEGORIES = 32  # of a categorical column; larger fields are numeric, ids ordered by count


class TreeFeatures:
    """Transforms encoded rows to float32 columns, after `fit` on the training rows.

    Args:
        features: the fields, with the lengths chosen for training.
        config: options of the derived features.

    Attributes:
        names: (F,) of the columns.
        categorical: indices of the columns that LightGBM splits as categories.

    Raises:
        UserError: `target_field` names a field that is not categorical.
    """

    def __init__(self, features: FeatureMap, config: LightGBMConfig) -> None:
        check_fields(features, "target_field", config.target_field, ("categorical",))
        self.features, self.config = features, config
        self._sequences = features.names("sequence")
        self._decay = np.array([1.0, *(0.5 ** (1 / h) for h in config.half_lives)])
        self._sizes = {n: _size(features, n) for n in features.names("categorical")}
        for name in self._sequences:
            for k in range(config.last_events):
                self._sizes[f"{name}.last{k + 1}"] = _size(features, name)
        self._rates = self._tables(list(self._sizes))
        self._histories = self._tables(list(self._sequences))
        self._top = {
            n: np.zeros(min(config.top_events, max(_size(features, n) - 1, 0)), np.int64)
            for n in self._sequences
        }
        self.names = self._layout()
        self.categorical = [
            i
            for i, name in enumerate(features.names("categorical"))
            if _size(features, name) <= MAX_CATEGORIES
        ]
        self._clicks = {r.name: np.zeros((1, r.keys, 2)) for r in self._all_rates()}
        self._prior = np.zeros(2)
        self._out_of_fold: dict[str, Array] = {}
        self._whole: dict[str, Array] = {}

    def fit(self, rows: EncodedRows, seed: int) -> TreeFeatures:
        """Select ids and estimate rates in one pass over labelled rows."""
        folds = self.config.encoding_folds
        self._seed = seed
        moments = {
            n: np.zeros((_size(self.features, n), len(self._decay), 3)) for n in self._sequences
        }
        clicks = {r.name: np.zeros((folds, r.keys, 2)) for r in self._all_rates()}
        total = np.zeros((folds, 2))
        with track("derive features", len(rows)) as advance:
            for start in range(0, len(rows), BLOCK_ROWS):
                block = Block(rows, start, min(start + BLOCK_ROWS, len(rows)))
                label = np.asarray(rows.labels[block.rows], np.float64)
                fold = self._fold(block)
                add_keys(np.zeros_like(fold), label, fold, total[:, None])
                for name in self._sequences:
                    add_moments(*block.events(name), label, self._decay, moments[name])
                for rate in self._rates:
                    add_keys(block.keys(rate), label, fold, clicks[rate.name])
                for rate in self._histories:
                    slot = block.slot(rate)
                    events = block.events(rate.source)
                    add_clicks(*events, slot, rate.slots, label, fold, clicks[rate.name])
                advance(len(label))
        for name, sums in moments.items():
            correlation = _correlation(sums, total.sum(0))
            correlation[0] = -1.0  # padding
            self._top[name] = np.sort(
                np.argsort(-correlation, kind="stable")[: len(self._top[name])]
            )
        self._out_of_fold = {
            name: self._table(sums.sum(0) - sums, total.sum(0) - total)
            for name, sums in clicks.items()
        }
        return self._scoring(total.sum(0), {n: s.sum(0, keepdims=True) for n, s in clicks.items()})

    def transform(self, rows: EncodedRows, start: int, stop: int, *, out_of_fold: bool) -> Array:
        """(stop - start, F) float32 columns of rows start..stop.

        Args:
            rows: encoded rows.
            start, stop: the range to transform.
            out_of_fold: the rows are those of `fit`: use rates of the other folds only.
        """
        block = Block(rows, start, stop)
        tables = self._out_of_fold if out_of_fold else self._whole
        fold = self._fold(block) if out_of_fold else np.zeros(stop - start, np.int64)
        kinds = len(self._decay)
        parts = [block.categorical.astype(np.float32), block.numeric]
        for name in self._sequences:
            top = self._top[name]
            column = np.full(_size(self.features, name), -1, np.int64)
            column[top] = np.arange(len(top))
            counts = np.zeros((stop - start, 2 + len(top) * kinds), np.float32)
            count_events(*block.events(name), self._decay, column, counts)
            parts.append(counts)
        parts += [summary(*block.events(n)) for n in self.features.names("numeric_sequence")]
        parts += [
            tables[rate.name][fold, block.keys(rate)][:, None].astype(np.float32)
            for rate in self._rates
        ]
        for rate in self._histories:
            means = np.empty((stop - start, kinds), np.float32)
            mean_of_events(
                *block.events(rate.source), block.slot(rate), rate.slots, fold,
                tables[rate.name], self._decay, means,
            )  # fmt: skip
            parts.append(means)
        return np.concatenate(parts, axis=1)

    def state(self) -> dict[str, Tensor]:
        """The fitted state that predicting needs."""
        return {
            "prior": torch.from_numpy(self._prior),
            **{f"top/{name}": torch.from_numpy(ids) for name, ids in self._top.items()},
            **{f"clicks/{name}": torch.from_numpy(sums) for name, sums in self._clicks.items()},
        }

    def load_state(self, state: dict[str, Tensor]) -> TreeFeatures:
        """Restore the result of `state`, which must have this object's names and shapes.

        Raises:
            ValueError: ids or counts are out of range.
        """
        self._top = {name: state[f"top/{name}"].numpy() for name in self._top}
        for name, ids in self._top.items():
            if len(ids) and (ids[0] < 1 or ids[-1] >= _size(self.features, name)):
                raise ValueError(f"top/{name} contains an invalid id")
            if (np.diff(ids) <= 0).any():
                raise ValueError(f"top/{name} is not in ascending order")
        clicks = {name: state[f"clicks/{name}"].numpy() for name in self._clicks}
        prior = state["prior"].numpy()
        for name, counts in {
            "prior": prior,
            **{f"clicks/{n}": c for n, c in clicks.items()},
        }.items():
            shown, clicked = counts[..., 0], counts[..., 1]
            # False for NaN too.
            if not ((clicked >= 0) & (clicked <= shown) & np.isfinite(shown)).all():
                raise ValueError(f"{name} contains invalid counts of rows and clicks")
        return self._scoring(prior, clicks)

    def _scoring(self, prior: Array, clicks: dict[str, Array]) -> TreeFeatures:
        self._prior, self._clicks = prior, clicks
        self._whole = {name: self._table(sums, prior[None]) for name, sums in clicks.items()}
        return self

    def _all_rates(self) -> tuple[RateTable, ...]:
        return (*self._rates, *self._histories)

    def _tables(self, sources: list[str]) -> tuple[RateTable, ...]:
        found = []
        for source in sources:
            size = self._sizes.get(source) or _size(self.features, source)
            for slot in (None, *self.config.target_field):
                slots = 1 if slot is None else _size(self.features, slot)
                if slot == source:
                    continue
                rate = RateTable(source, slot, size * slots, slots)
                if rate.keys > MAX_KEYS:
                    say(f"rate[{rate.name}] is omitted: {rate.keys:,} pairs of ids are too many")
                else:
                    found.append(rate)
        return tuple(found)

    def _layout(self) -> tuple[str, ...]:
        tails = ("", *(f"~{h:g}" for h in self.config.half_lives))
        names = [*self.features.names("categorical"), *self.features.names("numeric")]
        for name in self._sequences:
            names += [f"{name}.length", f"{name}.distinct"]
            top = len(self._top[name])
            names += [f"{name}.count[#{n}]{tail}" for n in range(top) for tail in tails]
        for name in self.features.names("numeric_sequence"):
            names += [f"{name}.last", f"{name}.mean"]
        names += [f"rate[{rate.name}]" for rate in self._rates]
        names += [f"history[{rate.name}]{tail}" for rate in self._histories for tail in tails]
        return tuple(names)

    def _table(self, sums: Array, total: Array) -> Array:
        """Rows and clicks by key (K, keys, 2) and in total (K, 2) -> log-odds (K, keys) relative to
        the mean rate's."""
        rate = ((total[:, 1] + 0.5) / (total[:, 0] + 1.0))[:, None]
        a = self.config.encoding_smoothing
        clicks = sums[..., 1] + a * rate
        others = sums[..., 0] - sums[..., 1] + a * (1.0 - rate)
        table: Array = np.log(clicks / others) - np.log(rate / (1.0 - rate))
        return table

    def _fold(self, block: Block) -> Array:
        """(B,) fold numbers, a hash (splitmix64) of the row number and the seed."""
        x = np.arange(block.start, block.stop, dtype=np.uint64)
        with np.errstate(over="ignore"):
            x += np.uint64(self._seed + 1) * np.uint64(0x9E3779B97F4A7C15)
            x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            x ^= x >> np.uint64(31)
        return (x % np.uint64(self.config.encoding_folds)).astype(np.int64)


def _size(features: FeatureMap, name: str) -> int:
    return features[name].vocab_size or 0


def _correlation(sums: Array, total: Array) -> Array:
    """(V,) largest correlation |r| between an id's counts and the label; |t| grows with |r|.

    sums: (V, H, 3) from `add_moments`; total: rows and clicks.
    """
    n, clicks = total
    x, squares, products = sums[..., 0], sums[..., 1], sums[..., 2]
    covariance = products - x * clicks / n
    variance = np.maximum(squares - x * x / n, 0.0) * (clicks - clicks * clicks / n)
    r = np.divide(covariance, np.sqrt(variance), out=np.zeros_like(x), where=variance > 0)
    largest: Array = np.abs(r).max(1)
    return largest
