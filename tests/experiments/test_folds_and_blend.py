"""Folds, blends and the leaderboard, on trainings that take a second."""

import json
import shutil

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch
from scipy.special import expit, logit
from scipy.stats import rankdata

from tossctr import folders
from tossctr.artefact import sealed
from tossctr.calibration.held_out import HeldOut, write_held_out
from tossctr.cli import main
from tossctr.data.prepare import prepare
from tossctr.errors import UserError
from tossctr.experiments import folds as folding
from tossctr.experiments.blend import blend
from tossctr.experiments.combination import fit_combination
from tossctr.experiments.fold_assignment import assign_folds
from tossctr.experiments.leaderboard import leaderboard
from tossctr.experiments.predictors import Folds, load_predictor
from tossctr.experiments.recipe import Recipe
from tossctr.experiments.train import train_in_folds, train_recipe
from tossctr.inference.calibrator import calibrator_of
from tossctr.inference.predict import predict_rows
from tossctr.metrics.registry import evaluate
from tossctr.metrics.uncertainty import MeanStd
from tossctr.pipeline.submit import submit
from tossctr.pipeline.train import train_experiment
from tossctr.training.networks import Networks

CPU = torch.device("cpu")
MODELS = ("DCNv2_toy", "DeepFM_toy")


def in_folds(experiment, **options):
    chosen = {"folds": 2, "method": "stratified", "seeds": [1], **options}
    return train_in_folds(experiment, CPU, **chosen)


@pytest.fixture(scope="module")
def folds(experiment):
    return {expid: in_folds(experiment(expid)) for expid in MODELS}


@pytest.fixture(scope="module")
def blended(folds, data):
    folder = data / "runs" / "blend"
    return folder, blend(folds, folder, CPU, method="weights")


def test_every_row_is_predicted_by_the_run_that_held_it_out(folds, experiment):
    predictor = folds["DCNv2_toy"]
    held = predictor.held_out(CPU)
    rows = prepare(experiment("DCNv2_toy").dataset).train
    np.testing.assert_array_equal(held.label, rows.label)
    np.testing.assert_array_equal(held.row, np.arange(len(rows)))
    ours = [predict_rows(run, rows, device=CPU) for run in predictor.members[0]]
    for k, of_run in enumerate(ours):
        np.testing.assert_allclose(held.logit[held.fold == k], of_run[held.fold == k], rtol=1e-5)
        assert not np.allclose(held.logit[held.fold != k], of_run[held.fold != k])
    assert pq.read_schema(predictor.folder / "oof.parquet").names == [
        "row",
        "label",
        "logit",
        "fold",
    ]


def test_finished_folds_are_reused_and_missing_ones_trained(folds, experiment, monkeypatch):
    folder = folds["DeepFM_toy"].folder
    before = (folder / "oof.parquet").read_bytes()
    (folder / "folds.json").unlink()
    shutil.rmtree(folder / "seed_1" / "fold_1")
    trained = []
    fit = Networks.fit
    monkeypatch.setattr(Networks, "fit", lambda *a: trained.append(1) or fit(*a))
    in_folds(experiment("DeepFM_toy"))
    assert len(trained) == 1
    assert (folder / "oof.parquet").read_bytes() == before
    more = in_folds(experiment("DeepFM_toy"), seeds=[1, 2])
    assert len(trained) == 3  # those of seed 1 are reused
    assert len(more.members[0]) == 4
    assert (folder / "oof.parquet").read_bytes() != before
    in_folds(experiment("DeepFM_toy"))
    assert len(trained) == 3
    assert (folder / "oof.parquet").read_bytes() == before


def test_folds_are_reused_after_the_project_has_moved(
    folds, experiment, data, tmp_path, monkeypatch
):
    shutil.copytree(data, tmp_path / "moved")
    monkeypatch.setattr(folding, "train", lambda *a, **k: pytest.fail("trained again"))
    moved = in_folds(experiment("DeepFM_toy", root=tmp_path / "moved"))
    np.testing.assert_array_equal(
        moved.held_out(CPU).label, folds["DeepFM_toy"].held_out(CPU).label
    )


def test_another_config_trains_new_folds_and_a_run_leaves_folds_alone(experiment, data):
    root = f"model_root={data / 'other'}"
    first = in_folds(experiment("DCNv2_toy", root))
    run = train_experiment(experiment("DCNv2_toy", root), CPU)
    assert load_predictor(run.folder, prefer_folds=True).marker == first.marker
    assert load_predictor(run.folder).folder == run.folder
    before = first.marker.read_bytes()
    again = in_folds(experiment("DCNv2_toy", root, "learning_rate=0.01"))
    assert again.marker.read_bytes() != before
    assert again.members[0][0].experiment.training.learning_rate == 0.01
    assert (data / "other" / "DCNv2_toy.folds.1" / "folds.json").read_bytes() == before
    (again.folder / "oof.parquet").write_bytes(b"")
    with pytest.raises(UserError, match="has changed"):
        load_predictor(again.folder)


class Killed(BaseException):
    pass


def test_finished_folds_survive_a_failing_config_and_a_kill(experiment, data, monkeypatch):
    def contents():
        return {p: p.read_bytes() for p in (data / "held").rglob("*") if p.is_file()}

    def killed(*_):
        raise Killed

    root = f"model_root={data / 'held'}"
    first = in_folds(experiment("DCNv2_toy", root))
    before = contents()
    with pytest.raises(UserError, match="is not finite"):
        in_folds(experiment("DCNv2_toy", root, "learning_rate=1e30", "batch_size=32"))
    assert before.items() <= contents().items()
    assert len(in_folds(experiment("DCNv2_toy", root)).members[0]) == 2
    for step in ("keep_earlier", "sync_folder"):  # before and after the two renames
        changed = experiment("DCNv2_toy", root, f"learning_rate=0.0{len(step)}")
        with monkeypatch.context() as patch:

            def placing(*arguments, step=step, patch=patch):
                patch.setattr(folders, step, killed)
                folders.put_in_place(*arguments)

            patch.setattr(folding, "put_in_place", placing)
            with pytest.raises(Killed):
                in_folds(changed)
        with monkeypatch.context() as patch:
            patch.setattr(Networks, "fit", lambda *_: pytest.fail("trained again"))
            again = in_folds(changed)
        assert again.folder == first.folder
        assert again.members[0][0].experiment.training == changed.training.model_copy(
            update={"seed": 1}
        )
    kept = sorted(p.name for p in (data / "held").iterdir() if p.is_dir())
    assert kept == [f"DCNv2_toy.folds{end}" for end in ("", ".1", ".2", ".partial")]


def test_folders_of_others_are_not_touched(folds, experiment, data):
    root = data / "own"
    for name in ("DCNv2_toy.folds", "blend"):
        (root / name).mkdir(parents=True)
        (root / name / "folds.json").write_text("mine")
    with pytest.raises(UserError, match="TossCTR did not make it"):
        in_folds(experiment("DCNv2_toy", f"model_root={root}"))
    with pytest.raises(UserError, match="TossCTR did not make it"):
        blend(folds, root / "blend", CPU)
    with pytest.raises(UserError, match="TossCTR did not make it"):
        blend(folds, folds["DCNv2_toy"].folder, CPU)
    assert {p.read_text() for p in root.rglob("*") if p.is_file()} == {"mine"}


def test_another_blend_in_the_folder_is_renamed(folds, tmp_path):
    folder = tmp_path / "blend"
    blend(folds, folder, CPU, method="logit_mean")
    first = (folder / "blend.json").read_bytes()
    for _ in range(2):  # the second time, the blend is the same
        blend(dict(reversed(folds.items())), folder, CPU, method="logit_mean")
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["blend", "blend.1"]
    assert (tmp_path / "blend.1" / "blend.json").read_bytes() == first
    assert (folder / "blend.json").read_bytes() != first


def test_a_recipe_blends_folds_and_reuses_finished_ones(
    folds, experiment, data, tmp_path, monkeypatch
):
    recipe = Recipe("mix", tuple(map(experiment, MODELS)), 2, "stratified", (1,))
    trained = []
    monkeypatch.setattr(folding, "train", lambda *a, **k: trained.append(1))
    predictor = train_recipe(recipe, CPU)  # reuses the folds
    assert not trained
    assert predictor.folder == data / "runs" / "mix"
    assert len(predictor.members) == len(MODELS)
    by_hand = blend(folds, tmp_path / "by_hand", CPU)
    assert predictor.held_out_metrics == evaluate(*_held(tmp_path / "by_hand"))
    assert by_hand.combination == predictor.combination
    assert (predictor.folder / "calibration_competition_score.json").is_file()
    shutil.rmtree(predictor.folder)  # other tests count the folders


def _held(folder):
    held = load_predictor(folder).held_out(CPU)
    return held.label, held.logit


def test_predictions_of_folds_are_the_mean_of_their_logits(folds, data):
    predictor = folds["DCNv2_toy"]
    test = data / "test.parquet"
    whole = np.concatenate([p.logit for p in predictor.logits(test, device=CPU)])
    each = [
        np.concatenate([p.logit for p in run.logits(test, device=CPU)])
        for run in predictor.members[0]
    ]
    np.testing.assert_allclose(whole, np.mean(each, axis=0), rtol=1e-6)


def test_a_blend_combines_the_predictions_of_its_members(blended, folds, data, tmp_path):
    folder, result = blended
    predictor = load_predictor(folder)
    output = tmp_path / "out.csv"
    chosen = calibrator_of(predictor, "competition_score", CPU)
    submit(predictor, data=None, sample=None, output=output, device=CPU)
    test = data / "test.parquet"
    each = [np.concatenate([p.logit for p in f.logits(test, device=CPU)]) for f in folds.values()]
    expected = expit(chosen(np.array(result.combination.weights) @ np.stack(each)))
    written = pyarrow.csv.read_csv(output).column(1).to_numpy()
    np.testing.assert_allclose(written, expected, rtol=1e-6)


def test_a_calibration_that_was_tampered_with_is_fit_again(blended, capsys):
    """A shift of -30 would make every probability 1."""
    folder, _ = blended
    predictor = load_predictor(folder)
    chosen = calibrator_of(predictor, "competition_score", CPU)
    file = folder / "calibration_competition_score.json"
    written = file.read_text()
    capsys.readouterr()
    assert calibrator_of(predictor, "competition_score", CPU) == chosen
    assert "again" not in capsys.readouterr().err
    content = json.loads(written)
    del content["sha256"]
    content["calibrator"]["shift"] = -30.0
    for changed in (json.dumps(sealed(content)), "[]", "[" * 100_000, '{"version": 1}'):
        file.write_text(changed)
        assert calibrator_of(predictor, "competition_score", CPU) == chosen
        assert json.loads(file.read_text()) == json.loads(written)


def test_a_blend_of_changed_or_differing_members_is_refused(blended, folds, experiment, data):
    with pytest.raises(UserError, match="two different runs"):
        blend({"a": folds["DCNv2_toy"]}, data / "x", CPU)
    other = in_folds(experiment("DeepFM_toy", f"model_root={data / 'three'}"), folds=3)
    with pytest.raises(UserError, match="folds differ"):
        blend({"a": folds["DCNv2_toy"], "b": other}, data / "x", CPU)
    folder = data / "copied" / "blend"
    shutil.copytree(data / "runs", data / "copied")  # a blend and its members move together
    assert len(load_predictor(folder).members) == 2
    marker = data / "copied" / "DCNv2_toy.folds" / "folds.json"
    marker.write_text(marker.read_text() + " ")
    with pytest.raises(UserError, match="has changed"):
        load_predictor(folder)


def test_the_leaderboard_lists_all_and_leaves_out_damaged_folders(blended, folds, data, experiment):
    train_experiment(experiment("DCNv2_toy"), CPU)
    root = data / "runs"
    found = {entry.name: entry for entry in leaderboard(root)}
    assert set(found) == {"blend", "DCNv2_toy", "DCNv2_toy.folds", "DeepFM_toy.folds"}
    single, fold = found["DCNv2_toy"], found["DCNv2_toy.folds"]
    assert (single.kind, fold.kind, found["blend"].kind) == ("run", "folds", "blend")
    assert (single.config, single.data) == (fold.config, fold.data)
    assert single.config != found["DeepFM_toy.folds"].config
    assert fold.seeds == (1,)
    assert fold.megabytes == pytest.approx(2 * single.megabytes, rel=0.01)
    assert single.score > single.metrics["competition_score"]  # WLL at the natural prior is bad
    about = json.loads((root / "DCNv2_toy.folds" / "folds.json").read_text())
    assert fold.cross_validated["AUC"] == MeanStd(**about["cross_validated"]["AUC"])
    kept = root / "DCNv2_toy" / "calibration_competition_score.json"
    text, digits = kept.read_text(), str(single.score)
    assert text.count(digits) == 1
    kept.write_text(text.replace(digits, "0.9" + digits[3:]))
    again = {entry.name: entry for entry in leaderboard(root)}
    assert again["DCNv2_toy"].score is None
    assert again["blend"] == found["blend"]
    (root / "DCNv2_toy" / "experiment.json").write_text("{")
    assert "DCNv2_toy" not in {entry.name for entry in leaderboard(root)}


def command(*arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    assert ended.value.code == 0


def test_the_commands_blend_leaderboard_and_predict(folds, data, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    folder = tmp_path / "blend"
    runs = ",".join(str(f.folder) for f in folds.values())
    command("blend", "--runs", runs, "--output", folder, "--json", "--objective", "logloss")
    gain = json.loads(capsys.readouterr().out)["gain"]["logloss"]["mean"]
    command("blend", "--runs", runs, "--output", folder, "--objective", "logloss")
    said = capsys.readouterr().out
    assert f"logloss {gain:+.6f} ±" in said
    assert (": better" if gain < 0 else ": not better") in said
    shutil.rmtree(folder)
    command("blend", "--runs", runs, "--output", folder, "--json")
    assert json.loads(capsys.readouterr().out)["folder"] == str(folder)
    command("leaderboard", "--root", tmp_path, "--json")
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["name"] == "blend"
    command("leaderboard", "--root", tmp_path)  # no number is cut in a narrow terminal
    assert f" {entry['metrics']['AUC']:.6f} " in capsys.readouterr().out
    where = ["--blend", folder, "--data", data / "test.parquet", "--gpu", -1, "--output"]
    command("predict", *where, tmp_path / "score.csv")
    assert "calibrated for competition_score" in capsys.readouterr().err
    command("predict", *where, tmp_path / "raw.csv", "--objective", "raw")
    score, raw = (
        pyarrow.csv.read_csv(tmp_path / f"{name}.csv").column(1).to_numpy()
        for name in ("score", "raw")
    )
    held = load_predictor(folder).held_out(CPU)
    np.testing.assert_allclose(logit(score), logit(raw) - logit(held.prior), atol=1e-6)


def members_of(rng, label, noises):
    """Held-out logits of the same rows, with independent noise."""
    return np.stack([2 * label - 4 + rng.normal(0, noise, len(label)) for noise in noises])


def test_weights_favour_the_better_members():
    rng = np.random.default_rng(0)
    label = (rng.random(20_000) < 0.05).astype(float)
    logits = members_of(rng, label, [1.0, 4.0, 2.0])
    found = fit_combination("weights", logits, label, np.ones(len(label)))
    weights = np.array(found.weights)
    assert weights.sum() == pytest.approx(1)
    expected = 1 / np.array([1.0, 16.0, 4.0])  # of independent noise
    np.testing.assert_allclose(weights, expected / expected.sum(), atol=0.04)
    worthless = np.stack([logits[0], -logits[0]])
    found = fit_combination("weights", worthless, label, np.ones(len(label)))
    assert found.weights[1] == pytest.approx(0, abs=1e-6)


def test_ranks_of_single_rows_are_those_among_all_rows():
    rng = np.random.default_rng(0)
    logits = np.stack([rng.normal(-4, 1, 30_000), np.exp(rng.normal(0, 1, 30_000))])
    found = fit_combination("rank_mean", logits, np.zeros(30_000), np.ones(30_000))
    ranks = np.mean([(rankdata(z) - 0.5) / 30_000 for z in logits], axis=0)
    np.testing.assert_allclose(expit(found(logits)), ranks, atol=2e-3)
    far = found(np.array([[-50.0, -40.0, 40.0, 50.0], [-50.0, -40.0, 40.0, 50.0]]))
    assert (np.diff(far) > 0).all()


def test_the_gain_of_a_blend_is_out_of_fold(tmp_path, folds):
    """Members of equal quality and independent noise gain; a copy gains nothing."""
    rng = np.random.default_rng(0)
    label = (rng.random(20_000) < 0.05).astype(np.float32)
    logits = members_of(rng, label, [2.0, 2.0])
    predictors = {}
    for name, z in (("a", logits[0]), ("b", logits[1]), ("copy", logits[0])):
        shutil.copytree(folds["DCNv2_toy"].folder, tmp_path / name)
        held = HeldOut(
            np.arange(len(z)), label, z, 0.05, "train", (np.arange(len(z)) % 4).astype(np.int16)
        )
        write_held_out(tmp_path / name / "oof.parquet", held)
        predictors[name] = Folds(tmp_path / name, folds["DCNv2_toy"].runs, {})
    gain = blend(
        {n: predictors[n] for n in "ab"}, tmp_path / "x", CPU, objective="competition_score"
    ).gain["competition_score"]
    assert gain.mean > 4 * gain.error > 0
    same = blend(
        {n: predictors[n] for n in ("a", "copy")},
        tmp_path / "y",
        CPU,
        objective="competition_score",
    )
    assert abs(same.gain["competition_score"].mean) < 1e-6


@pytest.mark.parametrize("method", ["stratified", "random", "time", "group"])
def test_folds_partition_the_rows(method):
    rng = np.random.default_rng(0)
    label = (rng.random(1000) < 0.2).astype(np.float32)
    group = rng.integers(0, 90, 1000)
    fold = assign_folds(method, 4, label, group=group, seed=1)
    sizes = np.bincount(fold)
    assert len(sizes) == 4
    assert sizes.max() - sizes.min() <= (12 if method == "group" else 2)
    np.testing.assert_array_equal(fold, assign_folds(method, 4, label, group=group, seed=1))
    if method == "stratified":
        clicks = np.bincount(fold, label)
        assert clicks.max() - clicks.min() <= 1
    if method == "time":
        assert (np.diff(fold) >= 0).all()
    if method == "group":
        assert all(len(set(fold[group == g])) == 1 for g in range(90))


def test_folds_without_clicks_are_refused():
    label = np.zeros(100, np.float32)
    label[:3] = 1
    with pytest.raises(UserError, match="fold 1 of 4 would hold 25 rows with 0 clicks"):
        assign_folds("time", 4, label, seed=1)


def test_the_mean_is_that_of_probabilities():
    z = np.array([[logit(0.2), 1.0], [logit(0.4), 1.0]])
    assert expit(fit_combination("mean", z, np.zeros(2), np.ones(2))(z)[0]) == pytest.approx(0.3)
