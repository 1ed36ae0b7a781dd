"""Finding the tissue of a case: by a map, an organ label, a mixture of classes, or a mask."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from lesionsynth import nifti
from lesionsynth.domain.case import CaseFiles, Cohort
from lesionsynth.domain.grid import Grid
from lesionsynth.errors import InputError
from lesionsynth.kernels import tissue as tissue_kernel
from lesionsynth.kernels.tissue import FLUID, GREY, OUTSIDE, VENTRICLE, WHITE
from lesionsynth.spec import Spec

TissueKind = Literal["map", "mixture", "organ", "mask"]


class TissueSpec(Spec):
    """Where lesions can lie, and against which tissue their contrast is measured."""

    kind: Literal["auto", "map", "mixture", "organ", "mask"] = "auto"
    """auto: `map` if one is given, the organ label if there is one, a three-class mixture inside a brain
    mask (given, or of a skull-stripped image), else everything that is not air."""
    map: str | None = None
    """Path of a tissue label image, with {case} and {subject}, relative to the input."""
    fluid: tuple[int, ...] = (1,)
    """Values of `map` that are cerebrospinal fluid outside the ventricles."""
    grey: tuple[int, ...] = (2,)
    """Values of `map` that are grey matter."""
    white: tuple[int, ...] = (3,)
    """Values of `map` that are the tissue which lesions lie in."""
    ventricles: tuple[int, ...] = ()
    """Values of `map` that are ventricles; found by their depth in the fluid where empty."""
    brain_mask: str | None = None
    """Path of a brain mask, with {case} and {subject}, relative to the input."""

    @model_validator(mode="after")
    def _map_is_given(self) -> TissueSpec:
        if self.kind == "map" and self.map is None:
            raise ValueError("kind map needs `map`, the path of the tissue label images")
        return self


def require_grid(files: CaseFiles, image: nifti.Image, grid: Grid, what: str) -> None:
    """Refuse a file of a case whose grid is another; `what` names it.

    Raises
    ------
    InputError
    """
    if image.grid.same_as(grid):
        return
    if image.grid.shape != grid.shape:
        found = f"is {image.grid.describe()} but the first channel is {grid.describe()}."
    else:
        found = "has the first channel's shape but lies elsewhere in the world (its affine differs)."
    raise InputError(
        f"{what} {found} All files of a case must share one grid.",
        case=files.case,
        file=image.path,
        remedy="Resample it to the first channel.",
    )


def side_file(pattern: str, files: CaseFiles, root: Path) -> Path:
    """Path that `pattern` names for a case, relative to `root`; only {case} and {subject} are known."""
    return root / pattern.replace("{case}", files.case).replace("{subject}", files.subject)


def read_beside(pattern: str, what: str, files: CaseFiles, cohort: Cohort, grid: Grid) -> NDArray[np.float32]:
    """Voxels of a further image of a case, which `what` names.

    Raises
    ------
    InputError
        If it cannot be read, or its grid is another.
    """
    image = nifti.read(side_file(pattern, files, cohort.root))
    require_grid(files, image, grid, what)
    return image.values()


def find_tissue(
    files: CaseFiles,
    cohort: Cohort,
    spec: TissueSpec,
    images: tuple[nifti.Image, ...],
    label: NDArray[np.uint16],
) -> tuple[NDArray[np.uint8], TissueKind]:
    """Find the tissue of a case.

    Parameters
    ----------
    files : CaseFiles
    cohort : Cohort
    spec : TissueSpec
    images : tuple of nifti.Image
        Channels.
    label : ndarray, (i, j, k), uint16

    Returns
    -------
    tissue : ndarray, (i, j, k), uint8
        Codes of :mod:`lesionsynth.kernels.tissue`; lesions are WHITE.
    kind : str
        How it was found.

    Raises
    ------
    InputError
        If a map or mask cannot be used, or what `spec` demands cannot be had.
    """
    grid = images[0].grid
    lesions = np.isin(label, cohort.labels.lesion)

    def beside(pattern: str, what: str) -> NDArray[np.float32]:
        return read_beside(pattern, what, files, cohort, grid)

    if spec.kind == "map" or (spec.kind == "auto" and spec.map is not None):
        return _from_map(beside(spec.map or "", "the tissue map"), spec, lesions, grid), "map"
    if spec.kind == "organ" and not cohort.labels.organ:
        raise InputError(
            "tissue.kind is organ, but no label has the role organ.",
            case=files.case,
            remedy="Give a label that role under `input.roles`, or choose another `tissue.kind`.",
        )
    if spec.kind == "organ" or (spec.kind == "auto" and cohort.labels.organ):
        organ = np.isin(label, cohort.labels.organ)
        return np.where(organ | lesions, np.uint8(WHITE), np.uint8(OUTSIDE)), "organ"
    if spec.kind in ("auto", "mixture"):
        found = _from_mixture(cohort, spec, images, lesions, beside)
        if found is not None:
            return found, "mixture"
        if spec.kind == "mixture":
            raise InputError(
                "no three tissue classes could be told apart: the image is not skull-stripped, no channel is "
                "called T1, T2 or FLAIR, or its histogram has no three classes.",
                case=files.case,
                file=images[0].path,
                remedy="Give `tissue.map` or `tissue.brain_mask`, or choose `tissue.kind: mask`.",
            )
    mask = beside(spec.brain_mask, "the brain mask") > 0 if spec.brain_mask else None
    if mask is None:
        mask = tissue_kernel.stripped_brain(np.stack([i.values() for i in images]), grid.spacing_mm)
    if mask is None:
        mask = tissue_kernel.body(images[0].values()[None])
    return np.where(mask | lesions, np.uint8(WHITE), np.uint8(OUTSIDE)), "mask"


def _from_map(
    values: NDArray[np.float32], spec: TissueSpec, lesions: NDArray[np.bool_], grid: Grid
) -> NDArray[np.uint8]:
    tissue = np.zeros(values.shape, dtype=np.uint8)
    for code, wanted in (
        (FLUID, spec.fluid),
        (GREY, spec.grey),
        (WHITE, spec.white),
        (VENTRICLE, spec.ventricles),
    ):
        tissue[np.isin(values, wanted)] = code
    tissue[lesions] = WHITE
    if not spec.ventricles:
        tissue_kernel.mark_ventricles(tissue, grid.spacing_mm)
    return tissue


def _from_mixture(
    cohort: Cohort,
    spec: TissueSpec,
    images: tuple[nifti.Image, ...],
    lesions: NDArray[np.bool_],
    beside: Callable[[str, str], NDArray[np.float32]],
) -> NDArray[np.uint8] | None:
    chosen = tissue_kernel.tissue_channels(cohort.channels)
    if not chosen:
        return None
    values = np.stack([image.values() for image in images])
    brain = beside(spec.brain_mask, "the brain mask") > 0 if spec.brain_mask else None
    if brain is None:
        brain = tissue_kernel.stripped_brain(values, images[0].grid.spacing_mm)
    contrast = tissue_kernel.contrast_of(cohort.channels[chosen[0]])
    if brain is None or contrast is None:
        return None
    tissue = tissue_kernel.three_classes(values[chosen], brain, lesions, contrast)
    if tissue is not None:
        tissue_kernel.mark_ventricles(tissue, images[0].grid.spacing_mm)
    return tissue
