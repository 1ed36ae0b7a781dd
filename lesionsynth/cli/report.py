"""The command report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lesionsynth.cli.app import app
from lesionsynth.cli.terminal import MovedInput, RunFolder


@app.command()
def report(
    output: RunFolder,
    target: Annotated[
        Path | None, typer.Option("--output", "-o", help="HTML file; OUTPUT/report.html where not given.")
    ] = None,
    cases: Annotated[
        int, typer.Option("--cases", help="Synthetic cases shown in pictures, at most.", min=0, max=200)
    ] = 12,
    input_folder: MovedInput = None,
) -> None:
    """Write one HTML file on an output: what was made, real against synthetic, pictures, methods to cite."""
    from lesionsynth.qc.report.page import write_report

    path = write_report(output, target, cases, input_folder)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
