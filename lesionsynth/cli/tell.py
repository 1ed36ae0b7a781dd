"""Commands that tell what there is: list, schema, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lesionsynth.cli.app import app
from lesionsynth.cli.terminal import AsJson, print_json, table


@app.command("list")
def list_kinds(as_json: AsJson = False) -> None:
    """List operations, sources, blends, fills, layouts and shipped recipes, one line each."""
    from lesionsynth.plugins.registry import GROUPS, kinds
    from lesionsynth.recipe.load import shipped
    from lesionsynth.spec import summary_of

    found = {group: {name: summary_of(kind) for name, kind in kinds(group).items()} for group in GROUPS}
    found["recipes"] = {name: _first_comment(path) for name, path in shipped().items()}
    if as_json:
        print_json(found)
        return
    for group, entries in found.items():
        table(group, ("", ""), [(f"  {name}", text) for name, text in entries.items()])


def _first_comment(path: Path) -> str:
    return path.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ").rstrip(".")


@app.command()
def schema(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File; stdout where not given.")
    ] = None,
) -> None:
    """Print the JSON Schema of recipes, for completion in editors."""
    import json

    from lesionsynth import nifti
    from lesionsynth.recipe.model import Recipe

    text = json.dumps(
        {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}, indent=2
    )
    if output is None:
        print(text)
    else:
        nifti.write_bytes(output, (text + "\n").encode())
        print(f"{output} written. First line of a recipe:\n# yaml-language-server: $schema={output}")


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Tell versions, cores, memory, GPU, gzip engine and disk."""
    from lesionsynth.run.machine import describe

    facts = describe(Path.cwd())
    if as_json:
        print_json(facts)
    else:
        table("", ("", ""), [(name, value) for name, value in facts.items()])
