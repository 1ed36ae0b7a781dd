"""Data sets of the Decathlon, as they are and as they are broken."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lesionsynth.domain.case import LabelTable
from lesionsynth.errors import InputError
from lesionsynth.layouts.decathlon import Decathlon
from lesionsynth.layouts.nnunet import NnUNet
from tests.layouts.trees import decathlon, nnunet, touch

LAYOUT = Decathlon()


def entry(image: str, label: str = "./labelsTr/a.nii.gz") -> dict[str, str]:
    return {"image": image, "label": label}


def test_finds_cases_channels_and_labels(tmp_path: Path) -> None:
    root = decathlon(tmp_path, ["b", "a"])
    scan = LAYOUT.scan(root)
    cohort = scan.cohort
    assert scan.findings == ()
    assert cohort.channels == ("FLAIR", "T1w")
    assert [(c.case, c.subject) for c in cohort.cases] == [("a", "a"), ("b", "b")]
    assert cohort.cases[0].images == (root / "imagesTr/a.nii.gz",) * 2
    assert cohort.cases[0].image_files == {root / "imagesTr/a.nii.gz": (0, 1)}
    assert dict(cohort.labels.values) == {"background": 0, "edema": 1, "enhancing tumour": 2}
    assert cohort.labels.lesion == (1, 2)


def test_without_a_list_files_are_paired_by_name(tmp_path: Path) -> None:
    root = decathlon(tmp_path, ["a", "b"], training=None)
    touch(root, ["imagesTr/c.nii.gz", "labelsTr/d.nii.gz", "imagesTr/readme.txt"])
    scan = LAYOUT.scan(root)
    assert [c.case for c in scan.cohort.cases] == ["a", "b"]
    assert [(f.case, f.fault) for f in scan.findings] == [
        ("c", "the label map is missing."),
        ("d", "the image is missing."),
    ]


@pytest.mark.parametrize("missing", ["imagesTr/a.nii.gz", "labelsTr/a.nii.gz"])
def test_a_missing_file_is_one_finding(tmp_path: Path, missing: str) -> None:
    root = decathlon(tmp_path, ["a", "b"])
    (root / missing).unlink()
    scan = LAYOUT.scan(root)
    (finding,) = scan.findings
    assert (finding.level, finding.case, finding.file) == ("error", "a", str(root / missing))
    assert [c.case for c in scan.cohort.cases] == ["b"]


def test_an_id_that_occurs_twice(tmp_path: Path) -> None:
    listed = [entry("./imagesTr/a.nii.gz"), entry("imagesTr/more/a.nii.gz"), entry("./imagesTr/a.nii.gz")]
    root = decathlon(tmp_path, ["a"], training=listed)
    touch(root, ["imagesTr/more/a.nii.gz"])
    scan = LAYOUT.scan(root)
    assert [(f.case, f.fault) for f in scan.findings] == [("a", "the id occurs twice.")] * 2
    assert [c.images[0] for c in scan.cohort.cases] == [root / "imagesTr/a.nii.gz"]


def test_files_that_the_list_does_not_name_are_told(tmp_path: Path) -> None:
    root = decathlon(tmp_path, ["a"])
    touch(root, ["imagesTr/b.nii.gz", "labelsTr/b.nii.gz"])
    scan = LAYOUT.scan(root)
    assert [(f.level, f.case, Path(f.file or "").parent.name) for f in scan.findings] == [
        ("warning", "b", "imagesTr"),
        ("warning", "b", "labelsTr"),
    ]
    assert [c.case for c in scan.cohort.cases] == ["a"]


@pytest.mark.parametrize(
    "training",
    [
        "a",
        {"image": "./imagesTr/a.nii.gz"},
        ["./imagesTr/a.nii.gz"],
        [entry("/etc/a.nii.gz")],
        [entry("../a.nii.gz")],
        [entry("./imagesTr/../../a.nii.gz")],
        [entry("./imagesTr/a.nii.gz", "../a.nii.gz")],
        [entry("./imagesTr/a\0.nii.gz")],
        [entry("./imagesTr/a.mha")],
        [entry(3)],  # type: ignore[arg-type]
        [None],
        None,
    ],
)
def test_a_list_that_cannot_be_meant_is_refused(tmp_path: Path, training: Any) -> None:
    root = decathlon(tmp_path, ["a"])
    description = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps({**description, "training": training}))
    with pytest.raises(InputError, match='"training" entry 0 should be like') as caught:
        LAYOUT.scan(root)
    assert caught.value.file == str(root / "dataset.json")


def test_the_description_keeps_what_it_does_not_know(tmp_path: Path) -> None:
    cohort = LAYOUT.scan(decathlon(tmp_path, ["a"], licence="CC-BY-SA 4.0")).cohort
    pairs = [("a", cohort.cases[0]), ("a__syn000", cohort.cases[0])]
    assert json.loads(LAYOUT.description(cohort, pairs)["dataset.json"]) == {
        "name": "BRATS",
        "licence": "CC-BY-SA 4.0",
        "tensorImageSize": "4D",
        "modality": {"0": "FLAIR", "1": "T1w"},
        "labels": {"0": "background", "1": "edema", "2": "enhancing tumour"},
        "numTraining": 2,
        "numTest": 0,
        "training": [
            entry("./imagesTr/a.nii.gz"),
            entry("./imagesTr/a__syn000.nii.gz", "./labelsTr/a__syn000.nii.gz"),
        ],
        "test": [],
    }


def test_the_description_of_an_input_of_another_layout(tmp_path: Path) -> None:
    cohort = NnUNet().scan(nnunet(tmp_path, ["a"], licence="CC0", file_ending=".nii")).cohort
    table = LabelTable({"plaque": 2, "background": 0}, {"plaque": "lesion", "background": "background"})
    cohort = replace(cohort, labels=table, channels=("T1",))
    written = json.loads(LAYOUT.description(cohort, [("a", cohort.cases[0])])["dataset.json"])
    assert (written["labels"], written["tensorImageSize"]) == ({"0": "background", "2": "plaque"}, "3D")
    assert written["training"] == [entry("./imagesTr/a.nii", "./labelsTr/a.nii")]
    assert "licence" not in written


class TestRecognised:
    """Decathlon and nnU-Net 1 have the same description, which lists the same names."""

    def test_by_whole_images_alone(self, tmp_path: Path) -> None:
        listed = [entry("./imagesTr/a.nii.gz")]
        old = nnunet(tmp_path / "v1", ["a"], channels=1, training=listed, modality={"0": "CT"})
        assert (NnUNet.recognises(old), LAYOUT.recognises(old)) == (True, False)
        msd = decathlon(tmp_path / "msd", ["a"])
        assert (NnUNet.recognises(msd), LAYOUT.recognises(msd)) == (False, True)

    def test_a_case_that_is_called_like_a_channel(self, tmp_path: Path) -> None:
        root = nnunet(tmp_path, ["a", "a_0000"], channels=1)
        assert (NnUNet.recognises(root), LAYOUT.recognises(root)) == (True, False)

    def test_not_without_images_or_description(self, tmp_path: Path) -> None:
        root = decathlon(tmp_path, [])
        assert not LAYOUT.recognises(root)
        (decathlon(tmp_path, ["a"]) / "dataset.json").unlink()
        assert not LAYOUT.recognises(root)
