"""Looks and shapes against values found by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import ndimage

from lesionsynth.qc.realism.features import LESION_RINGS_MM, is_beyond, looks, margin_vox, shape

UNIT = (1.0, 1.0, 1.0)


def ball(radius: float, side: int = 31) -> np.ndarray:
    return np.linalg.norm(np.stack(np.indices((side,) * 3)) - side // 2, axis=0) <= radius


def look(image: np.ndarray, mask: np.ndarray, spacing=UNIT, **more) -> dict[str, float]:
    tissue = more.pop("tissue", np.ones(mask.shape, dtype=bool))
    more = {"inner_mm": 0.0, "rings_mm": LESION_RINGS_MM, **more}
    return looks(np.float32(image)[None], mask, tissue, [2.0], spacing, **more)


def test_the_contrast_is_in_spreads_of_the_tissue() -> None:
    mask = ball(4)
    found = look(np.where(mask, 110.0, 100.0), mask)
    assert_allclose([found["0 level"], found["0 level p5"], found["0 level -1 mm"]], 10 / 2)
    assert_allclose([found["0 level +0 mm"], found["0 level +3 mm"], found["0 spread"]], 0, atol=1e-9)


def test_a_flat_image_has_no_contrast_no_texture_and_no_seam() -> None:
    found = look(np.full((31,) * 3, 7.0), ball(3))
    assert found["0 level"] == found["0 spread"] == 0
    assert found["0 seam"] == found["0 band 0 inside"] == 1


def test_a_seam_is_steeper_than_its_surroundings_and_a_ramp_is_not() -> None:
    """Along a ramp through the whole image the gradient is the same everywhere."""
    mask = ball(5)
    ramp = np.broadcast_to(np.arange(31.0)[:, None, None], (31,) * 3)
    assert_allclose(look(ramp, mask)["0 seam"], 1)
    noise = np.random.default_rng(0).normal(0, 0.1, mask.shape)
    hard, soft = (ndimage.gaussian_filter(np.where(mask, 10.0, 0.0), sigma) + noise for sigma in (0, 1.5))
    assert look(hard, mask)["0 seam"] > 5 > look(soft, mask)["0 seam"] > 1


def test_what_goes_on_deep_inside_is_no_seam() -> None:
    mask = ball(8)
    image = np.random.default_rng(0).normal(0, 0.1, mask.shape) + np.where(ball(3), 10.0, 0.0)
    assert_allclose(look(image, mask)["0 seam"], 1, atol=0.1)


def test_of_a_grown_place_the_edge_is_that_of_the_rim() -> None:
    grown = np.where(ball(6), 10.0, 0.0) + np.random.default_rng(0).normal(0, 0.1, (31,) * 3)
    assert look(grown, ball(4), inner_mm=2.0)["0 seam"] > 3 > look(grown, ball(4))["0 seam"]


def test_coarse_voxels_are_as_wide_as_fine_ones() -> None:
    """A partial-volume rim is a property of the voxel: all widths grow with it."""
    mask, image = ball(4), np.random.default_rng(0).normal(size=(31,) * 3)
    one, other = look(image, mask), look(image, mask, (3.0, 3.0, 3.0))
    assert one.keys() == other.keys()
    assert_allclose(list(other.values()), list(one.values()), rtol=1e-6)
    assert margin_vox(UNIT) == margin_vox((3.0, 3.0, 3.0)) == (9, 9, 9)
    assert margin_vox((0.5, 0.5, 2.0)) == (16, 16, 6)


def test_only_tissue_is_looked_at() -> None:
    mask = ball(4)
    tissue = np.zeros(mask.shape, dtype=bool)
    tissue[:, :16] = True
    image = np.where(tissue, 1.0, 1e6) + mask
    found = look(image, mask, tissue=tissue | mask & tissue)
    assert_allclose(found["0 level +3 mm"], 0)


@pytest.mark.parametrize("side", [1, 2, 5])
def test_tiny_volumes_and_lesions_without_surroundings_give_numbers(side: int) -> None:
    """Nothing around, nothing but the lesion: no warning and no number that is none."""
    for mask in (np.ones((side,) * 3, dtype=bool), ball(0, side)):
        found = looks(np.ones((2, *mask.shape), np.float32), mask, mask, [0.0, 1.0], (1, 1, 4))
        assert np.isfinite(list(found.values())).all()


def test_how_alike_channels_are() -> None:
    rng = np.random.default_rng(1)
    one, other = rng.normal(size=(2, 31, 31, 31)).astype(np.float32)
    mask, tissue = ball(5), np.ones((31,) * 3, dtype=bool)
    found = looks(np.stack([one, 2 * one, other]), mask, tissue, [1, 1, 1], UNIT)
    assert_allclose(found["01 alike inside"], 1, atol=1e-6)
    assert abs(found["02 alike inside"]) < 0.2


def test_what_lies_beyond_a_blend_is_told_apart_by_name() -> None:
    names = look(np.zeros((31,) * 3), ball(3))
    beyond = {name for name in names if is_beyond(name)}
    assert {"0 level +3 mm", "0 gradient +5 mm"} <= beyond
    assert not beyond & {"0 level +2 mm", "0 level -1 mm", "0 seam", "0 level"}


def test_shape_of_a_ball() -> None:
    found = shape(ball(10), UNIT)
    assert_allclose(found["volume_mm3"], ball(10).sum())
    assert_allclose(found["sphericity"], 1, atol=0.03)
    assert_allclose([found["elongation"], found["flatness"]], 1, atol=1e-9)
    assert_allclose(found["length_mm"], 20, rtol=0.02)


def test_shape_of_a_box_by_hand() -> None:
    """N voxels in a row have the variance N^2 / 12 along it, 1 / 12 across; 3 mm is three voxels of 1 mm."""
    for mask, spacing in ((np.ones((12, 1, 1), bool), UNIT), (np.ones((4, 1, 1), bool), (3.0, 1.0, 1.0))):
        found = shape(mask, spacing)
        assert_allclose([found["elongation"], found["flatness"]], 1 / 12)
        assert_allclose(found["length_mm"], 2 * np.sqrt(5) * 12 / np.sqrt(12))
        assert found["volume_mm3"] == 12


def test_rough_shapes_are_less_of_a_ball() -> None:
    smooth = ball(8)
    rough = smooth & (np.random.default_rng(0).random(smooth.shape) < 0.9)
    assert shape(rough, UNIT)["sphericity"] < 0.8 < shape(smooth, UNIT)["sphericity"]
