"""What a trial refuses before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path

from lesionsynth.domain.case import CaseFiles, Cohort, MaskFile, Split
from lesionsynth.errors import InputError, NoLesionError, RecipeError
from lesionsynth.generative.checkpoint import needed
from lesionsynth.recipe.model import Recipe
from lesionsynth.run.cohort import open_cohort
from lesionsynth.run.models import used
from lesionsynth.run.pool import Engine, Failure, Progress, run_all
from lesionsynth.run.twins import Seen, look_at, refuse_twins
from lesionsynth.trial.arms import Arm
from lesionsynth.trial.cells import Cell, of_subjects
from lesionsynth.trial.compare import NONE
from lesionsynth.trial.wish import Wish


def require_packages(wish: Wish) -> None:
    """Refuse what cannot be trained for lack of a package.

    Raises
    ------
    LesionsynthError
    """
    for package in () if wish.nnunet else ("torch", "monai", "tensorboardX"):
        needed(package)
    if any(arm.searched for arm in wish.arms):
        needed("optuna")


def require_comparable(wish: Wish, base: Recipe) -> None:
    """Refuse arms that cannot be compared: all have to read the data set and its folds alike.

    Outside masks may differ.

    Raises
    ------
    RecipeError
    """
    if wish.arms[0] != Arm(NONE, None):
        raise RecipeError("the first arm has to be the one without synthetic data.")
    if wish.nnunet and any(arm.is_ours for arm in wish.arms):
        raise RecipeError(
            "nnU-Net trains in its own way: no controls, copies on the fly, prototypes or searches.",
            remedy="Leave out --controls, --on-the-fly, --prototype and --search, or --trainer nnunet.",
        )
    for arm in wish.arms:
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
        if wish.prevalence is not None and (more := _beside_images(arm.recipe)):
            raise RecipeError(
                f"the recipe {arm.name} knows the lesions as they are by {more}.",
                remedy=f"Leave out --rare, or {more} of the recipe.",
            )


def _beside_images(recipe: Recipe) -> str | None:
    """A key by which a recipe knows more of its cases than images and labels."""
    if recipe.input.masks is not None:
        return "input.masks"
    for key in ("map", "brain_mask"):
        if getattr(recipe.tissue, key) is not None:
            return f"tissue.{key}"
    return next(
        (f"{user}.{use.field}" for user, path, use in used(recipe) if path and Path(path).exists()), None
    )


def require_whole_subjects(splits: Sequence[Split], cohort: Cohort) -> None:
    """Refuse folds that name a part of a subject's cases: all of them would be trained on, or tested.

    Raises
    ------
    InputError
    """
    for number, split in enumerate(splits):
        named = {*split.train, *split.val}
        subjects = {files.subject for files in cohort.cases if files.case in named}
        for files in cohort.cases:
            if files.subject in subjects and files.case not in named:
                raise InputError(
                    f"fold {number} names other cases of {files.subject} and not this one; a trial takes "
                    "subjects whole.",
                    case=files.case,
                    file=cohort.root,
                    remedy="Put it where the others of this person are, move its files away, or make folds "
                    "anew: --set folds.use=make.",
                )


def with_all_masks(cohort: Cohort, arms: Sequence[Arm]) -> Cohort:
    """The cohort with the outside masks of every arm: arms may differ in them alone."""
    masks = {mask.path: mask for mask in cohort.masks}
    for arm in arms:
        if arm.recipe is not None and arm.recipe.input.masks is not None:
            masks |= {mask.path: mask for mask in open_cohort(arm.recipe.input, cohort.root)[1].masks}
    return replace(cohort, masks=tuple(masks.values()))


def look_at_all(cohort: Cohort, cells: Iterable[Cell], engine: Engine, progress: Progress) -> None:
    """Read every case and mask: all people are others, and every fold has a lesion to find.

    Raises
    ------
    LesionsynthError
    """
    found: list[CaseFiles | MaskFile] = [*cohort.cases, *cohort.masks]
    items = [(item.name, (item, cohort)) for item in found]
    everyone: list[Seen] = []
    for result in run_all(look_at, items, stage="look", engine=engine, progress=progress):
        if isinstance(result, Failure):
            raise result.error
        everyone.append(result)
    refuse_twins(cohort, everyone)
    require_lesions(cells, cohort, {seen.case for seen in everyone if seen.has_lesions})


def require_lesions(cells: Iterable[Cell], cohort: Cohort, with_lesions: AbstractSet[str]) -> None:
    """Refuse a fold in which there is nothing to find, before anything is trained.

    Parameters
    ----------
    cells : iterable of Cell
    cohort : Cohort
    with_lesions : set of str
        Cases that have a lesion.

    Raises
    ------
    NoLesionError
    """
    for fold, test in {cell.fold: cell.test for cell in cells}.items():
        cases = of_subjects(cohort, test)
        if not any(files.case in with_lesions for files in cases):
            raise NoLesionError(
                f"none of the {len(cases)} test cases of fold {fold} has a lesion.",
                file=cohort.root,
                remedy="Test on other folds (--folds), or make others (folds.count, a splits_final.json).",
            )
