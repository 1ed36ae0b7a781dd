"""lesionsynth-bids on a BIDS data set, and what the validator says of its output."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lesionsynth.layouts.bids import Bids
from tests.conftest import write_nifti

LABELS = ("01", "02", "03", "04", "05", "06")
USED = LABELS[:4]
PLACES = (None, str(Path(sys.executable).parent))
VALIDATOR = next(filter(None, (shutil.which("bids-validator-deno", path=place) for place in PLACES)), None)
needs_validator = pytest.mark.skipif(
    VALIDATOR is None, reason="bids-validator-deno is not installed (extra bids-test)"
)


def bids_app(*words: object) -> subprocess.CompletedProcess[str]:
    code = "from lesionsynth.cli.bids import main; main()"
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def errors_of(root: Path) -> list[str]:
    """Codes of the errors that the validator finds."""
    done = subprocess.run([str(VALIDATOR), str(root), "--format", "json"], capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert found["summary"]["subjects"]
    errors = [issue["code"] for issue in found["issues"]["issues"] if issue["severity"] == "error"]
    assert (done.returncode == 0) == (not errors)
    return errors


@pytest.fixture(scope="module")
def dataset(phantoms: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw images of six participants, one with two sessions, masks in derivatives."""
    root = tmp_path_factory.mktemp("bids") / "data"
    for label, (images, mask, affine) in zip(LABELS, phantoms, strict=True):
        session = "/ses-b" if label == "02" else ""
        stem = f"sub-{label}{session}/anat/sub-{label}{session.replace('/', '_')}"
        write_nifti(root / f"{stem}_FLAIR.nii.gz", images[0], affine)
        write_nifti(root / f"{stem}_acq-3d_T1w.nii.gz", images[1], affine)
        write_nifti(root / f"derivatives/manual/{stem}_label-lesion_mask.nii.gz", mask, affine)
    (root / "sub-01/anat/sub-01_FLAIR.json").write_text('{"EchoTime": 0.1}')
    (root / "participants.tsv").write_text("participant_id\n" + "".join(f"sub-{n}\n" for n in LABELS))
    (root / "dataset_description.json").write_text('{"Name": "phantoms", "BIDSVersion": "1.10.0"}')
    return root


@pytest.fixture(scope="module")
def output(dataset: Path) -> Path:
    """What the program makes of four of them."""
    output = dataset.parent / "out"
    done = bids_app(
        *(dataset, output, "participant", "--participant-label", "01", "sub-02", *USED[2:]),
        *(
            "--n-cpus",
            1,
            "--mem",
            8000,
            "-w",
            dataset.parent / "work",
            "--copies",
            1,
            "--set",
            "folds.strategy=none",
            "--quiet",
        ),
    )
    assert done.returncode == 0, done.stderr
    return output


def test_copies_are_named_after_their_hosts(output: Path) -> None:
    anat = output / "sub-02/ses-b/anat"
    assert sorted(path.name for path in anat.iterdir()) == [
        "sub-02_ses-b_FLAIR.nii.gz",
        "sub-02_ses-b_acq-3d_T1w.nii.gz",
        "sub-02_ses-b_acq-3d_desc-synth000_T1w.nii.gz",
        "sub-02_ses-b_desc-synth000_FLAIR.nii.gz",
        "sub-02_ses-b_label-lesion_desc-synth000_mask.nii.gz",
        "sub-02_ses-b_label-lesion_mask.nii.gz",
    ]


def test_only_the_participants_asked_for_take_part(output: Path) -> None:
    assert sorted(path.name for path in output.glob("sub-*")) == [f"sub-{label}" for label in USED]
    records = [json.loads(path.read_text()) for path in (output / "records").glob("*.json")]
    assert len(records) == len(USED)
    for record in records:
        people = {*record["fitted_on"], *(donor["subject"] for donor in record["donors"])}
        assert people <= {f"sub-{label}" for label in USED}
    assert (output / "participants.tsv").read_text().split() == [
        "participant_id",
        *(f"sub-{n}" for n in USED),
    ]


def test_copies_are_read_as_what_they_are(output: Path) -> None:
    for layout in (Bids(), Bids(channels={"FLAIR": "FLAIR", "T1w": "T1w"})):  # by the table, and by names
        cases = {c.case: c.subject for c in layout.scan(output).cohort.cases}
        assert cases["sub-02_ses-b__syn000"] == "sub-02"
        assert len(cases) == 2 * len(USED)
    done = bids_app(output, output.parent / "again", "participant")
    assert done.returncode == 4
    assert "synthetic case of an earlier run" in done.stderr
    assert not (output.parent / "again").exists()


@needs_validator
def test_the_validator_finds_no_error(output: Path) -> None:
    assert errors_of(output) == []


@needs_validator
def test_the_validator_would_find_one(output: Path, tmp_path: Path) -> None:
    shutil.copytree(output, tmp_path / "broken")
    (tmp_path / "broken/FLAIR.json").unlink()
    (tmp_path / "broken/.bidsignore").unlink()
    assert set(errors_of(tmp_path / "broken")) >= {"NOT_INCLUDED", "SIDECAR_KEY_REQUIRED"}


SHAPES = {
    "ATLAS 2": [
        "R001/sub-r001/ses-1/anat/sub-r001_ses-1_space-MNI152NLin2009aSym_T1w",
        "R001/sub-r001/ses-1/anat/sub-r001_ses-1_space-MNI152NLin2009aSym_label-L_desc-T1lesion_mask",
    ],
    "ISLES 2022": [
        "sub-strokecase0001/ses-0001/dwi/sub-strokecase0001_ses-0001_dwi",
        "sub-strokecase0001/ses-0001/dwi/sub-strokecase0001_ses-0001_adc",
        "sub-strokecase0001/ses-0001/anat/sub-strokecase0001_ses-0001_FLAIR",
        "derivatives/sub-strokecase0001/ses-0001/sub-strokecase0001_ses-0001_msk",
    ],
    "fMRIPrep": ["sub-01/anat/sub-01_T1w", "sub-01/anat/sub-01_label-lesion_roi"],
    "segmentation": ["sub-01/anat/sub-01_desc-preproc_T2w", "sub-01/anat/sub-01_dseg"],
    "CT": ["sub-01/anat/sub-01_CT", "sub-01/anat/sub-01_label-lesion_mask"],
}


@needs_validator
@pytest.mark.parametrize("shape", SHAPES)
def test_the_validator_takes_what_is_made_of_published_shapes(shape: str, tmp_path: Path) -> None:
    root = tmp_path / "in"
    for name in SHAPES[shape]:
        write_nifti(root / f"{name}.nii.gz", np.zeros((4, 4, 4), np.uint8), np.eye(4))
    if shape == "segmentation":
        (root / "dseg.tsv").write_text("index\tname\n0\tbackground\n2\ttumour\n")
    layout = Bids()
    cohort = layout.scan(root).cohort
    cases = [(files.case + copy, files) for files in cohort.cases for copy in ("", "__syn000")]
    assert cases
    for case, files in cases:
        for k, image in enumerate(files.images):
            place(image, tmp_path / "out" / layout.image_path(files, case, k, cohort))
        place(files.label, tmp_path / "out" / layout.label_path(files, case, cohort))
    for path, content in layout.description(cohort, cases).items():
        (tmp_path / "out" / path).write_bytes(content)
    assert errors_of(tmp_path / "out") == []


def place(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def test_a_participant_who_is_not_there(dataset: Path, tmp_path: Path) -> None:
    done = bids_app(dataset, tmp_path / "out", "participant", "--participant-label", "09")
    assert done.returncode == 4
    assert "no images of the participant 09" in done.stderr


def test_group_merges(tmp_path: Path) -> None:
    done = bids_app(tmp_path, tmp_path, "group")
    assert done.returncode == 5
    assert "holds no finished plan" in done.stderr


@pytest.mark.parametrize(
    "words", [[], ["a", "b"], ["a", "b", "session"], ["a", "b", "participant", "--no-such", "1"]]
)
def test_a_wrong_command_line(words: list[str]) -> None:
    done = bids_app(*words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_recipe_that_is_not_there() -> None:
    done = bids_app("a", "b", "participant", "--recipe", "none.yaml")
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
