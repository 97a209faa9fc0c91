"""Mutations of what commands read besides raw files and configs: prepared data, runs, folds,
blends, held-out predictions, calibrations and searches. Whoever sends a folder could change them.

In one file at a time bytes, values or structure are changed, or it is replaced by a pipe, a link, a
folder, or another artefact; then the hashes of it are corrected, or left wrong.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from fault_cases import BLEND, CONFIG, CONFIGS, CPU, EXPORT, FOLDS, NET, PREPARE, TREES
from mutations import flip, spoil
from signing import NOT_READ, plain, sign

from tossctr.calibration.held_out import columns_digest
from tossctr.cli import main as tossctr
from tossctr.data.synthetic import synthesize

ROWS, TEST_ROWS = 240, 80
OTHER = ("train", *CONFIG, "--expid", "other", *CPU)
READ = (
    ".json",
    ".npy",
    ".parquet",
    ".safetensors",
    ".txt",
    ".csv",
    ".db",
)  # no locks, no logs
TUNE = ("tune", *CONFIG, "--expid", "trees", *CPU, "--trials")
JSON_TOKENS = ["null", "-1", "0", "1e400", "NaN", "-Infinity", "[]", "{}", '""', '"\\u0000"',
               '"../../x"', "true", "9" * 400, '"/etc/passwd"', "[" * 400, '{"a":' * 400, "1.5",
               '"x"', "18446744073709551616", '"run.json"', '"blend.json"']  # fmt: skip


def make_project(root: Path) -> Path:
    """A project with prepared data, runs, folds, a blend and a search."""
    root.mkdir()
    for name, text in CONFIGS.items():
        file = root / "configs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    synthesize(root / "data" / "toy", ROWS, TEST_ROWS, seed=5)
    with working_in(root):
        for command in (
            PREPARE, (*NET, "--set", "epochs=1"), TREES, (*TREES, *FOLDS), (*OTHER, *FOLDS),
            BLEND, (*TUNE, "1"),
        ):  # fmt: skip
            code, said = call(*command)
            if code:
                raise RuntimeError(f"{command}: {said}")
    shutil.copytree(root, root.with_name("pristine"))
    return root


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def call(*arguments: str) -> tuple[int, str]:
    """A command's exit code and what it prints to standard output."""
    out = io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out):
        try:
            tossctr(arguments)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    return code, out.getvalue()


def attempt(project: Path, draw: random.Random) -> tuple[bool, str | None]:
    """Mutate a file of the project and run a command on it.

    Returns:
        Whether the command refused, and an error in its output, if any.
    """
    shutil.rmtree(project)
    shutil.copytree(project.with_name("pristine"), project)
    files = [
        path
        for folder in ("checkpoints", "data/few")
        for path in sorted((project / folder).rglob("*"))
        if path.is_file() and path.suffix in READ
    ]
    for _ in range(draw.choice([1, 1, 1, 2])):
        # Chosen by file name first, as most files belong to folds.
        name = draw.choice(sorted({path.name for path in files}))
        path = draw.choice([path for path in files if path.name == name])
        mutate(path, files, draw)
    if draw.random() < 0.75:
        sign(project)
    command, scorer = reading(path.relative_to(project).as_posix(), draw)
    with working_in(project):
        return run_command(command, f"checkpoints/{scorer}", draw)


def reading(path: str, draw: random.Random) -> tuple[str, str]:
    """A command that reads this file, and the run, folds or blend for it."""
    scoring = ["predict"] * 3 + ["evaluate", "leaderboard", "report"]
    if path.startswith("data"):
        return draw.choice(["prepare", "train", "folds", "export", "evaluate"]), "net"
    if path.startswith("checkpoints/tune"):
        return "tune", "trees"
    if ".folds/" in path:
        own = ["trees.folds"] if path.startswith("checkpoints/trees.folds") else []
        return draw.choice([*scoring, "blend", "folds"]), draw.choice([*own, "blend"])
    return draw.choice([*scoring, "blend", "train"]), path.split("/")[1]


def run_command(command: str, scorer: str, draw: random.Random) -> tuple[bool, str | None]:
    data = ("--data", "data/toy/test.parquet")
    match command:
        case "predict":
            objective = draw.choice(["raw", "competition_score", "logloss"])
            code, _ = call("predict", *CONFIG, *CPU, "--run", scorer, *data, "--objective",
                           objective, "--output", "out.csv")  # fmt: skip
            return bool(code), odd(code) or (None if code else wrong_submission())
        case "evaluate":
            more = draw.choice([(), ("--data", "data/toy/train.parquet")])
            code, said = call("evaluate", *CONFIG, *CPU, "--run", scorer, *more, "--json",
                              "--objective", draw.choice(["raw", "logloss"]))  # fmt: skip
            return bool(code), odd(code) or (None if code else not_finite(said))
        case "leaderboard":
            code, said = call("leaderboard", "--json")
            return bool(code), odd(code) or (None if code else not_json(said))
        case "blend":
            code, _ = call(*BLEND, "--runs", draw.choice(["trees,other", "net,trees"]),
                           "--output", "checkpoints/new")  # fmt: skip
        case "train":
            code, _ = call(*draw.choice([NET, TREES]))
        case "folds":
            code, _ = call(*TREES, *FOLDS)
        case "export":
            code, _ = call(*EXPORT, draw.choice(["fuxictr-parquet", "fuxictr-h5"]))
        case "report":
            code, _ = call("report", *CPU, scorer, "--output", "report.html")
        case "tune":
            code, _ = call(*TUNE, "2")
        case _:
            code, _ = call(*PREPARE)
    return bool(code), odd(code)


def odd(code: int) -> str | None:
    return None if code in (0, 2) else f"exit code {code}"


def wrong_submission() -> str | None:
    column = pyarrow.csv.read_csv("out.csv").column(1)
    inside = pc.and_(pc.greater_equal(column, 0), pc.less_equal(column, 1))
    whole = len(column) == TEST_ROWS and pc.all(inside).as_py() and not column.null_count
    return None if whole else "not one probability per row"


def not_json(said: str) -> str | None:
    try:
        json.loads(said.splitlines()[-1])
    except (ValueError, IndexError):
        return "not JSON"
    return None


def not_finite(said: str) -> str | None:
    values = json.loads(said.splitlines()[-1])
    numbers = [v for v in values.values() if isinstance(v, float)]
    return None if np.isfinite(numbers).all() else "a metric is not finite"


def mutate(path: Path, files: list[Path], draw: random.Random) -> None:
    try:
        plain(path)
    except OSError:  # already mutated
        return
    kinds: list[Callable[[Path, random.Random], None]] = [flip_file]
    if path.suffix == ".json":
        kinds += [spoil_file] * 4 + [token_file] * 2
    if path.suffix == ".parquet":
        kinds += [change_rows] * 4
    if path.suffix == ".npy":
        kinds += [change_array] * 4
    kinds += [lambda p, d: swap(p, files, d), replace_file]
    draw.choice(kinds)(path, draw)


def flip_file(path: Path, draw: random.Random) -> None:
    path.write_bytes(flip(path.read_bytes(), draw))


def spoil_file(path: Path, draw: random.Random) -> None:
    with contextlib.suppress(ValueError):
        content = json.loads(path.read_text())
        for _ in range(draw.choice([1, 1, 3])):
            spoil(content, draw)
        path.write_text(json.dumps(content))


def token_file(path: Path, draw: random.Random) -> None:
    """Replace a value in the text by another token."""
    lines = path.read_text().split("\n")
    at = draw.randrange(len(lines))
    head, colon, _ = lines[at].rpartition(":")
    comma = "," if lines[at].endswith(",") else ""
    lines[at] = f"{head}{colon} {draw.choice(JSON_TOKENS)}{comma}"
    path.write_text("\n".join(lines))


def swap(path: Path, files: list[Path], draw: random.Random) -> None:
    """Replace the content by that of another file, of the same kind if there is one."""
    others = [p for p in files if p.suffix == path.suffix and p != path and p.is_file()]
    alike = [p for p in others if p.name == path.name]
    chosen = alike if alike and draw.random() < 0.7 else others
    if chosen:
        with contextlib.suppress(OSError):
            path.write_bytes(plain(draw.choice(chosen)).read_bytes())


def replace_file(path: Path, draw: random.Random) -> None:
    path.unlink()
    match draw.randrange(7):
        case 0:
            os.mkfifo(path)
        case 1:
            path.symlink_to(draw.choice(["/dev/zero", "/etc/passwd", "nowhere", path.name]))
        case 2:
            path.mkdir()
        case 3:
            path.write_bytes(b"")
        case 4:
            with path.open("wb") as file:
                file.truncate(1 << 40)
        case 5:
            path.write_text("[" * 100_000)


def change_rows(path: Path, draw: random.Random) -> None:
    """Other values in a column, rows or columns left out, or very many equal rows."""
    with contextlib.suppress(*NOT_READ, OverflowError):
        table = pq.read_table(path)
        at = draw.randrange(table.num_columns)
        name, kind = table.column_names[at], table.schema.field(at).type
        options = {"compression": "none", "use_dictionary": False}
        match draw.randrange(6):
            case 0 | 1:
                values = np.array(table[name].to_numpy())
                strange = [0, 1, -1, 7, 2**15 - 1, 1e300, np.nan, np.inf]
                values[draw.randrange(len(values))] = draw.choice(strange)
                table = table.set_column(at, name, pa.array(values).cast(kind))
            case 2:
                table = table.slice(0, draw.choice([0, 1, 5]))
            case 3:
                table = table.drop_columns([name])
            case 4:
                other = draw.choice([pa.string(), pa.float64(), pa.int64()])
                table = table.set_column(at, name, table[name].cast(other))
            case _:
                take = pa.array(np.zeros(3_000_000, np.int64))
                table, options = table.take(take), {"compression": "zstd"}
        columns = {n: np.ascontiguousarray(table[n].to_numpy()) for n in table.column_names}
        about = json.loads(table.schema.metadata[b"tossctr"])
        if "sha256" in about and options["compression"] == "none":
            about["sha256"] = columns_digest(columns)
        if draw.random() < 0.2:
            about[draw.choice(["prior", "part", "version", "run"])] = draw.choice([0, 1e-9, "x"])
        metadata = {b"tossctr": json.dumps(about)}
        pq.write_table(table.replace_schema_metadata(metadata), path, **options)


def change_array(path: Path, draw: random.Random) -> None:
    """Change random bytes of the values."""
    content = bytearray(path.read_bytes())
    for _ in range(draw.choice([1, 8])):
        if len(content) > 128:
            content[draw.randrange(128, len(content))] = draw.choice([0, 1, 127, 128, 255])
    path.write_bytes(content)
