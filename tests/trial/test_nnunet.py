"""The bridge to nnU-Net: what it is given, and what is read from it. It itself is not run here."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from lesionsynth import nifti
from lesionsynth.domain.case import Cohort
from lesionsynth.errors import InputError, OutputError, RecipeError
from lesionsynth.recipe.load import load_recipe
from lesionsynth.recipe.model import InputSpec
from lesionsynth.run.cohort import open_cohort
from lesionsynth.trial.arms import Arm
from lesionsynth.trial.cells import Cell
from lesionsynth.trial.measures import segmentation_measures
from lesionsynth.trial.nnunet import DataSet, data_sets, repeats, run_cell
from lesionsynth.trial.plan import read_scan
from tests.conftest import write_nifti
from tests.trial.test_cell import setting_of

TRAINER = "nnUNetTrainer_5epochs"
BOTH = [
    Cell(arm, 0.5, 3, 0, ("case1", "case2"), ("case3",), ("case4",)) for arm in ("none", "mix me")
]  # fmt: skip
MIX = load_recipe("lesionmix", ["output.copies=2", "steps.add.load=[2, 8]", "training.share=0.25"])
ARMS = {"none": Arm("none", None), "mix me": Arm("mix me", MIX)}


@pytest.fixture
def cohort(make_nnunet: Callable[..., Path]) -> Cohort:
    return open_cohort(InputSpec(), make_nnunet(4))[1]


def told_of(cell: Cell, cohort: Cohort, out: Path, key: str = "key", arm: Arm | None = None):
    place = data_sets(BOTH, out, TRAINER)[cell.name]
    arm = arm or ARMS[cell.arm]
    return place, run_cell(cell, arm, setting_of(cohort, out), key, place)


def pretend(cohort: Cohort, folder: Path, cases: Sequence[str], shift: int = 0) -> None:
    """Files as nnU-Net leaves them: truth with probability 0.7, moved along i by some voxels."""
    folder.mkdir(parents=True)
    for case in cases:
        truth = read_scan(cohort.case(case), cohort).classes == 1
        lesion = np.where(np.roll(truth, shift, axis=0), 0.7, 0.1).astype(np.float32)
        np.savez_compressed(folder / f"{case}.npz", probabilities=np.stack([1 - lesion.T, lesion.T]))


def test_a_data_set_holds_what_the_cell_trains_on_and_its_test_lies_apart(
    cohort: Cohort, tmp_path: Path
) -> None:
    place, told = told_of(BOTH[1], cohort, tmp_path)
    assert told["waiting"] == str(place.script)
    assert place.name == "Dataset002_mix_me-fraction0.5-seed3-fold0"
    copies = [f"case{k}__syn00{c}" for k in (1, 2) for c in (0, 1)]
    labels = {path.name[:-7] for path in (place.raw / "labelsTr").iterdir()}
    assert labels == {"case1", "case2", "case3", *copies}
    assert {path.name[:-7] for path in (place.raw / "labelsTs").iterdir()} == {"case4"}
    images = {path.name for path in (place.raw / "imagesTr").iterdir()}
    assert images == {f"{case}_{k:04d}.nii.gz" for case in labels for k in range(2)}
    about = json.loads((place.raw / "dataset.json").read_text())
    assert about["numTraining"] == 7
    assert about["labels"] == {"background": 0, "lesion": 1}
    (split,) = json.loads((place.raw / "splits_final.json").read_text())
    assert split["val"] == ["case3"]
    assert sorted(set(split["train"])) == ["case1", *copies[:2], "case2", *copies[2:]]
    assert sum("__syn" in case for case in split["train"]) / len(split["train"]) == 0.25
    assert not (tmp_path / "work").exists() or not any((tmp_path / "work").iterdir())


def test_images_and_labels_are_those_of_the_cases(cohort: Cohort, tmp_path: Path) -> None:
    place, _ = told_of(BOTH[0], cohort, tmp_path)
    for side, case in (("Tr", "case1"), ("Ts", "case4")):
        scan = read_scan(cohort.case(case), cohort)
        label = nifti.read(place.raw / f"labels{side}" / f"{case}.nii.gz")
        np.testing.assert_array_equal(label.values(), scan.classes)
        np.testing.assert_allclose(label.grid.affine, scan.grid.affine, atol=1e-5)
        for channel in range(2):
            image = nifti.read(place.raw / f"images{side}" / f"{case}_{channel:04d}.nii.gz")
            np.testing.assert_array_equal(image.values(), scan.image[channel])


def test_scripts_run_nnunet_and_share_the_plan_of_none(cohort: Cohort, tmp_path: Path) -> None:
    """By commands of its names that write down what they were called with."""
    tools = tmp_path / "tools"
    tools.mkdir()
    names = [
        "plan_and_preprocess",
        "extract_fingerprint",
        "move_plans_between_datasets",
        "preprocess",
        "train",
    ]
    for name in (*names, "predict"):
        tool = tools / f"nnUNetv2_{name}"
        tool.write_text('#!/bin/sh\necho "$(basename "$0")" "$@" >> "$LOG"\n')
        tool.chmod(0o755)
    for cell in BOTH:
        place, _ = told_of(cell, cohort, tmp_path / "out")
        (place.home / "preprocessed" / place.name).mkdir(parents=True)
        log = tmp_path / f"{cell.arm}.log"
        environment = {"PATH": f"{tools}:{os.environ['PATH']}", "LOG": str(log), "DEVICE": "cpu"}
        subprocess.run([place.script], env=environment, check=True)
        split = place.home / "preprocessed" / place.name / "splits_final.json"
        assert split.read_text() == (place.raw / "splits_final.json").read_text()
    plan = f"-tr {TRAINER} -p nnUNetPlans"
    raw = place.home / "raw"
    assert (tmp_path / "none.log").read_text().splitlines() == [
        "nnUNetv2_plan_and_preprocess -d 1 -c 3d_fullres --verify_dataset_integrity",
        f"nnUNetv2_train 1 3d_fullres 0 {plan} --npz -device cpu",
        f"nnUNetv2_predict -d 1 -c 3d_fullres -f 0 {plan} --save_probabilities -device cpu "
        f"-i {raw}/Dataset001_none-fraction0.5-seed3-fold0/imagesTs "
        f"-o {place.home}/predicted/Dataset001_none-fraction0.5-seed3-fold0",
    ]
    assert (tmp_path / "mix me.log").read_text().splitlines()[:4] == [
        "nnUNetv2_extract_fingerprint -d 2 --verify_dataset_integrity",
        "nnUNetv2_move_plans_between_datasets -s 1 -t 2 -sp nnUNetPlans -tp nnUNetPlansOfNone",
        "nnUNetv2_preprocess -d 2 -c 3d_fullres -plans_name nnUNetPlansOfNone",
        f"nnUNetv2_train 2 3d_fullres 0 {plan}OfNone --npz -device cpu",
    ]


def test_what_it_has_found_is_measured_on_the_cases_own_grids(cohort: Cohort, tmp_path: Path) -> None:
    place, _ = told_of(BOTH[1], cohort, tmp_path)
    assert place.validated.parts[-3:] == (f"{TRAINER}__nnUNetPlansOfNone__3d_fullres", "fold_0", "validation")
    pretend(cohort, place.predicted, ["case4"], shift=1)
    assert "waiting" in told_of(BOTH[1], cohort, tmp_path)[1]  # validation is still to come
    pretend(cohort, place.validated, ["case3"])
    told = told_of(BOTH[1], cohort, tmp_path)[1]
    assert json.loads((tmp_path / "cells" / f"{BOTH[1].name}.json").read_text()) == json.loads(
        json.dumps(told)
    )
    assert told["synthetic"] == 4
    assert told["threshold"] == 0.5  # perfect on the validation case, so nothing is better
    scan = read_scan(cohort.case("case4"), cohort)
    truth = scan.classes == 1
    wanted = segmentation_measures(np.roll(truth, 1, axis=0), truth, scan.grid.spacing_mm)
    (row,) = told["rows"]
    assert row["case"] == "case4"
    assert {name: row["values"][name] for name in wanted} == wanted
    assert 0 < row["values"]["auprc"] < 1


def test_another_key_makes_it_anew_and_the_same_leaves_it(cohort: Cohort, tmp_path: Path) -> None:
    place, _ = told_of(BOTH[0], cohort, tmp_path)
    mark = place.raw / "imagesTr" / "mark"
    mark.touch()
    told_of(BOTH[0], cohort, tmp_path)
    assert mark.exists()
    told_of(BOTH[0], cohort, tmp_path, key="another")
    assert not mark.exists()


@pytest.mark.parametrize("made", ["predicted", "results"])
def test_what_nnunet_has_trained_is_never_removed(made: str, cohort: Cohort, tmp_path: Path) -> None:
    place, _ = told_of(BOTH[0], cohort, tmp_path)
    pretend(cohort, place.home / made / place.name / "x", ["case4"])
    with pytest.raises(OutputError, match="trained for this cell on other data or by another recipe"):
        told_of(BOTH[0], cohort, tmp_path, key="another")
    assert (place.home / made / place.name / "x" / "case4.npz").is_file()


@pytest.mark.parametrize("content", [b"{}", b"[1]", b"not JSON"])
def test_a_damaged_note_is_none(content: bytes, cohort: Cohort, tmp_path: Path) -> None:
    place, _ = told_of(BOTH[0], cohort, tmp_path)
    (place.raw / "cell.json").write_bytes(content)
    assert "waiting" in told_of(BOTH[0], cohort, tmp_path)[1]
    assert json.loads((place.raw / "cell.json").read_text())["key"] == "key"


@pytest.mark.parametrize("content", ["[1]", '{"none-fraction0.5-seed3-fold0": "one"}'])
def test_damaged_numbers_are_told(content: str, cohort: Cohort, tmp_path: Path) -> None:
    (tmp_path / "nnunet").mkdir()
    (tmp_path / "nnunet" / "numbers.json").write_text(content)
    with pytest.raises(InputError, match="does not say which cell has which number"):
        data_sets(BOTH, tmp_path, TRAINER)


@pytest.mark.parametrize("content", [b"no archive", "grid", "other", "one class", "nan", "array"])
def test_files_that_are_no_probabilities_are_refused(content, cohort: Cohort, tmp_path: Path) -> None:
    place, _ = told_of(BOTH[0], cohort, tmp_path)
    pretend(cohort, place.validated, ["case3"])
    pretend(cohort, place.predicted, ["case4"])
    path = place.predicted / "case4.npz"
    if content == "grid":
        np.savez(path, probabilities=np.zeros((2, 3, 4, 5), np.float32))
    elif content == "other":
        np.savez(path, softmax=np.zeros(3))
    elif content in ("one class", "nan"):
        shape = (1 + (content == "nan"), *read_scan(cohort.case("case4"), cohort).classes.shape[::-1])
        np.savez(path, probabilities=np.full(shape, np.nan, np.float32))
    elif content == "array":
        np.save(path.with_suffix(".npy"), np.zeros(3))
        path.with_suffix(".npy").replace(path)
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match="is not nnU-Net's file of probabilities") as raised:
        told_of(BOTH[0], cohort, tmp_path)
    assert raised.value.file == str(path)


def test_a_recipe_that_can_make_nothing_is_told(cohort: Cohort, tmp_path: Path) -> None:
    alone = [replace(cell, train=("case1",)) for cell in BOTH]
    arm = Arm("mix me", load_recipe("carve_mix", ["output.copies=1"]))
    told = told_of(alone[1], cohort, tmp_path, arm=arm)[1]
    assert "case1" in told["failed"]
    assert (tmp_path / "cells" / f"{alone[1].name}.json").is_file()


def test_numbers_stay_when_arms_are_added_and_end_at_999(tmp_path: Path) -> None:
    first = data_sets(BOTH, tmp_path, TRAINER)
    other = [BOTH[0], replace(BOTH[0], arm="new"), BOTH[1]]
    again = data_sets(other, tmp_path, TRAINER)
    assert (
        again[BOTH[1].name]
        == first[BOTH[1].name]
        == DataSet(tmp_path / "nnunet", BOTH[1].name, 2, 1, TRAINER)
    )
    assert again[other[1].name].number == 3
    with pytest.raises(InputError, match="nnU-Net has numbers for 999 data sets"):
        data_sets([replace(BOTH[0], seed=seed) for seed in range(1000)], tmp_path, TRAINER)


@pytest.mark.parametrize(
    ("real", "synthetic", "share", "wanted"),
    [
        (5, 20, 0.5, (4, 1)), (4, 8, 0.25, (6, 1)), (8, 4, 0.5, (1, 2)), (3, 0, 0.5, (1, 0)),
        (3, 3, 1, (0, 1)), (3, 3, 0, (1, 0)), (10, 40, 0.05, (76, 1)),
        (10, 40, 0.01, (396, 1)), (100, 3, 0.9, (1, 300)), (300, 1, 0.5, (1, 300)),
    ],
)  # fmt: skip
def test_how_often_cases_are_listed(real, synthetic, share, wanted):
    assert repeats(real, synthetic, share) == wanted


def test_a_share_that_would_need_endless_lists_is_refused():
    with pytest.raises(RecipeError, match=r"20000 synthetic cases beside 1 real ones with a share of 0\.01"):
        repeats(1, 20000, 0.01)


def test_single_slices_are_refused(make_nnunet: Callable[..., Path], tmp_path: Path) -> None:
    root = make_nnunet(4)
    for path in root.glob("*Tr/*.nii.gz"):
        image = nib.load(path)
        data = np.asarray(image.dataobj)[..., [12]]
        write_nifti(path, np.ones_like(data) if "labels" in str(path) else data, image.affine)
    cohort = open_cohort(InputSpec(), root)[1]
    with pytest.raises(InputError, match="single slices, for which nnU-Net has no 3d_fullres"):
        told_of(BOTH[0], cohort, tmp_path)


def test_ignored_voxels_are_named(make_nnunet: Callable[..., Path], tmp_path: Path) -> None:
    root = make_nnunet(4)
    about = json.loads((root / "dataset.json").read_text())
    about["labels"]["ignore"] = 5
    (root / "dataset.json").write_text(json.dumps(about))
    cohort = open_cohort(InputSpec(), root)[1]
    place, _ = told_of(BOTH[0], cohort, tmp_path)
    described = json.loads((place.raw / "dataset.json").read_text())
    assert described["labels"] == {"background": 0, "lesion": 1, "ignore": 2}
