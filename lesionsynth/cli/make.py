"""Commands that make data: run, replay, likelihood build."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lesionsynth.cli.app import app
from lesionsynth.cli.terminal import (
    AsJson,
    Copies,
    InputFolder,
    Memory,
    MovedInput,
    OnDevice,
    Overrides,
    Quiet,
    RecipeName,
    Scheduler,
    Seed,
    Terminal,
    Update,
    Verbose,
    Workers,
    open_recipe,
    print_json,
)
from lesionsynth.errors import ExitCode

if TYPE_CHECKING:
    from lesionsynth.recipe.model import Recipe
    from lesionsynth.run.pool import Engine
    from lesionsynth.run.session import Outcome

likelihood = typer.Typer(no_args_is_help=True, help="Likelihood maps: where lesions occur.")
app.add_typer(likelihood, name="likelihood")

_SHOWN = 10


@app.command()
def run(
    recipe: RecipeName,
    input_folder: InputFolder,
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder for the expanded data set.")],
    copies: Copies = None,
    seed: Seed = None,
    overrides: Overrides = None,
    n_jobs: Workers = "1",
    mem: Memory = None,
    device: OnDevice = "auto",
    scheduler: Scheduler = None,
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard",
            metavar="I/N",
            help="Make the I-th of N parts of a planned run; a task of a Slurm array makes its own.",
        ),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option("--work", "-w", help="Folder of a fast local disk, to which bank and maps are copied."),
    ] = None,
    update: Update = False,
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
    import os

    from lesionsynth.run import session
    from lesionsynth.run.machine import engine_of
    from lesionsynth.run.shard import parse_shard, shard_of_array

    part = parse_shard(shard) if shard is not None else shard_of_array(os.environ)
    engine = engine_of(n_jobs, mem, scheduler)
    if work is not None and scheduler is not None:
        raise typer.BadParameter("--work is a disk of this node, which Dask's workers may not have.")
    prepared = recipe_of(recipe, overrides, copies, seed)
    if dry_run:
        print_plan(prepared, input_folder, engine, quiet)
        return
    with Terminal(quiet, verbose) as terminal:
        if part is None:
            outcome = session.run(prepared, input_folder, output, terminal, engine, device, update, work)
        else:
            outcome = session.run_shard(prepared, input_folder, output, part, terminal, engine, device, work)
    tell(outcome, as_json=as_json, quiet=quiet, verbose=verbose)
    if strict and outcome.shortfalls:
        raise typer.Exit(ExitCode.SHORTFALL)


def recipe_of(name: str, overrides: list[str] | None, copies: int | None, seed: int | None) -> Recipe:
    """The recipe with what other options say of it."""
    extra = [f"output.copies={copies}"] if copies is not None else []
    extra += [f"seed={seed}"] if seed is not None else []
    return open_recipe(name, [*(overrides or ()), *extra])


def tell(outcome: Outcome, *, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Write the report of a run, or of its merging, and print what it has come to.

    Exits with SOME_FAILED where cases are missing.
    """
    if outcome.voxels:
        _report(outcome.output)
    if as_json:
        print_json(_as_json(outcome))
    elif not quiet:
        _tell(outcome, verbose)
    for failure in outcome.failures:
        print(f"lesionsynth: {failure.stage}: {failure.error}", file=sys.stderr)
    if outcome.failures:
        raise typer.Exit(ExitCode.SOME_FAILED)


def _report(output: Path) -> None:
    """Write the report; a data set without one is whole, so that a fault in it is told and no more."""
    from lesionsynth.qc.report.page import write_report
    from lesionsynth.run.pool import as_known

    try:
        write_report(output)
    except Exception as error:
        print(f"lesionsynth: the report was not written: {as_known(error, '')}", file=sys.stderr)


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
    if not outcome.voxels:
        print("This was one shard. When all are done: lesionsynth finalize " + str(outcome.output))
        return
    print(f"voxels {outcome.voxels}")
    print("report.html shows what was made; records/, manifest.csv and recipe.lock.yaml say how.")
    if not (outcome.output / SPLITS).is_file():
        print("No splits were written: everything is training data, with nnU-Net fold `all`.")
    else:
        print(
            "splits_final.json holds the leak-safe folds; nnU-Net takes it over when it plans the data set."
        )


def print_plan(recipe: Recipe, folder: Path, engine: Engine, quiet: bool) -> None:
    """Print a plan as JSONL; nothing is left on disk."""
    from lesionsynth.run.plan import plan_lines
    from lesionsynth.run.prepare import plan_only

    with Terminal(quiet) as terminal:
        sys.stdout.write(plan_lines(plan_only(recipe, folder, terminal, engine)).decode())


@app.command()
def replay(
    case: Annotated[str, typer.Argument(help="Synthetic case, such as sub01__syn003.")],
    run_folder: Annotated[Path, typer.Option("--run", "-r", help="Output folder of the run that made it.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder that the remade files go to.")],
    input_folder: MovedInput = None,
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
    n_jobs: Workers = "1",
    mem: Memory = None,
    quiet: Quiet = False,
) -> None:
    """Fit and write the likelihood maps of a recipe, one NIfTI a block, without making any case."""
    from lesionsynth.run import session
    from lesionsynth.run.fit import Fit
    from lesionsynth.run.machine import engine_of

    parsed = open_recipe(recipe, overrides)
    with Terminal(quiet) as terminal:
        prepared = session.plan(parsed, input_folder, output, terminal, engine_of(n_jobs, mem))
    for name in sorted({job.block for job in prepared.jobs}):
        fit = Fit.read(output, name)
        print(f"{output / fit.map_file}: {fit.map_kind}, fitted on {len(fit.fitted_on)} subjects")
