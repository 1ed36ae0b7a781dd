"""What is found before anything is trained."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from lesionsynth.domain.case import Cohort, Split
from lesionsynth.errors import InputError, LeakError, NoLesionError
from lesionsynth.recipe.load import load_recipe
from lesionsynth.recipe.model import InputSpec
from lesionsynth.run.cohort import open_cohort
from lesionsynth.run.pool import ALONE, Unheard
from lesionsynth.trial.arms import Arm
from lesionsynth.trial.refusals import look_at_all, require_whole_subjects, with_all_masks
from lesionsynth.trial.run import run_trial
from lesionsynth.trial.wish import Wish
from tests.conftest import write_nifti
from tests.trial.test_cell import CELL, MODELS, SPEC, without_lesions


def look(root: Path, **read: object) -> None:
    look_at_all(open_cohort(InputSpec.model_validate(read), root)[1], [CELL], ALONE, Unheard())


@pytest.mark.parametrize("stored", ["alike", "anew"])
def test_a_scan_under_two_names_is_refused(stored: str, make_nnunet: Callable[..., Path]) -> None:
    root = make_nnunet(4)
    look(root)
    for folder, ending in (("imagesTr", "_0000"), ("imagesTr", "_0001"), ("labelsTr", "")):
        name, other = (root / folder / f"{case}{ending}.nii.gz" for case in ("case2", "else"))
        shutil.copy(name, other)
        if stored == "anew":  # of another type, and the other way round
            image = nib.load(name)
            flipped = np.asarray(image.dataobj)[::-1].astype(np.float32 if folder == "imagesTr" else np.uint8)
            affine = image.affine @ np.diag([-1, 1, 1, 1])
            affine[:3, 3] = (image.affine @ [len(flipped) - 1, 0, 0, 1])[:3]
            write_nifti(other, flipped, affine)
    with pytest.raises(LeakError, match="the image of else is identical to one of case2"):
        look(root)


def test_a_mask_of_somebody_who_is_tested_is_refused(
    make_nnunet: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_nnunet(4)
    (root / "masks").mkdir()
    shutil.copy(root / "labelsTr/case3.nii.gz", root / "masks/case3.nii.gz")
    look(root, masks={"path": "masks/{subject}.nii.gz"})  # his own
    (root / "masks/case3.nii.gz").unlink()
    shutil.copy(root / "labelsTr/case4.nii.gz", root / "masks/outside.nii.gz")
    with pytest.raises(LeakError, match="the mask of outside is identical to one of case4"):
        look(root, masks={"path": "masks/{subject}.nii.gz"})
    # Masks of one arm alone, and not of the one by which the data set is read.
    cohort = open_cohort(InputSpec(), root)[1]
    arms = [
        Arm("none", None),
        Arm("lesionmix", load_recipe("lesionmix")),
        Arm("m", load_recipe("mask_library")),
    ]
    assert len(with_all_masks(cohort, arms[:2]).masks) == 0
    assert [mask.subject for mask in with_all_masks(cohort, arms).masks] == ["outside"]
    wish = Wish(tuple(arms), (1.0,), 1, (0,), SPEC, MODELS)
    with pytest.raises(LeakError, match="the mask of outside is identical to one of case4"):
        run_trial(wish, root, tmp_path / "out", Unheard())
    assert list((tmp_path / "out").iterdir()) == []


def test_a_test_without_a_lesion_is_refused(make_nnunet: Callable[..., Path]) -> None:
    cohort = open_cohort(InputSpec(), make_nnunet(4))[1]
    without_lesions(cohort, "case4")
    cells = [replace(CELL, fold=1, test=("case3",)), CELL]
    look_at_all(cohort, cells[:1], ALONE, Unheard())
    with pytest.raises(NoLesionError, match="none of the 1 test cases of fold 0 has a lesion"):
        look_at_all(cohort, cells, ALONE, Unheard())


def test_a_case_that_cannot_be_read_is_told(make_nnunet: Callable[..., Path]) -> None:
    root = make_nnunet(4)
    path = root / "imagesTr/case3_0001.nii.gz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError) as caught:
        look(root)
    assert caught.value.file == str(path)


def test_folds_that_split_the_cases_of_a_subject_are_refused(make_nnunet: Callable[..., Path]) -> None:
    root = make_nnunet(4)
    for path in root.glob("*Tr/case2*"):
        path.rename(path.with_name(path.name.replace("case2", "case1_ses-2")))
    cohort: Cohort = open_cohort(InputSpec(), root)[1]
    whole = Split(("case1", "case1_ses-2", "case3"), ("case4",))
    require_whole_subjects([whole], cohort)
    with pytest.raises(InputError, match="fold 1 names other cases of case1 and not this one") as caught:
        require_whole_subjects([whole, Split(("case1", "case3"), ("case4",))], cohort)
    assert caught.value.case == "case1_ses-2"
