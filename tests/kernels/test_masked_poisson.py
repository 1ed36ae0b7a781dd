"""Poisson image editing on a mask: against a direct solution of its equations, its bounds, its limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, sparse
from scipy.sparse.linalg import spsolve

from lesionsynth.kernels.masked_poisson import hard_poisson

SPACINGS = [(1.0, 1.0, 1.0), (0.7, 0.7, 3.0), (2.0, 1.5, 2.5)]
seeds = st.integers(0, 2**16)


def scene(seed=0, shape=(12, 11, 10), channels=2):
    """Host, lesion image, a blob for a region, and what it may be matched with (some voxels may not)."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), 1.5)
    region = smooth > np.quantile(smooth, 0.7)
    usable = region | (rng.random(shape) > 0.2)
    host, lesion = rng.normal(100, 10, size=(2, channels, *shape)).astype(np.float32)
    return host, lesion, region, usable


def equations(host, lesion, region, usable, spacing_mm, mixed):
    """Matrix and right side of one channel, voxel by voxel."""
    number = np.full(region.shape, -1)
    number[region] = np.arange(region.sum())
    matrix, right = sparse.lil_matrix((region.sum(),) * 2), np.zeros(region.sum())
    for p in zip(*np.nonzero(region), strict=True):
        for axis, s in enumerate(spacing_mm):
            for side in (-1, 1):
                q = tuple(c + side * (a == axis) for a, c in enumerate(p))
                if not 0 <= q[axis] < region.shape[axis] or not (region[q] or usable[q]):
                    continue
                v, w = float(lesion[p]) - float(lesion[q]), float(host[p]) - float(host[q])
                right[number[p]] += (w if mixed and abs(w) > abs(v) else v) / s**2
                matrix[number[p], number[p]] += 1 / s**2
                if region[q]:
                    matrix[number[p], number[q]] -= 1 / s**2
                else:
                    right[number[p]] += float(host[q]) / s**2
    return matrix.tocsr(), right


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("spacing_mm", SPACINGS)
@pytest.mark.parametrize("seed", [0, 1])
def test_it_solves_its_equations(spacing_mm, mixed, seed):
    host, lesion, region, usable = scene(seed)
    out = hard_poisson(host, lesion, region, usable, spacing_mm, mixed)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out[:, ~region], host[:, ~region])
    for c in range(2):
        matrix, right = equations(host[c], lesion[c], region, usable, spacing_mm, mixed)
        expected = spsolve(matrix.tocsc(), right)
        assert np.abs(out[c][region] - expected).max() < 1e-5 * np.ptp(np.stack([host, lesion]))


@given(seed=seeds, spacing_mm=st.sampled_from(SPACINGS))
@settings(max_examples=15, deadline=None)
def test_a_flat_lesion_image_gives_a_harmonic_fill_within_the_range_of_its_border(seed, spacing_mm):
    host, _, region, usable = scene(seed)
    everywhere = np.ones_like(usable)
    out = hard_poisson(host, np.zeros_like(host), region, everywhere, spacing_mm)
    border = ndimage.binary_dilation(region) & ~region
    for before, after in zip(host, out, strict=True):
        assert after[region].max() <= before[border].max() + 1e-3
        assert after[region].min() >= before[border].min() - 1e-3


@given(seed=seeds, level=st.floats(-1e3, 1e3))
@settings(max_examples=15, deadline=None)
def test_the_level_of_the_lesion_image_does_not_matter(seed, level):
    host, lesion, region, _ = scene(seed)
    everywhere = np.ones_like(region)
    for mixed in (False, True):
        out = hard_poisson(host, lesion, region, everywhere, SPACINGS[1], mixed)
        again = hard_poisson(host, lesion + np.float32(level), region, everywhere, SPACINGS[1], mixed)
        np.testing.assert_allclose(again, out, atol=2e-3)


@pytest.mark.parametrize("mixed", [False, True])
def test_the_hosts_own_gradients_give_the_host_back(mixed):
    host, _, region, usable = scene()
    np.testing.assert_array_equal(hard_poisson(host, host, region, usable, SPACINGS[2], mixed), host)
    raised = hard_poisson(host, host + 50, region, usable, SPACINGS[2], mixed)
    np.testing.assert_allclose(raised, host, atol=1e-3)


def test_mixed_gradients_let_the_host_through_a_flat_lesion_image():
    host, _, region, usable = scene()
    out = hard_poisson(host, np.zeros_like(host), region, usable, SPACINGS[0], mixed=True)
    np.testing.assert_allclose(out, host, atol=1e-3)


def test_one_voxel_is_matched_with_its_neighbours():
    host, lesion, region, _ = scene()
    region[:] = False
    region[4, 5, 6] = True
    cross = ndimage.generate_binary_structure(3, 1)
    cross[1, 1, 1] = False
    near = np.zeros_like(region)
    near[3:6, 4:7, 5:8] = cross
    out = hard_poisson(host, lesion, region, np.ones_like(region), SPACINGS[0])
    expected = lesion[:, 4, 5, 6] + (host - lesion)[:, near].mean(axis=1)
    np.testing.assert_allclose(out[:, 4, 5, 6], expected, rtol=1e-6)


@pytest.mark.parametrize("shape", [(9, 8, 7), (8, 7, 1), (5, 1, 1), (1, 1, 1), (9, 8, 3)])
@pytest.mark.parametrize("mixed", [False, True])
def test_a_region_without_a_border_keeps_the_mean_of_the_lesion_image(shape, mixed):
    host, lesion, *_ = scene(0, shape)
    whole = np.ones(shape, bool)
    out = hard_poisson(host, lesion, whole, whole, SPACINGS[0], mixed)
    beyond = ndimage.generate_binary_structure(3, 1).astype(float)
    faces = 6 - ndimage.convolve(np.zeros(shape), beyond, mode="constant", cval=1.0)
    for before, after in zip(lesion, out, strict=True):
        assert (faces * after).sum() == pytest.approx((faces * before).sum(), rel=1e-5)
    if not mixed:
        np.testing.assert_allclose(out, lesion, rtol=1e-6)


def test_parts_with_and_without_a_border_do_not_disturb_each_other():
    host, lesion, region, usable = scene(shape=(16, 6, 6))
    region[:], usable[:] = False, True
    region[1:5, 1:5, 1:5] = True
    alone = hard_poisson(host, lesion, region, usable, SPACINGS[0])
    usable[9:, :, :] = False
    region[10:14, 1:5, 1:5] = True
    out = hard_poisson(host, lesion, region, usable, SPACINGS[0])
    np.testing.assert_allclose(out[:, :9], alone[:, :9], atol=1e-4)
    np.testing.assert_allclose(out[:, 10:14, 1:5, 1:5], lesion[:, 10:14, 1:5, 1:5], rtol=1e-6)


def test_the_border_of_the_volume_is_free():
    """A ramp in the lesion image goes on to the border of the volume as it is."""
    host = np.zeros((1, 8, 4, 4), np.float32)
    lesion = np.broadcast_to(np.arange(8, dtype=np.float32)[None, :, None, None], host.shape).copy()
    region = np.zeros(host.shape[1:], bool)
    region[4:] = True
    out = hard_poisson(host, lesion, region, np.ones_like(region), SPACINGS[0])
    np.testing.assert_allclose(out[0, :, 2, 2], [0, 0, 0, 0, 1, 2, 3, 4], atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2])
def test_the_order_of_the_arrays_in_memory_does_not_matter(channels):
    host, lesion, region, usable = scene(channels=channels)
    expected = hard_poisson(host, lesion, region, usable, SPACINGS[0])
    arrays = [np.asfortranarray(a) for a in (host, lesion, region, usable)]
    np.testing.assert_array_equal(hard_poisson(*arrays, SPACINGS[0]), expected)


def test_an_empty_region_and_channels_without_signal():
    host, lesion, region, usable = scene()
    np.testing.assert_array_equal(hard_poisson(host, lesion, region & False, usable, SPACINGS[0]), host)
    host[1] = lesion[1] = 0
    out = hard_poisson(host, lesion, region, usable, SPACINGS[0])
    assert not out[1].any()
    assert np.isfinite(out).all()


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("shape", [(12, 11, 10), (9, 8, 1)])
def test_on_a_device_and_compiled(shape, mixed, device):
    for seed in range(4):
        host, lesion, region, usable = scene(seed, shape)
        expected = hard_poisson(host, lesion, region, usable, SPACINGS[1], mixed)
        there = [device.put(a) for a in (host, lesion, region, usable)]
        found = device.get(hard_poisson(*there, SPACINGS[1], mixed))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.ptp(np.stack([host, lesion])))
