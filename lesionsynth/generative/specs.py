"""Settings of each training, with the presets that `lesionsynth train --preset` knows; no torch."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, model_validator

from lesionsynth.generative.checkpoint import Kind
from lesionsynth.spec import Probability, Spec

Widths = tuple[int, ...]


class TrainSpec(Spec):
    """What every training has."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    """Values that differ from the defaults, by preset; `full` are the defaults."""

    seed: int = Field(default=0, ge=0, lt=2**63)
    """All randomness of the training follows from it."""
    steps: int = Field(default=20000, ge=1)
    """Updates of the networks at most."""
    batch: int = Field(default=16, ge=1)
    """Samples an update."""
    learning_rate: float = Field(default=2e-4, gt=0)
    """Of Adam."""
    validate_every: int = Field(default=500, ge=1)
    """Steps between two looks at held-out data."""
    patience: int = Field(default=10, ge=1)
    """Looks without gain after which training ends."""
    held_out: Probability = 0.2
    """Share of the subjects (of the samples, where there is one subject) that only validate; 0: none."""


class CubeSpec(TrainSpec):
    """What models of single lesions share: the cube that a lesion is brought into."""

    size: int = Field(default=32, ge=8, le=128)
    """Voxels along each edge of the cube."""
    widths: Widths = Field(default=(32, 64, 128), min_length=1, max_length=6)
    """Features after each halving of the cube."""
    turn: bool = True
    """Show lesions flipped and turned by right angles too."""
    most_lesions: int = Field(default=4000, ge=1)
    """Where there are more, so many are drawn of them: all are held in memory."""

    @model_validator(mode="after")
    def _halves(self) -> CubeSpec:
        if min(self.widths) < 1:
            raise ValueError("widths should be whole numbers from 1")
        if self.size % 2 ** len(self.widths):
            raise ValueError(f"size should be a multiple of {2 ** len(self.widths)}, got {self.size}")
        return self


class AutoencoderSpec(CubeSpec):
    """Shape and intensity autoencoder of single lesions."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "full": {},
        "tiny": {
            "steps": 240, "size": 16, "latent": 16, "image_latent": 8, "widths": (8, 16),
            "batch": 16, "learning_rate": 2e-3, "validate_every": 60, "patience": 4,
        },
    }  # fmt: skip

    latent: int = Field(default=64, ge=1, le=4096)
    """Numbers of a shape's code."""
    image_latent: int = Field(default=32, ge=1, le=4096)
    """Numbers of the code of its intensities."""
    adversarial: float = Field(default=0.05, ge=0)
    """Weight of the latent discriminator."""


class MaskGanSpec(CubeSpec):
    """Wasserstein GAN of the shapes of single lesions."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "full": {},
        "tiny": {
            "steps": 200, "size": 16, "latent": 16, "widths": (12, 24), "batch": 16, "learning_rate": 1e-3,
            "validate_every": 25, "patience": 8, "critic_steps": 3,
        },
    }  # fmt: skip

    learning_rate: float = Field(default=1e-4, gt=0)
    """Of Adam."""
    latent: int = Field(default=128, ge=1, le=4096)
    """Numbers of a shape's code."""
    critic_steps: int = Field(default=5, ge=1)
    """Updates of the critic to one of the generator."""
    penalty: float = Field(default=10.0, ge=0)
    """Weight of the gradient penalty."""


SPECS: dict[Kind, type[TrainSpec]] = {"lesion-autoencoder": AutoencoderSpec, "mask-gan": MaskGanSpec}
"""Settings of each kind of model."""
