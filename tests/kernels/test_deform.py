from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from lesionsynth.domain.grid import bounding_box
from lesionsynth.kernels.deform import (
    Warp,
    draw_control_mm,
    upsample,
    warp_image,
    warp_label,
    warp_mask,
    warp_onto,
    world_matrix,
)

RAS = np.eye(3)
LPS = np.diag([-1.0, -1.0, 1.0])
STILL = world_matrix((False,) * 3, (0.0,) * 3, (1.0,) * 3)

flips = st.tuples(*[st.booleans()] * 3)
right_angles = st.tuples(*[st.sampled_from([0.0, 90.0, 180.0, 270.0, -90.0])] * 3)
angles = st.tuples(*[st.floats(-89, 89)] * 3)
storage = st.tuples(st.permutations(range(3)), flips)


def axes_stored(order, flipped, spacing_mm=1.0):
    """3x3 part of the affine of a RAS volume stored with permuted and flipped axes."""
    return np.eye(3)[:, list(order)] * np.where(flipped, -1.0, 1.0) * spacing_mm


def blob(shape=(9, 8, 7), seed=0, margin=2):
    """An asymmetric label of two classes with `margin` empty voxels around, and an image."""
    rng = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint16)
    inner = tuple(slice(margin, n - margin) for n in shape)
    label[inner] = rng.integers(0, 3, size=label[inner].shape)
    label[inner][0, 0, 0] = label[inner][-1, -1, -1] = 1
    return label, rng.normal(size=(2, *shape)).astype(np.float32)


def onto(label, donor_axes=RAS, host_axes=RAS, world=STILL, centre=None, margin=1, **elastic):
    centre = [n // 2 for n in label.shape] if centre is None else centre
    return warp_onto(donor_axes, host_axes, world, centre, bounding_box(label > 0), [margin] * 3, **elastic)


def in_world(mask, axes, offset):
    """World positions of the true voxels, relative to voxel `offset`, as a set."""
    return {tuple(np.round(p, 6) + 0.0) for p in (np.argwhere(mask) - offset) @ axes.T}


@given(flips, angles, st.tuples(*[st.floats(0.5, 1.8)] * 3))
def test_world_matrix_is_a_rotation_times_flips_and_scales(flipped, degrees, scale):
    matrix = world_matrix(flipped, degrees, scale)
    turn = matrix / np.array(scale) * np.where(flipped, -1.0, 1.0)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("degrees", "start", "end"),
    [((90, 0, 0), "y", "z"), ((0, 90, 0), "z", "x"), ((0, 0, 90), "x", "y")],
)
def test_positive_angles_turn_by_the_right_hand_rule(degrees, start, end):
    axes = dict(zip("xyz", np.eye(3), strict=True))
    turned = world_matrix((False,) * 3, degrees, (1, 1, 1)) @ axes[start]
    np.testing.assert_allclose(turned, axes[end], atol=1e-12)


def test_scale_and_flip_come_before_the_rotation():
    matrix = world_matrix((True, False, False), (0, 0, 90), (2, 1, 1))
    np.testing.assert_allclose(matrix @ [1, 0, 0], [0, -2, 0], atol=1e-12)


def test_the_identity_returns_every_voxel():
    label, image = blob()
    warp = onto(label)
    assert warp.is_exact
    inner = bounding_box(label > 0)
    assert warp.shape == tuple(s.stop - s.start + 2 for s in inner)
    where = tuple(slice(s.start - 1, s.stop + 1) for s in inner)
    np.testing.assert_array_equal(warp_label(label, warp), label[where])
    np.testing.assert_array_equal(warp_image(image, warp), image[(slice(None), *where)])
    np.testing.assert_array_equal(warp_mask(label > 0, warp), label[where] > 0)


@given(flips, right_angles, st.integers(0, 5))
@settings(max_examples=50)
def test_flips_and_right_angles_copy_voxels_bit_for_bit(flipped, degrees, seed):
    label, image = blob(seed=seed)
    world = world_matrix(flipped, degrees, (1, 1, 1))
    warp = onto(label, world=world)
    assert warp.is_exact
    turn = np.rint(world).astype(int)
    centre = np.array([n // 2 for n in label.shape])
    new_label, new_image = warp_label(label, warp), warp_image(image, warp)
    assert (new_label > 0).sum() == (label > 0).sum()
    for voxel in np.argwhere(label > 0):
        i, j, k = turn @ (voxel - centre) - warp.lower
        assert new_label[i, j, k] == label[tuple(voxel)]
        np.testing.assert_array_equal(new_image[:, i, j, k], image[(slice(None), *voxel)])


@given(flips, right_angles)
@settings(max_examples=40)
def test_exact_moves_lose_nothing_of_a_lesion_that_fills_its_crop(flipped, degrees):
    # As at the border of a volume, where there is no margin; the affines are as rounded as a float32 header.
    axes = np.diag([0.7, 0.7, 0.7]) @ world_matrix((False,) * 3, (12.3, 0, 4.5), (1, 1, 1))
    donor = axes.astype(np.float32).astype(np.float64)
    label = np.ones((3, 4, 5), np.uint16)
    world = axes @ world_matrix(flipped, degrees, (1, 1, 1)) @ np.linalg.inv(axes)
    warp = onto(label, donor, axes, world)
    assert warp.is_exact
    assert (warp_label(label, warp) > 0).sum() == label.size
    assert warp_mask(label > 0, warp).sum() == label.size


def test_a_shift_by_half_a_voxel_is_not_exact():
    label, _ = blob()
    assert onto(label, centre=(4.0, 4.0, 3.0)).is_exact
    assert not onto(label, centre=(4.5, 4.0, 3.0)).is_exact
    assert not onto(label, world=world_matrix((False,) * 3, (0, 0, 0), (2, 1, 1))).is_exact
    assert not onto(label, world=world_matrix((False,) * 3, (0, 0, 45), (1, 1, 1))).is_exact


def l_shape():
    """Three arms of different lengths along +x, +y, +z: no mirror image of it fits on itself."""
    mask = np.zeros((7, 7, 7), bool)
    mask[1:6, 1, 1] = mask[1, 1:5, 1] = mask[1, 1, 1:3] = True
    return mask


@given(storage, storage)
@settings(max_examples=50)
def test_a_lesion_keeps_its_shape_in_the_world_whatever_the_storage(donor, host):
    ras = l_shape()
    (order, flipped), host_axes = donor, axes_stored(*host)
    stored = np.flip(ras.transpose(order), [a for a in range(3) if flipped[a]]).astype(np.uint16)
    centre = np.array([5 if f else 1 for f in flipped])  # the corner of the L, voxel (1, 1, 1) in RAS
    donor_axes = axes_stored(order, flipped)
    assert in_world(stored > 0, donor_axes, centre) == in_world(ras, RAS, np.array([1, 1, 1]))
    warp = onto(stored, donor_axes, host_axes, centre=centre)
    assert warp.is_exact
    moved = warp_label(stored, warp)
    assert in_world(moved > 0, host_axes, -np.array(warp.lower)) == in_world(ras, RAS, np.array([1, 1, 1]))


@given(storage, flips, angles)
@settings(max_examples=20, deadline=None)
def test_the_same_pose_gives_the_same_world_shape_on_hosts_of_any_storage(host, flipped, degrees):
    label = ndimage.zoom(l_shape().astype(np.uint16), 2, order=0)
    world = world_matrix(flipped, degrees, (1.1, 0.9, 1.0))
    one = onto(label, world=world)
    axes = axes_stored(*host)
    two = onto(label, host_axes=axes, world=world)
    assert in_world(warp_label(label, one) > 0, RAS, -np.array(one.lower)) == in_world(
        warp_label(label, two) > 0, axes, -np.array(two.lower)
    )


def sphere(radius, spacing_mm=(1.0, 1.0, 1.0), margin=3):
    half = [int(np.ceil(radius / s)) + margin for s in spacing_mm]
    grid = np.meshgrid(
        *[np.arange(-h, h + 1) * s for h, s in zip(half, spacing_mm, strict=True)], indexing="ij"
    )
    return (np.linalg.norm(grid, axis=0) <= radius).astype(np.uint16)


@given(st.tuples(*[st.floats(0.7, 1.5)] * 3), angles)
@settings(max_examples=25, deadline=None)
def test_volume_changes_by_the_product_of_the_scales(scale, degrees):
    label = sphere(12.0)
    warped = warp_label(label, onto(label, world=world_matrix((False,) * 3, degrees, scale)))
    assert (warped > 0).sum() == pytest.approx(label.sum() * np.prod(scale), rel=0.08)  # lattice effects


@pytest.mark.parametrize(
    ("donor_mm", "host_mm"),
    [
        ((1, 1, 1), (0.7, 0.7, 0.7)),
        ((1, 1, 3), (1, 1, 1)),
        ((0.5, 0.5, 0.5), (1, 2, 0.8)),
        ((1, 3, 1), (3, 1, 1)),
    ],
)
def test_volume_in_mm3_survives_a_change_of_spacing(donor_mm, host_mm):
    label = sphere(9.0, donor_mm)
    warped = warp_label(label, onto(label, np.diag(donor_mm).astype(float), np.diag(host_mm).astype(float)))
    before, after = label.sum() * np.prod(donor_mm), (warped > 0).sum() * np.prod(host_mm)
    assert after == pytest.approx(before, rel=0.06)


@given(
    st.integers(0, 9),
    flips,
    angles,
    st.tuples(*[st.floats(0.5, 1.8)] * 3),
    st.tuples(*[st.sampled_from([0.6, 1.0, 2.0, 5.0])] * 3),
    st.tuples(*[st.sampled_from([0.6, 1.0, 2.0])] * 3),
)
@settings(max_examples=40, deadline=None)
def test_the_box_holds_the_whole_deformed_body(seed, flipped, degrees, scale, donor_mm, host_mm):
    label, _ = blob(seed=seed)
    world = world_matrix(flipped, degrees, scale)
    axes = np.diag(donor_mm).astype(float), np.diag(host_mm).astype(float)
    tight, wide = onto(label, *axes, world, margin=1), onto(label, *axes, world, margin=6)
    outside = warp_label(label, wide)
    outside[5:-5, 5:-5, 5:-5] = 0
    assert not outside.any()
    np.testing.assert_array_equal(warp_label(label, tight), warp_label(label, wide)[5:-5, 5:-5, 5:-5])


def test_labels_are_neither_invented_nor_torn():
    label = np.zeros((11, 11, 11), np.uint16)
    label[2:6, 2:9, 2:9], label[6:9, 2:9, 2:9] = 1, 7
    warped = warp_label(label, onto(label, world=world_matrix((False,) * 3, (20, -15, 33), (1.2, 1.2, 1.2))))
    assert set(np.unique(warped)) == {0, 1, 7}
    for value in (1, 7):
        assert ndimage.label(warped == value, np.ones((3, 3, 3)))[1] == 1
    # Between two classes there is no gap: their union is what it would be if they were one.
    union = warp_label(
        (label > 0).astype(np.uint16),
        onto(label, world=world_matrix((False,) * 3, (20, -15, 33), (1.2, 1.2, 1.2))),
    )
    np.testing.assert_array_equal(warped > 0, union > 0)


def test_labels_are_smoother_than_nearest_neighbour():
    label = sphere(4.6)
    warp = onto(label, world=world_matrix((False,) * 3, (0, 0, 0), (3.0, 3.0, 3.0)))
    middle = np.array(label.shape).reshape(3, 1, 1, 1) // 2
    truth = np.linalg.norm(warp.coordinates() - middle, axis=0) <= 4.6
    nearest = ndimage.map_coordinates(label, warp.coordinates(), order=0) > 0
    wrong = np.count_nonzero((warp_label(label, warp) > 0) != truth)
    assert wrong < 0.7 * np.count_nonzero(nearest != truth)


def test_the_strongest_class_wins_where_the_lesion_reaches_one_half():
    label = np.array([0, 1, 2, 0], np.uint16).reshape(4, 1, 1)
    u = np.array([0.01, 0.7, 1.0, 1.5, 1.8, 2.8, 2.99, 3.01])
    displacement = np.zeros((3, u.size, 1, 1))
    displacement[0, :, 0, 0] = u - np.arange(u.size)
    warp = Warp(np.eye(3), np.zeros(3), (0, 0, 0), (u.size, 1, 1), displacement)
    # Between 1 and 2 the lower value wins.
    assert warp_label(label, warp).ravel().tolist() == [0, 1, 1, 1, 2, 0, 0, 0]


def test_ties_between_two_donor_voxels_belong_to_the_lesion_on_both_sides():
    label = np.zeros((7, 1, 1), np.uint16)
    label[2:5] = 1
    for flipped in (False, True):
        world = world_matrix((flipped, False, False), (0, 0, 0), (1, 1, 1))
        warp = onto(label, np.diag([2.0, 1, 1]), RAS, world)
        assert (warp_label(label, warp)[:, 1, 1] > 0).tolist() == [False] + [True] * 7 + [False]
        np.testing.assert_array_equal(warp_mask(label > 0, warp), warp_label(label, warp) > 0)


def test_a_lesion_at_the_border_keeps_the_outer_half_of_its_voxels():
    label = np.ones((4, 4, 4), np.uint16)
    warp = onto(label, world=world_matrix((False,) * 3, (0, 0, 0), (5, 5, 5)), centre=(0, 0, 0))
    warped = warp_label(label, warp)
    line = np.flatnonzero(warped[:, warped.shape[1] // 2, warped.shape[2] // 2]) + warp.lower[0]
    assert line.min() == -2
    assert line.max() == 17
    line = warp_label(np.ones((2, 2, 1), np.uint16), onto(np.ones((2, 2, 1), np.uint16), centre=(0, 0, 0)))
    assert (line > 0).sum() == 4


@given(flips, st.permutations(range(3)), angles)
@settings(max_examples=15, deadline=None)
def test_cubic_resampling_reproduces_smooth_fields(flipped, order, degrees):
    # Cubic splines reproduce a linear ramp exactly, away from the crop's edge.
    shape = (24, 24, 24)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")).astype(np.float32)
    image = (2 * index[0] - index[1] + 0.5 * index[2])[None]
    label = np.zeros(shape, np.uint16)
    label[10:14, 10:14, 10:14] = 1
    axes = axes_stored(order, flipped, 0.8)
    warp = onto(label, RAS, axes, world_matrix((False,) * 3, degrees, (1, 1, 1)))
    i, j, k = where = warp.coordinates()
    inside = ((where > 6) & (where < 17)).all(axis=0)
    assert inside.any()
    np.testing.assert_allclose(warp_image(image, warp)[0][inside], (2 * i - j + 0.5 * k)[inside], atol=1e-3)


def test_beyond_the_crop_images_repeat_their_edge_and_masks_end():
    image = np.full((1, 3, 3, 3), 7.0, np.float32)
    label = np.ones((3, 3, 3), np.uint16)
    warp = onto(label, margin=4, world=world_matrix((False,) * 3, (0, 0, 20), (1, 1, 1)))
    np.testing.assert_allclose(warp_image(image, warp), 7.0, rtol=1e-6)
    assert warp_mask(label > 0, warp).sum() < 40


def test_one_slice_donors_can_be_moved():
    label = np.zeros((6, 6, 1), np.uint16)
    label[2:4, 1:5] = 3
    image = np.arange(36, dtype=np.float32).reshape(1, 6, 6, 1)
    warp = onto(label, world=world_matrix((True, False, False), (0, 0, 90), (1, 1, 1)))
    warped = warp_label(label, warp)
    assert (warped == 3).sum() == 8
    assert set(warp_image(image, warp)[0][warped == 3]) == set(image[0][label == 3])
    tilted = onto(label, world=world_matrix((False,) * 3, (0, 0, 30), (1.2, 1.2, 1.0)))
    assert (warp_label(label, tilted) == 3).any()
    assert np.isfinite(warp_image(image, tilted)).all()


def test_a_single_voxel_can_be_moved_onto_a_coarser_grid():
    label = np.zeros((5, 5, 5), np.uint16)
    label[2, 2, 2] = 1
    warped = warp_label(label, onto(label, host_axes=np.diag([3.0, 3.0, 3.0])))
    assert (warped > 0).sum() == 1


def test_warps_do_not_change_what_they_are_given():
    label, image = blob()
    before = label.copy(), image.copy()
    warp = onto(label, world=world_matrix((True, False, False), (10, 0, 0), (1.1, 1, 1)))
    warp_label(label, warp), warp_image(image, warp), warp_mask(label > 0, warp)
    np.testing.assert_array_equal(label, before[0])
    np.testing.assert_array_equal(image, before[1])


def test_control_points_of_one_value_are_a_shift_and_are_felt_in_mm():
    control = np.zeros((3, 8, 8, 8))
    control[0] = 1.5
    field = upsample(control, (10, 10, 10), (3.0, 3.0, 3.0))
    np.testing.assert_allclose(field[0], 1.5)
    assert not field[1:].any()
    label = sphere(3.0)
    axes = np.diag([-0.5, -0.5, 1.5])
    warp = onto(label, host_axes=axes, margin=4, control_mm=control, control_spacing_mm=4.0)
    middle = tuple(n // 2 for n in warp.shape)
    np.testing.assert_allclose(warp.displacement_vox[(slice(None), *middle)], (3.0, 0, 0), atol=1e-6)
    assert not warp.is_exact
    # Every host voxel looks 1.5 mm further along the host's first axis, so the lesion comes 1.5 mm nearer.
    still = onto(label, host_axes=axes, margin=4)
    where = [np.argwhere(warp_label(label, w) > 0).mean(axis=0) + w.lower for w in (still, warp)]
    np.testing.assert_allclose(where[1] - where[0], (-3.0, 0, 0), atol=1e-9)


def test_control_points_are_cubic_splines_that_sum_to_one():
    field = upsample(np.ones((1, 9, 9, 9)), (11, 12, 13), (2.0, 3.0, 4.0))
    np.testing.assert_allclose(field[0][2:-2, 2:-2, 2:-2], 1.0)
    one = np.zeros((1, 5, 5, 5))
    one[0, 2, 2, 2] = 1.0
    bump = upsample(one, (17, 17, 17), (4.0, 4.0, 4.0))[0]
    assert bump[8, 8, 8] == pytest.approx((2 / 3) ** 3)
    assert bump[12, 8, 8] == pytest.approx((1 / 6) * (2 / 3) ** 2)
    assert bump[16, 8, 8] == 0.0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("magnitude", [0.5, 1.5, 4.0, 50.0])
def test_elastic_fields_do_not_fold_anywhere_on_any_grid(seed, magnitude):
    spacing = 8.0
    control = draw_control_mm(np.random.default_rng(seed), (12.0, 9.0, 15.0), spacing, magnitude)
    shape = [int((n + 4) * spacing) for n in control.shape[1:]]
    field = upsample(control, shape, [spacing] * 3)
    assert not field[:, [0, -1]].any()  # all of it is in the box
    jacobian = np.stack([np.stack(np.gradient(f), axis=-1) for f in field], axis=-2) + np.eye(3)
    assert np.linalg.det(jacobian).min() > 0.05


@pytest.mark.parametrize("axes", [RAS, LPS, axes_stored((2, 0, 1), (True, False, True), 0.9)])
def test_elastic_warps_are_one_to_one_on_any_host(axes):
    control = draw_control_mm(np.random.default_rng(5), (14.0, 14.0, 14.0), 6.0, 2.0)
    label = sphere(7.0)
    warp = onto(label, host_axes=axes, margin=8, control_mm=control, control_spacing_mm=6.0)
    steps = np.stack([np.stack(np.gradient(c), axis=-1) for c in warp.coordinates()], axis=-2)
    volume = np.linalg.det(steps) * np.sign(np.linalg.det(axes))
    assert volume.min() > 0
    assert ndimage.label(warp_label(label, warp))[1] == 1


def test_no_magnitude_is_no_displacement():
    assert not draw_control_mm(np.random.default_rng(0), (10, 10, 10), 5.0, 0.0).any()


@given(
    st.tuples(*[st.floats(0.5, 1.8)] * 3),
    angles,
    flips,
    st.floats(0.8, 1.25),
    st.integers(0, 9),
    st.tuples(*[st.sampled_from([0.7, 1.0, 2.0])] * 3),
)
@settings(max_examples=25, deadline=None)
def test_volume_is_that_of_the_map_whatever_scales_fit_and_bends(scale, degrees, flipped, fit, seed, host_mm):
    # What is counted is what is there: the Jacobian of the inverse map, summed over the label, gives it back.
    label = sphere(8.0)
    world = world_matrix(flipped, degrees, [s * fit for s in scale])
    control = draw_control_mm(np.random.default_rng(seed), (25.0,) * 3, 8.0, 1.0)
    bend = int(np.ceil(np.abs(control).max() / min(host_mm)))
    warp = onto(
        label,
        host_axes=np.diag(host_mm),
        world=world,
        margin=bend + 2,
        control_mm=control,
        control_spacing_mm=8.0,
    )
    warped = warp_label(label, warp) > 0
    assume(np.count_nonzero(warped) > 100)  # so few voxels of a lattice tell no volume
    assert not warped[0].any()
    assert not warped[:, :, -1].any()
    steps = np.stack([np.stack(np.gradient(c), axis=-1) for c in warp.coordinates()], axis=-2)
    jacobian = np.abs(np.linalg.det(steps))
    assert jacobian.min() > 0
    assert jacobian[warped].sum() == pytest.approx(label.sum(), rel=0.12)  # lattice effects


def fine_stripes(period_vox=2.2):
    """A pattern finer than a coarse grid can hold, around a level of 100."""
    i = np.arange(60)
    stripes = np.sin(2 * np.pi * i / period_vox)[:, None, None]
    return np.broadcast_to(100 + 10 * stripes, (60, 12, 12)).astype(np.float32)[None]


def test_a_fine_donor_does_not_alias_on_a_coarser_host():
    label = np.zeros((60, 12, 12), np.uint16)
    label[6:54, 3:9, 3:9] = 1
    image = fine_stripes()
    coarse = onto(label, host_axes=np.diag([3.0, 1.0, 1.0]), margin=0)
    across = warp_image(image, coarse)[0]
    assert across[2:-2].std() < 1.5  # 7.1 without smoothing
    assert across.mean() == pytest.approx(100, abs=0.5)
    # Along the axes that do not shrink, and at ratios near one, nothing is smoothed.
    along = warp_image(image, onto(label, host_axes=np.diag([1.0, 3.0, 3.0]), margin=0))[0]
    assert along.std() == pytest.approx(image.std(), rel=0.05)
    slightly = onto(label, host_axes=np.diag([1.25, 1.0, 1.0]), margin=0)
    assert warp_image(image, slightly)[0].std() > 0.7 * image.std()


@pytest.mark.parametrize("degrees", [(0, 0, 90), (90, 0, 0)])
def test_smoothing_follows_the_axis_that_shrinks(degrees):
    label = np.zeros((60, 12, 12), np.uint16)
    label[6:54, 3:9, 3:9] = 1
    host = np.diag([1.0, 3.0, 1.0])
    turned = warp_image(
        fine_stripes(),
        onto(label, host_axes=host, world=world_matrix((False,) * 3, degrees, (1, 1, 1)), margin=0),
    )[0]
    lies_along = degrees == (0, 0, 90)  # the stripes then change along the coarse axis
    middle = turned[tuple(slice(n // 4, n - n // 4) for n in turned.shape)]
    assert (middle.std() < 1.5) == lies_along


def test_a_shrunk_lesion_keeps_its_contrast_and_level():
    label = sphere(8.0, margin=6)
    image = (100.0 + 40.0 * (label > 0))[None].astype(np.float32)
    warp = onto(label, world=np.eye(3) * 0.5, margin=3)
    warped, inside = warp_image(image, warp)[0], warp_label(label, warp) > 0
    assert warped[ndimage.binary_erosion(inside, iterations=2)].mean() == pytest.approx(140.0, abs=0.5)
    assert warped[0].mean() == pytest.approx(100.0, abs=0.5)
    assert warped.min() > 98
    assert warped.max() < 142
