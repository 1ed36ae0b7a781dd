"""The command that asks whether synthetic data makes a segmentation model better: trial."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

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
    table,
)

if TYPE_CHECKING:
    from lesionsynth.generative.specs import TrainSpec
    from lesionsynth.trial.compare import Comparison
    from lesionsynth.trial.run import Outcome


@app.command()
def trial(
    input_folder: InputFolder,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for tables and the page.")],
    recipes: Annotated[
        str,
        typer.Option(
            "--recipes",
            metavar="NAME,...",
            help="Recipes to compare, by name or path; none, without synthetic data, is always one.",
        ),
    ],
    fractions: Annotated[
        str,
        typer.Option("--fractions", metavar="F,...", help="Shares of the training subjects to train on."),
    ] = "1",
    seeds: Annotated[int, typer.Option("--seeds", help="Repetitions, each of all arms.", min=1)] = 5,
    folds: Annotated[
        str, typer.Option("--folds", metavar="K,...", help="Folds whose validation part is the test.")
    ] = "0",
    shares: Annotated[
        str | None,
        typer.Option(
            "--shares",
            metavar="S,...",
            help="Train each recipe also with these shares of synthetic patches in a batch.",
        ),
    ] = None,
    prototype: Annotated[
        Literal["none", "cross", "direct"],
        typer.Option(
            "--prototype", help="Train each recipe once more with prototype consistency of this form."
        ),
    ] = "none",
    on_the_fly: Annotated[
        str | None,
        typer.Option(
            "--on-the-fly",
            metavar="TIMES,...",
            help="Train each recipe also with copies made during training: so many times its number.",
        ),
    ] = None,
    controls: Annotated[
        str | None,
        typer.Option(
            "--controls",
            metavar="NAME,...",
            help="Also train without synthetic data: longer (twice), lesions (more lesion patches).",
        ),
    ] = None,
    ablate: Annotated[
        bool,
        typer.Option("--ablate", help="Train each recipe also with each of its parts off, one at a time."),
    ] = False,
    search: Annotated[
        int,
        typer.Option(
            "--search",
            metavar="N",
            help="Train each recipe also with the values that N networks find best on validation subjects.",
            min=0,
        ),
    ] = 0,
    rare: Annotated[
        float | None,
        typer.Option(
            "--rare",
            metavar="SHARE",
            help="Remove lesions from training cases until they are this share of an image, such as 0.005.",
        ),
    ] = None,
    trainer: Annotated[
        str,
        typer.Option(
            "--trainer",
            metavar="NAME",
            help="unet: train here; nnunet, or nnunet:CLASS such as nnunet:nnUNetTrainer_250epochs: write "
            "data sets and commands for nnU-Net, and read what it has found when called again.",
        ),
    ] = "unet",
    preset: Annotated[
        str, typer.Option("--preset", help="full: full size; tiny: a minute a network on one core.")
    ] = "full",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--train", "-t", metavar="KEY=VALUE", help="Override a value of the preset, such as steps=5000."
        ),
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--train-model",
            metavar="KIND.KEY=VALUE",
            help="Override a value of the preset of models that recipes need and that are trained here, such "
            "as hvae.steps=2000.",
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            "--budget", metavar="MINUTES", help="Begin nothing that would probably end later.", min=0
        ),
    ] = None,
    overrides: Overrides = None,
    device: OnDevice = "auto",
    threads: Annotated[int, typer.Option("--threads", help="Threads of torch on the CPU.", min=1)] = 1,
    n_jobs: Workers = "1",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train the same network with and without synthetic data, test it on real cases, and compare."""
    # A thread that spins while it waits would keep others from a core, where there are few.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from lesionsynth.recipe.load import settings_of
    from lesionsynth.run.machine import engine_of
    from lesionsynth.trial.arms import arms_of
    from lesionsynth.trial.run import run_trial
    from lesionsynth.trial.spec import TrialSpec
    from lesionsynth.trial.wish import READING, Wish

    if preset not in TrialSpec.presets:
        raise typer.BadParameter(f"there is no preset {preset!r}; there are {', '.join(TrialSpec.presets)}.")
    if rare is not None and not 0 < rare < 1:
        raise typer.BadParameter(f"--rare {rare:g}: should be a share above 0 and below 1.")
    swept = [] if shares is None else _numbers(shares, "--shares", 0.0, 1.0)
    times = [] if on_the_fly is None else _numbers(on_the_fly, "--on-the-fly", 0.0, 1000.0)
    if any(setting.split("=")[0].strip() == "seed" for setting in settings or ()):
        raise typer.BadParameter("--train seed: the seeds of networks are 0, 1, ...: --seeds says how many.")
    names = [name.strip() for name in recipes.split(",")]
    wish = Wish(
        arms_of(
            names,
            partial(open_recipe, overrides=overrides),
            prototype=prototype,
            ablate=ablate,
            shares=swept,
            on_the_fly=times,
            controls=_controls(controls),
            search=search,
        ),
        tuple(_numbers(fractions, "--fractions", 0.0, 1.0)),
        seeds,
        tuple(int(fold) for fold in _numbers(folds, "--folds", -1, 1000, whole=True)),
        settings_of(TrialSpec, TrialSpec.presets[preset], f"preset {preset}", settings or (), "--train"),
        _models(preset, models or ()),
        None if budget is None else 60 * budget,
        _nnunet(trainer),
        rare,
        open_recipe("lesionmix", overrides) if set(names) == {"none"} else READING,
    )
    with Terminal(quiet) as terminal:
        outcome = run_trial(wish, input_folder, output, terminal, engine_of(n_jobs, None), device, threads)
    if as_json:
        print_json([vars(comparison) for comparison in outcome.comparisons])
        return
    _tell(outcome, output, wish.nnunet)


def _models(preset: str, overrides: Sequence[str]) -> dict[str, TrainSpec]:
    """How models of each kind are trained."""
    from lesionsynth.generative.specs import SPECS
    from lesionsynth.recipe.load import settings_of

    own: dict[str, list[str]] = {kind: [] for kind in SPECS}
    for text in overrides:
        kind, _, setting = text.partition(".")
        if kind not in own or not setting:
            raise typer.BadParameter(
                f"--train-model {text}: should be one of {', '.join(SPECS)}, a point and KEY=VALUE."
            )
        own[kind].append(setting)
    return {
        kind: settings_of(spec, spec.presets[preset], f"preset {preset}", own[kind], f"--train-model {kind}:")
        for kind, spec in SPECS.items()
    }


def _numbers(text: str, option: str, above: float, most: float, whole: bool = False) -> list[float]:
    """Numbers between commas, each once."""
    kind = "whole numbers" if whole else "numbers"
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{option} {text}: should be {kind} between commas.") from None
    if any(not above < n <= most or (whole and n != int(n)) for n in found):
        limits = f"{kind} from {int(above) + 1}" if whole else f"{kind} above {above:g} and up to {most:g}"
        raise typer.BadParameter(f"{option} {text}: should be {limits}.")
    return list(dict.fromkeys(found))


def _controls(text: str | None) -> list[str]:
    from lesionsynth.trial.arms import CONTROLS

    wanted = [] if text is None else list(dict.fromkeys(name.strip() for name in text.split(",")))
    if unknown := [name for name in wanted if name not in CONTROLS]:
        raise typer.BadParameter(f"--controls {unknown[0]}: should be some of {', '.join(CONTROLS)}.")
    return wanted


def _nnunet(trainer: str) -> str | None:
    """nnU-Net's name of a way to train, or None for the built-in network."""
    from lesionsynth.trial.nnunet import TRAINERS

    kind, _, name = trainer.partition(":")
    if trainer == "unet":
        return None
    name = name or "nnUNetTrainer"
    if kind != "nnunet" or not TRAINERS.fullmatch(name):
        raise typer.BadParameter(
            f"--trainer {trainer}: should be unet, nnunet, or nnunet: and one of its classes, such as "
            "nnunet:nnUNetTrainer_250epochs."
        )
    return name


def _tell(outcome: Outcome, output: Path, nnunet: str | None) -> None:
    """Print a table of Dice and area under the precision-recall curve, and where the rest is."""
    from lesionsynth.trial.compare import varied
    from lesionsynth.trial.page import ONE_PAIR

    by_arm: dict[tuple[float, str], dict[str, Comparison]] = {}
    for one in outcome.comparisons:
        by_arm.setdefault((one.fraction, one.recipe), {})[one.measure] = one
    rows: list[tuple[str, ...]] = []
    for (fraction, recipe), found in by_arm.items():
        dice, auprc = found.get("dice_at_val"), found.get("auprc")
        detectable = None if dice is None else dice.detectable
        rows.append(
            (
                recipe,
                f"{fraction:g}",
                _mean(dice),
                _difference(dice),
                "" if detectable is None else f"{detectable:.3f}",
                _mean(auprc),
                _difference(auprc),
            )
        )
    if rows:
        table(
            "",
            (
                "recipe",
                "fraction",
                "Dice",
                "difference [95 %]",
                "detectable",
                "AUPRC",
                "difference [95 %]",
            ),
            rows,
        )
    basis = varied(outcome.rows)
    if any(one.low is not None and basis[one.fraction].is_one_pair for one in outcome.comparisons):
        print(ONE_PAIR)
    for cell, why in outcome.failed.items():
        print(f"not made: {cell}: {why}")
    if outcome.left:
        first = "" if nnunet is None else f"run the scripts in {output / 'nnunet' / 'commands'}, then "
        print(f"{outcome.left} cell(s) are still to be done; {first}the same command continues.")
    print(f"{output / 'trial.html'}, comparison.csv, results.csv")


def _mean(one: Comparison | None) -> str:
    return "" if one is None else f"{one.mean:.3f}"


def _difference(one: Comparison | None) -> str:
    if one is None or one.difference is None:
        return ""
    interval = "" if one.low is None else f" [{one.low:+.3f}, {one.high:+.3f}]"
    return f"{one.difference:+.3f}{interval}"
