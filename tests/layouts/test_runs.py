"""Whole runs on small trees of each shape: headers, voxels, folders, splits, replay."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from lesionsynth.errors import LesionsynthError
from lesionsynth.qc.audit import audit
from lesionsynth.recipe.load import load_recipe
from lesionsynth.run import session
from lesionsynth.run.check import check
from lesionsynth.run.pool import ALONE
from tests.conftest import write_nifti
from tests.test_invariants import Silent, records

Phantoms = list[tuple[NDArray[np.int16], NDArray[np.uint8], NDArray[np.float64]]]
OVERRIDES = ("output.copies=1", "steps.add.load=[2, 8]", "output.source_map=true", "folds.count=2")


def msd(root: Path, phantoms: Phantoms) -> Path:
    """A data set of the Decathlon, whose headers say more than ours would."""
    listed = []
    for number, (images, label, affine) in enumerate(phantoms[:4], start=1):
        name = f"BRATS_{number:03d}.nii.gz"
        image = nib.Nifti1Image(np.stack(images, axis=3), affine)
        image.header["descrip"], image.header["toffset"] = b"scan 7", 3.0
        image.header.set_zooms((4.0, 4.0, 4.0, 2.5))
        (root / "imagesTr").mkdir(parents=True, exist_ok=True)
        (root / "imagesTr" / name).write_bytes(gzip.compress(image.to_bytes()))
        (root / "imagesTr" / f"._{name}").write_text("macOS")
        write_nifti(root / "labelsTr" / name, label, affine)
        listed.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    description = {
        "name": "BRATS",
        "modality": {"0": "FLAIR", "1": "T1w"},
        "labels": {"0": "background", "1": "lesion"},
        "numTraining": 4,
        "training": listed,
        "test": [],
    }
    (root / "dataset.json").write_text(json.dumps(description))
    return root


def liver(phantoms: Phantoms) -> list[tuple[NDArray[np.int16], NDArray[np.uint8], NDArray[np.float64]]]:
    """The brain as a liver (1), its lesions as tumours (2)."""
    made = []
    for images, label, affine in phantoms:
        organ = (images[1] > 0) | (label > 0)
        made.append((images[0], np.where(label > 0, 2, organ).astype(np.uint8), affine))
    return made


def lits(root: Path, phantoms: Phantoms) -> Path:
    for number, (image, label, affine) in enumerate(liver(phantoms[:4])):
        folder, ending = f"Training Batch {1 + number % 2}", (".nii", ".nii.gz")[number // 2]
        write_nifti(root / folder / f"volume-{number}{ending}", image, affine)
        write_nifti(root / "labels" / f"segmentation-{number}{ending}", label, affine)
    return root


def wmh(root: Path, phantoms: Phantoms) -> Path:
    """Utrecht/0, Utrecht/1, Singapore/0, Singapore/1, with a block of another pathology in each."""
    for number, (images, label, affine) in enumerate(phantoms[:4]):
        folder = root / ("Utrecht", "Singapore")[number // 2] / str(number % 2)
        label = label.copy()
        label[10:13, 14:17, 12:14] = 2
        for name, image in zip(("FLAIR", "T1"), images, strict=True):
            write_nifti(folder / "pre" / f"{name}.nii.gz", image, affine)
            write_nifti(folder / "orig" / f"{name}.nii.gz", image[::2], affine)
        write_nifti(folder / "wmh.nii.gz", label, affine)
    return root


def go(root: Path, output: Path, *overrides: str, name: str = "lesionmix") -> dict[str, Any]:
    recipe = load_recipe(name, [*(OVERRIDES if name == "lesionmix" else OVERRIDES[:1]), *overrides])
    outcome = session.run(recipe, root, output, Silent())
    assert not outcome.failures, [str(f.error) for f in outcome.failures]
    made = records(output)
    assert len(made) == 4
    return made


def content(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if path.name.endswith(".gz") else data


def raw(path: Path) -> NDArray[Any]:
    return np.asanyarray(nib.load(path).dataobj)


def assert_replays(output: Path, case: str, target: Path) -> None:
    files = session.replay(output, case, target)
    assert files
    for path in files:
        assert path.read_bytes() == (output / path.relative_to(target)).read_bytes()


def assert_audited(output: Path) -> None:
    assert [str(finding) for finding in audit(output, None, ALONE, Silent()).findings] == []


def assert_refused_as_input(output: Path) -> None:
    with pytest.raises(LesionsynthError, match="is a synthetic case of an earlier run"):
        session.run(load_recipe("lesionmix"), output, output.with_name("third"), Silent())


@pytest.mark.parametrize(("make", "kind"), [(msd, "decathlon"), (lits, "lits"), (wmh, "wmh2017")])
def test_check_finds_nothing(
    make: Callable[[Path, Phantoms], Path], kind: str, phantoms: Phantoms, tmp_path: Path
) -> None:
    found = check(load_recipe("lesionmix"), make(tmp_path, phantoms), None, Silent())
    assert found.findings == []
    assert found.facts[0].startswith("4 cases of 4 subjects")


def test_a_damaged_4d_file_is_one_finding(phantoms: Phantoms, tmp_path: Path) -> None:
    root = msd(tmp_path, phantoms)
    path = root / "imagesTr/BRATS_002.nii.gz"
    path.write_bytes(path.read_bytes()[:-9])
    (finding,) = check(load_recipe("lesionmix"), root, None, Silent()).findings
    assert (finding.case, finding.file) == ("BRATS_002", str(path))
    write_nifti(path, phantoms[1][0][0], phantoms[1][2])
    (finding,) = check(load_recipe("lesionmix"), root, None, Silent()).findings
    assert "2 volumes, one a channel, were expected" in finding.fault


class TestDecathlon:
    def test_headers_and_untouched_voxels_are_the_hosts(self, phantoms: Phantoms, tmp_path: Path) -> None:
        root, output = msd(tmp_path / "in", phantoms), tmp_path / "out"
        for case, record in go(root, output).items():
            host = record["host"]["case"]
            assert sorted(record["inputs"]) == [f"imagesTr/{host}.nii.gz", f"labelsTr/{host}.nii.gz"]
            original = root / f"imagesTr/{host}.nii.gz"
            copy = output / f"imagesTr/{case}.nii.gz"
            assert (output / f"imagesTr/{host}.nii.gz").read_bytes() == original.read_bytes()
            assert content(copy)[:352] == content(original)[:352]
            edited = raw(output / f"source_maps/{case}.nii.gz") > 0
            different = raw(copy) != raw(original)
            assert not different[~edited].any()
            assert all(different[..., channel].any() for channel in range(2))
        described = json.loads((output / "dataset.json").read_text())
        assert described["numTraining"] == len(described["training"]) == 8
        folds = json.loads((output / "splits_final.json").read_text())
        assert all(not case.count("__syn") for fold in folds for case in fold["val"])
        assert_audited(output)
        assert_replays(output, "BRATS_001__syn000", tmp_path / "again")
        assert_refused_as_input(output)

    def test_becomes_3d_and_4d_again(self, phantoms: Phantoms, tmp_path: Path) -> None:
        root = msd(tmp_path / "in", phantoms)
        whole = go(root, tmp_path / "4d")
        split = go(root, tmp_path / "3d", "output.layout=nnunet")
        assert set(whole) == set(split)
        assert_audited(tmp_path / "3d")
        for case in (*whole, "BRATS_001"):
            series = nib.load(tmp_path / f"4d/imagesTr/{case}.nii.gz")
            for channel in range(2):
                image = nib.load(tmp_path / f"3d/imagesTr/{case}_{channel:04d}.nii.gz")
                assert image.header["dim"].tolist() == [3, *image.shape, 1, 1, 1, 1]
                assert image.header["descrip"] == b"scan 7"
                np.testing.assert_array_equal(image.affine, series.affine)
                np.testing.assert_array_equal(image.dataobj, series.dataobj[..., channel])
        for path in [*(tmp_path / "3d").glob("*Tr/*__syn*"), tmp_path / "3d" / "splits_final.json"]:
            path.unlink()
        again = go(tmp_path / "3d", tmp_path / "back", "output.layout=decathlon")
        for case in (*again, "BRATS_001"):
            image = nib.load(tmp_path / f"back/imagesTr/{case}.nii.gz")
            assert image.shape == (*phantoms[0][1].shape, 2)
            assert image.get_data_dtype() == np.int16
        np.testing.assert_array_equal(image.dataobj, nib.load(root / "imagesTr/BRATS_001.nii.gz").dataobj)
        assert_audited(tmp_path / "back")
        assert_replays(tmp_path / "back", "BRATS_001__syn000", tmp_path / "again")

    def test_a_changed_voxel_of_a_copy_is_found_by_the_audit(
        self, phantoms: Phantoms, tmp_path: Path
    ) -> None:
        output = tmp_path / "out"
        go(msd(tmp_path / "in", phantoms), output)
        path = output / "imagesTr/BRATS_001__syn000.nii.gz"
        data = bytearray(gzip.decompress(path.read_bytes()))
        data[-2] ^= 1  # the last voxel of the second channel
        path.write_bytes(gzip.compress(bytes(data)))
        found = audit(output, None, ALONE, Silent()).findings
        assert {finding.case for finding in found} == {"BRATS_001__syn000"}
        assert any("digest is not the record's" in finding.fault for finding in found)


class TestLits:
    def test_folders_and_kinds_of_files_are_the_hosts(self, phantoms: Phantoms, tmp_path: Path) -> None:
        root, output = lits(tmp_path / "in", phantoms), tmp_path / "out"
        go(root, output)
        for source in root.rglob("*.nii*"):
            assert (output / source.relative_to(root)).read_bytes() == source.read_bytes()
            name, ending = source.name.split(".", 1)
            copy = (output / source.relative_to(root)).with_name(f"{name}__syn000.{ending}")
            assert content(copy)[:352] == content(source)[:352]
            assert content(copy) != content(source)
        assert_audited(output)
        assert_replays(output, "2__syn000", tmp_path / "again")
        assert_refused_as_input(output)

    def test_the_liver_comes_back_where_a_tumour_is_removed(self, phantoms: Phantoms, tmp_path: Path) -> None:
        root, output = lits(tmp_path / "in", phantoms), tmp_path / "out"
        go(root, output, name="pseudo_healthy")
        for host in root.rglob("segmentation-*"):
            name, ending = host.name.split(".", 1)
            before, after = raw(host), raw(output / "labels" / f"{name}__syn000.{ending}")
            np.testing.assert_array_equal(after, np.where(before == 2, 1, before))


class TestWmh2017:
    def test_other_pathology_is_untouched_and_no_donor(self, phantoms: Phantoms, tmp_path: Path) -> None:
        root, output = wmh(tmp_path / "in", phantoms), tmp_path / "out"
        made = go(root, output)
        assert sorted(made) == [f"{s}_{k}__syn000" for s in ("Singapore", "Utrecht") for k in (0, 1)]
        for record in made.values():
            site, number = record["host"]["case"].split("_")
            host, copy = root / site / number, output / site / f"{number}__syn000"
            before, after = raw(host / "wmh.nii.gz"), raw(copy / "wmh.nii.gz")
            np.testing.assert_array_equal(before == 2, after == 2)
            for name in ("FLAIR.nii.gz", "T1.nii.gz"):
                was, now = raw(host / "pre" / name), raw(copy / "pre" / name)
                assert (was != now).any()
                assert (was == now)[before == 2].all()
                original = output / site / number / "pre" / name
                assert original.read_bytes() == (host / "pre" / name).read_bytes()
            assert f"{site}/{number}/pre/FLAIR.nii.gz" in record["inputs"]
        assert not list(output.rglob("orig"))
        assert_audited(output)
        assert_replays(output, "Utrecht_0__syn000", tmp_path / "again")
        assert_refused_as_input(output)


@pytest.mark.parametrize(
    ("make", "layout", "told"),
    [
        (wmh, "lits", r"its label 1 is WMH \(lesion\)"),
        (lits, "wmh2017", r"its label 1 is liver \(organ\)"),
    ],
)
def test_an_output_that_cannot_hold_the_input_is_refused_at_the_start(
    make: Callable[[Path, Phantoms], Path], layout: str, told: str, phantoms: Phantoms, tmp_path: Path
) -> None:
    root = make(tmp_path / "in", phantoms)
    recipe = load_recipe("lesionmix", [*OVERRIDES, f"output.layout={layout}"])
    with pytest.raises(LesionsynthError, match=f"the layout {layout} cannot hold this data set: {told}"):
        session.run(recipe, root, tmp_path / "out", Silent())
    assert not (tmp_path / "out").exists()


def test_channels_that_cannot_be_joined_are_a_clear_error(phantoms: Phantoms, tmp_path: Path) -> None:
    root = wmh(tmp_path / "in", phantoms)
    path = root / "Utrecht/0/pre/T1.nii.gz"
    data = bytearray(gzip.decompress(path.read_bytes()))
    data[112:120] = np.array([0.5, 3.0], "<f4").tobytes()
    path.write_bytes(gzip.compress(bytes(data)))
    recipe = load_recipe("lesionmix", [*OVERRIDES, "output.layout=decathlon"])
    (finding,) = check(recipe, root, None, Silent()).findings
    assert "cannot be joined in one file" in finding.fault
    assert finding.case is not None
    assert str(finding.file).endswith("FLAIR.nii.gz")
    with pytest.raises(LesionsynthError, match=r"cannot be joined in one file.*int16 x 0.5 \+ 3"):
        session.run(recipe, root, tmp_path / "out", Silent())
