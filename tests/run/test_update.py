"""A changed recipe or input makes again exactly what depends on it, and says so."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml

from lesionsynth.bank.store import LesionBank, note_case
from lesionsynth.errors import InputError, OutputError
from lesionsynth.kernels.tissue import FLUID, GREY, WHITE
from lesionsynth.recipe.model import Recipe
from lesionsynth.run import fit, session
from lesionsynth.run.ledger import read_record
from lesionsynth.run.pool import Engine
from lesionsynth.run.shard import Shard
from tests.conftest import write_nifti
from tests.run.test_shards import files
from tests.test_invariants import Silent, recipe_of, records

MakeData = Callable[..., Path]
SPLITS = [
    {"train": ["case4", "case5", "case6"], "val": ["case1", "case2", "case3"]},
    {"train": ["case1", "case2", "case3"], "val": ["case4", "case5", "case6"]},
]
OTHER_SPLITS = [
    {"train": ["case2", "case4", "case6"], "val": ["case1", "case3", "case5"]},
    {"train": ["case1", "case3", "case5"], "val": ["case2", "case4", "case6"]},
]
ALL = range(1, 7)


def updated(recipe: Recipe, root: Path, output: Path, tmp_path: Path) -> tuple[set[str], set[str], str]:
    """Bring an output up to date: cases made, cases kept, what was said. The result is that of a new run."""
    stamps = {p.stem: p.stat().st_mtime_ns for p in (output / "records").glob("*.json")}
    progress = Silent()
    outcome = session.run(recipe, root, output, progress, update=True)
    assert not outcome.failures
    kept = {case for case in records(output) if case in stamps}
    kept = {c for c in kept if (output / "records" / f"{c}.json").stat().st_mtime_ns == stamps[c]}
    fresh = session.run(recipe, root, tmp_path / "fresh", Silent())
    assert outcome.voxels == fresh.voxels
    assert files(output) == files(tmp_path / "fresh")
    shutil.rmtree(tmp_path / "fresh")
    (said,) = [note for note in progress.notes if note.startswith("update:")]
    return set(records(output)) - kept, kept, said


@pytest.fixture
def made(make_nnunet: MakeData, tmp_path: Path) -> tuple[Path, Path]:
    root = make_nnunet(6, splits=SPLITS)
    assert not session.run(recipe_of(), root, tmp_path / "out", Silent()).failures
    return root, tmp_path / "out"


def cases_of(*hosts: int, copies: int = 2) -> set[str]:
    return {f"case{host}__syn{copy:03d}" for host in hosts for copy in range(copies)}


def test_nothing_is_mixed_without_being_asked_for(made: tuple[Path, Path]) -> None:
    root, output = made
    before = files(output)
    with pytest.raises(OutputError, match=r"another recipe: seed, steps.add.tries differ\. .*--update"):
        session.run(recipe_of("seed=5", "steps.add.tries=7"), root, output, Silent())
    (root / "labelsTr" / "case6.nii.gz").touch()
    with pytest.raises(OutputError, match="another input or trained model: files, folds or names have"):
        session.run(recipe_of(), root, output, Silent())
    assert files(output) == before


def test_what_does_not_matter_to_voxels_makes_nothing_again(made: tuple[Path, Path], tmp_path: Path) -> None:
    root, output = made
    recipe = recipe_of("description=another", "output.originals=link", "input.on_bad_case=drop")
    again, kept, said = updated(recipe, root, output, tmp_path)
    assert again == set()
    assert kept == cases_of(*ALL)
    assert "0 case(s) depend on what has changed" in said
    assert "12 stay as they are" in said


def test_more_and_fewer_copies(made: tuple[Path, Path], tmp_path: Path) -> None:
    root, output = made
    again, kept, _ = updated(recipe_of("output.copies=3"), root, output, tmp_path)
    assert again == cases_of(*ALL, copies=3) - cases_of(*ALL)
    assert kept == cases_of(*ALL)
    again, kept, said = updated(recipe_of("output.copies=1"), root, output, tmp_path)
    assert again == set()
    assert kept == cases_of(*ALL, copies=1)
    assert "12 are no longer planned and were taken out" in said
    assert not list(output.rglob("*__syn001*"))


def test_a_changed_step_makes_all_again(made: tuple[Path, Path], tmp_path: Path) -> None:
    again, kept, _ = updated(recipe_of("steps.add.tries=20"), *made, tmp_path)
    assert again == cases_of(*ALL)
    assert kept == set()


def test_a_changed_image_makes_its_block_again(made: tuple[Path, Path], tmp_path: Path) -> None:
    root, output = made
    path = root / "imagesTr" / "case5_0000.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj) + np.int16(1), image.affine, image.header), path)
    again, kept, said = updated(recipe_of(), root, output, tmp_path)
    assert again == cases_of(4, 5, 6)
    assert kept == cases_of(1, 2, 3)
    assert "6 case(s) depend on what has changed" in said


def test_a_case_that_is_gone_goes_with_its_copies_and_makes_its_block_again(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    root, output = made
    for path in [*(root / "imagesTr").glob("case6_*"), root / "labelsTr" / "case6.nii.gz"]:
        path.unlink()
    splits = [{part: [c for c in cases if c != "case6"] for part, cases in fold.items()} for fold in SPLITS]
    (root / "splits_final.json").write_text(json.dumps(splits))
    again, kept, said = updated(recipe_of(), root, output, tmp_path)
    assert again == cases_of(4, 5)
    assert kept == cases_of(1, 2, 3)
    assert "4 case(s) depend on what has changed and are made again; 2 are no longer planned" in said
    assert not list(output.rglob("*case6*")), "nor is anything of a withdrawn person left in the bank"


def test_what_described_an_earlier_plan_goes(made: tuple[Path, Path], tmp_path: Path) -> None:
    """Its splits would leak: copies of this plan have donors everywhere."""
    root, output = made
    assert (output / "splits_final.json").is_file()
    updated(recipe_of("folds.strategy=none"), root, output, tmp_path)
    assert not (output / "splits_final.json").exists()
    assert {path.name for path in (output / "likelihood").iterdir()} == {"all.nii.gz", "all.json"}
    updated(recipe_of("output.layout={kind: bids}"), root, output, tmp_path)
    assert not (output / "dataset.json").exists()
    session.plan(recipe_of(), root, output, Silent(), update=True)
    there = {path.name for path in output.iterdir() if path.is_file()}
    assert there == {"recipe.lock.yaml", "cohort.json", "plan.jsonl"}, "until it is finalized"
    assert not session.run(recipe_of(), root, output, Silent()).failures


def test_a_corrected_tissue_map_makes_again_what_was_made_by_it(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    """Also where as many voxels are white matter as before."""
    root = made[0]
    (root / "tissue").mkdir()
    with LesionBank(made[1] / "bank") as bank:
        for case in bank.cases():
            grid = nib.load(root / "labelsTr" / f"{case.case}.nii.gz").affine
            write_nifti(root / "tissue" / f"{case.case}.nii.gz", bank.tissue(case.case), grid)
    by_map = (
        f"{{kind: map, map: 'tissue/{{case}}.nii.gz', fluid: [{FLUID}], grey: [{GREY}], white: [{WHITE}]}}"
    )
    recipe, output = recipe_of(f"tissue={by_map}"), tmp_path / "by_map"
    session.run(recipe, root, output, Silent())
    path = root / "tissue" / "case2.nii.gz"
    image = nib.load(path)
    classes = np.asanyarray(image.dataobj).copy()
    grey = np.argwhere(classes == GREY)
    classes[tuple(grey[: len(grey) // 3].T)] = FLUID
    write_nifti(path, classes, image.affine)
    again, kept, _ = updated(recipe, root, output, tmp_path)
    assert (again, kept) == (cases_of(1, 2, 3), cases_of(4, 5, 6))


def test_a_corrected_person_makes_again_what_hers_may_be_in(phantoms: Any, tmp_path: Path) -> None:
    """A donor that turns out to be the host's own is none where these are forbidden."""
    root, output = tmp_path / "data", tmp_path / "out"
    for number, (images, label, affine) in enumerate(phantoms, start=1):
        write_nifti(root / f"f{number}.nii.gz", images[0], affine)
        write_nifti(root / f"l{number}.nii.gz", label, affine)

    def write_table(*subjects: str) -> None:
        rows = [f"c{k},{s},f{k}.nii.gz,l{k}.nii.gz,{int(k > 3)}" for k, s in enumerate(subjects, start=1)]
        (root / "t.csv").write_text("\n".join(["case,subject,FLAIR,label,fold", *rows]) + "\n")

    recipe = recipe_of("input.layout={kind: pattern, table: t.csv}", "sources.donors.own_subject=forbid")
    write_table("A", "A", "B", "D", "E", "F")
    session.run(recipe, root, output, Silent())
    write_table("A", "B", "B", "D", "E", "F")
    again, kept, _ = updated(recipe, root, output, tmp_path)
    assert {case[:2] for case in again} == {"c1", "c2", "c3"}
    assert {case[:2] for case in kept} == {"c4", "c5", "c6"}
    assert {giver["case"] for giver in read_record(output, "c3__syn000")["donors"]} <= {"c1"}


def test_changed_folds_are_noticed(made: tuple[Path, Path], tmp_path: Path) -> None:
    root, output = made
    (root / "splits_final.json").write_text(json.dumps(OTHER_SPLITS))
    with pytest.raises(OutputError, match="files, folds or names have changed"):
        session.run(recipe_of(), root, output, Silent())
    again, kept, _ = updated(recipe_of(), root, output, tmp_path)
    assert (again, kept) == (cases_of(*ALL), set())
    found = json.loads((output / "splits_final.json").read_text())
    assert [[c for c in fold["val"] if "__syn" not in c] for fold in found] == [
        fold["val"] for fold in OTHER_SPLITS
    ]


def test_another_description_is_noticed(made: tuple[Path, Path], tmp_path: Path) -> None:
    """What no voxel depends on is written anew; a channel in other units makes all again."""
    root, output = made
    path = root / "dataset.json"
    about = json.loads(path.read_text())
    path.write_text(json.dumps({**about, "licence": "CC0"}))
    assert updated(recipe_of(), root, output, tmp_path)[:2] == (set(), cases_of(*ALL))
    path.write_text(json.dumps({**about, "channel_names": {"0": "FLAIR", "1": "CT"}}))
    assert updated(recipe_of(), root, output, tmp_path)[:2] == (cases_of(*ALL), set())


def test_a_changed_likelihood_map_is_noticed(made: tuple[Path, Path], tmp_path: Path) -> None:
    root = made[0]
    shape, affine = (image := nib.load(root / "labelsTr" / "case1.nii.gz")).shape, image.affine
    recipe = recipe_of("likelihood={kind: map, map: map.nii.gz}")
    write_nifti(root / "map.nii.gz", np.ones(shape, np.float32), affine)
    output = tmp_path / "by_map"
    session.run(recipe, root, output, Silent())
    moved, half = affine.copy(), np.ones(shape, np.float32)
    moved[0, 3] += 8.0
    half[: shape[0] // 2] = 0
    for voxels, where in ((np.ones(shape, np.float32), moved), (half, affine)):
        write_nifti(root / "map.nii.gz", voxels, where)
        with pytest.raises(OutputError, match="files, folds or names have changed"):
            session.run(recipe, root, output, Silent())
        assert updated(recipe, root, output, tmp_path)[0] == cases_of(*ALL)


def test_another_output_of_other_folds_has_maps_of_its_own_on_a_node(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    """Copies of bank and maps on a fast disk are shared by runs of one key."""
    root = made[0]
    for name, folds in (("one", SPLITS), ("two", OTHER_SPLITS)):
        (root / "splits_final.json").write_text(json.dumps(folds))
        session.run(recipe_of(), root, tmp_path / name, Silent(), work=tmp_path / "node")
    assert len(list((tmp_path / "node").iterdir())) == 2


def test_an_update_that_is_stopped_is_continued(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its first change on the folder is the new run's: the old recipe is refused."""
    root, output = made

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lesionsynth.run.prepare.fit_blocks", stop)
        with pytest.raises(KeyboardInterrupt):
            session.run(recipe_of("seed=5"), root, output, Silent(), update=True)
    with pytest.raises(OutputError, match="was not finished"):
        session.run(recipe_of(), root, output, Silent())
    outcome = session.run(recipe_of("seed=5"), root, output, Silent())
    assert outcome.voxels == session.run(recipe_of("seed=5"), root, tmp_path / "fresh", Silent()).voxels
    assert files(output) == files(tmp_path / "fresh")


def test_an_update_that_is_stopped_while_it_harvests_can_be_taken_back(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lesions and maps of the new settings lie under the names of the old ones."""
    root, output = made
    noted = []

    def stop(*given: Any) -> None:
        noted.append(given)
        if len(noted) == 3:
            raise KeyboardInterrupt
        note_case(*given)

    with monkeypatch.context() as patch:
        patch.setattr("lesionsynth.run.fit.note_case", stop)
        with pytest.raises(KeyboardInterrupt):
            session.run(recipe_of("bank.margin_mm=9"), root, output, Silent(), update=True)
    session.run(recipe_of(), root, output, Silent(), update=True)
    outcome = session.run(recipe_of("output.copies=3"), root, output, Silent(), update=True)
    fresh = session.run(recipe_of("output.copies=3"), root, tmp_path / "fresh", Silent())
    assert not outcome.failures
    assert outcome.voxels == fresh.voxels
    for part in ("bank/lesions", "bank/tissue", "bank/zones"):
        for path in (output / part).iterdir():
            assert path.read_bytes() == (tmp_path / "fresh" / part / path.name).read_bytes()


def test_links_to_the_input_become_copies(made: tuple[Path, Path]) -> None:
    """Who asks for copies may mean to change them."""
    root, output = made
    for originals, linked in (("link", True), ("copy", False)):
        session.run(recipe_of(f"output.originals={originals}"), root, output, Silent(), update=True)
        path = output / "labelsTr" / "case1.nii.gz"
        if linked:
            path.unlink()
            session.run(recipe_of(f"output.originals={originals}"), root, output, Silent())
        assert path.samefile(root / "labelsTr" / "case1.nii.gz") == linked


def test_an_update_that_failed_is_not_the_last_that_knows_what_was_there(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    """Originals of a case that is gone have no record by which they would be found."""
    root, output = made
    for path in [*(root / "imagesTr").glob("case6_*"), root / "labelsTr" / "case6.nii.gz"]:
        path.unlink()
    (root / "splits_final.json").unlink()
    image = root / "imagesTr" / "case2_0000.nii.gz"
    whole = image.read_bytes()
    image.write_bytes(whole[:2000])
    for _ in range(2):
        with pytest.raises(InputError, match="case2"):
            session.run(recipe_of(), root, output, Silent(), update=True)
    image.write_bytes(whole)
    updated(recipe_of(), root, output, tmp_path)
    assert not list(output.rglob("*Tr/case6*"))


def test_the_bank_is_continued(made: tuple[Path, Path]) -> None:
    root, output = made
    (root / "labelsTr" / "case6.nii.gz").touch()
    progress = Silent()
    session.run(recipe_of(), root, output, progress, update=True)
    assert "lesion bank: 5 of 6 cases are there already." in progress.notes


def test_a_case_that_was_dropped_does_not_come_back(make_nnunet: MakeData, tmp_path: Path) -> None:
    """Nor with an update that makes nothing new of the bank."""
    root, output = make_nnunet(5), tmp_path / "out"
    os.truncate(root / "imagesTr" / "case3_0000.nii.gz", 2000)
    dropping = ("input.on_bad_case=drop", "output.copies=1")
    session.run(recipe_of(*dropping), root, output, Silent())
    outcome = session.run(recipe_of(*dropping, "seed=5"), root, output, Silent(), update=True)
    assert [failure.name for failure in outcome.failures] == ["case3"]
    assert not list(output.rglob("imagesTr/case3*"))
    assert not any("case3" in (output / name).read_text() for name in ("manifest.csv", "splits_final.json"))
    with pytest.raises(InputError, match="case3"):
        session.run(recipe_of("output.copies=1"), root, output, Silent(), update=True)


def test_a_case_that_was_dropped_is_tried_again(
    make_nnunet: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been the disk, and not the file, which is the same as before."""
    root, output, recipe = make_nnunet(4), tmp_path / "out", recipe_of("input.on_bad_case=drop")
    reading = fit.load_case

    def fail(files: Any, *more: Any) -> Any:
        if files.case == "case3":
            raise OSError("stale file handle")
        return reading(files, *more)

    with monkeypatch.context() as patch:
        patch.setattr(fit, "load_case", fail)
        assert [f.name for f in session.run(recipe, root, output, Silent()).failures] == ["case3"]
    assert [f.name for f in session.run(recipe, root, output, Silent()).failures] == ["case3"]
    again, *_ = updated(recipe, root, output, tmp_path)
    assert cases_of(3) <= again


@pytest.mark.parametrize("spoil", ["index.sqlite", "cases/case1.json", "lesions/case1.bin"])
def test_a_damaged_bank_is_mended(made: tuple[Path, Path], tmp_path: Path, spoil: str) -> None:
    """As after a loss of power before there was a plan: the end of a file is missing."""
    root, output = made
    path = output / "bank" / spoil
    path.write_bytes(path.read_bytes()[:100])
    if spoil != "index.sqlite":
        (output / "bank" / "index.sqlite").unlink()
    (output / "plan.jsonl").unlink()
    for record in (output / "records").glob("*.json"):
        record.unlink()
    outcome = session.run(recipe_of(), root, output, Silent())
    assert not outcome.failures
    assert outcome.voxels == session.run(recipe_of(), root, tmp_path / "fresh", Silent()).voxels


def test_a_record_without_content_is_no_case(made: tuple[Path, Path]) -> None:
    root, output = made
    before = files(output)
    for case, content in (("case1__syn000", b""), ("case2__syn001", b'{"case": "case2__syn001", "job": 3}')):
        (output / "records" / f"{case}.json").write_bytes(content)
    outcome = session.run(recipe_of(), root, output, Silent())
    assert outcome.skipped == 10
    assert files(output) == before
    assert read_record(output, "case1__syn000") is not None


def test_masks_are_found_in_the_bank_again(make_nnunet: MakeData, tmp_path: Path) -> None:
    root = make_nnunet(5)
    (root / "masks").mkdir()
    (root / "labelsTr" / "case5.nii.gz").rename(root / "masks" / "extra.nii.gz")
    for channel in (root / "imagesTr").glob("case5_*"):
        channel.unlink()
    recipe = recipe_of("input.masks={path: 'masks/{subject}.nii.gz'}", "folds.count=2")
    outcome = session.run(recipe, root, tmp_path / "out", Silent())
    assert not outcome.failures
    with LesionBank(tmp_path / "out" / "bank") as bank:
        assert set(bank.case("extra/mask").source_hashes) == {"masks/extra.nii.gz"}
    (tmp_path / "out" / "plan.jsonl").unlink()
    (tmp_path / "out" / "bank" / "index.sqlite").unlink()
    progress = Silent()
    assert session.run(recipe, root, tmp_path / "out", progress).voxels == outcome.voxels
    assert "lesion bank: 5 of 5 cases are there already." in progress.notes


def test_relative_folders_stay_where_they_were(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planned in one working folder, made from another."""
    monkeypatch.chdir(tmp_path)
    session.plan(recipe_of(), Path("data"), Path("again"), Silent())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    shard = Shard(0, 1)
    outcome = session.run_shard(recipe_of(), made[0], Path("../again"), shard, Silent(), Engine(2))
    assert not outcome.failures
    assert (
        session.merge(Path("../again"), Silent()).voxels == session.run(recipe_of(), *made, Silent()).voxels
    )
    assert not list((tmp_path / "elsewhere").iterdir())


def test_limits_of_realism_change_nothing_but_the_lock(made: tuple[Path, Path]) -> None:
    """An output is continued as it is, and from then on judged by the new limits."""
    root, output = made
    before = {p: p.stat().st_mtime_ns for p in output.rglob("*__syn*") if p.is_file()}
    lock = yaml.safe_load((output / "recipe.lock.yaml").read_text())
    outcome = session.run(recipe_of("realism.max_auc_donor=0.9"), root, output, Silent())
    assert (outcome.skipped, len(outcome.done)) == (12, 12)
    assert {p: p.stat().st_mtime_ns for p in output.rglob("*__syn*") if p.is_file()} == before
    after = yaml.safe_load((output / "recipe.lock.yaml").read_text())
    assert after["recipe"].pop("realism")["max_auc_donor"] == 0.9
    assert lock["recipe"].pop("realism")["max_auc_donor"] is None
    assert after == lock


def test_limits_of_realism_make_nothing_again(made: tuple[Path, Path], tmp_path: Path) -> None:
    root, output = made
    again, kept, _ = updated(
        recipe_of("realism.max_auc_donor=0.9", "output.copies=3"), root, output, tmp_path
    )
    assert (again, kept) == (cases_of(*ALL, copies=3) - cases_of(*ALL), cases_of(*ALL))


def test_a_lock_from_before_there_were_limits_is_continued(made: tuple[Path, Path]) -> None:
    root, output = made
    lock = yaml.safe_load((output / "recipe.lock.yaml").read_text())
    del lock["recipe"]["realism"]
    (output / "recipe.lock.yaml").write_text(yaml.safe_dump(lock))
    assert session.run(recipe_of(), root, output, Silent()).skipped == 12
    with pytest.raises(OutputError, match=r"another recipe: seed differs\."):
        session.run(recipe_of("seed=5"), root, output, Silent())
