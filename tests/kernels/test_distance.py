from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lesionsynth.kernels.distance import (
    distance_to_mm,
    distance_to_mm_generic,
    nearby_distance_mm,
    voxel_scale,
)

masks = arrays(bool, st.tuples(*[st.integers(1, 5)] * 3), elements=st.booleans())
spacings = st.tuples(*[st.sampled_from([0.5, 0.7, 1.0, 1.2, 3.0])] * 3)


def by_hand(mask, spacing_mm):
    points = np.argwhere(mask) * np.array(spacing_mm)
    grid = np.argwhere(np.ones_like(mask)) * np.array(spacing_mm)
    return np.linalg.norm(grid[:, None] - points, axis=2).min(axis=1).reshape(mask.shape)


@given(masks.filter(np.any), spacings)
@settings(max_examples=60, deadline=None)
def test_distance_is_that_of_the_nearest_voxel_centre_in_mm(mask, spacing_mm):
    found = distance_to_mm(mask, spacing_mm)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_hand(mask, spacing_mm), rtol=1e-6)


@given(masks, spacings, st.sampled_from([0.4, 1.0, 2.0, 3.6]))
@settings(max_examples=60, deadline=None)
def test_nearby_distance_is_exact_within_its_reach_and_no_less_beyond(mask, spacing_mm, reach_mm):
    exact = distance_to_mm(mask, spacing_mm)
    nearby = nearby_distance_mm(mask, spacing_mm, reach_mm)
    within = exact <= reach_mm
    np.testing.assert_allclose(nearby[within], exact[within], rtol=1e-6)
    assert (nearby[~within] >= exact[~within] * (1 - 1e-6)).all()


@given(masks, spacings, st.permutations(range(3)))
@settings(max_examples=40, deadline=None)
def test_flips_and_permutations_commute(mask, spacing_mm, order):
    turned = nearby_distance_mm(np.flip(mask.transpose(order), 1), [spacing_mm[axis] for axis in order], 2.0)
    expected = np.flip(nearby_distance_mm(mask, spacing_mm, 2.0).transpose(order), 1)
    np.testing.assert_allclose(turned, expected, rtol=1e-6)


def test_nothing_is_infinitely_far_and_everything_is_here():
    empty = np.zeros((2, 3, 4), bool)
    assert np.isinf(distance_to_mm(empty, (1, 1, 1))).all()
    assert np.isinf(nearby_distance_mm(empty, (1, 1, 1), 5.0)).all()
    assert (distance_to_mm(~empty, (1, 1, 1)) == 0).all()


def test_a_large_volume_is_only_looked_at_near_the_mask():
    mask = np.zeros((40, 40, 40), bool)
    mask[1, 1, 1] = True
    assert np.isfinite(nearby_distance_mm(mask, (1, 1, 2), 4.0)).sum() == 6 * 6 * 4


@pytest.mark.parametrize(
    ("spacing_mm", "scale"), [((0.5, 0.5, 0.5), 1.0), ((1, 1, 5), 1.0), ((2, 2.5, 3), 2.0)]
)
def test_rims_widen_with_the_finest_axis_above_one_mm(spacing_mm, scale):
    assert voxel_scale(spacing_mm) == scale


@given(st.integers(0, 10**6), st.tuples(*[st.integers(1, 14)] * 3), st.floats(0.0, 1.0))
@settings(max_examples=80, deadline=None)
def test_compiled_and_generic_form_agree_to_single_precision(seed, shape, share):
    rng = np.random.default_rng(seed)
    mask = rng.random(shape) < share**3
    spacing = tuple(rng.choice([0.5, 0.9, 1.0, 3.0, 10.0], 3).tolist())
    np.testing.assert_allclose(
        distance_to_mm(mask, spacing), distance_to_mm_generic(mask, spacing), rtol=5e-7
    )


@pytest.mark.parametrize("shape", [(20, 30, 1), (1, 25, 18), (24, 1, 16), (1, 1, 40), (16, 16, 16)])
@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 10.0), (10.0, 1.0, 1.0), (0.7, 0.9, 1.1)])
def test_thin_volumes_far_spacings_and_corners_are_exact(shape, spacing_mm):
    corner = np.zeros(shape, bool)
    corner[0, 0, 0] = True
    corner[-1, -1, -1] = True
    faces = np.zeros(shape, bool)
    faces[-1] = True
    for mask in (corner, ~corner, faces):
        for view in (mask, np.asfortranarray(mask), np.pad(mask, 2)[2:-2, 2:-2, 2:-2]):
            found = distance_to_mm(view, spacing_mm)
            assert found.shape == shape
            np.testing.assert_allclose(found, distance_to_mm_generic(mask, spacing_mm), rtol=5e-7)


def test_the_device_gives_what_the_cpu_gives(device):
    mask = np.zeros((9, 8, 7), bool)
    mask[2:4, 3, 5] = True
    for some in (mask, np.zeros_like(mask)):
        expected = distance_to_mm(some, (1.0, 2.0, 0.5))
        np.testing.assert_allclose(
            device.get(distance_to_mm(device.put(some), (1.0, 2.0, 0.5))), expected, rtol=5e-7
        )
        nearby = device.get(nearby_distance_mm(device.put(some), (1.0, 2.0, 0.5), 2.0))
        near = expected <= 2.0
        np.testing.assert_allclose(nearby[near], expected[near], rtol=5e-7)
