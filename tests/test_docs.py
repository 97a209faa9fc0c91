"""Every command line of the README and the docs works; the site builds; both READMEs say the same.

A command line is a line of an indented or fenced block that begins as in `STARTS`. Each is parsed
by the real parser, with its experiment and `--set` keys looked up in `configs/`. One line of each
form (command and options) is then executed in a small project, made small by `SMALLER`. What would
take minutes even so is executed elsewhere:

    tossctr ... --workers     tests/cluster
    python scripts/...        tests/scripts, tests/test_kuairand.py
    python benchmarks/...     by hand, they are measurements; here their own parser reads the line
    make ...                  .ci/run
"""

from __future__ import annotations

import argparse
import re
import runpy
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from tossctr import cli
from tossctr.commands.examples import EXAMPLES
from tossctr.data.synthetic import synthesize
from tossctr.experiments import compare as comparison
from tossctr.experiments.recipe import load_recipe
from tossctr.families.experiment import load_dataset, load_experiment
from tossctr.progress import console

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "README.ko.md", *sorted((ROOT / "docs").glob("*.md"))]
STARTS = re.compile(r"(\.venv/bin/)?tossctr |python (scripts|benchmarks)/|make ")
BLOCK = re.compile(r"(?:^ {4}.*\n|^```.*\n(?:.*\n)*?^```\n)+", re.MULTILINE)

# Shell variables in the docs, and their values in these tests.
STANDS_FOR = {"$model": "FESeq_full"}
# In execution: models without histories are trained in a second.
SMALLER = {
    "--expid": "DCNv2_toy",
    "--expids": "DCNv2_toy,DeepFM_toy",
    "--runs": "DCNv2_toy,DeepFM_toy",
    "--recipe": "small",
    "--dataset": "tossctr_toy",
    "--rows": "3000",
    "--test-rows": "300",
    "--synth-rows": "3000",
    "--folds": "2",
    "--seeds": "1",
    "--trials": "2",
    "--gpu": "-1",
}
PLACES = {
    **{f"checkpoints/{name}": "checkpoints/DCNv2_toy" for name in ("FESeq_toy", "FESeq_full")},
    "checkpoints/DCNv2Seq_toy": "checkpoints/DeepFM_toy",  # of which there are folds only
    "data/kuairand/test.parquet": "data/toy/train.parquet",
    "data/held_out/train.parquet": "data/toy/train.parquet",
}
SHORT = ["--set", "epochs=1", "--set", "batch_size=512"]
SHORT_TREES = ["--set", "num_boost_round=10"]
IN_ORDER = (
    "synth check prepare export plan train run compare tune blend evaluate predict report "
    "leaderboard version"
)


def command_lines(text: str) -> list[str]:
    """The command lines in the blocks of a page, continuation lines joined."""
    lines = []
    for block in BLOCK.findall(text):
        joined = re.sub(r"\\\n\s*", "", block)
        lines += [line.strip() for line in joined.splitlines() if STARTS.match(line.strip())]
    return lines


def words(line: str) -> list[str]:
    for name, stand_in in STANDS_FOR.items():
        line = line.replace(name, stand_in)
    return shlex.split(line.removeprefix(".venv/bin/"), comments=True)


LINES = sorted(
    {
        *(line for page in PAGES for line in command_lines(page.read_text(encoding="utf-8"))),
        *(line for examples in EXAMPLES.values() for line in examples),
    }
)
OURS = [line for line in LINES if words(line)[0] == "tossctr"]
SCRIPTS = [line for line in LINES if words(line)[0] == "python"]


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Signals and the console as they were."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(console, "quiet", False)
    yield
    signal.signal(signal.SIGTERM, before)


def parsed(arguments: list[str]) -> dict[str, Any]:
    """What the command line makes of them; an unknown option or a wrong type is an error."""
    group: Any = get_command(cli.app)
    context = group.make_context("tossctr", ["--quiet"], resilient_parsing=True)
    command = group.get_command(context, arguments[0])
    assert command is not None, f"no command {arguments[0]}"
    return dict(command.make_context(arguments[0], arguments[1:], parent=context).params)


def test_pages_have_command_lines() -> None:
    assert command_lines(
        "text\n\n    tossctr run \\\n        --json\n    ls\n\n```\nmake x\n```\n"
    ) == [
        "tossctr run --json",
        "make x",
    ]
    assert len(OURS) > 40
    assert len(SCRIPTS) > 10
    assert any(line.startswith("make demo") for line in LINES)


@pytest.mark.parametrize("line", OURS)
def test_line_is_understood(line: str) -> None:
    options = parsed(words(line)[1:])
    configs = ROOT / "configs"
    overrides = options.get("overrides") or []
    if options.get("expid"):
        load_experiment(configs, options["expid"], overrides)
    if options.get("recipe"):
        load_recipe(configs, options["recipe"], overrides)
    if options.get("dataset"):
        load_dataset(configs, options["dataset"], overrides)
    for pattern in (options.get("expids") or "").split(","):
        assert not pattern or any(fnmatch(name, pattern) for name in experiments())


def experiments() -> list[str]:
    files = [ROOT / "configs/model_config.yaml", *(ROOT / "configs/model_config").glob("*.yaml")]
    return [name for file in files for name in yaml.safe_load(file.read_text(encoding="utf-8"))]


class _Parsed(Exception):
    """A script's parser has read its arguments."""


@pytest.mark.parametrize("line", SCRIPTS)
def test_script_takes_the_line(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, script, *arguments = words(line)
    path = ROOT / script
    assert path.exists()
    if script == "scripts/kuairand.py":
        assert len(arguments) == 2
        return
    if script in ("scripts/predict.py", "scripts/train.py"):
        mode = {"--mode": str} if script.endswith("train.py") else {}
        rest = [a for i, a in enumerate(arguments) if not {a, *arguments[i - 1 : i]} & {*mode}]
        parsed(["train" if mode else "predict", *(a for a in rest if a != "...")])
        return

    def stop(self: argparse.ArgumentParser, *args: Any, **named: Any) -> None:
        self._parsed_by_test = read(self, *args, **named)
        raise _Parsed

    read = argparse.ArgumentParser.parse_args
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    monkeypatch.syspath_prepend(str(path.parent))
    monkeypatch.chdir(ROOT)
    with pytest.raises(_Parsed):
        runpy.run_path(str(path), run_name="__main__")


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {words(line)[1] for line in LINES if words(line)[0] == "make"}
    assert targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def executed() -> list[list[str]]:
    """One line of each form, smaller, in an order in which each finds what it needs."""
    forms: dict[tuple[str, ...], list[str]] = {}
    for line in OURS:
        _, command, *rest = words(line)
        if "--workers" in rest:
            continue
        small = [SMALLER.get(before, word) for before, word in zip([command, *rest], rest)]  # noqa: B905
        small = [PLACES.get(word, word) for word in small]
        options = {word for word in small if word.startswith("--")}
        several = command == "report" and len([w for w in small if w.startswith("checkpoints")]) > 1
        if command == "tune":  # whose spaces are of other models
            small = ["LightGBM_toy" if word == "DCNv2_toy" else word for word in small]
        if command in ("train", "run", "compare", "tune"):
            small += SHORT_TREES if "LightGBM_toy" in small else SHORT
        if command == "run":
            small += ["--no-report"]  # seconds each; `report` is tested separately
        forms.setdefault((command, str(several), *sorted(options)), [command, *small])
    order = IN_ORDER.split()
    return sorted(forms.values(), key=lambda words: order.index(words[0]))


def finishes(line: Sequence[str], capsys: pytest.CaptureFixture[str] | None = None) -> None:
    """Run it to its end; what it says is looked at where it is captured."""
    with pytest.raises(SystemExit) as end:
        cli.main(line)
    if capsys is None:
        assert not end.value.code
        return
    said = capsys.readouterr()
    assert not end.value.code, f"tossctr {shlex.join(line)}: {said.err}"
    assert said.out or line[0] == "synth", f"tossctr {shlex.join(line)} says nothing"


def test_one_line_of_each_form_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    with Path("configs/recipes.yaml").open("a", encoding="utf-8") as recipes:
        recipes.write("small: {experiments: [DCNv2_toy, DeepFM_toy], folds: 2}\n")
    synthesize(Path("data/toy"), 3_000, 300, seed=3)
    shutil.copytree("data/toy", "data/raw")
    # Without a process for each training, which takes seconds to start.
    monkeypatch.setattr(comparison, "run_command", lambda *line: finishes(line))
    lines = executed()
    assert {line[0] for line in lines} == set(IN_ORDER.split())
    for line in lines:
        if line[0] == "tune" and find_spec("optuna") is None:
            continue
        finishes(line, capsys)


def test_site_builds_without_a_warning(tmp_path: Path) -> None:
    build = pytest.importorskip("mkdocs.commands.build", reason="the extra docs is not installed")
    from mkdocs.config import load_config

    site = tmp_path / "site"
    build.build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(site), strict=True))
    page = {
        name: (site / name / "index.html").read_text("utf-8")
        for name in ("configuration", "commands", "api")
    }
    assert (
        "share of non-clicks sampled in each epoch" in page["configuration"]
    )  # a comment of a field
    assert all(f"tossctr {name}" in page["commands"] for name in EXAMPLES)
    assert "load_experiment" in page["api"]


def test_both_readmes_have_the_same_structure() -> None:
    english, korean = ((ROOT / name).read_text("utf-8") for name in ("README.md", "README.ko.md"))

    def levels(text: str) -> list[str]:
        return re.findall(r"^(#+) ", text, re.MULTILINE)

    def links(text: str) -> list[str]:
        return sorted(t for t in re.findall(r"\]\((.+?)\)", text) if not t.startswith("README"))

    def commands(text: str) -> list[str]:
        return re.findall(r"^\| `(.+?)`", text, re.MULTILINE)

    assert levels(english) == levels(korean)
    assert BLOCK.findall(english) == BLOCK.findall(korean)
    assert links(english) == links(korean)
    assert commands(english) == commands(korean)
    assert "](README.ko.md)" in english
    assert "](README.md)" in korean
