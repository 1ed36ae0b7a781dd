"""Commands that make data: run, plan, replay, likelihood build."""

from __future__ import annotations

import sys
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
    RecipeName,
    Terminal,
    Verbose,
    Workers,
    n_workers,
    open_recipe,
    print_json,
)
from lesionsynth.errors import ExitCode

if TYPE_CHECKING:
    from lesionsynth.recipe.model import Recipe
    from lesionsynth.run.session import Outcome

likelihood = typer.Typer(no_args_is_help=True, help="Likelihood maps: where lesions occur.")
app.add_typer(likelihood, name="likelihood")

_SHOWN = 10


@app.command()
def run(
    recipe: RecipeName,
    input_folder: InputFolder,
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder for the expanded data set.")],
    copies: Annotated[
        int | None,
        typer.Option("--copies", "-n", help="Synthetic cases per host (per fold with per_fold).", min=1),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of all randomness.", min=0)] = None,
    overrides: Overrides = None,
    n_jobs: Workers = 1,
    device: OnDevice = "auto",
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 7 where a load target was not met.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan as JSONL and write nothing.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make an expanded data set. The same command continues a run that was stopped."""
    prepared = _recipe(recipe, overrides, copies, seed)
    if dry_run:
        _print_plan(prepared, input_folder, None, n_jobs, quiet)
        return
    from lesionsynth.run import session

    with Terminal(quiet, verbose) as terminal:
        outcome = session.run(prepared, input_folder, output, n_workers(n_jobs), terminal, device)
    if as_json:
        print_json(_as_json(outcome))
    elif not quiet:
        _tell(outcome, verbose)
    for failure in outcome.failures:
        print(f"lesionsynth: {failure.stage}: {failure.error}", file=sys.stderr)
    if outcome.failures:
        raise typer.Exit(ExitCode.SOME_FAILED)
    if strict and outcome.shortfalls:
        raise typer.Exit(ExitCode.SHORTFALL)


def _recipe(name: str, overrides: list[str] | None, copies: int | None, seed: int | None) -> Recipe:
    extra = [f"output.copies={copies}"] if copies is not None else []
    extra += [f"seed={seed}"] if seed is not None else []
    return open_recipe(name, [*(overrides or ()), *extra])


def _as_json(outcome: Outcome) -> dict[str, object]:
    return {
        "output": str(outcome.output),
        "synthetic_cases": len(outcome.done),
        "already_there": outcome.skipped,
        "voxels": outcome.voxels,
        "shortfalls": [row["case"] for row in outcome.shortfalls],
        "failures": [{"case": f.name, "stage": f.stage, "error": str(f.error)} for f in outcome.failures],
        "seconds": outcome.seconds,
        "peak_mb": outcome.peak_mb,
        "cases": outcome.done,
    }


def _tell(outcome: Outcome, verbose: bool) -> None:
    """Say on stdout what was made, what fell short, and what to do next."""
    from lesionsynth.run.finalize import SPLITS

    added = sum(row["lesions_inserted"] for row in outcome.done)
    removed = sum(row["lesions_removed"] for row in outcome.done)
    own = sum(row["own_subject_donors"] for row in outcome.done)
    print(
        f"{len(outcome.done)} synthetic cases in {outcome.output}: {added} lesions added, {removed} removed."
    )
    if own:
        print(f"{own} of the added lesions are of the host's own subject.")
    shown = outcome.done if verbose else outcome.shortfalls[:_SHOWN]
    for row in shown:
        target = row["load_target_ml"]
        wanted = "" if target is None else f", target {target:.2f}"
        mark = "  not met" if row["shortfall"] else ""
        print(f"  {row['case']}: {row['load_before_ml']:.2f} -> {row['load_after_ml']:.2f} mL{wanted}{mark}")
    if outcome.shortfalls:
        print(f"{len(outcome.shortfalls)} case(s) did not meet their load target; the records say why.")
    clipped = [row["case"] for row in outcome.done if row["clipped_voxels"]]
    if clipped:
        print(f"{len(clipped)} case(s) were clipped to the range of their dtype, such as {clipped[0]}.")
    warned = [row["case"] for row in outcome.done if row["warnings"]]
    if warned:
        print(f"{len(warned)} case(s) have warnings in their records, such as {warned[0]}.")
    print(f"voxels {outcome.voxels}")
    print("records/, manifest.csv and recipe.lock.yaml say how each case was made.")
    if not (outcome.output / SPLITS).is_file():
        print("No splits were written: everything is training data, with nnU-Net fold `all`.")
    else:
        print(
            "splits_final.json holds the leak-safe folds; nnU-Net takes it over when it plans the data set."
        )


def _print_plan(recipe: Recipe, folder: Path, output: Path | None, n_jobs: int, quiet: bool) -> None:
    from lesionsynth import nifti
    from lesionsynth.run.plan import plan_lines
    from lesionsynth.run.session import plan_only

    with Terminal(quiet) as terminal:
        lines = plan_lines(plan_only(recipe, folder, n_workers(n_jobs), terminal))
    if output is None:
        sys.stdout.write(lines.decode())
    else:
        nifti.write_bytes(output, lines)


@app.command()
def plan(
    recipe: RecipeName,
    input_folder: InputFolder,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSONL file; stdout where not given.")
    ] = None,
    copies: Annotated[
        int | None,
        typer.Option("--copies", "-n", help="Synthetic cases per host (per fold with per_fold).", min=1),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of all randomness.", min=0)] = None,
    overrides: Overrides = None,
    n_jobs: Workers = 1,
    quiet: Quiet = False,
) -> None:
    """Print what a run would do, one JSON line per synthetic case; change nothing else."""
    _print_plan(_recipe(recipe, overrides, copies, seed), input_folder, output, n_jobs, quiet)


@app.command()
def replay(
    case: Annotated[str, typer.Argument(help="Synthetic case, such as sub01__syn003.")],
    run_folder: Annotated[Path, typer.Option("--run", "-r", help="Output folder of the run that made it.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder that the remade files go to.")],
    input_folder: Annotated[
        Path | None, typer.Option("--input", "-i", help="The input, where it has moved.")
    ] = None,
) -> None:
    """Make one synthetic case again from its record, equal voxel for voxel, and check that it is."""
    from lesionsynth.run.session import replay as remake

    for path in remake(run_folder, case, output, input_folder):
        print(path)


@likelihood.command("build")
def likelihood_build(
    recipe: RecipeName,
    input_folder: InputFolder,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the bank and the maps.")],
    overrides: Overrides = None,
    n_jobs: Workers = 1,
    quiet: Quiet = False,
) -> None:
    """Fit and write the likelihood maps of a recipe, one NIfTI a block, without making any case."""
    from lesionsynth.bank.store import INDEX
    from lesionsynth.run.session import BANK, check_output, prepare

    parsed = open_recipe(recipe, overrides)
    check_output(input_folder, output, marker=f"{BANK}/{INDEX}")
    with Terminal(quiet) as terminal:
        prepared = prepare(parsed, input_folder, output, n_workers(n_jobs), terminal)
    for fit in prepared.fits.values():
        print(f"{output / fit.map_file}: {fit.map_kind}, fitted on {len(fit.fitted_on)} subjects")
