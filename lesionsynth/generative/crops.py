"""Lesions as cubes of one size for a network, and back.

A cube lies along the world axes (RAS+) and is as fine as the lesion needs: its voxel edge is what makes the
lesion and a rim fill it, and is kept beside it, so that small and large lesions are seen equally well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lesionsynth.domain.grid import bounding_box
from lesionsynth.domain.lesion import Lesion, LesionInfo
from lesionsynth.kernels.components import components
from lesionsynth.kernels.deform import Warp, warp_image, warp_mask
from lesionsynth.kernels.intensity import in_spreads

RIM_MM = 2.5
"""Tissue around a lesion that belongs to its look: its partial-volume rim, and what a blend carries along."""
MOST_SPREADS = 30.0
"""Intensities that a network is shown are cut here, unless lesions go beyond, as in PET: what lies beyond are
vessels, bone and artefacts."""
_WHOLE = 0.9
"""Share of a shape that has to hang together; what is not part of it is cut off."""


@dataclass(frozen=True, eq=False)
class Crop:
    """A lesion in a cube.

    Parameters
    ----------
    name, case, subject : str
        As in the bank.
    classes : ndarray, (n, n, n), uint8
        0 outside, k for the k-th label value of lesions.
    edge_mm : float
        Voxel edge.
    image : ndarray, (C, n, n, n), float32
        Difference from the tissue around the lesion, in units of that tissue's spread; no channels where only
        the mask is known.
    known : ndarray, (n, n, n), bool
        Where `image` shows the lesion or its own kind of tissue.
    volume_mm3 : float
        Volume of the lesion as it was harvested.
    """

    name: str
    case: str
    subject: str
    classes: NDArray[np.uint8]
    edge_mm: float
    image: NDArray[np.float32]
    known: NDArray[np.bool_]
    volume_mm3: float


def crop_of(lesion: Lesion, size: int, values: Sequence[int]) -> Crop | None:
    """The lesion in a cube of `size` voxels, of the same volume; None where it has no voxel.

    Parameters
    ----------
    lesion : Lesion
        Of the bank.
    size : int
        Voxels along each edge of the cube.
    values : sequence of int
        Label values of lesions, in the order of the classes.
    """
    body = bounding_box(lesion.label > 0)
    if body is None:
        return None
    axes = np.reshape(lesion.info.axes_mm, (3, 3))
    half_mm = np.abs(axes) @ [(b.stop - b.start) / 2 for b in body]
    edge_mm = 2 * (float(half_mm.max()) + RIM_MM) / size
    matrix = np.linalg.inv(axes) * edge_mm
    middle = np.array([(b.start + b.stop - 1) / 2 for b in body])
    warp = Warp(matrix, middle - matrix @ np.full(3, (size - 1) / 2), (0, 0, 0), (size, size, size))
    classes = _classes(lesion.label, warp, edge_mm, lesion.info.volume_mm3, values)
    image = np.empty((0, *classes.shape), dtype=np.float32)
    known = np.zeros(classes.shape, dtype=bool)
    if lesion.info.channels:
        levels = [s.surroundings for s in lesion.info.channels]
        image = as_shown(warp_image(lesion.image, warp, 1), levels, classes > 0)
        known = warp_mask(lesion.rim, warp) | (classes > 0)
    info = lesion.info
    return Crop(info.lesion, info.case, info.subject, classes, edge_mm, image, known, info.volume_mm3)


def as_shown(
    image: NDArray[np.float32], levels: Sequence[tuple[float, float]], lesion: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Channels (C, i, j, k) in spreads of a tissue, as networks see them; none of `lesion` is cut."""
    units = in_spreads(image, levels)
    most = np.abs(units[:, lesion]).max(axis=1, initial=MOST_SPREADS)[:, None, None, None]
    return np.asarray(units.clip(-most, most))


def _classes(
    label: NDArray[np.uint16], warp: Warp, edge_mm: float, volume_mm3: float, values: Sequence[int]
) -> NDArray[np.uint8]:
    """Classes on the cube's grid: the voxels that hold most of the lesion, so many that its volume is kept.

    A threshold would shrink what is as thin as a slice or two.
    """
    # A mask may be stored without a margin, and an image repeats its edge, smoothed where it shrinks.
    margin = [2 + int(np.ceil(2 * ratio)) for ratio in warp.shrinking.tolist()]
    padded = np.pad(label, [(m, m) for m in margin])
    shares = np.stack([(padded == value).astype(np.float32) for value in values])
    shares = warp_image(shares, replace(warp, centre=warp.centre + margin), 1)
    total = shares.sum(axis=0)
    count = min(max(1, round(volume_mm3 / edge_mm**3)), int(np.count_nonzero(total > 0)))
    # Of voxels that hold as much, those nearer to the middle: else flat lesions would end on one side.
    far = sum(
        np.square(axis - (n - 1) / 2) for axis, n in zip(np.indices(total.shape), total.shape, strict=True)
    )
    most = np.lexsort((np.ravel(far), -np.round(total, 5).ravel()))[:count]
    classes = np.zeros(total.shape, dtype=np.uint8)
    classes.flat[most] = shares.argmax(axis=0).flat[most] + 1
    return classes


def whole_shape(classes: NDArray[np.uint8]) -> NDArray[np.uint8] | str:
    """A generated shape less its crumbs, or why it is none: it is empty, or is broken up.

    One that touches the border of its cube is cut off, and none either.
    """
    mask = classes > 0
    if not mask.any():
        return "empty shape"
    numbers, _ = components(mask)
    sizes = np.bincount(numbers[mask])
    if sizes.max() < _WHOLE * sizes.sum():
        return "broken-up shape"
    kept = numbers == int(sizes.argmax())
    inner = kept[1:-1, 1:-1, 1:-1]
    if np.count_nonzero(inner) != np.count_nonzero(kept):
        return "cut-off shape"
    return np.where(kept, classes, 0).astype(np.uint8)


def largest_shape(classes: NDArray[np.uint8]) -> NDArray[np.uint8] | str:
    """The largest of generated lesions alone, as :func:`whole_shape` has it, or why there is none."""
    numbers, _ = components(classes > 0)
    sizes = np.bincount(numbers.ravel())[1:]
    kept = numbers == 1 + int(sizes.argmax()) if sizes.size else np.zeros_like(numbers, dtype=bool)
    return whole_shape(np.where(kept, classes, 0).astype(np.uint8))


def shape_lesion(name: str, classes: NDArray[np.uint8], edge_mm: float, values: Sequence[int]) -> Lesion:
    """A lesion without image, and of nobody, from a shape; its cube lies along the world axes."""
    label = np.concatenate([[0], values]).astype(np.uint16)[classes]
    found = np.nonzero(label)
    i, j, k = (int(np.rint(axis.mean())) for axis in found)
    info = LesionInfo(
        lesion=name,
        case="",
        subject="",
        classes=tuple(int(v) for v in np.unique(label[label > 0])),
        volume_mm3=float(len(found[0]) * edge_mm**3),
        centre_vox=(i, j, k),
        origin_vox=(0, 0, 0),
        shape_vox=(label.shape[0], label.shape[1], label.shape[2]),
        axes_mm=tuple(float(v) for v in (edge_mm * np.eye(3)).ravel()),
        channels=(),
        site=None,
        source_hash="",
    )
    return Lesion(info, np.empty((0, *label.shape), np.float32), label, np.ones(label.shape, dtype=bool))
