"""From a test file to a submission: calibrated probabilities in the sample's order."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow.csv
import torch
from scipy.special import logit

from tossctr.config.choices import Objective
from tossctr.config.schema import DatasetConfig
from tossctr.data.encoder import EncodingReport
from tossctr.data.executor import Executor
from tossctr.data.sources.opening import open_source
from tossctr.errors import UserError
from tossctr.files import locked
from tossctr.folders import remove_made
from tossctr.inference.calibrator import calibrator_of
from tossctr.inference.predictor import Predictor
from tossctr.inference.resumable import chunks_folder, predict_resumable
from tossctr.inference.submission import check_count, read_sample, write_submission
from tossctr.location import Location, name_of, require_readable, same_place
from tossctr.metrics.ceiling import ceiling, read_truth
from tossctr.metrics.registry import evaluate
from tossctr.outputs import check_output, is_stream
from tossctr.progress import say

ROW = "row"  # header of row numbers if there are no ids


def submit(
    run: Predictor,
    *,
    data: Location | None,
    sample: Path | None,
    output: Path,
    device: torch.device,
    dataset: DatasetConfig | None = None,
    fresh: bool = False,
    objective: Objective | None = None,
    executor: Executor | None = None,
    force: bool = False,
) -> tuple[int, EncodingReport]:
    """Write a submission for a test file. If the data set names no id column, rows are identified
    by their number, from 0.

    An interrupted call with the same run, file and output resumes, unless `fresh`. With the workers
    of an `executor` the submission is the same.

    Args:
        run: the predictor.
        data: the test file; None takes the data set's.
        sample: the sample submission; None takes the data set's where the test file is its own.
        output: the CSV to write.
        device: where to predict.
        dataset: the user's config of the data set; None takes the run's own. Its paths may
            come from somebody else, so no URL in it is opened.
        fresh: predict all rows again.
        objective: what probabilities are calibrated for; None takes the run's.
        executor: workers that predict; None: this process.
        force: replace a file that TossCTR did not write.

    Returns:
        The number of rows, and the counts of unseen and missing values.

    Raises:
        UserError: as `predict_resumable`, `write_submission` and `check_output`; a file that is
            no sample submission, before anything is predicted.
    """
    own = run.experiment.dataset
    named = dataset or own
    source = data or named.test_data
    if source is None:
        raise UserError("no test file is named", remedy="give --data, or test_data in the data set")
    if data is None and dataset is None and isinstance(source, str):
        raise UserError(
            "is a URL in the run's config, which is not opened automatically",
            file=source,
            remedy="give it with --data",
        )
    if isinstance(source, Path):
        require_readable(source)
    theirs = named.test_data
    if sample is None and theirs is not None and same_place(source, theirs):
        sample = named.sample_submission
    inputs = [source, *named.files] if sample is None else [source, sample, *named.files]
    target = check_output(output, inputs=inputs, force=force)
    wanted = None if sample is None else read_sample(sample)
    known = open_source(source, {}, encoded=own.encoded).num_rows
    if wanted is not None and known is not None:
        check_count(wanted, known)
    calibrator = calibrator_of(run, objective or run.objective, device)
    say(calibrator.describe())
    header = (own.id_col or ROW, own.label_col.name)
    report = EncodingReport()
    with (
        _kept(target) as folder,
        locked(folder.with_suffix(".lock"), f"the output {output}"),
    ):
        parts = predict_resumable(
            run,
            source,
            folder,
            device=device,
            id_col=own.id_col,
            report=report,
            fresh=fresh,
            executor=executor,
        )
        calibrated = (replace(part, logit=calibrator(part.logit)) for part in parts)
        rows = write_submission(calibrated, target, sample=wanted, header=header, force=force)
        remove_made(folder, "scores")
    report.say(name_of(source))
    return rows, report


@contextmanager
def _kept(output: Path) -> Iterator[Path]:
    """The folder of finished chunks, next to the output; for a device or a pipe a temporary one."""
    if not is_stream(output):
        yield chunks_folder(output)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield chunks_folder(Path(folder) / "submission")


def against_truth(submission: Path, truth: Path) -> dict[str, dict[str, float]]:
    """Metrics of a submission on synthetic data, and of the true click probabilities."""
    label, probability = read_truth(truth, "test")
    predicted = pyarrow.csv.read_csv(submission).column(1).to_numpy()
    return {
        "submission": evaluate(label, logit(predicted)),
        "ceiling": ceiling(label, probability),
    }
