"""What every layout promises: an output that it has laid out, it finds again. Registered means tested."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from lesionsynth.domain.case import CaseFiles, Cohort
from lesionsynth.layouts.bids import Bids
from lesionsynth.layouts.decathlon import Decathlon
from lesionsynth.layouts.lits import Lits
from lesionsynth.layouts.nnunet import NnUNet
from lesionsynth.layouts.pattern import TABLE, Pattern
from lesionsynth.layouts.wmh2017 import Wmh2017
from lesionsynth.plugins import registry
from lesionsynth.plugins.contracts import LayoutSpec
from lesionsynth.recipe.model import InputSpec
from lesionsynth.run.cohort import scan_cohort
from tests.layouts.trees import decathlon, nnunet, touch

GLOB_NAMES = ("a[1]", "b*", "c")


@dataclass(frozen=True)
class Example:
    """A layout, an input that it reads, and the layout that reads its output."""

    kind: str
    layout: LayoutSpec
    make: Callable[[Path], object]
    again: LayoutSpec


def _two_subjects(root: Path) -> None:
    for subject, case in (("s1", "v1"), ("s1", "v2"), ("s2", "v3")):
        touch(root, [f"{subject}/{case}_{what}.nii.gz" for what in ("FLAIR", "T1", "mask")])


def _one_folder_a_subject(root: Path) -> None:
    for subject in ("s1", "s2"):
        touch(root, [f"{subject}/{what}.nii" for what in ("FLAIR", "mask")])


def _shared_image(root: Path) -> None:
    touch(root, ["s1/T1.nii.gz", "s1/a_mask.nii.gz", "s1/b_mask.nii.gz"])


def _table(root: Path) -> None:
    touch(root, ["x/1.nii", "y/1.nii.gz", "x/2.nii", "y/2.nii.gz"])
    (root / TABLE).write_text(
        "case,subject,FLAIR,label\nc1,s1,x/1.nii,y/1.nii.gz\nc2,s1,x/2.nii,y/2.nii.gz\n"
    )


def _bids(root: Path) -> None:
    for stem in ("sub-01/ses-a/anat/sub-01_ses-a", "sub-01/ses-b/anat/sub-01_ses-b", "sub-02/anat/sub-02"):
        images = [f"{stem}_{what}.nii.gz" for what in ("FLAIR", "acq-3d_T1w")]
        touch(root, [*images, f"derivatives/manual/{stem}_label-lesion_mask.nii.gz"])


def _bids_segmentations(root: Path) -> None:
    for subject in ("01", "02"):
        stem = f"sub-{subject}/anat/sub-{subject}_space-MNI152NLin6Asym_desc"
        touch(root, [f"{stem}-preproc_T1w.nii", f"{stem}-lesions_dseg.nii"])
    (root / "dseg.tsv").write_text("index\tname\n0\tbackground\n1\tliver\n4\ttumour\n")


def _lits(root: Path) -> None:
    touch(root, ["Training Batch 1/volume-0.nii", "Training Batch 1/segmentation-0.nii"])
    touch(root, ["Training Batch 2/volume-10.nii", "labels/deep/segmentation-10.nii.gz"])
    touch(root, ["volume-2.nii.gz", "segmentation-2.nii.gz", "test/test-volume-2.nii"])


def _wmh2017(root: Path) -> None:
    for folder in ("Utrecht/0", "Singapore/0", "Amsterdam/GE3T/100", "7"):
        touch(root, [f"{folder}/pre/FLAIR.nii.gz", f"{folder}/pre/T1.nii.gz", f"{folder}/wmh.nii.gz"])
        touch(root, [f"{folder}/orig/FLAIR.nii.gz", f"{folder}/orig/3DT1.nii.gz"])


BY_TABLE = Pattern(table=TABLE)
EXAMPLES = {
    "nnunet": Example("nnunet", NnUNet(), lambda root: nnunet(root, ["c1", "c2_x", "c3"]), NnUNet()),
    "nnunet .nii": Example(
        "nnunet", NnUNet(), lambda root: nnunet(root, ["c1"], file_ending=".nii"), NnUNet()
    ),
    "nnunet glob characters": Example("nnunet", NnUNet(), lambda root: nnunet(root, GLOB_NAMES), NnUNet()),
    "nnunet v1": Example(
        "nnunet",
        NnUNet(),
        lambda root: nnunet(
            root,
            ["c1"],
            modality={"0": "CT", "1": "PET"},
            channel_names=None,
            file_ending=None,
            labels={"0": "background", "1": "liver", "2": "tumour"},
        ),
        NnUNet(),
    ),
    "decathlon": Example("decathlon", Decathlon(), lambda root: decathlon(root, ["c1", "c_2"]), Decathlon()),
    "decathlon .nii, unlisted": Example(
        "decathlon",
        Decathlon(),
        lambda root: decathlon(root, ["c1", "c2"], ending=".nii", training=None),
        Decathlon(),
    ),
    "decathlon of one channel": Example(
        "decathlon", Decathlon(), lambda root: decathlon(root, ["c1"], modality={"0": "CT"}), Decathlon()
    ),
    "lits": Example("lits", Lits(), _lits, Lits()),
    "wmh2017": Example("wmh2017", Wmh2017(), _wmh2017, Wmh2017()),
    "wmh2017 of one channel": Example(
        "wmh2017", Wmh2017(channels=("FLAIR",)), _wmh2017, Wmh2017(channels=("FLAIR",))
    ),
    "bids": Example("bids", Bids(), _bids, Bids()),
    "bids segmentations": Example("bids", Bids(), _bids_segmentations, Bids()),
    "bids by names": Example(
        "bids",
        Bids(),
        _bids,
        Bids(channels={"FLAIR": "FLAIR", "T1w": "acq-3d_T1w"}, mask="label-lesion_mask"),
    ),
    "pattern with subject and case": Example(
        "pattern",
        (
            both := Pattern(
                images={"FLAIR": "{subject}/{case}_FLAIR.nii.gz", "T1": "{subject}/{case}_T1.nii.gz"},
                label="{subject}/{case}_mask.nii.gz",
            )
        ),
        _two_subjects,
        both,
    ),
    "pattern by its table": Example("pattern", both, _two_subjects, BY_TABLE),
    "pattern without case": Example(
        "pattern",
        Pattern(images={"FLAIR": "{subject}/FLAIR.nii"}, label="{subject}/mask.nii"),
        _one_folder_a_subject,
        BY_TABLE,
    ),
    "pattern with one image for two cases": Example(
        "pattern",
        Pattern(images={"T1": "{subject}/T1.nii.gz"}, label="{subject}/{case}_mask.nii.gz"),
        _shared_image,
        BY_TABLE,
    ),
    "pattern of a table": Example("pattern", BY_TABLE, _table, BY_TABLE),
}


@pytest.fixture(params=EXAMPLES)
def example(request: pytest.FixtureRequest) -> Example:
    return EXAMPLES[request.param]


@pytest.fixture
def cohort(example: Example, tmp_path: Path) -> Cohort:
    root = tmp_path / "input [1]"
    root.mkdir()
    example.make(root)
    scan = example.layout.scan(root)
    assert scan.findings == ()
    assert scan.cohort.cases
    return scan.cohort


def outputs(cohort: Cohort) -> list[tuple[str, CaseFiles]]:
    copies = [(f"{f.case}__syn{k:03d}", f) for f in cohort.cases for k in range(2)]
    return sorted([*((f.case, f) for f in cohort.cases), *copies], key=lambda pair: pair[0])


def paths(layout: LayoutSpec, case: str, files: CaseFiles, cohort: Cohort) -> list[Path]:
    images = [layout.image_path(files, case, k, cohort) for k in range(len(cohort.channels))]
    return [*images, layout.label_path(files, case, cohort)]


def write(layout: LayoutSpec, root: Path, cohort: Cohort) -> None:
    for case, files in outputs(cohort):
        touch(root, [path.as_posix() for path in paths(layout, case, files, cohort)])
    for name, content in layout.description(cohort, outputs(cohort)).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def test_every_kind_has_an_example() -> None:
    assert {example.kind for example in EXAMPLES.values()} == set(registry.kinds("layouts"))
    assert all(example.layout.kind == example.kind for example in EXAMPLES.values())


def test_what_is_written_is_found_again(example: Example, cohort: Cohort, tmp_path: Path) -> None:
    root = tmp_path / "output"
    write(example.layout, root, cohort)
    again = example.again.scan(root)
    assert again.findings == ()
    assert again.cohort.channels == cohort.channels
    assert again.cohort.labels == cohort.labels
    assert [c.case for c in again.cohort.cases] == [case for case, _ in outputs(cohort)]
    for found, (case, files) in zip(again.cohort.cases, outputs(cohort), strict=True):
        expected = paths(example.layout, case, files, cohort)
        assert [p.relative_to(root) for p in (*found.images, found.label)] == expected
        if example.kind == "pattern":
            assert found.subject == files.subject


def test_paths_stay_inside_and_are_all_different(example: Example, cohort: Cohort) -> None:
    seen: set[Path] = set()
    for case, files in outputs(cohort):
        images = example.layout.image_files(files, case, cohort)
        assert sorted(n for numbers in images.values() for n in numbers) == [*range(len(cohort.channels))]
        for path in (*images, example.layout.label_path(files, case, cohort)):
            assert not path.is_absolute()
            assert ".." not in path.parts
            assert path not in seen
            seen.add(path)


def test_a_copy_of_an_original_keeps_its_kind_of_file(example: Example, cohort: Cohort) -> None:
    for files in cohort.cases:
        sources = [*files.images, files.label]
        targets = paths(example.layout, files.case, files, cohort)
        for source, target in zip(sources, targets, strict=True):
            assert source.name.endswith(".gz") == target.name.endswith(".gz")


def test_it_is_recognised_as_no_other_layout(example: Example, cohort: Cohort, tmp_path: Path) -> None:
    write(example.layout, tmp_path / "output", cohort)
    for root in (cohort.root, tmp_path / "output"):
        found = [kind for kind, model in registry.kinds("layouts").items() if model.recognises(root)]
        assert found == ([] if example.kind == "pattern" else [example.kind])


def test_what_is_synthetic_is_found_and_refused_as_an_input(
    example: Example, cohort: Cohort, tmp_path: Path
) -> None:
    write(example.layout, tmp_path / "output", cohort)
    _, scan = scan_cohort(InputSpec(layout=example.again), tmp_path / "output")
    refused = {finding.case for finding in scan.findings if "is a synthetic case" in finding.fault}
    assert refused == {case for case, files in outputs(cohort) if case != files.case}


def test_scanning_twice_gives_the_same(example: Example, cohort: Cohort) -> None:
    assert example.layout.scan(cohort.root).cohort == cohort
    assert [c.case for c in cohort.cases] == sorted(c.case for c in cohort.cases)


def test_an_empty_folder_is_no_cohort_and_not_recognised(example: Example, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert not example.layout.recognises(empty)
    assert not example.layout.recognises(tmp_path / "missing")
