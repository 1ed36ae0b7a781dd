"""Small models, trained once a session, for all tests that need one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lesionsynth.generative.specs import AutoencoderSpec
from lesionsynth.recipe.load import load_recipe

SMALL: dict[str, Any] = {**AutoencoderSpec.presets["tiny"], "steps": 120, "validate_every": 40, "batch": 8}
MASKS = "input.masks.path=masks/{subject}.nii.gz"


class Told:
    """Progress that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.told: list[str] = []

    def start(self, stage: str, total: int) -> None: ...

    def advance(self, done: int = 1, told: str = "") -> None:
        if told:
            self.told.append(told)

    def note(self, message: str) -> None:
        self.notes.append(message)


def with_masks(root: Path, phantoms: Any) -> Path:
    """Add the lesions of two more phantoms to a data set, as masks alone."""
    from tests.conftest import write_nifti

    for number in (4, 5):
        _, label, affine = phantoms[number]
        write_nifti(root / "masks" / f"out{number}.nii.gz", label, affine)
    return root


@pytest.fixture(scope="session")
def masks_of_phantoms(tmp_path_factory: pytest.TempPathFactory, phantoms: Any) -> Path:
    """Four phantoms with images and the lesions of two more as masks: a data set that nobody may change."""
    from tests.conftest import write_phantoms

    return with_masks(write_phantoms(tmp_path_factory.mktemp("learned") / "data", phantoms[:4]), phantoms)


@pytest.fixture(scope="session")
def shape_models(tmp_path_factory: pytest.TempPathFactory, masks_of_phantoms: Path) -> Path:
    """Folder of a lesion autoencoder that was trained on all of `masks_of_phantoms`, in all.safetensors."""
    from lesionsynth.run.train import train_models

    folder = tmp_path_factory.mktemp("learned") / "models"
    recipe = load_recipe("lesionmix", ["folds.strategy=none", MASKS])
    spec = AutoencoderSpec.model_validate(SMALL)
    train_models("lesion-autoencoder", spec, recipe, masks_of_phantoms, folder, Told())
    return folder
