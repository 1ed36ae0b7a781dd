"""Lesions that no one has had: shapes, and as a rule intensities, from models trained on real lesions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from lesionsynth.domain.lesion import Lesion
from lesionsynth.editing.likeness import (
    apply_look,
    lesion_on_host,
    lesion_to_be_like,
    look_of,
    named,
    subjects_with_images,
    with_margin,
)
from lesionsynth.errors import InputError
from lesionsynth.generative.checkpoint import OF_SHAPES, Kind
from lesionsynth.generative.codes import Sampling
from lesionsynth.plugins.contracts import Donors, Draw, ModelUse, SourceSpec, Wanted
from lesionsynth.plugins.registry import register

if TYPE_CHECKING:
    from lesionsynth.generative.lesion_models import ShapeModel

_MARGIN_MM = 5.0


@register("sources")
class Autoencoder(SourceSpec):
    """Lesions of a trained model (lesionsynth train lesion-autoencoder or mask-gan).

    After the lesion generator of Huo, Ourselin, Sparks, arXiv:2406.14826. Shapes that are empty, broken up,
    or of a volume outside the range seen in training are refused.
    """

    kind: Literal["autoencoder"] = "autoencoder"
    method: ClassVar[str] = (
        "Shapes of lesions were drawn from the latent space ({sampling}) of a generative model that was "
        "trained on the lesions of the subjects that may meet (after [@huo2024])."
    )
    model: str = ""
    """Folder of models with one for each block (<block>.safetensors), or one checkpoint. Relative to the
    working directory."""
    sampling: Sampling = "mixture"
    """Where codes are drawn: prior, N(0, I); mixture, of Gaussians fitted on the codes of the training
    lesions; neighbourhood, near a training lesion that fits."""
    spread: float = Field(default=1.0, ge=0, le=5)
    """Factor on the standard deviation of codes."""
    intensities: Literal["model", "host", "bank"] = "model"
    """model: of the intensity network; host: like a lesion of the host itself, where it has five or more,
    else of the bank, by the distance from the edge; bank: like any lesion of the bank. A model of shapes
    alone needs one of the latter."""
    texture: float = Field(default=1.0, ge=0)
    """Factor on what a real lesion varies beyond its tissue, for host and bank."""

    def methods(self) -> Iterator[str]:
        """Whose look the shapes got."""
        yield from super().methods()
        if self.intensities == "model":
            yield (
                "Their intensities came from a second model, on the host's own texture; both are adversarial "
                "autoencoders [@makhzani2015]."
            )
        else:
            whose = "of the host itself, or of the bank" if self.intensities == "host" else "of the bank"
            yield (
                f"Their intensities followed a real lesion of like size {whose}, by the distance from its "
                "edge."
            )

    def models_used(self) -> dict[str, ModelUse]:
        """The one model; intensities need an autoencoder."""
        if self.intensities == "model":
            return {self.model: ModelUse(OF_SHAPES[:1], images=True)}
        return {self.model: ModelUse(kinds_of_shapes(self.sampling))}

    def donor_subjects(self, donors: Donors) -> frozenset[str] | None:
        """Subjects of the lesions that are imitated; nobody's are needed where the model gives it all."""
        return None if self.intensities == "model" else subjects_with_images(donors)

    def draw(self, rng: np.random.Generator, donors: Donors, wanted: Wanted) -> Draw | str | None:
        """Draw codes of a shape and its intensities; the reason where the shape is none that fits."""
        model = open_model(self.model, donors)
        drawn = draw_shape(model, self.sampling, self.spread, rng, wanted)
        if drawn is None or isinstance(drawn, str):
            return drawn
        volume = drawn["volume_mm3"]
        if self.intensities == "model":
            return {**drawn, **model.draw_image(self.sampling, self.spread, rng, volume), "from": []}
        like = lesion_to_be_like(rng, donors, wanted, volume, own=self.intensities != "bank")
        if like is None:
            return None
        return {**drawn, "like": like.lesion, "seed": int(rng.integers(2**31)), "from": [named(like)]}

    def lesion(self, draw: Draw, donors: Donors) -> Lesion:
        """Decode shape and intensities."""
        model = open_model(self.model, donors)
        shape = model.lesion(draw["code"])
        if isinstance(shape, str):
            raise InputError(
                f"a recorded code gives no lesion ({shape}): the model {self.model} has changed."
            )
        if "image_code" in draw:
            image = model.image(draw["image_code"], draw["code"])
        else:
            label, info = with_margin(shape, _MARGIN_MM)
            image = apply_look(
                look_of(draw["like"], donors), label, info.spacing_mm, self.texture, draw["seed"]
            )
            return lesion_on_host(info, label, image)
        return lesion_on_host(shape.info, shape.label, image)


def kinds_of_shapes(sampling: Sampling) -> tuple[Kind, ...]:
    """Kinds of models that shapes can be drawn of so: a GAN has no codes of lesions to draw near to."""
    return OF_SHAPES[:1] if sampling == "neighbourhood" else OF_SHAPES


def open_model(name: str, donors: Donors) -> ShapeModel:
    """The shape model that a recipe calls `name`."""
    from lesionsynth.generative.lesion_models import open_shapes

    return open_shapes(donors.model_file(name, OF_SHAPES[0]))


def draw_shape(
    model: ShapeModel, sampling: Sampling, spread: float, rng: np.random.Generator, wanted: Wanted
) -> Draw | str | None:
    """Code of a shape of a wanted volume; the reason where it is refused, None where no code could fit."""
    low, high = model.volumes_mm3
    if wanted.max_mm3 < low or wanted.min_mm3 > high:
        return None
    drawn = model.draw_shape(sampling, spread, rng, (wanted.min_mm3, wanted.max_mm3))
    if drawn is None:
        return None
    shape = model.lesion(drawn["code"])
    if isinstance(shape, str):
        return shape
    volume = shape.info.volume_mm3
    if not low <= volume <= high:
        return "generated volume never seen in training"
    if not wanted.min_mm3 <= volume <= wanted.max_mm3:
        return "generated lesion of another size"
    return {**drawn, "volume_mm3": round(volume, 3)}
