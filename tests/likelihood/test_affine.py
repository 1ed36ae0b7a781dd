from __future__ import annotations

import numpy as np
import pytest
from make_sample_data import make_subject
from scipy import ndimage

from lesionsynth import nifti
from lesionsynth.domain.grid import Grid
from lesionsynth.errors import InputError
from lesionsynth.likelihood.affine import register

SHAPE, SPACING = (30, 38, 32), 3.2


@pytest.fixture(scope="module")
def reference():
    images, _, affine = make_subject(0, shape=SHAPE, spacing_mm=(SPACING,) * 3)
    return nifti.new(Grid(SHAPE, affine), images[1].astype(np.float32))


def world(degrees, scale, shift):
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag(scale)
    matrix[:3, 3] = shift
    return matrix


def moved(reference, to_moving, affine, shape=SHAPE):
    """The reference seen through `to_moving` (reference mm to moving mm) on another grid."""
    to_reference = np.linalg.inv(reference.grid.affine) @ np.linalg.inv(to_moving) @ affine
    values = ndimage.affine_transform(
        reference.values(), to_reference[:3, :3], to_reference[:3, 3], output_shape=shape, order=1
    )
    return nifti.new(Grid(shape, affine), values)


def brain_corners(reference):
    inside = np.argwhere(reference.values() > 0)
    corners = np.array(np.meshgrid(*zip(inside.min(0), inside.max(0), strict=True), indexing="ij")).reshape(
        3, -1
    )
    return reference.grid.affine @ np.vstack([corners, np.ones(8)])


def shift_mm(found, true, reference):
    return np.linalg.norm(((found - true) @ brain_corners(reference))[:3], axis=0).max()


@pytest.mark.parametrize(
    ("degrees", "scale", "shift"),
    [(0, (1, 1, 1), (0, 0, 0)), (8, (1.1, 0.95, 1.05), (5, -4, 3)), (-12, (0.9, 1.1, 1.0), (-8, 6, 0))],
)
def test_a_known_affine_is_recovered(reference, degrees, scale, shift):
    true = world(degrees, scale, shift)
    moving = moved(reference, true, reference.grid.affine)
    assert shift_mm(register(moving, reference), true, reference) < 2.0


def test_orientation_spacing_and_intensities_of_the_moving_image_do_not_matter(reference):
    true = world(6, (1.05, 1.0, 0.95), (4, 2, -3))
    affine = np.array([[0, -4.0, 0, 60.0], [0, 0, 4.0, -70.0], [-4.0, 0, 0, 60.0], [0, 0, 0, 1.0]])
    moving = moved(reference, true, affine, (30, 32, 34))
    assert shift_mm(register(moving, reference), true, reference) < 2.5
    # Intensities around zero, as in CT, have no centre of mass of their own.
    centred = nifti.new(moving.grid, moving.values() - moving.values().mean() * np.float32(1.01))
    assert shift_mm(register(centred, reference), true, reference) < 2.5


def test_a_background_that_is_no_number_is_background(reference):
    """As SPM and masked images have it; the optimizer would go on for ever."""
    true = world(5, (1, 1, 1), (3, 0, 0))
    moving = moved(reference, true, reference.grid.affine)
    holes = [nifti.new(i.grid, np.where(i.values() > 0, i.values(), np.nan)) for i in (moving, reference)]
    assert shift_mm(register(*holes), true, reference) < 2.0
    nothing = nifti.new(reference.grid, np.full(SHAPE, np.nan, np.float32))
    with pytest.raises(InputError, match="no voxel with a number"):
        register(nothing, reference)


def test_padding_of_ct_is_air(reference):
    true = world(0, (1, 1, 1), (6, 0, 0))
    moving = moved(reference, true, reference.grid.affine)
    scans = []
    for image in (moving, reference):
        air = np.where(image.values() > 0, image.values() / 10, -1000)
        air[:, :8], air[:, -3:] = -3024, -3024
        scans.append(nifti.new(image.grid, air.astype(np.float32)))
    assert shift_mm(register(*scans), true, reference) < 4.0


def test_the_result_is_the_same_on_every_run(reference):
    moving = moved(reference, world(5, (1, 1, 1), (3, 0, 0)), reference.grid.affine)
    first = register(moving, reference)
    for _ in range(4):
        np.testing.assert_array_equal(register(moving, reference), first)


def test_small_volumes_are_registered_on_fewer_levels():
    image = np.zeros((10, 11, 12), np.float32)
    image[3:7, 2:8, 4:9] = 100.0
    image[4:6, 4:6, 5:8] = 200.0
    image = ndimage.gaussian_filter(image, 0.7)
    reference = nifti.new(Grid(image.shape, np.eye(4)), image)
    affine = np.eye(4)
    affine[:3, 3] = (2.0, -1.0, 0.5)
    found = register(nifti.new(Grid(image.shape, affine), image), reference)
    centre = np.array([4.5, 4.5, 6.0, 1.0])
    np.testing.assert_allclose((found @ centre)[:3], (affine @ centre)[:3], atol=0.5)


def test_what_cannot_be_registered_is_an_input_error(reference):
    constant = nifti.new(Grid((10, 10, 10), np.eye(4)), np.full((10, 10, 10), 5.0, np.float32))
    rng = np.random.default_rng(0)
    single = nifti.new(Grid((20, 20, 1), np.eye(4)), rng.random((20, 20, 1)).astype(np.float32))
    for moving, fixed in ((constant, reference), (reference, constant), (single, single)):
        with pytest.raises(InputError, match="cannot be registered"):
            register(moving, fixed)
