"""Help, progress, errors and exit codes of any command."""

from __future__ import annotations

import errno
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from tossctr import cli, progress
from tossctr.commands.examples import EXAMPLES
from tossctr.progress import say, track
from tossctr.waiting import say_if_threads_spin

COMMANDS = cli.app.registered_commands
NAMES = {info.name or info.callback.__name__ for info in COMMANDS if info.callback}
SYNTH = ["synth", "data", "--rows", "50", "--test-rows", "5"]


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A new folder, and signal handlers restored."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(progress.console, "quiet", False)
    yield
    signal.signal(signal.SIGTERM, before)


def ends(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    return int(end.value.code or 0)


def test_every_command_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(EXAMPLES) == NAMES
    for name, lines in EXAMPLES.items():
        assert ends(name, "--help") == 0
        shown = capsys.readouterr().out
        assert "--quiet" in shown
        for line in lines:
            assert line.startswith(f"tossctr {name}")
            assert line in shown


def test_help_explains_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends("--help") == 0
    shown = capsys.readouterr().out
    assert re.search(r"Exit codes:\s+0: success.*\n.*\b2: .*\n.*130, 143: ", shown, re.DOTALL)


@pytest.mark.parametrize("line", [["--quiet", *SYNTH], [*SYNTH, "--quiet"]])
def test_quiet_before_or_after_the_command(
    line: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends(*line) == 0
    assert capsys.readouterr() == ("", "")
    assert Path("data/train.parquet").exists()
    assert ends(*SYNTH) == 0  # only that once
    assert "wrote" in capsys.readouterr().err


def test_quiet_keeps_results_and_errors(capsys: pytest.CaptureFixture[str]) -> None:
    ends(*SYNTH, "--quiet")
    assert ends("check", "data/train.parquet", "--json", "--quiet") == 0
    assert capsys.readouterr().out.startswith("{")
    assert ends("check", "nowhere.parquet", "--quiet") == 2
    assert "nowhere.parquet" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_prints_how_to_resume(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "tossctr.data.synthetic.synthesize", lambda *_, **__: os.kill(os.getpid(), number)
    )
    # Started in the background by a script, the tests' own process ignores Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = ends(*SYNTH, "--quiet")  # which hides progress only
    finally:
        signal.signal(signal.SIGINT, before)
    assert code == 128 + number
    assert "the same command resumes" in capsys.readouterr().err


def test_plain_progress_has_rows_rate_time_and_memory(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "PLAIN_EVERY_S", 0)
    with progress.track("prepare", 10) as advance:
        advance(4)
    between, end = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"prepare: 4/10 rows, [\d,]+ rows/s, \d+ s left, [\d,]+ MB", between)
    assert re.fullmatch(r"prepare: 4 rows in 0\.0 s \([\d,]+ rows/s, [\d,]+ MB\)", end)
    assert 50 < progress.resident_mb() < 20_000


@pytest.mark.parametrize("width", [80, 120])
def test_a_bar_is_one_line_with_whole_numbers(width: int) -> None:
    bars = progress.bars()
    task = bars.add_task("score test.parquet", total=1_527_298)
    bars.advance(task, 1_234_567)
    bars.tasks[0].start_time = bars.get_time() - 30
    screen = Console(width=width, record=True, file=io.StringIO())
    screen.print(bars.get_renderable())
    (line,) = screen.export_text().splitlines()
    for part in ("score test.parquet", "1234567/1527298", " rows/s", " MB", "0:00:30"):
        assert part in line
    assert "━" in line


@pytest.mark.parametrize(
    ("before", "line", "expected"),
    [
        ("", "import tossctr", "PASSIVE"),
        ("os.environ['OMP_WAIT_POLICY'] = 'ACTIVE'", "import tossctr", "ACTIVE"),
        # Torch has read it by now; a module of the name is enough to tell.
        ("sys.modules['torch'] = None", "import tossctr", None),
    ],
)
def test_waiting_threads_sleep_unless_the_environment_says_otherwise(
    before: str, line: str, expected: str | None
) -> None:
    script = f"import os, sys\n{before}\n{line}\nprint(os.environ.get('OMP_WAIT_POLICY'))"
    clean = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, env=clean, check=True)
    assert done.stdout.strip() == str(expected)


def test_importing_torch_first_prints_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    say_if_threads_spin.cache_clear()
    say_if_threads_spin()
    say_if_threads_spin()
    assert capsys.readouterr().err.count("import tossctr first") == 1
    say_if_threads_spin.cache_clear()
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    say_if_threads_spin()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("broken", [OSError(28, "No space left on device"), ValueError("closed")])
def test_a_full_or_closed_stderr_only_loses_messages(
    broken: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise broken

        def flush(self) -> None:
            raise broken

    monkeypatch.setattr(sys, "stderr", Broken())
    say("lost")
    with track("lost too", 1) as advance:
        advance(1)
    monkeypatch.setattr(sys, "stderr", None)  # as where the caller has closed it
    say("lost")
    kept = io.StringIO()
    monkeypatch.setattr(sys, "stderr", kept)
    say("heard")
    assert kept.getvalue() == "heard\n"


def test_closed_standard_streams_are_replaced(tmp_path: Path) -> None:
    # What a library writes to its standard error would land in that file.
    script = (
        "import os, sys; from tossctr.cli import main\n"
        "try: main(['version'])\n"
        "except SystemExit: pass\n"
        "os.write(2, b'a warning of some library')\n"
        f"sys.exit(os.open({str(tmp_path / 'data')!r}, os.O_CREAT | os.O_WRONLY))"
    )
    command = ["sh", "-c", f'{sys.executable} -c "$1" >&- 2>&-', "sh", script]
    assert subprocess.run(command, check=False).returncode > 2


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_too_few_file_handles_are_one_line(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(cli, "app", refuse)
    with pytest.raises(SystemExit) as end:
        cli.main(["version"])
    assert end.value.code == 2
    assert os.strerror(number) in capsys.readouterr().err
