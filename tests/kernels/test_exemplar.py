from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from lesionsynth.kernels.exemplar import clean_blocks, exemplar_fill

CUBE = (1.0, 1.0, 1.0)


def ball(shape, centre, radius):
    return np.linalg.norm(np.moveaxis(np.indices(shape), 0, -1) - centre, axis=-1) <= radius


def tissue(shape, seed=0, n_channels=2, sd=5.0):
    white = np.random.default_rng(seed).standard_normal((n_channels, *shape))
    smooth = np.stack([ndimage.gaussian_filter(channel, 0.6) for channel in white])
    return (100 + sd * smooth / smooth.std()).astype(np.float32)


def fill(image, region, source=None, spacing_mm=CUBE, clean=None):
    source = ~region if source is None else source
    tight = ndimage.find_objects(region.astype(int))[0]
    blocks, reach = clean_blocks(image, source if clean is None else clean, tight, spacing_mm)
    return exemplar_fill(image, region, source, spacing_mm, blocks, reach)


@pytest.mark.parametrize("radius", [3, 7])
def test_the_fill_is_as_rough_as_the_rest(radius):
    image = tissue((44, 40, 40))
    region = ball(image.shape[1:], (20, 20, 20), radius)
    hidden = np.where(region, np.float32(1e4), image)
    filled = fill(hidden, region)
    for channel in range(2):
        detail = filled[channel] - ndimage.uniform_filter(filled[channel], 3)
        assert 0.8 < detail[region].std() / detail[~region].std() < 1.15


def test_a_pattern_that_repeats_is_continued():
    """Planes of three levels in turn, of which only one copy fits; channels agree."""
    levels = np.array([0.0, 10.0, 40.0, 25.0], np.float32)
    image = np.broadcast_to(levels[np.arange(40) % 4][:, None, None], (40, 24, 24))
    image = np.stack([image, 100 - 2 * image])
    region = ball(image.shape[1:], (20, 12, 12), 5)
    filled = fill(np.where(region, np.float32(-1), image), region)
    np.testing.assert_allclose(filled, image, atol=0.5)


def test_channels_stay_correlated():
    image = tissue((40, 36, 36))
    image[1] = 300 - 2 * image[0] + tissue((40, 36, 36), seed=5, n_channels=1, sd=2.0)[0]
    region = ball(image.shape[1:], (20, 18, 18), 6)
    filled = fill(image, region)
    found = np.corrcoef(filled[:, region])[0, 1]
    assert found == pytest.approx(np.corrcoef(image[:, ~region])[0, 1], abs=0.05)


def test_there_is_no_step_to_the_surroundings():
    """Blocks come from a part that is 60 darker."""
    image = tissue((60, 30, 30), n_channels=1)
    far = np.indices(image.shape[1:])[0] > 30
    image[:, far] -= 60
    region = ball(image.shape[1:], (12, 15, 15), 5)
    filled = fill(image, region, clean=far)
    assert abs(filled[0][region].mean() - 100) < 6
    inner, outer = region & ndimage.binary_dilation(~region), ndimage.binary_dilation(region) & ~region
    assert abs(filled[0][inner].mean() - filled[0][outer].mean()) < 3


def test_blocks_come_from_near_by_where_they_can():
    image = tissue((90, 24, 24), n_channels=1)
    image[:, 50:] += 1000
    region = ball(image.shape[1:], (12, 12, 12), 3)
    tight = ndimage.find_objects(region.astype(int))[0]
    blocks, reach = clean_blocks(image, ~region, tight, CUBE)
    assert reach == [3, 3, 3]
    assert blocks.shape[:2] == (343, 1)
    assert 32 <= blocks.shape[2] <= 512
    assert blocks.max() < 1000
    clean = np.zeros_like(region)
    clean[60:] = True
    blocks, _ = clean_blocks(image, clean, tight, CUBE)
    assert blocks.min() > 1000


def test_blocks_are_clean_and_smaller_where_they_have_to_be():
    image = tissue((30, 30, 30), n_channels=1)
    clean = np.indices((30, 30, 30))[2] % 6 < 5
    image[:, ~clean] = -1e4
    blocks, reach = clean_blocks(image, clean, (slice(5, 6),) * 3, CUBE)
    assert reach == [2, 2, 2]
    assert blocks.min() > 0


@pytest.mark.parametrize(
    ("shape", "spacing_mm", "expected"),
    [
        ((30, 30, 12), (1.0, 1.0, 3.0), [3, 3, 1]),
        ((30, 30, 3), CUBE, [3, 3, 1]),
        ((30, 30, 1), CUBE, [3, 3, 0]),
    ],
)
def test_thick_and_few_slices(shape, spacing_mm, expected):
    image = tissue(shape)
    region = ball(shape, (15, 15, shape[2] // 2), 3)
    tight = ndimage.find_objects(region.astype(int))[0]
    blocks, reach = clean_blocks(image, ~region, tight, spacing_mm)
    assert reach == expected
    filled = exemplar_fill(image, region, ~region, spacing_mm, blocks, reach)
    assert np.isfinite(filled).all()
    assert 2 < filled[0][region].std() < 8


def test_without_a_clean_block_there_is_none():
    image = tissue((12, 12, 12))
    clean = np.indices((12, 12, 12)).sum(axis=0) % 2 == 0
    assert clean_blocks(image, clean, (slice(5, 6),) * 3, CUBE) is None


def test_what_is_neither_region_nor_source_is_not_read():
    image = tissue((30, 30, 30))
    region = ball((30, 30, 30), (15, 15, 15), 4)
    source = ~region & (np.indices((30, 30, 30))[0] < 18)
    other = np.where(region | source, image, np.float32(9e6))
    np.testing.assert_array_equal(
        fill(image, region, source)[:, region], fill(other, region, source)[:, region]
    )


def test_a_device_chooses_the_same_blocks(device):
    image = tissue((26, 24, 24))
    region = ball((26, 24, 24), (12, 12, 12), 4)
    blocks, reach = clean_blocks(*map(device.put, (image, ~region)), (slice(8, 17),) * 3, CUBE)
    there = exemplar_fill(*map(device.put, (image, region, ~region)), CUBE, blocks, reach)
    here = fill(image, region)
    # Sums are taken in another order. Where two blocks are as good, either may be chosen: not here.
    np.testing.assert_allclose(device.get(there), here, atol=1e-2)
