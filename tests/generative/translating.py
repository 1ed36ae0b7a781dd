"""Small translations, trained when a test first asks for one, for all tests of a session."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from lesionsynth.generative.specs import TranslationSpec
from lesionsynth.recipe.load import load_recipe
from tests.generative.models import MASKS, Told

STEPS = {"pix2pix": 100, "spade": 80, "cyclegan": 60}
"""Fewer than `tiny` has."""


def spec_of(**more: Any) -> TranslationSpec:
    """The preset `tiny`, changed."""
    return TranslationSpec.model_validate({**TranslationSpec.presets["tiny"], **more})


@pytest.fixture(scope="session")
def translations(tmp_path_factory: pytest.TempPathFactory, masks_of_phantoms: Path) -> Callable[[str], Path]:
    """Gives the folder of a translation by a network, of all of `masks_of_phantoms`, in all.safetensors."""
    from lesionsynth.run.train import train_models

    @cache
    def trained(network: str) -> Path:
        folder = tmp_path_factory.mktemp("translation") / "models"
        recipe = load_recipe("lesionmix", ["folds.strategy=none", MASKS])
        told = Told()
        train_models(
            "translation",
            spec_of(network=network, steps=STEPS[network]),
            recipe,
            masks_of_phantoms,
            folder,
            told,
            device="cpu",
        )
        assert any("fallback" in note for note in told.notes)
        return folder

    return trained
