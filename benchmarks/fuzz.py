"""Are broken, strange and hostile inputs handled, or refused with a one-line message?

Parquet and CSV files, YAML configs and model folders are mutated at random (bytes, columns, types,
values; model folders also with corrected hashes) and passed to the code of `prepare` and `predict`
and to the config reader. Half of the cases mutate prepared data, runs, folds and blends, and run a
command on them (`fuzz_folders.py`). A case fails if it ends with anything but a result, a
`UserError` or an `OSError` about a file, takes longer than `TIMEOUT` seconds, or does not predict
one probability per row.

    cases          inputs tried
    refused        cases that ended with a one-line message
    tracebacks     cases that ended with another exception, or killed the process
    hangs          cases that took too long
    wrong_outputs  cases with outputs of a wrong length, or values that are no probabilities
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import fuzz_folders
import harness
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import torch
from mutations import flip, mutated_table, spoil

from tossctr.config.schema import Experiment
from tossctr.data.prepare import prepare
from tossctr.data.synthetic import synthesize
from tossctr.errors import UserError
from tossctr.families.experiment import load_experiment
from tossctr.files import sha256_of
from tossctr.pipeline.submit import submit
from tossctr.progress import console
from tossctr.runs.checks import check_model
from tossctr.runs.run_folder import HASHED, load_run
from tossctr.runs.train import train

CPU = torch.device("cpu")
TIMEOUT = 30
BATCH = 25  # cases of one process
ROWS = 200
YAML = ["null", "~", "-1", "0", "1e400", ".nan", "[]", "{}", "[1, [2]]", "'text'", "../../x", "yes",
        "!!python/object:os.system x", "&a [*a]", "2024-13-01", "|", "\t", "💥", '"', "*undefined",
        "9" * 400, "{<<: 3}", "? [a]", "@"]  # fmt: skip


@dataclass(frozen=True)
class World:
    """What is mutated: raw files, an experiment, a run, and the project of `fuzz_folders`."""

    root: Path
    experiment: Experiment
    run: Path
    project: Path


def world(root: Path) -> World:
    shutil.copytree(harness.CONFIGS, root / "configs")
    synthesize(root / "data" / "toy", 600, ROWS, seed=5)
    keys = ["epochs=1", "max_len=8", "num_workers=0", "valid_split.method=stratified"]
    experiment = load_experiment(root / "configs", "FESeq_toy", keys)
    run = train(experiment, prepare(experiment.dataset), CPU, root / "run")
    return World(root, experiment, run.folder, fuzz_folders.make_project(root / "project"))


def data_file(world: World, folder: Path, draw: random.Random, part: str) -> Path:
    table = pq.read_table(world.root / "data" / "toy" / f"{part}.parquet")
    if draw.random() < 0.6:
        table = mutated_table(table, draw)
    path = folder / f"{part}.{draw.choice(['parquet', 'csv'])}"
    try:
        if path.suffix == ".csv":
            pyarrow.csv.write_csv(table, path)
        else:
            pq.write_table(table, path, row_group_size=draw.choice([7, 64, 1000]))
    except (pa.ArrowException, OSError, ValueError):
        path = path.with_suffix(".parquet")
        pq.write_table(table.slice(0, 0).select([]), path)
    if draw.random() < 0.5:
        path.write_bytes(flip(path.read_bytes(), draw))
    if draw.random() < 0.1:
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    return path


def try_train_file(world: World, folder: Path, draw: random.Random) -> str | None:
    keys = {"train_data": data_file(world, folder, draw, "train"), "data_root": folder}
    done = prepare(world.experiment.dataset.model_copy(update=keys))
    short = len(done.train) + len(done.valid) > 602  # the rows, and two duplicated ones
    return "more rows than the file" if short else None


def try_test_file(world: World, folder: Path, draw: random.Random) -> str | None:
    return scored(world.run, data_file(world, folder, draw, "test"), folder / "out.csv")


def scored(run_folder: Path, data: Path, output: Path) -> str | None:
    """Score a file; return an error in the output, if any."""
    run = load_run(run_folder)
    rows, _ = submit(run, data=data, sample=None, output=output, device=CPU)
    # Only the numbers are read: mutations may turn "ID" into anything.
    options = pyarrow.csv.ConvertOptions(include_columns=["clicked"])
    parsing = pyarrow.csv.ParseOptions(newlines_in_values=True)
    column = pyarrow.csv.read_csv(output, convert_options=options, parse_options=parsing)[0]
    inside = pc.and_(pc.greater_equal(column, 0), pc.less_equal(column, 1))
    if len(column) != rows or not pc.all(inside).as_py() or column.null_count:
        return "not one probability per row"
    if data.suffix == ".parquet" and pq.ParquetFile(data).metadata.num_rows != rows:
        return "another number of rows than the file"
    return None


def try_config(world: World, folder: Path, draw: random.Random) -> str | None:
    configs = Path(shutil.copytree(world.root / "configs", folder / "configs"))
    keys: list[str] = []
    if draw.random() < 0.3:
        key = draw.choice(["max_len", "seed", "train_data", "monitor", "feature_cols", "", "a.b.c"])
        keys = [f"{key}={draw.choice(YAML)}"]
    else:
        path = draw.choice([p for p in configs.rglob("*.yaml") if p.is_file()])
        if draw.random() < 0.5:
            path.write_bytes(flip(path.read_bytes(), draw))
        else:
            lines = path.read_text().splitlines()
            at = draw.randrange(len(lines))
            head, colon, _ = lines[at].partition(":")
            lines[at] = f"{head}{colon} {draw.choice(YAML)}"
            path.write_text("\n".join(lines))
    check_model(load_experiment(configs, "FESeq_toy", keys))
    return None


def try_model(world: World, folder: Path, draw: random.Random) -> str | None:
    run = Path(shutil.copytree(world.run, folder / "run"))
    path = run / draw.choice([*HASHED, *HASHED[:3], "metrics.json", "run.json"])
    if path.suffix == ".json" and draw.random() < 0.8:
        content = json.loads(path.read_text())
        spoil(content, draw)
        path.write_text(json.dumps(content))
    else:
        path.write_bytes(flip(path.read_bytes(), draw))
    if path.name != "run.json" and draw.random() < 0.9:
        about = json.loads((run / "run.json").read_text())
        about["sha256"] = {name: sha256_of(run / name) for name in HASHED}
        (run / "run.json").write_text(json.dumps(about))
    return scored(run, world.root / "data" / "toy" / "test.parquet", folder / "out.csv")


def try_folder(world: World, folder: Path, draw: random.Random) -> str | None:
    refused, wrong = fuzz_folders.attempt(world.project, draw)
    if refused and wrong is None:
        raise UserError("refused")  # the message is on standard error
    return wrong


KINDS = (try_train_file, try_test_file, try_config, try_model, *[try_folder] * 4)


class Hang(BaseException):
    pass


def one(world: World, seed: int, case: int) -> tuple[str, str]:
    """Run a case; return its outcome and details."""
    draw = random.Random(f"{seed}/{case}")
    attempt = KINDS[case % len(KINDS)]

    def hang(*_: object) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, hang)
    with tempfile.TemporaryDirectory() as name:
        signal.alarm(TIMEOUT)
        try:
            wrong = attempt(world, Path(name), draw)
            return ("wrong_outputs", wrong) if wrong else ("handled", "")
        except UserError as error:
            return "refused", error.line()
        except OSError as error:
            if error.filename is None:  # the command line prints it in one line
                return "tracebacks", traceback.format_exc()
            return "refused", str(error)
        except Hang:
            return "hangs", traceback.format_exc()
        except Exception:
            return "tracebacks", traceback.format_exc()
        finally:
            signal.alarm(0)


def batch(world: World, seed: int, cases: range) -> list[tuple[int, str, str]]:
    """Run cases in a separate process, to survive a crash."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        with os.fdopen(write, "w") as out:
            for case in cases:
                out.write(json.dumps([case, *one(world, seed, case)]) + "\n")
                out.flush()
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as lines:
        results = [tuple(json.loads(line)) for line in lines]
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code and len(results) < len(cases):
        case = cases[len(results)]
        results.append((case, "tracebacks", f"the process died with {code}"))
        results += batch(world, seed, range(case + 1, cases.stop)) if case + 1 in cases else []
    return results


def measure(cases: int, seed: int) -> dict[str, int]:
    console.quiet = True
    torch.set_num_threads(1)  # a forked process hangs in the OpenMP threads of its parent
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        made = world(Path(name))
        for start in range(0, cases, BATCH):
            for case, outcome, more in batch(made, seed, range(start, min(start + BATCH, cases))):
                counts[outcome] += 1
                if outcome not in ("handled", "refused") or os.environ.get("FUZZ_SHOW"):
                    print(f"case {case} ({KINDS[case % len(KINDS)].__name__}): {outcome}: {more}",
                          file=sys.stderr)  # fmt: skip
    names = ("refused", "tracebacks", "hangs", "wrong_outputs")
    return {"cases": sum(counts.values()), **{name: counts[name] for name in names}}


def main() -> None:
    parser = harness.arguments(__doc__)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    figures = measure(100 if options.quick else options.cases, options.seed)
    harness.finish(figures, options.json)


if __name__ == "__main__":
    main()
