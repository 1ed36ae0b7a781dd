"""The ten invariants of ARCHITECTURE.md, on whole runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from lesionsynth import nifti
from lesionsynth.editing.canvas import Canvas
from lesionsynth.errors import LesionsynthError, OutputError
from lesionsynth.plugins import registry
from lesionsynth.recipe.load import load_recipe
from lesionsynth.recipe.model import Recipe
from lesionsynth.rng import stream
from lesionsynth.run import session
from lesionsynth.run.job import HostJobs, run_host
from lesionsynth.run.pool import Engine
from lesionsynth.run.prepare import prepare
from lesionsynth.spec import summary_of

MakeData = Callable[..., Path]


class Silent:
    """Progress that keeps its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def start(self, stage: str, total: int) -> None: ...

    def advance(self, done: int = 1, told: str = "") -> None: ...

    def note(self, message: str) -> None:
        self.notes.append(message)


def recipe_of(*overrides: str, name: str = "lesionmix") -> Recipe:
    return load_recipe(name, ["output.copies=2", "steps.add.load=[2, 8]", *overrides])


def run(recipe: Recipe, root: Path, output: Path, n_jobs: int = 1) -> session.Outcome:
    outcome = session.run(recipe, root, output, Silent(), Engine(n_jobs))
    assert not outcome.failures, [str(f.error) for f in outcome.failures]
    return outcome


def records(output: Path) -> dict[str, dict[str, Any]]:
    return {p.stem: json.loads(p.read_text()) for p in sorted((output / "records").glob("*.json"))}


def raw(path: Path) -> np.ndarray:
    return np.asanyarray(nib.load(path).dataobj)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, phantoms: Any) -> tuple[Path, Path, session.Outcome]:
    """One run that several tests look at: input, output, outcome."""
    from tests.conftest import write_phantoms

    root = write_phantoms(tmp_path_factory.mktemp("in") / "data", phantoms[:4])
    output = tmp_path_factory.mktemp("out") / "data"
    recipe = recipe_of("output.source_map=true", "output.lesion_map=true")
    return root, output, run(recipe, root, output)


def test_a_case_is_the_unit_of_failure(make_nnunet: MakeData, tmp_path: Path) -> None:
    """1. One case that cannot be edited does not take others with it."""
    root = make_nnunet(4)
    label = root / "labelsTr" / "case1.nii.gz"
    image = nib.load(label)
    nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine).to_filename(label)
    outcome = session.run(load_recipe("pseudo_healthy"), root, tmp_path / "out", Silent())
    assert [f.name for f in outcome.failures] == ["case1__syn000"]
    assert "no edit was possible" in str(outcome.failures[0].error)
    assert sorted(records(tmp_path / "out")) == ["case2__syn000", "case3__syn000", "case4__syn000"]
    assert not list((tmp_path / "out" / "imagesTr").glob("case1__syn*"))


def test_output_does_not_depend_on_workers_order_or_repetition(make_nnunet: MakeData, tmp_path: Path) -> None:
    """2. Equal voxels for -j 1, -j 2, shuffled work, and a second run."""
    root = make_nnunet(4)
    recipe = recipe_of()
    digests = {run(recipe, root, tmp_path / f"o{k}", n).voxels for k, n in enumerate((1, 2, 1))}
    assert len(digests) == 1

    prepared = prepare(recipe, root, tmp_path / "shuffled", Silent())
    jobs = list(prepared.jobs)
    stream(1, "shuffle").shuffle(jobs)  # type: ignore[arg-type]
    expected = records(tmp_path / "o0")
    for job in jobs[:5]:
        maker = HostJobs(prepared.space, prepared.space.cohort.case(job.host))
        _, record, _ = maker.make(job)
        assert record["hashes"] == expected[job.case]["hashes"]


def test_adding_a_copy_or_a_case_leaves_the_rest_alone(make_nnunet: MakeData, tmp_path: Path) -> None:
    """2. Streams are addressed by name: the third copy does not change the first two."""
    root = make_nnunet(4)
    run(recipe_of(), root, tmp_path / "two")
    run(recipe_of("output.copies=3"), root, tmp_path / "three")
    two, three = records(tmp_path / "two"), records(tmp_path / "three")
    assert set(two) < set(three)
    assert all(two[case]["hashes"] == three[case]["hashes"] for case in two)


def test_seed_changes_the_output(make_nnunet: MakeData, tmp_path: Path) -> None:
    """2. Another seed, other voxels."""
    root = make_nnunet(4)
    assert (
        run(recipe_of(), root, tmp_path / "a").voxels != run(recipe_of("seed=1"), root, tmp_path / "b").voxels
    )


def test_a_case_is_remade_from_its_record_alone(
    finished: tuple[Path, Path, session.Outcome], tmp_path: Path
) -> None:
    """3 and 4. Draws are JSON; applying them again, without any stream, gives the same voxels."""
    _, output, outcome = finished
    for row in outcome.done:
        files = session.replay(output, row["case"], tmp_path / "again")
        for path in files:
            other = output / path.relative_to(tmp_path / "again")
            assert np.array_equal(raw(path), raw(other))
    first = records(output)[outcome.done[0]["case"]]
    assert first == json.loads(json.dumps(first))


def test_replay_notices_a_changed_record(
    finished: tuple[Path, Path, session.Outcome], tmp_path: Path
) -> None:
    """4. A record whose draw was altered does not replay to the recorded voxels."""
    import shutil

    _, output, outcome = finished
    copy = tmp_path / "copy"
    shutil.copytree(output, copy)
    case = next(r["case"] for r in outcome.done if r["lesions_inserted"])
    path = copy / "records" / f"{case}.json"
    record = json.loads(path.read_text())
    draw = next(d for d in record["steps"][0]["draws"] if d["edit"] == "insert")
    draw["centre_vox"][0] += 1
    path.write_text(json.dumps(record))
    with pytest.raises(LesionsynthError, match="differ"):
        session.replay(copy, case, tmp_path / "again")


def test_kernels_do_no_io_and_leave_their_inputs_alone(finished: tuple[Path, Path, session.Outcome]) -> None:
    """5. A job never changes the host it shares with other copies."""
    root, output, _ = finished
    prepared = prepare(recipe_of("output.source_map=true", "output.lesion_map=true"), root, output, Silent())
    job = prepared.jobs[0]
    maker = HostJobs(prepared.space, prepared.space.cohort.case(job.host))
    before = (
        [image.raw.copy() for image in maker.host.images],
        maker.host.label.copy(),
        maker.host.tissue.copy(),
    )
    maker.make(job)
    assert all(np.array_equal(a, b.raw) for a, b in zip(before[0], maker.host.images, strict=True))
    assert np.array_equal(before[1], maker.host.label)
    assert np.array_equal(before[2], maker.host.tissue)


def test_lengths_and_volumes_carry_their_unit() -> None:
    """6. Every number of a recipe that is a length or a volume says so in its name."""
    schema = json.dumps(Recipe.model_json_schema())
    for bare in (
        '"margin"',
        '"width"',
        '"radius"',
        '"spacing"',
        '"magnitude"',
        '"volume"',
        '"min_volume"',
        '"smoothing"',
    ):
        assert bare not in schema


def test_untouched_voxels_and_headers_are_the_hosts(finished: tuple[Path, Path, session.Outcome]) -> None:
    """7. Outside the edited region every voxel equals the host's; dtype, scaling and header are kept."""
    root, output, _ = finished
    for case, record in records(output).items():
        host = record["host"]["case"]
        edited = raw(output / "source_maps" / f"{case}.nii.gz") > 0
        assert 0 < edited.sum() < edited.size / 2
        changed = np.zeros(edited.shape, bool)
        for channel in range(2):
            a = nifti.read(root / "imagesTr" / f"{host}_{channel:04d}.nii.gz")
            b = nifti.read(output / "imagesTr" / f"{case}_{channel:04d}.nii.gz")
            assert a.header_bytes == b.header_bytes
            assert a.raw.dtype == b.raw.dtype
            assert np.array_equal(a.raw[~edited], b.raw[~edited])
            changed |= a.raw != b.raw
        a, b = (
            nifti.read(root / "labelsTr" / f"{host}.nii.gz"),
            nifti.read(output / "labelsTr" / f"{case}.nii.gz"),
        )
        assert a.header_bytes == b.header_bytes
        assert np.array_equal(a.raw[~edited], b.raw[~edited])
        assert changed.any()
        assert (a.raw != b.raw).any()


def test_every_lesion_of_the_label_is_there(finished: tuple[Path, Path, session.Outcome]) -> None:
    """7. A voxel that became lesion differs from its host in some channel, for nearly every voxel."""
    root, output, _ = finished
    for case, record in records(output).items():
        host = record["host"]["case"]
        new = (raw(output / "labelsTr" / f"{case}.nii.gz") > 0) & (
            raw(root / "labelsTr" / f"{host}.nii.gz") == 0
        )
        if not new.any():
            continue
        differs = np.zeros(new.shape, bool)
        for channel in range(2):
            differs |= raw(root / "imagesTr" / f"{host}_{channel:04d}.nii.gz") != raw(
                output / "imagesTr" / f"{case}_{channel:04d}.nii.gz"
            )
        assert differs[new].mean() > 0.98


def test_an_output_equal_to_its_host_is_an_error(make_nnunet: MakeData, tmp_path: Path) -> None:
    """7. Nothing to do means no case, not a copy of the host."""
    root = make_nnunet(4)
    recipe = recipe_of("steps.add.tries=1", "steps.add.site.inside=1.0", "steps.add.site.candidates=1",
                       "steps.add.min_volume_mm3=100000", "steps.add.surplus=keep")  # fmt: skip
    outcome = session.run(recipe, root, tmp_path / "out", Silent())
    assert not outcome.done
    assert len(outcome.failures) == 8
    assert not list((tmp_path / "out" / "imagesTr").glob("*__syn*"))


def test_killed_while_writing_leaves_whole_files_and_continues(make_nnunet: MakeData, tmp_path: Path) -> None:
    """8. SIGKILL at any time: what is there is whole; the same command completes it to the same voxels."""
    root, output = make_nnunet(4), tmp_path / "out"
    command = [sys.executable, "-m", "lesionsynth", "run", "lesionmix", "-i", str(root), "-q"]
    command += ["-n", "6", "--set", "steps.add.load=[2, 8]"]
    process = subprocess.Popen([*command, "-o", str(output)], start_new_session=True)
    deadline = time.monotonic() + 120
    while len(list((output / "records").glob("*.json"))) < 3 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = records(output)
    assert 3 <= len(kept) < 24
    for record in kept.values():
        for name, digest in record["hashes"].items():
            assert nifti.read(output / name).voxel_hash == digest
    again = json.loads(
        subprocess.run([*command, "-o", str(output), "--json"], check=True, capture_output=True).stdout
    )
    fresh = json.loads(
        subprocess.run(
            [*command, "-o", str(tmp_path / "f"), "--json"], check=True, capture_output=True
        ).stdout
    )
    assert again["already_there"] >= 3
    assert again["voxels"] == fresh["voxels"]
    assert not list(output.rglob(".tmp-*"))


def test_a_failing_write_leaves_no_part_of_the_case(make_nnunet: MakeData, tmp_path: Path) -> None:
    """8. Where the record cannot be written, the case's images are taken back."""
    root = make_nnunet(4)
    prepared = prepare(recipe_of(), root, tmp_path / "out", Silent())
    (tmp_path / "out" / "records").write_text("a file where the folder should be")
    job = prepared.jobs[0]
    with pytest.raises(OutputError):
        run_host(prepared.space, prepared.space.cohort.case(job.host), [job])
    assert not list((tmp_path / "out").rglob("*__syn*"))


def test_registered_means_documented() -> None:
    """9. Every kind has a summary and stands in the recipe reference, as contract suites run over all."""
    reference = (Path(__file__).parents[1] / "docs" / "reference" / "recipe.md").read_text()
    for group in registry.GROUPS:
        for name, kind in registry.kinds(group).items():
            assert len(summary_of(kind)) > 10
            assert f"`{name}`" in reference


def test_errors_name_case_file_expectation_and_remedy(make_nnunet: MakeData, tmp_path: Path) -> None:
    """10. A damaged file is named with its case and a cure, and no output is left."""
    root = make_nnunet(4)
    path = root / "imagesTr" / "case2_0001.nii.gz"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(LesionsynthError) as caught:
        session.run(recipe_of(), root, tmp_path / "out", Silent())
    message = str(caught.value)
    assert str(path) in message
    assert "truncated" in message
    assert "again" in message
    assert not (tmp_path / "out").exists()


def test_another_recipe_does_not_mix_into_an_output(finished: tuple[Path, Path, session.Outcome]) -> None:
    """8. An output of another recipe is refused, and left as it was."""
    root, output, _ = finished
    before = {p: p.stat().st_mtime_ns for p in output.rglob("*") if p.is_file()}
    with pytest.raises(OutputError, match="another recipe"):
        session.run(recipe_of("seed=99"), root, output, Silent())
    assert before == {p: p.stat().st_mtime_ns for p in output.rglob("*") if p.is_file()}


def test_canvas_is_equal_to_its_host_until_written(finished: tuple[Path, Path, session.Outcome]) -> None:
    """7. An untouched canvas reports no change."""
    root, output, _ = finished
    prepared = prepare(recipe_of("output.source_map=true", "output.lesion_map=true"), root, output, Silent())
    maker = HostJobs(replace(prepared.space), prepared.space.cohort.cases[0])
    assert not Canvas(maker.host).changes()
