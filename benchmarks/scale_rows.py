"""Cost and speed-up of Ray workers in preparing and scoring. Synthetic data in the Toss layout.

For both steps, on a folder of parquet files, without the start of Ray:

    *_efficiency     time of one worker / (2 x time of two workers)
    *_against_local  time of one process without Ray (threads on all cores) / time of two workers of
                     one core each
    *_identical      whether the results are those without Ray: the store byte for byte; submissions
                     with the same ids and probabilities within 1e-6, as rounding depends on the
                     number of threads (byte for byte with OMP_NUM_THREADS=1)
    score_error      the largest difference of probabilities
    *_start_s        time from requesting two workers to the end of their first, tiny task
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import harness
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import torch
from rawdata import full_dataset, store_content, write_files

from tossctr.cluster.tasks import workers
from tossctr.data.executor import Executor
from tossctr.data.prepare import prepare
from tossctr.data.preparing import passes
from tossctr.data.synthetic import synthesize
from tossctr.families.experiment import load_experiment
from tossctr.inference import resumable
from tossctr.inference.predict import BATCH_ROWS
from tossctr.pipeline.submit import submit
from tossctr.runs.run import Run
from tossctr.runs.train import train

Step = Callable[[Path, str, Executor | None], dict[str, bytes]]  # (data, name) -> the files made


def preparing(root: Path) -> Step:
    """A step that prepares `tossctr_full`."""

    def step(data: Path, name: str, executor: Executor | None) -> dict[str, bytes]:
        dataset = full_dataset(data, root / name)
        return store_content(prepare(dataset, force=True, executor=executor).folder)

    return step


def scoring(run: Run, root: Path) -> Step:
    """A step that writes a submission."""

    def step(data: Path, name: str, executor: Executor | None) -> dict[str, bytes]:
        output = root / f"{name}.csv"
        submit(
            run,
            data=data,
            sample=None,
            output=output,
            device=torch.device("cpu"),
            fresh=True,
            executor=executor,
        )
        return {"submission": output.read_bytes()}

    return step


def probability_error(made: dict[str, bytes], other: dict[str, bytes]) -> float:
    """Largest difference between two submissions; infinite if their ids differ."""
    (ids, ours), (other_ids, theirs) = (
        pyarrow.csv.read_csv(pa.py_buffer(m["submission"])).columns for m in (made, other)
    )
    if ids != other_ids:
        return float("inf")
    return float(np.abs(ours.to_numpy() - theirs.to_numpy()).max())


def measure(name: str, step: Step, data: Path, few: Path) -> dict[str, object]:
    """One step with zero, one and two workers, each warmed up on `few` rows."""
    seconds: dict[int, float] = {}
    made: list[dict[str, bytes]] = []
    start_s = 0.0
    for count in (0, 1, 2):
        engine: AbstractContextManager[Executor | None] = workers(count) if count else nullcontext()
        asked = time.monotonic()
        with engine as executor:
            step(few, f"few{count}", executor)
            start = time.monotonic()
            start_s = start - asked
            made.append(step(data, f"all{count}", executor))
            seconds[count] = time.monotonic() - start
    errors = {}
    identical = all(other == made[0] for other in made)
    if "submission" in made[0]:
        errors[f"{name}_error"] = max(probability_error(made[0], other) for other in made[1:])
        identical = errors[f"{name}_error"] <= 1e-6
    return {
        f"{name}_s": " ".join(f"{seconds[n]:.1f}" for n in seconds),
        f"{name}_efficiency": seconds[1] / (2 * seconds[2]),
        f"{name}_against_local": seconds[0] / seconds[2],
        f"{name}_identical": identical,
        **errors,
        f"{name}_start_s": start_s,
    }


def prepare_step(folder: Path, rows: int) -> dict[str, object]:
    """Figures of preparing `rows` rows."""
    folder.mkdir()
    table = pq.read_table(synthesize(folder, rows, 1).train)
    data, few = (
        write_files(table, folder / "all"),
        write_files(table.slice(0, 4800), folder / "few"),
    )
    before, passes.SPAN_ROWS = passes.SPAN_ROWS, 1  # one task per file
    try:
        return measure("prepare", preparing(folder), data, few)
    finally:
        passes.SPAN_ROWS = before


def score_step(folder: Path, rows: int) -> dict[str, object]:
    """Figures of scoring `rows` rows with FESeq_toy."""
    folder.mkdir()
    raw = synthesize(folder, 2000, rows)
    keys = [f"data_root={folder}", f"train_data={raw.train}", "sample_submission=null", "epochs=1"]
    experiment = load_experiment(harness.CONFIGS, "FESeq_toy", [*keys, f"model_root={folder}"])
    run = train(experiment, prepare(experiment.dataset), torch.device("cpu"), folder / "run")
    table = pq.read_table(raw.test)
    few = write_files(table.slice(0, 2 * BATCH_ROWS), folder / "few")
    before, resumable.CHUNK_ROWS = resumable.CHUNK_ROWS, BATCH_ROWS
    try:
        return measure("score", scoring(run, folder), write_files(table, folder / "all"), few)
    finally:
        resumable.CHUNK_ROWS = before


def main() -> None:
    options = harness.arguments(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as root:
        figures = {"prepare_rows": 48_000 if options.quick else 400_000}
        figures["score_rows"] = 8 * BATCH_ROWS if options.quick else 48 * BATCH_ROWS
        figures |= prepare_step(Path(root) / "prepare", figures["prepare_rows"])
        figures |= score_step(Path(root) / "score", figures["score_rows"])
    harness.finish(figures, options.json)


if __name__ == "__main__":
    main()
