"""Whole comparisons: of data sets whose difference is known, and of outputs of runs."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from lesionsynth.cli.app import app
from lesionsynth.cli.realism import _in_words
from lesionsynth.errors import ExitCode, InputError, LesionsynthError, RecipeError
from lesionsynth.kernels.components import components
from lesionsynth.qc.audit import audit
from lesionsynth.qc.realism import two_sample
from lesionsynth.qc.realism.compare import Realism, compare, look
from lesionsynth.qc.realism.copies import look_at_copy
from lesionsynth.qc.realism.sides import open_sides
from lesionsynth.recipe.load import load_recipe
from lesionsynth.run import session
from lesionsynth.run.pool import Engine
from tests.conftest import write_nifti
from tests.qc.realism.making import blobs
from tests.test_invariants import Silent

FEW = "realism.min_lesions=6"


def run(root: Path, output: Path, *overrides: str, name: str = "lesionmix") -> Path:
    recipe = load_recipe(name, ["folds.strategy=none", "output.originals=omit", *overrides])
    outcome = session.run(recipe, root, output, Silent())
    assert not outcome.failures, [str(f.error) for f in outcome.failures]
    return output


def judged(real: Path, made: Path, *overrides: str, n_jobs: int = 1) -> Realism:
    return compare(real, made, None, Engine(n_jobs), Silent(), [FEW, *overrides])


def command(*words: Any) -> Any:
    return CliRunner().invoke(app, ["realism", *map(str, words), "--quiet"])


@pytest.fixture(autouse=True)
def _few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """As small as they can be: what is tested here is what the classifier is given."""
    monkeypatch.setattr(two_sample, "_TREES", 30)
    monkeypatch.setattr(two_sample, "_FLOOR_ROUNDS", 2)
    monkeypatch.setattr(two_sample, "_SAMPLES", 20)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return blobs(tmp_path_factory.mktemp("real"), 3, 0)


@pytest.fixture(scope="module")
def hard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another data set, with hard-edged lesions."""
    return blobs(tmp_path_factory.mktemp("hard"), 3, 1, hard=True, first=11)


@pytest.fixture(scope="module")
def added(real: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two copies of each case with lesions added, flipped at most, and pasted without any blending."""
    options = (
        "output.copies=2",
        "steps.add.load=[1.2, 1.2]",
        "output.source_map=true",
        "steps.add.blend={kind: hard}",
        "steps.add.contrast={kind: shell}",
        "steps.add.geometry.rotate.p=0",
        "steps.add.geometry.scale={p: 0, fit: [1, 1]}",
    )
    return run(real, tmp_path_factory.mktemp("added") / "out", *options)


@pytest.fixture(scope="module")
def healthy(real: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of each case with all lesions removed."""
    return run(real, tmp_path_factory.mktemp("healthy") / "out", "output.copies=1", name="pseudo_healthy")


def test_data_sets_that_are_alike(real: Path, tmp_path: Path) -> None:
    found = judged(real, blobs(tmp_path, 3, 5, first=21))
    assert 0.25 < found.lesions.by_host.value < 0.75
    assert found.lesions.alike_in == "size"
    assert found.breaches == []
    assert found.memorised.near_share < 0.3
    features = {row.feature: row for row in found.features}
    assert features["contrast A"].ks < 0.4
    assert abs(features["seam A"].synthetic / features["seam A"].real - 1) < 0.1


def test_hard_edges_are_told_apart(real: Path, hard: Path) -> None:
    found = judged(real, hard)
    assert found.lesions.by_host.value > 0.95
    features = {row.feature: row for row in found.features}
    assert features["seam A"].synthetic > 1.2 * features["seam A"].real
    assert features["seam A"].ks > 0.8
    assert features["contrast B"].synthetic < features["contrast B"].real < 0


def test_of_a_plain_data_set_donors_and_fills_are_not_known(real: Path, hard: Path) -> None:
    found = judged(real, hard)
    for estimate in (found.lesions.by_donor, found.fills.by_place, found.fills.by_host):
        assert estimate.value is None
        assert "known of the output of a run only" in estimate.note
    assert any("every lesion counts as synthetic" in note for note in found.notes)


def test_lesions_that_a_run_has_added_are_found_with_their_donors(real: Path, added: Path) -> None:
    """By the label maps alone and by the source map the donors are the same: those of the records."""
    sides = open_sides(real, added, None, [FEW])
    assert [copy.case for copy in sides.copies] == [f"case{h}__syn00{c}" for h in (1, 2, 3) for c in (0, 1)]
    agree, count = 0, 0
    for copy in sides.copies:
        draws = [d for s in json.loads(copy.record.read_text())["steps"] for d in s["draws"]]
        donors = {draw["donor"]["lesion"] for draw in draws if draw["edit"] == "insert"}
        before = nib.load(copy.host.label).get_fdata() > 0
        by_map = look_at_copy(sides.way(6), copy, 2)
        by_place = look_at_copy(sides.way(6), replace(copy, source_map=None), 2)
        assert by_map.added
        assert {row.group for row in by_map.added} <= donors
        for row in by_map.added:
            assert row.host == copy.host.case
            assert row.behind == ("case1", "case2", "case3")
            assert not before[row.centre_vox]
        agree += sum(a.group == b.group for a, b in zip(by_map.added, by_place.added, strict=True))
        count += len(by_map.added)
    assert agree >= 0.9 * count


@pytest.mark.parametrize("mode", ["per_lesion", "compatible"])
def test_each_carved_lesion_has_a_donor_of_its_own(real: Path, tmp_path: Path, mode: str) -> None:
    """Carved draws have no centre: the donor is told by the place, which they keep."""
    options = [f"steps.carve.mode={mode}", "output.source_map=true", "output.copies=2"]
    out = run(real, tmp_path / "out", *options, name="carve_mix")
    groups: list[str] = []
    for copy in open_sides(real, out, None, [FEW]).copies:
        way = open_sides(real, out, None, [FEW]).way(6)
        by_place = look_at_copy(way, replace(copy, source_map=None), 2).added
        by_map = look_at_copy(way, copy, 2).added
        assert [row.group for row in by_place] == [row.group for row in by_map]
        groups += [row.group for row in by_place]
    assert len(groups) > 6
    assert len(set(groups)) > 0.5 * len(groups)


def test_a_lesion_may_be_added_where_one_was_removed(real: Path, added: Path, tmp_path: Path) -> None:
    """A copy with the host's own files, of which one lesion was taken out and another put in its place."""
    sides = open_sides(real, added, None, [FEW])
    copy = sides.copies[0]
    host = nib.load(copy.host.label).get_fdata() > 0
    labels, _ = components(host)
    centre = np.rint(np.argwhere(labels == 3).mean(axis=0)).astype(int).tolist()
    content = json.loads(copy.record.read_text())
    draws: list[Any] = [{"edit": "remove", "lesion": 3, "seed": 0}]
    draws.append({"edit": "insert", "donor": {"lesion": "other/0007"}, "case": "other", "centre_vox": centre})
    record = tmp_path / "record.json"
    record.write_text(json.dumps({**content, "steps": [{**content["steps"][0], "draws": draws}]}))
    found = look_at_copy(sides.way(6), replace(copy, files=copy.host, record=record, source_map=None), 2)
    assert [(row.number, row.group) for row in found.added] == [(3, "other/0007")]
    assert (found.n_added, found.n_filled) == (1, 0)


def test_a_run_is_judged(real: Path, added: Path) -> None:
    found = judged(real, added)
    lesions = found.lesions
    assert lesions.alike_in == "host and size"
    assert lesions.by_donor.value > 0.6
    assert lesions.by_donor.n_both > 5
    assert (lesions.by_host.n_groups, lesions.by_host.n_both) == (3, 3)
    assert found.n_real.lesions == found.n_real.lesions_looked_at == 36
    assert found.n_synthetic.lesions == found.n_synthetic.lesions_looked_at > 20
    assert (found.n_synthetic.cases, found.n_synthetic.cases_looked_at) == (6, 6)
    assert found.memorised.near_share > 0.3  # they are moved copies
    assert json.loads(json.dumps(found.as_json(), allow_nan=False))["lesions"]["by_donor"]["value"]


def test_neither_workers_nor_repetition_matter(real: Path, added: Path) -> None:
    assert judged(real, added, n_jobs=2).as_json() == judged(real, added).as_json()


def test_caps_hold_and_are_said(real: Path, added: Path) -> None:
    found = judged(real, added, "realism.cases=2", "realism.lesions=10")
    assert found.n_real.cases_looked_at == found.n_synthetic.cases_looked_at == 2
    assert found.lesions.floor_by_donor.n_real + found.lesions.floor_by_donor.n_synthetic <= 10
    assert [note for note in found.notes if "2 of 6 synthetic cases" in note]
    assert [note for note in found.notes if "2 of 3 real cases" in note]


def test_filled_places_have_their_like_in_untouched_tissue(real: Path, healthy: Path) -> None:
    sides = open_sides(real, healthy, None, [FEW])
    rows = look(sides, Engine(), Silent())[0]
    assert len(rows.filled) == len(rows.clean) > 15
    assert rows.made == []
    hosts = {files.case: files for files in sides.real}
    for filled, clean in zip(rows.filled, rows.clean, strict=True):
        assert (filled.group, filled.volume_mm3) == (clean.group, clean.volume_mm3)
        lesion = nib.load(hosts[filled.host].label).get_fdata() > 0
        assert lesion[filled.centre_vox]
        i, j, k = clean.centre_vox
        near = (slice(i - 2, i + 3), slice(j - 2, j + 3), slice(k - 2, k + 3))
        assert not lesion[near].any()
        copy = nib.load(healthy / "imagesTr" / f"{filled.case}_0000.nii.gz").get_fdata()
        assert np.array_equal(copy[near], nib.load(hosts[filled.host].images[0]).get_fdata()[near])


def test_a_blunt_fill_is_told_from_tissue(real: Path, tmp_path: Path) -> None:
    """A fill without texture is smooth, where the tissue is noise."""
    options = ("output.copies=1", "steps.remove.inpaint={kind: harmonic, texture: none}")
    blunt = judged(real, run(real, tmp_path / "blunt", *options, name="pseudo_healthy"))
    assert blunt.fills.by_place.value > 0.9
    assert 0.1 < blunt.fills.floor.value < 0.8
    assert blunt.fills.place.value < 0.9
    assert blunt.fills.removed == 36
    assert blunt.lesions.by_donor.note == "there are none of one kind"
    assert blunt.features == []


def test_the_gate(real: Path, hard: Path, tmp_path: Path) -> None:
    """Beyond a limit, or not to be judged: exit 1, with value, limit and numbers. Else exit 0."""
    limits = (FEW, "realism.max_auc_host=0.8", "realism.max_ks={seam: 0.5, volume_mm3: 1}")
    options = [word for limit in limits for word in ("--set", limit)]
    done = command(real, hard, *options, "-o", tmp_path / "result.json")
    assert done.exit_code == ExitCode.FINDINGS
    said = [line for line in done.output.splitlines() if line.startswith("beyond the limit")]
    assert len(said) == 3
    assert "max_auc_host" in said[0]
    assert "more than the limit 0.8" in said[0]
    assert all(" real, " in line for line in said)
    assert [b["limit_name"] for b in json.loads((tmp_path / "result.json").read_text())["breaches"]] == [
        *("max_auc_host", "max_ks: seam A", "max_ks: seam B")
    ]
    assert command(real, hard, "--set", FEW, "--set", "realism.max_auc_host=1").exit_code == 0


def test_what_cannot_be_judged_does_not_pass(real: Path, hard: Path) -> None:
    limits = ("realism.max_auc_donor=1", "realism.max_auc_fill=1", "realism.max_ks={fluid_mm: 1}")
    found = judged(real, hard, *limits)
    assert [b.limit_name for b in found.breaches] == ["max_auc_donor", "max_auc_fill", "max_ks: fluid_mm"]
    assert {b.value for b in found.breaches} == {None}
    assert "cannot be judged (whose lesions were copied" in str(found.breaches[0])
    few = judged(real, hard, "realism.min_lesions=500", "realism.max_auc_host=1", "realism.max_memorised=1")
    assert ["fewer than 500" in str(b) for b in few.breaches] == [True, True]


def test_what_is_printed(real: Path, added: Path) -> None:
    done = command(real, added, "--set", FEW)
    assert done.exit_code == 0
    for words in ("contrast A", "lesions, by donor", "real halves", "memorised:", "told from real", "36/"):
        assert words in done.stdout
    assert "nan" not in done.stdout.lower().split()
    as_json = command(real, added, "--set", FEW, "--json")
    assert json.loads(as_json.stdout) == judged(real, added).as_json()


def test_the_result_may_lie_in_the_output(real: Path, added: Path) -> None:
    assert command(real, added, "--set", FEW, "-o", added / "realism.json").exit_code == 0
    assert audit(added, None, Engine(), Silent()).findings == []


def test_a_recipe_of_ones_own(real: Path, hard: Path, tmp_path: Path) -> None:
    path = tmp_path / "strict.yaml"
    path.write_text("realism: {min_lesions: 6, max_auc_host: 0.6}\nsteps: {add: {kind: populate}}\n")
    assert command(real, hard, "--recipe", path).exit_code == ExitCode.FINDINGS


def test_errors_say_what_to_do(real: Path, added: Path, hard: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="folder does not exist"):
        judged(real, tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"case1__syn000: .*host is not in the real data set.*made of"):
        judged(hard, added)
    with pytest.raises(RecipeError, match=r"max_ks names the feature 'smell'.*There are: volume_mm3"):
        judged(real, hard, "realism.max_ks={smell: 0.1}")
    other = tmp_path / "other"
    for path in (*real.glob("imagesTr/*_0000.nii.gz"), *real.glob("labelsTr/*")):
        write_nifti(other / path.relative_to(real), np.asanyarray(nib.load(path).dataobj), np.eye(4))
    description = json.loads((real / "dataset.json").read_text())
    (other / "dataset.json").write_text(json.dumps({**description, "channel_names": {"0": "C"}}))
    with pytest.raises(InputError, match="channels C; the real one has A, B"):
        judged(real, other)
    done = command(real, tmp_path / "nowhere")
    assert done.exit_code == ExitCode.INPUT
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "recipe.lock.yaml").write_text("key: x\n")
    with pytest.raises(InputError, match="lock holds no recipe"):
        judged(real, tmp_path / "begun")


def test_without_scikit_learn_the_extra_is_named(
    real: Path, hard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(LesionsynthError, match=r"pip install 'lesionsynth\[realism\]'"):
        judged(real, hard)


def test_a_record_that_was_spoilt_is_named(real: Path, healthy: Path, tmp_path: Path) -> None:
    spoilt = tmp_path / "spoilt"
    for path in healthy.rglob("*"):
        if path.is_file():
            (spoilt / path.relative_to(healthy)).parent.mkdir(parents=True, exist_ok=True)
            (spoilt / path.relative_to(healthy)).write_bytes(path.read_bytes())
    record = spoilt / "records" / "case1__syn000.json"
    content = json.loads(record.read_text())
    record.write_text(json.dumps({**content, "host": {"case": "case2", "subject": "case2"}}))
    with pytest.raises(InputError, match=r"case1__syn000.*names the host case2, not case1"):
        judged(real, spoilt)
    record.write_text(json.dumps({"case": "x"}))
    with pytest.raises(InputError, match="not as it was written"):
        judged(real, spoilt)


@pytest.mark.parametrize(
    ("area", "words"),
    [
        (0.28, "says little"),
        (0.45, "hardly"),
        (0.59, "hardly"),
        (0.7, "now and then"),
        (0.8, "more often"),
        (0.95, "mostly"),
        (1.0, "always"),
    ],
)
def test_areas_in_words(area: float, words: str) -> None:
    assert words in _in_words(area)
