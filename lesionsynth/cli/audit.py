"""The command that trusts nothing: audit."""

from __future__ import annotations

from typing import Annotated

import typer

from lesionsynth.cli.app import app
from lesionsynth.cli.terminal import (
    AsJson,
    MovedInput,
    Quiet,
    RunFolder,
    Terminal,
    Verbose,
    Workers,
    print_json,
    table,
)
from lesionsynth.errors import ExitCode

_SHOWN = 50


@app.command()
def audit(
    output: RunFolder,
    input_folder: MovedInput = None,
    replay: Annotated[
        bool,
        typer.Option("--replay", help="Also make every synthetic case again; as slow as the run."),
    ] = False,
    n_jobs: Workers = "1",
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Check an output by its input, records and files alone, trusting no summary; exit 1 with findings."""
    from lesionsynth.qc.audit import audit as look
    from lesionsynth.run.machine import engine_of

    with Terminal(quiet) as terminal:
        result = look(output, input_folder, engine_of(n_jobs, None), terminal, replay=replay)
    if as_json:
        print_json({"findings": [f.as_json() for f in result.findings], "facts": result.facts})
    else:
        for fact in result.facts:
            print(fact)
        shown = result.findings if verbose else result.findings[:_SHOWN]
        if shown:
            rows: list[tuple[str, ...]] = [(f.case or "", f.file or "", f.fault, f.cure) for f in shown]
            table("", ("case", "file", "found", "what to do"), rows)
        if len(shown) < len(result.findings):
            print(f"... and {len(result.findings) - len(shown)} more (--verbose shows them)")
        print(f"{len(result.findings)} finding(s)" if result.findings else "no findings")
    if result.findings:
        raise typer.Exit(ExitCode.FINDINGS)
