"""One scan under the names of two people is refused by a run, whether it was checked or not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from lesionsynth.errors import LeakError
from lesionsynth.run import session
from tests.conftest import write_nifti
from tests.test_invariants import Silent, recipe_of

MASKS = "input.masks={path: 'masks/{subject}.nii.gz'}"


def test_an_image_of_two_subjects(make_nnunet: Callable[..., Path], tmp_path: Path) -> None:
    root = make_nnunet(4)
    (root / "imagesTr/case3_0001.nii.gz").unlink()
    (root / "imagesTr/case3_0001.nii.gz").symlink_to("case1_0001.nii.gz")
    with pytest.raises(LeakError, match="image of case3 is identical to one of case1") as caught:
        session.run(recipe_of(), root, tmp_path / "out", Silent())
    assert (caught.value.case, caught.value.file) == ("case3", "imagesTr/case3_0001.nii.gz")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stored", [np.float64, np.float32])
def test_a_scan_that_was_stored_anew(stored: type, make_nnunet: Callable[..., Path], tmp_path: Path) -> None:
    """Other bytes, the same voxels: unpacked and packed, with another header or type."""
    root = make_nnunet(4)
    for part in ("imagesTr/case{}_0000", "imagesTr/case{}_0001", "labelsTr/case{}"):
        image = nib.load(root / f"{part.format(1)}.nii.gz")
        values = np.asanyarray(image.dataobj).astype(stored if "images" in part else np.int16)
        write_nifti(root / f"{part.format(4)}.nii.gz", values, image.affine)
    with pytest.raises(LeakError, match="image of case4 is identical to one of case1"):
        session.run(recipe_of(), root, tmp_path / "out", Silent())
    assert not (tmp_path / "out").exists()


def test_a_mask_of_a_subject_with_images(make_nnunet: Callable[..., Path], tmp_path: Path) -> None:
    root = make_nnunet(4)
    (root / "masks").mkdir()
    shutil.copyfile(root / "labelsTr/case2.nii.gz", root / "masks/P7.nii.gz")
    with pytest.raises(LeakError, match=r"mask of P7 is identical to one of case2.*input\.subject") as caught:
        session.run(recipe_of(MASKS), root, tmp_path / "out", Silent())
    assert (caught.value.case, caught.value.file) == ("P7/mask", "masks/P7.nii.gz")


def test_what_tells_nothing_may_be_equal(make_nnunet: Callable[..., Path], tmp_path: Path) -> None:
    """Empty label maps and masks, channels that stand for a missing one, two cases of a subject."""
    root = make_nnunet(4)
    (root / "masks").mkdir()
    image = nib.load(root / "labelsTr/case1.nii.gz")
    empty = np.zeros(image.shape, np.uint8)
    for name in (
        "labelsTr/case3",
        "labelsTr/case4",
        "masks/P7",
        "imagesTr/case1_0001",
        "imagesTr/case2_0001",
    ):
        write_nifti(root / f"{name}.nii.gz", empty, image.affine)
    shutil.copyfile(root / "imagesTr/case3_0000.nii.gz", root / "imagesTr/case4_0000.nii.gz")
    recipe = recipe_of(MASKS, r"input.subject=(case[12]|case)\d?", "folds.strategy=none", "output.copies=1")
    session.plan(recipe, root, tmp_path / "out", Silent())
