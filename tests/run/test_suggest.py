"""init writes recipes that load, that check, and that say what was seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from lesionsynth.errors import InputError
from lesionsynth.recipe.load import load_recipe
from lesionsynth.recipe.model import Recipe
from lesionsynth.run.check import check
from lesionsynth.run.suggest import suggest_recipe
from tests.conftest import write_nifti
from tests.layouts.trees import nnunet
from tests.run.test_check import Silent


def load(text: str, folder: Path) -> Recipe:
    path = folder / "suggested.yaml"
    path.write_text(text)
    return load_recipe(str(path))


def redescribe(root: Path, **changes: Any) -> None:
    path = root / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_the_recipe_of_a_data_set_passes_its_own_check(
    make_nnunet: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_nnunet(4)
    text = suggest_recipe(root)
    recipe = load(text, tmp_path)
    assert recipe.input.layout != "auto"
    assert dict(recipe.input.roles) == {"background": "background", "lesion": "lesion"}
    assert recipe.folds.strategy == "block"
    assert check(recipe, root, None, Silent()).findings == []
    for seen in ("4 cases of 4 subjects", "channels FLAIR, T1", "24x30x25 at 4x4x4 mm", "folds: 2", "mL"):
        assert seen in text


def test_few_subjects_and_different_grids(make_nnunet: Callable[..., Path], tmp_path: Path) -> None:
    root = make_nnunet(2)
    for name in ("imagesTr/extra_0000.nii.gz", "imagesTr/extra_0001.nii.gz", "labelsTr/extra.nii.gz"):
        write_nifti(root / name, np.ones((6, 7, 8), np.uint8), np.eye(4))
    text = suggest_recipe(root)
    assert load(text, tmp_path).folds.strategy == "none"
    assert "grids: different ones" in text


def test_channels_on_another_grid_are_resampled(make_nnunet: Callable[..., Path], tmp_path: Path) -> None:
    root = make_nnunet(2)
    assert "resample" not in suggest_recipe(root)
    for case in ("case1", "case2"):
        path = root / "imagesTr" / f"{case}_0001.nii.gz"
        image = nib.load(path)
        write_nifti(path, np.asarray(image.dataobj)[::2], image.affine @ np.diag([2, 1, 1, 1]))
    text = suggest_recipe(root)
    assert "another grid than the label map: T1." in text
    recipe = load(text, tmp_path)
    assert recipe.input.resample == "linear"
    assert check(recipe, root, None, Silent()).findings == []


def test_sessions_are_told(make_nnunet: Callable[..., Path], tmp_path: Path) -> None:
    root = make_nnunet(2)
    for path in root.glob("*Tr/case2*"):
        path.rename(path.with_name(path.name.replace("case2", "case1_ses-2")))
    text = suggest_recipe(root)
    load(text, tmp_path)
    assert "2 cases belong to 1 subjects" in text


@pytest.mark.parametrize(
    "name", ["yes", "no", "on", "null", "3", "a: b", 'say "x"', "back\\slash", "#", "ä", "{"]
)
def test_any_label_name_comes_through(make_nnunet: Callable[..., Path], tmp_path: Path, name: str) -> None:
    root = make_nnunet(1)
    redescribe(root, labels={"background": 0, name: 1})
    assert load(suggest_recipe(root), tmp_path).input.roles[name] == "lesion"


def test_labels_that_say_nothing_are_marked_as_a_guess(
    make_nnunet: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_nnunet(1)
    redescribe(root, labels={"background": 0, "lesion": 1, "thing": 2})
    text = suggest_recipe(root)
    assert dict(load(text, tmp_path).input.roles)["thing"] == "lesion"
    assert "CORRECT THIS: what thing means is a guess" in text


def test_names_cannot_write_into_the_recipe(make_nnunet: Callable[..., Path]) -> None:
    root = make_nnunet(1)
    redescribe(root, channel_names={"0": "FLAIR\nseed: 7", "1": "T1"})
    with pytest.raises(InputError, match="cannot be printed"):
        suggest_recipe(root)


def test_an_unknown_tree_gets_an_example_to_correct(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    write_nifti(root / "p1" / "p1_t1.nii.gz", np.ones((3, 3, 3), np.uint8), np.eye(4))
    text = suggest_recipe(root)
    assert load(text, tmp_path).input.layout.kind == "pattern"  # type: ignore[union-attr]
    assert "# found: p1/p1_t1.nii.gz" in text


def test_a_data_set_without_cases_is_an_error_and_not_an_unknown_tree(tmp_path: Path) -> None:
    root = nnunet(tmp_path, [])
    (root / "labelsTr").mkdir()
    with pytest.raises(InputError, match="no case was found"):
        suggest_recipe(root)
    with pytest.raises(InputError, match="does not exist"):
        suggest_recipe(tmp_path / "missing")
