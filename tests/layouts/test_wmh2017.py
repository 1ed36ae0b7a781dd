"""Data sets of the WMH challenge: a folder for each case, with or without sites."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from lesionsynth.domain.case import LabelTable
from lesionsynth.errors import InputError
from lesionsynth.layouts.wmh2017 import Wmh2017
from lesionsynth.recipe.model import InputSpec
from lesionsynth.run.cohort import scan_cohort
from tests.layouts.trees import touch

LAYOUT = Wmh2017()


def case(root: Path, folder: str) -> None:
    touch(root, [f"{folder}/pre/FLAIR.nii.gz", f"{folder}/pre/T1.nii.gz", f"{folder}/wmh.nii.gz"])
    touch(root, [f"{folder}/orig/FLAIR.nii.gz", f"{folder}/pre/._FLAIR.nii.gz", f"{folder}/._wmh.nii.gz"])


def test_sites_are_part_of_the_id(tmp_path: Path) -> None:
    for folder in ("Utrecht/0", "Singapore/0", "Amsterdam/GE3T/100", "7"):
        case(tmp_path, folder)
    scan = LAYOUT.scan(tmp_path)
    assert scan.findings == ()
    assert [c.case for c in scan.cohort.cases] == ["7", "Amsterdam_GE3T_100", "Singapore_0", "Utrecht_0"]
    last = scan.cohort.cases[-1]
    assert last.images == tuple(tmp_path / "Utrecht/0/pre" / name for name in ("FLAIR.nii.gz", "T1.nii.gz"))
    assert last.label == tmp_path / "Utrecht/0/wmh.nii.gz"
    assert last.subject == "Utrecht_0"
    assert scan.cohort.channels == ("FLAIR", "T1")
    assert scan.cohort.labels.lesion == (1,)
    assert scan.cohort.labels.untouchable == (2,)
    made = "Utrecht_0__syn001"
    assert LAYOUT.image_path(last, made, 1, scan.cohort) == Path("Utrecht/0__syn001/pre/T1.nii.gz")
    assert LAYOUT.label_path(last, made, scan.cohort) == Path("Utrecht/0__syn001/wmh.nii.gz")


@pytest.mark.parametrize("missing", ["pre/FLAIR.nii.gz", "pre/T1.nii.gz", "wmh.nii.gz"])
def test_a_missing_file_is_one_finding(tmp_path: Path, missing: str) -> None:
    case(tmp_path, "Utrecht/0")
    case(tmp_path, "Utrecht/1")
    (tmp_path / "Utrecht/0" / missing).unlink()
    scan = LAYOUT.scan(tmp_path)
    (finding,) = scan.findings
    assert (finding.level, finding.case) == ("error", "Utrecht_0")
    assert finding.file == str(tmp_path / "Utrecht/0" / missing)
    assert [c.case for c in scan.cohort.cases] == ["Utrecht_1"]


def test_folders_that_give_one_id(tmp_path: Path) -> None:
    case(tmp_path, "a_b/c")
    case(tmp_path, "a/b_c")
    scan = LAYOUT.scan(tmp_path)
    assert [(f.case, f.fault) for f in scan.findings] == [("a_b_c", "the id occurs twice.")]


def test_folders_that_cannot_be_ids_are_told(tmp_path: Path) -> None:
    case(tmp_path, "site 1/0")
    _, scan = scan_cohort(InputSpec(layout=LAYOUT), tmp_path)
    assert any("'site 1_0' cannot be a file name" in finding.fault for finding in scan.findings)


def test_recognised_below_the_root_only(tmp_path: Path) -> None:
    case(tmp_path, "data/0")
    assert LAYOUT.recognises(tmp_path)
    assert not LAYOUT.recognises(tmp_path / "data/0")
    assert LAYOUT.scan(tmp_path / "data/0").cohort.cases == ()


def test_other_channels(tmp_path: Path) -> None:
    touch(tmp_path, ["0/pre/FLAIR.nii.gz", "0/wmh.nii.gz"])
    assert [c.case for c in Wmh2017(channels=("FLAIR",)).scan(tmp_path).cohort.cases] == ["0"]
    for channels in ((), ("../FLAIR",), ("a/b",), ("",), (".FLAIR",)):
        with pytest.raises(ValidationError):
            Wmh2017(channels=channels)


def test_cases_of_another_layout(tmp_path: Path) -> None:
    case(tmp_path, "0")
    cohort = replace(LAYOUT.scan(tmp_path).cohort, layout="nnunet")
    files = cohort.cases[0]
    assert LAYOUT.image_path(files, "p01", 0, cohort) == Path("p01/pre/FLAIR.nii.gz")
    liver = LabelTable({"none": 0, "liver": 1}, {"none": "background", "liver": "organ"})
    for other, told in (
        (replace(cohort, channels=("FLAIR",)), "its channels are FLAIR, not FLAIR, T1"),
        (
            replace(cohort, labels=liver),
            r"its label 1 is liver \(organ\), not one of 0 background, 1 WMH, 2 other",
        ),
    ):
        with pytest.raises(InputError, match=f"the layout wmh2017 cannot hold this data set: {told}"):
            LAYOUT.image_path(files, "p01", 0, other)
