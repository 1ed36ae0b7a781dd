"""Settings of each training, with the presets that `lesionsynth train --preset` knows; no torch."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

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


def _halvable(value: int, times: int) -> bool:
    return value % 2**times == 0


class AutoencoderSpec(TrainSpec):
    """Shape and intensity autoencoder of single lesions."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "full": {},
        "tiny": {
            "steps": 240, "size": 16, "latent": 16, "image_latent": 8, "widths": (12, 24),
            "batch": 16, "learning_rate": 2e-3, "validate_every": 60, "patience": 4,
        },
    }  # fmt: skip

    size: int = Field(default=32, ge=8, le=128)
    """Voxels along each edge of the cube that a lesion is brought into."""
    latent: int = Field(default=64, ge=1, le=4096)
    """Numbers of a shape's code."""
    image_latent: int = Field(default=32, ge=1, le=4096)
    """Numbers of the code of its intensities."""
    widths: Widths = Field(default=(32, 64, 128), min_length=1, max_length=6)
    """Features after each halving of the cube."""
    adversarial: float = Field(default=0.05, ge=0)
    """Weight of the latent discriminator."""
    turn: bool = True
    """Show lesions flipped and turned by right angles too."""
    most_lesions: int = Field(default=4000, ge=1)
    """Where there are more, so many are drawn of them: all are held in memory."""

    @field_validator("widths")
    @classmethod
    def _positive(cls, value: Widths) -> Widths:
        if min(value) < 1:
            raise ValueError("should be whole numbers from 1")
        return value

    @field_validator("size")
    @classmethod
    def _even(cls, value: int) -> int:
        if not _halvable(value, 2):
            raise ValueError(f"should be a multiple of 4, got {value}")
        return value


class HvaeSpec(TrainSpec):
    """Variational autoencoder of images with their lesion masks, its codes moved by Hamiltonian steps.

    Samples, steps, batch and learning rate of `full` are those of Kebaili et al., arXiv:2311.10472.
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "full": {},
        "tiny": {
            "sample": "patches", "size": 16, "latent": 16, "widths": (12, 24), "samples": 400,
            "steps": 300, "batch": 16, "learning_rate": 2e-3, "validate_every": 60, "patience": 4,
        },
    }  # fmt: skip

    learning_rate: float = Field(default=4.5e-5, gt=0)
    """Of AdamW."""
    sample: Literal["slices", "patches", "volumes"] = "slices"
    """slices: axial ones; patches: cubes; volumes: all tissue of a case in a cube, at a low resolution."""
    size: int = Field(default=128, ge=8, le=512)
    """Voxels along each edge of a sample."""
    spacing_mm: float | None = Field(default=None, gt=0)
    """Voxel edge. Without it: slices and volumes hold the tissue of every case; patches are as fine as the
    images, but hold nine of ten lesions in their middle half."""
    samples: int = Field(default=2000, ge=2)
    """Slices or patches of all cases together; all are held in memory."""
    lesion_share: float = Field(default=0.8, gt=0, le=1)
    """Share of them that lies on a lesion; the others lie anywhere in the tissue."""
    jitter: Probability = 0.15
    """How far patches and slices are moved off their middle at most, as a share of their edge."""
    flip: bool = True
    """Show samples flipped left to right too."""
    latent: int = Field(default=64, ge=1, le=4096)
    """Numbers of a code."""
    widths: Widths = Field(default=(32, 64, 128, 256), min_length=1, max_length=7)
    """Features after each halving of the sample."""
    leapfrog_steps: int = Field(default=3, ge=0, le=50)
    """Hamiltonian steps of a posterior sample; 0: the plain variational autoencoder."""
    leapfrog_size: float = Field(default=1e-3, gt=0, le=1)
    """Size of a step."""
    sqrt_beta0: float = Field(default=0.3, gt=0, le=1)
    """Square root of the inverse temperature at the start; 1: no tempering."""
    image_sd: float | None = Field(default=None, gt=0)
    """Standard deviation of an image about its decoded mean, relative to the spread of the training images;
    learned for each channel where not given."""
    mask_weight: float = Field(default=5.0, gt=0)
    """Weight of the mask's log-likelihood beside that of the image."""
    dice: float = Field(default=1.0, ge=0)
    """Weight of the Dice loss of lesions, for which the background counts nothing."""

    @field_validator("widths")
    @classmethod
    def _positive(cls, value: Widths) -> Widths:
        if min(value) < 1:
            raise ValueError("should be whole numbers from 1")
        return value

    @model_validator(mode="after")
    def _halves(self) -> HvaeSpec:
        if not _halvable(self.size, len(self.widths)):
            raise ValueError(
                f"size should be a multiple of {2 ** len(self.widths)} with {len(self.widths)} widths"
            )
        return self

    @property
    def dims(self) -> int:
        """Dimensions of a sample."""
        return 2 if self.sample == "slices" else 3
