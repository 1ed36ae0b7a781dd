"""Commands on the lesion bank: build, ls, show."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lesionsynth.cli.app import app
from lesionsynth.cli.terminal import (
    AsJson,
    InputFolder,
    Overrides,
    Quiet,
    Terminal,
    Workers,
    open_recipe,
    print_json,
    table,
)
from lesionsynth.errors import InputError

bank = typer.Typer(no_args_is_help=True, help="The lesion bank: real lesions, harvested and indexed.")
app.add_typer(bank, name="bank")

BankFolder = Annotated[Path, typer.Argument(metavar="BANK", help="Folder of the bank, such as OUTPUT/bank.")]


@bank.command()
def build(
    input_folder: InputFolder,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the bank.")],
    recipe: Annotated[
        str, typer.Option("--recipe", help="Recipe whose input, tissue and bank sections count.")
    ] = "lesionmix",
    overrides: Overrides = None,
    n_jobs: Workers = "1",
    quiet: Quiet = False,
) -> None:
    """Harvest every lesion of a data set into a bank."""
    from lesionsynth.run.cohort import open_cohort
    from lesionsynth.run.fit import build_bank
    from lesionsynth.run.folder import check_output
    from lesionsynth.run.machine import engine_of

    parsed = open_recipe(recipe, overrides)
    check_output(input_folder, output, marker="index.sqlite")
    _, cohort, _ = open_cohort(parsed.input, input_folder)
    with Terminal(quiet) as terminal:
        made, failures = build_bank(cohort, parsed, output, engine_of(n_jobs, None), terminal)
        for failure in failures:
            terminal.note(f"left out: {failure.error}")
    with made:
        cases = made.cases()
        count = sum(1 for _ in made.infos())
    print(f"{output}: {count} lesions of {len(cases)} cases, {len({c.subject for c in cases})} subjects")


@bank.command()
def ls(
    folder: BankFolder,
    subject: Annotated[
        list[str] | None, typer.Option("--subject", help="Only this subject; may be repeated.")
    ] = None,
    run_folder: Annotated[
        Path | None, typer.Option("--run", help="Output folder whose --block is meant.")
    ] = None,
    block: Annotated[
        str | None, typer.Option("--block", help="Only subjects of this block of a run, such as block0.")
    ] = None,
    lesion_class: Annotated[
        int | None, typer.Option("--class", help="Only lesions that have this label value.")
    ] = None,
    min_mm3: Annotated[float, typer.Option("--min-mm3", help="Smallest volume.")] = 0.0,
    max_mm3: Annotated[float, typer.Option("--max-mm3", help="Largest volume.")] = float("inf"),
    masks: Annotated[bool, typer.Option("--masks", help="Also lesions known by their mask alone.")] = False,
    limit: Annotated[int, typer.Option("--limit", help="Rows shown; 0 for all.", min=0)] = 50,
    as_json: AsJson = False,
) -> None:
    """List lesions, filtered by subject, block, class and size."""
    from lesionsynth.bank.store import LesionBank

    with LesionBank(folder) as opened:
        subjects = set(subject) if subject else {case.subject for case in opened.cases()}
        if block is not None:
            subjects &= _subjects_of(block, run_folder or folder.parent)
        found = opened.candidates(
            subjects,
            with_image=not masks,
            lesion_class=lesion_class,
            min_volume_mm3=min_mm3,
            max_volume_mm3=max_mm3,
        )
        numbers = found.ids if limit == 0 else found.ids[:limit]
        infos = [opened.info(int(number)) for number in numbers]
    if as_json:
        print_json([asdict(info) for info in infos])
        return
    rows: list[tuple[str, ...]] = [
        (
            info.lesion,
            info.subject,
            f"{info.volume_mm3:.0f}",
            "/".join(map(str, info.classes)),
            info.site.place if info.site else "",
            " ".join(f"{c.contrast / c.tissue_mad:+.1f}" if c.tissue_mad else "-" for c in info.channels),
        )
        for info in infos
    ]
    table("", ("lesion", "subject", "mm3", "class", "place", "contrast (tissue spreads, by channel)"), rows)
    print(f"{len(infos)} of {found.ids.size} lesions")


def _subjects_of(block: str, run: Path) -> set[str]:
    """Subjects of a block of a run."""
    from lesionsynth.run.fit import Fit

    known = sorted(path.stem for path in (run / "likelihood").glob("*.json"))
    if block not in known:
        raise InputError(
            f"there is no block {block}; there are {', '.join(known)}." if known else "is no run's output.",
            file=run,
            remedy="Give one of these." if known else "Blocks are of a run: --run is its output folder.",
        )
    return set(Fit.read(run, block).subjects)


@bank.command()
def show(
    folder: BankFolder,
    lesion: Annotated[str, typer.Argument(help="Name of a lesion, as ls prints it.")],
) -> None:
    """Print everything the index knows of one lesion, as JSON."""
    from lesionsynth.bank.store import LesionBank

    with LesionBank(folder) as opened:
        print_json(asdict(opened.read(lesion).info))
