from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from lesionsynth.kernels.components import components
from lesionsynth.kernels.synthetic_lesion import (
    along_profile,
    blurred_noise,
    bump,
    ellipsoid_level,
    lowest,
    profile_of,
    signed_distance_mm,
    texture_beyond,
)
from tests.fake_device import OtherDevice

RNG = np.random.default_rng(0)


def ball(side: int = 21, radius: float = 6.0) -> np.ndarray:
    at = np.indices((side,) * 3) - side // 2
    return (at**2).sum(axis=0) <= radius**2


def test_an_unbent_ball_has_the_level_of_its_radius() -> None:
    level = ellipsoid_level((21, 21, 21), 0.5, (4.0, 4.0, 4.0), 0.0, np.random.default_rng(1))
    at = 0.5 * np.linalg.norm(np.indices((21, 21, 21)) - 10, axis=0)
    np.testing.assert_allclose(level, at / 4.0, atol=1e-5)
    assert level.dtype == np.float32


def test_an_ellipsoid_has_its_half_axes_whichever_way_it_is_turned() -> None:
    level = ellipsoid_level((61, 61, 61), 0.5, (4.0, 6.0, 12.0), 0.0, np.random.default_rng(2))
    points = (np.argwhere(level < 1) - 30) * 0.5
    # The second moment of a solid ellipsoid along an axis is its square over five.
    axes = np.sqrt(5 * np.linalg.eigvalsh(np.cov(points.T)))
    np.testing.assert_allclose(axes, (4, 6, 12), rtol=0.02)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 1000), bending=st.floats(0.0, 0.5), stretch=st.floats(0.75, 1.25))
def test_a_bent_shape_is_one_piece_of_exactly_the_wanted_volume(seed, bending, stretch) -> None:
    radii = (4.0, 4.0 * stretch, 4.0 / stretch)
    level = ellipsoid_level((33, 33, 33), 0.5, radii, bending, np.random.default_rng(seed))
    mask = lowest(level, 1500)
    assert mask.sum() == 1500
    assert level[mask].max() <= level[~mask].min()
    _, boxes = components(mask)
    assert len(boxes) == 1


def test_shapes_differ_by_their_seed_and_bending_changes_them() -> None:
    def shape(seed: int, bending: float) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return lowest(ellipsoid_level((33, 33, 33), 0.5, (4.0, 4.0, 4.0), bending, rng), 2000)

    np.testing.assert_array_equal(shape(1, 0.25), shape(1, 0.25))
    assert (shape(1, 0.25) ^ shape(2, 0.25)).sum() > 200
    assert (shape(1, 0.25) ^ shape(1, 0.0)).sum() > 200


def test_signed_distance_by_hand() -> None:
    mask = np.zeros((1, 7, 1), bool)
    mask[0, 2:5] = True
    found = signed_distance_mm(mask, (9.0, 2.0, 9.0))[0, :, 0]
    np.testing.assert_allclose(found, [3, 1, -1, -3, -1, 1, 3])
    assert np.isinf(signed_distance_mm(np.zeros((3, 3, 3), bool), (1, 1, 1))).all()
    full = signed_distance_mm(np.ones((3, 3, 3), bool), (1, 1, 1))
    assert full[1, 1, 1] == pytest.approx(-1.5)
    assert full[0, 0, 0] == pytest.approx(-0.5)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), spacing=st.tuples(*[st.floats(0.5, 4.0)] * 3))
def test_signed_distance_is_negative_exactly_inside(seed, spacing) -> None:
    mask = np.random.default_rng(seed).random((6, 5, 7)) < 0.3
    mask[0, 0, 0] = True
    distance = signed_distance_mm(mask, spacing)
    np.testing.assert_array_equal(distance < 0, mask)
    assert np.abs(distance).min() >= 0.5 * min(spacing) - 1e-4


def test_noise_is_standard_and_as_coarse_as_asked_for() -> None:
    noise = blurred_noise(RNG.standard_normal((32, 32, 32), dtype=np.float32), (2.0, 2.0, 0.5))
    assert noise.mean() == pytest.approx(0, abs=1e-4)
    assert noise.std() == pytest.approx(1, abs=1e-4)

    def likeness(axis: int) -> float:
        return float((noise * np.roll(noise, 2, axis)).mean())

    # Neighbours at n voxels after a Gaussian of sigma correlate by exp(-n^2 / 4 sigma^2).
    assert likeness(0) == pytest.approx(np.exp(-0.25), abs=0.06)
    assert likeness(2) == pytest.approx(np.exp(-4.0), abs=0.06)
    assert not blurred_noise(np.zeros((3, 3, 3), np.float32), (1, 1, 1)).any()


def test_a_bump_has_its_top_at_one_and_lies_on_the_mask() -> None:
    hill = bump(ball(), (1.0, 1.0, 1.0))
    assert hill.max() == pytest.approx(1.0)
    assert hill[10, 10, 10] == pytest.approx(1.0, abs=1e-3)
    assert hill[10, 10, 16] == pytest.approx(0.5, abs=0.2)
    assert hill[0, 0, 0] < 1e-3


def test_a_profile_is_found_again() -> None:
    mask = ball()
    distance = signed_distance_mm(mask, (1, 1, 1))
    values = np.stack([np.where(mask, 5.0, 0.0), -distance.clip(-9, 0)]).astype(np.float32)
    knots, profile = profile_of(values, distance, np.ones(mask.shape, bool), 3.0)
    assert (np.diff(knots) > 0).all()
    assert knots[-1] == 3.0
    inside = knots < 0
    np.testing.assert_allclose(profile[0], np.where(inside, 5.0, 0.0), atol=1e-6)
    np.testing.assert_allclose(profile[1][: inside.sum() - 1], -knots[: inside.sum() - 1], atol=1e-5)
    again = along_profile(distance, (knots, profile))
    np.testing.assert_allclose(again[0][mask], 5.0, atol=1e-5)
    assert not again[:, distance >= 3].any()
    deepest = again[1][mask].max()
    assert deepest == pytest.approx(-knots[0], abs=1e-5)  # beyond the last knot it stays what it is


def test_voxels_that_do_not_count_leave_a_profile_alone() -> None:
    mask = ball()
    distance = signed_distance_mm(mask, (1, 1, 1))
    where = np.ones(mask.shape, bool)
    where[10:] = False
    values = np.where(where, np.where(mask, 5.0, 1.0), 1e6).astype(np.float32)[None]
    knots, profile = profile_of(values, distance, where, 2.5)
    np.testing.assert_allclose(
        profile[0], [5.0] * (knots < 0).sum() + [1.0] * ((knots > 0).sum() - 1) + [0.0]
    )


def test_the_profile_of_a_single_voxel_and_of_nothing() -> None:
    mask = np.zeros((5, 5, 5), bool)
    mask[2, 2, 2] = True
    distance = signed_distance_mm(mask, (1, 1, 1))
    values = np.where(mask, 7.0, 0.0).astype(np.float32)[None]
    knots, profile = profile_of(values, distance, np.ones(mask.shape, bool), 2.0)
    assert knots[0] == -0.5
    assert profile[0, 0] == 7.0
    knots, profile = profile_of(values, distance, ~mask, 2.0)
    assert (knots.tolist(), profile.tolist()) == ([0.0], [[0.0]])


def test_texture_is_what_goes_beyond_that_of_tissue() -> None:
    where = np.ones((20, 20, 20), bool)
    white = RNG.standard_normal((2, 20, 20, 20)).astype(np.float32)
    smooth = np.zeros_like(white)
    assert np.abs(texture_beyond(white, smooth, where)).max() < 0.25  # tissue itself
    shared = RNG.standard_normal((20, 20, 20)).astype(np.float32)
    varied = white + np.array([3.0, -2.0], np.float32)[:, None, None, None] * shared
    mixing = texture_beyond(varied + 40.0, smooth, where)
    np.testing.assert_allclose(mixing @ mixing.T, [[9, -6], [-6, 4]], atol=0.4)
    where[1:] = False
    where[0, 0, 8:] = where[0, 1:] = False
    assert texture_beyond(varied, smooth, where).any()
    where[0, 0, 7] = False
    assert not texture_beyond(varied, smooth, where).any()


def test_kernels_run_on_a_device(device: OtherDevice) -> None:
    mask = ball(15, 4.5)
    distance = signed_distance_mm(mask, (1, 1, 2))
    values = RNG.standard_normal((2, 15, 15, 15)).astype(np.float32)
    ones = np.ones(mask.shape, bool)
    pairs = [
        (signed_distance_mm(device.put(mask), (1, 1, 2)), distance),
        (bump(device.put(mask), (1, 1, 1)), bump(mask, (1, 1, 1))),
        (blurred_noise(device.put(values[0]), (1, 1, 1)), blurred_noise(values[0], (1, 1, 1))),
        (lowest(device.put(values[0]), 50), lowest(values[0], 50)),
    ]
    profile = profile_of(values, distance, ones, 2.5)
    pairs.append((along_profile(device.put(distance), profile), along_profile(distance, profile)))
    for found, expected in pairs:
        np.testing.assert_allclose(device.get(found), expected, atol=1e-5)
    there = profile_of(*map(device.put, (values, distance, ones)), 2.5)
    np.testing.assert_allclose(there[1], profile[1], atol=1e-5)
    smooth = ndimage.gaussian_filter(values, (0, 1, 1, 1))
    mixing = texture_beyond(*map(device.put, (values, smooth, mask)))
    expected = texture_beyond(values, smooth, mask)
    np.testing.assert_allclose(mixing @ mixing.T, expected @ expected.T, atol=1e-5)
