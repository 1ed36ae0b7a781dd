"""Soft masks by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lesionsynth.kernels.alpha import centred_edge, composite, gaussian_edge, grown_edge, outside_mm

ISO = (1.0, 1.0, 1.0)


def cube(n=15, low=5, high=10):
    label = np.zeros((n, n, n), bool)
    label[low:high, low:high, low:high] = True
    return label


def middle(alpha):
    return alpha[:, 7, 7]


def test_the_edge_lies_half_a_voxel_outside_the_labels_centres():
    assert outside_mm(cube(), ISO, 9.0)[7, 7].tolist()[:6] == [4.5, 3.5, 2.5, 1.5, 0.5, -0.5]
    assert np.isinf(outside_mm(np.zeros((2, 2, 2), bool), ISO, 9.0)).all()


def test_a_grown_edge_keeps_the_label_whole():
    assert (
        middle(grown_edge(cube(), ISO, 2.0)).tolist()
        == [0] * 3 + [0.25, 0.75] + [1] * 5 + [0.75, 0.25] + [0] * 3
    )


def test_a_centred_edge_is_one_half_on_the_labels_edge():
    np.testing.assert_allclose(
        middle(centred_edge(cube(), ISO, 4.0))[:8], [0, 0, 0, 0.125, 0.375, 0.625, 0.875, 1]
    )
    one = np.zeros((3, 3, 3), bool)
    one[1, 1, 1] = True
    assert centred_edge(one, ISO, 4.0)[1, 1, 1] == 0.625
    assert centred_edge(one, (1.0, 1.0, 5.0), 4.0)[1, 1, 1] == 0.625


def test_a_gaussian_edge_is_the_blurred_label_and_half_at_least_on_it():
    alpha = gaussian_edge(cube(25, 5, 20), ISO, 1.0)[:, 12, 12]
    plane = middle_of_a_blurred_step()
    np.testing.assert_allclose(alpha[1:9], plane, atol=2e-3)
    one = np.zeros((9, 9, 9), bool)
    one[4, 4, 4] = True
    alone = gaussian_edge(one, ISO, 1.0)
    assert alone[4, 4, 4] == 0.5
    assert 0 < alone[4, 4, 5] < 0.1


def middle_of_a_blurred_step():
    """A step under a sampled Gaussian of 1 voxel that ends after 3, four voxels to either side of it."""
    weights = np.exp(-0.5 * np.arange(-3, 4) ** 2)
    return np.convolve([0.0] * 7 + [1.0] * 7, weights / weights.sum(), "same")[3:11]


@pytest.mark.parametrize("edge", [grown_edge, centred_edge, gaussian_edge])
def test_an_edge_is_the_same_wherever_the_array_ends(edge):
    label = cube(9, 0, 4)
    beyond = edge(np.pad(label, 6), (1.0, 1.0, 2.0), 2.0)
    np.testing.assert_allclose(edge(label, (1.0, 1.0, 2.0), 2.0), beyond[6:-6, 6:-6, 6:-6], atol=1e-6)


@pytest.mark.parametrize("edge", [grown_edge, centred_edge, gaussian_edge])
def test_edges_on_a_device(edge, device):
    for label in (cube(), np.zeros((3, 4, 5), bool), np.ones((2, 3, 1), bool)):
        expected = edge(label, (1.0, 1.5, 2.0), 3.0)
        found = device.get(edge(device.put(label), (1.0, 1.5, 2.0), 3.0))
        assert found.dtype == expected.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_composite_is_exact_at_both_ends():
    rng = np.random.default_rng(0)
    host, lesion = rng.normal(size=(2, 1, 5, 5, 5)).astype(np.float32) * np.float32(
        [[[[[1e-3]]]], [[[[1e4]]]]]
    )
    alpha = rng.choice([0.0, 0.3, 0.7, 1.0], size=(5, 5, 5)).astype(np.float32)
    out = composite(host, lesion, alpha)
    assert (out[:, alpha == 0] == host[:, alpha == 0]).all()
    assert (out[:, alpha == 1] == lesion[:, alpha == 1]).all()
    np.testing.assert_allclose(out, alpha * lesion + (1 - alpha) * host, rtol=1e-5, atol=1e-2)
