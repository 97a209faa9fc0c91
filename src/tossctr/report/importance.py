"""What a model leans on: fields whose shuffling costs AUC, and events that it attends to."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tossctr.data.loader import RowsDataset
from tossctr.data.rows import EncodedRows, RaggedArray
from tossctr.inference.predict import predict_rows
from tossctr.models.explain import explain
from tossctr.models.feseq import FESeq
from tossctr.progress import track
from tossctr.report.sample import Scored, gathered, subset
from tossctr.report.uncertainty import drop_interval
from tossctr.runs.run_folder import Run
from tossctr.training.device import part_events
from tossctr.training.networks import Network

SCORINGS = 16_000  # rows scored in all, over all fields
ROWS = (256, 2_000)  # of each field at least and at most
ATTENTION_ROWS = 512
NUMERIC_ALONE = 20  # more numbers than this are shuffled by their families
SEED = 2024

Shuffle = Callable[[EncodedRows, np.random.Generator], EncodedRows]


@dataclass(frozen=True)
class Importance:
    """AUC lost when a field is shuffled among rows (Breiman 2001; Fisher et al. 2019).

    Attributes:
        name: of the field, or of a family of numbers.
        drop: AUC lost; about 0 for a field that does not matter.
        half_width: of its 95% interval over rows.
    """

    name: str
    drop: float
    half_width: float


@dataclass(frozen=True)
class Attention:
    """Where the target's attention goes, by how many events ago.

    Attributes:
        low, high: the ages of each bin, the newest event 1.
        weight: mean over rows of the attention to a bin's events (their sum, of 1 a row that the
            target has for itself and its history), per event that is there.
        even: the same if all events, the target included, had the same weight.
        own: mean attention of the target to itself.
    """

    low: tuple[int, ...]
    high: tuple[int, ...]
    weight: tuple[float, ...]
    even: tuple[float, ...]
    own: float
    rows: int


def importance(
    run: Run, valid: EncodedRows, scored: Scored, device: torch.device
) -> tuple[list[Importance], int]:
    """Permutation importance on some validation rows, clicks first; the most important first, and
    how many rows it was measured on.

    AUC does not depend on the share of clicks, so up to a quarter of the rows are clicks, which
    narrows the interval.
    """
    shuffles = _shuffles(valid)
    rng = np.random.default_rng(SEED)
    room = int(np.clip(SCORINGS / (len(shuffles) + 1), *ROWS))
    chosen = _clicks_first(scored.label, room, rng)
    rows = subset(valid, scored.row[chosen])
    label, before = scored.label[chosen], scored.logit[chosen]
    found = []
    with track("field importance", len(shuffles) * len(chosen)) as advance:
        for name, shuffle in shuffles.items():
            after = predict_rows(run, shuffle(rows, rng), device=device)
            found.append(Importance(name, *drop_interval(label, before, after)))
            advance(len(chosen))
    return sorted(found, key=lambda one: -one.drop), len(chosen)


def _clicks_first(
    label: NDArray[np.float64], room: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    clicks, others = np.flatnonzero(label > 0.5), np.flatnonzero(label <= 0.5)
    take = min(len(clicks), max(room // 4, room - len(others)))
    kept = [rng.permutation(clicks)[:take], rng.permutation(others)[: room - take]]
    return np.sort(np.concatenate(kept))


def _shuffles(rows: EncodedRows) -> dict[str, Shuffle]:
    """For each field (or family) what shuffles it and nothing else."""
    found: dict[str, Shuffle] = {}
    features = rows.features
    for i, name in enumerate(features.names("categorical")):
        found[name] = _column("categorical", [i])
    sequences = (*rows.sequences, *rows.time_sequences)
    if sequences:
        found["history" if len(sequences) > 1 else f"{sequences[0]} (history)"] = _histories
    if len(rows.sequences) > 1:
        found |= {f"{name} (of events)": _events(name) for name in rows.sequences}
    for name, columns in _families(features.names("numeric")).items():
        found[name] = _column("numeric", columns)
    for i, name in enumerate(features.names("time")):
        found[name] = _column("times", [i])
    return found


def _families(names: tuple[str, ...]) -> dict[str, list[int]]:
    """Columns by name; of many, by what precedes their number: feat_a_1 to feat_a_18."""
    families: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        family = re.sub(r"_?\d+$", "", name) if len(names) > NUMERIC_ALONE else name
        families.setdefault(family, []).append(i)
    return {
        name if len(columns) == 1 else f"{name}_* ({len(columns)})": columns
        for name, columns in families.items()
    }


def _column(kind: str, columns: list[int]) -> Shuffle:
    def shuffle(rows: EncodedRows, rng: np.random.Generator) -> EncodedRows:
        matrix = getattr(rows, kind).copy()
        matrix[:, columns] = matrix[rng.permutation(len(rows))][:, columns]
        return replace(rows, **{kind: matrix})

    return shuffle


def _histories(rows: EncodedRows, rng: np.random.Generator) -> EncodedRows:
    order = rng.permutation(len(rows))  # the same for all: they are of the same events

    def moved(arrays: Mapping[str, RaggedArray]) -> dict[str, RaggedArray]:
        return {name: gathered(array, order) for name, array in arrays.items()}

    return replace(rows, sequences=moved(rows.sequences), time_sequences=moved(rows.time_sequences))


def _events(name: str) -> Shuffle:
    def shuffle(rows: EncodedRows, rng: np.random.Generator) -> EncodedRows:
        array = rows.sequences[name]
        mixed = RaggedArray(rng.permutation(array.values), array.offsets)
        return replace(rows, sequences={**rows.sequences, name: mixed})

    return shuffle


def attention(
    run: Run, valid: EncodedRows, scored: Scored, device: torch.device
) -> Attention | None:
    """Attention of the target to its history by recency, mean over blocks, heads and rows; None
    for a model without it."""
    if not isinstance(run.model, Network) or not isinstance(run.model.module, FESeq):
        return None
    rng = np.random.default_rng(SEED)
    rows = subset(valid, scored.row[_clicks_first(scored.label, ATTENTION_ROWS, rng)])
    model = run.model.module.to(device)
    batch = RowsDataset(rows)[np.arange(len(rows))]
    weight, even, present, own, seen = (np.zeros(0) for _ in range(5))
    for part in batch.split(part_events(device)):
        found = explain(model, part.to(device))
        if not found.attention:
            return None
        mean = torch.stack([block.mean(dim=1) for block in found.attention]).mean(dim=0)
        age = found.events.age.cpu().numpy()
        given = mean.double().cpu().numpy()
        row = found.events.row.cpu().numpy()
        # Of an event of a row of length T, its share if all had the same.
        same = 1 / np.bincount(row)[row]
        weight = _added(weight, np.bincount(age, given))
        even = _added(even, np.bincount(age, same))
        present = _added(present, np.bincount(age).astype(float))
        own = np.append(own, given[age == 0].sum())
        seen = np.append(seen, float((age == 0).sum()))
    low, high = _age_bins(len(present) - 1)
    if not low:
        return None
    pick = [slice(a, b + 1) for a, b in zip(low, high, strict=True)]
    return Attention(
        low=low,
        high=high,
        weight=tuple(float(weight[p].sum() / present[p].sum()) for p in pick),
        even=tuple(float(even[p].sum() / present[p].sum()) for p in pick),
        own=float(own.sum() / seen.sum()),
        rows=len(rows),
    )


def _added(total: NDArray[Any], more: NDArray[Any]) -> NDArray[Any]:
    out = np.zeros(max(len(total), len(more)))
    out[: len(total)] += total
    out[: len(more)] += more
    return out


def _age_bins(oldest: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """1, 2, 3-4, 5-8, ... up to the oldest."""
    low, high, start = [], [], 1
    while start <= oldest:
        end = 1 if start == 1 else min(2 * (start - 1), oldest)
        low.append(start)
        high.append(end)
        start = end + 1
    return tuple(low), tuple(high)
