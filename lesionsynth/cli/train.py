"""Commands that train models: train lesion-autoencoder, mask-gan, hvae, translation."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lesionsynth.cli.app import app
from lesionsynth.cli.terminal import (
    AsJson,
    InputFolder,
    OnDevice,
    Overrides,
    Quiet,
    Terminal,
    Workers,
    open_recipe,
    print_json,
)

if TYPE_CHECKING:
    from lesionsynth.generative.checkpoint import Kind

train = typer.Typer(no_args_is_help=True, help="Train models that make lesions or images.")
app.add_typer(train, name="train")

_ABOUT: dict[Kind, str] = {
    "lesion-autoencoder": "Train adversarial autoencoders of single lesions: of their shapes, and of their "
    "intensities.",
    "mask-gan": "Train a Wasserstein GAN of the shapes of single lesions.",
    "hvae": "Train a Hamiltonian variational autoencoder of images with their lesion masks.",
    "translation": "Train a translation of semantic maps to images: pix2pix, SPADE or CycleGAN.",
}


def _command(kind: Kind) -> Callable[..., None]:
    """The command that trains models of a kind: all take the same options."""

    def command(
        input_folder: InputFolder,
        output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the models, one a block.")],
        recipe: Annotated[
            str, typer.Option("--recipe", help="Recipe whose input, tissue, bank and folds sections count.")
        ] = "lesionmix",
        overrides: Overrides = None,
        preset: Annotated[
            str,
            typer.Option("--preset", help="full: published or full size; tiny: minutes on two cores."),
        ] = "full",
        settings: Annotated[
            list[str] | None,
            typer.Option(
                "--train",
                "-t",
                metavar="KEY=VALUE",
                help="Override a value of the preset, such as steps=5000.",
            ),
        ] = None,
        block: Annotated[
            list[str] | None,
            typer.Option("--block", help="Train this block alone, such as block0; may be repeated."),
        ] = None,
        device: OnDevice = "auto",
        threads: Annotated[int, typer.Option("--threads", help="Threads of torch on the CPU.", min=1)] = 1,
        n_jobs: Workers = "1",
        as_json: AsJson = False,
        quiet: Quiet = False,
    ) -> None:
        # A thread that spins while it waits would keep others from a core, where there are few.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        from lesionsynth.generative.specs import SPECS
        from lesionsynth.recipe.load import settings_of
        from lesionsynth.run.machine import engine_of
        from lesionsynth.run.train import train_models

        model = SPECS[kind]
        if preset not in model.presets:
            raise typer.BadParameter(f"there is no preset {preset!r}; there are {', '.join(model.presets)}.")
        spec = settings_of(model, model.presets[preset], f"preset {preset}", settings or (), "--train")
        parsed = open_recipe(recipe, overrides)
        with Terminal(quiet) as terminal:
            engine = engine_of(n_jobs, None)
            made = train_models(
                kind, spec, parsed, input_folder, output, terminal, engine, device, threads, block or ()
            )
        if as_json:
            print_json(
                {str(path): card.model_dump(mode="json", exclude={"about"}) for path, card in made.items()}
            )
            return
        for path, card in made.items():
            measures = ", ".join(f"{name} {value:.3g}" for name, value in sorted(card.measures.items()))
            print(f"{path}: trained on {len(card.subjects)} subjects; {measures}")

    return command


for _kind, _text in _ABOUT.items():
    train.command(_kind, help=_text)(_command(_kind))
