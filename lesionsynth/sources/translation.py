"""Lesions painted into the semantic map of their host, by a trained image translation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lesionsynth.domain.lesion import Lesion
from lesionsynth.editing.likeness import with_margin
from lesionsynth.errors import InputError
from lesionsynth.generative.codes import Sampling
from lesionsynth.generative.specs import Network
from lesionsynth.plugins.contracts import Donors, Draw, ModelUse, Painter, Placed, Wanted
from lesionsynth.plugins.registry import register
from lesionsynth.sources.autoencoder import draw_shape, kinds_of_shapes, open_model
from lesionsynth.sources.lesion_bank import LesionChoice

if TYPE_CHECKING:
    from lesionsynth.generative.translation_models import Translator

_MARGIN_MM = 5.0


@register("sources")
class Translation(LesionChoice):
    """Lesions of a translation from semantic maps to images (lesionsynth train translation).

    The semantic map of the host is translated with the lesion and without it, and the difference is added to
    the host, whose level and texture stay. After Platscher, Zopes, Federau, arXiv:2010.02745.
    """

    kind: Literal["translation"] = "translation"
    model: str = ""
    """Folder of models with one for each block (<block>.safetensors), or one checkpoint. Relative to the
    working directory."""
    network: Network | None = None
    """What kind of translation the model must be; without it: any."""
    shapes: Literal["bank", "masks", "model"] = "bank"
    """bank: of real lesions; masks: of subjects without images (input.masks); model: of a shape model."""
    shape_model: str = ""
    """Folder or checkpoint of a lesion-autoencoder or mask-gan, for shapes from a model."""
    sampling: Sampling = "mixture"
    """Where its codes are drawn: prior, N(0, I); mixture, of Gaussians fitted on the codes of the training
    lesions; neighbourhood, near a training lesion that fits."""
    spread: float = Field(default=1.0, ge=0, le=5)
    """Factor on the standard deviation of these codes."""

    def methods(self) -> Iterator[str]:
        """Whose shapes were painted, and how."""
        whose = {
            "bank": "of real lesions",
            "masks": "of lesion masks of subjects without images",
            "model": f"drawn from the latent space ({self.sampling}) of a model of lesion shapes",
        }[self.shapes]
        yield (
            f"Shapes were {whose}; their intensities came from a network that translates semantic maps to "
            "images (after [@platscher2020]): the difference between its images of the host's map with the "
            "lesion and without it was added to the host."
        )

    def models_used(self) -> dict[str, ModelUse]:
        """The translation, and a model of shapes where one is asked."""
        used = {self.model: ModelUse.translation(self.network)}
        if self.shapes == "model":
            used[self.shape_model] = ModelUse(kinds_of_shapes(self.sampling), field="shape_model")
        return used

    def donor_subjects(self, donors: Donors) -> frozenset[str] | None:
        """Subjects of the shapes; nobody's are needed where a model gives them."""
        return None if self.shapes == "model" else super().donor_subjects(donors)

    def draw(self, rng: np.random.Generator, donors: Donors, wanted: Wanted) -> Draw | str | None:
        """Choose a shape of the bank, or draw its code."""
        if self.shapes == "model":
            low, high = max(wanted.min_mm3, self.min_volume_mm3), min(wanted.max_mm3, self.max_volume_mm3)
            limits = replace(wanted, min_mm3=low, max_mm3=high)
            shapes = open_model(self.shape_model, donors)
            drawn = draw_shape(shapes, self.sampling, self.spread, rng, limits)
            return {**drawn, "from": []} if isinstance(drawn, dict) else drawn
        chosen = self.choose(rng, donors, wanted)
        return None if chosen is None else {"lesion": chosen.lesion}

    def lesion(self, draw: Draw, donors: Donors) -> Lesion:
        """The shape, without an image."""
        if "code" in draw:
            shape = open_model(self.shape_model, donors).lesion(draw["code"])
        else:
            shape = donors.bank.read(draw["lesion"])
        if isinstance(shape, str):
            raise InputError(
                f"a recorded code gives no lesion ({shape}): the model {self.shape_model} has changed."
            )
        label, info = with_margin(shape, _MARGIN_MM)
        image = np.empty((0, *label.shape), dtype=np.float32)
        return Lesion(replace(info, channels=()), image, label, np.ones(label.shape, dtype=bool))

    def painter(self, draw: Draw, donors: Donors) -> Painter:
        """Translate the host's map."""
        return partial(self._paint, self._translator(donors), donors)

    def _paint(self, model: Translator, donors: Donors, placed: Placed) -> NDArray[np.float32]:
        canvas = placed.canvas
        tissue = model.tissue_of(canvas.host, donors.cache)
        return model.added(canvas.host, tissue, canvas.label, placed.box, placed.label)

    def _translator(self, donors: Donors) -> Translator:
        from lesionsynth.generative.translation_models import open_translation

        return open_translation(donors.model_file(self.model, "translation"))

    @property
    def _with_image(self) -> bool:
        return self.shapes == "bank"

    def _givers(self, donors: Donors) -> tuple[str, ...]:
        return donors.mask_subjects if self.shapes == "masks" else donors.subjects
