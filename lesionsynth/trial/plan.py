"""What a network for some training cases looks like, after nnU-Net's rules; and how cases are brought to it.

References
----------
Isensee et al., nnU-Net, Nature Methods 2021, doi:10.1038/s41592-020-01008-z.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionsynth.channels import on_one_grid, read_channels
from lesionsynth.domain.case import CaseFiles, Cohort, LabelTable, is_ct
from lesionsynth.domain.grid import Box, Grid, bounding_box
from lesionsynth.errors import InputError, NoLesionError
from lesionsynth.generative.tissue_map import Frame, Window
from lesionsynth.host import read_label, without_missing
from lesionsynth.trial.spec import TrialSpec

IGNORED = 2
"""Class of voxels whose label is to be ignored; 0 is background and 1 lesion."""
_FLAT = 2.0
"""An axis whose voxels are longer than this many times the shortest is not looked along, nor halved."""
_LEAST_EDGE = 4
"""A resolution has at least so many voxels along an axis that is halved."""
_LEAST_LEVELS = 3
"""Of a DynUNet: the last ones of a very small patch are not halved."""
_CROPPED = 0.75
"""Intensities are those of the voxels that are not 0 where these are less than this share of the image."""
_CT_CUT = (0.5, 99.5)


@dataclass(frozen=True)
class Plan:
    """What all arms of a comparison share.

    Parameters
    ----------
    spacing_mm : tuple of float
        Voxel edges along the axes of the world (RAS+).
    patch : tuple of int
        Voxels along each edge.
    kernels, strides : tuple of tuple of int
        Of the convolutions of each resolution, the finest first.
    ct : tuple of (float, float, float, float), or None each
        Of each channel that is CT: cut below and above, mean and spread of lesions.
    """

    spacing_mm: tuple[float, float, float]
    patch: tuple[int, int, int]
    kernels: tuple[tuple[int, int, int], ...]
    strides: tuple[tuple[int, int, int], ...]
    ct: tuple[tuple[float, float, float, float] | None, ...]


@dataclass(frozen=True, eq=False)
class SegmentationCase:
    """A case as the network sees it.

    Parameters
    ----------
    case, subject : str
    image : ndarray, (C, i, j, k), float32
        Normalised, at the plan's spacing, along the axes of the world.
    classes : ndarray, (i, j, k), uint8
        0 background, 1 lesion, 2 ignored.
    frame : Frame
        Between the case's own grid and this one.
    window : Window
        Which part of the frame this is.
    """

    case: str
    subject: str
    image: NDArray[np.float32]
    classes: NDArray[np.uint8]
    frame: Frame
    window: Window


@dataclass(frozen=True, eq=False)
class Scan:
    """A case as it lies on the disk: channels (C, i, j, k), classes (i, j, k), grid."""

    files: CaseFiles
    image: NDArray[np.float32]
    classes: NDArray[np.uint8]
    grid: Grid


def read_scan(files: CaseFiles, cohort: Cohort) -> Scan:
    """Read a case for a network.

    Raises
    ------
    InputError
        If it cannot be read, see :func:`lesionsynth.host.load_case`.
    """
    stored = read_channels(files)
    label_image, label = read_label(files.case, files.label, cohort.labels)
    aligned = on_one_grid(files, cohort, stored, label_image)
    images, _ = without_missing(files, cohort, aligned, label)
    image = np.stack([image.values() for image in images])
    return Scan(files, image, classes_of(label, cohort.labels), images[0].grid)


def classes_of(label: NDArray[np.unsignedinteger], labels: LabelTable) -> NDArray[np.uint8]:
    """A label map as classes: 0 background, 1 lesion, 2 ignored."""
    classes = np.isin(label, labels.lesion).astype(np.uint8)
    classes[np.isin(label, labels.of_role("ignore"))] = IGNORED
    return classes


def make_plan(scans: Sequence[Scan], channels: Sequence[str], spec: TrialSpec) -> Plan:
    """Lay out a network for training cases.

    Raises
    ------
    NoLesionError
        If none of them has a lesion.
    InputError
        If they are not larger than a voxel of the spacing that is asked for.
    """
    if not any((scan.classes == 1).any() for scan in scans):
        names = ", ".join(scan.files.case for scan in scans[:3])
        raise NoLesionError(
            f"none of the training cases ({names}{', ...' if len(scans) > 3 else ''}) has a lesion.",
            remedy="Use fewer folds or a larger fraction, or check the roles of the labels (`input.roles`).",
        )
    edges = np.array([_world(scan.grid.spacing_mm, scan.grid) for scan in scans])
    chosen = np.median(edges, axis=0) if spec.spacing_mm == "auto" else np.array(spec.spacing_mm)
    a, b, c = (float(v) for v in chosen)
    extents = np.array([_world(scan.grid.shape, scan.grid) for scan in scans]) * edges / chosen
    patch = np.minimum(np.median(extents, axis=0), spec.most_patch).astype(int)
    if np.maximum(patch, 1).prod() == 1:
        sizes = " x ".join(f"{size:.3g}" for size in np.median(extents * chosen, axis=0))
        raise InputError(
            f"the training cases ({sizes} mm) are one voxel of {a:g} x {b:g} x {c:g} mm, of which nothing "
            "can be learned.",
            remedy="Use a smaller spacing_mm (--train), or auto; check the voxel sizes in the headers.",
        )
    kernels, strides = _resolutions(patch.tolist(), [a, b, c], len(spec.widths))
    factor = np.prod(strides, axis=0)
    i, j, k = (int(max(f, p // f * f)) for p, f in zip(patch, factor, strict=True))
    ct = tuple(_lesion_range(scans, number) if is_ct(name) else None for number, name in enumerate(channels))
    return Plan((a, b, c), (i, j, k), kernels, strides, ct)


def _world(values: Sequence[float], grid: Grid) -> list[float]:
    """Values of the voxel axes in the order of the world's axes."""
    found = [0.0] * 3
    for value, (world, _) in zip(values, grid.world_axes, strict=True):
        found[world] = float(value)
    return found


def _resolutions(patch: list[int], spacing_mm: list[float], most: int) -> tuple[Any, Any]:
    """Kernels and strides of each resolution; halved along the axes that are fine and long enough."""
    sizes, edges = list(patch), list(spacing_mm)
    kernels, strides = [], [(1, 1, 1)]
    for level in range(most):
        fine = [edge <= _FLAT * min(edges) for edge in edges]
        kernels.append(tuple(3 if is_fine else 1 for is_fine in fine))
        halved = [2 if f and n >= 2 * _LEAST_EDGE else 1 for f, n in zip(fine, sizes, strict=True)]
        if level == most - 1 or (halved == [1, 1, 1] and level >= _LEAST_LEVELS - 1):
            break
        strides.append((halved[0], halved[1], halved[2]))
        sizes = [n // h for n, h in zip(sizes, halved, strict=True)]
        edges = [edge * h for edge, h in zip(edges, halved, strict=True)]
    return tuple(kernels), tuple(strides)


def _lesion_range(scans: Sequence[Scan], channel: int) -> tuple[float, float, float, float]:
    values = np.concatenate([scan.image[channel][scan.classes == 1] for scan in scans])
    low, high = np.percentile(values, _CT_CUT)
    cut = np.clip(values, low, high)
    return float(low), float(high), float(cut.mean()), float(cut.std()) or 1.0


def prepared(scan: Scan, plan: Plan) -> SegmentationCase:
    """A case on the plan's grid, cropped to what is not 0, normalised."""
    frame = Frame.at(scan.grid, plan.spacing_mm)
    present = (scan.image != 0).any(axis=0)
    box = bounding_box(present | (scan.classes == 1))
    whole: Box = (slice(0, present.shape[0]), slice(0, present.shape[1]), slice(0, present.shape[2]))
    box = whole if box is None else box
    window = frame.window(box)
    inside = present if present.mean() < _CROPPED else np.ones_like(present)
    image = np.stack(
        [_normalised(channel, inside, ct) for channel, ct in zip(scan.image, plan.ct, strict=True)]
    )
    return SegmentationCase(
        scan.files.case,
        scan.files.subject,
        frame.image(image[(slice(None), *box)], box, window),
        _classes(scan.classes[box], frame, box, window),
        frame,
        window,
    )


def _classes(classes: NDArray[np.uint8], frame: Frame, box: Box, window: Window) -> NDArray[np.uint8]:
    """Classes in the window: each where it holds at least half of a voxel."""
    parts = np.stack([classes == 1, classes == IGNORED]).astype(np.float32)
    lesion, ignored = frame.image(parts, box, window) >= 0.5
    return np.where(ignored, IGNORED, lesion).astype(np.uint8)


def _normalised(
    channel: NDArray[np.float32], inside: NDArray[np.bool_], ct: tuple[float, float, float, float] | None
) -> NDArray[np.float32]:
    """A channel with mean 0 and spread 1 in what is inside, and 0 elsewhere; CT by its lesions' range."""
    if ct is not None:
        low, high, mean, spread = ct
        return ((np.clip(channel, low, high) - mean) / spread).astype(np.float32)
    values = channel[inside]
    mean, spread = (float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64)))
    scaled = (channel - mean) / (spread if spread > 0 else 1.0)
    return np.where(inside, scaled, 0.0).astype(np.float32)


def on_own_grid(
    probability: NDArray[np.float32], case: SegmentationCase, shape: tuple[int, int, int]
) -> NDArray[np.float32]:
    """A map on the plan's grid brought back to the case's own; 0 outside what the network has seen."""
    i, j, k = (slice(0, n) for n in shape)
    padded = np.pad(probability, 1)  # beyond the window there is nothing
    low = (case.window.lower[0] - 1, case.window.lower[1] - 1, case.window.lower[2] - 1)
    around = Window(low, (padded.shape[0], padded.shape[1], padded.shape[2]))
    return case.frame.back(padded[None], around, (i, j, k))[0]
