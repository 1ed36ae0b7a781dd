"""Learn a likelihood map from the lesions of a bank, one lesion in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lesionsynth import nifti
from lesionsynth.bank.harvest import CaseSummary
from lesionsynth.bank.store import LesionBank
from lesionsynth.domain.grid import Grid
from lesionsynth.domain.lesion import LesionInfo
from lesionsynth.domain.likelihood import LikelihoodMap
from lesionsynth.errors import InputError
from lesionsynth.kernels.distance import distance_to_mm
from lesionsynth.likelihood.spec import LikelihoodSpec, Weighting

ORGAN_BINS = 32

Registrations = Mapping[str, NDArray[np.float64]]
"""Case name to the 4x4 matrix from reference millimetres to the case's millimetres (RAS+)."""


def chosen_kind(spec: LikelihoodSpec, cases: Sequence[CaseSummary]) -> tuple[str, str]:
    """Kind of map for these cases, and one sentence on why."""
    if spec.kind != "auto":
        return spec.kind, f"likelihood map: {spec.kind}, as the recipe says."
    if all(case.grid.same_as(cases[0].grid) for case in cases):
        return "grid", "likelihood map: grid, since all cases share one grid."
    return "organ", (
        "likelihood map: position in the box of the organ or tissue, since the cases have different grids "
        "(kind affine would register them)."
    )


def fit_map(
    bank: LesionBank,
    subjects: Iterable[str],
    kind: str,
    spec: LikelihoodSpec,
    *,
    root: Path,
    reference: Grid | None = None,
    registrations: Registrations | None = None,
) -> tuple[LikelihoodMap, list[str]]:
    """Fit the map of one group of subjects.

    Parameters
    ----------
    bank : LesionBank
    subjects : iterable of str
        The only subjects whose lesions are looked at.
    kind : str
        "grid", "organ", "affine" or "map".
    spec : LikelihoodSpec
    root : Path
        Folder that `spec.map` is relative to.
    reference, registrations
        Grid of the reference image and the cases' transforms, for kind affine.

    Returns
    -------
    LikelihoodMap
        Without any tissue mask and floor: these belong to the host. Even where there is no lesion.
    notes : list of str
        What a user should know, such as masks that could not be used.
    """
    chosen = set(subjects)
    cases = {c.case: c for c in bank.cases() if c.subject in chosen}
    if kind == "map":
        return _given(spec, root), []
    if not cases:
        raise InputError("no training subject is left to fit the likelihood map on.", file=bank.folder)
    if kind == "grid":
        # Masks alone may lie on another grid than the images; those that do are left out below.
        grid = min(cases.values(), key=lambda case: (not case.has_images, case.case)).grid
        target, position = grid, _same_place(grid)
    elif kind == "organ":
        grid = _organ_grid(cases.values())
        target, position = grid, _in_box
    else:
        if reference is None or registrations is None:
            raise ValueError("kind affine needs a reference grid and registrations")
        target, position = reference, _registered(reference, registrations)
    total = np.zeros(target.shape, dtype=np.float64)
    used, left_out = set[str](), set[str]()
    for info, label in bank.shapes(chosen):
        where = position(info, np.argwhere(label > 0), cases[info.case])
        if where is None:
            left_out.add(info.case)
            continue
        weights = lesion_weights(label > 0, info.spacing_mm, spec.weighting)
        _splat(total, where, weights)
        used.add(info.subject)
    if spec.smoothing_mm > 0:
        sigma = [spec.smoothing_mm / s for s in target.spacing_mm]
        total = ndimage.gaussian_filter(total, sigma, mode="constant")
    if not total.any():
        total[...] = 1.0
    density = (total / total.sum()).astype(np.float32)
    notes = []
    if left_out:
        notes.append(
            f"{len(left_out)} case(s) or mask(s) could not be used for a likelihood map of kind {kind} "
            f"(such as {min(left_out)}): their grid does not fit and there is no tissue to place them by."
        )
    return LikelihoodMap(density, target, kind, tuple(sorted(used))), notes


def lesion_weights(
    mask: NDArray[np.bool_], spacing_mm: Sequence[float], weighting: Weighting
) -> NDArray[np.float64]:
    """Weight of each voxel of a lesion, in the order of ``np.argwhere(mask)``."""
    count = int(mask.sum())
    if weighting == "voxels":
        return np.ones(count)
    if weighting == "lesions":
        return np.full(count, 1.0 / count)
    depth = distance_to_mm(np.pad(~mask, 1, constant_values=True), spacing_mm)[1:-1, 1:-1, 1:-1]
    weights = depth[mask].astype(np.float64)
    return np.asarray(weights / weights.sum())


Position = Callable[[LesionInfo, NDArray[Any], CaseSummary], NDArray[np.float64] | None]


def _same_place(grid: Grid) -> Position:
    def position(info: LesionInfo, local: NDArray[Any], case: CaseSummary) -> NDArray[np.float64] | None:
        if not case.grid.same_as(grid):
            return None
        return np.asarray(local + np.array(info.origin_vox), dtype=np.float64)

    return position


def _registered(reference: Grid, registrations: Registrations) -> Position:
    def position(info: LesionInfo, local: NDArray[Any], case: CaseSummary) -> NDArray[np.float64] | None:
        if info.case not in registrations:
            return None
        to_reference = (
            np.linalg.inv(reference.affine) @ np.linalg.inv(registrations[info.case]) @ case.grid.affine
        )
        voxels = local + np.array(info.origin_vox)
        return np.asarray(voxels @ to_reference[:3, :3].T + to_reference[:3, 3])

    return position


def _in_box(info: LesionInfo, local: NDArray[Any], case: CaseSummary) -> NDArray[np.float64] | None:
    if case.tissue_box is None:
        return None
    voxels = local + np.array(info.origin_vox)
    return box_coordinates(voxels, case.grid, case.tissue_box) * ORGAN_BINS - 0.5


def box_coordinates(voxels: NDArray[Any], grid: Grid, box: Sequence[slice]) -> NDArray[np.float64]:
    """Position of voxels in a box, 0 to 1 along right, front, top whatever the orientation; (N, 3)."""
    start = np.array([s.start for s in box])
    size = np.array([s.stop - s.start for s in box])
    inside = (voxels + 0.5 - start) / size
    result = np.empty_like(inside)
    for axis, (world, sign) in enumerate(grid.world_axes):
        result[:, world] = inside[:, axis] if sign > 0 else 1.0 - inside[:, axis]
    return result


def _organ_grid(cases: Iterable[CaseSummary]) -> Grid:
    """Grid of the normalised box: as large as the mean box, so that millimetres keep their meaning."""
    sizes = []
    for case in cases:
        if case.tissue_box is not None:
            extent = [
                (s.stop - s.start) * mm for s, mm in zip(case.tissue_box, case.grid.spacing_mm, strict=True)
            ]
            ordered = [0.0, 0.0, 0.0]
            for axis, (world, _) in enumerate(case.grid.world_axes):
                ordered[world] = extent[axis]
            sizes.append(ordered)
    if not sizes:
        raise InputError("no case with images is left to fit the likelihood map on.")
    steps = np.mean(sizes, axis=0) / ORGAN_BINS
    return Grid((ORGAN_BINS,) * 3, np.diag([*steps, 1.0]))


def _splat(total: NDArray[np.float64], where: NDArray[np.float64], weights: NDArray[np.float64]) -> None:
    """Add `weights` at the nearest voxels of `where`; what lies outside is dropped."""
    nearest = np.rint(where).astype(np.intp)
    inside = ((nearest >= 0) & (nearest < total.shape)).all(axis=1)
    np.add.at(total, tuple(nearest[inside].T), weights[inside])


def _given(spec: LikelihoodSpec, root: Path) -> LikelihoodMap:
    path = root / (spec.map or "")
    image = nifti.read(path)
    values = image.values().astype(np.float64)
    if not np.isfinite(values).all() or values.min() < 0 or not values.any():
        raise InputError("a likelihood map must be finite, not negative, and positive somewhere.", file=path)
    return LikelihoodMap((values / values.sum()).astype(np.float32), image.grid, "map", ())
