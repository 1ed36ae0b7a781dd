"""Plan, shards, merge, status: n shards are one run, voxel for voxel."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesionsynth.cli.app import app
from lesionsynth.errors import ExitCode, InputError, OutputError
from lesionsynth.run import session
from lesionsynth.run.ledger import status_of
from lesionsynth.run.plan import Job
from lesionsynth.run.prepare import read_prepared
from lesionsynth.run.shard import Shard, ShardError, parse_shard, shard_of_array
from lesionsynth.run.workspace import PLAN
from tests.conftest import write_nifti
from tests.test_invariants import Silent, recipe_of, records, run

MakeData = Callable[..., Path]


def files(folder: Path) -> dict[str, bytes]:
    """Everything but what tells times and places."""
    skipped = ("bank", "recipe.lock.yaml", "cohort.json", "report.html")
    found = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.startswith(skipped)}


@pytest.mark.parametrize("count", [2, 3, 7])
def test_shards_merged_equal_one_run(make_nnunet: MakeData, tmp_path: Path, count: int) -> None:
    root, one, parts = make_nnunet(4), tmp_path / "one", tmp_path / "parts"
    whole = run(recipe_of(), root, one)
    session.plan(recipe_of(), root, parts, Silent())
    for index in reversed(range(count)):  # in any order
        outcome = session.run_shard(recipe_of(), root, parts, Shard(index, count), Silent())
        assert not outcome.failures
        assert not outcome.voxels
        assert not (parts / "manifest.csv").exists()
    merged = session.merge(parts, Silent())
    assert not merged.failures
    assert merged.voxels == whole.voxels
    assert files(parts) == files(one)


def test_what_no_shard_has_made_is_missing(make_nnunet: MakeData, tmp_path: Path) -> None:
    root, output = make_nnunet(4), tmp_path / "out"
    session.plan(recipe_of(), root, output, Silent())
    session.run_shard(recipe_of(), root, output, Shard(0, 2), Silent())
    made = set(records(output))
    prepared = read_prepared(output)
    status = status_of(prepared.space, prepared.jobs)
    assert (status.planned, status.done, status.failed) == (8, 4, [])
    assert set(status.missing) == {job.case for job in prepared.jobs} - made
    merged = session.merge(output, Silent())
    assert {row["case"] for row in merged.done} == made
    assert {failure.name for failure in merged.failures} == set(status.missing)
    assert "no shard has got to it" in str(merged.failures[0].error)
    splits = json.loads((output / "splits_final.json").read_text())
    assert {case for fold in splits for case in fold["train"] if "__syn" in case} == made
    session.run_shard(recipe_of(), root, output, Shard(1, 2), Silent())
    assert not session.merge(output, Silent()).failures


def test_a_shard_needs_the_plan_of_its_recipe(make_nnunet: MakeData, tmp_path: Path) -> None:
    root, output = make_nnunet(4), tmp_path / "out"
    for told in ("the folder does not exist", "holds no finished plan"):
        with pytest.raises(OutputError, match=f"{told}.*lesionsynth plan"):
            session.run_shard(recipe_of(), root, output, Shard(0, 2), Silent())
        output.mkdir(exist_ok=True)
    session.plan(recipe_of(), root, output, Silent())
    with pytest.raises(OutputError, match="another recipe or input folder"):
        session.run_shard(recipe_of("seed=5"), root, output, Shard(0, 2), Silent())
    lines = (output / PLAN).read_text().replace("__syn000", "__syn009")
    (output / PLAN).write_text(lines)
    with pytest.raises(OutputError, match="is not the one that"):
        session.run_shard(recipe_of(), root, output, Shard(0, 2), Silent())


def test_commands(make_nnunet: MakeData, tmp_path: Path) -> None:
    """As a cluster runs them: each in a process of its own, the shard by Slurm's variables."""
    root, output = make_nnunet(4), tmp_path / "out"
    command = [sys.executable, "-m", "lesionsynth"]
    what = ["lesionmix", "-i", str(root), "-o", str(output), "-n", "1", "-q"]

    def call(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        import os

        return subprocess.run(
            [*command, *arguments], capture_output=True, text=True, env={**os.environ, **variables}
        )

    planned = call("plan", *what)
    assert planned.returncode == 0, planned.stderr
    assert "4 synthetic cases of 4 hosts are planned" in planned.stdout
    before = call("finalize", str(output))
    assert before.returncode == ExitCode.SOME_FAILED
    array = {"SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MIN": "5", "SLURM_ARRAY_TASK_MAX": "6"}
    for task in ("5", "6"):
        done = call("run", *what, SLURM_ARRAY_TASK_ID=task, **array)
        assert done.returncode == 0, done.stderr
        status = json.loads(call("status", str(output), "--json").stdout)
        assert status["done"] == 2 * (int(task) - 4)
    merged = call("finalize", str(output))
    assert merged.returncode == 0, merged.stderr
    assert "4 synthetic cases in" in merged.stdout
    assert "4 of 4 cases are done (100 %)" in call("status", str(output)).stdout


def job(number: int) -> Job:
    return Job(f"h{number % 5}__syn{number:03d}", f"h{number % 5}", "s", number, "all", {}, "")


@given(st.integers(1, 12), st.integers(0, 30))
def test_shards_share_out_every_job_once(count: int, n_jobs: int) -> None:
    jobs = [job(number) for number in range(n_jobs)]
    parts = [Shard(index, count).part(jobs) for index in range(count)]
    assert sorted(j.case for part in parts for j in part) == sorted(j.case for j in jobs)
    if len({j.host for j in jobs}) >= count:  # a host is read by one shard alone
        owners = [{j.host for j in part} for part in parts]
        assert sum(len(hosts) for hosts in owners) == len(set().union(*owners))


def test_reading_shards() -> None:
    assert parse_shard("3/10") == Shard(2, 10)
    assert str(parse_shard("1/1")) == "1/1"
    for text in ("0/3", "4/3", "1", "a/b", "-1/3", "1/0", "1/2/3"):
        with pytest.raises(ShardError, match="should be i/n"):
            parse_shard(text)
    assert shard_of_array({}) is None
    task = {"ID": "12", "MIN": "10", "MAX": "13", "COUNT": "4"}
    named = {f"SLURM_ARRAY_TASK_{name}": value for name, value in task.items()}
    assert shard_of_array(named) == Shard(2, 4)
    with pytest.raises(ShardError, match="with gaps"):
        shard_of_array({**named, "SLURM_ARRAY_TASK_COUNT": "3"})
    with pytest.raises(ShardError, match="not _MIN"):
        shard_of_array({"SLURM_ARRAY_TASK_ID": "1"})


def test_wrong_shards_are_usage_errors(make_nnunet: MakeData, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    arguments = ["run", "lesionmix", "-i", str(make_nnunet(2)), "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*arguments, "--shard", "3/2"])
    assert result.exit_code == ExitCode.USAGE
    assert not (tmp_path / "out").exists()


def test_bank_and_maps_on_a_disk_of_the_node(make_nnunet: MakeData, tmp_path: Path) -> None:
    """Jobs read the copies: the output's own lesions may be out of reach."""
    root, one, parts, work = make_nnunet(4), tmp_path / "one", tmp_path / "parts", tmp_path / "work"
    whole = run(recipe_of(), root, one)
    session.plan(recipe_of(), root, parts, Silent())
    assert not session.run_shard(recipe_of(), root, parts, Shard(0, 2), Silent(), work=work).failures
    (folder,) = work.iterdir()
    assert folder.name.startswith("lesionsynth-")
    (parts / "bank" / "lesions").rename(tmp_path / "away")
    (parts / "likelihood").rename(tmp_path / "likelihood")
    assert not session.run_shard(recipe_of(), root, parts, Shard(1, 2), Silent(), work=work).failures
    (tmp_path / "away").rename(parts / "bank" / "lesions")
    (tmp_path / "likelihood").rename(parts / "likelihood")
    assert session.merge(parts, Silent()).voxels == whole.voxels


def test_every_output_has_a_copy_of_its_own_on_the_node(make_nnunet: MakeData, tmp_path: Path) -> None:
    """Tissue is linked: what another output has there may be changed, or gone."""
    root, work = make_nnunet(4), tmp_path / "work"
    for name in ("one", "two"):
        outcome = session.run(recipe_of(), root, tmp_path / name, Silent(), work=work)
        assert not outcome.failures
        shutil.rmtree(tmp_path / name)
    assert len(list(work.iterdir())) == 2


def test_what_has_changed_since_the_plan_is_not_described_as_its_original(
    make_nnunet: MakeData, tmp_path: Path
) -> None:
    """The copies are of what it was before; a file that was only touched is the same."""
    root, output = make_nnunet(4), tmp_path / "out"
    session.plan(recipe_of(), root, output, Silent())
    session.run_shard(recipe_of(), root, output, Shard(0, 1), Silent())
    path = root / "labelsTr" / "case2.nii.gz"
    content, image = path.read_bytes(), nib.load(path)
    values = np.asanyarray(image.dataobj).copy()
    values[values > 0] = 0
    write_nifti(path, values, image.affine)
    with pytest.raises(InputError, match="has changed since the output was planned") as caught:
        session.merge(output, Silent())
    assert (caught.value.case, caught.value.file) == ("case2", str(path))
    assert not (output / "manifest.csv").exists()
    path.write_bytes(content)
    assert not session.merge(output, Silent()).failures
    assert (output / "labelsTr" / "case2.nii.gz").read_bytes() == content


def test_a_work_folder_that_cannot_be(make_nnunet: MakeData, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="bank and maps cannot be copied there"):
        session.run(recipe_of(), make_nnunet(2), tmp_path / "out", Silent(), work=tmp_path / "file")


def test_merging_early_leaves_alone_what_a_shard_is_writing(make_nnunet: MakeData, tmp_path: Path) -> None:
    root, output = make_nnunet(4), tmp_path / "out"
    session.plan(recipe_of(), root, output, Silent())
    session.run_shard(recipe_of(), root, output, Shard(0, 2), Silent())
    begun = output / "imagesTr" / ".tmp-of-another-shard"
    begun.write_bytes(b"half of it")
    assert session.merge(output, Silent()).failures
    assert begun.is_file()
    session.run_shard(recipe_of(), root, output, Shard(1, 2), Silent())
    assert not session.merge(output, Silent()).failures
    assert not begun.exists()
