from __future__ import annotations

import numpy as np
import pytest

from lesionsynth.domain.grid import Grid
from lesionsynth.domain.likelihood import LikelihoodMap
from lesionsynth.errors import NoRoomError
from lesionsynth.kernels.tissue import FLUID, GREY, WHITE
from lesionsynth.likelihood.fit import ORGAN_BINS
from lesionsynth.likelihood.over_host import density_over
from tests.bank.making import make_case

SHAPE = (8, 9, 10)


def make_map(density=None, affine=None, kind="grid"):
    density = np.ones(SHAPE) if density is None else density
    grid = Grid(density.shape, np.eye(4) if affine is None else affine)
    return LikelihoodMap((density / density.sum()).astype(np.float32), grid, kind, ("A",))


def as_volume(host, likelihood, floor=0.0, registration=None):
    """The density over the host as a volume that sums to 1."""
    voxels, cumulated = density_over(host, likelihood, floor, registration)
    volume = np.zeros(host.grid.shape, order="F")
    volume.reshape(-1, order="F")[voxels] = np.diff(cumulated, prepend=0.0)
    return volume


def random_density(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).random(shape)


def test_the_density_is_the_map_within_the_tissue():
    tissue = np.full(SHAPE, WHITE, np.uint8)
    tissue[:3], tissue[3] = FLUID, GREY
    label = np.zeros(SHAPE, np.uint16)
    label[5, :, 4] = 4  # protected
    label[6, 2:4, 2:4] = 1  # a lesion is no obstacle to a centre
    density = random_density()
    found = as_volume(make_case(label, tissue=tissue), make_map(density))
    allowed = (tissue == WHITE) & (label != 4)
    np.testing.assert_array_equal(found > 0, allowed)
    np.testing.assert_allclose(found, np.where(allowed, density, 0) / density[allowed].sum(), atol=1e-7)


def test_voxels_are_in_the_order_of_the_file_and_cumulated_ends_at_one():
    tissue = np.zeros(SHAPE, np.uint8)
    tissue[2:4, 5, 6:8] = WHITE
    case = make_case(np.zeros(SHAPE), tissue=np.asfortranarray(tissue))
    voxels, cumulated = density_over(case, make_map(np.asfortranarray(random_density())), 0.1, None)
    assert voxels.tolist() == [
        2 + 8 * (5 + 9 * 6),
        3 + 8 * (5 + 9 * 6),
        2 + 8 * (5 + 9 * 7),
        3 + 8 * (5 + 9 * 7),
    ]
    assert cumulated[-1] == 1.0
    assert (np.diff(cumulated) > 0).all()


def test_the_memory_layout_of_the_map_does_not_matter():
    case = make_case(np.zeros(SHAPE))
    density = random_density()
    np.testing.assert_array_equal(
        as_volume(case, make_map(density)), as_volume(case, make_map(np.asfortranarray(density)))
    )


@pytest.mark.parametrize("floor", [0.05, 0.5, 1.0])
def test_the_floor_makes_every_tissue_voxel_possible(floor):
    density = np.zeros(SHAPE)
    density[2, 3, 4] = 1.0
    found = as_volume(make_case(np.zeros(SHAPE)), make_map(density), floor)
    even = floor / np.prod(SHAPE)
    assert found.min() == pytest.approx(even, rel=1e-6)
    assert found[2, 3, 4] == pytest.approx(1 - floor + even)


def test_without_a_floor_what_the_map_excludes_stays_excluded():
    density = np.zeros(SHAPE)
    density[2:4] = 1.0
    found = as_volume(make_case(np.zeros(SHAPE)), make_map(density))
    assert not found[4:].any()
    assert not found[:2].any()


def test_a_map_that_is_zero_on_all_of_the_tissue_gives_an_even_density():
    density, tissue = np.zeros(SHAPE), np.zeros(SHAPE, np.uint8)
    density[0], tissue[4:6] = 1.0, WHITE
    found = as_volume(make_case(np.zeros(SHAPE), tissue=tissue), make_map(density))
    np.testing.assert_allclose(found[4:6], 1 / (2 * 9 * 10))


def test_a_host_without_room_is_an_error_that_names_it():
    label = np.full(SHAPE, 4)
    with pytest.raises(NoRoomError, match="case a: has no tissue"):
        density_over(make_case(label), make_map(), 0.05, None)
    with pytest.raises(NoRoomError):
        density_over(make_case(np.zeros(SHAPE), tissue=np.zeros(SHAPE, np.uint8)), make_map(), 0.05, None)


def flipped_along_i(host_shape, affine):
    """Affine of the same world stored from the other end of the first axis."""
    other = affine.copy()
    other[:3, 0] *= -1
    other[:3, 3] = affine[:3, 3] + affine[:3, 0] * (host_shape[0] - 1)
    return other


@pytest.mark.parametrize("kind", ["grid", "map"])
def test_a_host_flipped_in_storage_gets_the_same_world_density(kind):
    density, affine = random_density(), np.diag([2.0, 1.5, 3.0, 1.0])
    likelihood = make_map(density, affine, kind)
    one = as_volume(make_case(np.zeros(SHAPE), affine=affine), likelihood, 0.05)
    two = as_volume(make_case(np.zeros(SHAPE), affine=flipped_along_i(SHAPE, affine)), likelihood, 0.05)
    np.testing.assert_allclose(two[::-1], one, atol=1e-7)


def test_an_organ_map_follows_the_organ_whatever_storage_size_and_place():
    rng = np.random.default_rng(1)
    organ_map = make_map(rng.random((ORGAN_BINS,) * 3), kind="organ")
    tissue = np.zeros((14, 16, 18), np.uint8)
    tissue[2:12, 3:13, 4:16] = WHITE
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    blank = np.zeros(tissue.shape)
    one = as_volume(make_case(blank, tissue=tissue, affine=affine), organ_map)
    two = as_volume(
        make_case(blank, tissue=tissue[::-1], affine=flipped_along_i(tissue.shape, affine)), organ_map
    )
    np.testing.assert_allclose(two[::-1], one, atol=1e-12)
    turned = make_case(
        blank.transpose(2, 0, 1), tissue=tissue.transpose(2, 0, 1), affine=affine[:, [2, 0, 1, 3]]
    )
    np.testing.assert_allclose(as_volume(turned, organ_map).transpose(1, 2, 0), one, atol=1e-12)
    shifted = make_case(blank, tissue=np.roll(tissue, (1, 2, -3), (0, 1, 2)), affine=3 * affine)
    np.testing.assert_allclose(
        np.roll(as_volume(shifted, organ_map), (-1, -2, 3), (0, 1, 2)), one, atol=1e-12
    )


def test_an_organ_map_at_its_own_resolution_is_copied():
    rng = np.random.default_rng(1)
    density = rng.random((ORGAN_BINS,) * 3)
    case = make_case(np.zeros((ORGAN_BINS,) * 3))
    np.testing.assert_allclose(
        as_volume(case, make_map(density, kind="organ")), density / density.sum(), atol=1e-8
    )


def test_a_map_on_another_grid_is_read_in_the_world_and_zero_beyond():
    density = np.zeros((4, 4, 4))
    density[1, 2, 3] = 1.0
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    found = as_volume(make_case(np.zeros(SHAPE)), make_map(density, affine, "map"))
    assert np.unravel_index(found.argmax(), SHAPE) == (2, 4, 6)
    assert not found[:, :, 8:].any()
    assert found[3, 4, 6] == pytest.approx(found[2, 4, 6] / 2)


def test_a_registration_maps_the_reference_to_the_host():
    density = np.zeros(SHAPE)
    density[2, 3, 4] = 1.0
    moved = np.eye(4)
    moved[:3, 3] = (3.0, 1.0, -2.0)
    found = as_volume(make_case(np.zeros(SHAPE)), make_map(density, kind="affine"), 0.0, moved)
    assert np.argwhere(found > 1e-6).tolist() == [[5, 4, 2]]
