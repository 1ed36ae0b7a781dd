from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lesionsynth.domain.case import CaseFiles, Cohort, LabelTable
from lesionsynth.errors import InputError
from lesionsynth.host import Known, TissueSpec, load_case, side_file
from lesionsynth.kernels.components import dilated
from lesionsynth.kernels.tissue import FLUID, GREY, OUTSIDE, VENTRICLE, WHITE
from tests.conftest import write_nifti

SHAPE = (16, 17, 18)
VALUES = {"background": 0, "lesion": 1, "organ": 2, "other": 3, "void": 4, "large": 70000}
ROLES = dict(zip(VALUES, ("background", "lesion", "organ", "protected", "ignore", "lesion"), strict=True))
NO_ORGAN = {**ROLES, "organ": "background"}


@pytest.fixture
def make(tmp_path):
    """Write one case and return (files, cohort)."""

    def write(images=None, label=None, roles=NO_ORGAN, channels=("CT",), affines=None):
        rng = np.random.default_rng(0)
        images = (
            [rng.normal(100, 10, SHAPE).astype(np.float32) for _ in channels] if images is None else images
        )
        label = np.zeros(SHAPE, np.uint8) if label is None else label
        affines = affines or [np.eye(4)] * (len(images) + 1)
        for n, (image, affine) in enumerate(zip([*images, label], affines, strict=True)):
            write_nifti(tmp_path / f"{n}.nii.gz", image, affine)
        paths = [tmp_path / f"{n}.nii.gz" for n in range(len(images) + 1)]
        files = CaseFiles("a", "A", tuple(paths[:-1]), paths[-1])
        return files, Cohort(tmp_path, "x", tuple(channels), LabelTable(VALUES, roles), (files,))

    return write


def lesion_at(box, value=1, dtype=np.uint8):
    label = np.zeros(SHAPE, dtype)
    label[box] = value
    return label


BOX = (slice(3, 5), slice(4, 6), slice(5, 7))


def nan_at(box, dtype=np.float32):
    image = np.random.default_rng(0).normal(100, 10, SHAPE).astype(dtype)
    image[box] = np.nan
    return image


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_voxels_without_a_number_are_outside_and_read_as_the_least_intensity(make, dtype):
    first, second = nan_at(BOX, dtype), nan_at((0, 0, slice(0, 3)), dtype)
    second[0, 1, 1] = -np.inf
    case = load_case(*make([first, second], channels=("CT", "MR")), TissueSpec())
    missing = ~np.isfinite(first) | ~np.isfinite(second)
    np.testing.assert_array_equal(case.missing, missing)
    assert (case.tissue[missing] == OUTSIDE).all()
    assert (case.tissue[~missing] == WHITE).mean() > 0.9
    assert case.untouchable[missing].all()
    for image, raw, values in zip(case.images, (first, second), case.values(), strict=True):
        np.testing.assert_array_equal(image.raw, raw)  # kept as they are
        finite = raw[np.isfinite(raw)].astype(np.float32)
        np.testing.assert_array_equal(values[np.isfinite(raw)], finite)
        assert (values[~np.isfinite(raw)] == finite.min()).all()


def test_a_brain_on_a_background_of_nan_is_found(make, phantoms):
    images, label, affine = phantoms[0]
    zero = load_case(*make(list(images), label, channels=("FLAIR", "T1"), affines=[affine] * 3), TissueSpec())
    marked = [np.where(zero.tissue == OUTSIDE, np.nan, i).astype(np.float32) for i in images]
    case = load_case(*make(marked, label, channels=("FLAIR", "T1"), affines=[affine] * 3), TissueSpec())
    assert case.tissue_kind == "mixture"
    assert (case.tissue == zero.tissue).mean() > 0.99
    assert np.isfinite(case.tissue_stats).all()


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_constant_and_empty_channels_are_no_trouble(make, value):
    case = load_case(*make([np.full(SHAPE, value, np.float32)], lesion_at(BOX)), TissueSpec())
    assert case.tissue_kind == "mask"
    assert case.tissue_stats == [(value, 0.0)]


def test_what_is_known_is_not_computed_again(make):
    case = load_case(*make(label=lesion_at(BOX)), TissueSpec())
    zones = np.full(SHAPE, 3, np.uint8)
    again = load_case(
        *make(label=lesion_at(BOX)), TissueSpec(), Known(case.tissue, "mixture", zones, [(1.0, 2.0)])
    )
    assert again.tissue is case.tissue
    assert again.tissue_kind == "mixture"
    assert again.zones is zones
    assert again.tissue_stats == [(1.0, 2.0)]


@pytest.mark.parametrize("n_vox", [1, 2, 3])
def test_clean_tissue_away_from_lesions(make, n_vox):
    label = lesion_at(BOX)
    label[0, 0, 0] = label[15, 16, 17] = 1
    case = load_case(*make(label=label), TissueSpec())
    expected = case.clean_tissue & ~dilated(label > 0, n_vox)
    np.testing.assert_array_equal(case.clean_away(n_vox), expected)


def test_a_case_in_memory(make):
    label = lesion_at(BOX)
    label[10, 10, 10], label[11, 11, 11], label[12, 12, 12] = 1, 3, 4
    case = load_case(*make(label=label), TissueSpec())
    np.testing.assert_array_equal(case.lesion_mask, label == 1)
    np.testing.assert_array_equal(case.untouchable, (label == 3) | (label == 4))
    assert case.load.count == 2
    assert case.load.ml == pytest.approx(9 / 1000)
    assert not (case.clean_tissue & (label > 0)).any()
    assert len(case.source_hashes) == 2
    assert case.tissue_kind == "mask"
    assert case.values(BOX).shape == (1, 2, 2, 2)


def test_statistics_are_those_of_clean_tissue(make):
    image = np.full(SHAPE, 50, np.int16)
    image[::2] = 60
    image[BOX] = 30000
    case = load_case(*make([image], lesion_at(BOX)), TissueSpec())
    (median, spread), *_ = case.tissue_stats
    assert median in (50.0, 55.0, 60.0)
    assert spread <= 1.4826 * 10


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ({"label": lesion_at(BOX, 9)}, "unknown value 9"),
        ({"label": lesion_at(BOX, 70000, np.int32)}, "unknown value 70000"),
        ({"label": lesion_at(BOX, -1, np.int16)}, "unknown value -1"),
        ({"label": lesion_at(BOX, 0.5, np.float32)}, "not whole numbers"),
        ({"label": lesion_at(BOX, np.nan, np.float32)}, "NaN or infinite"),
        ({"images": [np.full(SHAPE, np.inf, np.float32)]}, "channel CT has 4896 voxels .* all there are"),
        (
            {"images": [nan_at(BOX)], "label": lesion_at(BOX)},
            "channel CT has 8 voxels .* 8 of them in lesions",
        ),
        ({"label": np.zeros((16, 17, 19), np.uint8)}, "the label map is 16x17x19"),
        ({"affines": [np.eye(4), np.diag([1.0, 1, 2, 1])]}, "its affine differs"),
    ],
)
def test_bad_files_are_one_clear_error_that_names_case_and_file(make, spoil, message):
    with pytest.raises(InputError, match=message) as error:
        load_case(*make(**spoil), TissueSpec())
    assert error.value.case == "a"
    assert error.value.file is not None
    assert error.value.remedy


def test_labels_in_floats_are_whole_numbers(make):
    case = load_case(*make(label=lesion_at(BOX, 1, np.float64)), TissueSpec())
    assert case.label.dtype == np.uint16
    assert (case.label[BOX] == 1).all()


def test_the_organ_is_the_tissue_where_there_is_one(make):
    label = lesion_at((slice(2, 14),) * 3, 2)
    label[BOX] = 1
    case = load_case(*make(label=label, roles=ROLES), TissueSpec())
    assert case.tissue_kind == "organ"
    np.testing.assert_array_equal(case.tissue == WHITE, label > 0)
    assert not case.has_tissue_classes
    with pytest.raises(InputError, match="no label has the role organ"):
        load_case(*make(label=label), TissueSpec(kind="organ"))


def test_a_tissue_map_is_read_by_its_codes(make, tmp_path):
    codes = np.zeros(SHAPE, np.uint8)
    codes[2:14, 2:14, 2:14] = 11
    codes[4:12, 4:12, 4:12] = 12
    codes[7:9, 7:9, 7:9] = 13
    codes[6, 6, 6] = 14
    write_nifti(tmp_path / "tissue_A_a.nii.gz", codes, np.eye(4))
    spec = TissueSpec(
        map="tissue_{subject}_{case}.nii.gz", grey=(11,), white=(12,), fluid=(13,), ventricles=(14,)
    )
    label = lesion_at((slice(2, 3), slice(2, 3), slice(2, 3)))
    label[15, 15, 15] = 1
    case = load_case(*make(label=label), spec)
    assert case.tissue_kind == "map"
    assert case.has_tissue_classes
    expected = np.select(
        [codes == 11, codes == 12, codes == 13, codes == 14], [GREY, WHITE, FLUID, VENTRICLE]
    )
    expected[label > 0] = WHITE
    np.testing.assert_array_equal(case.tissue, expected)


def test_a_brain_mask(make, tmp_path):
    brain = np.zeros(SHAPE, np.uint8)
    brain[4:12, 4:12, 4:12] = 1
    write_nifti(tmp_path / "brain.nii.gz", brain, np.eye(4))
    case = load_case(*make(), TissueSpec(brain_mask="brain.nii.gz"))
    np.testing.assert_array_equal(case.tissue, np.where(brain, WHITE, OUTSIDE))


def test_a_mixture_that_is_asked_for_and_cannot_be_had(make):
    with pytest.raises(InputError, match="no three tissue classes"):
        load_case(*make(), TissueSpec(kind="mixture"))


def test_phantom_brains_have_classes_and_ventricles(make, phantoms):
    images, label, affine = phantoms[0]
    case = load_case(*make(list(images), label, channels=("FLAIR", "T1"), affines=[affine] * 3), TissueSpec())
    assert case.tissue_kind == "mixture"
    assert (case.tissue[label > 0] == WHITE).all()
    assert {FLUID, GREY, WHITE, VENTRICLE} <= set(np.unique(case.tissue))


def test_side_files_know_case_and_subject_only():
    files = CaseFiles("c{subject}", "S", (), Path("l"))
    assert side_file("x/{case}.nii", CaseFiles("c", "S", (), Path("l")), Path("/r")) == Path("/r/x/c.nii")
    assert side_file("{other}_{subject}", files, Path("/r")) == Path("/r/{other}_S")


def test_kind_map_needs_a_map():
    with pytest.raises(ValueError, match="needs `map`"):
        TissueSpec(kind="map")
