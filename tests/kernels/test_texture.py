from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from lesionsynth.kernels.inpaint import fast_marching_fill
from lesionsynth.kernels.texture import clone_texture
from lesionsynth.kernels.trend import trend_fill

CUBE = (1.0, 1.0, 1.0)
LESION = 1e4


def trend(image, region, source):
    return trend_fill(image, region, source, CUBE)


def nothing(image, region, source):
    """A fill that puts zeros, so that all of the patch is texture."""
    return np.where(region, 0, image).astype(np.float32)


def ball(shape, centre, radius):
    return np.linalg.norm(np.moveaxis(np.indices(shape), 0, -1) - centre, axis=-1) <= radius


def tissue(shape, seed=0, n_channels=1, sd=5.0):
    """A ramp with texture that is correlated over about a voxel."""
    white = np.random.default_rng(seed).standard_normal((n_channels, *shape))
    smooth = np.stack([ndimage.gaussian_filter(channel, 0.6) for channel in white])
    ramp = np.indices(shape)[0] * 0.5 + 100
    return (ramp + sd * smooth / smooth.std()).astype(np.float32)


def high_pass_sd(channel, mask):
    return (channel - ndimage.uniform_filter(channel, 3))[mask].std()


def clone(image, region, clean, fill=trend, seed=0, spacing_mm=CUBE, **options):
    """Fill and texture; what lies in the region must not matter."""
    image = np.where(region, np.float32(LESION), image)
    filled = fill(image, region, ~region)
    textured, pieces = clone_texture(
        image, filled, region, clean, spacing_mm, fill, np.random.default_rng(seed), **options
    )
    np.testing.assert_array_equal(textured[:, ~region], image[:, ~region])
    return textured, filled, pieces


@pytest.mark.parametrize("radius", [3, 6])
def test_texture_is_as_rough_as_the_surroundings(radius):
    image = tissue((40, 36, 36), n_channels=2)
    region = ball(image.shape[1:], (18, 18, 18), radius)
    results = [clone(image, region, ~region, seed=seed) for seed in range(8)]
    assert all(pieces == {"mirror": 0, "shift": 1, "noise": 0, "none": 0} for _, _, pieces in results)
    for channel in range(2):
        natural = high_pass_sd(image[channel], ~region)
        smooth = np.mean([high_pass_sd(filled[channel], region) for _, filled, _ in results])
        rough = np.mean([high_pass_sd(textured[channel], region) for textured, _, _ in results])
        assert smooth < 0.7 * natural
        assert 0.87 < rough / natural < 1.15


def test_the_outermost_layer_keeps_its_mean():
    image = tissue((40, 36, 36), n_channels=2)
    region = ball(image.shape[1:], (18, 18, 18), 5)
    # Of another patch, part of the ring lies beyond the volume.
    textured, filled, _ = clone(image, region, ~region, seed=1)
    layer = region & ndimage.binary_dilation(~region)
    np.testing.assert_allclose(textured[:, layer].mean(axis=1), filled[:, layer].mean(axis=1), atol=1e-3)


def test_where_there_is_no_texture_none_is_added():
    """What the fill can tell of the patch is not texture: a slope must not come in twice."""
    shape = (40, 30, 30)
    slope = (np.indices(shape)[0] * 6.0 + np.indices(shape)[1] * 3.0)[None].astype(np.float32)
    region = ball(shape, (18, 15, 15), 4)
    textured, _, pieces = clone(slope, region, ~region)
    assert pieces["shift"] == 1
    assert np.abs(textured - slope)[0][region].max() < 6


def find_window(image, pattern, mask):
    """Offsets of all places where `image` looks like `pattern` in `mask`, up to a constant."""
    index = np.argwhere(mask)
    wanted = pattern[mask] - pattern[mask].mean()
    found = []
    for offset in np.ndindex(*(n - s + 1 for n, s in zip(image.shape, mask.shape, strict=True))):
        there = image[tuple((index + offset).T)]
        if np.abs(there - there.mean() - wanted).max() < 1e-2:
            found.append(offset)
    return found


def test_the_texture_is_a_clean_piece_of_the_same_image():
    image = tissue((22, 18, 18))
    region = ball(image.shape[1:], (10, 9, 9), 2)
    clean = ~region & (np.indices(region.shape)[0] < 20)
    textured, _, pieces = clone(image, region, clean, fill=nothing)
    box = (slice(8, 13), slice(7, 12), slice(7, 12))
    (place,) = find_window(image[0], textured[0][box], region[box])
    assert pieces["shift"] == 1
    moved = np.argwhere(region[box]) + place
    assert clean[tuple(moved.T)].all()


@pytest.mark.parametrize("axis", [0, 2])
def test_the_mirrored_side_comes_first(axis):
    """Texture in one half only, so that what is cloned tells where it is from."""
    image = np.full((1, 32, 32, 32), 100, dtype=np.float32)
    half = [slice(None)] * 4
    half[axis + 1] = slice(16, None)
    image[tuple(half)] = tissue((32, 32, 32))[tuple(half)]
    centre = [16, 16, 16]
    centre[axis] = 6
    region = ball((32, 32, 32), centre, 2.5)
    mirrored = [clone(image, region, ~region, mirror_axis=axis, seed=seed) for seed in range(4)]
    assert all(pieces == {"mirror": 1, "shift": 0, "noise": 0, "none": 0} for _, _, pieces in mirrored)
    assert np.median([textured[0][region].std() for textured, _, _ in mirrored]) > 2


def test_where_the_mirrored_side_is_not_clean_another_place_serves():
    image = tissue((48, 24, 24))
    region = ball(image.shape[1:], (6, 12, 12), 2.5)
    # Nothing within reach of the mirrored ball; the centre of mass stays in the middle.
    i, j, _ = np.indices(region.shape)
    clean = ~region & ((i < 14) | (i >= 34)) & ~((i >= 24) & (j % 4 == 0))
    textured, filled, pieces = clone(image, region, clean, mirror_axis=0)
    assert pieces == {"mirror": 0, "shift": 1, "noise": 0, "none": 0}
    assert (textured - filled)[0][region].std() > 2


def test_unclean_tissue_is_never_cloned():
    image = tissue((30, 30, 30))
    region = ball(image.shape[1:], (15, 15, 15), 4)
    other = np.random.default_rng(1).random(region.shape) < 0.004
    other &= ~ndimage.binary_dilation(region, iterations=4)
    image[:, other] = LESION
    textured, _, pieces = clone(image, region, ~region & ~other)
    assert textured[0][region].max() < 200
    assert pieces["noise"] == pieces["none"] == 0


def test_a_region_without_a_place_as_a_whole_is_split():
    image = tissue((54, 34, 34), n_channels=2)
    region = ball(image.shape[1:], (20, 17, 17), 12)
    slab = np.indices(region.shape)[0] >= 42
    textured, _, pieces = clone(image, region, slab, seed=4)
    assert pieces["shift"] > 3
    assert pieces["noise"] == pieces["none"] == 0
    inner = ball(image.shape[1:], (20, 17, 17), 11)
    for channel in range(2):
        natural = high_pass_sd(image[channel], ~region)
        assert 0.87 < high_pass_sd(textured[channel], inner) / natural < 1.15
        # No seam: every plane is as rough as the rest, wherever the pieces were cut.
        detail = textured[channel] - ndimage.uniform_filter(textured[channel], 3)
        for axis, centre in enumerate((20, 17, 17)):
            for plane in range(centre - 8, centre + 9):
                rough = detail.take(plane, axis)[inner.take(plane, axis)].std()
                assert 0.75 < rough / natural < 1.3


def test_cross_fading_keeps_the_variance():
    image = np.random.default_rng(0).normal(0, 5, (1, 54, 34, 34)).astype(np.float32)
    region = ball(image.shape[1:], (20, 17, 17), 12)
    textured, _, pieces = clone(image, region, np.indices(region.shape)[0] >= 42, fill=nothing)
    assert pieces["shift"] > 3
    assert textured[0][region].std() == pytest.approx(5, rel=0.03)


def test_texture_does_not_fade_where_pieces_meet():
    """Texture that is correlated over some voxels is small at the border of a patch."""
    white = np.random.default_rng(0).standard_normal((54, 40, 40))
    smooth = ndimage.gaussian_filter(white, 1.0)
    image = (100 + 5 * smooth / smooth.std())[None].astype(np.float32)
    region, inner = (ball(white.shape, (20, 20, 20), radius) for radius in (14, 12))
    slab = np.indices(region.shape)[0] >= 39
    results = [clone(image, region, slab, seed=seed) for seed in range(3)]
    assert all(pieces["shift"] > 3 for _, _, pieces in results)
    assert np.mean([textured[0][inner].std() for textured, _, _ in results]) == pytest.approx(5, rel=0.1)


def test_a_place_with_too_little_of_its_ring_is_not_used():
    """A slab as thick as the ball holds 84 % of its ring, a bar as thick as the ball 68 %."""
    image = tissue((56, 34, 34))
    region = ball(image.shape[1:], (8, 17, 17), 4)
    near = ball(image.shape[1:], (8, 17, 17), 8) & ~region
    i, j, _ = np.indices(region.shape)
    slabs = (i % 12 >= 3) & (i >= 17)
    _, _, pieces = clone(image, region, near | slabs)
    assert sum(pieces.values()) == 1
    _, _, pieces = clone(image, region, near | (slabs & (j % 12 >= 3)))
    assert sum(pieces.values()) > 1


def test_noise_is_the_last_resort():
    image = tissue((30, 30, 30), n_channels=2)
    region = ball(image.shape[1:], (15, 15, 15), 6)
    shell = ball(image.shape[1:], (15, 15, 15), 8) & ~region
    textured, filled, pieces = clone(image, region, shell)
    assert pieces["noise"] > 1
    assert pieces["mirror"] == pieces["shift"] == pieces["none"] == 0
    detail = textured - filled
    step = np.abs(np.diff(detail, axis=1))[:, region[1:] & region[:-1]].mean(axis=1)
    natural = np.abs(np.diff(image, axis=1)).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(step, natural, rtol=0.2)
    correlation = np.corrcoef(detail[0][region], detail[1][region])[0, 1]
    assert abs(correlation) < 0.15


def test_without_clean_tissue_the_fill_stays_as_it_is():
    image = tissue((14, 14, 14))
    region = ball(image.shape[1:], (7, 7, 7), 3)
    textured, filled, pieces = clone(image, region, np.zeros_like(region))
    np.testing.assert_array_equal(textured, filled)
    assert pieces["none"] > 0
    assert pieces["noise"] == 0


@pytest.mark.parametrize(("rougher", "kept"), [(1.1, 1.1), (1.35, 1.0), (3.0, 2.1)])
def test_texture_from_rougher_tissue_is_scaled_down_within_limits(rougher, kept):
    image = tissue((60, 30, 30))
    far = np.indices(image.shape[1:])[0] > 26
    image = np.where(far, 130 + rougher * (image - 130), image).astype(np.float32)
    region = ball(image.shape[1:], (10, 15, 15), 5)
    near = ball(image.shape[1:], (10, 15, 15), 9) & ~region
    textured, _, pieces = clone(image, region, far | near)
    assert pieces["shift"] == 1
    inner = ball(image.shape[1:], (10, 15, 15), 4)
    natural = high_pass_sd(image[0], ~region & ~ndimage.binary_dilation(far, iterations=2))
    assert high_pass_sd(textured[0], inner) / natural == pytest.approx(kept, rel=0.2)


def test_every_component_is_textured_on_its_own():
    image = tissue((40, 24, 24))
    left, right = ball(image.shape[1:], (9, 12, 12), 3), ball(image.shape[1:], (30, 12, 12), 3)
    textured, filled, pieces = clone(image, left | right, ~(left | right))
    assert pieces["shift"] == 2
    for region in (left, right):
        assert (textured - filled)[0][region].std() > 2


def test_the_same_generator_gives_the_same_texture():
    image = tissue((30, 26, 26))
    region = ball(image.shape[1:], (14, 13, 13), 4)
    first, again, other = (clone(image, region, ~region, seed=seed)[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other)[0][region].mean() > 0.9


def test_a_box_gives_the_same_as_the_whole_volume():
    image = tissue((40, 30, 30), n_channels=2)
    region = ball(image.shape[1:], (18, 16, 14), 4)
    box = (slice(8, 30), slice(6, 28), slice(3, 25))
    whole, filled, pieces = clone(image, region, ~region)
    crop, pieces_of_crop = clone_texture(
        image,
        filled[(slice(None), *box)],
        region[box],
        ~region,
        CUBE,
        trend,
        np.random.default_rng(0),
        box=box,
    )
    np.testing.assert_array_equal(crop, whole[(slice(None), *box)])
    assert pieces_of_crop == pieces


@pytest.mark.parametrize("corner", [(0, 0, 0), (29, 12, 25)])
def test_a_region_at_the_border_of_the_volume(corner):
    image = tissue((30, 26, 26))
    region = ball(image.shape[1:], corner, 4)
    textured, filled, pieces = clone(image, region, ~region)
    assert pieces["shift"] == 1
    assert (textured - filled)[0][region].std() > 2


def test_any_fill_can_be_used_on_thick_slices():
    spacing_mm = (1.0, 1.0, 3.0)
    image = tissue((30, 30, 9))
    region = ball(image.shape[1:], (15, 15, 4), 3)
    textured, filled, pieces = clone(
        image,
        region,
        ~region,
        fill=lambda values, hole, source: fast_marching_fill(values, hole, source, spacing_mm),
        spacing_mm=spacing_mm,
    )
    assert pieces["shift"] > 0
    assert (textured - filled)[0][region].std() > 2


def test_what_no_fill_can_reach_does_not_spoil_the_rest():
    """Fluid walls in a voxel that a corner joins to the region, and a component of two voxels."""
    image = tissue((34, 26, 26))
    region = np.zeros(image.shape[1:], bool)
    region[8:13, 8:13, 8:13] = region[13, 13, 13] = region[22, 13, 13:15] = True
    alone = np.zeros_like(region)
    alone[13, 13, 13] = alone[22, 13, 13:15] = True
    clean = ~region & ~ndimage.binary_dilation(alone)
    textured, filled, pieces = clone(image, region, clean)
    assert pieces == {"mirror": 0, "shift": 1, "noise": 1, "none": 0}
    detail = (textured - filled)[0]
    assert detail[13, 13, 13] == 0
    assert (detail[22, 13, 13:15] != 0).all()
    assert detail[8:13, 8:13, 8:13].std() > 2


def test_an_empty_region_gives_a_copy():
    image = tissue((8, 8, 8))
    empty = np.zeros((8, 8, 8), bool)
    textured, pieces = clone_texture(image, image, empty, ~empty, CUBE, trend, np.random.default_rng(0))
    np.testing.assert_array_equal(textured, image)
    assert textured is not image
    assert set(pieces.values()) == {0}


def test_a_region_that_is_marked_clean_is_an_error():
    image = tissue((8, 8, 8))
    region = ball((8, 8, 8), (4, 4, 4), 1)
    with pytest.raises(ValueError, match="7 voxels of the region are marked as clean"):
        clone_texture(image, image, region, np.ones_like(region), CUBE, trend, np.random.default_rng(0))
