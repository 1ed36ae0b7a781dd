"""Synthetic cases of a cell that are made while it trains."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lesionsynth import nifti
from lesionsynth.domain.case import Cohort
from lesionsynth.errors import NoRoomError
from lesionsynth.generative import training
from lesionsynth.recipe.load import load_recipe
from lesionsynth.recipe.model import InputSpec
from lesionsynth.run.cohort import open_cohort
from lesionsynth.trial.arms import Arm
from lesionsynth.trial.cell import run_cell
from lesionsynth.trial.plan import Plan, make_plan, prepared, read_scan
from lesionsynth.trial.segment import SegmentationTask
from lesionsynth.trial.supply import Renewed, recipe_for, renewed, synthesised
from tests.trial.test_cell import CELL, SPEC, setting_of

LOADS = "steps.add.load=[2, 8]"


@pytest.fixture
def cohort(make_nnunet: Callable[..., Path]) -> Cohort:
    return open_cohort(InputSpec(), make_nnunet(4))[1]


@pytest.fixture
def plan(cohort: Cohort) -> Plan:
    return make_plan([read_scan(files, cohort) for files in cohort.cases[:2]], cohort.channels, SPEC)


def supply_of(cohort: Cohort, plan: Plan, folder: Path, times: float, *more: str) -> Renewed:
    recipe = load_recipe("lesionmix", ["output.copies=3", LOADS, *more])
    own = recipe_for(recipe, CELL, InputSpec(), cohort, setting_of(cohort, folder), folder)
    return renewed(own, cohort, plan, folder, times)


def test_they_are_those_that_would_be_written_one_copy_of_each_host_at_a_time(
    cohort: Cohort, plan: Plan, tmp_path: Path
) -> None:
    recipe = load_recipe("lesionmix", ["output.copies=3", LOADS])
    own = recipe_for(recipe, CELL, InputSpec(), cohort, setting_of(cohort, tmp_path), tmp_path)
    written = {
        files.case: prepared(read_scan(files, cohort), plan) for files in synthesised(own, cohort, tmp_path)
    }
    assert len(written) == 6
    supply = supply_of(cohort, plan, tmp_path / "fly", 1)
    assert (len(supply), supply.stretches) == (2, 3)
    seen = []
    for done in (0.0, 0.34, 0.99, 1.0):
        supply.at(done)
        for case in (supply[k] for k in range(len(supply))):
            np.testing.assert_array_equal(case.image, written[case.case].image)
            np.testing.assert_array_equal(case.classes, written[case.case].classes)
            seen.append(case.case)
    assert set(seen) == set(written)
    assert seen[-2:] == seen[-4:-2]  # the last stretch lasts to the end
    assert supply[0] is supply[0]


def test_more_copies_follow_each_other_faster(cohort: Cohort, plan: Plan, tmp_path: Path) -> None:
    supply = supply_of(cohort, plan, tmp_path, 2)
    names = []
    for update in range(12):
        supply.at(update / 12)
        names.append(supply[1].case)
    assert len(set(names)) == 6
    assert names[0::2] == names[1::2]
    assert supply_of(cohort, plan, tmp_path, 0.01).stretches == 1


def test_a_training_is_given_the_copies_of_its_stretch(cohort: Cohort, plan: Plan, tmp_path: Path) -> None:
    supply = supply_of(cohort, plan, tmp_path, 1)
    real = [prepared(read_scan(files, cohort), plan) for files in cohort.cases[:2]]
    task = SegmentationTask(SPEC, plan, real, supply, real, 1.0, torch.device("cpu"))
    shown = []
    for update in range(SPEC.steps):
        task.step(np.random.default_rng(update))
        shown.append(supply[0].case)
    assert len(dict.fromkeys(shown)) == 3
    image, _ = task.synthetic.draw(np.random.default_rng(0))
    assert any(np.isin(image.numpy()[0].ravel()[:50], case.image).all() for case in (supply[0], supply[1]))


def test_a_host_that_cannot_be_edited_is_stood_in_for(cohort: Cohort, plan: Plan, tmp_path: Path) -> None:
    label = nifti.read(cohort.case("case1").label)
    nifti.write(cohort.case("case1").label, nifti.new(label.grid, np.zeros_like(label.values())))
    recipe = load_recipe("self_mix", ["output.copies=2"])
    own = recipe_for(recipe, CELL, InputSpec(), cohort, setting_of(cohort, tmp_path), tmp_path)
    supply = renewed(own, cohort, plan, tmp_path, 1)
    for stretch in range(2):
        supply.at(stretch / 2)
        assert [supply[k].case for k in range(2)] == [f"case2__syn00{stretch}"] * 2
    assert len(supply.made) == 2


def test_a_recipe_that_can_edit_nobody_is_told(cohort: Cohort, plan: Plan, tmp_path: Path) -> None:
    nobody = ["steps.add.check.min_contrast=900", "steps.add.surplus=keep", "steps.add.replace=0"]
    with pytest.raises(NoRoomError, match="no copy could be edited"):
        supply_of(cohort, plan, tmp_path, 1, *nobody)
    arm = Arm("fly", load_recipe("lesionmix", [LOADS, *nobody]), renewed=1)
    told = run_cell(CELL, arm, setting_of(cohort, tmp_path / "out"), "key")
    assert "no copy could be edited" in told["failed"]


def test_a_stopped_cell_tells_all_copies_and_seconds(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those from before it was stopped too; the others it makes again are no more."""
    arm = Arm("fly", load_recipe("lesionmix", ["output.copies=2", LOADS]), renewed=4)
    spec = SPEC.model_copy(update={"steps": 8})
    setting = [replace(setting_of(cohort, tmp_path / name), spec=spec) for name in ("whole", "stopped")]
    whole = run_cell(CELL, arm, setting[0], "key")
    monkeypatch.setattr(training, "_SAVE_S", -1.0)  # a state after every update
    step = SegmentationTask.step
    for last in (5, 8):  # in the middle, and before what was trained is tested

        def slow(task: SegmentationTask, rng: np.random.Generator, last: int = last) -> Any:
            done = task.optimizers["unet"].param_groups[0]["updates"]
            if done == last:
                raise KeyboardInterrupt
            time.sleep(0.2)
            return step(task, rng)

        monkeypatch.setattr(SegmentationTask, "step", slow)
        if last == 8:
            monkeypatch.setattr(SegmentationTask, "probability", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_cell(CELL, arm, setting[1], "key")
    monkeypatch.undo()
    again = run_cell(CELL, arm, setting[1], "key")
    assert again["synthetic"] == whole["synthetic"] > 2
    assert again["rows"] == whole["rows"]
    assert again["seconds"]["training"] >= 8 * 0.2
    assert again["seconds"].keys() == whole["seconds"].keys()


def interrupted(*given: object) -> None:
    raise KeyboardInterrupt


def test_what_stands_in_does_not_depend_on_what_was_drawn_before(
    cohort: Cohort, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training that goes on has drawn nothing yet."""
    supply = supply_of(cohort, plan, tmp_path, 1)
    copy = supply.synthesis.copy
    monkeypatch.setattr(
        supply.synthesis,
        "copy",
        lambda host, number: supply.synthesis.original(host) if number == 2 else copy(host, number),
    )
    seen = []
    for before in ((), (0,), (0, 1), (1,)):
        for number in before:
            supply.at(0.4)
            assert supply[number].case == f"case{number + 1}__syn001"
        supply.at(0.9)
        seen.append(supply[1].case)
    assert seen == ["case1__syn000"] * 4


def test_a_cell_on_the_fly_comes_to_the_same_again(cohort: Cohort, tmp_path: Path) -> None:
    arm = Arm("fly", load_recipe("lesionmix", ["output.copies=2", LOADS]), renewed=2)
    told = [run_cell(CELL, arm, setting_of(cohort, tmp_path / name), "key") for name in ("a", "b")]
    assert 0 < told[0]["synthetic"] == told[1]["synthetic"] <= 8
    assert told[0]["rows"] == told[1]["rows"]
    assert list((tmp_path / "a").rglob("*.nii.gz")) == []
