"""Checks of the keys that name metrics."""

from __future__ import annotations

from collections.abc import Mapping

from tossctr.config.messages import suggestion
from tossctr.errors import UserError
from tossctr.metrics.monitor import Mode, modes_of
from tossctr.metrics.registry import METRICS, PARAMETRIZED, find_metric, is_metric


def check_metrics(
    metrics: tuple[str, ...], monitor: Mapping[str, float], mode: Mode, group_id: str | None
) -> None:
    """Check the keys `metrics`, `monitor`, `monitor_mode` and `group_id` of an experiment.

    Raises:
        UserError: an unknown metric, one that needs groups without `group_id`, or a monitor that is
            empty, mixes directions or contradicts `monitor_mode`.
    """
    for key, names in (("metrics", metrics), ("monitor", tuple(monitor))):
        for name in names:
            if not is_metric(name):
                raise UserError(
                    "names an unknown metric", key=key, value=name,
                    remedy=suggestion(name, (*METRICS, *PARAMETRIZED)),
                )  # fmt: skip
            if find_metric(name).needs_groups and group_id is None:
                raise UserError(
                    f"names {name}, which needs groups", key=key,
                    remedy="give group_id, a feature",
                )  # fmt: skip
    modes = modes_of(monitor)
    if not modes:
        raise UserError(
            "is empty or has only zero weights", key="monitor", value=monitor,
            remedy="give a metric the weight 1",
        )  # fmt: skip
    if len(modes) == 2:
        signs = {True: "", False: "-"}
        right = (
            f"{n}: {signs[find_metric(n).higher_is_better]}{abs(w):g}" for n, w in monitor.items()
        )
        raise UserError(
            "mixes metrics to maximize and metrics to minimize", key="monitor",
            value=monitor, remedy=f"write {{{', '.join(right)}}}",
        )  # fmt: skip
    if mode not in modes:
        better = "lower" if "min" in modes else "higher"
        raise UserError(
            f"contradicts monitor, of which {better} is better: {', '.join(monitor)}",
            key="monitor_mode", value=mode,
            remedy="remove monitor_mode: the metrics determine it",
        )  # fmt: skip
