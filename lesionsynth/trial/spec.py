"""Settings of the network that every arm of a trial trains; no torch."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from lesionsynth.generative.specs import TrainSpec, Widths
from lesionsynth.spec import Probability

_Edge = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class TrialSpec(TrainSpec):
    """A U-Net (MONAI's DynUNet), laid out after nnU-Net's rules from the training cases."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "full": {},
        "tiny": {
            "steps": 400, "most_patch": 32, "widths": (8, 16, 32), "validate_every": 100,
            "validation_patches": 8, "learning_rate": 3e-3, "overlap": 0.25,
        },
    }  # fmt: skip

    steps: int = Field(default=10000, ge=1)
    """Updates of the network, as many in every arm but the control none+longer."""
    batch: int = Field(default=2, ge=1)
    """Patches an update."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Of AdamW at the first update; it falls to 0 as (1 - step / steps) ** 0.9."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """Of AdamW."""
    validate_every: int = Field(default=500, ge=1)
    """Updates between two looks at the validation cases; the best weights by them are kept."""
    patience: Annotated[int, Field(ge=1)] = 10**9
    """Looks without gain after which training ends: never, or arms would get unequal numbers of updates."""
    held_out: Probability = 0.2
    """Share of the training subjects that only validate, never all; none where there are fewer than three."""
    spacing_mm: tuple[_Edge, _Edge, _Edge] | Literal["auto"] = "auto"
    """Voxel edges, left to right, back to front, foot to head; auto: the medians of the training cases."""
    most_patch: int = Field(default=96, ge=8, le=256)
    """Most voxels along an edge of a patch; fewer where the cases are smaller."""
    widths: Widths = Field(default=(32, 64, 128, 256, 320), min_length=3, max_length=7)
    """Features at each resolution, the finest first; fewer where the patch is too small for them."""
    lesion_share: Probability = 0.5
    """Share of the patches whose centre is a lesion voxel; the others lie anywhere."""
    validation_patches: int = Field(default=32, ge=1)
    """Patches of validation cases that are looked at during training."""
    prototype_weight: float = Field(default=0.1, ge=0)
    """Weight of prototype consistency (--prototype), reached after the first fifth of the updates."""
    prototype_temperature: float = Field(default=0.15, gt=0)
    """Of the softmax of its cosines."""
    prototype_real: Probability = 0.1
    """Share of the updates, the last ones, that see real patches alone in arms with it."""
    overlap: float = Field(default=0.5, ge=0, lt=1)
    """Of the windows by which whole cases are segmented."""

    @field_validator("widths")
    @classmethod
    def _are_features(cls, value: Widths) -> Widths:
        if min(value) < 1:
            raise ValueError("should be whole numbers from 1")
        return value
