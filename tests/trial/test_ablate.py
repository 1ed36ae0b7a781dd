from __future__ import annotations

import pytest

from lesionsynth.recipe.load import load_recipe, shipped
from lesionsynth.recipe.model import Recipe, resolved
from lesionsynth.run.prepare import prepare
from lesionsynth.trial.ablate import PARTS, ablated
from tests.test_invariants import Silent


def without(name: str) -> dict[str, Recipe]:
    return dict(ablated(load_recipe(name)))


def test_one_part_is_off_at_a_time():
    recipe = resolved(load_recipe("soft_poisson"))
    recipes = without("soft_poisson")
    assert set(recipes) == {"blend", "contrast", "geometry", "map"}
    for part, other in recipes.items():
        raw = resolved(other)
        changed = {key for key in recipe if recipe[key] != raw[key]}
        assert changed == ({"likelihood"} if part == "map" else {"steps"})
    step = resolved(recipes["blend"])["steps"]["add"]
    assert step["blend"] == {"kind": "hard"}
    assert {k: v for k, v in step.items() if k != "blend"} == {
        k: v for k, v in recipe["steps"]["add"].items() if k != "blend"
    }
    assert resolved(recipes["map"])["likelihood"]["floor"] == 1.0
    geometry = resolved(recipes["geometry"])["steps"]["add"]["geometry"]
    assert (
        geometry["flip"] == geometry["rotate"]["p"] == geometry["scale"]["p"] == geometry["elastic"]["p"] == 0
    )


def test_a_part_that_is_not_there_is_not_turned_off():
    assert "source" not in without("lesionmix")
    assert without("ellipsoid")["source"].sources["shapes"].kind == "lesion_bank"
    assert "map" not in without("carve_mix")


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_recipe_can_be_ablated(name):
    for part, recipe in without(name).items():
        assert recipe != load_recipe(name)
        assert part in PARTS


@pytest.mark.parametrize("part", sorted(PARTS))
def test_what_is_left_can_be_planned(part, make_nnunet, tmp_path):
    recipes = without("intensity_bump")
    if part in recipes:
        recipe = recipes[part]
        assert prepare(recipe, make_nnunet(4), tmp_path / "out", Silent()).jobs
