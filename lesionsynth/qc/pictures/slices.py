"""Slices as radiologists look at them: the patient's right on the left, the front or the top upwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lesionsynth.domain.grid import Grid

PLANES = ("axial", "coronal", "sagittal")
_NORMAL = {"axial": 2, "coronal": 1, "sagittal": 0}
"""World axis that a plane is across."""

_Any = TypeVar("_Any", bound=np.generic)


@dataclass(frozen=True)
class Orientation:
    """Which voxel axis runs along each world axis (left to right, back to front, down to up), and which way.

    Parameters
    ----------
    axes : tuple of int
    reversed : tuple of bool
        Whether the voxel axis runs against the world axis.
    """

    axes: tuple[int, int, int]
    reversed: tuple[bool, bool, bool]

    @classmethod
    def of(cls, grid: Grid) -> Orientation:
        """The orientation nearest to a grid's, for oblique ones too."""
        found = sorted((world, axis, sign < 0) for axis, (world, sign) in enumerate(grid.world_axes))
        (_, x, back_x), (_, y, back_y), (_, z, back_z) = found
        return cls((x, y, z), (back_x, back_y, back_z))

    def turned(self, volume: NDArray[_Any]) -> NDArray[_Any]:
        """`volume` as a view with axes in RAS+ order."""
        steps = tuple(slice(None, None, -1 if back else 1) for back in self.reversed)
        return volume.transpose(self.axes)[steps]

    def index(self, voxel: Sequence[int], shape: Sequence[int]) -> tuple[int, int, int]:
        """Indices of a voxel in the turned view of a volume of `shape`."""
        x, y, z = (
            shape[a] - 1 - voxel[a] if back else voxel[a]
            for a, back in zip(self.axes, self.reversed, strict=True)
        )
        return int(x), int(y), int(z)


@dataclass(frozen=True)
class Cut:
    """A rectangle of a plane through a volume.

    Parameters
    ----------
    plane : str
        One of `PLANES`.
    at : int
        Index of the slice in the turned view.
    rows, columns : slice
        Of the picture of the whole slice, from the top and from the left.
    size_mm : tuple of float
        Height and width.
    """

    plane: str
    at: int
    rows: slice
    columns: slice
    size_mm: tuple[float, float]


def whole_slice(volume: NDArray[_Any], orientation: Orientation, plane: str, at: int) -> NDArray[_Any]:
    """The picture of a slice, (rows, columns), as a view of the volume."""
    index: list[slice | int] = [slice(None)] * 3
    index[_NORMAL[plane]] = at
    picture: NDArray[_Any] = orientation.turned(volume)[tuple(index)][::-1, ::-1].T
    return picture


def cut_of(volume: NDArray[_Any], orientation: Orientation, cut: Cut) -> NDArray[_Any]:
    """The picture of a cut; 0 beyond the volume."""
    picture = whole_slice(volume, orientation, cut.plane, cut.at)
    spans = (cut.rows, cut.columns)
    inner = tuple(
        slice(max(0, s.start), max(0, min(n, s.stop))) for s, n in zip(spans, picture.shape, strict=True)
    )
    beyond = [
        (max(0, -s.start), max(0, s.stop - max(n, s.start)))
        for s, n in zip(spans, picture.shape, strict=True)
    ]
    return np.pad(picture[inner], beyond) if any(map(any, beyond)) else picture[inner]


def pixel_mm(grid: Grid, orientation: Orientation, plane: str) -> tuple[float, float]:
    """Height and width of a pixel of a plane."""
    across, down = (w for w in range(3) if w != _NORMAL[plane])
    spacing = grid.spacing_mm
    return spacing[orientation.axes[down]], spacing[orientation.axes[across]]


def cut_around(grid: Grid, voxel: Sequence[int], plane: str, width_mm: float) -> Cut:
    """A square cut of a width through a voxel, moved into the volume where it would lie over its edge.

    It holds whole voxels: its height and width in mm may differ by one.
    """
    orientation = Orientation.of(grid)
    shape = [grid.shape[a] for a in orientation.axes]
    index = orientation.index(voxel, grid.shape)
    normal = _NORMAL[plane]
    across, down = (w for w in range(3) if w != normal)
    spans, sizes = [], []
    for world, edge_mm in zip((down, across), pixel_mm(grid, orientation, plane), strict=True):
        n = shape[world]
        count = max(1, round(width_mm / edge_mm))
        middle = n - 1 - index[world]  # pictures run against both axes
        start = middle - count // 2
        start = min(max(start, 0), n - count) if count <= n else (n - count) // 2
        spans.append(slice(start, start + count))
        sizes.append(count * edge_mm)
    return Cut(plane, index[normal], spans[0], spans[1], (sizes[0], sizes[1]))


def cut_of_box(grid: Grid, voxel: Sequence[int], plane: str, box: Sequence[slice]) -> Cut:
    """The cut through a voxel that shows a box of the volume."""
    orientation = Orientation.of(grid)
    normal = _NORMAL[plane]
    across, down = (w for w in range(3) if w != normal)
    spans, sizes = [], []
    for world, edge_mm in zip((down, across), pixel_mm(grid, orientation, plane), strict=True):
        axis, back = orientation.axes[world], orientation.reversed[world]
        n, low, high = grid.shape[axis], box[axis].start, box[axis].stop
        # Pictures run against the turned axes: along voxel axes that are reversed.
        spans.append(slice(low, high) if back else slice(n - high, n - low))
        sizes.append((high - low) * edge_mm)
    return Cut(plane, orientation.index(voxel, grid.shape)[normal], spans[0], spans[1], (sizes[0], sizes[1]))
