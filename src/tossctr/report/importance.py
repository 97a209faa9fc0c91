"""Permutation importance of fields, and attention to events by age."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from tossctr.data.rows import EncodedRows, RaggedArray
from tossctr.inference.predict import FittedModel, predict_rows
from tossctr.progress import track
from tossctr.report.delong import drop_interval
from tossctr.report.sample import Scored, subset

SCORINGS = 16_000  # rows to score in total, over all fields
ROWS = (256, 2_000)  # minimum and maximum of rows per field
ATTENTION_ROWS = 512
MAX_SINGLE = 20  # more numeric fields than this are shuffled in groups of similar names
SEED = 2024

Shuffle = Callable[[EncodedRows, np.random.Generator], EncodedRows]


@dataclass(frozen=True)
class Importance:
    """AUC lost when a field is shuffled among rows (Breiman 2001; Fisher et al. 2019).

    Attributes:
        name: of the field, or of a group of numeric fields.
        drop: decrease in AUC; about 0 for a field without effect.
        half_width: half its 95 % interval over rows.
    """

    name: str
    drop: float
    half_width: float


@dataclass(frozen=True)
class Attention:
    """Attention of the target to past events, by their age.

    Attributes:
        low, high: range of ages of each bin; the newest event has age 1.
        relative: mean attention weight per event of the bin, relative to that of uniform attention.
    """

    low: tuple[int, ...]
    high: tuple[int, ...]
    relative: NDArray[np.float64]


def importance(
    run: FittedModel, valid: EncodedRows, scored: Scored, device: torch.device
) -> tuple[list[Importance], int]:
    """Permutation importance on a sample of validation rows, in descending order, and the size of
    the sample.

    Up to a quarter of the sample are clicks: that narrows the interval, and AUC does not depend on
    the click rate.
    """
    shuffles = _shuffles(valid)
    rng = np.random.default_rng(SEED)
    room = int(np.clip(SCORINGS / (len(shuffles) + 1), *ROWS))
    chosen = _oversample_clicks(scored.label, room, rng)
    rows = subset(valid, scored.row[chosen])
    label, before = scored.label[chosen], scored.logit[chosen]
    found = []
    with track("field importance", len(shuffles) * len(chosen)) as advance:
        for name, shuffle in shuffles.items():
            after = predict_rows(run, shuffle(rows, rng), device=device)
            found.append(Importance(name, *drop_interval(label, before, after)))
            advance(len(chosen))
    return sorted(found, key=lambda one: -one.drop), len(chosen)


def _oversample_clicks(
    label: NDArray[np.float64], room: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    clicks, others = np.flatnonzero(label > 0.5), np.flatnonzero(label <= 0.5)
    take = min(len(clicks), max(room // 4, room - len(others)))
    kept = [rng.permutation(clicks)[:take], rng.permutation(others)[: room - take]]
    return np.sort(np.concatenate(kept))


def _shuffles(rows: EncodedRows) -> dict[str, Shuffle]:
    """For each field or group a function that shuffles only that."""
    found: dict[str, Shuffle] = {}
    features = rows.features
    for i, name in enumerate(features.names("categorical")):
        found[name] = _column("categorical", [i])
    sequences = (*rows.sequences, *rows.time_sequences)
    if sequences:
        found["history" if len(sequences) > 1 else f"{sequences[0]} (history)"] = _histories
    if len(rows.sequences) > 1:
        found |= {f"{name} (of events)": _events(name) for name in rows.sequences}
    for name, columns in _groups(features.names("numeric")).items():
        found[name] = _column("numeric", columns)
    for i, name in enumerate(features.names("time")):
        found[name] = _column("times", [i])
    return found


def _groups(names: tuple[str, ...]) -> dict[str, list[int]]:
    """Columns by field name; if there are many, grouped by the name before a number: feat_a_1 to
    feat_a_18."""
    groups: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        group = re.sub(r"_?\d+$", "", name) if len(names) > MAX_SINGLE else name
        groups.setdefault(group, []).append(i)
    return {
        name if len(columns) == 1 else f"{name}_* ({len(columns)})": columns
        for name, columns in groups.items()
    }


def _column(kind: str, columns: list[int]) -> Shuffle:
    def shuffle(rows: EncodedRows, rng: np.random.Generator) -> EncodedRows:
        matrix = getattr(rows, kind).copy()
        matrix[:, columns] = matrix[rng.permutation(len(rows))][:, columns]
        return replace(rows, **{kind: matrix})

    return shuffle


def _histories(rows: EncodedRows, rng: np.random.Generator) -> EncodedRows:
    order = rng.permutation(len(rows))  # one order, as all sequences describe the same events

    def permute(arrays: Mapping[str, RaggedArray]) -> dict[str, RaggedArray]:
        return {name: array.take(order) for name, array in arrays.items()}

    sequences, times = permute(rows.sequences), permute(rows.time_sequences)
    return replace(rows, sequences=sequences, time_sequences=times)


def _events(name: str) -> Shuffle:
    def shuffle(rows: EncodedRows, rng: np.random.Generator) -> EncodedRows:
        array = rows.sequences[name]
        mixed = RaggedArray(rng.permutation(array.values), array.offsets)
        return replace(rows, sequences={**rows.sequences, name: mixed})

    return shuffle


def attention(
    run: FittedModel, valid: EncodedRows, scored: Scored, device: torch.device
) -> Attention | None:
    """Attention of the target to its history, averaged over blocks, heads and rows; None for a
    model without attention."""
    rng = np.random.default_rng(SEED)
    rows = subset(valid, scored.row[_oversample_clicks(scored.label, ATTENTION_ROWS, rng)])
    found = run.model.attention(rows, device)
    if found is None:
        return None
    low, high = _age_bins(len(found.events) - 1)
    if not low:
        return None
    bins = [slice(a, b + 1) for a, b in zip(low, high, strict=True)]
    weight, uniform = (
        np.array([of[b].sum() / found.events[b].sum() for b in bins])
        for of in (found.weight, found.uniform)
    )
    return Attention(low, high, weight / uniform)


def _age_bins(oldest: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """1, 2, 3-4, 5-8, ... up to the oldest."""
    low, high, start = [], [], 1
    while start <= oldest:
        end = 1 if start == 1 else min(2 * (start - 1), oldest)
        low.append(start)
        high.append(end)
        start = end + 1
    return tuple(low), tuple(high)
