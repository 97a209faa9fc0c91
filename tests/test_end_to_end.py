"""The commands as a user runs them: real processes, real files."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from tossctr.cli import main
from tossctr.data.synthetic import synthesize

CONFIGS = Path(__file__).parents[1] / "configs"
SMALL = ["--set", "epochs=1", "--set", "batch_size=256", "--set", "max_len=16"]


def tossctr(*arguments, cwd, code=0):
    done = subprocess.run(
        [sys.executable, "-m", "tossctr", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project folder with configs, raw files and one trained run."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(CONFIGS, root / "configs")
    synthesize(root / "data" / "toy", 3_000, 500, seed=3)
    result = tossctr("run", "--expid", "FESeq_toy", "--json", *SMALL, cwd=root)
    return root, json.loads(result.stdout)


def submission(path):
    return pyarrow.csv.read_csv(path)


def test_run_writes_a_valid_submission(project):
    root, result = project
    output = root / "data" / "output" / "submission.csv"
    assert Path(result["output"]) == output
    written, sample = submission(output), submission(root / "data/toy/sample_submission.csv")
    assert written.column_names == ["ID", "clicked"]
    assert written["ID"].equals(sample["ID"])
    clicked = written["clicked"].to_numpy()
    assert ((clicked > 0) & (clicked < 1)).all()
    assert len(np.unique(clicked)) > 400
    assert 0 <= result["submission"]["AUC"] <= result["ceiling"]["AUC"] + 0.1


def test_run_folder_scores_anywhere_without_its_project(project, tmp_path):
    root, _ = project
    shutil.copytree(root / "checkpoints" / "FESeq_toy", tmp_path / "moved")
    shutil.copy(root / "data/toy/test.parquet", tmp_path / "test.parquet")
    args = ["--run", "moved", "--data", "test.parquet", "--output", "out.csv"]
    tossctr("predict", *args, cwd=tmp_path)
    ours, theirs = submission(tmp_path / "out.csv"), submission(root / "data/output/submission.csv")
    np.testing.assert_allclose(ours["clicked"].to_numpy(), theirs["clicked"].to_numpy(), atol=1e-9)


def test_predictions_follow_the_row_and_not_its_place(project, tmp_path):
    root, _ = project
    table = pq.read_table(root / "data/toy/test.parquet")
    order = np.random.default_rng(0).permutation(len(table))
    pq.write_table(table.take(pa.array(order)), tmp_path / "shuffled.parquet", row_group_size=77)
    run = root / "checkpoints" / "FESeq_toy"
    args = ["--run", run, "--data", "shuffled.parquet", "--output", "out.csv"]
    tossctr("predict", *args, cwd=tmp_path)
    ours, theirs = submission(tmp_path / "out.csv"), submission(root / "data/output/submission.csv")
    assert ours["ID"].to_pylist() == table["ID"].take(pa.array(order)).to_pylist()
    np.testing.assert_allclose(
        ours["clicked"].to_numpy(), theirs["clicked"].to_numpy()[order], atol=1e-6
    )


def test_csv_scores_like_parquet(project, tmp_path):
    root, _ = project
    table = pq.read_table(root / "data/toy/test.parquet")
    pyarrow.csv.write_csv(table, tmp_path / "test.csv")
    run = root / "checkpoints" / "FESeq_toy"
    tossctr("predict", "--run", run, "--data", "test.csv", "--output", "out.csv", cwd=tmp_path)
    ours, theirs = submission(tmp_path / "out.csv"), submission(root / "data/output/submission.csv")
    np.testing.assert_allclose(ours["clicked"].to_numpy(), theirs["clicked"].to_numpy(), atol=1e-6)


def test_same_seed_same_weights_and_another_seed_others(project):
    root, _ = project
    weights = []
    few = ["--set", "max_rows=600", "--set", "valid_split.method=stratified"]
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        chosen = [*few, "--set", f"seed={seed}", "--set", f"model_root=checkpoints/{name}"]
        tossctr("train", "--expid", "FESeq_toy", *SMALL, *chosen, cwd=root)
        weights.append(load_file(root / "checkpoints" / name / "FESeq_toy" / "model.safetensors"))
    first, same, other = weights
    assert all(np.array_equal(first[k], same[k]) for k in first)
    assert any(not np.array_equal(first[k], other[k]) for k in first)


def test_evaluate_repeats_the_validation_of_training(project):
    root, result = project
    tossctr("prepare", "--expid", "FESeq_toy", cwd=root)  # another test prepared other rows
    done = tossctr("evaluate", "--expid", "FESeq_toy", "--json", cwd=root)
    metrics = json.loads(done.stdout)
    for name in ("AUC", "logloss", "AP", "WLL", "competition_score"):
        assert metrics[name] == pytest.approx(result["validation"][name], abs=1e-6)


def test_unseen_categories_are_predicted_and_their_share_is_printed(project, tmp_path):
    root, _ = project
    table = pq.read_table(root / "data/toy/test.parquet")
    changed = ["999" if i % 5 == 0 else v for i, v in enumerate(table["inventory_id"].to_pylist())]
    at = table.column_names.index("inventory_id")
    pq.write_table(
        table.set_column(at, "inventory_id", pa.array(changed)), tmp_path / "test.parquet"
    )
    run = root / "checkpoints" / "FESeq_toy"
    args = ["--run", run, "--data", "test.parquet", "--output", "out.csv", "--json"]
    done = tossctr("predict", *args, cwd=tmp_path)
    assert json.loads(done.stdout)["unseen"]["inventory_id"] == 0.2


def test_user_errors_are_one_line_and_leave_nothing(project, tmp_path, monkeypatch, capsys):
    root, _ = project
    run = root / "checkpoints" / "FESeq_toy"
    table = pq.read_table(root / "data/toy/test.parquet").drop_columns(["hour"])
    pq.write_table(table, tmp_path / "test.parquet")
    args = ["--run", run, "--data", "test.parquet", "--output", "out.csv"]
    done = tossctr("predict", *args, cwd=tmp_path, code=2)
    line = done.stderr.strip().splitlines()[-1]
    assert "test.parquet" in line
    assert "hour" in line
    assert not (tmp_path / "out.csv").exists()

    def refused(*arguments):  # in this process: another one takes seconds to start
        with pytest.raises(SystemExit) as end:
            main([*arguments])
        assert end.value.code == 2
        return capsys.readouterr().err.strip().splitlines()[-1]

    monkeypatch.chdir(root)
    assert "FESeq_toy" in refused("train", "--expid", "FESeq_toi")
    wrong = ["--set", "default_field=[gendr]", "--set", "dataset_id=tossctr_full"]
    # Refused before the (missing) data are looked at.
    assert "gender" in refused("train", "--expid", "FESeq_toy", *wrong)
    assert "nowhere" in refused("predict", "--run", "nowhere", "--data", "x")


def test_a_changed_run_is_refused(project, tmp_path):
    root, _ = project
    shutil.copytree(root / "checkpoints" / "FESeq_toy", tmp_path / "run")
    weights = tmp_path / "run" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    data = root / "data/toy/test.parquet"
    done = tossctr("predict", "--run", "run", "--data", data, cwd=tmp_path, code=2)
    assert "model.safetensors" in done.stderr


def test_real_rows_reach_a_submission(shared, tmp_path):
    shutil.copytree(CONFIGS, tmp_path / "configs")
    rows = pq.read_table(shared / "data" / "toss_real_1500.parquet")
    raw = tmp_path / "data" / "toy"
    raw.mkdir(parents=True)
    pq.write_table(rows, raw / "train.parquet")
    ids = pa.array([f"TEST_{i:07d}" for i in range(300)])
    test = rows.slice(1200).drop_columns(["clicked"]).add_column(0, "ID", ids)
    pq.write_table(test, raw / "test.parquet")
    pyarrow.csv.write_csv(
        pa.table({"ID": ids, "clicked": np.zeros(300, int)}), raw / "sample_submission.csv"
    )
    stratified = ["--set", "valid_split.method=stratified", "--set", "valid_split.fraction=0.2"]
    tossctr("run", "--expid", "FESeq_toy", *SMALL, *stratified, cwd=tmp_path)
    written = submission(tmp_path / "data" / "output" / "submission.csv")
    assert written["ID"].to_pylist() == ids.to_pylist()

    done = tossctr("run", "--expid", "FESeq_toy_history", *SMALL, cwd=tmp_path, code=2)
    line = done.stderr.strip().splitlines()[-1]
    assert "history_a_1" in line
    assert "37" in line
