"""Soft Poisson blending on a box: its equations, its identities, its bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, sparse
from scipy.sparse.linalg import spsolve

from lesionsynth.kernels import poisson
from lesionsynth.kernels.alpha import composite, grown_edge
from lesionsynth.kernels.poisson import soft_poisson, solve_box

SPACINGS = [(1.0, 1.0, 1.0), (0.7, 0.7, 3.0), (2.0, 1.5, 2.5)]
seeds = st.integers(0, 2**16)


def scene(seed=0, shape=(14, 12, 10), channels=2, dtype=np.float32):
    """Textured host and lesion image, and a soft mask."""
    rng = np.random.default_rng(seed)
    host, lesion = rng.normal(100, 10, size=(2, channels, *shape)).astype(dtype)
    label = np.zeros(shape, bool)
    label[tuple(slice(n // 3, max(n // 3 + 1, n - n // 3)) for n in shape)] = True
    lesion[:, label] += 60
    alpha = grown_edge(label, (1.0, 1.0, 1.0), 2.5).astype(dtype)
    return host, lesion, alpha


def difference(shape, axis):
    """Matrix of the differences across the faces of an axis, inner faces first, then both outer ones."""
    n = shape[axis]
    along = sparse.diags([-np.ones(n), np.ones(n)], [0, -1], shape=(n + 1, n)) * -1
    parts = [sparse.identity(m) for m in shape]
    parts[axis] = along
    return sparse.kron(sparse.kron(parts[0], parts[1]), parts[2]).tocsr()


def variational(host, lesion, alpha, k, spacing_mm):
    """The blend from its definition: least squares of the gradients, one channel, in double precision.

    One voxel outside the box alpha, host and lesion image go on as they are at its border.
    """
    host, lesion, alpha = (np.pad(a.astype(np.float64), 1, "edge") for a in (host, lesion, alpha))
    matrix, right = 0, 0
    for axis, s in enumerate(spacing_mm):
        forward = difference(host.shape, axis) / s

        def faces(values, axis=axis):
            before, after = (
                np.pad(values, [(1 - w, w) if a == axis else (0, 0) for a in range(3)], "edge")
                for w in (0, 1)
            )
            return before, after

        (a0, a1), (h0, h1), (l0, l1) = faces(alpha), faces(host), faces(lesion)
        d0, d1 = l0 - h0, l1 - h1
        # Where alpha is 0 the lesion image is not read.
        inner = (a0 > 0) & (a1 > 0)
        a = np.where(inner, (a0 + a1) / 2, 0)
        d = np.where(inner, (d0 + d1) / 2, np.where(a0 > 0, d0, np.where(a1 > 0, d1, 0)))
        v = (a * (l1 - l0) + (1 - a) * (h1 - h0) + k * d * (a1 - a0)) / s
        matrix = matrix + forward.T @ forward
        right = right + forward.T @ v.ravel()
    free = np.zeros(host.shape, bool)
    free[1:-1, 1:-1, 1:-1] = True
    free = free.ravel()
    # Outside the box the blend is the composite, which is the host where alpha has ended.
    f = (alpha * lesion + (1 - alpha) * host).ravel()
    f[free] = spsolve(matrix[free][:, free].tocsc(), (right - matrix @ np.where(free, 0, f))[free])
    return f.reshape(host.shape)[1:-1, 1:-1, 1:-1]


@pytest.mark.parametrize("spacing_mm", SPACINGS)
@pytest.mark.parametrize("k", [0.0, 0.6])
def test_it_is_the_least_squares_solution_of_its_gradients(spacing_mm, k):
    host, lesion, alpha = scene(1, channels=1)
    expected = variational(host[0], lesion[0], alpha, k, spacing_mm)
    found = soft_poisson(host, lesion, alpha, k, spacing_mm)[0]
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 1e-5 * np.ptp(expected)
    exact = soft_poisson(*(a.astype(np.float64) for a in (host, lesion, alpha)), k, spacing_mm)[0]
    assert np.abs(exact - expected).max() < 1e-11 * np.ptp(expected)


@pytest.mark.parametrize("shape", [(14, 3, 9), (1, 12, 12), (9, 1, 1), (1, 1, 1)])
def test_thin_boxes_and_alpha_up_to_the_border_of_the_volume(shape):
    host, lesion, alpha = scene(2, shape, channels=1)
    assert alpha.max() == 1
    expected = variational(host[0], lesion[0], alpha, 0.5, SPACINGS[1])
    found = soft_poisson(host, lesion, alpha, 0.5, SPACINGS[1])[0]
    assert np.abs(found - expected).max() < 1e-5 * np.ptp(np.stack([host, lesion]))


@given(seed=seeds, k=st.floats(0, 1), spacing_mm=st.sampled_from(SPACINGS))
@settings(max_examples=20, deadline=None)
def test_it_is_linear_between_the_gradients_alone_and_the_composite(seed, k, spacing_mm):
    host, lesion, alpha = scene(seed)
    ends = [soft_poisson(host, lesion, alpha, end, spacing_mm) for end in (0.0, 1.0)]
    np.testing.assert_array_equal(ends[1], composite(host, lesion, alpha))
    found = soft_poisson(host, lesion, alpha, k, spacing_mm)
    np.testing.assert_allclose(found, (1 - k) * ends[0] + k * ends[1], atol=2e-4)


def test_gradients_of_the_host_give_the_host_back():
    host, lesion, alpha = scene()
    np.testing.assert_array_equal(soft_poisson(host, lesion, 0 * alpha, 0.3, SPACINGS[1]), host)
    # A lesion image that differs by a level has the host's gradients, too.
    shifted = soft_poisson(host, host + 50, alpha, 0.0, SPACINGS[1])
    np.testing.assert_allclose(shifted, host, atol=2e-4)


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_equal_and_constant_images_are_given_back(value):
    host, _, alpha = scene()
    np.testing.assert_array_equal(soft_poisson(host, host, alpha, 0.5, SPACINGS[0]), host)
    flat = np.full_like(host, value)
    np.testing.assert_array_equal(soft_poisson(flat, flat, alpha, 0.5, SPACINGS[0]), flat)


@given(seed=seeds, spacing_mm=st.sampled_from(SPACINGS))
@settings(max_examples=20, deadline=None)
def test_the_correction_is_strongest_where_alpha_changes(seed, spacing_mm):
    """Elsewhere it is harmonic, and 0 around the box: it exceeds nowhere what it is on the rim."""
    host, lesion, alpha = scene(seed, dtype=np.float64)
    correction = composite(host, lesion, alpha) - soft_poisson(host, lesion, alpha, 0.0, spacing_mm)
    changing = ndimage.maximum_filter(alpha, 3) > ndimage.minimum_filter(alpha, 3)
    for h in correction:
        assert h[~changing].max() <= max(h[changing].max(), 0) + 1e-9
        assert h[~changing].min() >= min(h[changing].min(), 0) - 1e-9


def test_a_source_of_one_sign_gives_a_solution_of_the_other():
    source = np.random.default_rng(0).random((9, 11, 8))
    for spacing_mm in SPACINGS:
        assert (solve_box(source, spacing_mm) < 0).all()


@pytest.mark.parametrize("shape", [(100, 3, 4), (97, 7, 6), (107, 97, 1)])
def test_long_boxes_are_solved_exactly_too(shape):
    # 107 + 1 and 97 + 1 have small factors, for the fast transform; 100 + 1 is a prime.
    host, lesion, alpha = scene(3, shape, channels=1)
    expected = variational(host[0], lesion[0], alpha, 0.5, (1.0, 1.0, 1.0))
    found = soft_poisson(host, lesion, alpha, 0.5, (1.0, 1.0, 1.0))[0]
    assert np.abs(found - expected).max() < 1e-5 * np.ptp(expected)


def test_both_sine_transforms_are_the_same(monkeypatch):
    source = np.random.default_rng(0).normal(size=(2, 107, 5, 6))
    fast = solve_box(source, SPACINGS[2])
    monkeypatch.setattr(poisson, "_MAX_PRODUCT", 1000)
    np.testing.assert_allclose(solve_box(source, SPACINGS[2]), fast, rtol=1e-9, atol=1e-12)


def test_the_order_of_the_arrays_in_memory_does_not_matter():
    for shape in ((9, 8, 7), (107, 5, 6)):
        host, lesion, alpha = scene(4, shape)
        expected = soft_poisson(host, lesion, alpha, 0.5, SPACINGS[0])
        arrays = [np.asfortranarray(a) for a in (host, lesion, alpha)]
        np.testing.assert_allclose(soft_poisson(*arrays, 0.5, SPACINGS[0]), expected, atol=2e-4)


def test_leading_axes_are_separate_problems():
    host, lesion, alpha = scene(channels=3)
    together = soft_poisson(
        np.stack([host, host + 1]), np.stack([lesion, lesion * 2]), alpha, 0.5, SPACINGS[0]
    )
    np.testing.assert_allclose(together[0], soft_poisson(host, lesion, alpha, 0.5, SPACINGS[0]), atol=2e-4)


def test_a_channel_of_zeros_stays_zero():
    host, lesion, alpha = scene()
    host[1] = lesion[1] = 0
    out = soft_poisson(host, lesion, alpha, 0.5, SPACINGS[0])
    assert not out[1].any()
    assert out[0].any()


@given(seed=seeds, axis=st.integers(0, 2), order=st.permutations(range(3)))
@settings(max_examples=15, deadline=None)
def test_flips_and_permutations_commute(seed, axis, order):
    host, lesion, alpha = scene(seed)

    def turned(array):
        lead = array.ndim - 3
        return np.flip(array.transpose([*range(lead), *(lead + o for o in order)]), axis + lead)

    spacing_mm = SPACINGS[1]
    expected = turned(soft_poisson(host, lesion, alpha, 0.4, spacing_mm))
    found = soft_poisson(turned(host), turned(lesion), turned(alpha), 0.4, [spacing_mm[o] for o in order])
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.ptp(np.stack([host, lesion])))


def test_large_levels_do_not_cost_accuracy():
    host, lesion, alpha = scene()
    high = soft_poisson(host + 32768, lesion + 32768, alpha, 0.5, SPACINGS[0]) - 32768
    np.testing.assert_allclose(high, soft_poisson(host, lesion, alpha, 0.5, SPACINGS[0]), atol=0.02)


@pytest.mark.parametrize("shape", [(14, 12, 10), (107, 5, 1)])
def test_on_a_device(shape, device):
    host, lesion, alpha = scene(5, shape)
    expected = soft_poisson(host, lesion, alpha, 0.5, SPACINGS[1])
    found = device.get(soft_poisson(*map(device.put, (host, lesion, alpha)), 0.5, SPACINGS[1]))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.ptp(np.stack([host, lesion])))


def test_contrast_is_kept_as_far_as_the_rim_does_not_share_it():
    """A level over the whole box is lost with 1 - k; a lesion within its own surroundings is kept."""
    rng = np.random.default_rng(0)
    shape = (32, 32, 32)
    label = ((np.indices(shape) - 15.5) ** 2).sum(axis=0) <= 36
    host = ndimage.gaussian_filter(rng.normal(0, 5, shape), 1)[None].astype(np.float32) + 100
    alpha = grown_edge(label, SPACINGS[0], 2.0)
    for lesion, kept in ((host + 40, 0.5), (host + 40 * label, 0.94)):
        out = soft_poisson(host, lesion.astype(np.float32), alpha, 0.5, SPACINGS[0])
        assert float((out - host)[0][label].mean()) / 40 == pytest.approx(kept, abs=0.02)
