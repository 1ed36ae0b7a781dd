"""Look at every file of a data set before anything is made of it."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lesionsynth import nifti
from lesionsynth.domain.case import CaseFiles, Cohort, MaskFile
from lesionsynth.domain.finding import Finding
from lesionsynth.errors import LesionsynthError
from lesionsynth.host import read_label
from lesionsynth.kernels.components import components
from lesionsynth.recipe.model import Recipe
from lesionsynth.run.cohort import scan_cohort
from lesionsynth.run.folds import find_splits
from lesionsynth.run.pool import Failure, Progress, run_all

BANK_SHARE = 0.5
"""Rough size of a bank relative to its input."""


@dataclass(frozen=True)
class CaseCheck:
    """What was found in one case."""

    name: str
    findings: tuple[Finding, ...]
    hashes: dict[str, str]
    grid: str
    load_ml: float


@dataclass(frozen=True)
class Checked:
    """Result of a check: findings, and facts for the user."""

    findings: list[Finding]
    facts: list[str]


def check(recipe: Recipe, root: Path, output: Path | None, n_jobs: int, progress: Progress) -> Checked:
    """Read every file of the input to its end and list all faults.

    Raises
    ------
    LesionsynthError
        Only if the input cannot be looked at at all.
    """
    _, scan = scan_cohort(recipe.input, root)
    cohort = scan.cohort
    findings = list(scan.findings)
    items = [(case.case, (case, cohort, recipe)) for case in cohort.cases]
    items += [(f"{mask.subject} (mask)", (mask, cohort, recipe)) for mask in cohort.masks]
    checks: list[CaseCheck] = []
    for result in run_all(_check_one, items, stage="check", n_jobs=n_jobs, progress=progress):
        if isinstance(result, Failure):
            findings.append(_finding(result.error, "Correct or remove the case."))
        else:
            checks.append(result)
    checks.sort(key=lambda c: c.name)
    for item in checks:
        findings += item.findings
    findings += _same_content(checks)
    if not cohort.cases:
        findings.append(
            Finding(
                "error", f"no case was found (layout {cohort.layout}).", "Check the path.", file=str(root)
            )
        )
    splits_fact = ""
    try:
        splits_fact = find_splits(cohort, recipe.folds, recipe.seed)[1] if cohort.cases else ""
    except LesionsynthError as error:
        findings.append(_finding(error, "Correct the splits."))
    needed = disk_needed_bytes(cohort, recipe)
    where = next(
        p
        for p in [(output or Path.cwd()).absolute(), *(output or Path.cwd()).absolute().parents]
        if p.exists()
    )
    free = shutil.disk_usage(where).free
    if needed > free:
        findings.append(
            Finding("error", f"the output needs about {_gb(needed)} and {_gb(free)} are free.",
                    "Free some space, choose another disk, or make fewer copies.", file=str(where))
        )  # fmt: skip
    grids = sorted({c.grid for c in checks if c.grid})
    loads = sorted(c.load_ml for c in checks if c.grid)
    facts = [
        f"{len(cohort.cases)} cases of {len(cohort.subjects)} subjects, {len(cohort.masks)} masks without images",
        f"channels: {', '.join(cohort.channels)}",
        "labels: "
        + ", ".join(f"{v} {n} ({cohort.labels.roles[n]})" for n, v in cohort.labels.values.items()),
        f"grids: {grids[0] if len(grids) == 1 else f'{len(grids)} different ones'}"
        if grids
        else "grids: none",
        f"lesion load: {loads[0]:.2f} to {loads[-1]:.2f} mL, median {np.median(loads):.2f} mL"
        if loads
        else "",
        splits_fact,
        f"disk: a run needs about {_gb(needed)}, {_gb(free)} are free",
    ]
    return Checked(findings, [fact for fact in facts if fact])


def disk_needed_bytes(cohort: Cohort, recipe: Recipe) -> int:
    """Rough size of an output: copies are as large as their hosts."""
    size = sum(p.stat().st_size for c in cohort.cases for p in (*c.images, c.label) if p.exists())
    folds = 1
    if recipe.folds.strategy == "per_fold":
        count = 5 if recipe.folds.count == "auto" else recipe.folds.count
        folds = max(1, count - 1)
    kept = 1.0 if recipe.output.originals == "copy" else 0.0
    return int(size * (recipe.output.copies * folds + kept + BANK_SHARE))


def _check_one(item: CaseFiles | MaskFile, cohort: Cohort, recipe: Recipe) -> CaseCheck:
    if isinstance(item, MaskFile):
        return _check_mask(item)
    findings = []
    hashes = {}
    images: list[nifti.Image] = []
    for name, path in zip(cohort.channels, item.images, strict=True):
        try:
            image = nifti.read(path)
        except LesionsynthError as error:
            findings.append(_finding(error, "Replace the file.", item.case))
            continue
        hashes[name] = image.source_hash
        findings += _check_channel(item.case, name, image)
        images.append(image)
    label_grid, load_ml = None, 0.0
    try:
        label_image, label = read_label(item.case, item.label, cohort.labels)
        label_grid = label_image.grid
        mask = np.isin(label, cohort.labels.lesion)
        load_ml = float(mask.sum()) * label_grid.voxel_volume_mm3 / 1000
        findings += _check_lesions(item, mask, label_grid.voxel_volume_mm3, recipe)
        hashes["label"] = label_image.source_hash
    except LesionsynthError as error:
        findings.append(_finding(error, "Replace the file.", item.case))
    grids = (
        [(cohort.channels[k], i.grid, i.path) for k, i in enumerate(images)]
        if len(images) == len(cohort.channels)
        else []
    )
    if label_grid is not None and grids:
        grids.append(("label map", label_grid, item.label))
    for name, grid, path in grids[1:]:
        if not grid.same_as(grids[0][1]):
            same = (
                "shape, but lies elsewhere" if grid.shape == grids[0][1].shape else f"grid {grid.describe()}"
            )
            findings.append(
                Finding("error", f"{name} has {'the same ' if 'elsewhere' in same else 'the '}{same}; {grids[0][0]} is "
                        f"{grids[0][1].describe()}.", "Resample it to the first channel.", item.case, str(path))
            )  # fmt: skip
    return CaseCheck(item.case, tuple(findings), hashes, grids[0][1].describe() if grids else "", load_ml)


def _check_channel(case: str, name: str, image: nifti.Image) -> Iterator[Finding]:
    raw = image.raw
    if raw.dtype.kind == "f":
        bad = int(raw.size - np.count_nonzero(np.isfinite(raw)))
        if bad:
            yield Finding("error", f"channel {name} has {bad} voxels that are NaN or infinite.",
                          "Replace them, for example by 0 outside the body.", case, str(image.path))  # fmt: skip
            return
    if raw.min() == raw.max():
        yield Finding("warning", f"channel {name} is {raw.flat[0]} everywhere.", "Replace or remove the case.", case, str(image.path))  # fmt: skip
    conflict = nifti.affine_conflict(image)
    if conflict:
        yield Finding("warning", f"channel {name}: {conflict}", "Make qform and sform agree; other tools may read the other one.", case, str(image.path))  # fmt: skip


def _check_lesions(item: CaseFiles, mask: np.ndarray, voxel_mm3: float, recipe: Recipe) -> Iterator[Finding]:
    labels, boxes = components(mask)
    if not boxes:
        yield Finding("warning", "there is no lesion: the case can be a host, not a donor.", "Check that this is meant.", item.case, str(item.label))  # fmt: skip
        return
    sizes = np.bincount(labels.ravel())[1:]
    least = max(recipe.bank.min_voxels, recipe.bank.min_volume_mm3 / voxel_mm3)
    if sizes.max() < least:
        yield Finding("warning", f"all {len(boxes)} lesions are specks under {recipe.bank.min_volume_mm3:g} mm3 or {recipe.bank.min_voxels} voxels: none can be a donor.",
                      "Lower bank.min_volume_mm3 and bank.min_voxels if they are real.", item.case, str(item.label))  # fmt: skip


def _check_mask(item: MaskFile) -> CaseCheck:
    name = f"{item.subject} (mask)"
    try:
        image = nifti.read(item.path)
    except LesionsynthError as error:
        return CaseCheck(name, (_finding(error, "Replace the file.", name),), {}, "", 0.0)
    values = image.values()
    findings = []
    if not np.isfinite(values).all():
        findings.append(
            Finding(
                "error", "the mask has voxels that are NaN or infinite.", "Correct it.", name, str(item.path)
            )
        )
    elif not (values > 0).any():
        findings.append(
            Finding("warning", "the mask is empty.", "Check that this is meant.", name, str(item.path))
        )
    return CaseCheck(name, tuple(findings), {}, "", 0.0)


def _same_content(checks: list[CaseCheck]) -> Iterator[Finding]:
    """Cases whose images are the same bytes: one scan under two names would leak between folds."""
    seen: dict[str, list[str]] = defaultdict(list)
    for item in checks:
        for channel, value in item.hashes.items():
            if channel != "label":
                seen[value].append(item.name)
    pairs = sorted({tuple(sorted(set(names))[:2]) for names in seen.values() if len(set(names)) > 1})
    for first, second in pairs:
        yield Finding("error", f"has an image identical to one of case {first}.", "Remove one of the two: one scan under two names leaks between folds.", second)  # fmt: skip


def _finding(error: LesionsynthError, cure: str, case: str | None = None) -> Finding:
    return Finding("error", error.message, error.remedy or cure, error.case or case, error.file)


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e7 else f"{size / 1e6:.2f} MB"
