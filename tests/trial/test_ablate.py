from __future__ import annotations

import pytest

from lesionsynth.recipe.load import load_recipe, shipped
from lesionsynth.recipe.model import resolved
from lesionsynth.run.prepare import prepare
from lesionsynth.trial.ablate import PARTS, ablated
from lesionsynth.trial.cells import Arm
from tests.test_invariants import Silent


def arms_of(name: str) -> dict[str, Arm]:
    return {arm.name: arm for arm in ablated(Arm(name, load_recipe(name), "cross"))}


def test_one_part_is_off_at_a_time():
    recipe = resolved(load_recipe("soft_poisson"))
    arms = arms_of("soft_poisson")
    assert set(arms) == {f"soft_poisson-{part}" for part in ("blend", "contrast", "geometry", "map")}
    for arm in arms.values():
        assert arm.prototype == "cross"
        other = resolved(arm.recipe)
        changed = {key for key in recipe if recipe[key] != other[key]}
        assert changed == ({"likelihood"} if arm.name.endswith("-map") else {"steps"})
    step = resolved(arms["soft_poisson-blend"].recipe)["steps"]["add"]
    assert step["blend"] == {"kind": "hard"}
    assert {k: v for k, v in step.items() if k != "blend"} == {
        k: v for k, v in recipe["steps"]["add"].items() if k != "blend"
    }
    assert resolved(arms["soft_poisson-map"].recipe)["likelihood"]["floor"] == 1.0
    geometry = resolved(arms["soft_poisson-geometry"].recipe)["steps"]["add"]["geometry"]
    assert (
        geometry["flip"] == geometry["rotate"]["p"] == geometry["scale"]["p"] == geometry["elastic"]["p"] == 0
    )


def test_a_part_that_is_not_there_is_not_turned_off():
    assert "lesionmix-source" not in arms_of("lesionmix")
    assert arms_of("ellipsoid")["ellipsoid-source"].recipe.sources["shapes"].kind == "lesion_bank"
    assert "carve_mix-map" not in arms_of("carve_mix")
    assert list(ablated(Arm("none", None))) == []


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_recipe_can_be_ablated(name):
    for arm in arms_of(name).values():
        assert arm.recipe != load_recipe(name)
        assert arm.name.removeprefix(f"{name}-") in PARTS


@pytest.mark.parametrize("part", sorted(PARTS))
def test_what_is_left_can_be_planned(part, make_nnunet, tmp_path):
    arms = arms_of("intensity_bump")
    if f"intensity_bump-{part}" in arms:
        recipe = arms[f"intensity_bump-{part}"].recipe
        assert prepare(recipe, make_nnunet(4), tmp_path / "out", Silent()).jobs
