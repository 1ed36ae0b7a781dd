"""The command convert."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lesionsynth.cli.app import app
from lesionsynth.cli.terminal import AsJson, Overrides, Quiet, Terminal, open_recipe, print_json


@app.command()
def convert(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="Folder of a data set.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder for the converted data set.")],
    to: Annotated[
        str,
        typer.Option("--to", help="Layout: its kind, such as bids, or kind and keys as YAML in braces."),
    ],
    recipe: Annotated[
        str, typer.Option("--from", help="Recipe whose section input tells how DATASET is read.")
    ] = "lesionmix",
    link: Annotated[
        bool, typer.Option("--link", help="Hard-link files that stay as they are, where the disk allows it.")
    ] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write a data set in another layout: the same cases, voxels, labels and splits, nothing synthetic."""
    from lesionsynth.run.convert import convert as write

    settings = [f"output.layout={to}", f"output.originals={'link' if link else 'copy'}"]
    parsed = open_recipe(recipe, [*(overrides or ()), *settings])
    with Terminal(quiet) as terminal:
        made = write(parsed, dataset, output, terminal)
        if not made.subjects_kept:
            terminal.note(
                f"The layout {made.layout.kind} does not tell which cases are of one subject: give "
                "input.subject when you use it, or its folds may leak."
            )
    layout = made.layout.model_dump(mode="json", exclude_defaults=True) | {"kind": made.layout.kind}
    if as_json:
        about = {"cases": made.renamed, "subjects_kept": made.subjects_kept}
        print_json({"output": str(output), "layout": layout, **about})
        return
    changed = sum(before != after for before, after in made.renamed.items())
    print(f"{len(made.cohort.cases)} cases in {output}, layout {made.layout.kind}{_of_names(changed)}")
    if not made.recognised:
        print(f"To use it: input: {{layout: {json.dumps(layout)}}}")


def _of_names(changed: int) -> str:
    return f"; {changed} have other ids there (--json lists them)." if changed else "."
