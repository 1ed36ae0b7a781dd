"""Signed distances below a limit, by hand and against whole-volume transforms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from lesionsynth.kernels.carve import (
    carved,
    carved_of_all,
    carving_box,
    deepest_mm,
    deepest_of_all_mm,
    distance_generic,
    distance_within,
)
from tests.fake_device import OtherDevice

ANISOTROPIC = (0.7, 1.3, 2.9)


def published(label: NDArray[Any], limit_mm: float, spacing_mm: Sequence[float]) -> NDArray[np.bool_]:
    """The region as the paper's script defines it, over the whole volume."""
    inside = ndimage.distance_transform_edt(label, sampling=spacing_mm)
    outside = ndimage.distance_transform_edt(1 - label.astype(float), sampling=spacing_mm)
    return np.asarray(np.where(label, -inside, outside) < limit_mm)


def blobs(seed: int, shape: tuple[int, int, int] = (17, 14, 11)) -> NDArray[np.uint16]:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.2)
    return (noise > np.quantile(noise, 0.85)).astype(np.uint16)


def test_a_line_by_hand() -> None:
    lesion = np.zeros((9, 1, 1), bool)
    lesion[2:7] = True  # depths 1, 2, 3, 2, 1 voxels of 2 mm
    spacing = (2.0, 1.0, 1.0)
    assert deepest_mm(lesion, spacing) == 6.0
    assert np.flatnonzero(carved(lesion, -2.0, spacing)).tolist() == [3, 4, 5]
    assert np.flatnonzero(carved(lesion, -1.9, spacing)).tolist() == [2, 3, 4, 5, 6]
    assert np.flatnonzero(carved(lesion, 0.0, spacing)).tolist() == [2, 3, 4, 5, 6]
    assert np.flatnonzero(carved(lesion, 2.0, spacing)).tolist() == [2, 3, 4, 5, 6]
    assert np.flatnonzero(carved(lesion, 2.1, spacing)).tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_nothing_and_everything() -> None:
    empty, full = np.zeros((4, 4, 4), bool), np.ones((4, 4, 4), bool)
    assert deepest_mm(empty, (1.0, 1.0, 1.0)) == deepest_mm(full, (1.0, 1.0, 1.0)) == 0.0
    for limit in (-1.0, 0.0, 1.0):
        assert not carved(empty, limit, (1.0, 1.0, 1.0)).any()
        assert carved(full, limit, (1.0, 1.0, 1.0)).all()
    assert carved_of_all(empty.astype(np.uint16), 1.0, (1.0, 1.0, 1.0))[1].size == 0
    assert deepest_of_all_mm(empty.astype(np.uint16), (1.0, 1.0, 1.0)) == 0.0


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), ANISOTROPIC, (10.0, 1.0, 1.0)])
def test_distance_is_that_of_a_whole_transform_within_its_reach(spacing: tuple[float, float, float]) -> None:
    mask = blobs(3) > 0
    exact = distance_generic(mask, spacing)
    for reach in (0.5, 2.9, 7.0):
        found = distance_within(mask, reach, spacing)
        near = exact <= reach
        assert np.array_equal(found[near], exact[near])
        assert (found[~near] > reach).all()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    share=st.floats(-0.5, 1.0),
    spacing=st.sampled_from([(1.0, 1.0, 1.0), ANISOTROPIC, (1.0, 1.0, 5.0)]),
)
def test_boxes_give_the_region_of_the_whole_volume(
    seed: int, share: float, spacing: tuple[float, float, float]
) -> None:
    label = blobs(seed)
    depth = deepest_of_all_mm(label, spacing)
    assert depth == ndimage.distance_transform_edt(label, sampling=spacing).max()
    box, region = carved_of_all(label, share * depth, spacing)
    whole = np.zeros(label.shape, bool)
    whole[box] = region
    assert np.array_equal(whole, published(label, share * depth, spacing))


def test_outside_distances_are_measured_to_label_1_alone_as_in_the_script() -> None:
    label = blobs(5)
    label[(slice(None), slice(None), slice(0, 5))] *= 2
    assert set(np.unique(label)) == {0, 1, 2}
    limit = 0.8 * deepest_of_all_mm(label, ANISOTROPIC)
    box, region = carved_of_all(label, limit, ANISOTROPIC)
    whole = np.zeros(label.shape, bool)
    whole[box] = region
    assert np.array_equal(whole, published(label, limit, ANISOTROPIC))
    assert not np.array_equal(whole, published(label > 0, limit, ANISOTROPIC))


def test_a_lesion_at_the_border_of_the_volume_has_no_outside_there() -> None:
    label = np.zeros((6, 5, 5), np.uint16)
    label[:3] = 1
    assert deepest_of_all_mm(label, (1.0, 1.0, 1.0)) == 3.0
    box, region = carved_of_all(label, -2.5, (1.0, 1.0, 1.0))
    assert np.flatnonzero(region.any(axis=(1, 2))).tolist() == [0]
    assert box[0].start == 0


def test_carving_box_reaches_as_far_as_the_limit() -> None:
    box = (slice(4, 6), slice(0, 2), slice(3, 4))
    wide = (slice(0, 10), slice(0, 4), slice(2, 5))
    assert carving_box(box, 3.5, (1.0, 2.0, 5.0), (20, 20, 20)) == wide
    assert carving_box(box, -3.5, (1.0, 2.0, 5.0), (20, 20, 20)) == (slice(3, 7), slice(0, 3), slice(2, 5))


def test_the_device_gives_the_same_region(device: OtherDevice) -> None:
    lesion = blobs(7) > 0
    for limit in (-1.0, 0.0, 2.2):
        on_device = carved(device.put(lesion), limit, ANISOTROPIC)
        assert np.array_equal(device.get(on_device), carved(lesion, limit, ANISOTROPIC))
    deepest = deepest_mm(lesion, ANISOTROPIC)
    assert deepest_mm(device.put(lesion), ANISOTROPIC) == pytest.approx(deepest, rel=1e-12)
