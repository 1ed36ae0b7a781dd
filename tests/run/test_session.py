"""Whole runs: what the output holds, leak safety, originals, masks, plan, folders on error."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml

from lesionsynth import nifti
from lesionsynth.errors import InputError, LeakError, LesionsynthError, OutputError
from lesionsynth.recipe.load import load_recipe
from lesionsynth.run import session
from lesionsynth.run.fit import typical_count
from lesionsynth.run.job import HostJobs
from lesionsynth.run.prepare import plan_only, prepare
from tests.conftest import write_nifti
from tests.test_invariants import Silent, records

MakeData = Callable[..., Path]


def go(root: Path, output: Path, *overrides: str, name: str = "lesionmix") -> session.Outcome:
    recipe = load_recipe(name, ["output.copies=1", "steps.add.load=[2, 8]", *overrides])
    return session.run(recipe, root, output, Silent())


def assert_no_leak(output: Path, subject_of: Callable[[str], str] = lambda case: case) -> int:
    """Rebuild leak safety from records and splits alone; number of synthetic cases in training parts."""
    made, count = records(output), 0
    for fold in json.loads((output / "splits_final.json").read_text()):
        validated = {subject_of(case) for case in fold["val"]}
        assert not {subject_of(case) for case in fold["train"] if case not in made} & validated
        assert not set(fold["val"]) & set(made)
        for case, record in made.items():
            behind = {
                record["host"]["subject"],
                *record["fitted_on"],
                *(d["subject"] for d in record["donors"]),
            }
            if case in fold["train"]:
                assert not behind & validated
                count += 1
    return count


# Six subjects in three folds: a block's case serves the two other folds, a fold's own set that fold alone.
@pytest.mark.parametrize(("strategy", "served"), [("block", 6 * 2), ("per_fold", 4 * 3)])
def test_no_strategy_leaks(make_nnunet: MakeData, tmp_path: Path, strategy: str, served: int) -> None:
    outcome = go(make_nnunet(6), tmp_path / "out", f"folds.strategy={strategy}", "folds.count=3")
    assert not outcome.failures
    assert assert_no_leak(tmp_path / "out") == served


def test_block_draws_hosts_donors_and_fits_from_one_fold(make_nnunet: MakeData, tmp_path: Path) -> None:
    splits = [
        {"train": ["case3", "case4", "case5", "case6"], "val": ["case1", "case2"]},
        {"train": ["case1", "case2", "case5", "case6"], "val": ["case3", "case4"]},
        {"train": ["case1", "case2", "case3", "case4"], "val": ["case5", "case6"]},
    ]
    go(make_nnunet(6, splits=splits), tmp_path / "out")
    partner = {
        "case1": "case2",
        "case2": "case1",
        "case3": "case4",
        "case4": "case3",
        "case5": "case6",
        "case6": "case5",
    }
    for record in records(tmp_path / "out").values():
        host = record["host"]["subject"]
        assert set(record["fitted_on"]) == {host, partner[host]}
        assert {d["subject"] for d in record["donors"]} <= {partner[host]}
    found = json.loads((tmp_path / "out" / "splits_final.json").read_text())
    assert [sorted(f["val"]) for f in found] == [s["val"] for s in splits]
    assert {c for c in found[0]["train"] if "__syn" in c} == {f"case{k}__syn000" for k in (3, 4, 5, 6)}


def test_none_writes_no_splits(make_nnunet: MakeData, tmp_path: Path) -> None:
    go(make_nnunet(3), tmp_path / "out", "folds.strategy=none")
    assert not (tmp_path / "out" / "splits_final.json").exists()


def test_sessions_of_a_person_stay_together(make_nnunet: MakeData, tmp_path: Path) -> None:
    root = make_nnunet(6)
    for folder in ("imagesTr", "labelsTr"):
        for path in sorted((root / folder).iterdir()):
            number = int(path.name[4])
            path.rename(path.with_name(f"p{(number + 1) // 2}_ses-{2 - number % 2}{path.name[5:]}"))
    outcome = go(root, tmp_path / "out", "folds.count=3")
    assert {row["subject"] for row in outcome.done} == {"p1", "p2", "p3"}
    assert assert_no_leak(tmp_path / "out", lambda case: case.split("_")[0]) > 0


@pytest.mark.parametrize(("name", "source"), [("ellipsoid", "shapes"), ("lesionmix", "donors")])
def test_a_source_of_unknown_lesions_is_refused(
    make_nnunet: MakeData, tmp_path: Path, name: str, source: str
) -> None:
    with pytest.raises(InputError, match=f"source {source} is 5; the label values of lesions are 1"):
        go(make_nnunet(4), tmp_path / "out", f"sources.{source}.lesion_class=5", name=name)
    assert not (tmp_path / "out").exists()


def test_a_case_that_was_a_donor_in_one_fold_is_none_in_another(
    make_nnunet: MakeData, tmp_path: Path
) -> None:
    recipe = load_recipe("carve_mix", ["output.copies=1", "folds.strategy=per_fold", "folds.count=3"])
    prepared = prepare(recipe, make_nnunet(6), tmp_path / "out", Silent())
    host = prepared.space.cohort.cases[0]
    maker = HostJobs(prepared.space, host)
    one, other = (maker.context(job, "carve").donors for job in prepared.jobs if job.host == host.case)
    assert one.load is not None
    assert other.load is not None
    stranger = min(set(one.subjects) - set(other.subjects))
    assert one.load(stranger).files.subject == stranger
    with pytest.raises(LeakError, match=f"{stranger} may not be a donor"):
        other.load(stranger)


def test_controls_do_not_make_a_disease_one_of_single_lesions(make_nnunet: MakeData, tmp_path: Path) -> None:
    """Four without lesions and two with several: copies of these have several."""
    root = make_nnunet(6)
    for case in range(3, 7):
        path = root / f"labelsTr/case{case}.nii.gz"
        image = nib.load(path)
        write_nifti(path, np.zeros(image.shape, np.uint8), image.affine)
    go(root, tmp_path / "out", "folds.strategy=none", "input.subjects=[case1,case2,case3,case4,case5,case6]")
    fit = json.loads((tmp_path / "out" / "likelihood" / "all.json").read_text())
    counts = sorted(load["count"] for load in fit["loads"])
    assert counts[:4] == [0, 0, 0, 0]
    assert fit["typical_count"] == int(np.ceil(np.mean(counts[4:]))) > 1
    after = [record["lesions"]["after"] for record in records(tmp_path / "out").values()]
    assert max(after) > 1
    assert [typical_count(own) for own in ([], [0, 0], [0, 1], [1, 2], [1, 1, 5])] == [0, 0, 1, 2, 1]


def test_mask_only_subjects_join_fits_but_never_donors(
    make_nnunet: MakeData, tmp_path: Path, phantoms: Any
) -> None:
    root = make_nnunet(4)
    for name, (_, label, affine) in zip(("case1", "extra1", "extra2"), phantoms[3:6], strict=True):
        write_nifti(root / "masks" / f"{name}.nii.gz", label, affine)
    go(root, tmp_path / "out", "input.masks.path=masks/{subject}.nii.gz", "folds.count=2")
    for record in records(tmp_path / "out").values():
        assert {"extra1", "extra2"} <= set(record["fitted_on"])
        assert len(set(record["fitted_on"]) & {"case1", "case2", "case3", "case4"}) == 2
        assert {d["subject"] for d in record["donors"]} <= {"case1", "case2", "case3", "case4"}
    assert assert_no_leak(tmp_path / "out") > 0


def test_the_output_is_an_nnunet_data_set_with_its_papers(make_nnunet: MakeData, tmp_path: Path) -> None:
    output = tmp_path / "out"
    outcome = go(make_nnunet(4), output)
    description = json.loads((output / "dataset.json").read_text())
    labels = {p.name.removesuffix(".nii.gz") for p in (output / "labelsTr").iterdir()}
    assert description["numTraining"] == len(labels) == 8
    assert {p.name for p in (output / "imagesTr").iterdir()} == {
        f"{c}_000{k}.nii.gz" for c in labels for k in (0, 1)
    }
    with (output / "manifest.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["case"] for row in rows} == labels
    assert sum(row["kind"] == "synthetic" for row in rows) == len(outcome.done) == 4
    lock = yaml.safe_load((output / "recipe.lock.yaml").read_text())
    assert lock["seed"] == 2026
    assert lock["voxels"] == outcome.voxels
    assert lock["recipe"]["steps"]["add"]["load"]["range_ml"] == [2.0, 8.0]
    assert len(lock["input_hashes"]) == 4 * 3
    assert (output / "likelihood" / "block0.nii.gz").is_file()


@pytest.mark.parametrize("originals", ["copy", "link", "omit"])
def test_originals(make_nnunet: MakeData, tmp_path: Path, originals: str) -> None:
    root, output = make_nnunet(3), tmp_path / "out"
    go(root, output, f"output.originals={originals}", "folds.strategy=none")
    for source in (root / "imagesTr").iterdir():
        target = output / "imagesTr" / source.name
        assert target.exists() == (originals != "omit")
        if originals != "omit":
            assert target.read_bytes() == source.read_bytes()
            assert target.samefile(source) == (originals == "link")


def test_links_of_the_input_are_followed(make_nnunet: MakeData, tmp_path: Path) -> None:
    root, output = make_nnunet(3), tmp_path / "out"
    (root / "annex").mkdir()
    for path in list((root / "imagesTr").iterdir()):
        path.rename(root / "annex" / path.name)
        path.symlink_to(f"../annex/{path.name}")
    go(root, output, "output.originals=link", "folds.strategy=none")
    for source in (root / "annex").iterdir():
        target = output / "imagesTr" / source.name
        assert not target.is_symlink()
        assert target.samefile(source)


def test_originals_are_compressed_where_the_layout_says_so(make_nnunet: MakeData, tmp_path: Path) -> None:
    root = make_nnunet(3)
    for path in list((root / "imagesTr").iterdir()):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    images = "FLAIR: 'imagesTr/{case}_0000.nii', T1: 'imagesTr/{case}_0001.nii'"
    layout = f"{{kind: pattern, images: {{{images}}}, label: 'labelsTr/{{case}}.nii.gz'}}"
    go(root, tmp_path / "out", f"input.layout={layout}", "output.layout=nnunet", "folds.strategy=none")
    for path in (tmp_path / "out" / "imagesTr").iterdir():
        assert path.name.endswith(".nii.gz")
        assert nib.load(path).get_fdata().shape == (24, 30, 25)
        assert path.read_bytes()[:2] == b"\x1f\x8b"


def test_float_labels_come_out_as_unsigned_integers(make_nnunet: MakeData, tmp_path: Path) -> None:
    root = make_nnunet(3)
    for path in (root / "labelsTr").iterdir():
        image = nib.load(path)
        nib.Nifti1Image(image.get_fdata().astype(np.float32), image.affine).to_filename(path)
    go(root, tmp_path / "out", "folds.strategy=none")
    for path in (tmp_path / "out" / "labelsTr").glob("*__syn*"):
        image = nifti.read(path)
        assert image.raw.dtype == np.uint8
        assert (image.slope, image.inter) == (1.0, 0.0)


def test_scaled_integers_keep_their_scaling(make_nnunet: MakeData, tmp_path: Path) -> None:
    root = make_nnunet(3)
    for path in (root / "imagesTr").glob("*_0000*"):
        image = nib.load(path)
        header = image.header.copy()
        scaled = nib.Nifti1Image(image.get_fdata() * 0.01 - 3.0, image.affine, header)
        scaled.header.set_data_dtype(np.int16)
        scaled.header.set_slope_inter(0.01, -3.0)
        scaled.to_filename(path)
    go(root, tmp_path / "out", "folds.strategy=none")
    for path in (tmp_path / "out" / "imagesTr").glob("*__syn*_0000*"):
        image = nifti.read(path)
        assert (image.raw.dtype, image.slope) == (np.int16, pytest.approx(0.01))
        assert image.values().max() < 40


def test_cases_of_different_grids_and_orientations(make_nnunet: MakeData, tmp_path: Path) -> None:
    root = make_nnunet(4)
    for number, change in ((2, lambda d: d[::-1]), (3, lambda d: d[:, :, 2:])):
        for path in [
            *(root / "imagesTr").glob(f"case{number}_*"),
            root / "labelsTr" / f"case{number}.nii.gz",
        ]:
            image = nib.load(path)
            data, affine = np.ascontiguousarray(change(np.asanyarray(image.dataobj))), image.affine.copy()
            if number == 2:
                affine[:3, 3] += affine[:3, 0] * (data.shape[0] - 1)
                affine[:3, 0] *= -1
            else:
                affine[:3, 3] += affine[:3, 2] * 2
            nib.Nifti1Image(data, affine).to_filename(path)
    outcome = go(root, tmp_path / "out", "folds.strategy=none")
    assert len(outcome.done) == 4
    assert not outcome.failures


def test_affine_maps_register_the_cases(make_nnunet: MakeData, tmp_path: Path) -> None:
    outcome = go(make_nnunet(4), tmp_path / "out", "likelihood.kind=affine", "folds.count=2")
    assert not outcome.failures
    fit = json.loads((tmp_path / "out" / "likelihood" / "block0.json").read_text())
    assert fit["map_kind"] == "affine"
    assert len(fit["registrations"]) == 2


def test_plan_changes_nothing_and_agrees_with_the_run(make_nnunet: MakeData, tmp_path: Path) -> None:
    root = make_nnunet(4)
    before = {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}
    recipe = load_recipe("lesionmix", ["output.copies=1"])
    planned = {job.case: job.targets["add"].ml for job in plan_only(recipe, root, Silent())}
    assert before == {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}
    outcome = session.run(recipe, root, tmp_path / "out", Silent())
    assert {row["case"]: row["load_target_ml"] for row in outcome.done} == pytest.approx(planned, abs=1e-6)


@pytest.mark.parametrize("existed", [True, False])
def test_folders_are_as_they_were_after_a_start_that_failed(
    make_nnunet: MakeData, tmp_path: Path, existed: bool
) -> None:
    root = make_nnunet(3)
    label = root / "labelsTr" / "case2.nii.gz"
    label.write_bytes(label.read_bytes()[:100])
    output = tmp_path / "new" / "deep"
    if existed:
        output.mkdir(parents=True)
    with pytest.raises(LesionsynthError):
        go(root, output)
    assert output.exists() == existed
    assert (tmp_path / "new").exists() == existed
    assert not existed or not list(output.iterdir())


@pytest.mark.parametrize("with_plan", [True, False])
def test_what_another_run_has_made_meanwhile_stays(
    make_nnunet: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_plan: bool
) -> None:
    """Two outputs in one new folder, or two runs that meet in one: the one that cannot start goes alone."""
    root, one, other = make_nnunet(3), tmp_path / "new" / "one", tmp_path / "new" / "other"

    def meet(recipe: Any, root: Path, output: Path, *more: Any) -> Any:
        monkeypatch.undo()
        go(root, other)
        if with_plan:
            go(root, output)
        raise InputError("this cannot start.")

    monkeypatch.setattr(session, "prepare", meet)
    with pytest.raises(InputError, match="this cannot start"):
        go(root, one, "seed=5")
    assert len(records(other)) == 3
    assert one.exists() == with_plan
    assert not with_plan or len(records(one)) == 3


def test_bad_cases_are_dropped_where_the_recipe_says_so(make_nnunet: MakeData, tmp_path: Path) -> None:
    root = make_nnunet(4)
    label = root / "labelsTr" / "case2.nii.gz"
    label.write_bytes(label.read_bytes()[:100])
    outcome = go(root, tmp_path / "out", "input.on_bad_case=drop", "folds.strategy=none")
    assert {row["host"] for row in outcome.done} == {"case1", "case3", "case4"}
    assert [f.name for f in outcome.failures] == ["case2"]
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["numTraining"] == 6


def test_foreign_files_are_never_touched(make_nnunet: MakeData, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "thesis.tex").write_text("precious")
    with pytest.raises(OutputError, match="other files"):
        go(make_nnunet(3), output)
    assert (output / "thesis.tex").read_text() == "precious"


def test_missing_outputs_are_made_again(make_nnunet: MakeData, tmp_path: Path) -> None:
    root, output = make_nnunet(3), tmp_path / "out"
    first = go(root, output, "folds.strategy=none")
    lost = output / "labelsTr" / f"{first.done[0]['case']}.nii.gz"
    content = nifti.read(lost).raw.copy()
    lost.unlink()
    second = go(root, output, "folds.strategy=none")
    assert second.skipped == 2
    assert second.voxels == first.voxels
    assert np.array_equal(nifti.read(lost).raw, content)


def test_one_subject_has_no_folds(make_nnunet: MakeData, tmp_path: Path) -> None:
    outcome = go(make_nnunet(1), tmp_path / "out")
    assert len(outcome.done) == 1
    assert outcome.done[0]["own_subject_donors"] == outcome.done[0]["lesions_inserted"]
    assert not (tmp_path / "out" / "splits_final.json").exists()


@pytest.mark.parametrize("change", [("seed: ", "seed: x"), ("recipe:", "recipes:"), ("key:", "keys:")])
def test_replay_of_a_lock_that_was_edited(
    make_nnunet: MakeData, tmp_path: Path, change: tuple[str, str]
) -> None:
    outcome = go(make_nnunet(2), tmp_path / "out")
    lock = tmp_path / "out" / "recipe.lock.yaml"
    lock.write_text(lock.read_text().replace(*change))
    with pytest.raises(InputError, match=r"recipe\.lock\.yaml") as caught:
        session.replay(tmp_path / "out", outcome.done[0]["case"], tmp_path / "again")
    assert "pydantic" not in str(caught.value)
