"""Slices lie as radiologists look at them, whatever way a volume is stored."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lesionsynth.domain.grid import Grid
from lesionsynth.qc.pictures.slices import (
    PLANES,
    Orientation,
    cut_around,
    cut_of,
    cut_of_box,
    pixel_mm,
    whole_slice,
)

SHAPE_RAS = (5, 7, 9)
SPACING_RAS = (1.0, 2.0, 3.0)
STORED = [
    (axes, flips)
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((False, True), repeat=3)
]


def stored(volume: np.ndarray, axes: tuple[int, ...], flips: tuple[bool, ...]) -> tuple[np.ndarray, Grid]:
    """A RAS+ volume with its axes permuted and reversed, and the grid that says so."""
    ras = np.diag([*SPACING_RAS, 1.0])
    ras[:3, 3] = (-10, -20, 5)
    turned = volume.transpose(axes)[tuple(slice(None, None, -1 if f else 1) for f in flips)]
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    affine[:3, 3] = ras[:3, 3]
    for voxel_axis, (world, flip) in enumerate(zip(axes, flips, strict=True)):
        step = ras[:3, world]
        affine[:3, voxel_axis] = -step if flip else step
        affine[:3, 3] += (volume.shape[world] - 1) * step if flip else 0
    return turned, Grid(turned.shape, affine)


@pytest.mark.parametrize(("axes", "flips"), STORED)
def test_right_is_left_and_front_and_top_are_up(axes: tuple[int, ...], flips: tuple[bool, ...]) -> None:
    ras = np.zeros(SHAPE_RAS)
    middle = tuple(n // 2 for n in SHAPE_RAS)
    ends = {"right": (0, -1), "front": (1, -1), "top": (2, -1)}
    for value, (axis, end) in enumerate(ends.values(), start=1):
        at = list(middle)
        at[axis] = end
        ras[tuple(at)] = value
    volume, grid = stored(ras, axes, flips)
    orientation = Orientation.of(grid)
    assert np.array_equal(orientation.turned(volume), ras)
    axial, coronal, sagittal = (
        whole_slice(volume, orientation, plane, middle[normal])
        for plane, normal in zip(PLANES, (2, 1, 0), strict=True)
    )
    # The patient's right is at the left edge, the front of the head or its top at the upper one.
    assert axial.shape == (7, 5)
    assert np.argwhere(axial == 1).tolist() == [[3, 0]]
    assert np.argwhere(axial == 2).tolist() == [[0, 2]]
    assert np.argwhere(coronal == 1).tolist() == [[4, 0]]
    assert np.argwhere(coronal == 3).tolist() == [[0, 2]]
    # From the side one looks towards the left: the front is at the left edge.
    assert np.argwhere(sagittal == 2).tolist() == [[4, 0]]
    assert np.argwhere(sagittal == 3).tolist() == [[0, 3]]
    assert [pixel_mm(grid, orientation, plane) for plane in PLANES] == [(2, 1), (3, 1), (3, 2)]


@pytest.mark.parametrize(("axes", "flips"), STORED[::7])
@pytest.mark.parametrize("plane", PLANES)
def test_a_cut_shows_its_voxel_and_its_width(
    plane: str, axes: tuple[int, ...], flips: tuple[bool, ...]
) -> None:
    ras = np.zeros((30, 40, 50))
    ras[12, 17, 33] = 1.0
    volume, grid = stored(ras, axes, flips)
    (voxel,) = np.argwhere(volume == 1).tolist()
    cut = cut_around(grid, voxel, plane, 12.0)
    picture = cut_of(volume, Orientation.of(grid), cut)
    assert picture.sum() == 1
    height, width = pixel_mm(grid, Orientation.of(grid), plane)
    assert picture.shape == (round(12 / height), round(12 / width))
    assert cut.size_mm == pytest.approx((12, 12), abs=3)
    (row, column), middle = np.argwhere(picture == 1)[0], np.array(picture.shape) // 2
    assert abs(row - middle[0]) <= 1
    assert abs(column - middle[1]) <= 1


def test_a_cut_near_the_edge_is_moved_in_and_a_wider_one_is_filled_with_zeros() -> None:
    volume = np.ones((10, 10, 10))
    grid = Grid(volume.shape, np.eye(4))
    near = cut_of(volume, Orientation.of(grid), cut_around(grid, (0, 9, 5), "axial", 6.0))
    assert near.shape == (6, 6)
    assert near.all()
    wide = cut_of(volume, Orientation.of(grid), cut_around(grid, (0, 9, 5), "axial", 14.0))
    assert wide.shape == (14, 14)
    assert wide.sum() == 100


@pytest.mark.parametrize(("axes", "flips"), STORED[::5])
@pytest.mark.parametrize("plane", PLANES)
def test_a_cut_of_a_box_shows_exactly_the_box(
    plane: str, axes: tuple[int, ...], flips: tuple[bool, ...]
) -> None:
    ras = np.zeros(SHAPE_RAS)
    ras[1:4, 2:6, 3:8] = 1
    volume, grid = stored(ras, axes, flips)
    at = np.argwhere(volume == 1)
    box = [slice(int(a), int(b) + 1) for a, b in zip(at.min(axis=0), at.max(axis=0), strict=True)]
    picture = cut_of(volume, Orientation.of(grid), cut_of_box(grid, at[0].tolist(), plane, box))
    assert picture.all()
    assert picture.size == {"axial": 12, "coronal": 15, "sagittal": 20}[plane]


def test_oblique_axes_have_one_world_axis_each() -> None:
    turn = np.deg2rad(44)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    assert Orientation.of(Grid((4, 4, 4), affine)).axes == (0, 1, 2)
    affine[:3, :3] = 1 / np.sqrt(3)  # no axis is nearest
    affine[0, 0] += 0.1
    assert sorted(Orientation.of(Grid((4, 4, 4), affine)).axes) == [0, 1, 2]
