"""Every kind of fault, planted once: exactly that finding, with file, fault and cure."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from lesionsynth.domain.finding import Finding
from lesionsynth.recipe.load import load_recipe
from lesionsynth.run import check as checking
from lesionsynth.run.check import Checked, check
from tests.conftest import write_nifti
from tests.layouts.trees import nnunet

Plant = Callable[[Path], None]


class Silent:
    """Progress that nobody sees."""

    def start(self, stage: str, total: int) -> None: ...
    def advance(self, done: int = 1) -> None: ...
    def note(self, message: str) -> None: ...


def look(root: Path, *overrides: str, output: Path | None = None) -> Checked:
    return check(load_recipe("lesionmix", overrides), root, output, Silent())


def edit(name: str, change: Callable[[NDArray[np.float64]], NDArray[np.generic]]) -> Plant:
    def plant(root: Path) -> None:
        image = nib.load(root / name)
        write_nifti(root / name, change(image.get_fdata().copy()), image.affine)

    return plant


def put(value: float, dtype: type = np.float32) -> Callable[[NDArray[np.float64]], NDArray[np.generic]]:
    def change(data: NDArray[np.float64]) -> NDArray[np.generic]:
        data[1, 2, 3] = value
        return data.astype(dtype)

    return change


def speck(data: NDArray[np.float64]) -> NDArray[np.generic]:
    data[:] = 0
    data[10, 12, 12] = data[10, 20, 12] = 1
    return data.astype(np.uint8)


def move(name: str, millimetres: float) -> Plant:
    def plant(root: Path) -> None:
        image = nib.load(root / name)
        affine = image.affine.copy()
        affine[0, 3] += millimetres
        write_nifti(root / name, np.asanyarray(image.dataobj), affine)

    return plant


def disagree(root: Path) -> None:
    path = root / "imagesTr/case2_0001.nii.gz"
    image = nib.load(path)
    moved = image.affine.copy()
    moved[0, 3] += 30
    image.set_qform(moved, code=1)
    path.write_bytes(gzip.compress(image.to_bytes()))


def cut(root: Path) -> None:
    path = root / "imagesTr/case2_0001.nii.gz"
    path.write_bytes(path.read_bytes()[:-5])


def copy(source: str, target: str) -> Plant:
    return lambda root: (root / target).write_bytes((root / source).read_bytes()) and None


def describe(**changes: object) -> Plant:
    def plant(root: Path) -> None:
        path = root / "dataset.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return plant


T1, LABEL = "imagesTr/case2_0001.nii.gz", "labelsTr/case2.nii.gz"
PLANTED: dict[str, tuple[Plant, str, str, str, str]] = {
    # what is planted: how, level, file, fault, cure
    "truncated gzip": (cut, "error", T1, "truncated", "download the file again"),
    "nan": (
        edit(T1, put(np.nan)),
        "warning",
        T1,
        "channel T1 has 1 voxels that are NaN or infinite",
        "Replace them",
    ),
    "infinity": (edit(T1, put(-np.inf)), "warning", T1, "has 1 voxels that are NaN", "Replace them"),
    "other shape": (
        edit(T1, lambda d: d[:-1].astype(np.int16)),
        "error",
        T1,
        "channel T1 is 23x30x25",
        "Resample",
    ),
    "other place": (
        move(T1, 7.0),
        "error",
        T1,
        "channel T1 has the shape of channel FLAIR but lies",
        "Resample",
    ),
    "label elsewhere": (
        move(LABEL, 7.0),
        "error",
        LABEL,
        "the label map has the shape of channel FLAIR",
        "Resample",
    ),
    "qform": (
        disagree,
        "warning",
        T1,
        "qform and sform disagree by up to 30 mm",
        "Make qform and sform agree",
    ),
    "constant": (
        edit(T1, lambda d: np.full_like(d, 7, np.int16)),
        "warning",
        T1,
        "is 7 everywhere",
        "Replace",
    ),
    "unknown label": (
        edit(LABEL, put(4, np.uint8)),
        "error",
        LABEL,
        "unknown value 4; known are 0 background",
        "Correct",
    ),
    "fraction": (edit(LABEL, put(0.5)), "error", LABEL, "not whole numbers", "nearest-neighbour"),
    "label nan": (edit(LABEL, put(np.nan)), "error", LABEL, "NaN or infinite", "Write whole numbers"),
    "no lesion": (
        edit(LABEL, lambda d: np.zeros_like(d, np.uint8)),
        "warning",
        LABEL,
        "there is no lesion",
        "is meant",
    ),
    "specks": (edit(LABEL, speck), "warning", LABEL, "all 2 lesions are specks", "Lower bank.min_volume_mm3"),
    "missing channel": (
        lambda root: (root / T1).unlink(),
        "error",
        T1,
        "the channel T1 is missing",
        "Add the file",
    ),
    "missing label": (
        lambda root: (root / LABEL).unlink(),
        "error",
        LABEL,
        "label map is missing",
        "Add the file",
    ),
    "twice the same": (
        copy("imagesTr/case1_0001.nii.gz", T1),
        "error",
        T1,
        "identical to one of case case1",
        "Remove one",
    ),
    "twice the same, packed anew": (
        lambda root: (root / T1).write_bytes(
            gzip.compress(gzip.decompress((root / "imagesTr/case1_0001.nii.gz").read_bytes()), 1)
        ),
        "error",
        T1,
        "identical to one of case case1",
        "Remove one",
    ),
    "two forms": (
        copy(LABEL, "labelsTr/case2.nii"),
        "error",
        "labelsTr/case2.nii",
        "as .nii.gz and as .nii",
        "Remove one",
    ),
    "more channels": (
        copy(T1, "imagesTr/case2_0002.nii.gz"),
        "warning",
        "imagesTr/case2_0002.nii.gz",
        "not used",
        "Name",
    ),
}


def test_sound_data_have_no_findings(make_nnunet: Callable[..., Path]) -> None:
    root = make_nnunet(3)
    result = look(root)
    assert result.findings == []
    facts = "\n".join(result.facts)
    assert "3 cases of 3 subjects" in facts
    assert "channels: FLAIR, T1" in facts
    assert "0 background (background), 1 lesion (lesion)" in facts
    assert "grids: 24x30x25 at 4x4x4 mm" in facts
    assert "made by subject" in facts


@pytest.mark.parametrize("name", PLANTED)
def test_each_fault_is_exactly_one_finding(make_nnunet: Callable[..., Path], name: str) -> None:
    plant, level, file, fault, cure = PLANTED[name]
    splits = [{"train": ["case1"], "val": ["case2"]}, {"train": ["case2"], "val": ["case1"]}]
    root = make_nnunet(2, splits=splits)
    plant(root)
    (finding,) = look(root, "bank.min_voxels=2", "bank.min_volume_mm3=100").findings
    assert finding.level == level
    assert finding.file == str(root / file)
    assert finding.case == "case2"
    assert fault in finding.fault
    assert cure in finding.cure


def test_a_channel_that_stands_for_a_missing_one_is_no_scan(make_nnunet: Callable[..., Path]) -> None:
    """It may well be the same in many cases."""
    root = make_nnunet(2)
    for name in ("imagesTr/case1_0001.nii.gz", T1):
        edit(name, lambda d: np.zeros_like(d, np.int16))(root)
    assert {finding.level for finding in look(root).findings} == {"warning"}


def test_faults_of_a_case_are_told_together(make_nnunet: Callable[..., Path]) -> None:
    root = make_nnunet(2)
    cut(root)
    edit(LABEL, put(4, np.uint8))(root)
    assert [(f.case, Path(f.file or "").name) for f in look(root).findings] == [
        ("case2", "case2_0001.nii.gz"),
        ("case2", "case2.nii.gz"),
    ]


def test_maps_beside_the_images_are_read_too(make_nnunet: Callable[..., Path]) -> None:
    """One is missing, one lies on another grid: a run would stop after it had harvested all."""
    root = make_nnunet(4)
    for number in range(1, 4):
        label = nib.load(root / f"labelsTr/case{number}.nii.gz")
        write_nifti(root / f"maps/case{number}.nii.gz", np.asanyarray(label.dataobj) + 1, label.affine)
    write_nifti(root / "maps/case3.nii.gz", np.ones((3, 4, 5), np.uint8), label.affine)
    for name, what in (("map", "the tissue map"), ("brain_mask", "the brain mask")):
        recipe = load_recipe("lesionmix", [f"tissue.{name}=maps/{{case}}.nii.gz"])
        found = {f.case: f.fault for f in check(recipe, root, None, Silent()).findings}
        assert set(found) == {"case3", "case4"}
        assert found["case3"].startswith(f"{what} is 3x4x5")
        assert "No such file" in found["case4"]


def test_a_layout_that_cannot_hold_the_cases_is_told(make_nnunet: Callable[..., Path]) -> None:
    recipe = load_recipe("lesionmix", ["output.layout=lits"])
    (finding,) = check(recipe, make_nnunet(3), None, Silent()).findings
    assert finding.level == "error"
    assert "lits" in finding.fault


def test_no_case(tmp_path: Path) -> None:
    root = nnunet(tmp_path, [])
    (root / "labelsTr").mkdir()
    (finding,) = look(root).findings
    assert "no case was found" in finding.fault
    assert finding.file == str(root)


@pytest.mark.parametrize(
    ("splits", "fault"),
    [
        ([{"train": ["case1"], "val": ["case1"]}], "trains and validates on the subject 'case1'"),
        ([{"train": ["case1"], "val": ["case9"]}], "names the case 'case9'"),
    ],
)
def test_splits(make_nnunet: Callable[..., Path], splits: object, fault: str) -> None:
    root = make_nnunet(2, splits=splits)
    (finding,) = look(root).findings
    assert fault in finding.fault
    assert finding.file == str(root / "splits_final.json")
    assert finding.cure
    assert look(root, "folds.strategy=none").findings == []


def test_grids_may_differ_between_cases(make_nnunet: Callable[..., Path]) -> None:
    root = make_nnunet(3)
    for name in ("imagesTr/case2_0000.nii.gz", T1, LABEL):
        edit(name, lambda d: d[1:].astype(np.int16))(root)
    result = look(root)
    assert result.findings == []
    assert "grids: 2 different ones" in result.facts


class TestMasks:
    def look(self, root: Path, mask: NDArray[np.generic]) -> list[Finding]:
        write_nifti(root / "masks/p9.nii.gz", mask, np.eye(4))
        return look(root, "input.masks={path: 'masks/{subject}.nii.gz'}").findings

    def test_sound(self, make_nnunet: Callable[..., Path]) -> None:
        assert self.look(make_nnunet(2), np.eye(5, dtype=np.uint8)[..., None]) == []

    @pytest.mark.parametrize(
        ("value", "level", "fault"), [(0.0, "warning", "the mask is empty"), (np.nan, "error", "NaN")]
    )
    def test_faults(self, make_nnunet: Callable[..., Path], value: float, level: str, fault: str) -> None:
        root = make_nnunet(2)
        (finding,) = self.look(root, np.full((5, 5, 5), value, np.float32))
        assert (finding.level, finding.file) == (level, str(root / "masks/p9.nii.gz"))
        assert fault in finding.fault

    def test_lesions_of_a_case_under_another_name(self, make_nnunet: Callable[..., Path]) -> None:
        root = make_nnunet(2)
        image = nib.load(root / LABEL)
        (finding,) = self.look(root, image.get_fdata().astype(np.float32))
        assert (finding.level, finding.file) == ("error", str(root / "masks/p9.nii.gz"))
        assert "lesions of case case2" in finding.fault

    def test_those_of_subjects_with_images_are_not_counted(self, make_nnunet: Callable[..., Path]) -> None:
        root = make_nnunet(2)
        result = look(root, "input.masks={path: 'labelsTr/{subject}.nii.gz'}")
        assert result.findings == []
        assert "2 cases of 2 subjects, 0 masks without images" in result.facts

    def test_truncated(self, make_nnunet: Callable[..., Path]) -> None:
        root = make_nnunet(2)
        (root / "masks").mkdir()
        (root / "masks/p9.nii.gz").write_bytes((root / LABEL).read_bytes()[:-9])
        (finding,) = look(root, "input.masks={path: 'masks/{subject}.nii.gz'}").findings
        assert "truncated" in finding.fault
        assert finding.file == str(root / "masks/p9.nii.gz")


class TestDisk:
    def test_too_little_is_a_finding(
        self, make_nnunet: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(checking, "_free_bytes", lambda path: (path, 1000))
        (finding,) = look(make_nnunet(2), output=tmp_path / "out").findings
        assert finding.level == "error"
        assert "MB and 0.00 MB are free" in finding.fault
        assert finding.file == str(tmp_path / "out")

    def test_an_output_that_is_not_there_yet(self, make_nnunet: Callable[..., Path], tmp_path: Path) -> None:
        assert look(make_nnunet(2), output=tmp_path / "a" / "b" / "c").findings == []

    def test_needed_grows_with_copies_and_folds(self, make_nnunet: Callable[..., Path]) -> None:
        root = make_nnunet(2)
        size = sum(path.stat().st_size for path in root.glob("*Tr/*"))

        def needed(*overrides: str) -> float:
            line = next(f for f in look(root, *overrides).facts if f.startswith("disk"))
            return float(line.split("about ")[1].split(" MB")[0])

        assert needed("output.copies=1") == pytest.approx(2.5 * size / 1e6, abs=0.01)
        assert needed("output.copies=9") == pytest.approx(10.5 * size / 1e6, abs=0.01)
        assert needed("output.copies=9", "output.originals=omit") == pytest.approx(9.5 * size / 1e6, abs=0.01)
        assert needed("output.copies=9", "folds.strategy=per_fold", "folds.count=3") == pytest.approx(
            19.5 * size / 1e6, abs=0.01
        )


def test_a_folder_in_the_place_of_a_file(make_nnunet: Callable[..., Path]) -> None:
    root = make_nnunet(2)
    (root / T1).unlink()
    (root / T1).mkdir()
    (finding,) = look(root).findings
    assert (finding.case, finding.file) == ("case2", str(root / T1))
