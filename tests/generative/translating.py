"""Small translations, trained once a process on phantoms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lesionsynth.generative.checkpoint import Card
from lesionsynth.generative.specs import TranslationSpec
from lesionsynth.recipe.model import Recipe
from lesionsynth.run.train import train_models
from tests.conftest import write_phantoms

SHORT = {"steps": 100, "validate_every": 50}
"""Shorter than `tiny`, which takes half a minute."""
_made: dict[str, tuple[Path, Card]] = {}


class Notes:
    """Whom a training tells."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def start(self, stage: str, total: int) -> None: ...

    def advance(self, done: int = 1, told: str = "") -> None: ...

    def note(self, message: str) -> None:
        self.notes.append(message)


def spec_of(**more: Any) -> TranslationSpec:
    return TranslationSpec.model_validate({**TranslationSpec.presets["tiny"], **more})


def recipe() -> Recipe:
    return Recipe.model_validate(
        {
            "sources": {"donors": {"kind": "lesion_bank"}},
            "steps": {"add": {"kind": "populate"}},
            "folds": {"strategy": "none"},
        }
    )


def trained(network: str, phantoms: Any, folders: pytest.TempPathFactory) -> tuple[Path, Card]:
    """Checkpoint and card of a translation of four phantoms; the data lie in `data` beside its folder."""
    if network not in _made:
        folder = folders.mktemp(network)
        root = write_phantoms(folder / "data", phantoms[:4])
        spec = spec_of(network=network, **SHORT)
        notes = Notes()
        made = train_models("translation", spec, recipe(), root, folder / "models", notes, device="cpu")
        assert any("fallback" in note for note in notes.notes)
        _made[network] = next(iter(made.items()))
    return _made[network]
