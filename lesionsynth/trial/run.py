"""A whole trial: its cells one group after another, and what they say together."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import lesionsynth
from lesionsynth import nifti
from lesionsynth.errors import InputError
from lesionsynth.recipe.model import Recipe
from lesionsynth.run.cohort import open_cohort
from lesionsynth.run.folder import check_output, claim, refuse_other
from lesionsynth.run.folds import find_splits
from lesionsynth.run.pool import ALONE, Engine, Progress
from lesionsynth.trial.cells import Cell, Setting, cell_name, make_cells
from lesionsynth.trial.compare import NONE, Comparison, Row, compare
from lesionsynth.trial.page import TITLES, render
from lesionsynth.trial.refusals import (
    look_at_all,
    require_comparable,
    require_packages,
    require_whole_subjects,
    with_all_masks,
)
from lesionsynth.trial.runner import Runner
from lesionsynth.trial.search import searched
from lesionsynth.trial.wish import Wish

PAGE = "trial.html"
NOTE = "trial.json"
"""What a trial compares; the file by which its folder is known."""
_FOLDS_SEED = 2026
"""Of folds that the data set does not have: no recipe's, or their order would say who is tested."""


@dataclass(frozen=True)
class Outcome:
    """What a trial has found so far.

    Parameters
    ----------
    rows : list of Row
        Of test cases of all cells that are done.
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
    require_packages(wish)
    until = None if wish.budget_s is None else time.monotonic() + wish.budget_s
    root, output = root.absolute(), output.absolute()
    about = {
        "lesionsynth": lesionsynth.__version__,
        "network": wish.nnunet or wish.spec.model_dump(mode="json"),
        "prevalence": wish.prevalence,
    }
    check_output(root, output, marker=NOTE)
    refuse_other(output, NOTE, about)
    base = next((arm.recipe for arm in wish.arms if arm.recipe is not None), wish.reading)
    require_comparable(wish, base)
    _, cohort, dropped = open_cohort(base.input, root)
    for finding in dropped:
        progress.note(f"left out: {finding}")
    splits, why = find_splits(cohort, base.folds, _FOLDS_SEED)
    progress.note(f"{len(cohort.cases)} cases of {len(cohort.subjects)} subjects; {why}")
    if not splits:
        raise InputError(
            "without folds there is nobody to test on.",
            file=root,
            remedy="Use folds.strategy block or per_fold and at least two subjects, or give a "
            "splits_final.json.",
        )
    cells = make_cells(cohort, splits, wish.arms, wish.fractions, wish.seeds, wish.folds, wish.spec.held_out)
    require_whole_subjects(splits, cohort)
    _say_who(cells, wish.spec.held_out, progress)
    setting = Setting(cohort, base.input, wish.spec, wish.models, output, device, threads, wish.prevalence)
    runner = Runner(setting, progress, engine, wish.nnunet, until)
    arms = {arm.name: arm for arm in wish.arms if not arm.searched}  # of whose recipes nobody knows yet
    if any(runner.told(cell, arms[cell.arm]) is None for cell in cells if cell.arm in arms):
        look_at_all(with_all_masks(cohort, wish.arms), cells, engine, progress)
    claim(output, NOTE, about)
    done = _run(cells, wish, runner)
    _require_base(done, cells)
    with suppress(OSError):  # what a stopped cell has left stays, for it to go on
        (output / "work").rmdir()
    return _concluded(done, len(cells) - len(done), wish, output)


def _require_base(done: Sequence[dict[str, Any]], cells: Sequence[Cell]) -> None:
    """Refuse to conclude where no network without synthetic data could be trained.

    Raises
    ------
    InputError
        With what the first of them has failed for.
    """
    wanted = [cell for cell in cells if cell.arm == NONE]
    failed = [told["failed"] for told in done if told["arm"] == NONE and "failed" in told]
    if len(failed) == len(wanted):
        raise InputError(f"no network of {NONE} could be trained, the first because: {failed[0]}")


def _say_who(cells: Sequence[Cell], held_out: float, progress: Progress) -> None:
    """What a reader of the numbers has to know about who trains."""
    sizes = {(cell.fraction, len(cell.train)) for cell in cells}
    for fraction in dict.fromkeys(cell.fraction for cell in cells):
        numbers = sorted(n for f, n in sizes if f == fraction)
        progress.note(f"fraction {fraction:g}: {' or '.join(map(str, numbers))} training subject(s)")
    if any(cell.validation == cell.train for cell in cells):
        where = "where fewer than three subjects can train" if held_out > 0 else "since held_out is 0"
        progress.note(
            f"{where}, the training cases validate too: thresholds, the choice of weights, and what a search "
            "finds are optimistic there."
        )


def _run(cells: Sequence[Cell], wish: Wish, runner: Runner) -> list[dict[str, Any]]:
    """Do the cells group by group, since a comparison needs all arms of a group; those that are done."""
    arms = {arm.name: arm for arm in wish.arms}
    groups = list(dict.fromkeys(cell.group for cell in cells))
    found: dict[tuple[str, float, int], Recipe | None] = {}
    done: list[dict[str, Any]] = []
    over = False
    for number, group in enumerate(groups, start=1):
        fraction, seed, fold = group
        pairs = []
        for cell in cells:
            if cell.group != group:
                continue
            arm = arms[cell.arm]
            if arm.searched:
                asked = (arm.name, fraction, fold)  # once for all seeds: all of them have the same test cases
                if asked not in found:
                    found[asked] = searched(arm, cell, runner)
                if (recipe := found[asked]) is None:
                    over = True
                    continue
                arm = replace(arm, recipe=recipe)
            pairs.append((cell, arm))
        stage = f"{number}/{len(groups)} fraction {fraction:g} seed {seed} fold {fold}"
        over = not runner.do(pairs, stage) or over
        done += [told for pair in pairs if (told := runner.told(*pair)) is not None]
    if over:
        runner.progress.note("the budget ends here.")
    return done


def _concluded(done: list[dict[str, Any]], left: int, wish: Wish, output: Path) -> Outcome:
    """Everything that is done, compared, and written as tables and a page."""
    failed = {cell_name(told): str(told["failed"]) for told in done if "failed" in told}
    rows = [
        Row(
            told["arm"],
            told["fraction"],
            told["seed"],
            told["fold"],
            tuple(told["train"]),
            row["case"],
            row["subject"],
            row["values"],
        )
        for told in done
        for row in told["rows"]
    ]
    comparisons = compare(rows, TITLES)
    nifti.write_bytes(output / "results.csv", _results(rows).encode())
    nifti.write_bytes(output / "comparison.csv", _comparisons(comparisons).encode())
    page = render(output.name, wish, rows, comparisons, done, failed, left)
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
