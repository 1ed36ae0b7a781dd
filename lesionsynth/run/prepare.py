"""Everything before the first synthetic case: find the input, build the bank, fit, plan; written once."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

import lesionsynth
from lesionsynth import nifti
from lesionsynth.bank.store import LesionBank
from lesionsynth.digest import digest_json, file_states
from lesionsynth.domain.case import Cohort, Split
from lesionsynth.errors import InputError, LeakError, LesionsynthError, OutputError
from lesionsynth.plugins.contracts import Donors, LayoutSpec
from lesionsynth.recipe.model import BESIDE, Recipe, deciding
from lesionsynth.run.cohort import open_cohort
from lesionsynth.run.finalize import (
    MANIFEST,
    SPLITS,
    case_files,
    descriptions,
    lock_text,
    original_files,
    refuse_equal_paths,
)
from lesionsynth.run.fit import bank_key, build_bank, case_keys, fit_blocks
from lesionsynth.run.folder import changed_keys, this_process
from lesionsynth.run.folds import Block, find_splits, make_blocks
from lesionsynth.run.ledger import discard, read_jobs
from lesionsynth.run.machine import bounded
from lesionsynth.run.models import copy_models, find_models, model_states, serving
from lesionsynth.run.plan import Job, make_plan, plan_lines
from lesionsynth.run.pool import ALONE, Engine, Progress
from lesionsynth.run.twins import Seen, refuse_twins
from lesionsynth.run.workspace import (
    BANK,
    LOCK,
    PLAN,
    REALISM,
    RECORDS,
    REPORT,
    Found,
    Workspace,
    plan_digest,
    planned,
    read_lock,
    write_found,
)


@dataclass(frozen=True)
class Prepared:
    """A run before its first job."""

    space: Workspace
    splits: tuple[Split, ...]
    jobs: list[Job]
    left_out: dict[str, str]


def prepare(
    recipe: Recipe,
    root: Path,
    output: Path,
    progress: Progress,
    engine: Engine = ALONE,
    update: bool = False,
) -> Prepared:
    """Read the cohort, build the bank, fit the blocks and make the plan, all under `output`.

    What is there already, of the same recipe, input and version, is used.

    Parameters
    ----------
    recipe : Recipe
    root, output : Path
    progress : Progress
    engine : Engine
    update : bool
        Whether an output of another recipe, input or version is brought to this one: cases that depend on
        what has changed are taken out, to be made again.

    Raises
    ------
    OutputError
        If `output` was made by another run and `update` is false; nothing in it is touched then.
    """
    layout, cohort, dropped = open_cohort(recipe.input, root)
    _check_classes(recipe, cohort)
    engine = bounded(engine, cohort, progress, recipe)
    splits, why = find_splits(cohort, recipe.folds, recipe.seed)
    blocks = make_blocks(cohort, recipe.folds, splits, recipe.output.copies)
    models = find_models(recipe, blocks, cohort)
    blocks = serving(blocks, models, splits, cohort, progress)
    inputs = [*_inputs(recipe, cohort, splits), *model_states(blocks, models, cohort)]
    key = digest_json([inputs, deciding(recipe), lesionsynth.__version__])
    lock = read_lock(output)
    if lock is not None and lock.get("key") == key and lock.get("plan") == (plan_digest(output) or ""):
        prepared = read_prepared(output)
        if not (update and prepared.left_out):  # else they are tried again
            progress.note(f"planned already: {output / PLAN}")
            copy_models({block.name: models[block.name] for block in blocks}, output)
            return _with_limits(prepared, recipe, lock)
    if lock is not None and lock.get("key") != key and not update:
        raise OutputError(
            f"the output folder was made with {_differences(lock, recipe)}.",
            file=output,
            remedy="Choose another folder; or --update makes again what depends on the change, and takes out "
            "what is no longer asked for.",
        )
    # From here on the folder belongs to this run, also if it is stopped before there is a plan.
    # What an earlier plan stands for is known until it was taken out, even if this stops before.
    before = _plan_before(lock) if lock else {}
    earlier = _files_of_plan(output, before)
    begun = {
        "lesionsynth": lesionsynth.__version__,
        "key": key,
        "before": before,
        "begun_by": this_process(),
    }
    nifti.write_bytes(output / LOCK, yaml.safe_dump(begun).encode())
    for finding in dropped:
        progress.note(f"left out: {finding}")
    if isinstance(recipe.output.layout, LayoutSpec):
        layout = recipe.output.layout
    refuse_equal_paths(cohort, layout)
    if recipe.folds.strategy == "none":
        why = "folds: none; everything is training data."
    progress.note(f"{len(cohort.cases)} cases of {len(cohort.subjects)} subjects; {why}")
    bank, failures = build_bank(cohort, recipe, output / BANK, engine, progress)
    with bank:
        refuse_twins(cohort, map(Seen.of, bank.cases()))
        left_out = {failure.name: str(failure.error) for failure in failures}
        for reason in left_out.values():
            progress.note(f"left out: {reason}")
        cohort = replace(cohort, cases=tuple(c for c in cohort.cases if c.case not in left_out))
        blocks = [block.among(cohort) for block in blocks]
        space = Workspace(recipe, cohort, layout, output / BANK, output, output, key)
        copy_models({block.name: models[block.name] for block in blocks}, output)
        _check_donors(space, blocks, bank, progress)
        fits = fit_blocks(blocks, bank, cohort, recipe, output, engine, progress, models)
        jobs = make_plan(recipe, cohort, blocks, fits, bank)
    if lock:
        _take_out(space, jobs, earlier, progress)
    write_found(output, Found(cohort, layout.model_dump(mode="json"), splits, left_out))
    nifti.write_bytes(output / PLAN, plan_lines(jobs))
    nifti.write_bytes(output / LOCK, lock_text(space, None))
    return Prepared(space, splits, jobs, left_out)


def _inputs(recipe: Recipe, cohort: Cohort, splits: Sequence[Split]) -> list[object]:
    """What an output depends on of its input: its cases, their folds, what describes them, maps given."""
    given = [path for path in (recipe.likelihood.map, recipe.likelihood.reference) if path is not None]
    return [
        bank_key(case_keys(cohort, recipe)),
        [(split.train, split.val) for split in splits],
        (cohort.layout, cohort.channels, cohort.file_ending, dict(cohort.extra)),
        file_states(cohort.root / path for path in given),
    ]


def _with_limits(prepared: Prepared, recipe: Recipe, lock: dict[str, Any]) -> Prepared:
    """A plan that is there, with what the recipe says beside it at present: its lock holds that too."""
    beside = {name: getattr(recipe, name) for name in BESIDE}
    kept = prepared.space.recipe.model_copy(update=beside)
    if kept == prepared.space.recipe:
        return prepared
    space = replace(prepared.space, recipe=kept)
    nifti.write_bytes(space.output / LOCK, lock_text(space, lock.get("voxels")))
    return replace(prepared, space=space)


def _take_out(space: Workspace, jobs: list[Job], earlier: list[Path], progress: Progress) -> None:
    """Take out what an earlier plan has made and this one does not want, and say so."""
    kept = set(_files_of(space, jobs))
    whole = [Path(name) for name in (SPLITS, MANIFEST, REPORT, REALISM)]
    gone = discard(space.output, jobs, [path for path in [*earlier, *whole] if path not in kept])
    left = sum(1 for _ in (space.output / RECORDS).glob("*.json"))
    if gone or left:
        again = len({job.case for job in jobs}.intersection(gone))
        progress.note(
            f"update: {again} case(s) depend on what has changed and are made again; {len(gone) - again} are "
            f"no longer planned and were taken out; {left} stay as they are."
        )


def read_prepared(output: Path) -> Prepared:
    """The plan that lies in an output folder."""
    space, found = planned(output)
    return Prepared(space, found.splits, read_jobs(output / PLAN), found.left_out)


def plan_only(recipe: Recipe, root: Path, progress: Progress, engine: Engine = ALONE) -> list[Job]:
    """The plan of a run; nothing is left on disk."""
    with tempfile.TemporaryDirectory(prefix="lesionsynth-") as folder:
        return prepare(recipe, root, Path(folder), progress, engine).jobs


def _differences(lock: dict[str, Any], recipe: Recipe) -> str:
    """What an output was made with, as far as it is not the same."""
    if lock.get("lesionsynth") != lesionsynth.__version__:
        return f"version {lock.get('lesionsynth')} of lesionsynth"
    if not isinstance(lock.get("recipe"), dict):
        return "another recipe or input, and its plan was not finished"
    before = {key: value for key, value in lock["recipe"].items() if key not in BESIDE}
    changed = sorted(changed_keys(before, deciding(recipe)))
    if not changed:
        return "another input or trained model: files, folds or names have changed, are new or are gone"
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return f"another recipe: {', '.join(changed[:3])}{more} differ" + ("s" if len(changed) == 1 else "")


def _plan_before(lock: dict[str, Any]) -> dict[str, Any]:
    """What the lock of an output says of its plan; of the one before where an update was stopped."""
    known = lock.get("before") or lock
    return {name: known[name] for name in ("key", "plan", "recipe") if name in known}


def _files_of_plan(output: Path, lock: dict[str, Any]) -> list[Path]:
    """Files that the plan in an output folder stands for, originals and descriptions too.

    What describes the whole is none's any more: it is written again at the end.
    """
    try:
        space, jobs = planned(output, lock)[0], read_jobs(output / PLAN)
        return [*_files_of(space, jobs), *descriptions(space, [(job.case, job.host) for job in jobs])]
    except LesionsynthError:
        return []


def _files_of(space: Workspace, jobs: list[Job]) -> Iterator[Path]:
    by_case = {files.case: files for files in space.cohort.cases}
    for job in jobs:
        yield from case_files(space, by_case[job.host], job.case)
    if space.recipe.output.originals != "omit":
        for files in space.cohort.cases:
            yield from original_files(space, files)


def _check_classes(recipe: Recipe, cohort: Cohort) -> None:
    """Refuse sources of a label value that no lesion of the cohort can have: it would be written as one."""
    for name, source in recipe.sources.items():
        value = getattr(source, "lesion_class", None)
        if value is not None and value not in cohort.labels.lesion:
            raise InputError(
                f"lesion_class of the source {name} is {value}; the label values of lesions are "
                f"{', '.join(str(v) for v in cohort.labels.lesion)}.",
                file=cohort.root,
                remedy="Correct it in the recipe, or give the label the role lesion under `input.roles`.",
            )


def _why_none(block: Block, bank: LesionBank) -> str:
    """Why a block with lesions has no donor at all."""
    count = sum(case.load.count for case in bank.cases() if case.subject in block.subjects)
    if not count or any(bank.infos(block.subjects)):
        return ""
    return (
        f" Of its {count} lesions all are specks (bank.min_volume_mm3) or cut by the border of the volume "
        "(bank.at_border: keep takes these)."
    )


def _check_donors(space: Workspace, blocks: list[Block], bank: LesionBank, progress: Progress) -> None:
    """Refuse a plan that the leak rule leaves without donors, before any voxel is written."""
    names = sorted({name for step in space.recipe.steps.values() for name in step.source_names()})
    used = [space.recipe.sources[name] for name in names]
    alone = []
    for block in blocks:
        donors = Donors(bank, block.subjects, mask_subjects=block.mask_subjects)
        for name, source in zip(names, used, strict=True):
            givers = source.donor_subjects(donors)
            if block.hosts and givers is not None and not givers:
                raise LeakError(
                    f"{block.name} ({len(block.subjects)} subjects, such as {block.subjects[0]}) holds no "
                    f"donor for the source {name} ({source.kind}).{_why_none(block, bank)}",
                    file=space.cohort.root,
                    remedy="Use fewer folds (folds.count), or folds.strategy per_fold or none; shapes of "
                    "subjects without images come from input.masks."
                    if any(bank.infos(space.cohort.subjects))
                    else "No case of the input has one: check what its labels mean (input.roles), or take "
                    "made-up shapes (source ellipsoid).",
                )
            if givers == frozenset(block.subjects[:1]) and len(block.subjects) == 1:
                alone.append(block.subjects[0])
    if alone:
        policies = [getattr(source, "own_subject", "allow") for source in used]
        if "forbid" in policies:
            raise LeakError(
                f"{alone[0]} is alone in its block, and own_subject is forbid: no donors are left.",
                remedy="Use fewer folds (folds.count), or folds.strategy per_fold or none.",
            )
        others = "Fewer folds, or folds.strategy per_fold or none, give others."
        progress.note(
            f"{len(alone)} block(s) hold one subject only, such as {alone[0]}: its own lesions are its "
            f"donors. {others if len(space.cohort.subjects) > 1 else ''}".rstrip()
        )
