from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from lesionsynth import nifti
from lesionsynth.domain.case import CaseFiles
from lesionsynth.domain.grid import Grid
from lesionsynth.host import LoadedCase
from lesionsynth.kernels.tissue import OUTSIDE, WHITE
from tests.editing.conftest import TABLE

SHAPE = (60, 66, 54)
SPACING = (2.0, 2.0, 2.5)


def head(turn_degrees: float, shift_mm: float, flipped: bool = False) -> LoadedCase:
    """A symmetric head with structures, turned in its axial plane and moved to the side."""
    affine = np.diag([-SPACING[0] if flipped else SPACING[0], *SPACING[1:], 1.0])
    index = np.indices(SHAPE).astype(float)
    x, y, z = ((index[a] - (SHAPE[a] - 1) / 2) * abs(affine[a, a]) for a in range(3))
    angle = np.radians(turn_degrees)
    u, v = (
        (x - shift_mm) * np.cos(angle) + y * np.sin(angle),
        y * np.cos(angle) - (x - shift_mm) * np.sin(angle),
    )
    brain = (u / 48) ** 2 + (v / 56) ** 2 + (z / 55) ** 2 <= 1
    values = np.where(brain, 100.0, 0.0)
    for centre, level in (((20, 10, 0), -60), ((30, -25, 10), 70), ((12, -5, -20), 50)):
        for side in (-1, 1):
            near = (u - side * centre[0]) ** 2 + (v - centre[1]) ** 2 + (z - centre[2]) ** 2
            values += brain * level * np.exp(-near / (2 * 7.0**2))
    values += brain * ndimage.gaussian_filter(np.random.default_rng(0).normal(0, 6, SHAPE), 0.6)
    grid = Grid(SHAPE, affine)
    tissue = np.where(brain, WHITE, OUTSIDE).astype(np.uint8)
    label = np.zeros(SHAPE, np.uint16)
    image = nifti.new(grid, values.astype(np.float32))
    files = CaseFiles("host", "person", (), nifti.Path("none"))
    return LoadedCase(files, TABLE, (image,), nifti.new(grid, label.astype(np.uint8)), label, tissue, "map")


@pytest.mark.parametrize(
    ("turn", "shift_mm", "flipped"), [(0.0, 0.0, False), (6.0, 5.0, False), (-4.0, 3.0, True)]
)
def test_a_turned_and_shifted_head_meets_its_other_side(turn: float, shift_mm: float, flipped: bool) -> None:
    host = head(turn, shift_mm, flipped)
    found = host.mirror_matrix
    assert found is not None
    # The exact reflection, in voxels.
    normal = np.array([np.cos(np.radians(turn)), np.sin(np.radians(turn)), 0.0])
    scale = np.abs(np.diag(host.grid.affine)[:3])
    centre = (np.array(SHAPE) - 1) / 2
    for point in np.argwhere(host.tissue == WHITE)[::997]:
        at = (point - centre) * scale
        exact = at - 2 * (at @ normal - shift_mm * normal[0]) * normal
        got = (found[:3, :3] @ point + found[:3, 3] - centre) * scale
        assert np.linalg.norm(got - exact) < 0.6


def test_it_is_found_once_a_host() -> None:
    host = head(0.0, 0.0)
    assert host.mirror_matrix is host.mirror_matrix


def test_there_is_none_without_tissue_classes_or_without_symmetry() -> None:
    host = head(0.0, 0.0)
    assert replace(host, tissue_kind="mask").mirror_matrix is None
    assert replace(host, tissue=np.zeros(SHAPE, np.uint8)).mirror_matrix is None
    half = np.where(np.indices(SHAPE)[0] < 30, host.images[0].values(), 0)
    sided = nifti.new(host.grid, (half * (1 + np.indices(SHAPE)[1] / 20)).astype(np.float32))
    assert replace(host, images=(sided,)).mirror_matrix is None
