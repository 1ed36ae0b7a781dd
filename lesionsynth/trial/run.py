"""A whole trial: its cells one group after another, and what they say together."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import lesionsynth
from lesionsynth import nifti
from lesionsynth.digest import digest_json, file_states
from lesionsynth.domain.case import Cohort
from lesionsynth.errors import InputError, LesionsynthError, RecipeError
from lesionsynth.generative.checkpoint import SUFFIX, needed
from lesionsynth.json_file import read_json
from lesionsynth.recipe.model import Recipe, deciding
from lesionsynth.run.cohort import open_cohort
from lesionsynth.run.fit import case_keys
from lesionsynth.run.folder import check_output, claim, refuse_other
from lesionsynth.run.folds import find_splits
from lesionsynth.run.models import used
from lesionsynth.run.pool import ALONE, Engine, Failure, Progress, run_all
from lesionsynth.trial import nnunet
from lesionsynth.trial.arms import Arm
from lesionsynth.trial.cell import run_cell
from lesionsynth.trial.cells import Cell, make_cells
from lesionsynth.trial.compare import NONE, Comparison, Row, compare
from lesionsynth.trial.page import TITLES, render
from lesionsynth.trial.spec import TrialSpec

PAGE = "trial.html"
NOTE = "trial.json"
"""What a trial compares; the file by which its folder is known."""


@dataclass(frozen=True)
class Wish:
    """What is to be compared.

    Parameters
    ----------
    arms : tuple of Arm
        With the one without synthetic data first.
    fractions : tuple of float
        Of the training subjects.
    seeds : int
    folds : tuple of int
    spec : TrialSpec
    preset : str
        Of the models that recipes need and that are not there.
    budget_s : float or None
        No group of cells begins that would probably end later.
    nnunet : str or None
        nnU-Net's name of a way to train, if it is to train and not we.
    """

    arms: tuple[Arm, ...]
    fractions: tuple[float, ...]
    seeds: int
    folds: tuple[int, ...]
    spec: TrialSpec
    preset: str = "full"
    budget_s: float | None = None
    nnunet: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What a trial has found so far.

    Parameters
    ----------
    rows : list of Row
        Of test cases, of groups of which every arm is done or could not be made.
    comparisons : list of Comparison
    failed : dict of str to str
        Cells that could not be done, and why.
    left : int
        Cells that are still to be done.
    cells : list of dict
        As they were written.
    """

    rows: list[Row]
    comparisons: list[Comparison]
    failed: dict[str, str]
    left: int
    cells: list[dict[str, Any]]


def run_trial(
    wish: Wish,
    root: Path,
    output: Path,
    progress: Progress,
    engine: Engine = ALONE,
    device: str = "auto",
    threads: int = 1,
) -> Outcome:
    """Train and compare; the same call goes on with what was stopped, more seeds or arms are added.

    Raises
    ------
    LesionsynthError
        If the input cannot be used, a package is missing, or `output` holds another trial.
    """
    for package in () if wish.nnunet else ("torch", "monai", "tensorboardX"):
        needed(package)
    started = time.monotonic()
    root, output = root.absolute(), output.absolute()
    if wish.arms[0] != Arm(NONE, None):
        raise RecipeError("the first arm has to be the one without synthetic data.")
    if wish.nnunet and any(arm.control or arm.renewed or arm.prototype != "none" for arm in wish.arms):
        raise RecipeError(
            "nnU-Net trains in its own way: controls, copies on the fly and prototypes are not for it.",
            remedy="Leave out --controls, --on-the-fly and --prototype, or --trainer nnunet.",
        )
    about = {
        "lesionsynth": lesionsynth.__version__,
        "network": wish.nnunet or wish.spec.model_dump(mode="json"),
    }
    check_output(root, output, marker=NOTE)
    refuse_other(output, NOTE, about)
    base = next((arm.recipe for arm in wish.arms if arm.recipe is not None), None) or Recipe.model_validate(
        {"steps": {"add": {"kind": "populate"}}}
    )
    _require_one_input(wish.arms, base)
    _, cohort, dropped = open_cohort(base.input, root)
    for finding in dropped:
        progress.note(f"left out: {finding}")
    splits, why = find_splits(cohort, base.folds, base.seed)
    progress.note(f"{len(cohort.cases)} cases of {len(cohort.subjects)} subjects; {why}")
    if not splits:
        raise InputError(
            "without folds there is nobody to test on.",
            file=root,
            remedy="Use folds.strategy block or per_fold and at least two subjects, or give a "
            "splits_final.json.",
        )
    cells = make_cells(cohort, splits, wish.arms, wish.fractions, wish.seeds, wish.folds, wish.spec.held_out)
    _say_who(cells, progress)
    claim(output, NOTE, about)
    keys = _keys(cells, wish, cohort, base)
    _run(cells, keys, wish, cohort, output, progress, engine, device, threads, started)
    with suppress(OSError):  # what a stopped cell has left stays, for it to go on
        (output / "work").rmdir()
    return _read(cells, keys, wish, output)


def _require_one_input(arms: Sequence[Arm], base: Recipe) -> None:
    """Refuse recipes that read the data set or its folds in different ways; outside masks may differ.

    Raises
    ------
    RecipeError
    """
    for arm in arms:
        if arm.recipe is None:
            continue
        if (arm.recipe.input.model_copy(update={"masks": base.input.masks}), arm.recipe.folds) != (
            base.input,
            base.folds,
        ):
            raise RecipeError(
                f"the recipe {arm.name} has another `input` or `folds` than the first one.",
                remedy="Arms are compared on one data set: say both for all recipes with --set.",
            )


def _say_who(cells: Sequence[Cell], progress: Progress) -> None:
    """What a reader of the numbers has to know about who trains."""
    sizes = {(cell.fraction, len(cell.train)) for cell in cells}
    for fraction in dict.fromkeys(cell.fraction for cell in cells):
        numbers = sorted(n for f, n in sizes if f == fraction)
        progress.note(f"fraction {fraction:g}: {' or '.join(map(str, numbers))} training subject(s)")
    if any(cell.validation == cell.train for cell in cells):
        progress.note(
            "where fewer than three subjects can train, the training cases validate too: the threshold and "
            "the choice of weights are optimistic there."
        )


def _keys(cells: Sequence[Cell], wish: Wish, cohort: Cohort, base: Recipe) -> dict[str, str]:
    """All that each cell depends on."""
    files = case_keys(cohort, base)
    recipes = {arm.name: None if arm.recipe is None else deciding(arm.recipe) for arm in wish.arms}
    forms = {
        arm.name: [arm.prototype, arm.share, arm.renewed, arm.network(wish.spec).model_dump(mode="json")]
        for arm in wish.arms
    }
    common: list[Any] = [wish.preset, wish.nnunet, lesionsynth.__version__]
    common += [[mask.name, files[mask.name]] for mask in cohort.masks]
    models = {
        arm.name: file_states(
            file
            for _, path, _ in (used(arm.recipe) if arm.recipe is not None else ())
            for file in (sorted(Path(path).glob(f"*{SUFFIX}")) if Path(path).is_dir() else [Path(path)])
        )
        for arm in wish.arms
    }
    return {
        cell.name: digest_json(
            [common, recipes[cell.arm], list(models[cell.arm]), forms[cell.arm], asdict(cell)]
            + [
                [case.case, files[case.case]]
                for case in cohort.cases
                if case.subject in {*cell.train, *cell.validation, *cell.test}
            ]
        )
        for cell in cells
    }


def _there(output: Path, cell: Cell, key: str) -> dict[str, Any] | None:
    """What a cell has come to, if it is done."""
    path = output / "cells" / f"{cell.name}.json"
    if not path.is_file():
        return None
    try:
        told = read_json(path)
    except LesionsynthError:
        return None
    return told if isinstance(told, dict) and told.get("key") == key else None


def _run(
    cells: Sequence[Cell],
    keys: dict[str, str],
    wish: Wish,
    cohort: Cohort,
    output: Path,
    progress: Progress,
    engine: Engine,
    device: str,
    threads: int,
    started: float,
) -> None:
    """Do what is not done, group by group: a comparison needs all arms of a group."""
    arms = {arm.name: arm for arm in wish.arms}
    groups = list(dict.fromkeys(cell.group for cell in cells))
    places = nnunet.data_sets(cells, output, wish.nnunet) if wish.nnunet else {}
    run_one: Callable[..., dict[str, Any]] = nnunet.run_cell if wish.nnunet else run_cell
    longest = 0.0
    for number, group in enumerate(groups, start=1):
        waiting = [c for c in cells if c.group == group and _there(output, c, keys[c.name]) is None]
        if not waiting:
            continue
        began = time.monotonic()
        if wish.budget_s is not None and began - started + longest > wish.budget_s:
            progress.note("the budget ends here.")
            return
        fraction, seed, fold = group
        items = [
            (
                cell.name,
                (
                    cell, arms[cell.arm], cohort, wish.spec, wish.preset, output,
                    keys[cell.name], device, threads, *((places[cell.name],) if places else ()),
                ),
            )
            for cell in waiting
        ]  # fmt: skip
        stage = f"{number}/{len(groups)} fraction {fraction:g} seed {seed} fold {fold}"
        for result in run_all(run_one, items, stage=stage, engine=engine, progress=progress):
            if isinstance(result, Failure):
                raise result.error
            progress.note(_words_of(result))
        longest = max(longest, time.monotonic() - began)


def _words_of(told: dict[str, Any]) -> str:
    """One cell in a line."""
    who = f"{told['arm']}, fraction {told['fraction']:g}, seed {told['seed']}, fold {told['fold']}"
    if "failed" in told:
        return f"{who}: {told['failed']}"
    if "waiting" in told:
        return f"{who}: to be trained by {told['waiting']}"
    dice = [row["values"]["dice_at_val"] for row in told["rows"]]
    seconds = sum(told["seconds"].values())
    return f"{who}: Dice {sum(dice) / len(dice):.3f} in {len(dice)} test case(s), {seconds:.0f} s"


def _read(cells: Sequence[Cell], keys: dict[str, str], wish: Wish, output: Path) -> Outcome:
    """Everything that is done, compared, and written as tables and a page."""
    done, rows, failed, left = [], [], {}, 0
    for cell in cells:
        told = _there(output, cell, keys[cell.name])
        if told is None:
            left += 1
            continue
        done.append(told)
        if "failed" in told:
            failed[cell.name] = str(told["failed"])
            continue
        rows += [
            Row(
                cell.arm,
                cell.fraction,
                cell.seed,
                cell.fold,
                cell.train,
                r["case"],
                r["subject"],
                r["values"],
            )
            for r in told["rows"]
        ]
    comparisons = compare(rows, TITLES)
    nifti.write_bytes(output / "results.csv", _results(rows).encode())
    nifti.write_bytes(output / "comparison.csv", _comparisons(comparisons).encode())
    shares = sorted({arm.share for arm in wish.arms if arm.recipe is not None})
    page = render(output.name, wish.spec, wish.nnunet, shares, rows, comparisons, done, failed, left)
    nifti.write_bytes(output / PAGE, page.encode())
    return Outcome(rows, comparisons, failed, left, done)


def _results(rows: Sequence[Row]) -> str:
    """Every test case of every cell: all transfers from training subjects to test cases."""
    names = list(dict.fromkeys(name for row in rows for name in row.values))
    head = ["recipe", "fraction", "seed", "fold", "train", "case", "subject", *names]
    return _csv(
        head,
        [
            [r.recipe, r.fraction, r.seed, r.fold, " ".join(r.train), r.case, r.subject]
            + [r.values.get(name) for name in names]
            for r in rows
        ],
    )


def _comparisons(comparisons: Sequence[Comparison]) -> str:
    head = [field.name for field in fields(Comparison)]
    return _csv(head, [[getattr(c, name) for name in head] for c in comparisons])


def _csv(head: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """Lines with numbers to six digits and nothing where there is no value."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    for line in lines:
        writer.writerow(["" if v is None else f"{v:.6g}" if isinstance(v, float) else v for v in line])
    return text.getvalue()
