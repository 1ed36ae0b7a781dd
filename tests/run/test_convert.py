"""One layout into another and back: nothing is lost."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from lesionsynth.cli.app import app
from lesionsynth.domain.case import Cohort
from lesionsynth.errors import InputError, LeakError, LesionsynthError, OutputError, RecipeError
from lesionsynth.layouts.pattern import TABLE
from lesionsynth.plugins import registry
from lesionsynth.recipe.load import load_recipe
from lesionsynth.recipe.model import InputSpec
from lesionsynth.run.cohort import open_cohort
from lesionsynth.run.convert import Converted, convert
from lesionsynth.run.session import run
from tests.conftest import write_nifti

CASES = ("sub-01_ses-1", "sub-01_ses-2", "sub-02", "sub-03")
SPLITS = [{"train": [*CASES[:2], CASES[3]], "val": [CASES[2]]}, {"train": [CASES[2]], "val": list(CASES[:2])}]
LAYOUTS: dict[str, Any] = {kind: kind for kind in registry.kinds("layouts")}
LAYOUTS["pattern"] = {"kind": "pattern", "table": TABLE}
DATA: dict[str, tuple[tuple[str, ...], dict[str, int]]] = {
    "ms": (("FLAIR", "T1"), {"background": 0, "lesion": 1}),
    "wmh": (("FLAIR", "T1"), {"background": 0, "WMH": 1, "other": 2}),
    "liver": (("CT",), {"background": 0, "liver": 1, "tumour": 2}),
}


class Silent:
    """Progress that keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def start(self, stage: str, total: int) -> None: ...
    def advance(self, done: int = 1) -> None: ...
    def note(self, message: str) -> None:
        self.notes.append(message)


def nnunet(root: Path, what: str, splits: object = SPLITS, cases: tuple[str, ...] = CASES) -> Path:
    """A data set whose cases have grids, dtypes and voxels of their own."""
    channels, labels = DATA[what]
    for number, case in enumerate(cases):
        rng = np.random.default_rng(number)
        shape, affine = (5 + number, 6, 4), np.diag([1.0, 2.0, 1.5, 1.0])
        affine[:3, 3] = number
        for k in range(len(channels)):
            dtype = (np.int16, np.float32)[number % 2]  # a 4-D file has one type
            image = rng.normal(100, 30, shape).astype(dtype)
            write_nifti(root / "imagesTr" / f"{case}_{k:04d}.nii.gz", image, affine)
        label = rng.integers(0, len(labels), shape).astype((np.uint8, np.int16)[number % 2])
        write_nifti(root / "labelsTr" / f"{case}.nii.gz", label, affine)
    description = {
        "channel_names": {str(k): name for k, name in enumerate(channels)},
        "labels": labels,
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(description))
    if splits is not None:
        (root / "splits_final.json").write_text(json.dumps(splits))
    return root


def converted(root: Path, output: Path, to: Any, read: Any = "auto", **output_keys: Any) -> Converted:
    settings = [f"output.layout={json.dumps(to)}", f"input.layout={json.dumps(read)}"]
    settings += [f"output.{key}={value}" for key, value in output_keys.items()]
    return convert(load_recipe("lesionmix", settings), root, output, Silent())


def layout_of(made: Converted) -> dict[str, Any]:
    return made.layout.model_dump(mode="json")


def voxels(path: Path, channel: int | None) -> tuple[bytes, str, list[Any], tuple[float, float]]:
    """Stored voxels, dtype, affine and scaling of a file, or of one of its volumes."""
    image = nib.load(path)
    raw = np.asanyarray(image.dataobj.get_unscaled())
    raw = raw[..., channel] if raw.ndim == 4 and channel is not None else raw
    return (
        raw.tobytes(order="F"),
        raw.dtype.str,
        image.affine.tolist(),
        (image.dataobj.slope, image.dataobj.inter),
    )


def content(cohort: Cohort) -> dict[str, Any]:
    """Everything that a conversion there and back has to keep."""
    return {
        "channels": cohort.channels,
        "labels": dict(cohort.labels.values),
        "splits": cohort.splits,
        "cases": {
            files.case: (
                files.subject,
                [voxels(path, k) for k, path in enumerate(files.images)],
                voxels(files.label, None),
            )
            for files in cohort.cases
        },
    }


@pytest.mark.parametrize(("there", "back"), list(itertools.permutations(LAYOUTS, 2)))
def test_there_and_back(there: str, back: str, tmp_path: Path) -> None:
    held = 0
    for what in DATA:
        source = nnunet(tmp_path / what, what)
        try:
            first = converted(source, tmp_path / f"{what}-0", LAYOUTS[there])
            second = converted(
                tmp_path / f"{what}-0", tmp_path / f"{what}-1", LAYOUTS[back], layout_of(first)
            )
        except InputError as error:
            if "cannot hold this data set" not in str(error):
                raise
            continue
        third = converted(tmp_path / f"{what}-1", tmp_path / f"{what}-2", LAYOUTS[there], layout_of(second))
        held += 1
        _, before, _ = open_cohort(InputSpec(layout=first.layout), tmp_path / f"{what}-0")
        _, after, _ = open_cohort(InputSpec(layout=third.layout), tmp_path / f"{what}-2")
        assert content(after) == content(before)
        _, original, _ = open_cohort(InputSpec(), source)
        expected = content(original)["cases"]
        found = content(before)["cases"]
        assert {first.renamed[case]: entry[1:] for case, entry in expected.items()} == {
            case: entry[1:] for case, entry in found.items()
        }
        assert before.splits is not None
        assert original.splits is not None
        for new, old in zip(before.splits, original.splits, strict=True):
            assert new.train == tuple(first.renamed[case] for case in old.train)
            assert new.val == tuple(first.renamed[case] for case in old.val)
    if {there, back} != {"lits", "wmh2017"}:  # one channel and two
        assert held, f"{there} and {back} hold none of the data sets"


@pytest.mark.parametrize("kind", ["bids", "pattern"])
def test_subjects_and_ids_are_kept(kind: str, tmp_path: Path) -> None:
    made = converted(nnunet(tmp_path / "in", "ms"), tmp_path / "out", LAYOUTS[kind])
    assert made.subjects_kept
    assert made.renamed == {case: case for case in CASES}
    assert {c.case: c.subject for c in made.cohort.cases}["sub-01_ses-2"] == "sub-01"
    assert made.recognised == (kind == "bids")


def test_files_are_copied_as_they_are_or_linked(tmp_path: Path) -> None:
    source = nnunet(tmp_path / "in", "ms")
    first = source / "imagesTr/sub-02_0000.nii.gz"
    for originals in ("copy", "link"):
        output = tmp_path / originals
        converted(source, output, "bids", originals=originals)
        written = output / "sub-02/anat/sub-02_FLAIR.nii.gz"
        assert written.read_bytes() == first.read_bytes()
        assert written.samefile(first) == (originals == "link")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy", "in", "link"]


def test_folds_of_a_table_become_splits(tmp_path: Path) -> None:
    source = nnunet(tmp_path / "in", "ms", splits=None)
    rows = [f"{c},{c[:6]},{c[5]},imagesTr/{c}_0000.nii.gz,labelsTr/{c}.nii.gz" for c in CASES]
    (source / "t.csv").write_text("\n".join(["case,subject,fold,FLAIR,label", *rows]) + "\n")
    converted(source, tmp_path / "out", "nnunet", {"kind": "pattern", "table": "t.csv"})
    splits = json.loads((tmp_path / "out/splits_final.json").read_text())
    assert [fold["val"] for fold in splits] == [list(CASES[:2]), [CASES[2]], [CASES[3]]]
    rows[2] = rows[2].replace(",2,", ",,")
    (source / "t.csv").write_text("\n".join(["case,subject,fold,FLAIR,label", *rows]) + "\n")
    with pytest.raises(LeakError, match=r"sub-02.*has no fold in the table, where others have one"):
        converted(source, tmp_path / "partly", "nnunet", {"kind": "pattern", "table": "t.csv"})
    assert not (tmp_path / "partly").exists()


def test_no_splits_are_made_where_there_are_none(tmp_path: Path) -> None:
    converted(nnunet(tmp_path / "in", "ms", splits=None), tmp_path / "out", "bids")
    assert not (tmp_path / "out/splits_final.json").exists()


def test_a_layout_that_loses_subjects_says_so(tmp_path: Path) -> None:
    source = nnunet(tmp_path / "in", "ms", splits=None, cases=("a1", "a2", "b1"))
    rows = [f"{c},{c[0]},imagesTr/{c}_0000.nii.gz,labelsTr/{c}.nii.gz" for c in ("a1", "a2", "b1")]
    (source / "t.csv").write_text("\n".join(["case,subject,FLAIR,label", *rows]) + "\n")
    read = {"kind": "pattern", "table": "t.csv"}
    assert not converted(source, tmp_path / "nnunet", "nnunet", read).subjects_kept
    assert converted(source, tmp_path / "bids", "bids", read).subjects_kept


def test_two_cases_with_one_name_are_refused(tmp_path: Path) -> None:
    source = nnunet(tmp_path / "in", "ms", splits=None, cases=("p_1", "p1", "p2"))
    with pytest.raises(InputError, match=r"p_1.*would have the same file as p1") as caught:
        converted(source, tmp_path / "out", "bids")
    assert caught.value.remedy
    with pytest.raises(InputError, match="would have the same file as p1"):
        run(load_recipe("lesionmix", ["output.layout=bids"]), source, tmp_path / "out", Silent())
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


ONE_CHANNEL = {"kind": "pattern", "images": {"x": "{case}_x.nii.gz"}, "label": "{case}.nii.gz"}
OTHER_LABELS = {"kind": "pattern", "table": TABLE, "labels": {"background": 0, "x": 1}}


@pytest.mark.parametrize(
    ("to", "error", "match"),
    [
        ("same", RecipeError, "no layout was given"),
        (ONE_CHANNEL, InputError, "channels are x, not FLAIR, T1"),
        (OTHER_LABELS, InputError, "labels are 0 background, 1 x, not 0 background, 1 lesion"),
    ],
)
def test_what_cannot_be_held_is_refused(
    to: Any, error: type[LesionsynthError], match: str, tmp_path: Path
) -> None:
    source = nnunet(tmp_path / "in", "ms")
    with pytest.raises(error, match=match):
        converted(source, tmp_path / "out", to)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    source = nnunet(tmp_path / "in", "ms")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds other files"):
        converted(source, tmp_path / "out", "bids")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["notes.txt"]


def test_a_failure_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    source = nnunet(tmp_path / "in", "ms")
    path = source / "imagesTr/sub-03_0001.nii.gz"
    path.unlink()
    path.mkdir()  # found by name, and cannot be read
    with pytest.raises(LesionsynthError):
        converted(source, tmp_path / "out", "bids")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_the_command(tmp_path: Path) -> None:
    source = nnunet(tmp_path / "in", "wmh")
    done = CliRunner().invoke(app, ["convert", str(source), "-o", str(tmp_path / "b"), "--to", "bids", "-q"])
    assert done.exit_code == 0, done.output
    assert done.stdout == f"4 cases in {tmp_path / 'b'}, layout bids.\n"
    to = f"{{kind: pattern, table: {TABLE}}}"
    options = [str(tmp_path / "b"), "-o", str(tmp_path / "p"), "--to", to, "--link", "--json"]
    done = CliRunner().invoke(app, ["convert", *options])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["layout"] == {"kind": "pattern", "table": TABLE, "labels": DATA["wmh"][1]}
    assert told["cases"] == {case: case for case in CASES}
    done = CliRunner().invoke(
        app, ["convert", str(tmp_path / "p"), "-o", str(tmp_path / "n"), "--to", "nnunet"]
    )
    assert done.exit_code == 4
    assert "no known layout was recognised" in done.stderr
