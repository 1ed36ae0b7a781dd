"""Commands that look at a data set: init, check."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from lesionsynth.cli.app import app
from lesionsynth.cli.terminal import (
    AsJson,
    InputFolder,
    Overrides,
    Quiet,
    RecipeName,
    Terminal,
    Workers,
    open_recipe,
    print_json,
)
from lesionsynth.errors import ExitCode, OutputError


@app.command()
def init(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="Folder of a data set.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Recipe file to write.")] = Path(
        "recipe.yaml"
    ),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Look at a data set and write a commented recipe for it."""
    from lesionsynth import nifti
    from lesionsynth.run.suggest import is_recognised, suggest_recipe

    if output.exists() and not force:
        raise OutputError("exists already.", file=output, remedy="Give another --output, or --force.")
    nifti.write_bytes(output, suggest_recipe(dataset).encode())
    if not is_recognised(dataset):
        print(f"{output} written. The layout was not recognised: correct the paths in it first.")
        return
    recipe, data = shlex.quote(str(output)), shlex.quote(str(dataset))
    print(f"{output} written. Next:\n  lesionsynth check {recipe} --input {data}")
    print(f"  lesionsynth run {recipe} --input {data} --output OUTPUT -j auto")


@app.command()
def check(
    recipe: RecipeName,
    input_folder: InputFolder,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the output will go, for the disk.")
    ] = None,
    overrides: Overrides = None,
    n_jobs: Workers = "1",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Read every file of a data set and list all faults with their cure; exit 1 if there are any."""
    from lesionsynth.run.check import check as look
    from lesionsynth.run.machine import engine_of

    parsed = open_recipe(recipe, overrides)
    with Terminal(quiet) as terminal:
        result = look(parsed, input_folder, output, terminal, engine_of(n_jobs, None))
    if as_json:
        print_json({"findings": [f.as_json() for f in result.findings], "facts": result.facts})
    else:
        for fact in result.facts:
            print(fact)
        for finding in result.findings:
            print(f"{finding.level}: {finding}")
        print(f"{len(result.findings)} finding(s)" if result.findings else "no findings")
    if result.findings:
        raise typer.Exit(ExitCode.FINDINGS)
