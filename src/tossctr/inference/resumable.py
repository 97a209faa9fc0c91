"""Predictions of a large file that resume after a kill: finished chunks are files next to the
output."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pydantic_core
import torch

from tossctr.artefact import opened
from tossctr.data.encoder import EncodingReport
from tossctr.data.executor import Executor
from tossctr.data.preparing.fingerprint import Inputs
from tossctr.data.sources.opening import open_source
from tossctr.errors import UserError
from tossctr.files import whole_file
from tossctr.folders import MADE_FROM, made_from_of, mark, remove_made, write_made_from
from tossctr.inference.predict import BATCH_ROWS, Predictions
from tossctr.inference.predictor import Predictor
from tossctr.location import Location, name_of
from tossctr.progress import say, track

VERSION = 2
CHUNK_ROWS = 16 * BATCH_ROWS
_KEY = b"tossctr"

Chunk = tuple[Predictions, EncodingReport]  # and the counts of its rows


def chunks_folder(output: Path) -> Path:
    """The folder of the chunks of an output."""
    return output.with_name(f".{output.name}.scores")


def predict_resumable(
    run: Predictor,
    path: Location,
    folder: Path,
    *,
    device: torch.device,
    id_col: str | None,
    report: EncodingReport,
    fresh: bool = False,
    executor: Executor | None = None,
) -> Iterator[Predictions]:
    """As `Predictor.logits` with ids, but chunks that an interrupted call left in `folder` are read
    instead of predicted again. The caller removes the folder.

    Args:
        executor: workers that score, each a range of rows at a time; None: this process.

    Raises:
        UserError: as `Predictor.logits`; the file changed while it was read; or workers cannot
            share it.
    """
    with Inputs({"data": path}) as inputs:
        made_from = {
            "version": VERSION,
            "run": run.digest,
            "id_col": id_col,
            "device": device.type,
            "rows": [BATCH_ROWS, CHUNK_ROWS],
        }
        if fresh or not _is_of(folder, made_from, inputs):
            remove_made(folder, "scores")
        inputs.start_hashing()
        number = start = 0
        while (found := _read(folder / _name(number), start)) is not None:
            chunk, counted = found
            report.merge(counted)
            number, start = number + 1, start + len(chunk.logit)
            yield chunk
        if start:
            say(f"{start:,} rows already predicted by an interrupted command")
        scored = _score_locally if executor is None else partial(_score_on_workers, executor)
        for chunk, counted in scored(run, path, device, id_col, start):
            if counted.rows == CHUNK_ROWS:
                if not (folder / MADE_FROM).exists():
                    mark(folder, "scores")
                    write_made_from(folder, {**made_from, "inputs": inputs.as_dict()})
                _write(folder / _name(number), chunk, start, counted)
            report.merge(counted)
            number, start = number + 1, start + counted.rows
            yield chunk
        if not report.rows:
            raise UserError("has no rows to score", file=path)
        inputs.as_dict()


def _score_locally(
    run: Predictor, path: Location, device: torch.device, id_col: str | None, start: int
) -> Iterator[Chunk]:
    """The rows from `start` on, in chunks of `CHUNK_ROWS`."""
    gathered: list[Predictions] = []
    counts = EncodingReport()
    for batch in run.logits(
        path, device=device, id_col=id_col, report=counts, start=start, batch_rows=BATCH_ROWS
    ):
        gathered.append(batch)
        if counts.rows >= CHUNK_ROWS:
            yield _joined(gathered), counts.drain()
            gathered = []
    if gathered:
        yield _joined(gathered), counts


def _score_on_workers(
    executor: Executor,
    run: Predictor,
    path: Location,
    device: torch.device,
    id_col: str | None,
    start: int,
) -> Iterator[Chunk]:
    """The same, each chunk read and predicted by one worker."""
    if isinstance(path, Path):
        path = path.absolute()  # workers have folders of their own
    if device.type == "cuda":
        device = torch.device("cuda", 0)  # each worker sees only its GPU, as number 0
    source = open_source(path, {}, encoded=run.experiment.dataset.encoded)
    if source.ends is None or source.num_rows is None:
        raise UserError(
            "workers cannot share a file of this format",
            file=path,
            remedy="write it as Parquet, or score it with --engine local",
        )
    rows = range(source.num_rows)
    spans = (rows[at : at + CHUNK_ROWS] for at in rows[start::CHUNK_ROWS])
    score = partial(_score, run, path, device, id_col)
    with (
        track(f"score {name_of(path)}", source.num_rows) as advance,
        closing(executor.map(score, spans)) as chunks,
    ):
        advance(start)
        for chunk, counted in chunks:
            yield chunk, counted
            advance(counted.rows)


def _score(
    run: Predictor, path: Location, device: torch.device, id_col: str | None, rows: range
) -> Chunk:
    counts = EncodingReport()
    chunks = run.logits(
        path,
        device=device,
        id_col=id_col,
        report=counts,
        start=rows.start,
        stop=rows.stop,
        batch_rows=BATCH_ROWS,
    )
    return _joined(list(chunks)), counts


def _is_of(folder: Path, made_from: Mapping[str, Any], inputs: Inputs) -> bool:
    made = made_from_of(folder, "scores") or {}
    try:
        return {**made_from, "inputs": made["inputs"]} == made and inputs.same_as(made["inputs"])
    except (KeyError, TypeError, AttributeError):
        return False


def _name(number: int) -> str:
    return f"{number:06d}.parquet"


def _joined(chunks: list[Predictions]) -> Predictions:
    ids = pa.concat_arrays([p.id.cast(pa.large_string()) for p in chunks])
    return Predictions(np.concatenate([p.logit for p in chunks]), None, ids)


def _write(path: Path, chunk: Predictions, start: int, report: EncodingReport) -> None:
    about = json.dumps({"start": start, "report": report.as_dict()})
    table = pa.table({"id": chunk.id, "logit": chunk.logit}).replace_schema_metadata({_KEY: about})
    with whole_file(path) as temporary:
        pq.write_table(table, temporary, write_page_checksum=True)


def _read(path: Path, start: int) -> tuple[Predictions, EncodingReport] | None:
    """A chunk and the counts of its rows; None if it is missing or damaged."""
    try:
        with opened(path) as file:
            table = pq.read_table(file, page_checksum_verification=True)
        about = pydantic_core.from_json(table.schema.metadata[_KEY])
        if about["start"] != start or table.num_rows == 0:
            return None
        ids = table.column("id").combine_chunks()
        logit = table.column("logit").to_numpy().astype(np.float64)
        return Predictions(logit, None, ids), EncodingReport.from_dict(about["report"])
    except (UserError, OSError, pa.ArrowException, ValueError, KeyError, TypeError):
        return None
