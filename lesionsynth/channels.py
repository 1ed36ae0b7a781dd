"""The channels of a case: read from their files, and brought onto one grid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lesionsynth import nifti
from lesionsynth.derived import joined, on_grid_of
from lesionsynth.domain.case import CaseFiles, Cohort
from lesionsynth.domain.finding import Finding
from lesionsynth.errors import InputError
from lesionsynth.kernels.deform import Warp, warp_image

_ORDERS: dict[str, Literal[1, 3]] = {"linear": 1, "cubic": 3}
_HALF_VOX = 0.5 + 1e-3
"""A field of view ends half a voxel beyond the centres of its outermost voxels."""
_UNKNOWN_FROM = 0.01
"""A resampled voxel is unknown if so much of it comes from voxels that are NaN or infinite."""
_BACKGROUND_FROM = 0.1
"""The value of a volume's corner is its background if so much of the volume has it."""


@dataclass(frozen=True, eq=False)
class Aligned:
    """Channels on one grid.

    Parameters
    ----------
    images : tuple of nifti.Image
        One a channel.
    resampled : tuple of str
        Names of the channels that had another grid.
    unknown : ndarray, (i, j, k), bool, or None
        Voxels of which a resampled channel knows nothing, where there are any.
    """

    images: tuple[nifti.Image, ...]
    resampled: tuple[str, ...] = ()
    unknown: NDArray[np.bool_] | None = None


def read_channels(files: CaseFiles) -> tuple[nifti.Image, ...]:
    """Read the images of a case, one a channel, as stored; each file once."""
    found: dict[int, nifti.Image] = {}
    for path, channels in files.image_files.items():
        found.update(zip(channels, nifti.read_series(path, len(channels)), strict=True))
    return tuple(found[number] for number in range(len(files.images)))


def made_anew(
    files: CaseFiles, cohort: Cohort, targets: Mapping[Path, tuple[int, ...]]
) -> dict[Path, nifti.Stored]:
    """Image files of an original that cannot be copies: of other channels, resampled, or packed otherwise.

    Parameters
    ----------
    files : CaseFiles
    cohort : Cohort
    targets : mapping of Path to tuple of int
        Numbers of the channels that each file of the output holds.
    """
    sources = {channels: path for path, channels in files.image_files.items()}
    anew = {
        path: channels
        for path, channels in targets.items()
        if channels not in sources or sources[channels].suffix != path.suffix
    }
    if cohort.resample == "none" and not anew:
        return {}
    stored = read_channels(files)
    aligned = on_one_grid(files, cohort, stored, nifti.read(files.label))
    # By their numbers: two channels may have one name.
    resampled = {k for k, image in enumerate(aligned.images) if image is not stored[k]}
    return {
        path: joined([aligned.images[k] for k in channels], [aligned.images[k].slabs for k in channels])
        for path, channels in targets.items()
        if path in anew or resampled & set(channels)
    }


def grid_faults(cohort: Cohort, images: Sequence[nifti.Image], label: nifti.Image) -> Iterator[Finding]:
    """What is wrong with the grids of a case; nothing where its channels can be resampled as asked for."""
    named = [(f"channel {name}", image) for name, image in zip(cohort.channels, images, strict=True)]
    if (reference := _reference(images, label)) is None:
        yield _differs(
            "the label map",
            label,
            *named[0],
            "Resample the label map or a channel, so that they share a grid.",
        )
    elif cohort.resample == "none":
        for name, image in named:
            if not image.grid.same_as(images[reference].grid):
                cure = "Resample it, or let it be done: --set input.resample=linear (or cubic)."
                yield _differs(name, image, *named[reference], cure)


def _reference(images: Sequence[nifti.Image], label: nifti.Image) -> int | None:
    """The first channel on the grid of the label map."""
    return next((k for k, image in enumerate(images) if image.grid.same_as(label.grid)), None)


def _differs(name: str, image: nifti.Image, other_name: str, other: nifti.Image, cure: str) -> Finding:
    if image.grid.shape == other.grid.shape:
        fault = f"{name} has the shape of {other_name} but lies elsewhere (its affine differs)."
    else:
        fault = f"{name} is {image.grid.describe()}, {other_name} is {other.grid.describe()}."
    return Finding("error", fault, cure, file=str(image.path))


def on_one_grid(
    files: CaseFiles, cohort: Cohort, images: tuple[nifti.Image, ...], label: nifti.Image
) -> Aligned:
    """Bring all channels onto the grid of the label map, by interpolation where the cohort allows it.

    Parameters
    ----------
    files : CaseFiles
    cohort : Cohort
        Its `resample` says whether and how.
    images : tuple of nifti.Image
        Channels as stored.
    label : nifti.Image
        Label map. It is never resampled: at least one channel must have its grid.

    Raises
    ------
    InputError
        If grids differ and nothing may be resampled, or no channel has the grid of the label map.
    """
    for found in grid_faults(cohort, images, label):
        raise InputError(found.fault, case=files.case, file=found.file, remedy=found.cure)
    reference = images[_reference(images, label) or 0]
    made, resampled = [], []
    unknown: NDArray[np.bool_] | None = None
    for name, image in zip(cohort.channels, images, strict=True):
        if image.grid.same_as(reference.grid):
            made.append(image)
            continue
        moved, empty = _resampled(image, reference, _ORDERS[cohort.resample])
        if empty.all():
            raise InputError(
                f"channel {name} and the label map have no place in common.",
                case=files.case,
                file=image.path,
                remedy="Correct its affine, or remove the case.",
            )
        made.append(moved)
        resampled.append(name)
        unknown = empty if unknown is None else unknown | empty
    return Aligned(tuple(made), tuple(resampled), unknown)


def resampled_text(how: str, cases: Iterable[Sequence[str]]) -> str | None:
    """Which channels were resampled in how many cases, from their names case by case; None for none."""
    counts = Counter(name for names in cases for name in set(names))
    listed = ", ".join(f"{name} of {count} case(s)" for name, count in sorted(counts.items()))
    return f"resampled to the grid of the label map ({how}): {listed}" if counts else None


def _resampled(
    image: nifti.Image, reference: nifti.Image, order: Literal[1, 3]
) -> tuple[nifti.Image, NDArray[np.bool_]]:
    """A channel on the grid of another, and where it knows nothing: there it has its background.

    Nothing is interpolated where the grids differ in the order of their axes, in flips and in whole voxels
    only. A background that is constant stays so.
    """
    grid = reference.grid
    matrix = np.linalg.inv(image.grid.affine) @ grid.affine
    warp = Warp(matrix[:3, :3], matrix[:3, 3], (0, 0, 0), grid.shape)
    unknown = _beyond(warp, image.grid.shape)
    values = image.values()
    known = np.isfinite(values)
    background = _background(values[known]) if known.any() else 0.0
    if warp.is_exact:
        stored: Any = image.raw[None]
        raw = warp_image(stored, warp)[0]
    else:
        values[~known] = background
        moved = warp_image(values[None], warp, order)[0]
        share = np.stack([values == background, ~known]).astype(np.float32)
        constant, lost = warp_image(share, warp, 1)
        moved[constant > 1 - 1e-6] = background
        unknown |= lost > _UNKNOWN_FROM
        raw = image.encode(moved)[0]
    raw = np.array(raw, dtype=image.raw.dtype, order="F")
    raw[unknown] = image.encode(np.full(1, background, np.float32))[0]
    return on_grid_of(image, raw, reference), unknown


def _background(values: NDArray[np.float32]) -> float:
    """The first voxel if much of the volume is the same, as where a brain was cut out; else the least."""
    return float(values[0] if (values == values[0]).mean() >= _BACKGROUND_FROM else values.min())


def _beyond(warp: Warp, shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Voxels that lie outside a volume of `shape`."""
    i, j, k = (np.arange(n, dtype=np.float64) for n in warp.shape)
    beyond = np.zeros(warp.shape, dtype=bool)
    for start, (x, y, z), n in zip(warp.offset, warp.matrix, shape, strict=True):
        at = start + x * i[:, None, None] + y * j[:, None] + z * k
        beyond |= (at < -_HALF_VOX) | (at > n - 1 + _HALF_VOX)
    return beyond
