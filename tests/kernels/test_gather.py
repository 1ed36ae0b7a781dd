"""Compiled resampling against SciPy, the generic form and by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from lesionsynth.kernels.deform import (
    Warp,
    upsample,
    warp_image,
    warp_image_generic,
    warp_label,
    warp_label_generic,
    warp_mask,
    warp_onto,
    world_matrix,
)
from lesionsynth.kernels.gather import gather_image, gather_label

shapes = st.tuples(*[st.integers(1, 9)] * 3)
HERE = (np.eye(3), np.zeros(3))


def bent(seed, shape=(8, 9, 7), out=(10, 8, 11), elastic=True):
    """A warp that turns, scales and bends, an image and a label of four classes."""
    rng = np.random.default_rng(seed)
    image = rng.normal(1000, 50, (3, *shape)).astype(np.float32)
    label = ndimage.zoom(rng.integers(0, 5, [max(1, n // 2) for n in shape]), 2, order=0)
    label = np.pad(label, [(0, max(0, n - m)) for n, m in zip(shape, label.shape, strict=True)])
    label = label[tuple(slice(n) for n in shape)].astype(np.uint16)
    displacement = rng.normal(0, 0.6, (3, *out)).astype(np.float32) if elastic else None
    matrix = np.linalg.inv(
        world_matrix((True, False, True), rng.uniform(-80, 80, 3), rng.uniform(0.9, 1.7, 3))
    )
    lower = tuple(-(n // 2) for n in out)
    return image, label, Warp(matrix, np.array(shape) / 2 - 0.3, lower, out, displacement)


@given(st.integers(0, 10**6), shapes, shapes, st.booleans(), st.sampled_from([1, 3]))
@settings(max_examples=60, deadline=None)
def test_compiled_and_generic_form_agree(seed, shape, out, elastic, order):
    image, label, warp = bent(seed, shape, out, elastic)
    where = (warp.matrix, warp.offset, warp.shape, warp.displacement_vox)
    found, expected = gather_image(image, *where, order), warp_image_generic(image, warp, order)
    assert found.dtype == np.float32
    # Tolerance: single precision of values near 1000, of which a spline adds up 64.
    np.testing.assert_allclose(found, expected, atol=2e-3 if order == 3 else 5e-4, rtol=0)
    np.testing.assert_array_equal(gather_label(label, *where), warp_label_generic(label, warp))


@pytest.mark.parametrize("elastic", [False, True])
@pytest.mark.parametrize("order", [1, 3])
def test_the_device_gives_what_the_cpu_gives(device, elastic, order):
    image, label, warp = bent(3, elastic=elastic)
    there = warp if not elastic else replace(warp, displacement_vox=device.put(warp.displacement_vox))
    np.testing.assert_allclose(
        device.get(warp_image(device.put(image), there, order)), warp_image(image, warp, order), atol=2e-3
    )
    np.testing.assert_array_equal(device.get(warp_label(device.put(label), there)), warp_label(label, warp))
    mask = label > 1
    np.testing.assert_array_equal(device.get(warp_mask(device.put(mask), there)), warp_mask(mask, warp))


def test_exact_and_shrinking_warps_run_on_the_device(device):
    image, label, _ = bent(4)
    body = (slice(2, 6),) * 3
    for world in (world_matrix((True, False, False), (0, 90, 0), (1, 1, 1)), np.diag([0.5, 0.6, 1.0])):
        warp = warp_onto(np.eye(3), np.eye(3), world, (4, 4, 3), body, (2, 2, 2))
        np.testing.assert_allclose(
            device.get(warp_image(device.put(image), warp)), warp_image(image, warp), atol=2e-3
        )
        np.testing.assert_array_equal(
            device.get(warp_label(device.put(label), warp)), warp_label(label, warp)
        )


def test_an_elastic_warp_is_built_on_the_device_of_its_control_points(device):
    control = np.random.default_rng(0).normal(size=(3, 5, 6, 4))
    args = (np.eye(3), np.diag([1.0, 2.0, 0.5]), np.eye(3), (3, 3, 3), (slice(1, 5),) * 3, (2, 2, 2))
    here, there = warp_onto(*args, control, 4.0), warp_onto(*args, device.put(control), 4.0)
    np.testing.assert_allclose(device.get(there.displacement_vox), here.displacement_vox, atol=1e-6)
    assert here.displacement_vox.dtype == np.float32


def test_arrays_of_two_devices_are_refused(device):
    image, label, warp = bent(5)
    for kernel, array in ((warp_image, image), (warp_label, label)):
        with pytest.raises(TypeError, match="one library"):
            kernel(device.put(array), warp)


@given(st.integers(0, 10**6), shapes)
@settings(max_examples=40, deadline=None)
def test_cubic_interpolation_goes_through_the_voxels(seed, shape):
    image = np.random.default_rng(seed).normal(size=(2, *shape)).astype(np.float32)
    np.testing.assert_allclose(gather_image(image, *HERE, shape, None, 3), image, atol=5e-6)
    np.testing.assert_array_equal(gather_image(image, *HERE, shape, None, 1), image)


def test_linear_interpolation_by_hand():
    image = np.array([10.0, 20.0, 60.0], np.float32).reshape(1, 3, 1, 1)
    offset = np.array([-0.5, 0.0, 0.0])
    matrix = np.diag([0.5, 1.0, 1.0])
    found = gather_image(image, matrix, offset, (8, 1, 1), None, 1).ravel()
    np.testing.assert_allclose(found, [10, 10, 15, 20, 40, 60, 60, 60])


@pytest.mark.parametrize("order", [1, 3])
def test_beyond_the_input_the_edge_is_repeated(order):
    image = np.random.default_rng(0).normal(size=(1, 4, 5, 6)).astype(np.float32)
    found = gather_image(image, np.eye(3), np.array([-7.0, -7.0, -7.0]), (18, 19, 20), None, order)
    expected = np.pad(image[0], [(7, 7)] * 3, mode="edge")
    np.testing.assert_allclose(found[0], expected, atol=5e-6)


def test_channels_are_independent_and_order_in_memory_does_not_matter():
    image, label, warp = bent(6)
    where = (warp.matrix, warp.offset, warp.shape, warp.displacement_vox)
    alone = np.stack([gather_image(c[None], *where, 3)[0] for c in image])
    np.testing.assert_array_equal(gather_image(image, *where, 3), alone)
    np.testing.assert_array_equal(gather_image(np.asfortranarray(image), *where, 3), alone)
    np.testing.assert_array_equal(gather_label(np.asfortranarray(label), *where), gather_label(label, *where))


def test_a_label_ends_half_a_voxel_beyond_the_input():
    label = np.ones((2, 1, 1), np.uint8)
    u = np.array([-1.0, -0.51, -0.5, 0.0, 1.5, 1.51, 2.0, 3.0])
    displacement = np.zeros((3, u.size, 1, 1), np.float32)
    displacement[0, :, 0, 0] = u - np.arange(u.size)
    found = gather_label(label, *HERE, (u.size, 1, 1), displacement)
    assert found.ravel().tolist() == [0, 0, 1, 1, 1, 0, 0, 0]
    assert found.dtype == np.uint8


def test_upsampling_is_the_sum_of_splines():
    control = np.random.default_rng(1).normal(size=(2, 4, 5, 3))
    field = upsample(control, (9, 11, 7), (2.0, 2.5, 3.0))
    # By convolution with a cubic B-spline, which is what spline coefficients are evaluated with.
    at = np.stack(
        np.meshgrid(
            *[
                (np.arange(n) - (n - 1) / 2) / s + (c - 1) / 2
                for n, s, c in zip((9, 11, 7), (2.0, 2.5, 3.0), control.shape[1:], strict=True)
            ],
            indexing="ij",
        )
    )
    for part, expected in zip(field, control, strict=True):
        padded, shift = np.pad(expected, 3), 3.0
        np.testing.assert_allclose(
            part, ndimage.map_coordinates(padded, at + shift, order=3, prefilter=False), atol=1e-12
        )
