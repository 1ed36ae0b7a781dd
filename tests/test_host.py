from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lesionsynth.domain.load import LesionLoad
from lesionsynth.errors import InputError
from lesionsynth.host import Known, _values_of, load_case
from lesionsynth.kernels.components import dilated
from lesionsynth.kernels.tissue import OUTSIDE, WHITE
from lesionsynth.tissue import TissueSpec
from tests.written_case import BOX, SHAPE, lesion_at, written


@pytest.fixture
def make(tmp_path):
    return partial(written, tmp_path)


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
    load = LesionLoad(1.5, 2, 3.5)
    known = Known(case.tissue, "mixture", lambda: zones, [(1.0, 2.0)], load)
    again = load_case(*make(label=lesion_at(BOX)), TissueSpec(), known)
    assert again.tissue is case.tissue
    assert again.tissue_kind == "mixture"
    assert again.zones is zones
    assert again.tissue_stats == [(1.0, 2.0)]
    assert again.load is load


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
    assert case.label.dtype == np.uint8
    assert (case.label[BOX] == 1).all()


def test_labels_are_no_larger_than_the_label_table_needs(make):
    files, cohort = make(label=lesion_at(BOX, 1, np.int32))
    many = replace(cohort, labels=replace(cohort.labels, values={**cohort.labels.values, "other": 256}))
    for table, dtype in ((cohort, np.uint8), (many, np.uint16)):
        label = load_case(files, table, TissueSpec()).label
        assert label.dtype == dtype
        np.testing.assert_array_equal(label, lesion_at(BOX))


@given(
    st.integers(0, 40).flatmap(lambda n: arrays(np.int64, (n, 1, 1), elements=st.integers(0, 3))),
    st.sampled_from(["u1", ">i2", "<u2", "<i4", ">f4", "<f8"]),
)
def test_values_of_a_label_map(values, dtype):
    stored = np.array(values, dtype=dtype, order="F")
    assert sorted(_values_of(stored)) == np.unique(values).tolist()
