"""`tossctr report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tossctr.commands.options import AsJson, Force, Gpu, app, print_result

if TYPE_CHECKING:
    import torch

    from tossctr.inference.predictor import Predictor

REPORT = "report.html"


def report_beside(submission: Path, run: Predictor, device: torch.device, *, force: bool) -> Path:
    """Write the report of a run next to its submission."""
    from tossctr.report.page import write_report

    return write_report([run.folder], submission.with_name(REPORT), device, force=force)


@app.command()
def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, folds or blends.")
    ],
    output: Annotated[Path, typer.Option(help="The HTML file.")] = Path("data/output") / REPORT,
    force: Force = False,
    gpu: Gpu = None,
    as_json: AsJson = False,
) -> None:
    """Write an HTML report on one run, or on several side by side."""
    from tossctr.outputs import is_standard_output, is_stream
    from tossctr.report.page import write_report
    from tossctr.training.device import resolve_device

    write_report(runs, output, resolve_device(gpu), force=force)
    if is_standard_output(output):
        return
    size = {} if is_stream(output) else {"bytes": output.stat().st_size}
    print_result({"output": str(output), **size}, as_json, "report")
