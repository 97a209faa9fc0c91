"""Does a search lose trials when it is killed? `tossctr tune` in two processes, killed repeatedly.

Whenever two more trials have finished, one of the processes is killed (SIGKILL) and restarted with
the same command; once, both are. Figures of the final study:

    trials      finished or pruned trials; should be `--trials`
    kills       processes killed
    taken_up    interrupted trials that were repeated with the same values
    lost        drawn trials that never finished
    twice       trials that finished more than once
    alike       pairs of trials with the same values
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from itertools import cycle
from pathlib import Path

import harness
import optuna

from tossctr.data.synthetic import synthesize
from tossctr.tuning.study import DONE, NUMBER


def trials_of(folder: Path) -> list[optuna.trial.FrozenTrial]:
    """All trials of the study, or none before it exists."""
    file = folder / "study.db"
    if not file.exists():
        return []
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        storage = optuna.storages.RDBStorage(f"sqlite:///{file}")
        return optuna.study.get_all_study_summaries(storage) and optuna.load_study(
            study_name=None, storage=storage
        ).get_trials(deepcopy=False)
    except Exception:  # the study is being created
        return []


def main() -> None:
    parser = harness.arguments(__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--expid", default="DCNv2Seq_toy")
    options = parser.parse_args()
    if options.quick:
        options.trials, options.rows = 6, 2_000
    kills = 0
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        shutil.copytree(harness.CONFIGS, root / "configs")
        synthesize(root / "data/toy", options.rows, 100, seed=3)
        study = root / "study"
        command = [
            *harness.TOSSCTR, "tune", "--config", str(root / "configs"),
            "--expid", options.expid, "--trials", str(options.trials), "--output", str(study),
            "--set", "epochs=2", "--set", "max_len=16", "--set", "num_workers=0",
        ]  # fmt: skip

        def start() -> subprocess.Popen[bytes]:
            one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # one core per process
            return subprocess.Popen(command, stdout=subprocess.DEVNULL, env=one_thread)

        at_work = [start(), start()]
        victims, both = cycle((0, 1)), True
        next_kill = 2
        while any(process.poll() is None for process in at_work):
            found = trials_of(study)
            ended = sum(t.state in DONE for t in found)
            if next_kill <= ended < options.trials:
                chosen = (0, 1) if both and ended >= options.trials // 2 else (next(victims),)
                both = both and len(chosen) == 1
                for n in chosen:
                    at_work[n].kill()
                    at_work[n].wait()
                    kills += 1
                for n in chosen:
                    at_work[n] = start()
                next_kill = ended + 2
            time.sleep(0.5)
        if any(process.returncode for process in at_work):
            raise SystemExit("a search failed")
        # A trial without a number was killed before all its values were drawn, and drawn again.
        found = [t for t in trials_of(study) if NUMBER in t.user_attrs]
        homes = [t.user_attrs[NUMBER] for t in found if t.state in DONE]
        values = {t.user_attrs[NUMBER]: json.dumps(t.params, sort_keys=True) for t in found}
        drawn = [t.user_attrs[NUMBER] for t in found]
    harness.finish(
        {
            "trials": len(homes),
            "kills": kills,
            "taken_up": len(drawn) - len(values),
            "lost": len(values.keys() - set(homes)),
            "twice": len(homes) - len(set(homes)),
            "alike": len(values) - len(set(values.values())),
        },
        options.json,
    )


if __name__ == "__main__":
    main()
