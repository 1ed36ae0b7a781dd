"""Commands of a run in parts: plan, finalize, status."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lesionsynth.cli.app import app
from lesionsynth.cli.make import print_plan, recipe_of, tell
from lesionsynth.cli.terminal import (
    AsJson,
    Copies,
    InputFolder,
    Memory,
    Overrides,
    Quiet,
    RecipeName,
    RunFolder,
    Scheduler,
    Seed,
    Terminal,
    Update,
    Verbose,
    Workers,
    print_json,
)
from lesionsynth.errors import ExitCode


@app.command()
def plan(
    recipe: RecipeName,
    input_folder: InputFolder,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Output folder of the run: bank, maps and plan are written there, for shards.",
        ),
    ] = None,
    copies: Copies = None,
    seed: Seed = None,
    overrides: Overrides = None,
    n_jobs: Workers = "1",
    mem: Memory = None,
    scheduler: Scheduler = None,
    update: Update = False,
    quiet: Quiet = False,
) -> None:
    """Plan a run: print one JSON line per synthetic case, or write all that shards need."""
    from lesionsynth.run import session
    from lesionsynth.run.machine import engine_of

    parsed, engine = recipe_of(recipe, overrides, copies, seed), engine_of(n_jobs, mem, scheduler)
    if output is None:
        print_plan(parsed, input_folder, engine, quiet)
        return
    with Terminal(quiet) as terminal:
        prepared = session.plan(parsed, input_folder, output, terminal, engine, update)
    hosts = len({job.host for job in prepared.jobs})
    print(f"{len(prepared.jobs)} synthetic cases of {hosts} hosts are planned in {output}.")
    print("Next, for each i from 1 to n: lesionsynth run ... --shard i/n")
    print(f"Then: lesionsynth finalize {output}")


@app.command()
def finalize(
    output: RunFolder, as_json: AsJson = False, quiet: Quiet = False, verbose: Verbose = False
) -> None:
    """Merge the shards of a run: originals, splits, manifest; say which cases are missing, and why."""
    from lesionsynth.run.session import merge

    with Terminal(quiet, verbose) as terminal:
        outcome = merge(output, terminal)
    tell(outcome, as_json=as_json, quiet=quiet, verbose=verbose)


@app.command()
def status(output: RunFolder, as_json: AsJson = False) -> None:
    """Tell how far a run is, running or stopped; exit 6 if cases have failed."""
    from dataclasses import asdict

    from lesionsynth.run.ledger import status_of
    from lesionsynth.run.prepare import read_prepared

    prepared = read_prepared(output)
    found = status_of(prepared.space, prepared.jobs)
    if as_json:
        print_json(asdict(found))
    else:
        share = f" ({100 * found.done / found.planned:.0f} %)" if found.planned else ""
        print(f"{found.done} of {found.planned} cases are done{share}, {len(found.failed)} have failed.")
        if found.last_s is not None:
            print(f"The last one was written {_ago(found.last_s)} ago.")
        if found.per_minute and found.missing:
            left_min = len(found.missing) / found.per_minute
            print(f"{found.per_minute:.1f} cases a minute; at that rate {_ago(60 * left_min)} for the rest.")
        for note in found.failed:
            print(f"  {note['stage']}: {note['error']}")
    if found.failed:
        raise typer.Exit(ExitCode.SOME_FAILED)


def _ago(seconds: float) -> str:
    """A time for people."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
