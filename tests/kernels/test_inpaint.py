from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from lesionsynth.kernels.inpaint import _march, fast_marching_fill, reachable

CUBE = (1.0, 1.0, 1.0)


def ball(shape, centre, radius, spacing_mm=CUBE):
    offset = (np.moveaxis(np.indices(shape), 0, -1) - centre) * spacing_mm
    return np.linalg.norm(offset, axis=-1) <= radius


def noise(shape, seed=0, n_channels=1):
    return np.random.default_rng(seed).normal(100, 10, (n_channels, *shape)).astype(np.float32)


def test_the_voxel_between_two_sources_gets_their_mean():
    image = np.array([1.0, -7.0, 3.0], dtype=np.float32).reshape(1, 3, 1, 1)
    region = np.array([False, True, False]).reshape(3, 1, 1)
    assert fast_marching_fill(image, region, ~region, CUBE)[0, 1, 0, 0] == pytest.approx(2.0)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_front_takes_the_distance_in_voxel_edges(axis):
    """Sources on one face of a block: every layer is one edge of that axis farther."""
    edge = np.array([1.0, 1.5, 4.0])
    state = np.full((5, 5, 5), 2, dtype=np.uint8)
    np.moveaxis(state, axis, 0)[0] = 1
    state = np.pad(state, 1)
    time, order = _march(state.ravel(), 2, edge, np.array([49, 7, 1]), np.inf)
    layers = np.moveaxis(time.reshape(7, 7, 7)[1:-1, 1:-1, 1:-1], axis, 0)
    np.testing.assert_allclose(layers, np.broadcast_to((np.arange(5) * edge[axis])[:, None, None], (5, 5, 5)))
    assert (np.diff(time[order]) >= 0).all()
    assert order.size == 100


def test_the_front_goes_straight_between_the_axes():
    """Upwind scheme by hand: from sources at 0 beside and above, T^2 + T^2 = 1."""
    state = np.zeros((4, 4, 3), dtype=np.uint8)
    state[1, 2, 1] = state[2, 1, 1] = 1
    state[2, 2, 1] = 2
    time, _ = _march(state.ravel(), 2, np.ones(3), np.array([12, 3, 1]), np.inf)
    assert time.reshape(4, 4, 3)[2, 2, 1] == pytest.approx(np.sqrt(0.5))


def test_a_constant_is_filled_with_the_constant():
    region = ball((14, 13, 12), (7, 6, 6), 4.2)
    image = np.full((1, *region.shape), 42.5, dtype=np.float32)
    image[:, region] = -1
    np.testing.assert_allclose(fast_marching_fill(image, region, ~region, CUBE), 42.5, rtol=1e-6)


@pytest.mark.parametrize("spacing_mm", [CUBE, (1.0, 1.2, 3.0), (0.5, 2.0, 0.5)])
@pytest.mark.parametrize("slopes", [(10.0, 0.0, 0.0), (0.0, 0.0, -8.0), (3.0, -5.0, 4.0)])
def test_a_ramp_is_carried_through_the_region(spacing_mm, slopes):
    shape = (18, 17, 16)
    ramp = (np.moveaxis(np.indices(shape), 0, -1) @ np.array(slopes))[None].astype(np.float32)
    region = np.zeros(shape, bool)
    region[5:12, 5:12, 5:11] = True
    hollow = ramp.copy()
    hollow[:, region] = 1e6
    filled = fast_marching_fill(hollow, region, ~region, spacing_mm)
    spread = np.ptp(ramp[0][region])
    assert np.abs(filled - ramp)[0][region].max() < 0.02 * spread


def test_nothing_outside_the_region_changes_and_the_inputs_stay():
    image, region = noise((12, 12, 12), n_channels=2), ball((12, 12, 12), (6, 6, 6), 3)
    before = image.copy()
    filled = fast_marching_fill(image, region, ~region, CUBE)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(filled[:, ~region], before[:, ~region])
    assert filled.dtype == np.float32
    assert (filled[:, region] != before[:, region]).all()


def test_what_is_neither_source_nor_region_is_never_used():
    image, region = noise((16, 16, 16)), ball((16, 16, 16), (7, 8, 8), 4)
    excluded = np.zeros_like(region)
    excluded[10:14, 4:12, 4:12] = True
    excluded &= ~region
    source = ~region & ~excluded
    expected = fast_marching_fill(image, region, source, CUBE)
    for leak in (1e6, np.nan):
        image[:, excluded] = leak
        image[:, region] = leak
        filled = fast_marching_fill(image, region, source, CUBE)
        np.testing.assert_array_equal(filled[:, region], expected[:, region])


def test_a_source_behind_a_barrier_is_not_used():
    """Only voxels on this side of a wall of one voxel can feed the region, however near the others are."""
    image = np.full((1, 12, 9, 9), 10.0, dtype=np.float32)
    image[:, 7:] = np.nan
    region = np.zeros((12, 9, 9), bool)
    region[3:6, 3:6, 3:6] = True
    source = ~region
    source[6] = False
    assert fast_marching_fill(image, region, source, CUBE)[0][region].max() == pytest.approx(10.0)


def test_channels_are_filled_as_if_alone():
    image, region = noise((13, 13, 13), n_channels=3), ball((13, 13, 13), (6, 6, 6), 4)
    together = fast_marching_fill(image, region, ~region, (1.0, 1.0, 2.0))
    for channel in range(3):
        alone = fast_marching_fill(image[channel : channel + 1], region, ~region, (1.0, 1.0, 2.0))
        np.testing.assert_array_equal(together[channel], alone[0])


def test_the_range_of_the_sources_is_not_left():
    """A slope on one side of the region does not go on beyond what it has reached."""
    shape = (24, 12, 12)
    slope = (np.indices(shape)[0] * 10.0)[None].astype(np.float32)
    region = np.zeros(shape, bool)
    region[10:20, 3:9, 3:9] = True
    source = ~region & (np.indices(shape)[0] < 11)
    filled = fast_marching_fill(slope, region, source, CUBE)[0][region]
    assert filled.min() >= 70
    assert 95 < filled.max() <= 100


def test_distances_count_in_mm():
    """Sources of 0 in the same slice are up to 4 mm away, those of 100 in the next slices 6 mm."""
    image = np.full((1, 9, 5, 3), 100.0, dtype=np.float32)
    image[..., 1] = 0.0
    region = np.zeros((9, 5, 3), bool)
    region[1:8, :, 1] = True
    assert fast_marching_fill(image, region, ~region, (1.0, 1.0, 6.0))[0, 4, 2, 1] < 30
    assert fast_marching_fill(image, region, ~region, (6.0, 1.0, 1.0))[0, 4, 2, 1] > 70


def test_noise_is_averaged_not_amplified():
    image, region = noise((24, 24, 24)), ball((24, 24, 24), (12, 12, 12), 7)
    filled = fast_marching_fill(image, region, ~region, CUBE)
    assert filled[0][region].std() < 6
    assert abs(filled[0][region].mean() - 100) < 3


def test_no_creases_are_left_where_fronts_meet():
    """A corner of four levels: neighbouring voxels of the fill differ little against the levels."""
    shape = (24, 24, 12)
    i, j, _ = np.indices(shape)
    image = (100.0 * (i > 11) + 40.0 * (j > 11))[None].astype(np.float32)
    region = np.zeros(shape, bool)
    region[5:19, 5:19, 2:10] = True
    filled = fast_marching_fill(image, region, ~region, CUBE)[0, 9:15, 9:15, 5]
    assert np.abs(np.diff(filled, axis=0)).max() < 35
    assert np.abs(np.diff(filled, axis=1)).max() < 35


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_flips_commute(axis):
    shape, spacing_mm = (15, 14, 13), (1.0, 1.3, 2.0)
    image = noise(shape, n_channels=2)
    region = ball(shape, (6, 7, 7), 4) | ball(shape, (9, 5, 4), 2.5)
    source = ~region & (noise(shape, seed=1)[0] > 85)
    region = reachable(region, source)
    flipped = fast_marching_fill(
        np.flip(image, axis + 1), np.flip(region, axis), np.flip(source, axis), spacing_mm
    )
    expected = fast_marching_fill(image, region, source, spacing_mm)
    np.testing.assert_allclose(np.flip(flipped, axis + 1), expected, rtol=1e-4)


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 1, 0), (1, 2, 0)])
def test_axes_can_be_exchanged_with_their_spacing(order):
    shape, spacing_mm = (15, 14, 13), (1.0, 1.3, 2.0)
    image, region = noise(shape), ball(shape, (6, 7, 7), 4)
    moved = fast_marching_fill(
        image.transpose(0, *(1 + np.array(order))),
        region.transpose(order),
        ~region.transpose(order),
        [spacing_mm[axis] for axis in order],
    )
    expected = fast_marching_fill(image, region, ~region, spacing_mm)
    np.testing.assert_allclose(moved[0], expected[0].transpose(order), rtol=1e-4)


def test_the_same_input_gives_the_same_bits():
    image, region = noise((14, 14, 14)), ball((14, 14, 14), (7, 7, 7), 4)
    first = fast_marching_fill(image, region, ~region, CUBE)
    np.testing.assert_array_equal(first, fast_marching_fill(image.copy(), region, ~region, CUBE))


def test_a_crop_with_the_sources_around_gives_the_same():
    image, region = noise((30, 30, 30)), ball((30, 30, 30), (14, 15, 15), 4)
    box = (slice(6, 24),) * 3
    whole = fast_marching_fill(image, region, ~region, CUBE)
    crop = fast_marching_fill(image[(slice(None), *box)], region[box], ~region[box], CUBE)
    np.testing.assert_array_equal(whole[(slice(None), *box)], crop)


@pytest.mark.parametrize("corner", [(0, 0, 0), (11, 10, 9), (0, 10, 4)])
def test_a_region_at_the_border_of_the_volume(corner):
    shape = (12, 11, 10)
    region = ball(shape, corner, 3.5)
    ramp = (np.indices(shape)[0] * 5.0 + 50)[None].astype(np.float32)
    filled = fast_marching_fill(np.where(region, 1e5, ramp).astype(np.float32), region, ~region, CUBE)
    assert np.abs(filled - ramp).max() < 8


@pytest.mark.parametrize("shape", [(15, 15, 1), (15, 1, 15), (2, 15, 15), (15, 15, 3)])
@pytest.mark.parametrize("spacing_mm", [CUBE, (1.0, 1.0, 6.0)])
def test_volumes_of_few_slices(shape, spacing_mm):
    region = ball(shape, np.array(shape) // 2, 3.5)
    assert not region.all()
    image = np.full((1, *shape), 7.0, dtype=np.float32)
    image[:, region] = np.nan
    np.testing.assert_allclose(fast_marching_fill(image, region, ~region, spacing_mm), 7.0, rtol=1e-6)


def test_a_missing_thick_slice_is_filled_from_its_neighbours():
    """The neighbours are farther away than the radius."""
    image = np.broadcast_to(np.arange(5, dtype=np.float32) * 10, (1, 8, 8, 5)).copy()
    region = np.zeros((8, 8, 5), bool)
    region[..., 2] = True
    filled = fast_marching_fill(image, region, ~region, (1.0, 1.0, 8.0), radius_vox=3.0)
    np.testing.assert_allclose(filled[0][region], 20.0, rtol=1e-5)


def test_several_regions_in_one_call():
    image = noise((30, 12, 12))
    left, right = ball(image.shape[1:], (6, 6, 6), 3), ball(image.shape[1:], (23, 6, 6), 3)
    both = fast_marching_fill(image, left | right, ~(left | right), CUBE)
    np.testing.assert_allclose(
        both[0][left], fast_marching_fill(image, left, ~left, CUBE)[0][left], rtol=0.02
    )


def test_an_empty_region_gives_a_copy():
    image = noise((5, 5, 5))
    filled = fast_marching_fill(image, np.zeros((5, 5, 5), bool), np.ones((5, 5, 5), bool), CUBE)
    np.testing.assert_array_equal(filled, image)
    assert filled is not image


def test_reachable_follows_faces_not_corners():
    region = np.zeros((9, 9, 9), bool)
    region[2:4, 2:4, 2:4] = True  # touches a source
    region[4, 4, 4] = True  # joined to it by a corner
    region[6:8, 6:8, 6:8] = True  # walled in
    source = np.zeros_like(region)
    source[1, 2, 2] = True
    expected = np.zeros_like(region)
    expected[2:4, 2:4, 2:4] = True
    np.testing.assert_array_equal(reachable(region, source), expected)
    assert not reachable(region, np.zeros_like(region)).any()
    assert not reachable(np.zeros_like(region), source).any()


def test_reachable_on_a_device(device):
    region, source = ball((14, 14, 14), (7, 7, 7), 4), noise((14, 14, 14))[0] > 110
    region &= ~source & (noise((14, 14, 14), seed=1)[0] > 98)
    expected = reachable(region, source)
    assert 0 < expected.sum() < region.sum()
    np.testing.assert_array_equal(device.get(reachable(device.put(region), device.put(source))), expected)


def test_what_cannot_be_reached_is_an_error_that_says_how_much():
    region = np.zeros((9, 9, 9), bool)
    region[2:4, 2:4, 2:4] = region[6, 6, 6:8] = True
    source = ndimage.binary_dilation(region) & ~region
    source[5:] = False
    with pytest.raises(ValueError, match="2 of 10 voxels"):
        fast_marching_fill(noise((9, 9, 9)), region, source, CUBE)


def test_a_region_that_is_also_source_is_an_error():
    region = ball((7, 7, 7), (3, 3, 3), 1)
    with pytest.raises(ValueError, match="both"):
        fast_marching_fill(noise((7, 7, 7)), region, np.ones_like(region), CUBE)


def test_a_source_that_is_not_finite_is_an_error():
    image, region = noise((9, 9, 9)), ball((9, 9, 9), (4, 4, 4), 2)
    image[0, 4, 4, 1] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        fast_marching_fill(image, region, ~region, CUBE)
