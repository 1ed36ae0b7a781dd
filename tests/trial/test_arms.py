"""Ways to train that are compared."""

from __future__ import annotations

import pytest

from lesionsynth.errors import RecipeError
from lesionsynth.recipe.load import load_recipe
from lesionsynth.trial.arms import arms_of
from lesionsynth.trial.spec import TrialSpec

SPEC = TrialSpec(steps=100, lesion_share=0.5)


def test_each_recipe_is_there_for_each_thing_that_is_asked_for():
    arms = arms_of(
        ["none", "lesionmix"], load_recipe, prototype="cross", ablate=True, shares=[0.25],
        on_the_fly=[1, 2.5], controls=["longer", "lesions"],
    )  # fmt: skip
    assert [arm.name for arm in arms] == [
        "none", "none+longer", "none+lesions", "lesionmix", "lesionmix+cross", "lesionmix-blend",
        "lesionmix-contrast", "lesionmix-geometry", "lesionmix-map", "lesionmix@0.25", "lesionmix+fly1",
        "lesionmix+fly2.5",
    ]  # fmt: skip
    by_name = {arm.name: arm for arm in arms}
    assert [arm.share for arm in arms[:4]] == [0, 0, 0, 0.5]
    assert by_name["lesionmix@0.25"].share == 0.25
    assert by_name["lesionmix+cross"].prototype == "cross"
    assert by_name["lesionmix+fly2.5"].renewed == 2.5
    plain = by_name["lesionmix"]
    assert plain.recipe == load_recipe("lesionmix")
    assert [arm.name for arm in arms if arm.recipe is None] == ["none", "none+longer", "none+lesions"]


def test_controls_change_one_thing_of_the_training_and_other_arms_nothing():
    trained = {
        arm.name: arm.network(SPEC)
        for arm in arms_of(["lesionmix"], load_recipe, controls=["longer", "lesions"])
    }
    assert trained["none"] == trained["lesionmix"] == SPEC
    assert trained["none+longer"] == SPEC.model_copy(update={"steps": 200})
    assert trained["none+lesions"] == SPEC.model_copy(update={"lesion_share": 0.75})


def test_one_recipe_twice_is_refused():
    with pytest.raises(RecipeError, match="two arms are called lesionmix"):
        arms_of(["lesionmix", "lesionmix"], load_recipe)
