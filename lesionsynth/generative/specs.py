"""Settings of each training, with the presets that `lesionsynth train --preset` knows; no torch."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from lesionsynth.generative.checkpoint import Kind
from lesionsynth.spec import Probability, Spec

Widths = tuple[int, ...]
FEWEST_TO_HOLD_OUT = 3
"""Of fewer subjects none can be spared to validate alone."""


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
    """Share of the subjects that only validate; 0: none. With fewer than three subjects: of the lesions (of
    the cases, for translation and whole volumes), or none where there are fewer than three of these too."""

    @property
    def beside(self) -> tuple[str, ...]:
        """Paths of further files of each case, with {case} and {subject}, relative to the input."""
        return ()


def _check_halving(size: int, widths: Widths) -> None:
    """A size that can be halved once for each width, and no width of 0."""
    if min(widths) < 1:
        raise ValueError("widths should be whole numbers from 1")
    if size % 2 ** len(widths):
        raise ValueError(f"size should be a multiple of {2 ** len(widths)}, got {size}")


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
        _check_halving(self.size, self.widths)
        return self


class AutoencoderSpec(CubeSpec):
    """Shape and intensity autoencoder of single lesions."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "full": {},
        "tiny": {
            "steps": 240, "size": 16, "latent": 16, "image_latent": 8, "widths": (8, 16),
            "batch": 8, "learning_rate": 2e-3, "validate_every": 60, "patience": 4,
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
            "steps": 200, "size": 16, "latent": 16, "widths": (8, 16), "batch": 8, "learning_rate": 1e-3,
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


Network = Literal["pix2pix", "spade", "cyclegan"]
"""Of an image translation."""


class TranslationSpec(TrainSpec):
    """Translation of semantic maps to images."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "full": {},
        "tiny": {
            "steps": 160, "patch": 16, "widths": (8, 16), "discriminator_width": 12,
            "discriminator_layers": 2, "batch": 4, "learning_rate": 2e-3, "validate_every": 40,
            "patience": 4, "validation_patches": 16, "pool": 8,
        },
    }  # fmt: skip

    steps: int = Field(default=50000, ge=1)
    """Updates of the networks at most."""
    batch: int = Field(default=2, ge=1)
    """Patches an update."""
    validate_every: int = Field(default=1000, ge=1)
    """Steps between two looks at held-out data."""
    network: Network = "spade"
    """pix2pix: a U-Net; spade: the map modulates every layer; cyclegan: there and back, unpaired patches."""
    map: Annotated[str, Field(min_length=1)] | None = None
    """Path of tissue label images (FreeSurfer, SynthSeg, FAST, Atropos), with {case} and {subject}, relative
    to the input. Without it, the tissue classes that lesionsynth finds by itself: a fallback."""
    classes: tuple[tuple[Annotated[int, Field(ge=0, le=65535)], ...], ...] = ()
    """Values of `map` that make up each class; all others are background. Empty: each value is a class."""
    spatial_dims: Literal[2, 3] = 3
    """2: axial slices, each by itself, for images with thick slices."""
    spacing_mm: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    """Voxel edge that the networks work at, the same along all axes (2-D: within the slice); auto: the median
    of the training cases."""
    patch: int = Field(default=64, ge=8, le=256)
    """Voxels along each edge of a patch."""
    lesion_share: Probability = 0.5
    """Share of the patches that are drawn at lesions, all of them as likely; the others lie in the tissue."""
    flip: bool = True
    """Show patches mirrored left to right too."""
    widths: Widths = Field(default=(32, 64, 128, 256), min_length=2, max_length=6)
    """Features of the generator at each resolution, the finest first."""
    discriminator_width: int = Field(default=64, ge=1)
    """Features of its first layer."""
    discriminator_layers: int = Field(default=3, ge=1, le=5)
    """How often it halves the patch."""
    l1: float = Field(default=10.0, ge=0)
    """Weight of the mean absolute error (pix2pix and spade)."""
    lesion_weight: float = Field(default=1.0, ge=0)
    """Weight, beside that of a whole patch, of the error in its lesions, whatever their size."""
    cycle: float = Field(default=10.0, ge=0)
    """Weight of the way there and back (cyclegan)."""
    identity: float = Field(default=5.0, ge=0)
    """Weight of leaving alone what is of the other kind already (cyclegan)."""
    pool: int = Field(default=24, ge=1, le=1000)
    """Earlier translations that the discriminators are shown again (cyclegan)."""
    validation_patches: int = Field(default=64, ge=1)
    """Patches of held-out cases that are looked at."""
    most_cases: int = Field(default=200, ge=1)
    """Where there are more, so many are drawn of them: all are held in memory."""

    @property
    def beside(self) -> tuple[str, ...]:
        """The label images."""
        return () if self.map is None else (self.map,)

    @model_validator(mode="after")
    def _sizes_fit(self) -> TranslationSpec:
        if min(self.widths) < 1:
            raise ValueError("widths should be whole numbers from 1")
        if self.patch % 2 ** len(self.widths):
            raise ValueError(
                f"patch should be a multiple of {2 ** len(self.widths)} with {len(self.widths)} widths, "
                f"got {self.patch}"
            )
        if self.network == "spade" and self.patch == 2 ** len(self.widths):
            raise ValueError(
                f"patch should be more than {self.patch} with {len(self.widths)} widths and spade"
            )
        if self.patch < 2 ** (self.discriminator_layers + 2):
            raise ValueError(
                f"patch should be {2 ** (self.discriminator_layers + 2)} or more, got {self.patch}"
            )
        if self.classes and self.map is None:
            raise ValueError("classes merge the values of `map`, which is not given")
        return self


class HvaeSpec(TrainSpec):
    """Variational autoencoder of images with their lesion masks, its codes moved by Hamiltonian steps.

    Samples, steps, batch and learning rate of `full` are those of Kebaili et al., arXiv:2311.10472.
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "full": {},
        "tiny": {
            "sample": "patches", "size": 16, "latent": 16, "widths": (8, 16), "samples": 240,
            "steps": 200, "batch": 8, "learning_rate": 3e-3, "validate_every": 50, "patience": 4,
            "leapfrog_steps": 1, "leapfrog_size": 0.01,
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
    image_sd: float | None = Field(default=None, ge=0.05, le=7)
    """Standard deviation of an image about its decoded mean, relative to the spread of the training images;
    learned for each channel where not given."""
    mask_weight: float = Field(default=5.0, gt=0)
    """Weight of the mask's log-likelihood beside that of the image."""
    dice: float = Field(default=1.0, ge=0)
    """Weight of the Dice loss of lesions, for which the background counts nothing."""

    @model_validator(mode="after")
    def _halves(self) -> HvaeSpec:
        _check_halving(self.size, self.widths)
        return self

    @property
    def dims(self) -> int:
        """Dimensions of a sample."""
        return 2 if self.sample == "slices" else 3


SPECS: dict[Kind, type[TrainSpec]] = {
    "lesion-autoencoder": AutoencoderSpec,
    "mask-gan": MaskGanSpec,
    "hvae": HvaeSpec,
    "translation": TranslationSpec,
}
"""Settings of each kind of model."""
