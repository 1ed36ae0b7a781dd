"""Data sets of the LiTS challenge: volumes and segmentations in any folders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from lesionsynth.domain.case import Cohort, LabelTable
from lesionsynth.errors import InputError
from lesionsynth.layouts.lits import Lits
from tests.layouts.trees import touch

LAYOUT = Lits()


def pair(name: str, ending: str = ".nii") -> list[str]:
    return [f"volume-{name}{ending}", f"segmentation-{name}{ending}"]


def paths(cohort: Cohort, number: int, case: str) -> list[Path]:
    files = cohort.cases[number]
    return [LAYOUT.image_path(files, case, 0, cohort), LAYOUT.label_path(files, case, cohort)]


def test_two_trees_and_nested_folders(tmp_path: Path) -> None:
    touch(
        tmp_path, ["CT/Training Batch 1/volume-3.nii", "masks/segmentation-3.nii.gz", *pair("12", ".nii.gz")]
    )
    touch(
        tmp_path,
        ["CT/test-volume-3.nii", "._volume-4.nii", ".trash/volume-3.nii", "volume-.nii", "volume-5.mha"],
    )
    scan = LAYOUT.scan(tmp_path)
    assert scan.findings == ()
    cohort = scan.cohort
    assert [(c.case, c.subject) for c in cohort.cases] == [("12", "12"), ("3", "3")]
    assert cohort.cases[1].images == (tmp_path / "CT/Training Batch 1/volume-3.nii",)
    assert cohort.cases[1].label == tmp_path / "masks/segmentation-3.nii.gz"
    assert dict(cohort.labels.roles) == {"background": "background", "liver": "organ", "tumour": "lesion"}
    assert paths(cohort, 1, "3__syn003") == [
        Path("CT/Training Batch 1/volume-3__syn003.nii"),
        Path("masks/segmentation-3__syn003.nii.gz"),
    ]


def test_missing_and_repeated_files(tmp_path: Path) -> None:
    touch(tmp_path, ["volume-1.nii", "segmentation-2.nii", *pair("3"), *pair("4")])
    touch(tmp_path, ["b/volume-3.nii", "segmentation-4.nii.gz"])
    scan = LAYOUT.scan(tmp_path)
    assert scan.cohort.cases == ()
    assert [(f.level, f.case) for f in scan.findings] == [("error", name) for name in "1234"]
    faults = [f.fault for f in scan.findings]
    assert faults[:2] == ["the segmentation is missing.", "the volume is missing."]
    assert "the volume is there again" in faults[2]
    assert "the segmentation is there again" in faults[3]
    assert scan.findings[2].file == str(tmp_path / "b/volume-3.nii")


def test_folders_that_are_links(tmp_path: Path) -> None:
    root = tmp_path / "data"
    touch(tmp_path, ["elsewhere/volume-1.nii"])
    touch(root, ["segmentation-1.nii"])
    (root / "images").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(root)  # a circle
    scan = LAYOUT.scan(root)
    assert scan.findings == ()
    assert scan.cohort.cases[0].images == (root / "images/volume-1.nii",)
    assert paths(scan.cohort, 0, "1")[0] == Path("images/volume-1.nii")


def test_recognised_by_a_pair(tmp_path: Path) -> None:
    touch(tmp_path, ["a/volume-1.nii", "b/segmentation-2.nii"])
    assert not LAYOUT.recognises(tmp_path)
    touch(tmp_path, ["b/segmentation-1.nii.gz"])
    assert LAYOUT.recognises(tmp_path)


def test_cases_of_another_layout(tmp_path: Path) -> None:
    touch(tmp_path, pair("1"))
    cohort = replace(LAYOUT.scan(tmp_path).cohort, layout="nnunet", file_ending=".nii.gz")
    assert paths(cohort, 0, "p01.a") == [Path("volume-p01.a.nii.gz"), Path("segmentation-p01.a.nii.gz")]
    touch(tmp_path / "out", [str(path) for path in paths(cohort, 0, "p01.a")])
    assert [c.case for c in LAYOUT.scan(tmp_path / "out").cohort.cases] == ["p01.a"]
    for other, told in (
        (replace(cohort, channels=("FLAIR", "T1")), "its channels are FLAIR, T1, not CT"),
        (
            replace(
                cohort, labels=LabelTable({"none": 0, "spot": 1}, {"none": "background", "spot": "lesion"})
            ),
            r"its label 1 is spot \(lesion\), not one of 0 background, 1 liver, 2 tumour",
        ),
    ):
        with pytest.raises(InputError, match=f"the layout lits cannot hold this data set: {told}"):
            paths(other, 0, "p01")
    named = replace(
        cohort, labels=LabelTable({"back": 0, "hepar": 1}, {"back": "background", "hepar": "organ"})
    )
    assert paths(named, 0, "1")[0] == Path("volume-1.nii.gz")


@pytest.mark.parametrize(
    "labels", [{"background": 0, "tumour": 0}, {"tumour": -1}, {"tumour": 65536}, {}, {"tumour": 1.5}]
)
def test_labels_that_cannot_be_are_refused(labels: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        Lits(labels=labels)
