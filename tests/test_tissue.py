from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from lesionsynth.domain.case import CaseFiles
from lesionsynth.errors import InputError
from lesionsynth.host import load_case
from lesionsynth.kernels.tissue import FLUID, GREY, OUTSIDE, VENTRICLE, WHITE
from lesionsynth.tissue import TissueSpec, side_file
from tests.conftest import write_nifti
from tests.written_case import BOX, ROLES, SHAPE, lesion_at, written


@pytest.fixture
def make(tmp_path):
    return partial(written, tmp_path)


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
