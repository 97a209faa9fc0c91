"""The results of a search: the best experiment, all trials and the importance of each key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState

from tossctr.config.entries import read_entry
from tossctr.config.messages import ErrorContext
from tossctr.config.overrides import Override, apply_overrides
from tossctr.config.schema import TrainingConfig
from tossctr.folders import keep_earlier
from tossctr.outputs import check_output, output_file
from tossctr.printable import printable
from tossctr.redaction import redacted
from tossctr.tuning.space import as_overrides, chosen_values
from tossctr.tuning.study import NUMBER, Search

RESULTS = ("tune.json", "tune.md")


def check_results(search: Search, *, force: bool = False) -> None:
    """Raises:
    UserError: `write_result` would replace a file that TossCTR did not write.
    """
    for path in (_experiment_file(search), *(search.folder / name for name in RESULTS)):
        check_output(path, force=force)


def write_result(search: Search, *, force: bool = False) -> dict[str, Any]:
    """Write tune.json, tune.md and `<config>/model_config/<expid>_tuned.yaml`.

    The YAML holds the experiment's keys with the best values, without overrides of data set keys.

    Args:
        search: the finished search.
        force: replace files that TossCTR did not write.

    Returns:
        The content of tune.json. If no trial completed, `best` is None and no experiment is
        written.
    """
    trials = [
        {
            "trial": trial.user_attrs[NUMBER],
            "state": trial.state.name.lower(),
            "value": trial.value if trial.state == TrialState.COMPLETE else None,
            "validations": len(trial.intermediate_values),
            "values": search.values_of(trial),
        }
        for trial in search.finished()
    ]
    complete = [trial for trial in trials if trial["state"] == "complete"]
    result: dict[str, Any] = {
        "expid": search.expid,
        "monitor": dict(search.experiment.training.monitor),
        "best": None,
        "experiment": None,
        "importance": _importance(search, len(complete)),
        "trials": trials,
    }
    best = search.best
    if best is not None:
        result["best"] = {"value": best.value, "values": search.values_of(best)}
        result["experiment"] = str(_write_experiment(search, best, force=force))
    content = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    for name, text in zip(RESULTS, (content, _table(result, search.sign)), strict=True):
        with output_file(search.folder / name, force=force) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return result


def _experiment_file(search: Search) -> Path:
    return search.config / "model_config" / f"{search.expid}_tuned.yaml"


def _write_experiment(search: Search, best: FrozenTrial, *, force: bool) -> Path:
    expid = f"{search.expid}_tuned"
    file, merged, own_of_entry = read_entry(search.config, "model_config", search.expid)
    chosen = as_overrides(chosen_values(best, search.space))
    own = {
        "model", "dataset_id", *TrainingConfig.model_fields,
        *type(search.experiment.hyperparameters).model_fields,
    }  # fmt: skip
    given = [Override.parse(text) for text in [*search.overrides, *chosen]]
    values = {key: value for key, value in merged.items() if key in own_of_entry}
    values = apply_overrides(
        values, [o for o in given if o.path[0] in own], ErrorContext(file, search.expid)
    )
    # A key with a secret given by --set is left out.
    values = {k: v for k, v in values.items() if not isinstance(v, str) or redacted(v) == v}
    path = _experiment_file(search)
    source = f" trials of {search.folder}: "
    if path.is_file() and source not in path.read_text(encoding="utf-8").partition("\n")[0]:
        check_output(path, force=force)
        keep_earlier(path)  # written by another study
    with output_file(path, force=force) as temporary:
        text = yaml.safe_dump({expid: values}, sort_keys=False, default_flow_style=None, width=100)
        head = f"# The best of {len(search.finished())}{source}monitor {best.value:.6f}.\n"
        temporary.write_text(head + text, encoding="utf-8")
    return path


def _importance(search: Search, complete: int) -> dict[str, float]:
    """Share of the monitor's variance that each key explains (fANOVA); empty below 4 trials."""
    if complete < 4 or len({t.value for t in search.finished()}) < 2:
        return {}
    found: Mapping[str, float] = optuna.importance.get_param_importances(
        search.study,
        params=list(search.space),  # trial 0 may have values outside the space
        evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0),
    )
    return dict(found)


def _table(result: Mapping[str, Any], sign: float) -> str:
    """Markdown tables: trials sorted by monitor, best first, and the importance of each key."""
    keys = sorted({key for trial in result["trials"] for key in trial["values"]})
    head = ["trial", "state", "monitor", "validations", *keys]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    ranked = sorted(
        result["trials"],
        key=lambda t: (t["value"] is None, -sign * (t["value"] or 0.0), t["trial"]),
    )
    for trial in ranked:
        value = "" if trial["value"] is None else f"{trial['value']:.6f}"
        cells = [str(trial["trial"]), trial["state"], value, str(trial["validations"])]
        cells += [_shown(trial["values"].get(key)) for key in keys]
        lines.append(f"| {' | '.join(cells)} |")
    if result["importance"]:
        lines += ["", "| key | importance |", "| --- | --- |"]
        lines += [f"| {key} | {share:.3f} |" for key, share in result["importance"].items()]
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value))
