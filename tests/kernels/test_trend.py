from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from lesionsynth.kernels.trend import trend_fill

CUBE = (1.0, 1.0, 1.0)


def ball(shape, centre, radius):
    return np.linalg.norm(np.moveaxis(np.indices(shape), 0, -1) - centre, axis=-1) <= radius


def noise(shape, seed=0, n_channels=1):
    return np.random.default_rng(seed).normal(100, 10, (n_channels, *shape)).astype(np.float32)


@pytest.mark.parametrize("spacing_mm", [CUBE, (0.7, 0.7, 3.0)])
def test_a_constant_is_filled_with_the_constant(spacing_mm):
    region = ball((14, 13, 12), (7, 6, 6), 4.2)
    image = np.full((2, *region.shape), -42.5, dtype=np.float32)
    image[:, region] = np.nan
    np.testing.assert_allclose(trend_fill(image, region, ~region, spacing_mm), -42.5, rtol=1e-5)


def test_a_ramp_is_carried_through_the_region():
    shape = (20, 18, 18)
    ramp = (np.moveaxis(np.indices(shape), 0, -1) @ np.array((5.0, -3.0, 2.0)))[None].astype(np.float32)
    region = ball(shape, (9, 9, 9), 4.5)
    hollow = np.where(region, 1e6, ramp).astype(np.float32)
    error = np.abs(trend_fill(hollow, region, ~region, CUBE) - ramp)[0][region]
    assert error.max() < 0.1 * np.ptp(ramp[0][region])


def test_the_noise_of_the_sources_is_not_carried_on():
    region = ball((20, 20, 20), (10, 10, 10), 5)
    filled = trend_fill(noise(region.shape), region, ~region, CUBE)[0]
    layer = region & ~ball(region.shape, (10, 10, 10), 4)
    assert filled[region].std() < 2.0
    assert filled[layer].std() < 2.5
    assert abs(filled[region].mean() - 100) < 2


def test_nothing_outside_the_region_changes_and_excluded_voxels_are_not_used():
    image, region = noise((14, 14, 14), n_channels=2), ball((14, 14, 14), (7, 7, 7), 4)
    source = ~region & (np.indices(region.shape)[0] < 9)
    expected = trend_fill(image, region, source, CUBE)
    np.testing.assert_array_equal(expected[:, ~region], image[:, ~region])
    assert expected.dtype == np.float32
    for leak in (1e6, np.nan):
        image[:, ~source] = leak
        np.testing.assert_array_equal(trend_fill(image, region, source, CUBE)[:, region], expected[:, region])


def test_channels_are_filled_as_if_alone():
    image, region = noise((13, 13, 13), n_channels=3), ball((13, 13, 13), (6, 6, 6), 4)
    together = trend_fill(image, region, ~region, CUBE)
    for channel in range(3):
        alone = trend_fill(image[channel : channel + 1], region, ~region, CUBE)
        np.testing.assert_allclose(together[channel], alone[0], rtol=1e-5)


def test_the_range_of_the_sources_is_not_left():
    shape = (26, 20, 20)
    steep = np.exp(np.indices(shape)[0] / 3.0)[None].astype(np.float32)
    region = ball(shape, (13, 10, 10), 7)
    filled = trend_fill(steep, region, ~region & (np.indices(shape)[0] < 15), CUBE)
    assert filled[0][region].max() <= np.exp(14 / 3.0)


def test_a_large_region_is_filled_smoothly():
    """More sources than equations: the cells have to grow."""
    shape = (34, 34, 34)
    wave = (100 + 20 * np.sin(np.indices(shape)[1] / 8.0))[None].astype(np.float32)
    region = ball(shape, (17, 17, 17), 13)
    filled = trend_fill(wave + noise(shape) - 100, region, ~region, CUBE)[0]
    assert np.abs(filled - wave[0])[region].mean() < 10
    assert np.abs(np.diff(filled, axis=0)[region[1:] & region[:-1]]).max() < 5


@pytest.mark.parametrize("shape", [(15, 15, 1), (2, 15, 15)])
def test_volumes_of_few_slices(shape):
    region = ball(shape, np.array(shape) // 2, 3.5)
    image = np.full((1, *shape), 7.0, dtype=np.float32)
    np.testing.assert_allclose(trend_fill(image, region, ~region, (1.0, 1.0, 6.0)), 7.0, rtol=1e-5)


def test_a_missing_thick_slice_is_filled_from_its_neighbours():
    image = np.broadcast_to(np.arange(5, dtype=np.float32) * 10, (1, 8, 8, 5)).copy()
    region = np.zeros((8, 8, 5), bool)
    region[..., 2] = True
    np.testing.assert_allclose(
        trend_fill(image, region, ~region, (1.0, 1.0, 8.0))[0][region], 20.0, rtol=0.02
    )


def test_an_empty_region_gives_a_copy():
    image = noise((5, 5, 5))
    filled = trend_fill(image, np.zeros((5, 5, 5), bool), np.ones((5, 5, 5), bool), CUBE)
    np.testing.assert_array_equal(filled, image)
    assert filled is not image


def test_errors_say_what_is_wrong():
    image, region = noise((9, 9, 9)), ball((9, 9, 9), (4, 4, 4), 1)
    with pytest.raises(ValueError, match="both"):
        trend_fill(image, region, np.ones_like(region), CUBE)
    with pytest.raises(ValueError, match="no source"):
        trend_fill(image, region, np.zeros_like(region), CUBE)
    image[0, 4, 4, 2] = np.inf
    with pytest.raises(ValueError, match="not finite"):
        trend_fill(image, region, ~region, CUBE)


@pytest.mark.parametrize("spacing_mm", [CUBE, (0.7, 0.7, 3.0)])
def test_a_device_gives_the_same(spacing_mm, device):
    image, region = noise((14, 14, 14), n_channels=2), ball((14, 14, 14), (7, 7, 7), 4)
    source = ~region & (np.indices(region.shape)[0] < 10)
    there = trend_fill(device.put(image), device.put(region), device.put(source), spacing_mm)
    np.testing.assert_allclose(device.get(there), trend_fill(image, region, source, spacing_mm), rtol=1e-6)


def test_sources_that_only_touch_or_never_touch_the_region_do_on_a_device(device):
    image, region = noise((11, 11, 11), n_channels=2), ball((11, 11, 11), (5, 5, 5), 2)
    touching = ndimage.binary_dilation(region) & ~region
    for source in (touching, ~region & ~touching):
        there = trend_fill(device.put(image), device.put(region), device.put(source), CUBE)
        np.testing.assert_allclose(device.get(there), trend_fill(image, region, source, CUBE), rtol=1e-6)
