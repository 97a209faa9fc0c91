"""A few of the kills and refused writes of `benchmarks/faults.py`, which does many."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from tossctr.data.synthetic import synthesize

CONFIGS = Path(__file__).parents[1] / "configs"
BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "faults.py"


def test_killed_commands_end_as_if_they_had_not_been(tmp_path):
    counts = ["--kills", "3", "--write-failures", "1", "--rows", "900"]
    done = subprocess.run(
        [sys.executable, BENCHMARK, *counts], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    figures = dict(line.split(": ") for line in done.stdout.splitlines())
    assert int(figures["kills"]) >= 3, done.stdout
    assert int(figures["write_failures"]) >= 1
    assert figures["identical"] == "1", done.stderr
    assert figures["tracebacks"] == "0"


def test_a_few_of_the_points_at_which_every_command_is_killed(tmp_path):
    chosen = ["--commands", "train-over-folds,predict-changed,prepare-changed", "--stride", "37"]
    done = subprocess.run(
        [sys.executable, BENCHMARK, "--every", "--json", *chosen],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["points"] >= 8
    assert (figures["identical"], figures["lost"]) == (1, 0), done.stderr


def test_a_signal_to_all_processes_is_heeded_at_a_safe_point(tmp_path):
    shutil.copytree(CONFIGS, tmp_path / "configs")
    synthesize(tmp_path / "data" / "toy", 1500, 1, seed=5)
    keys = ["epochs=500", "early_stop_patience=500", "max_len=8", "valid_split.method=stratified"]
    command = [sys.executable, "-m", "tossctr", "train", "--expid", "FESeq_toy", "--gpu", "-1"]
    process = subprocess.Popen(
        [*command, *(word for key in keys for word in ("--set", key))],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that the signal reaches its loader processes, and not us
    )
    for line in process.stderr:
        if line.startswith("epoch 1/500"):
            break
    os.killpg(process.pid, signal.SIGTERM)
    said = process.stderr.read()
    assert process.wait() == 128 + signal.SIGTERM, said
    assert "the same command resumes from here" in said.splitlines()[-1]
    assert list((tmp_path / "checkpoints/FESeq_toy.partial/checkpoints").glob("step-*"))
