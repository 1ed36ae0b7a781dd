from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lesionsynth.kernels.components import components, dilated, largest_component

masks = arrays(bool, st.tuples(*[st.integers(1, 6)] * 3), elements=st.booleans())


def as_sets(mask):
    """The components as a set of sets of voxels, whatever their numbers."""
    labels, boxes = components(mask)
    return {frozenset(map(tuple, np.argwhere(labels == n))) for n in range(1, len(boxes) + 1)}


def flooded(mask):
    """Components by flooding, 26 neighbours a voxel: slow and simple."""
    left = set(map(tuple, np.argwhere(mask)))
    found = set()
    while left:
        front = [left.pop()]
        component = set(front)
        while front:
            i, j, k = front.pop()
            near = {(i + a, j + b, k + c) for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1)} & left
            left -= near
            component |= near
            front += near
        found.add(frozenset(component))
    return found


@given(masks)
@settings(max_examples=60)
def test_components_are_those_of_a_flood_over_26_neighbours(mask):
    assert as_sets(mask) == flooded(mask)


def test_voxels_that_share_a_corner_are_one_lesion_and_a_gap_of_one_separates():
    mask = np.zeros((5, 5, 5), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[3, 1, 1] = True
    labels, boxes = components(mask)
    assert labels[0, 0, 0] == labels[1, 1, 1] == 1
    assert labels[3, 1, 1] == 2
    assert boxes == [(slice(0, 2),) * 3, (slice(3, 4), slice(1, 2), slice(1, 2))]


@given(masks)
@settings(max_examples=60)
def test_boxes_are_tight_and_hold_each_component_whole(mask):
    labels, boxes = components(mask)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels > 0, mask)
    for number, box in enumerate(boxes, start=1):
        where = np.argwhere(labels == number)
        assert [s.start for s in box] == where.min(axis=0).tolist()
        assert [s.stop for s in box] == (where.max(axis=0) + 1).tolist()


@given(masks, st.permutations(range(3)), st.sampled_from([(), (0,), (1, 2), (0, 1, 2)]))
@settings(max_examples=60)
def test_flips_and_permutations_commute(mask, order, flipped):
    turned = np.flip(mask.transpose(order), flipped)
    expected = {
        frozenset(map(tuple, np.argwhere(np.flip((labels == n).transpose(order), flipped))))
        for labels, boxes in [components(mask)]
        for n in range(1, len(boxes) + 1)
    }
    assert as_sets(turned) == expected


@given(masks)
@settings(max_examples=60)
def test_numbers_follow_the_first_voxels_and_not_the_memory_layout(mask):
    labels, boxes = components(mask)
    in_order = labels.ravel(order="C")
    firsts = [int(np.argmax(in_order == n)) for n in range(1, len(boxes) + 1)]
    assert firsts == sorted(firsts)
    np.testing.assert_array_equal(components(np.asfortranarray(mask))[0], labels)


def test_an_empty_mask_has_no_components():
    labels, boxes = components(np.zeros((3, 4, 5), bool))
    assert boxes == []
    assert labels.shape == (3, 4, 5)
    assert not labels.any()


def test_dilation_by_faces_then_edges():
    mask = np.zeros((7, 7, 7), bool)
    mask[3, 3, 3] = True
    offsets = np.argwhere(np.ones_like(mask)) - 3
    once = np.abs(offsets).sum(axis=1).reshape(mask.shape) <= 1
    np.testing.assert_array_equal(dilated(mask, 1), once)
    assert dilated(mask, 2).sum() > once.sum()
    assert dilated(mask, 2)[3, 3, 5]
    assert not dilated(mask, 2)[5, 5, 5]
    np.testing.assert_array_equal(dilated(mask, 0), mask)


@pytest.mark.parametrize(("edge", "slices"), [(1.0, 5), (1.5, 3), (2.0, 2), (6.0, 1), (0.5, 5)])
def test_dilation_goes_as_far_in_mm_along_longer_edges(edge: float, slices: int):
    mask = np.zeros((13, 13, 13), bool)
    mask[6, 6, 6] = True
    spacing = (1.0, 1.0, edge)
    grown = dilated(mask, 5, spacing)
    assert np.count_nonzero(grown[6, 6]) == 1 + 2 * slices
    in_plane = 5 if edge >= 1 else 2
    assert np.count_nonzero(grown[6, :, 6]) == np.count_nonzero(grown[:, 6, 6]) == 1 + 2 * in_plane
    for n_vox in range(5):
        assert not (dilated(mask, n_vox, spacing) & ~dilated(mask, n_vox + 1, spacing)).any()


@pytest.mark.parametrize("n_vox", [0, 1, 2, 3])
def test_dilation_is_cut_at_the_border_and_leaves_its_input(n_vox):
    mask = np.zeros((4, 4, 1), bool)
    mask[0, 0, 0] = True
    before = mask.copy()
    grown = dilated(mask, n_vox)
    assert grown.shape == mask.shape
    assert grown[min(n_vox, 3), 0, 0]
    assert not grown[n_vox + 1 :].any()
    np.testing.assert_array_equal(mask, before)


def test_the_largest_component_and_none():
    mask = np.zeros((6, 6, 6), bool)
    mask[0, 0, 0] = True
    mask[2:4, 2:4, 2:4] = True
    largest = largest_component(mask)
    assert largest.sum() == 8
    assert not largest[0, 0, 0]
    assert not largest_component(np.zeros((2, 2, 2), bool)).any()
