"""nnU-Net raw data sets, as they are and as they are broken."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lesionsynth.domain.case import LabelTable
from lesionsynth.errors import InputError
from lesionsynth.layouts.nnunet import NnUNet
from tests.layouts.trees import nnunet, touch

LAYOUT = NnUNet()


def values(root: Path) -> dict[str, int]:
    return dict(LAYOUT.scan(root).cohort.labels.values)


def test_finds_cases_channels_and_labels(tmp_path: Path) -> None:
    root = nnunet(tmp_path, ["b", "a"])
    cohort = LAYOUT.scan(root).cohort
    assert LAYOUT.recognises(root)
    assert cohort.channels == ("FLAIR", "T1")
    assert [(c.case, c.subject) for c in cohort.cases] == [("a", "a"), ("b", "b")]
    assert cohort.cases[0].images == (root / "imagesTr/a_0000.nii.gz", root / "imagesTr/a_0001.nii.gz")
    assert cohort.cases[0].label == root / "labelsTr/a.nii.gz"
    assert dict(cohort.labels.roles) == {"background": "background", "lesion": "lesion"}


def test_channels_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = {str(k): f"c{k}" for k in (10, 2, 0, 1, 3, 4, 5, 6, 7, 8, 9)}
    assert LAYOUT.scan(nnunet(tmp_path, [], channel_names=names)).cohort.channels[10] == "c10"
    version_1 = nnunet(tmp_path / "v1", ["a"], channel_names=None, modality={"1": "PET", "0": "CT"})
    assert LAYOUT.scan(version_1).cohort.channels == ("CT", "PET")


def test_version_1_has_value_to_name(tmp_path: Path) -> None:
    root = nnunet(tmp_path, ["a"], labels={"0": "background", "1": "liver", "2": "cancer"})
    assert values(root) == {"background": 0, "liver": 1, "cancer": 2}


def test_regions_name_the_values_that_have_no_name(tmp_path: Path) -> None:
    labels: dict[str, Any] = {"background": 0, "whole tumour": [1, 2, 3], "core": [2, 3], "enhancing": 3}
    root = nnunet(tmp_path, ["a"], labels=labels, regions_class_order=[1, 2, 3])
    cohort = LAYOUT.scan(root).cohort
    assert dict(cohort.labels.values) == {"background": 0, "enhancing": 3, "core_2": 2, "whole tumour_1": 1}
    written = json.loads(LAYOUT.description(cohort, [("a", cohort.cases[0])])["dataset.json"])
    assert written["labels"] == labels
    assert written["regions_class_order"] == [1, 2, 3]


def test_the_description_keeps_what_it_does_not_know(tmp_path: Path) -> None:
    root = nnunet(tmp_path, ["a"], licence="CC0", overwrite_image_reader_writer="X", dataset=None, numTest=3)
    cohort = LAYOUT.scan(root).cohort
    pairs = [("a", cohort.cases[0]), ("a__syn000", cohort.cases[0])]
    written = json.loads(LAYOUT.description(cohort, pairs)["dataset.json"])
    assert written == {
        "licence": "CC0",
        "overwrite_image_reader_writer": "X",
        "channel_names": {"0": "FLAIR", "1": "T1"},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }


def test_the_description_of_an_input_of_another_layout(tmp_path: Path) -> None:
    cohort = LAYOUT.scan(nnunet(tmp_path, ["a"], licence="CC0")).cohort
    table = LabelTable({"plaque": 2, "background": 0}, {"plaque": "lesion", "background": "background"})
    foreign = replace(cohort, layout="pattern", labels=table, channels=("T1",))
    written = json.loads(LAYOUT.description(foreign, [("a", cohort.cases[0])])["dataset.json"])
    assert written["labels"] == {"background": 0, "plaque": 2}
    assert written["channel_names"] == {"0": "T1"}
    assert "licence" not in written


def test_the_map_dataset_names_the_files(tmp_path: Path) -> None:
    root = nnunet(tmp_path / "data", [], dataset={
        "b": {"images": ["deep/b0.nii.gz", "../outside/b1.nii.gz"], "label": "deep/b.nii.gz"},
    })  # fmt: skip
    touch(root, ["deep/b0.nii.gz", "deep/b.nii.gz", "imagesTr/x_0000.nii.gz"])
    touch(tmp_path, ["outside/b1.nii.gz"])
    scan = LAYOUT.scan(root)
    assert scan.findings == ()
    assert [c.case for c in scan.cohort.cases] == ["b"]
    assert LAYOUT.image_path(scan.cohort.cases[0], "b", 1, scan.cohort) == Path("imagesTr/b_0001.nii.gz")


@pytest.mark.parametrize(
    "entry",
    [
        {"images": ["a.nii.gz"], "label": "b.nii.gz"},
        {"images": "ab", "label": "b.nii.gz"},
        {"images": ["a.nii.gz", 3], "label": "b.nii.gz"},
        {"images": ["a.nii.gz", "c.nii.gz"]},
        {"images": ["a.nii", "c.nii.gz"], "label": "b.nii.gz"},
        ["a.nii.gz"],
        "a",
    ],
)
def test_a_broken_map_dataset(tmp_path: Path, entry: object) -> None:
    with pytest.raises(InputError, match="entry 'a' should have 2") as caught:
        LAYOUT.scan(nnunet(tmp_path, [], dataset={"a": entry}))
    assert caught.value.file == str(tmp_path / "dataset.json")


@pytest.mark.parametrize(
    ("missing", "fault"),
    [
        ("imagesTr/a_0001.nii.gz", "the channel T1 is missing."),
        ("imagesTr/a_0000.nii.gz", "the channel FLAIR is missing."),
        ("labelsTr/a.nii.gz", "the label map is missing."),
    ],
)
def test_a_missing_file_is_one_finding(tmp_path: Path, missing: str, fault: str) -> None:
    root = nnunet(tmp_path, ["a", "b"])
    (root / missing).unlink()
    scan = LAYOUT.scan(root)
    (finding,) = scan.findings
    assert (finding.level, finding.case, finding.file) == ("error", "a", str(root / missing))
    assert finding.fault == fault
    assert finding.cure
    assert [c.case for c in scan.cohort.cases] == ["b"]


def test_a_link_to_nowhere_is_missing(tmp_path: Path) -> None:
    root = nnunet(tmp_path, ["a"])
    (root / "labelsTr/a.nii.gz").unlink()
    (root / "labelsTr/a.nii.gz").symlink_to("gone")
    assert [f.fault for f in LAYOUT.scan(root).findings] == ["the label map is missing."]


def test_files_that_are_no_part_of_it_are_ignored(tmp_path: Path) -> None:
    root = nnunet(tmp_path, ["a"])
    touch(root, ["imagesTr/._a_0000.nii.gz", "labelsTr/._a.nii.gz", "labelsTr/.DS_Store", "labelsTr/._a.nii"])
    touch(
        root, ["imagesTr/readme.txt", "imagesTr/a_mask.nii.gz", "labelsTr/a.json", "imagesTs/z_0000.nii.gz"]
    )
    touch(root, ["imagesTr/.tmp-1-b_0000.nii.gz"])
    scan = LAYOUT.scan(root)
    assert scan.findings == ()
    assert [c.case for c in scan.cohort.cases] == ["a"]


def test_one_file_in_two_forms(tmp_path: Path) -> None:
    root = nnunet(tmp_path, ["a", "b"])
    touch(root, ["labelsTr/a.nii", "imagesTr/b_0001.nii"])
    findings = LAYOUT.scan(root).findings
    assert [(f.case, f.file) for f in findings] == [
        ("b", str(root / "imagesTr/b_0001.nii")),
        ("a", str(root / "labelsTr/a.nii")),
    ]
    assert all(f.level == "error" and "as .nii.gz and as .nii" in f.fault for f in findings)


@pytest.mark.parametrize("other", [".nii", ".NII.GZ", ".Nii"])
def test_a_case_of_another_ending_is_not_passed_over(tmp_path: Path, other: str) -> None:
    root = nnunet(tmp_path, ["a"])
    touch(root, [f"imagesTr/b_0000{other}", f"imagesTr/b_0001{other}", f"labelsTr/b{other}"])
    scan = LAYOUT.scan(root)
    assert [case.case for case in scan.cohort.cases] == ["a"]
    assert [(f.level, f.case) for f in scan.findings] == [("error", "b")] * 3
    assert scan.findings[0].fault == f"ends in {other}; dataset.json says .nii.gz."


def test_a_channel_without_a_name_is_told(tmp_path: Path) -> None:
    root = nnunet(tmp_path, ["a"])
    touch(root, ["imagesTr/a_0002.nii.gz"])
    (finding,) = LAYOUT.scan(root).findings
    assert (finding.level, finding.case) == ("warning", "a")
    assert finding.file == str(root / "imagesTr/a_0002.nii.gz")
    assert len(LAYOUT.scan(root).cohort.cases) == 1


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "cannot be read as JSON"),
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("[]", "JSON object"),
        ("{}", "channel_names"),
        ('{"channel_names": {}}', "channel_names"),
        ('{"channel_names": ["FLAIR"]}', "channel_names"),
        ('{"channel_names": {"FLAIR": 0}}', "channel_names"),
        ('{"channel_names": {"²": "FLAIR"}}', "channel_names"),
        ('{"channel_names": {"1": "FLAIR"}}', "from 0 without gaps"),
        ('{"channel_names": {"0": "FLAIR", "2": "T1"}}', "from 0 without gaps"),
        ('{"channel_names": {"0": "FLAIR", "00": "T1"}}', "from 0 without gaps"),
        ('{"channel_names": {"0": "F"}}', '"labels"'),
        ('{"channel_names": {"0": "F"}, "labels": {}}', '"labels"'),
        ('{"channel_names": {"0": "F"}, "labels": {"x": "1"}}', "whole number from 0 to 65535"),
        ('{"channel_names": {"0": "F"}, "labels": {"x": 1.5}}', "whole number from 0 to 65535"),
        ('{"channel_names": {"0": "F"}, "labels": {"x": -1}}', "whole number from 0 to 65535"),
        ('{"channel_names": {"0": "F"}, "labels": {"x": 65536}}', "whole number from 0 to 65535"),
        ('{"channel_names": {"0": "F"}, "labels": {"x": []}}', "whole number from 0 to 65535"),
        ('{"channel_names": {"0": "F"}, "labels": {"x": 1, "y": 1}}', "same value"),
        ('{"channel_names": {"0": "F"}, "labels": {"0": "x", "1": "x"}}', "same name"),
        ('{"channel_names": {"0": "F"}, "labels": {"l": 1}, "file_ending": ".png"}', "file_ending '.png'"),
        ('{"channel_names": {"0": "F"}, "labels": {"l": 1}, "file_ending": ["."]}', "file_ending"),
    ],
)
def test_a_broken_description(tmp_path: Path, content: str, match: str) -> None:
    (tmp_path / "labelsTr").mkdir()
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(InputError, match=match) as caught:
        LAYOUT.scan(tmp_path)
    assert caught.value.file == str(tmp_path / "dataset.json")


def test_a_description_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_bytes(b'{"name": "\xff"}')
    with pytest.raises(InputError, match="JSON"):
        LAYOUT.scan(tmp_path)


def test_no_description(tmp_path: Path) -> None:
    (tmp_path / "labelsTr").mkdir()
    assert not LAYOUT.recognises(tmp_path)
    with pytest.raises(InputError, match="No such file"):
        LAYOUT.scan(tmp_path)
