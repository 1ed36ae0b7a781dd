"""One layout into another, without synthesis: the same cases, voxels, labels and splits."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lesionsynth import nifti
from lesionsynth.domain.case import Cohort, Split
from lesionsynth.errors import InputError, LesionsynthError, OutputError, RecipeError
from lesionsynth.plugins.contracts import LayoutSpec
from lesionsynth.recipe.model import FoldSpec, InputSpec, Recipe
from lesionsynth.run.cohort import SPLITS, find_layout, open_cohort, scan_cohort
from lesionsynth.run.finalize import place_original, refuse_equal_paths
from lesionsynth.run.folder import check_output
from lesionsynth.run.folds import find_splits
from lesionsynth.run.pool import Progress
from lesionsynth.run.workspace import Workspace, inside


@dataclass(frozen=True)
class Converted:
    """What a conversion has made.

    Parameters
    ----------
    cohort : Cohort
        As the new layout reads it.
    layout : LayoutSpec
        By which it can be read again.
    recognised : bool
        Whether it is known without a recipe.
    renamed : dict of str to str
        Case of the input to that of the output, where they differ.
    subjects_kept : bool
        Whether the new layout tells which cases are of one subject.
    """

    cohort: Cohort
    layout: LayoutSpec
    recognised: bool
    renamed: dict[str, str]
    subjects_kept: bool


def convert(recipe: Recipe, root: Path, output: Path, progress: Progress) -> Converted:
    """Write the cases at `root` in the layout that ``output.layout`` of the recipe names.

    The output is made beside its place, read again, compared, and then put there as a whole.

    Parameters
    ----------
    recipe : Recipe
        Its sections `input` and `output` count; ``output.originals: link`` saves the space of copies.
    root, output : Path
        Input, and a new or empty folder.
    progress : Progress

    Raises
    ------
    LesionsynthError
        If the input has faults, the layout cannot hold it, or it cannot be written; `output` stays as it was.
    """
    target = recipe.output.layout
    if not isinstance(target, LayoutSpec):
        raise RecipeError("no layout was given to convert to.", remedy="Say it with --to, such as --to bids.")
    if recipe.output.originals == "omit":
        raise RecipeError("output.originals is omit, so that nothing would be converted.")
    _, cohort, dropped = open_cohort(recipe.input, root)
    for finding in dropped:
        progress.note(f"left out: {finding}")
    target = _with_labels(target, cohort)
    is_new = not output.exists()
    check_output(root, output, marker="")
    made = output.absolute().parent / f".tmp-{output.name}-{os.getpid()}"
    try:
        made.mkdir()
        _write(Workspace(recipe, cohort, target, made, made, made, ""), progress)
        converted = _read_again(cohort, target, made)
        if splits := _given_splits(cohort):
            nifti.write_bytes(made / SPLITS, _splits_text(splits, converted.renamed))
        made.replace(output)
    except BaseException as error:
        shutil.rmtree(made, ignore_errors=True)
        if is_new:
            output.rmdir()
        if isinstance(error, OSError):
            raise OutputError(f"cannot be written ({error.strerror or error}).", file=output) from None
        raise
    return converted


def _with_labels(target: LayoutSpec, cohort: Cohort) -> LayoutSpec:
    """A layout that has to be told its labels is told those of the input."""
    if "labels" in target.model_fields_set or not getattr(target, "labels", None):
        return target
    return target.model_copy(update={"labels": dict(cohort.labels.values)})


def _write(space: Workspace, progress: Progress) -> None:
    refuse_equal_paths(space.cohort, space.layout)
    if space.cohort.resample != "none":
        progress.note(
            f"channels on another grid than the label map are resampled to it ({space.cohort.resample})"
        )
    cases = [(files.case, files) for files in space.cohort.cases]
    progress.start("convert", len(cases))
    for _, files in cases:
        place_original(space, files)
        progress.advance()
    for name, content in space.layout.description(space.cohort, cases).items():
        nifti.write_bytes(inside(space.output, Path(name)), content)


def _read_again(cohort: Cohort, target: LayoutSpec, made: Path) -> Converted:
    """What the new layout reads; it has to be what was to be written."""
    try:
        read = target.scan(made).cohort
        if read.labels.values != cohort.labels.values:
            raise InputError(f"its labels are {_listed(read)}, not {_listed(cohort)}.")
        if read.channels != cohort.channels and (len(read.channels), len(cohort.channels)) != (1, 1):
            channels = f"{', '.join(read.channels)}, not {', '.join(cohort.channels)}"
            raise InputError(f"its channels are {channels}.")
        _, scan = scan_cohort(InputSpec(layout=target, roles=dict(cohort.labels.roles)), made)
    except LesionsynthError as error:
        raise _cannot_hold(target, cohort, error.message) from None
    faults = [finding for finding in scan.findings if finding.level == "error"]
    if faults:
        raise _cannot_hold(target, cohort, f"{faults[0].case}: {faults[0].fault}")
    found = scan.cohort
    by_label = {case.label.relative_to(made): case for case in found.cases}
    renamed, subjects = {}, set()
    for files in cohort.cases:
        case = by_label.pop(target.label_path(files, files.case, cohort), None)
        if case is None:
            raise _cannot_hold(target, cohort, f"the case {files.case} is not found again.")
        subjects.add((files.subject, case.subject))
        renamed[files.case] = case.case
    if by_label:
        raise _cannot_hold(target, cohort, f"{next(iter(by_label))} is read as a case of its own.")
    one_to_one = len(subjects) == len({s for s, _ in subjects}) == len({s for _, s in subjects})
    recognised = _recognised_as(made) == target.kind
    return Converted(found, target, recognised, renamed, one_to_one)


def _recognised_as(root: Path) -> str | None:
    try:
        return find_layout(InputSpec(), root).kind
    except InputError:
        return None


def _cannot_hold(target: LayoutSpec, cohort: Cohort, why: str) -> InputError:
    return InputError(
        f"the layout {target.kind} cannot hold this data set: {why}",
        file=cohort.root,
        remedy="Choose another: nnunet, and pattern with a table or {case} in its paths, hold any labels and "
        "channels.",
    )


def _listed(cohort: Cohort) -> str:
    return ", ".join(f"{value} {name}" for name, value in cohort.labels.values.items())


def _given_splits(cohort: Cohort) -> Sequence[Split]:
    """Splits that the input has; none are made here."""
    if cohort.splits is None and all(files.fold is None for files in cohort.cases):
        return ()
    return find_splits(cohort, FoldSpec(), 0)[0]


def _splits_text(splits: Sequence[Split], renamed: dict[str, str]) -> bytes:
    folds = [
        {"train": [renamed[c] for c in split.train], "val": [renamed[c] for c in split.val]}
        for split in splits
    ]
    return (json.dumps(folds, indent=2) + "\n").encode()
