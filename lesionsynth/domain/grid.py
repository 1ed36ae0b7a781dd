"""The voxel grid of a volume and boxes in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Box = tuple[slice, slice, slice]


FLAT_VOX = 3
"""With so few voxels along an axis most lesions reach both ends, and what lies beyond was not looked at."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Shape and world position of a volume.

    Parameters
    ----------
    shape : tuple of int
        Voxels along (i, j, k), as NIfTI stores them.
    affine : ndarray, (4, 4), float64
        Voxel indices to world millimetres (RAS+).
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    @cached_property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along each axis."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return (float(i), float(j), float(k))

    @cached_property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel (also where the axes are sheared)."""
        i, j, k = self.affine[:3, :3].T
        return float(abs(i @ np.cross(j, k)))

    @property
    def flat_axes(self) -> tuple[int, ...]:
        """Axes of so few voxels that nothing is known of what a lesion looks like along them."""
        return tuple(axis for axis, n in enumerate(self.shape) if n <= FLAT_VOX)

    def corners_mm(self) -> NDArray[np.float64]:
        """World positions of the eight corner voxels, (8, 3)."""
        index = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape], indexing="ij")).reshape(3, -1)
        return np.asarray((self.affine[:3, :3] @ index + self.affine[:3, 3:]).T)

    def same_as(self, other: Grid, tolerance: float = 0.05) -> bool:
        """Whether no corner differs by more than `tolerance` voxels."""
        if self.shape != other.shape:
            return False
        shift_mm = np.abs(self.corners_mm() - other.corners_mm()).max()
        return bool(shift_mm <= tolerance * min(self.spacing_mm))

    def describe(self) -> str:
        """Shape and spacing for messages."""
        return f"{'x'.join(map(str, self.shape))} at {'x'.join(f'{s:.3g}' for s in self.spacing_mm)} mm"

    @cached_property
    def world_axes(self) -> tuple[tuple[int, int], ...]:
        """World axis and its sign for each voxel axis, each world axis once."""
        directions = self.affine[:3, :3] / np.array(self.spacing_mm)
        free = {0, 1, 2}
        found: dict[int, tuple[int, int]] = {}
        for axis in np.argsort(-np.abs(directions).max(axis=0)):
            world = max(free, key=lambda w: abs(directions[w, axis]))
            free.remove(world)
            found[int(axis)] = (world, 1 if directions[world, axis] > 0 else -1)
        return found[0], found[1], found[2]

    def axis_towards(self, direction: int) -> int:
        """Voxel axis most parallel to a world axis (0: left-right, 1: back-front, 2: down-up)."""
        return int(np.argmax(np.abs(self.affine[direction, :3]) / np.array(self.spacing_mm)))


def bounding_box(mask: NDArray[np.bool_]) -> Box | None:
    """Smallest box around the true voxels of a mask on any device, or None where there are none."""
    spans = []
    for axis in range(mask.ndim):
        hit: Any = mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis))
        if not hit.any():
            return None
        spans.append(slice(int(hit.argmax()), len(hit) - int(hit[::-1].argmax())))
    return (spans[0], spans[1], spans[2])


def grown(box: Box, margin_vox: Sequence[int], shape: Sequence[int]) -> Box:
    """`box` with a margin, cut to the volume."""
    i, j, k = (
        slice(max(0, b.start - m), min(n, b.stop + m)) for b, m, n in zip(box, margin_vox, shape, strict=True)
    )
    return (i, j, k)


def shifted(box: Box, origin: Sequence[int]) -> Box:
    """`box`, given relative to `origin`, in the coordinates of the volume."""
    i, j, k = (slice(b.start + o, b.stop + o) for b, o in zip(box, origin, strict=True))
    return (i, j, k)


def origin_of(box: Box) -> tuple[int, int, int]:
    """First corner of `box`."""
    return (box[0].start, box[1].start, box[2].start)


def shape_of(box: Box) -> tuple[int, int, int]:
    """Voxels of `box` along each axis."""
    return (box[0].stop - box[0].start, box[1].stop - box[1].start, box[2].stop - box[2].start)
