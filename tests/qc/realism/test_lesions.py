"""What is told of a single lesion."""

from __future__ import annotations

import numpy as np

from lesionsynth.domain.grid import Grid
from lesionsynth.qc.realism.lesions import position

_WHOLE = (slice(0, 10), slice(0, 20), slice(0, 30))


def test_positions_run_from_left_back_and_below_whatever_the_orientation() -> None:
    straight = position(Grid((10, 20, 30), np.eye(4)), _WHOLE, (1, 2, 3))
    assert list(straight.values()) == [0.15, 2.5 / 20, 3.5 / 30]
    turned = np.array([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]])
    assert list(position(Grid((10, 20, 30), turned), _WHOLE, (1, 2, 3)).values()) == [
        1 - 2.5 / 20,
        0.15,
        1 - 3.5 / 30,
    ]
    assert position(Grid((10, 20, 30), np.eye(4)), None, (1, 2, 3)) == {}


def test_each_axis_of_an_oblique_grid_has_a_position_of_its_own() -> None:
    affine = np.eye(4)
    affine[:3, :3] = np.array([[2, -1, 2], [2, 2, -1], [-1, 2, 2]]) / 3.0  # two world axes prefer one of it
    grid = Grid((10, 20, 30), affine)
    here = np.array(list(position(grid, _WHOLE, (1, 2, 3)).values()))
    moved = []
    for axis in range(3):
        at = [1, 2, 3]
        at[axis] += 4
        moved.append(np.array(list(position(grid, _WHOLE, at).values())) != here)
    np.testing.assert_array_equal(np.sum(moved, axis=0), 1)
    np.testing.assert_array_equal(np.sum(moved, axis=1), 1)
