"""TumorCP: copies of single lesions, altered in shape and intensity, anywhere in the tissue."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from lesionsynth.domain.lesion import Lesion
from lesionsynth.editing.canvas import Canvas
from lesionsynth.editing.geometry import ElasticSpec, GeometrySpec, RotateSpec, ScaleSpec
from lesionsynth.editing.pasting import PasteSpec, draw_own, removed_lesions
from lesionsynth.plugins import registry
from lesionsynth.plugins.contracts import BlendSpec, Donors, Draw, Painter, StepContext, Wanted
from lesionsynth.spec import Probability, Range, Spec, words_of

if TYPE_CHECKING:
    AnyBlend = BlendSpec
else:
    AnyBlend = registry.union("blends")

_EVERY_SIZE = float("inf")


class BlurSpec(Spec):
    """Gaussian blur of the lesion."""

    p: Probability = 0.5
    """Probability."""
    sigma_mm: Range = (0.5, 1.5)
    """Standard deviation of the Gaussian."""


class GammaSpec(Spec):
    """Gamma curve over the lesion's range of intensities; mean and spread of its crop are kept."""

    p: Probability = 0.5
    """Probability, for all channels together."""
    factor: Range = (0.7, 1.5)
    """Exponent."""


@registry.register("operations")
class CopyPaste(PasteSpec):
    """Copy single lesions, turn, scale, bend, blur and brighten them, and paste them anywhere (TumorCP).

    As published: places are drawn evenly over the tissue, intensities are the donor's own, and the edge is
    hard. Measured against real lesions that is easy to tell; `contrast` and `blend` offer more.

    References
    ----------
    Yang et al., TumorCP: a simple but effective object-level data augmentation for tumor segmentation,
    MICCAI 2021, arXiv:2107.09843.
    """

    kind: Literal["copy_paste"] = "copy_paste"
    source: str = "donors"
    """Name of the source, declared under `sources`."""
    pairing: Literal["both", "inter", "intra", "removed"] = "both"
    """Lesions of other subjects (inter), of the host's own (intra), or of either with equal chance (both, if
    there are any); removed: lesions that earlier steps have taken out of the host, so that they move."""
    geometry: GeometrySpec = GeometrySpec(
        flip=0.5,
        rotate=RotateSpec(p=0.5, degrees=(0.0, 180.0)),
        scale=ScaleSpec(p=0.5, factor=(0.75, 1.25), per_axis=False),
        elastic=ElasticSpec(p=0.5),
    )
    blur: BlurSpec = BlurSpec()
    gamma: GammaSpec = GammaSpec()
    blend: AnyBlend = Field(default_factory=lambda: registry.create("blends", "hard"))
    """How the lesion is joined to the host."""

    def methods(self) -> Iterator[str]:
        """Whose lesions were pasted, and how."""
        yield {
            "removed": "Lesions that had been removed were put back elsewhere (after ObjectAug "
            "[@zhang2021objectaug]).",
            "intra": "Copies of the host's own lesions were pasted into it (TumorCP [@yang2021]).",
            "inter": "Lesions of other subjects were pasted into the host (TumorCP [@yang2021]).",
            "both": "Lesions of the host and of other subjects were pasted into it (TumorCP [@yang2021]).",
        }[self.pairing]
        yield from self.methods_of_parts()
        if self.blur.p > 0:
            yield (
                f"Lesions were blurred (Gaussian of {words_of(self.blur.sigma_mm)} mm) with probability "
                f"{self.blur.p:g}."
            )
        if self.gamma.p > 0:
            yield (
                f"A gamma curve of {words_of(self.gamma.factor)} was applied with probability "
                f"{self.gamma.p:g}."
            )

    def source_names(self) -> tuple[str, ...]:
        """The one source; none where removed lesions come back."""
        return () if self.pairing == "removed" else (self.source,)

    def choose(
        self, canvas: Canvas, context: StepContext, used: list[Draw], rng: np.random.Generator
    ) -> Draw | str | None:
        """Draw from the source, which sees the subjects of the pairing alone, if it looks at any."""
        if self.pairing == "removed":
            return draw_own(canvas, context, used, rng, only=removed_lesions(canvas))
        subject, source = canvas.host.files.subject, context.sources[self.source]
        imitates = source.donor_subjects(context.donors) is not None
        pairings = [self.pairing]
        if self.pairing == "both":
            pairings = ["intra", "inter"] if rng.random() < 0.5 else ["inter", "intra"]
        wanted = Wanted(0.0, _EVERY_SIZE, subject, canvas.case)
        for pairing in pairings:
            donors = _paired(context.donors, subject, pairing) if imitates else context.donors
            donor = source.draw(rng, donors, wanted)
            if donor is not None:
                return donor
        return None

    def lesion(self, donor: Draw, context: StepContext) -> Lesion:
        """Ask the source."""
        if self.pairing == "removed":
            return context.donors.bank.read(donor["lesion"])
        return context.sources[self.source].lesion(donor, context.donors)

    def geometry_of(self, context: StepContext) -> GeometrySpec:
        """The source's, if it has one."""
        own = None if self.pairing == "removed" else context.sources[self.source].own_geometry
        return own or self.geometry

    def painter(self, donor: Draw, context: StepContext) -> Painter | None:
        """Ask the source."""
        if self.pairing == "removed":
            return None
        return context.sources[self.source].painter(donor, context.donors)

    def blend_of(self, draw: Draw) -> BlendSpec:
        """The recipe's."""
        return self.blend

    def draw_more(self, rng: np.random.Generator) -> Draw:
        """Draw the blend, blur and gamma."""
        blurred, sigma = rng.random() < self.blur.p, float(rng.uniform(*self.blur.sigma_mm))
        bent, gamma = rng.random() < self.gamma.p, float(rng.uniform(*self.gamma.factor))
        return {
            "source": None if self.pairing == "removed" else self.source,
            "blend": self.blend.draw(rng),
            "blur_mm": sigma if blurred else 0.0,
            "gamma": gamma if bent else 1.0,
        }

    def altered(self, lesion: Lesion, draw: Draw) -> Lesion:
        """The lesion's crop after gamma and blur, before it is turned; as it is where it has no image yet."""
        image = lesion.image
        if len(image) == 0:
            return lesion
        if draw["gamma"] != 1.0 and not lesion.on_host:
            image = gamma_curve(image, draw["gamma"])
        if draw["blur_mm"] > 0:
            sigma_vox = [draw["blur_mm"] / s for s in lesion.info.spacing_mm]
            image = np.stack([ndimage.gaussian_filter(c, sigma_vox, mode="nearest") for c in image])
        return replace(lesion, image=image)


def gamma_curve(image: NDArray[np.float32], gamma: float) -> NDArray[np.float32]:
    """Raise intensities, taken from 0 to 1 over their range, to a power; keep mean and spread.

    Parameters
    ----------
    image : ndarray, (C, i, j, k), float32
        Each channel has a range of its own; a constant one stays as it is.
    gamma : float
        Above 0.

    Returns
    -------
    ndarray, (C, i, j, k), float32
    """
    bent = image.copy()
    for channel in bent:
        low, high = float(channel.min()), float(channel.max())
        if high <= low:
            continue
        mean, spread = float(channel.mean()), float(channel.std())
        curved = ((channel - low) / (high - low)) ** gamma
        channel[...] = (curved - curved.mean()) * (spread / float(curved.std())) + mean
    return bent


def _paired(donors: Donors, subject: str, pairing: str) -> Donors:
    """Donors of the host's own subject, or of all others; of those that the leak rule leaves."""
    key = ("copy_paste", subject, pairing)
    if key not in donors.cache:
        kept = tuple(s for s in donors.subjects if (s == subject) == (pairing == "intra"))
        masks = () if pairing == "intra" else donors.mask_subjects
        donors.cache[key] = replace(donors, subjects=kept, mask_subjects=masks, cache={})
    found: Donors = donors.cache[key]
    return found
