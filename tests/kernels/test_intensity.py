from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from lesionsynth.kernels.intensity import in_spreads, measure, robust_spread, shell_mask

ISO = (1.0, 1.0, 1.0)


def cube(shape=(15, 15, 15), size=3):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(max(0, n // 2 - size // 2), n // 2 + (size + 1) // 2) for n in shape)] = True
    return mask


def test_spread_is_the_scaled_median_deviation():
    assert robust_spread(np.array([1, 2, 3, 4, 100], np.float32)) == pytest.approx(1.4826)
    assert robust_spread(np.array([], np.float32)) == 0.0
    assert robust_spread(np.array([7], np.float32)) == 0.0


def test_spread_of_a_normal_sample_is_its_standard_deviation():
    sample = np.random.default_rng(0).normal(10, 3, 200_000).astype(np.float32)
    assert robust_spread(sample) == pytest.approx(3, rel=0.01)


def test_units_are_spreads_around_a_level_of_each_channel():
    image = np.array([[[[100.0, 120.0, 90.0, 1000.0]]], [[[5.0, 6.0, 7.0, 8.0]]]], dtype=np.float32)
    found = in_spreads(image, [(100.0, 10.0), (5.0, 0.0)])
    np.testing.assert_array_equal(found, [[[[0, 2, -1, 90]]], [[[0, 0, 0, 0]]]])
    assert found.dtype == np.float32


def test_shell_lies_between_its_distances_within_the_tissue():
    lesion, tissue = cube(size=1), np.ones((15, 15, 15), bool)
    tissue[:, :7] = False
    shell = shell_mask(lesion, tissue, ISO)
    offsets = np.argwhere(shell) - 7
    distance = np.linalg.norm(offsets, axis=1)
    assert distance.min() == pytest.approx(np.sqrt(3))
    assert distance.max() == pytest.approx(4.0)
    assert (offsets[:, 1] >= 0).all()
    everywhere = np.linalg.norm(np.argwhere(np.ones_like(shell)) - 7, axis=1).reshape(shell.shape)
    np.testing.assert_array_equal(shell, (everywhere >= 1.5) & (everywhere <= 4.0) & tissue)


def test_shell_is_in_mm_and_wider_on_coarse_voxels():
    lesion, tissue = cube(size=1), np.ones((15, 15, 15), bool)
    coarse = np.argwhere(shell_mask(lesion, tissue, (2.0, 2.0, 2.0))) - 7
    fine = np.argwhere(shell_mask(lesion, tissue, ISO)) - 7
    np.testing.assert_array_equal(coarse, fine)
    slabs = np.argwhere(shell_mask(lesion, tissue, (1.0, 1.0, 5.0))) - 7
    assert (slabs[:, 2] == 0).all()


@pytest.mark.parametrize("spacing_mm", [0.9, 1.2, 1.3, 2.7, 1.2000000476837158])
def test_shell_keeps_its_outermost_voxels_on_any_spacing(spacing_mm):
    lesion, tissue = cube((21, 1, 1), 1), np.ones((21, 1, 1), bool)
    reach = int(4.0 * max(1.0, spacing_mm) / spacing_mm + 1e-6)
    assert np.flatnonzero(shell_mask(lesion, tissue, (spacing_mm,) * 3)).max() == 10 + reach


def test_an_empty_lesion_has_no_shell():
    assert not shell_mask(np.zeros((4, 4, 4), bool), np.ones((4, 4, 4), bool), ISO).any()


def test_measures_of_a_uniform_lesion_on_uniform_tissue():
    lesion = cube(size=5)
    image = np.where(lesion, 150.0, 100.0).astype(np.float32)[None]
    found = measure(image, lesion, np.ones_like(lesion), ISO)
    assert found.mean == pytest.approx([150.0])
    gradient = np.linalg.norm(np.gradient(image[0].astype(float)), axis=0)
    erosion = ndimage.binary_erosion(lesion)
    border = (lesion & ~erosion) | (ndimage.binary_dilation(lesion) & ~lesion)
    assert found.edge == pytest.approx([gradient[border].mean()], rel=1e-6)


def test_measures_scale_with_the_image_and_do_not_see_an_offset():
    rng = np.random.default_rng(3)
    lesion, rim = cube(size=5), np.ones((15, 15, 15), bool)
    image = rng.normal(100, 5, (1, 15, 15, 15)).astype(np.float32)
    one, two = measure(image, lesion, rim, ISO), measure(2 * image + 64, lesion, rim, ISO)
    assert two.edge == pytest.approx(2 * one.edge, rel=1e-5)
    assert two.detail == pytest.approx(2 * one.detail, rel=1e-5)
    assert two.mean == pytest.approx(2 * one.mean + 64, rel=1e-6)


def test_edge_is_per_mm():
    lesion, rim = cube(size=5), np.ones((15, 15, 15), bool)
    image = np.where(lesion, 150.0, 100.0).astype(np.float32)[None]
    half = measure(image, lesion, rim, (0.5, 0.5, 0.5))
    assert half.edge == pytest.approx(2 * measure(image, lesion, rim, ISO).edge)


def test_border_voxels_outside_the_rim_do_not_count():
    lesion = cube(size=3)
    image = np.where(lesion, 150.0, 100.0).astype(np.float32)[None]
    image[0, 9:] = 0.0  # a ventricle beside the lesion
    found = measure(image, lesion, lesion, ISO)
    inner = lesion & ~ndimage.binary_erosion(lesion)
    gradient = np.linalg.norm(np.gradient(image[0].astype(float)), axis=0)
    assert found.edge == pytest.approx([gradient[inner].mean()])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_flips_commute(axis):
    rng = np.random.default_rng(1)
    image = rng.normal(size=(2, 9, 10, 11)).astype(np.float32)
    lesion, rim = rng.random((9, 10, 11)) > 0.8, rng.random((9, 10, 11)) > 0.3
    one = measure(image, lesion, rim, (1.0, 2.0, 0.5))
    two = measure(np.flip(image, axis + 1), np.flip(lesion, axis), np.flip(rim, axis), (1.0, 2.0, 0.5))
    for name in ("mean", "edge", "detail"):
        np.testing.assert_allclose(getattr(two, name), getattr(one, name), rtol=1e-5)


def test_a_single_voxel_in_one_slice_has_finite_measures():
    image = np.zeros((1, 5, 5, 1), np.float32)
    lesion = np.zeros((5, 5, 1), bool)
    lesion[0, 0, 0] = True
    image[0, 0, 0, 0] = 4.0
    found = measure(image, lesion, np.ones_like(lesion), ISO)
    assert found.mean == pytest.approx([4.0])
    assert found.detail == pytest.approx([0.0])
    assert np.isfinite(found.edge).all()
    assert found.edge[0] > 0
