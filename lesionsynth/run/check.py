"""Look at every file of a data set before anything is made of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionsynth import nifti
from lesionsynth.channels import grid_faults, on_one_grid, resampled_text
from lesionsynth.derived import joined
from lesionsynth.digest import digest_bytes, digest_json
from lesionsynth.domain.case import CaseFiles, Cohort, MaskFile
from lesionsynth.domain.finding import Finding
from lesionsynth.errors import LesionsynthError
from lesionsynth.host import read_label, without_missing
from lesionsynth.kernels.components import components
from lesionsynth.plugins.contracts import LayoutSpec
from lesionsynth.recipe.model import Recipe
from lesionsynth.run.cohort import scan_cohort
from lesionsynth.run.finalize import refuse_equal_paths
from lesionsynth.run.folds import find_splits, make_blocks
from lesionsynth.run.models import find_models
from lesionsynth.run.pool import ALONE, Engine, Failure, Progress, run_all
from lesionsynth.tissue import read_beside

BANK_SHARE = 0.5
"""Rough size of a bank relative to its input."""


@dataclass(frozen=True)
class CaseCheck:
    """What was found in one case.

    `hashes` holds the digest of the voxels of each image by its path, `lesions` that of the lesion mask where
    there are lesions, `resampled` the channels on another grid.
    """

    item: CaseFiles | MaskFile
    findings: tuple[Finding, ...]
    hashes: dict[str, str]
    grid: str
    load_ml: float
    resampled: tuple[str, ...] = ()
    lesions: str | None = None

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return self.item.name


@dataclass(frozen=True)
class Checked:
    """Result of a check: findings, and facts for the user."""

    findings: list[Finding]
    facts: list[str]


def check(
    recipe: Recipe, root: Path, output: Path | None, progress: Progress, engine: Engine = ALONE
) -> Checked:
    """Read every file of the input to its end and list all faults.

    Raises
    ------
    LesionsynthError
        Only if the input cannot be looked at at all.
    """
    _, scan = scan_cohort(recipe.input, root)
    cohort = scan.cohort
    findings = list(scan.findings)
    layout = recipe.output.layout if isinstance(recipe.output.layout, LayoutSpec) else None
    if layout is not None:
        try:
            refuse_equal_paths(cohort, layout)
        except LesionsynthError as error:
            findings.append(_finding(error, "Choose another output.layout."))
            layout = None
    found: list[CaseFiles | MaskFile] = [*cohort.cases, *cohort.masks]
    items: list[tuple[str, tuple[Any, ...]]] = [(item.name, (item, cohort, recipe, layout)) for item in found]
    checks: list[CaseCheck] = []
    for result in run_all(_check_one, items, stage="check", engine=engine, progress=progress):
        if isinstance(result, Failure):
            findings.append(_finding(result.error, "Correct or remove the case."))
        else:
            checks.append(result)
    checks.sort(key=lambda c: c.name)
    for item in checks:
        findings += item.findings
    findings += _same_content(checks)
    findings += _same_lesions(checks)
    if not cohort.cases:
        findings.append(
            Finding(
                "error",
                f"no case was found (layout {cohort.layout}).",
                "Correct the paths under `input.layout`."
                if cohort.layout == "pattern"
                else "Check the path.",
                file=str(root),
            )
        )
    splits_fact: list[str] = []
    try:
        if cohort.cases:
            splits, why = find_splits(cohort, recipe.folds, recipe.seed)
            splits_fact = [why]
            find_models(recipe, make_blocks(cohort, recipe.folds, splits, recipe.output.copies), cohort)
    except LesionsynthError as error:
        findings.append(_finding(error, "Correct the splits."))
    needed = disk_needed_bytes(cohort, recipe)
    where, free = _free_bytes(output or Path.cwd())
    if needed > free:
        findings.append(
            Finding(
                "error",
                f"the output needs about {_gb(needed)} and {_gb(free)} are free.",
                "Free some space, choose another disk, or make fewer copies.",
                file=str(where),
            )
        )
    without = [mask for mask in cohort.masks if mask.subject not in set(cohort.subjects)]
    facts = [
        f"{len(cohort.cases)} cases of {len(cohort.subjects)} subjects, {len(without)} masks without images",
        f"channels: {', '.join(cohort.channels)}",
        "labels: "
        + ", ".join(f"{v} {n} ({cohort.labels.roles[n]})" for n, v in cohort.labels.values.items()),
        *_measured(checks, cohort.resample),
        *splits_fact,
        f"disk: a run needs about {_gb(needed)}, {_gb(free)} are free",
    ]
    return Checked(findings, facts)


def _measured(checks: list[CaseCheck], resample: str) -> Iterator[str]:
    """Facts of the cases that could be read."""
    grids = sorted({c.grid for c in checks if c.grid})
    loads = [c.load_ml for c in checks if c.grid]
    if grids:
        yield f"grids: {grids[0] if len(grids) == 1 else f'{len(grids)} different ones'}"
        if told := resampled_text(resample, [c.resampled for c in checks]):
            yield told
        yield f"lesion load: {min(loads):.2f} to {max(loads):.2f} mL, median {np.median(loads):.2f} mL"


def _free_bytes(path: Path) -> tuple[Path, int]:
    """Nearest folder of `path` that exists, and what is free on its disk."""
    where = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    return where, shutil.disk_usage(where).free


def disk_needed_bytes(cohort: Cohort, recipe: Recipe) -> int:
    """Rough size of an output: copies are as large as their hosts."""
    size = sum(p.stat().st_size for c in cohort.cases for p in {*c.images, c.label} if p.exists())
    folds = 1
    if recipe.folds.strategy == "per_fold":
        count = 5 if recipe.folds.count == "auto" else recipe.folds.count
        folds = max(1, count - 1)
    kept = 1.0 if recipe.output.originals == "copy" else 0.0
    return int(size * (recipe.output.copies * folds + kept + BANK_SHARE))


def _check_one(
    item: CaseFiles | MaskFile, cohort: Cohort, recipe: Recipe, layout: LayoutSpec | None
) -> CaseCheck:
    """`layout` is that of the output, where it is another one and can hold the cases."""
    if isinstance(item, MaskFile):
        return _check_mask(item)
    findings = []
    hashes = {}
    images: dict[int, nifti.Image] = {}
    for path, channels in item.image_files.items():
        try:
            volumes = nifti.read_series(path, len(channels))
        except LesionsynthError as error:
            findings.append(_finding(error, "Replace the file.", item.case))
            continue
        if any(image.raw.min() != image.raw.max() for image in volumes):
            hashes[str(path)] = digest_json([image.voxel_hash for image in volumes])
        for number, image in zip(channels, volumes, strict=True):
            findings += _check_channel(item.case, cohort.channels[number], image)
            images[number] = image
    load_ml = 0.0
    lesions = None
    try:
        label_image, label = read_label(item.case, item.label, cohort.labels)
        mask = np.isin(label, cohort.labels.lesion)
        voxel_mm3 = label_image.grid.voxel_volume_mm3
        load_ml = float(mask.sum()) * voxel_mm3 / 1000
        findings += _check_lesions(item, mask, voxel_mm3, recipe)
        lesions = _digest_of(mask)
    except LesionsynthError as error:
        findings.append(_finding(error, "Replace the file.", item.case))
        return CaseCheck(item, tuple(findings), hashes, "", load_ml, lesions=lesions)
    if len(images) < len(cohort.channels):
        return CaseCheck(item, tuple(findings), hashes, "", load_ml, lesions=lesions)
    resampled: tuple[str, ...] = ()
    stored = tuple(images[number] for number in range(len(images)))
    conflicts = [replace(f, case=item.case) for f in grid_faults(cohort, stored, label_image)]
    if not conflicts:
        try:
            aligned = on_one_grid(item, cohort, stored, label_image)
            without_missing(item, cohort, aligned, label)
            resampled = aligned.resampled
            files = layout.image_files(item, item.case, cohort) if layout is not None else {}
            for channels in files.values():  # they have to have a common form
                in_file = [aligned.images[number] for number in channels]
                joined(in_file, [image.slabs for image in in_file])
            for pattern, what in (
                (recipe.tissue.map, "the tissue map"),
                (recipe.tissue.brain_mask, "the brain mask"),
            ):
                if pattern is not None:
                    read_beside(pattern, what, item, cohort, label_image.grid)
        except LesionsynthError as error:
            conflicts.append(_finding(error, "Replace them.", item.case))
    grid = label_image.grid.describe()
    return CaseCheck(item, (*findings, *conflicts), hashes, grid, load_ml, resampled, lesions)


def _check_channel(case: str, name: str, image: nifti.Image) -> Iterator[Finding]:
    raw, path = image.raw, str(image.path)
    bad = int(raw.size - np.count_nonzero(np.isfinite(raw))) if raw.dtype.kind == "f" else 0
    if bad:
        fault = f"channel {name} has {bad} voxels that are NaN or infinite; they are kept, and are no tissue."
        yield Finding("warning", fault, "Replace them if they lie in the body.", case, path)
    elif raw.min() == raw.max():
        fault = f"channel {name} is {raw.flat[0]} everywhere."
        yield Finding("warning", fault, "Replace the file or remove the case.", case, path)
    conflict = nifti.affine_conflict(image)
    if conflict:
        cure = "Make qform and sform agree; other tools may read the other one."
        yield Finding("warning", f"channel {name}: {conflict}", cure, case, path)


def _check_lesions(
    item: CaseFiles, mask: NDArray[np.bool_], voxel_mm3: float, recipe: Recipe
) -> Iterator[Finding]:
    labels, boxes = components(mask)
    if not boxes:
        fault = "there is no lesion: the case can be a host, not a donor."
        yield Finding("warning", fault, "Check that this is meant.", item.case, str(item.label))
        return
    bank = recipe.bank
    if np.bincount(labels.ravel())[1:].max() < max(bank.min_voxels, bank.min_volume_mm3 / voxel_mm3):
        fault = (
            f"all {len(boxes)} lesions are specks under {bank.min_volume_mm3:g} mm3 or {bank.min_voxels} "
            "voxels: none can be a donor."
        )
        cure = "Lower bank.min_volume_mm3 and bank.min_voxels if they are real."
        yield Finding("warning", fault, cure, item.case, str(item.label))


def _check_mask(item: MaskFile) -> CaseCheck:
    try:
        image = nifti.read(item.path)
    except LesionsynthError as error:
        return CaseCheck(item, (_finding(error, "Replace the file.", item.name),), {}, "", 0.0)
    values = image.values()
    findings = []
    if not np.isfinite(values).all():
        findings.append(
            Finding(
                "error",
                "the mask has voxels that are NaN or infinite.",
                "Correct it.",
                item.name,
                str(item.path),
            )
        )
    elif not (values > 0).any():
        findings.append(
            Finding("warning", "the mask is empty.", "Check that this is meant.", item.name, str(item.path))
        )
    return CaseCheck(item, tuple(findings), {}, "", 0.0, lesions=_digest_of(values > 0))


def _digest_of(mask: NDArray[np.bool_]) -> str | None:
    """Digest of a mask, however it is stored; None where it is empty."""
    return digest_json([mask.shape, digest_bytes(np.packbits(mask).tobytes())]) if mask.any() else None


def _same_content(checks: list[CaseCheck]) -> Iterator[Finding]:
    """Cases whose images have the same voxels: one scan under two names would leak between folds."""
    first: dict[str, str] = {}
    told: set[tuple[str, str]] = set()
    for item in checks:
        for path, value in item.hashes.items():
            other = first.setdefault(value, item.name)
            if other != item.name and (other, item.name) not in told:
                told.add((other, item.name))
                cure = "Remove one of the two: one scan under two names leaks between folds."
                yield Finding(
                    "error", f"the image is identical to one of case {other}.", cure, item.name, path
                )


def _same_lesions(checks: list[CaseCheck]) -> Iterator[Finding]:
    """Masks that are the lesions of a subject with images, under another name."""
    cases = {c.lesions: c for c in checks if isinstance(c.item, CaseFiles) and c.lesions is not None}
    for mask in checks:
        case = cases.get(mask.lesions or "")
        if isinstance(mask.item, MaskFile) and case is not None and mask.item.subject != case.item.subject:
            fault = f"the mask holds the lesions of case {case.name}, which is of {case.item.subject}."
            cure = "Remove it, or name it alike: as another person's it would leak between folds."
            yield Finding("error", fault, cure, mask.name, str(mask.item.path))


def _finding(error: LesionsynthError, cure: str, case: str | None = None) -> Finding:
    return Finding("error", error.message, error.remedy or cure, error.case or case, error.file)


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e7 else f"{size / 1e6:.2f} MB"
