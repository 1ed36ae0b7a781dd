"""A small Hamiltonian variational autoencoder, trained once for all tests that need one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

SHAPE, EDGE_MM = (26, 30, 24), 4.0
SETTINGS = {
    "sample": "patches", "size": 12, "latent": 8, "widths": (8, 16), "samples": 160, "steps": 120,
    "batch": 8, "learning_rate": 6e-3, "validate_every": 40, "patience": 4,
    "leapfrog_steps": 1, "leapfrog_size": 0.01, "jitter": 0.05, "lesion_share": 0.9,
}  # fmt: skip


class Silent:
    """Is told everything and says nothing."""

    def start(self, stage: str, total: int) -> None:
        pass

    def advance(self, done: int = 1, told: str = "") -> None:
        pass

    def note(self, message: str) -> None:
        pass


def blobs(number: int) -> tuple[NDArray[np.int16], NDArray[np.uint8], NDArray[np.float64]]:
    """A body with two round lesions, bright in the first channel and dark in the second."""
    rng = np.random.default_rng(number)
    at = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"), -1).astype(float)
    middle = (np.array(SHAPE) - 1) / 2
    body = (((at - middle) / (0.46 * np.array(SHAPE))) ** 2).sum(-1) <= 1
    label = np.zeros(SHAPE, dtype=bool)
    for angle in rng.uniform(0, 2) + np.array([0.0, 3.1]):
        centre = middle + 6 * np.array([np.cos(angle), np.sin(angle), rng.uniform(-0.5, 0.5)])
        radii = rng.uniform(2.0, 3.2, 3)
        label |= (((at - centre) / radii) ** 2).sum(-1) <= 1
    soft = ndimage.gaussian_filter(label.astype(float), 0.6)
    noise = ndimage.gaussian_filter(rng.standard_normal((2, *SHAPE)), (0, 0.7, 0.7, 0.7)) * 35
    flair = np.where(body, 200 + 120 * soft + noise[0], 4)
    t1 = np.where(body, 300 - 90 * soft + noise[1], 4)
    images = np.stack([flair, t1]).clip(0).astype(np.int16)
    return images, label.astype(np.uint8), np.diag([EDGE_MM, EDGE_MM, EDGE_MM, 1.0])


def write_blobs(root: Path, count: int) -> Path:
    """An nnU-Net raw data set of such cases."""
    from tests.conftest import write_phantoms

    return write_phantoms(root, [blobs(number) for number in range(count)])


def train_hvae(root: Path, output: Path, settings: dict[str, Any], **folds: Any) -> dict[Path, Any]:
    """Train as the command does."""
    from lesionsynth.generative.specs import HvaeSpec
    from lesionsynth.recipe.load import load_recipe
    from lesionsynth.run.train import train_models

    spec = HvaeSpec.model_validate({**SETTINGS, **settings})
    recipe = load_recipe("lesionmix", [f"folds={json.dumps(folds or {'strategy': 'none'})}"])
    return train_models("hvae", spec, recipe, root, output, Silent(), device="cpu")


@dataclass(frozen=True)
class Trained:
    """The data, the folder of models, the one checkpoint in it and its card."""

    root: Path
    folder: Path
    path: Path
    card: Any


@pytest.fixture(scope="session")
def trained_hvae(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Five cases of blobs, and a model that was trained on four of them."""
    folder = tmp_path_factory.mktemp("hvae")
    root = write_blobs(folder / "data", 5)
    made = train_hvae(root, folder / "models", {})
    ((path, card),) = made.items()
    return Trained(root, folder / "models", path, card)
