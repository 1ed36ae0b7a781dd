"""Load control, donors and failure of populate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from lesionsynth.bank.store import LesionBank
from lesionsynth.domain.lesion import size_class
from lesionsynth.recipe.load import load_recipe
from lesionsynth.run import session
from lesionsynth.run.job import HostJobs
from lesionsynth.run.prepare import prepare
from tests.test_invariants import Silent

MakeData = Callable[..., Path]


def records(make_nnunet: MakeData, tmp_path: Path, *overrides: str, n: int = 4) -> list[dict[str, Any]]:
    recipe = load_recipe("lesionmix", ["output.copies=2", "folds.strategy=none", *overrides])
    prepared = prepare(recipe, make_nnunet(n), tmp_path / "out", Silent())
    made = []
    for host in {job.host for job in prepared.jobs}:
        maker = HostJobs(prepared.space, prepared.space.cohort.case(host))
        made += [maker.make(job)[1] for job in prepared.jobs if job.host == host]
    return sorted(made, key=lambda record: str(record["case"]))


@pytest.mark.parametrize("load", ["low", "high", "real", "gaussian", "4.0", "[1, 3]"])
def test_targets_are_met_within_the_tolerance_or_reported(
    make_nnunet: MakeData, tmp_path: Path, load: str
) -> None:
    made = records(make_nnunet, tmp_path, f"steps.add.load={load}")
    for record in made:
        volumes = record["load_ml"]
        met = abs(volumes["after"] - volumes["target"]) <= 0.05 * volumes["target"] + 1e-6
        assert record["shortfall"] == (not met)
    assert sum(not record["shortfall"] for record in made) >= 0.75 * len(made)


def test_both_ways(make_nnunet: MakeData, tmp_path: Path) -> None:
    made = records(make_nnunet, tmp_path, "steps.add.load=3.0")
    assert any(r["load_ml"]["before"] > 3.2 and r["lesions"]["removed"] for r in made)
    assert any(r["load_ml"]["before"] < 2.8 and r["lesions"]["inserted"] for r in made)


def test_donors_are_other_subjects(make_nnunet: MakeData, tmp_path: Path) -> None:
    for record in records(make_nnunet, tmp_path, "steps.add.load=6.0"):
        assert record["own_subject_donors"] == 0
        assert all(donor["subject"] != record["host"]["subject"] for donor in record["donors"])


def test_replace_takes_the_hosts_own_lesions_out(make_nnunet: MakeData, tmp_path: Path) -> None:
    for record in records(make_nnunet, tmp_path, "steps.add.replace=1.0", "steps.add.load=3.0"):
        assert record["lesions"]["removed"] == record["lesions"]["before"]


def test_a_host_that_lost_its_lesions_and_got_none_is_no_case(make_nnunet: MakeData, tmp_path: Path) -> None:
    impossible = ["steps.add.check.min_contrast=900", "steps.add.replace=1.0", "steps.add.load=3.0"]
    recipe = load_recipe("lesionmix", ["output.copies=1", *impossible])
    outcome = session.run(recipe, make_nnunet(4), tmp_path / "out", Silent())
    assert not outcome.done
    assert "taken out, and no other could be put in" in str(outcome.failures[0].error)
    assert list((tmp_path / "out").rglob("*__syn*.nii.gz")) == []
    # A target of nothing is met without lesions.
    recipe = load_recipe("lesionmix", ["output.copies=1", *impossible[:2], "steps.add.load=0.0"])
    assert len(session.run(recipe, make_nnunet(4), tmp_path / "none", Silent()).done) == 4


def test_the_hosts_own_lesion_comes_back_where_no_other_fits(make_nnunet: MakeData, tmp_path: Path) -> None:
    """The load asks for the largest lesion of the first case; others have none of half its size."""
    root = make_nnunet(4)
    most = 0
    for number in range(1, 5):
        path = root / "labelsTr" / f"case{number}.nii.gz"
        image = nib.load(path)
        pieces, _ = ndimage.label(image.get_fdata(), np.ones((3, 3, 3)))
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        most = most or int(sizes.max())
        keep = sizes < most / 2 if number > 1 else sizes > 0
        nib.save(nib.Nifti1Image(keep[pieces].astype(np.uint8), image.affine), path)
    recipe = load_recipe("lesionmix", [
        "output.copies=2", "folds.strategy=none", "steps.add.replace=1.0", "steps.add.max_lesions=1",
        f"steps.add.load={most * 64 / 1000}", "steps.add.tries=20", "steps.add.geometry.scale.p=0.0",
        "steps.add.check={contrast: [-99, 99], edge: [0, 99], detail: [0, 99]}",
    ])  # fmt: skip
    outcome = session.run(recipe, root, tmp_path / "out", Silent())
    donors = [
        donor["subject"]
        for path in sorted((tmp_path / "out" / "records").glob("case1__*"))
        for donor in json.loads(path.read_text())["donors"]
    ]
    assert donors == ["case1", "case1"], outcome.failures


def test_keep_never_removes(make_nnunet: MakeData, tmp_path: Path) -> None:
    for record in records(
        make_nnunet, tmp_path, "steps.add.surplus=keep", "steps.add.load=30.0", "steps.add.tries=5"
    ):
        assert record["lesions"]["removed"] == 0
        assert record["lesions"]["inserted"] > 0


def test_max_lesions_is_kept_and_said(make_nnunet: MakeData, tmp_path: Path) -> None:
    made = records(
        make_nnunet, tmp_path, "steps.add.max_lesions=2", "steps.add.load=9.0", "steps.add.replace=1.0"
    )
    for record in made:
        assert record["lesions"]["after"] <= 2


def test_a_met_target_still_gives_another_case(make_nnunet: MakeData, tmp_path: Path) -> None:
    for record in records(make_nnunet, tmp_path, "steps.add.load={kind: fixed, ml: 5.0, tolerance: 0.5}"):
        assert record["lesions"]["removed"] + record["lesions"]["inserted"] > 0


@pytest.mark.parametrize("kind", ["shell", "ratio", "host_lesions", "zscore", "histogram", "absolute"])
@pytest.mark.parametrize("blend", ["alpha", "rim", "hard"])
def test_every_contrast_and_blend_runs(make_nnunet: MakeData, tmp_path: Path, kind: str, blend: str) -> None:
    made = records(
        make_nnunet, tmp_path, f"steps.add.contrast.kind={kind}", f"steps.add.blend={{kind: {blend}}}",
        "steps.add.load=6.0", "steps.add.check={contrast: [-99, 99], edge: [0, 99], detail: [0, 99]}", n=3,
    )  # fmt: skip
    inserted = [d for r in made for s in r["steps"] for d in s["draws"] if d["edit"] == "insert"]
    assert inserted
    if kind in ("shell", "ratio", "host_lesions"):
        kept = np.median([d["measures"]["contrast"][d["measures"]["lead_channel"]] for d in inserted])
        assert 0.5 < kept < 1.5


def test_published_recipe_runs(make_nnunet: MakeData, tmp_path: Path) -> None:
    recipe = load_recipe("lesionmix_published", ["output.copies=1"])
    outcome = session.run(recipe, make_nnunet(4), tmp_path / "out", Silent())
    assert len(outcome.done) == 4
    assert sum(row["lesions_inserted"] for row in outcome.done) > 0


def test_lesions_stay_near_their_size_class(make_nnunet: MakeData, tmp_path: Path) -> None:
    far = ["steps.add.geometry.scale={p: 1.0, factor: [0.55, 0.6], per_axis: false}", "steps.add.load=6.0"]
    far.append("steps.add.check={contrast: [-99, 99], edge: [0, 99], detail: [0, 99]}")
    kept = records(make_nnunet, tmp_path, *far)
    sizes = {info.lesion: info.size_class for info in LesionBank(tmp_path / "out" / "bank").infos()}
    assert any(step["rejected"].get("leaves its size class") for r in kept for step in r["steps"])
    for record in kept:
        for draw in (d for step in record["steps"] for d in step["draws"] if d["edit"] == "insert"):
            assert abs(size_class(draw["volume_mm3"]) - sizes[draw["donor"]["lesion"]]) <= 1
