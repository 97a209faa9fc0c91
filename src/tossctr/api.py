"""The Python interface: the pipeline's steps for a notebook, on data frames as well as on files."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.interchange
from numpy.typing import NDArray
from scipy.special import expit

from tossctr.config.choices import Objective
from tossctr.config.schema import DatasetConfig, Experiment
from tossctr.data.prepare import Prepared
from tossctr.data.prepare import prepare as prepare_dataset
from tossctr.errors import UserError
from tossctr.experiments.predictors import load_predictor
from tossctr.inference.calibrator import calibrator_of
from tossctr.inference.predict import BATCH_ROWS, mean_logits
from tossctr.inference.predictor import Predictor
from tossctr.pipeline.train import train_experiment
from tossctr.runs.run import Run
from tossctr.training.device import resolve_device
from tossctr.waiting import say_if_threads_spin


def prepare(config: Experiment | DatasetConfig, *, force: bool = False) -> Prepared:
    """Encode a data set's training and validation rows, in bounded memory; if nothing has changed,
    nothing is done.

    Args:
        config: an experiment (its data set is prepared) or a data set.
        force: prepare again even so.

    Raises:
        UserError: a file or value that cannot be used.
    """
    dataset = config.dataset if isinstance(config, Experiment) else config
    return prepare_dataset(dataset, force=force)


def train(experiment: Experiment, *, gpu: int | None = None, fresh: bool = False) -> Run:
    """Train an experiment, preparing its data first if necessary; an interrupted training resumes.

    Args:
        experiment: from `load_experiment`.
        gpu: its number, -1 for the CPU; None takes GPU 0 if there is one.
        fresh: start over.

    Returns:
        The run, with its best weights; `run.metrics["best"]` are those of validation.

    Raises:
        UserError: settings or data that cannot be used.
    """
    say_if_threads_spin()
    return train_experiment(experiment, resolve_device(gpu), fresh=fresh)


def load_run(folder: str | Path) -> Predictor:
    """Open the folder of a run, of the folds of one, or of a blend.

    Raises:
        UserError: nothing finished there, or a file that has changed.
    """
    return load_predictor(Path(folder))


def predict(
    run: Predictor | str | Path,
    rows: Any,
    *,
    objective: Objective | None = None,
    gpu: int | None = None,
) -> NDArray[np.float64]:
    """Click probabilities of raw rows, in their order.

    Args:
        run: from `train` or `load_run`, or the folder.
        rows: N rows with the columns of the training file (others are ignored): a data frame of
            pandas, Polars or any library that hands out Arrow data, an Arrow table, or a mapping
            from names to columns.
        objective: what probabilities are calibrated for. None takes the data set's, as `tossctr
            predict` does; `raw` leaves them as the model gives them.
        gpu: its number, -1 for the CPU; None takes GPU 0 if there is one.

    Returns:
        (N,) between 0 and 1.

    Raises:
        UserError: a missing column, or a value that cannot be encoded, by column and row; a run
            without held-out predictions to calibrate on.
        TypeError: `rows` is none of these.
    """
    say_if_threads_spin()
    opened = load_run(run) if isinstance(run, str | Path) else run
    device = resolve_device(gpu)
    chosen = calibrator_of(opened, objective or opened.objective, device)
    table = as_table(rows)
    logits = np.empty((len(opened.members), len(table)))
    for number, runs in enumerate(opened.members):
        encoder = runs[0].encoder
        columns = list(encoder.columns(labelled=False))
        _require(columns, table.column_names)
        start = 0
        for batch in _batches(table.select(columns)):
            encoded = encoder.transform(batch, first_row=start, labelled=False)
            of_runs = mean_logits(runs, encoded, device=device)
            logits[number, start : start + len(encoded)] = of_runs
            start += len(encoded)
    logit = opened.combine(logits)
    probability: NDArray[np.float64] = expit(chosen(logit))
    return probability


def write_report(
    runs: Predictor | str | Path | Sequence[Predictor | str | Path],
    output: str | Path = "report.html",
    *,
    gpu: int | None = None,
    force: bool = False,
) -> Path:
    """Write one HTML file on how good one run is, or several side by side, and why.

    Args:
        runs: runs, folds, blends or their folders, up to six.
        output: the file.
        gpu: its number, -1 for the CPU; None takes GPU 0 if there is one.
        force: replace a file there that TossCTR did not write.

    Raises:
        UserError: a run that cannot be opened, or whose prepared data are not there; an output that
            may not be replaced.
    """
    from tossctr.report.page import write_report as write

    several = [runs] if isinstance(runs, Predictor | str | Path) else runs
    folders = [run.folder if isinstance(run, Predictor) else Path(run) for run in several]
    return write(folders, Path(output), resolve_device(gpu), force=force)


def as_table(rows: Any) -> pa.Table:
    """Any data frame as an Arrow table, without a copy where its library can.

    Raises:
        TypeError: it hands out no Arrow data.
    """
    if isinstance(rows, pa.RecordBatch):
        return pa.Table.from_batches([rows])
    if isinstance(rows, pa.Table | Mapping) or hasattr(rows, "__arrow_c_stream__"):
        return pa.table(rows)
    if hasattr(rows, "to_arrow"):
        return pa.table(rows.to_arrow())
    if hasattr(rows, "__dataframe__"):
        return pa.interchange.from_dataframe(rows)
    raise TypeError(f"a data frame or an Arrow table is needed, not {type(rows).__name__}")


def _require(columns: Sequence[str], there: Sequence[str]) -> None:
    missing = [name for name in columns if name not in there]
    if missing:
        near = difflib.get_close_matches(missing[0], there, n=1)
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(
            f"the rows have no column {missing[0]!r}{more}",
            remedy=f"did you mean {near[0]!r}?" if near else "give the training file's columns",
        )


def _batches(table: pa.Table) -> list[pa.RecordBatch]:
    """Of at most `BATCH_ROWS` rows each, texts in the types that files have."""
    types = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
    schema = pa.schema(
        [field.with_type(types.get(field.type, field.type)) for field in table.schema]
    )
    batches: list[pa.RecordBatch] = table.cast(schema).to_batches(max_chunksize=BATCH_ROWS)
    return batches
