"""`tossctr report`: one HTML page on one run, or several side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tossctr.commands.options import AsJson, Gpu, app, print_result

if TYPE_CHECKING:
    import torch

    from tossctr.inference.scorer import Scorer
    from tossctr.training.run_folder import Run

REPORT = "report.html"


def report_beside(submission: Path, run: Run | Scorer, device: torch.device) -> Path:
    """Write the report of a run beside its submission."""
    from tossctr.report.page import write_report

    return write_report([run.folder], submission.with_name(REPORT), device)


@app.command()
def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, folds or blends.")
    ],
    output: Annotated[Path, typer.Option(help="The HTML file.")] = Path("data/output") / REPORT,
    gpu: Gpu = None,
    as_json: AsJson = False,
) -> None:
    """Say in one HTML file how good runs are and why, side by side."""
    from tossctr.report.page import write_report
    from tossctr.training.device import resolve_device

    write_report(runs, output, resolve_device(gpu))
    print_result({"output": str(output), "bytes": output.stat().st_size}, as_json, "report")
