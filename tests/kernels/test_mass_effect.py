"""The displacement around a growing lesion: volume, folding, reach, what stays where it is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesionsynth.kernels.mass_effect import MAX_STRENGTH, Ellipsoid, ellipsoid_of, push_apart, reach_box

N = 61
BALL = Ellipsoid(np.full(3, 30.0), np.eye(3), 9.0)
WHOLE = (slice(0, N),) * 3
FREE = np.full((N, N, N), np.inf, np.float32)
CUBIC = (1.0, 1.0, 1.0)


def derivative(field):
    """Determinant of the Jacobian of voxel -> voxel + field."""
    steps = np.stack([np.stack(np.gradient(part.astype(float)), axis=-1) for part in field], axis=-2)
    return np.linalg.det(steps + np.eye(3))


def radius(centre=(30, 30, 30)):
    grid = np.indices((N, N, N)) - np.reshape(centre, (3, 1, 1, 1))
    return np.linalg.norm(grid, axis=0)


@pytest.mark.parametrize("strength", [0.1, 0.4, MAX_STRENGTH])
def test_the_share_of_the_lesions_volume_crosses_its_surface_and_no_more(strength):
    field, used = push_apart(BALL, strength, 15.0, WHOLE, CUBIC, FREE)
    assert used == strength
    jacobian, r = derivative(field), radius()
    # Inside the lesion is what was there less what was pushed out; within the reach is all of it.
    inside, moving = r <= 9.0, r <= 25.0
    assert jacobian[inside].sum() == pytest.approx((1 - strength) * inside.sum(), rel=0.03)
    assert jacobian[moving].sum() == pytest.approx(moving.sum(), rel=0.005)
    assert jacobian.min() > 0.9 * (1 - 4 / 3 * strength)


def test_tissue_moves_outwards_along_the_radius_and_less_with_distance():
    field, _ = push_apart(BALL, 0.5, 15.0, WHOLE, CUBIC, FREE)
    along = field[0, 30:, 30, 30]  # where the tissue comes from: nearer the centre
    assert not np.abs(field[1:, 30:, 30, 30]).max() > 1e-6
    assert (along <= 0).all()
    assert along[9] == pytest.approx(9 * 0.5 ** (1 / 3) - 9, abs=1e-5)  # at the surface, by hand
    assert (np.diff(along[9:]) >= 0).all()
    assert not along[24:].any() or np.abs(along[24:]).max() < 1e-3
    assert (field[:, radius() > 24.0] == 0).all()
    diagonal = field[:, 36, 36, 36]
    assert np.ptp(diagonal) < 1e-6


def test_the_field_is_smooth_across_the_surface_and_the_reach():
    fine = 0.02
    body = Ellipsoid(np.zeros(3), np.eye(3), 9.0)
    line = (slice(0, 1500), slice(0, 1), slice(0, 1))
    field, _ = push_apart(body, 0.5, 15.0, line, (fine, 1.0, 1.0), np.full((1500, 1, 1), np.inf, np.float32))
    slope = np.diff(field[0, :, 0, 0].astype(float))
    assert np.abs(slope).max() < 1.0
    assert np.abs(np.diff(slope[::10])).max() < 0.2  # no kink: the slope changes little over 0.2 mm


@given(st.integers(0, 10**6), st.floats(0.05, MAX_STRENGTH), st.floats(3.0, 20.0))
@settings(max_examples=12, deadline=None)
def test_nothing_folds_and_nothing_is_taken_from_what_is_anchored(seed, strength, reach_mm):
    rng = np.random.default_rng(seed)
    spacing = rng.choice([0.8, 1.0, 2.5], 3)
    mask = np.zeros((40, 40, 24), bool)
    low, size = rng.integers(3, 15, 3), rng.integers(3, 9, 3)
    mask[tuple(slice(a, a + n) for a, n in zip(low, size, strict=True))] = True
    body = ellipsoid_of(mask, spacing)
    box = reach_box(body, reach_mm, spacing, mask.shape)
    wall = np.indices(mask.shape)[0] * spacing[0]  # distance from the face i = 0, which is anchored
    field, used = push_apart(body, strength, reach_mm, box, spacing, wall[box].astype(np.float32))
    assert 0 < used <= strength
    assert derivative(field).min() > 0.1
    if box[0].start == 0:
        assert not field[:, 0].any()
    at = np.indices(field.shape[1:])[0] + box[0].start + field[0]
    assert (at[box[0].start == 0 :] >= 0).all()
    moved = np.linalg.norm(field * spacing[:, None, None, None], axis=0)
    assert (moved <= wall[box] + 1e-5).all()


def test_where_everything_is_anchored_nothing_moves():
    field, _ = push_apart(BALL, 0.5, 15.0, WHOLE, CUBIC, np.zeros((N, N, N), np.float32))
    assert not field.any()


def test_an_ellipsoid_has_the_volume_centre_and_directions_of_its_lesion():
    mask = np.zeros((30, 20, 20), bool)
    mask[5:25, 8:14, 6:16] = True
    body = ellipsoid_of(mask, (1.0, 1.0, 2.0), corner=(10, 0, 0))
    np.testing.assert_allclose(body.centre_mm, [24.5, 10.5, 21.0])
    assert 4 / 3 * np.pi * body.radius_mm**3 == pytest.approx(mask.sum() * 2.0)
    assert np.linalg.det(body.shape) == pytest.approx(1.0)
    stretch = 1 / np.diag(body.shape)
    assert stretch[0] == pytest.approx(stretch[2])  # 20 mm and 20 mm
    assert stretch[0] / stretch[1] == pytest.approx(2.0)  # 6 mm, cut to half


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 1, 1), (6, 4, 1)])
def test_thin_lesions_are_no_exception(shape):
    body = ellipsoid_of(np.ones(shape, bool), (1.0, 1.0, 3.0))
    assert np.isfinite(body.shape).all()
    assert np.linalg.det(body.shape) == pytest.approx(1.0)
    box = reach_box(body, 4.0, (1.0, 1.0, 3.0), (9, 9, 1))
    field, _ = push_apart(
        body, 0.4, 4.0, box, (1.0, 1.0, 3.0), np.full([s.stop - s.start for s in box], np.inf, np.float32)
    )
    assert np.isfinite(field).all()
    assert not np.abs(field[2]).max() > 1e-6


@given(st.integers(0, 10**6), st.floats(2.0, 15.0))
@settings(max_examples=20, deadline=None)
def test_the_box_holds_all_that_moves(seed, reach_mm):
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    scales = np.exp(rng.normal(0, 0.3, 3))
    shape = turn @ np.diag(scales / np.cbrt(scales.prod())) @ turn.T
    body = Ellipsoid(rng.uniform(20, 40, 3), shape, rng.uniform(3, 8))
    field, _ = push_apart(body, 0.4, reach_mm, WHOLE, CUBIC, FREE)
    outside = np.ones((N, N, N), bool)
    outside[reach_box(body, reach_mm, CUBIC, (N, N, N))] = False
    assert not field[:, outside].any()


def test_a_reach_beyond_the_volume_is_cut():
    box = reach_box(Ellipsoid(np.array([2.0, 30.0, 59.0]), np.eye(3), 5.0), 10.0, CUBIC, (N, N, N))
    assert box == (slice(0, 18), slice(15, 46), slice(44, 61))
