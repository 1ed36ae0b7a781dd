"""Lesions as cubes and back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lesionsynth.domain.lesion import ChannelStats, Lesion
from lesionsynth.generative.crops import RIM_MM, as_shown, crop_of, shape_lesion, whole_shape
from tests.sources.conftest import cube


def drop(axes: np.ndarray, shape: tuple[int, int, int], n: int = 1) -> Lesion:
    """A drop that points to the right (world x), above (z) heavier, sampled on a grid with the given axes."""
    grid = np.stack(np.meshgrid(*(np.arange(s) - (s - 1) / 2 for s in shape), indexing="ij"))
    x, y, z = np.tensordot(axes, grid, axes=1)
    inside = (y**2 + (z - 1) ** 2) < np.clip(5 - 0.6 * (x + 4), 0, None) ** 2
    inside &= (x > -4) & (x < 4)
    label = inside.astype(np.uint16)
    base = cube("a/0001", "A", 3, (2.0,))
    info = replace(
        base.info,
        axes_mm=tuple(float(v) for v in axes.ravel()),
        shape_vox=shape,
        volume_mm3=float(label.sum() * abs(np.linalg.det(axes))),
        channels=(ChannelStats(100.0, 10.0, 120.0, 1.0, 1.0),) * n,
    )
    image = np.repeat((100 + 10 * x)[None], n, axis=0).astype(np.float32)
    return Lesion(info, image, label, np.ones(shape, bool))


def test_the_same_lesion_on_other_grids_is_the_same_cube() -> None:
    one = crop_of(drop(np.eye(3), (25, 25, 25)), 32, (1,))
    flipped = crop_of(drop(np.diag([-1.0, 1.0, 1.0]), (25, 25, 25)), 32, (1,))
    turned = crop_of(drop(np.array([[0, 0, 1.0], [1.0, 0, 0], [0, -1.0, 0]]), (25, 25, 25)), 32, (1,))
    fine = crop_of(drop(0.5 * np.eye(3), (50, 50, 50)), 32, (1,))
    for other in (flipped, turned):
        np.testing.assert_array_equal(other.classes, one.classes)
        np.testing.assert_allclose(other.image, one.image, atol=1e-4)
        assert other.edge_mm == pytest.approx(one.edge_mm)
    both = 2 * np.count_nonzero(fine.classes & one.classes)
    assert both / (np.count_nonzero(fine.classes) + np.count_nonzero(one.classes)) > 0.9
    # It points to the right: the last slices along the first axis hold less than the first.
    filled = (one.classes > 0).sum(axis=(1, 2))
    held = np.flatnonzero(filled)
    assert filled[held[1]] > 2 * filled[held[-2]]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_lesion_is_not_cut_but_what_goes_beyond_it_is(sign: int) -> None:
    """As tracers make tumours, and contrast agents vessels; each channel for itself."""
    image = np.full((2, 4, 4, 4), 100, np.float32)
    lesion = np.zeros((4, 4, 4), bool)
    lesion[1] = True
    image[0, 1], image[1, 1] = 100 + sign * 500, 120
    image[:, 3, 3, 3] = 100 + sign * 4000
    shown = as_shown(image, [(100.0, 10.0), (100.0, 10.0)], lesion)
    assert (shown[0, 1] == sign * 50).all()
    assert (shown[1, 1] == 2).all()
    assert shown[:, 3, 3, 3].tolist() == [sign * 50, sign * 30]
    hot = drop(np.eye(3), (25, 25, 25))
    hot.image[0] = 100 + sign * 500.0 * hot.label
    assert (sign * crop_of(hot, 32, (1,)).image).max() > 49


@pytest.mark.parametrize("axes", [np.eye(3), np.diag([1.0, 1.0, 3.0])])
def test_volume_and_rim_are_kept(axes: np.ndarray) -> None:
    lesion = drop(axes, (25, 25, 13))
    crop = crop_of(lesion, 32, (1,))
    volume = np.count_nonzero(crop.classes) * crop.edge_mm**3
    assert volume == pytest.approx(lesion.info.volume_mm3, rel=0.01)
    held = np.nonzero(crop.classes)
    for axis in held:
        assert min(axis.min(), 31 - axis.max()) >= RIM_MM / crop.edge_mm - 1


@pytest.mark.parametrize("size", [(40, 1, 20), (60, 3, 20)])
def test_a_thin_mask_without_a_margin_is_not_smeared(size: tuple[int, int, int]) -> None:
    """As harvested from a mask, whose box ends where it does; a plate stays in the middle, all of it."""
    base = cube("a/0001", "A", 3, (), margin=0)
    label = np.ones(size, np.uint16)
    info = replace(base.info, shape_vox=size, volume_mm3=float(np.prod(size)))
    crop = crop_of(Lesion(info, np.empty((0, *size), np.float32), label, label > 0), 16, (1,))
    held = [np.flatnonzero((crop.classes > 0).any(axis=tuple({0, 1, 2} - {a}))) for a in range(3)]
    for axis, n in zip(held, size, strict=True):
        assert abs((axis[0] + axis[-1]) / 2 - 7.5) <= 0.5
        assert len(axis) <= n / crop.edge_mm + 2
    assert not isinstance(whole_shape(crop.classes), str)


def test_intensities_are_differences_in_spreads() -> None:
    crop = crop_of(drop(np.eye(3), (25, 25, 25)), 32, (1,))
    ramp = crop.image[0].mean(axis=(1, 2))
    np.testing.assert_allclose(np.diff(ramp)[5:-5], crop.edge_mm, rtol=0.05)


def test_label_values_become_classes_and_back() -> None:
    lesion = cube("a/0001", "A", 6, (2.0,), value=3)
    lesion.label[5:8, 5:8, 5:8] = 7
    crop = crop_of(lesion, 16, (3, 7))
    assert set(np.unique(crop.classes)) == {0, 1, 2}
    back = shape_lesion("x", crop.classes, crop.edge_mm, (3, 7))
    assert back.info.classes == (3, 7)
    assert back.info.volume_mm3 == pytest.approx(np.count_nonzero(crop.classes) * crop.edge_mm**3)
    assert (back.info.case, back.info.subject, back.info.channels) == ("", "", ())


def test_a_mask_alone_has_no_image() -> None:
    crop = crop_of(cube("a/0001", "A", 6, (), margin=0), 16, (1,))
    assert crop.image.shape == (0, 16, 16, 16)
    assert not crop.known.any()


def test_a_lesion_without_voxels_is_none() -> None:
    lesion = cube("a/0001", "A", 3, (2.0,))
    assert crop_of(replace(lesion, label=np.zeros_like(lesion.label)), 16, (1,)) is None


class TestWholeShape:
    def test_empty(self) -> None:
        assert whole_shape(np.zeros((8, 8, 8), np.uint8)) == "empty shape"

    def test_broken_up(self) -> None:
        classes = np.zeros((8, 8, 8), np.uint8)
        classes[1:3, 1:3, 1:3] = classes[5:7, 5:7, 5:7] = 1
        assert whole_shape(classes) == "broken-up shape"

    def test_cut_off(self) -> None:
        classes = np.zeros((8, 8, 8), np.uint8)
        classes[0:4, 2:4, 2:4] = 1
        assert whole_shape(classes) == "cut-off shape"

    def test_crumbs_are_left_out(self) -> None:
        classes = np.zeros((12, 12, 12), np.uint8)
        classes[2:8, 2:8, 2:8] = 2
        classes[10, 10, 10] = 1
        kept = whole_shape(classes)
        assert not isinstance(kept, str)
        classes[10, 10, 10] = 0
        np.testing.assert_array_equal(kept, classes)
