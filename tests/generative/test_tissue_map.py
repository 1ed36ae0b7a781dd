from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lesionsynth.domain.case import Cohort
from lesionsynth.domain.grid import Grid
from lesionsynth.errors import InputError, LesionsynthError
from lesionsynth.generative.tissue_map import Frame, Semantics, Window
from lesionsynth.kernels.tissue import FLUID, GREY, WHITE
from tests.bank.making import TABLE, make_case
from tests.conftest import write_nifti

# i runs to the left, j upwards, k to the front; voxels of 2 x 1 x 1.5 mm.
TURNED = np.array([[-2.0, 0, 0, 10], [0, 0, 1.5, -20], [0, 1.0, 0, 5], [0, 0, 0, 1]])


def test_lesions_are_the_last_classes_and_overwrite_the_tissue():
    semantics = Semantics(None, ((FLUID,), (GREY,), (WHITE,)), (1, 2))
    tissue = np.array([[[0, 1, 2, 3, 3, 3]]], np.uint8)
    label = np.array([[[0, 0, 1, 2, 3, 4]]], np.uint16)
    assert semantics.with_lesions(tissue, label).tolist() == [[[0, 1, 4, 5, 3, 3]]]
    assert semantics.count == 6
    assert semantics.is_lesion(np.arange(6)).tolist() == [False] * 4 + [True] * 2


def test_without_label_images_the_tissue_found_is_the_map_and_that_is_said():
    tissue = np.full((4, 4, 4), GREY, np.uint8)
    tissue[0] = 0
    case = make_case(np.zeros((4, 4, 4)), tissue=tissue)
    semantics = Semantics.of(cohort_of(Path(), case), [case.files], None, ())
    assert np.array_equal(semantics.tissue_of(case), np.where(tissue == GREY, 2, 0))
    assert "fallback" in semantics.about()["tissue"]


def cohort_of(root, *cases):
    return Cohort(root, "pattern", ("T1",), TABLE, tuple(case.files for case in cases))


@pytest.fixture
def labelled(tmp_path):
    """Two cases with label images of values as FreeSurfer has them."""
    cases = []
    for name, values in (("a", [0, 2, 41, 3]), ("b", [0, 2, 42, 77])):
        cases.append(replace(make_case(np.zeros((2, 2, 4)), case=name), root=tmp_path))
        data = np.broadcast_to(np.array(values, np.int32), (2, 2, 4))
        write_nifti(tmp_path / "aseg" / f"{name}.nii.gz", data, np.eye(4))
    return cases


PATTERN = "aseg/{case}.nii.gz"


def test_each_value_of_the_label_images_of_all_cases_is_a_class(labelled, tmp_path):
    cohort = cohort_of(tmp_path, *labelled)
    semantics = Semantics.of(cohort, cohort.cases, PATTERN, ())
    assert semantics.groups == ((2,), (3,), (41,), (42,), (77,))
    assert semantics.tissue_of(labelled[0])[0, 0].tolist() == [0, 1, 3, 2]
    assert semantics.tissue_of(labelled[1])[0, 0].tolist() == [0, 1, 4, 5]
    again = Semantics.from_about(json.loads(json.dumps(semantics.about())))
    assert again == semantics


def test_values_are_merged_as_asked_and_the_others_are_background(labelled, tmp_path):
    cohort = cohort_of(tmp_path, *labelled)
    semantics = Semantics.of(cohort, cohort.cases, PATTERN, ((2, 41), (3, 42)))
    assert semantics.tissue_of(labelled[0])[0, 0].tolist() == [0, 1, 1, 2]
    assert semantics.tissue_of(labelled[1])[0, 0].tolist() == [0, 1, 2, 0]
    assert semantics.count == 1 + 2 + len(TABLE.lesion)


@pytest.mark.parametrize(
    ("data", "affine", "what"),
    [
        (np.zeros((2, 2, 5), np.int16), np.eye(4), "2x2x5"),
        (np.zeros((2, 2, 4), np.int16), np.diag([1, 1, 3.0, 1]), "affine differs"),
        (np.full((2, 2, 4), 0.5, np.float32), np.eye(4), "not whole numbers"),
        (np.full((2, 2, 4), -1, np.int16), np.eye(4), "not whole numbers"),
    ],
)
def test_label_images_that_do_not_fit_are_refused(labelled, tmp_path, data, affine, what):
    write_nifti(tmp_path / "aseg" / "a.nii.gz", data, affine)
    semantics = Semantics(PATTERN, ((2,),), (1,))
    with pytest.raises(InputError, match=what) as caught:
        semantics.tissue_of(labelled[0])
    assert "a.nii.gz" in str(caught.value)


def test_a_missing_label_image_is_named(labelled):
    with pytest.raises(LesionsynthError, match=r"nowhere.a\.nii"):
        Semantics("nowhere/{case}.nii", ((2,),), (1,)).tissue_of(labelled[0])


def test_too_many_values_ask_to_be_merged(tmp_path):
    case = replace(make_case(np.zeros((6, 5, 5))), root=tmp_path)
    write_nifti(tmp_path / "a.nii", np.arange(150, dtype=np.int16).reshape(6, 5, 5), np.eye(4))
    with pytest.raises(InputError, match="149 values") as caught:
        Semantics.of(cohort_of(tmp_path, case), [case.files], "{case}.nii", ())
    assert "classes" in caught.value.remedy


def test_a_frame_lies_along_the_world_at_its_own_spacing():
    grid = Grid((6, 8, 7), TURNED)
    frame = Frame.of(grid, 1.0, 3)
    rng = np.random.default_rng(0)
    for w in rng.integers(0, 5, (20, 3)):
        # One voxel of the network is one millimetre along x, y and z.
        world = TURNED[:3, :3] @ frame.matrix @ w
        np.testing.assert_allclose(world, w, atol=1e-9)
    slices = Frame.of(grid, 1.0, 2)
    world = TURNED[:3, :3] @ slices.matrix
    np.testing.assert_allclose(world, np.diag([1.0, 1.0, 1.0]), atol=1e-9)
    thick = Frame.of(Grid((6, 8, 7), np.diag([1.0, 1.0, 5.0, 1.0])), 1.0, 2)
    np.testing.assert_allclose(thick.matrix, np.eye(3), atol=1e-9)


def test_there_and_back_is_exact_where_nothing_is_interpolated():
    affine = TURNED.copy()
    affine[:3, :3] = np.sign(TURNED[:3, :3])
    grid = Grid((6, 8, 7), affine)
    frame = Frame.of(grid, 1.0, 3)
    rng = np.random.default_rng(1)
    image = rng.normal(size=(2, *grid.shape)).astype(np.float32)
    box = (slice(1, 5), slice(2, 8), slice(0, 4))
    part = image[(slice(None), *box)]
    window = frame.window(box)
    assert sorted(window.shape) == [4, 4, 6]
    there = frame.image(part, box, window)
    assert not np.array_equal(there.ravel(), part.ravel())
    assert np.array_equal(frame.back(there, window, box), part)
    classes = rng.integers(0, 3, (4, 6, 4)).astype(np.uint8)
    moved = frame.classes(classes, box, window)
    assert sorted(moved.ravel()) == sorted(classes.ravel())
    assert np.array_equal(frame.back(moved[None].astype(np.float32), window, box)[0], classes)


def test_there_and_back_keeps_what_is_smooth_at_another_spacing():
    grid = Grid((12, 16, 14), TURNED)
    frame = Frame.of(grid, 1.25, 3)
    whole = (slice(0, 12), slice(0, 16), slice(0, 14))
    i, j, k = np.indices(grid.shape)
    image = (np.sin(i / 3) + 0.1 * j - 0.05 * k).astype(np.float32)[None]
    window = frame.window(whole)
    back = frame.back(frame.image(image, whole, window), window, whole)
    assert np.abs(back - image)[:, 1:-1, 1:-1, 1:-1].max() < 0.1


def test_a_window_grows_evenly_and_its_box_is_cut_to_the_case():
    grid = Grid((20, 20, 20), np.diag([2.0, 2.0, 2.0, 1.0]))
    frame = Frame.of(grid, 1.0, 3)
    window = frame.window((slice(4, 6), slice(0, 1), slice(18, 20)))
    assert window == Window((8, 0, 36), (3, 1, 3))
    grown = window.at_least((7, 8, 3))
    assert grown == Window((6, -3, 36), (7, 8, 3))
    assert frame.box(grown, grid.shape) == (slice(3, 7), slice(0, 3), slice(18, 20))
