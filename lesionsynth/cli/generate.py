"""Commands that write whole generated data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer

from lesionsynth.cli.app import app
from lesionsynth.cli.terminal import AsJson, Quiet, Terminal, print_json

generate = typer.Typer(no_args_is_help=True, help="Whole cases from trained models, image and label.")
app.add_typer(generate, name="generate")


@generate.command()
def hvae(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="Checkpoint of a block that `train hvae` has written.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder for the data set.")],
    count: Annotated[int, typer.Option("--count", "-n", help="Cases.", min=1, max=9999)],
    layout: Annotated[
        str | None,
        typer.Option(
            "--layout",
            help="Layout: its kind, such as bids, or kind and keys as YAML in braces. By default that of "
            "--input-like, or nnunet.",
        ),
    ] = None,
    sampling: Annotated[
        str,
        typer.Option(
            "--sampling",
            metavar="prior|mixture|neighbourhood",
            help="Where codes are drawn. prior: N(0, I); mixture: Gaussians fitted to the training codes; "
            "neighbourhood: near one of them.",
        ),
    ] = "mixture",
    spread: Annotated[
        float, typer.Option("--spread", help="Factor on the spread of the draws.", min=0.01, max=4)
    ] = 1.0,
    seed: Annotated[int, typer.Option("--seed", help="Seed of all randomness.", min=0)] = 2026,
    input_like: Annotated[
        Path | None,
        typer.Option(
            "--input-like",
            metavar="DATASET",
            help="Data set of the same channels and labels whose layout and file ending are taken.",
        ),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Generate whole cases, image and label, by a Hamiltonian variational autoencoder.

    Nobody's images are in them, but the model has seen its training subjects: test on none of them.
    """
    from lesionsynth.generative.codes import Sampling
    from lesionsynth.recipe.load import load_recipe
    from lesionsynth.run.generate import Wish
    from lesionsynth.run.generate import generate as write

    known: dict[str, Sampling] = {name: name for name in get_args(Sampling)}
    if sampling not in known:
        raise typer.BadParameter(f"{sampling!r} is none of {', '.join(known)}", param_hint="--sampling")
    chosen = layout or ("same" if input_like else "nnunet")
    parsed = load_recipe("lesionmix", [f"output.layout={chosen}"]).output.layout
    wish = Wish(count, known[sampling], spread, seed)
    with Terminal(quiet) as terminal:
        made = write(model, output, wish, parsed, terminal, input_like)
    if as_json:
        print_json(made)
        return
    refused = "".join(f"; {number} x {reason}" for reason, number in made["rejected"].items())
    print(f"{count} cases in {output}; {made['accepted']:.0%} of the samples could be used{refused}")
    print(f"The model has seen {len(made['model']['subjects'])} subjects (generated.json); test on none.")
