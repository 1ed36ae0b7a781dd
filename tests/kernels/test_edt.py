"""Distances equal SciPy's, on any spacing and in any memory layout."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from lesionsynth.kernels.edt import exact_distance_mm


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.7, 1.3, 3.0), (1.0, 1.0, 10.0)])
@pytest.mark.parametrize("shape", [(9, 8, 7), (20, 31, 13), (5, 1, 9), (12, 11, 3), (1, 1, 1)])
@pytest.mark.parametrize("share", [0.002, 0.1, 0.6, 1.0])
def test_equal_to_scipy(shape, spacing_mm, share):
    mask = np.random.default_rng(0).random(shape) < share
    mask[0, 0, -1] = True
    expected = ndimage.distance_transform_edt(~mask, sampling=spacing_mm)
    for layout in (mask, np.asfortranarray(mask), mask[::-1][::-1]):
        before = layout.copy()
        found = exact_distance_mm(layout, spacing_mm)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        np.testing.assert_array_equal(layout, before)


def test_by_hand():
    mask = np.zeros((4, 3, 2), bool)
    mask[0, 0, 0] = True
    found = exact_distance_mm(mask, (1.0, 2.0, 0.5))
    assert found[0, 0, 0] == 0.0
    assert found[3, 0, 0] == 3.0
    assert found[3, 2, 0] == 5.0
    assert found[0, 0, 1] == 0.5


def test_infinitely_far_from_nothing():
    assert np.isinf(exact_distance_mm(np.zeros((3, 4, 5), bool), (1.0, 1.0, 1.0))).all()
    assert exact_distance_mm(np.zeros((0, 4, 5), bool), (1.0, 1.0, 1.0)).shape == (0, 4, 5)


def test_the_result_has_the_layout_of_the_mask():
    mask = np.ones((3, 4, 5), bool)
    assert exact_distance_mm(mask, (1.0, 1.0, 1.0)).flags.c_contiguous
    assert exact_distance_mm(np.asfortranarray(mask), (1.0, 1.0, 1.0)).flags.f_contiguous
