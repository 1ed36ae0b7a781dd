"""Searching for values of a recipe: what is tried, what is kept, and that no test case is looked at."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

import pytest

from lesionsynth.recipe.load import load_recipe, shipped
from lesionsynth.recipe.model import Recipe, resolved
from lesionsynth.trial.arms import Arm
from lesionsynth.trial.cells import Cell
from lesionsynth.trial.search import KNOBS, knobs_of, searched, turned

CELL = Cell("mix+searched", 0.5, 0, 1, ("a", "b"), ("c",), ("d",))


class Scored:
    """In the place of a runner: cells come to a score that follows from share and load of their recipe."""

    def __init__(self, output: Path, calls: int = 99, fails: bool | str = False) -> None:
        self.setting = SimpleNamespace(output=output)
        self.progress = self
        self.noted: list[str] = []
        self.left, self.fails = calls, fails
        self.cells: list[Cell] = []
        self.recipes: list[Recipe] = []

    def note(self, message: str) -> None:
        self.noted.append(message)

    def do(self, pairs, stage) -> bool:
        self.left -= 1
        if self.left < 0:
            return False
        self.cells += [cell for cell, _ in pairs]
        self.recipes += [arm.recipe for _, arm in pairs]
        return True

    def told(self, cell, arm):
        if self.fails == "all" or (self.fails and arm.recipe.training.share > 0.5):
            return {"rows": [], "failed": "no room"}
        return {"rows": [{"values": {"auprc": value}} for value in (score(arm.recipe), None)]}


def score(recipe: Recipe) -> float:
    return 1 - abs(recipe.training.share - 0.3) - (recipe.steps["add"].load.kind != "low") * 0.2


def arm_of(count: int) -> Arm:
    return Arm("mix+searched", load_recipe("lesionmix"), searched=count)


def test_the_best_of_what_was_tried_is_kept_and_written(tmp_path: Path) -> None:
    runner = Scored(tmp_path)
    found = searched(arm_of(30), CELL, runner)
    assert len(runner.recipes) == 30
    assert score(found) == max(score(recipe) for recipe in runner.recipes)
    assert score(found) > score(runner.recipes[0])
    assert runner.recipes[0] == load_recipe("lesionmix")
    again = load_recipe(str(tmp_path / "searched" / f"{CELL.name}.yaml"))
    assert resolved(again) == resolved(found)
    with (tmp_path / "searched" / f"{CELL.name}.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["auprc"]) for row in rows] == pytest.approx([score(r) for r in runner.recipes])
    assert all(
        float(row["share"]) == r.training.share for row, r in zip(rows[1:], runner.recipes[1:], strict=True)
    )
    assert "k" not in rows[0]  # lesionmix has none


def test_networks_are_tried_on_validation_subjects_and_never_on_test_subjects(tmp_path: Path) -> None:
    runner = Scored(tmp_path)
    searched(arm_of(6), CELL, runner)
    assert {(cell.train, cell.validation, cell.test) for cell in runner.cells} == {
        (("a", "b"), ("c",), ("c",))
    }
    assert len({cell.name for cell in runner.cells}) == 6
    assert CELL.name not in {cell.name for cell in runner.cells}


def test_a_search_that_was_stopped_comes_to_the_same(tmp_path: Path) -> None:
    whole = Scored(tmp_path / "a")
    found = searched(arm_of(12), CELL, whole)
    stopped = Scored(tmp_path / "b", calls=2)
    assert searched(arm_of(12), CELL, stopped) is None
    assert not (tmp_path / "b" / "searched").exists()
    assert stopped.recipes == whole.recipes[:8]
    on = Scored(tmp_path / "b")
    assert searched(arm_of(12), CELL, on) == found
    assert on.recipes == whole.recipes


def test_what_could_not_be_made_is_not_kept(tmp_path: Path) -> None:
    """The recipe as it is has a share of 0.5 and can be made here."""
    runner = Scored(tmp_path, fails=True)
    found = searched(arm_of(10), CELL, runner)
    assert found.training.share <= 0.5
    assert any(recipe.training.share > 0.5 for recipe in runner.recipes)


def test_a_search_with_nothing_to_go_by_ends_and_says_so(tmp_path: Path) -> None:
    runner = Scored(tmp_path, fails="all")
    assert searched(arm_of(30), CELL, runner) == load_recipe("lesionmix")
    assert len(runner.recipes) == 4
    assert "nothing to search by" in runner.noted[0]


def test_only_what_a_recipe_has_is_searched():
    assert set(knobs_of(load_recipe("soft_poisson"))) == set(KNOBS)
    assert set(knobs_of(load_recipe("lesionmix"))) == set(KNOBS) - {"k"}
    assert set(knobs_of(load_recipe("carve_mix"))) == {"share"}


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_recipe_takes_the_ends_of_its_ranges(name):
    recipe = load_recipe(name)
    for knob, what in knobs_of(recipe).items():
        for value in what.values:
            changed = turned(recipe, {knob: value})
            Recipe.model_validate(resolved(changed))
