from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage, sparse
from scipy.sparse.linalg import spsolve

from lesionsynth.kernels.diffusion import biharmonic_fill, harmonic_fill
from lesionsynth.kernels.inpaint import reachable

CUBE = (1.0, 1.0, 1.0)
FILLS = pytest.mark.parametrize("fill", [harmonic_fill, biharmonic_fill])
SPACINGS = pytest.mark.parametrize("spacing_mm", [CUBE, (1.0, 1.2, 3.0), (0.5, 2.0, 5.0)])


def ball(shape, centre, radius):
    return np.linalg.norm(np.moveaxis(np.indices(shape), 0, -1) - centre, axis=-1) <= radius


def noise(shape, seed=0, n_channels=1):
    return np.random.default_rng(seed).normal(100, 10, (n_channels, *shape)).astype(np.float32)


def with_barriers(shape=(15, 14, 13)):
    """A region of two overlapping balls, and sources with holes, as cut out of tissue by fluid."""
    region = ball(shape, (6, 7, 7), 4) | ball(shape, (9, 5, 4), 2.5)
    source = ~region & (noise(shape, seed=1)[0] > 92)
    return reachable(region, source), source


def direct(image, region, source, spacing_mm, order):
    """The same problem as dense text-book algebra: minus Laplacian of the graph of usable voxels."""
    usable = np.flatnonzero((region | source).ravel())
    place = {int(v): n for n, v in enumerate(usable)}
    index = np.array(np.unravel_index(usable, region.shape)).T
    rows, columns, entries = [], [], []
    for n, voxel in enumerate(index):
        for axis in range(3):
            for sign in (-1, 1):
                other = voxel.copy()
                other[axis] += sign
                if (other < 0).any() or (other >= region.shape).any():
                    continue
                m = place.get(int(np.ravel_multi_index(other, region.shape)))
                if m is not None:
                    w = 1.0 / spacing_mm[axis] ** 2
                    rows += [n, n]
                    columns += [n, m]
                    entries += [w, -w]
    laplacian = sparse.csr_matrix((entries, (rows, columns)), shape=(usable.size,) * 2)
    unknown = region.ravel()[usable]
    if order == 1:
        system = laplacian
    else:
        counted = (ndimage.binary_dilation(region) & (region | source)).ravel()[usable]
        system = laplacian @ sparse.diags(counted.astype(float)) @ laplacian
    values = image.reshape(image.shape[0], -1)[:, usable].astype(np.float64)
    solved = [
        spsolve(system[unknown][:, unknown].tocsc(), -system[unknown][:, ~unknown] @ given[~unknown])
        for given in values
    ]
    return np.array(solved)


@SPACINGS
@pytest.mark.parametrize(("fill", "order"), [(harmonic_fill, 1), (biharmonic_fill, 2)])
def test_equal_to_a_direct_solve(fill, order, spacing_mm):
    region, source = with_barriers()
    image = noise(region.shape, n_channels=2)
    # Smooth, so that the range of the sources, which a direct solve knows nothing of, is not met.
    image = ndimage.gaussian_filter(image, (0, 2, 2, 2)).astype(np.float32)
    image += 100 * (np.abs(np.indices(region.shape)[0] - 7) == 7)
    expected = direct(image, region, source, spacing_mm, order)
    filled = fill(image, region, source, spacing_mm)[:, region]
    np.testing.assert_allclose(filled, expected, atol=1e-5 * np.ptp(image))


@FILLS
@SPACINGS
def test_a_device_gives_the_same(fill, spacing_mm, device):
    """The form for a GPU shifts the whole box; the other follows a list of neighbours."""
    region, source = with_barriers()
    image = noise(region.shape, n_channels=3)
    there = fill(device.put(image), device.put(region), device.put(source), spacing_mm)
    np.testing.assert_allclose(device.get(there), fill(image, region, source, spacing_mm), atol=1e-3)


def test_the_voxel_between_two_sources_gets_their_mean():
    image = np.array([1.0, -7.0, 3.0], dtype=np.float32).reshape(1, 3, 1, 1)
    region = np.array([False, True, False]).reshape(3, 1, 1)
    assert harmonic_fill(image, region, ~region, CUBE)[0, 1, 0, 0] == pytest.approx(2.0)


def test_distances_count_in_mm():
    """One voxel, 1 mm from 0 along two axes and 2 mm from 90 along the third: weights 4 to 1/2."""
    image = np.zeros((1, 3, 3, 3), np.float32)
    image[0, 1, 1, 0] = image[0, 1, 1, 2] = 90.0
    region = np.zeros((3, 3, 3), bool)
    region[1, 1, 1] = True
    assert harmonic_fill(image, region, ~region, (1, 1, 2))[0, 1, 1, 1] == pytest.approx(90 * 0.5 / 4.5)


@FILLS
@SPACINGS
def test_a_ramp_is_carried_through_the_region(fill, spacing_mm):
    shape = (18, 17, 16)
    ramp = (np.moveaxis(np.indices(shape), 0, -1) @ np.array((3.0, -5.0, 4.0)))[None].astype(np.float32)
    region = np.zeros(shape, bool)
    region[5:12, 5:12, 5:11] = True
    hollow = np.where(region, 1e6, ramp).astype(np.float32)
    np.testing.assert_allclose(fill(hollow, region, ~region, spacing_mm), ramp, atol=1e-3)


def test_a_bowl_is_carried_on_by_the_plate_not_by_the_film():
    shape = (19, 19, 19)
    grid = np.indices(shape) - 9.0
    bowl = (grid[0] ** 2 + 0.5 * grid[1] ** 2 - 2 * grid[2])[None].astype(np.float32)
    region = ball(shape, (9, 9, 9), 4.5)
    hollow = np.where(region, np.nan, bowl).astype(np.float32)
    plate, film = (
        np.abs(fill(hollow, region, ~region, CUBE) - bowl).max() for fill in (biharmonic_fill, harmonic_fill)
    )
    assert plate < 0.01
    assert film > 2


@FILLS
def test_the_range_of_the_sources_is_not_left(fill):
    shape = (20, 20, 20)
    steep = np.exp(np.indices(shape)[0] / 2.0)[None].astype(np.float32)
    region = ball(shape, (10, 10, 10), 5)
    source = ~region & (np.indices(shape)[0] < 12)
    filled = fill(steep, region, source, CUBE)[0][region]
    assert filled.min() >= np.exp(3 / 2)
    assert filled.max() <= np.float32(np.exp(11 / 2))


@FILLS
def test_only_sources_near_the_region_are_used(fill):
    image, region = noise((16, 16, 16), n_channels=2), ball((16, 16, 16), (7, 8, 8), 4)
    source = ~region & (np.indices(region.shape)[0] < 10)
    before, expected = image.copy(), fill(image, region, source, CUBE)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(expected[:, ~region], image[:, ~region])
    near = ndimage.binary_dilation(region, iterations=2)
    for leak in (1e6, np.nan):
        image[:, ~source | ~near] = leak
        np.testing.assert_array_equal(fill(image, region, source, CUBE)[:, region], expected[:, region])


@FILLS
def test_channels_are_filled_as_if_alone(fill):
    image, region = noise((13, 13, 13), n_channels=3), ball((13, 13, 13), (6, 6, 6), 4)
    together = fill(image, region, ~region, (1.0, 1.0, 2.0))
    for channel in range(3):
        alone = fill(image[channel : channel + 1], region, ~region, (1.0, 1.0, 2.0))
        np.testing.assert_array_equal(together[channel], alone[0])


@FILLS
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_flips_commute(fill, axis):
    region, source = with_barriers()
    image, spacing_mm = noise(region.shape), (1.0, 1.3, 2.0)
    flipped = fill(np.flip(image, axis + 1), np.flip(region, axis), np.flip(source, axis), spacing_mm)
    expected = fill(image, region, source, spacing_mm)
    np.testing.assert_allclose(np.flip(flipped, axis + 1), expected, atol=1e-3)


@FILLS
@pytest.mark.parametrize("shape", [(15, 15, 1), (15, 1, 15), (2, 15, 15), (15, 15, 3)])
def test_volumes_of_few_slices(fill, shape):
    region = ball(shape, np.array(shape) // 2, 3.5)
    image = np.full((1, *shape), 7.0, dtype=np.float32)
    image[:, region] = np.nan
    np.testing.assert_allclose(fill(image, region, ~region, (1.0, 1.0, 10.0)), 7.0, rtol=1e-6)


def test_large_values_keep_their_small_differences():
    shape = (16, 16, 16)
    ramp = (30_000 + 0.5 * np.indices(shape)[0])[None].astype(np.float32)
    region = ball(shape, (8, 8, 8), 5)
    for fill in (harmonic_fill, biharmonic_fill):
        np.testing.assert_allclose(fill(ramp, region, ~region, CUBE), ramp, rtol=0, atol=0.01)


def test_large_components_are_filled_harmonically(device):
    shape = (30, 14, 14)
    image = noise(shape)
    large, small = ball(shape, (8, 7, 7), 5), ball(shape, (23, 7, 7), 2)
    both = large | small
    filled = biharmonic_fill(image, both, ~both, CUBE, most_vox=100)
    np.testing.assert_array_equal(filled[:, large], harmonic_fill(image, large, ~both, CUBE)[:, large])
    np.testing.assert_array_equal(filled[:, small], biharmonic_fill(image, small, ~both, CUBE)[:, small])
    there = biharmonic_fill(device.put(image), device.put(both), device.put(~both), CUBE, most_vox=100)
    np.testing.assert_allclose(device.get(there), filled, atol=1e-3)


@FILLS
def test_an_empty_region_gives_a_copy(fill):
    image = noise((5, 5, 5))
    filled = fill(image, np.zeros((5, 5, 5), bool), np.ones((5, 5, 5), bool), CUBE)
    np.testing.assert_array_equal(filled, image)
    assert filled is not image


@FILLS
def test_errors_say_what_is_wrong(fill):
    image, region = noise((9, 9, 9)), ball((9, 9, 9), (4, 4, 4), 1)
    with pytest.raises(ValueError, match="both"):
        fill(image, region, np.ones_like(region), CUBE)
    walled = region.copy()
    walled[7, 7, 7] = True
    source = ndimage.binary_dilation(region) & ~region
    with pytest.raises(ValueError, match=f"1 of {walled.sum()} voxels"):
        fill(image, walled, source, CUBE)
    image[0, 4, 4, 2] = np.inf
    with pytest.raises(ValueError, match="not finite"):
        fill(image, region, ~region, CUBE)


@FILLS
@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_the_unit_of_the_intensities_does_not_matter(fill, unit):
    region, source = with_barriers()
    image = noise(region.shape)
    expected = fill(image, region, source, CUBE)
    scaled = fill((image.astype(np.float64) * unit).astype(np.float32), region, source, CUBE)
    np.testing.assert_allclose(scaled.astype(np.float64) / unit, expected, rtol=1e-4)
