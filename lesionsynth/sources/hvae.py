"""Lesions that a Hamiltonian variational autoencoder generates together with their images."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from lesionsynth.domain.grid import bounding_box, grown
from lesionsynth.domain.lesion import Lesion
from lesionsynth.editing.likeness import lesion_on_host
from lesionsynth.errors import InputError
from lesionsynth.generative.codes import Sampling, draw_code
from lesionsynth.generative.crops import RIM_MM, largest_shape, shape_lesion
from lesionsynth.kernels.distance import distance_to_mm, voxel_scale
from lesionsynth.kernels.intensity import MIN_SHELL_VOXELS, shell_mask
from lesionsynth.plugins.contracts import Donors, Draw, ModelUse, SourceSpec, Wanted
from lesionsynth.plugins.registry import register

if TYPE_CHECKING:
    from lesionsynth.generative.hvae_models import HvaeModel


@register("sources")
class Hvae(SourceSpec):
    """Lesions that a Hamiltonian variational autoencoder generates, image and mask together.

    A patch is decoded; its largest lesion is taken, and what it adds to its generated surroundings goes on
    the host's own texture, since decoded images are smooth. Kebaili et al., 2023, arXiv:2311.10472.
    """

    kind: Literal["hvae"] = "hvae"
    method: ClassVar[str] = (
        "Lesions and their intensities were generated together by a Hamiltonian variational autoencoder "
        "[@kebaili2023] that was trained on cases of the same block of the folds."
    )
    model: str = ""
    """Folder that `lesionsynth train hvae` has written, with `sample: patches`; there is no default."""
    sampling: Sampling = "mixture"
    """Where codes are drawn. prior: N(0, I); mixture: Gaussians fitted to the codes of the training lesions;
    neighbourhood: near the code of one training lesion, never of the host's own."""
    spread: float = Field(default=1.0, gt=0, le=4)
    """Factor on the standard deviation of the draws."""

    def models_used(self) -> dict[str, ModelUse]:
        """The one model."""
        return {self.model: ModelUse(("hvae",), images=True, config=(("sample", "patches"),))}

    def draw(self, rng: np.random.Generator, donors: Donors, wanted: Wanted) -> Draw | str | None:
        """Draw a code whose lesion can be used; the reason why it cannot, None where none could be."""
        model = self._model(donors)
        if wanted.max_mm3 < model.seen.least_single_mm3 or wanted.min_mm3 > model.seen.most_single_mm3:
            return None
        others = np.array([name.subject != wanted.host_subject for name in model.codes.names])
        drawn = draw_code(model.codes, self.sampling, self.spread, rng, others)
        if drawn is None:
            return None
        code, near = drawn
        classes = model.pair(code)[1]
        lesion = model.largest(classes)
        if isinstance(lesion, str):
            return lesion
        volume = float(np.count_nonzero(lesion)) * model.spacing_mm**3
        if not wanted.min_mm3 <= volume <= wanted.max_mm3:
            return "generated lesion of another size"
        return {"code": code, "near": None if near is None else near.name, "from": []}

    def lesion(self, draw: Draw, donors: Donors) -> Lesion:
        """Decode the code: shape, and difference from the surroundings."""
        model = self._model(donors)
        image, classes = model.pair(draw["code"])
        body = largest_shape(classes)
        if isinstance(body, str):
            raise InputError(
                f"the code of a draw gives no lesion ({body}).",
                file=donors.models[self.model],
                remedy="Use the checkpoint that the record names.",
            )
        spacing = (model.spacing_mm,) * 3
        added = _added(image, body > 0, model.is_tissue(image) & (classes == 0), spacing)
        # Room for the rim and two voxels of nothing, beyond the patch too.
        margin = int(np.ceil(_rim_mm(spacing) / model.spacing_mm)) + 2
        around = [(margin, margin)] * 3
        body, added = np.pad(body, around), np.pad(added, [(0, 0), *around])
        box = bounding_box(body > 0)
        assert box is not None
        box = grown(box, [margin] * 3, body.shape)
        shape = shape_lesion(self.kind, body[box], model.spacing_mm, model.values)
        return lesion_on_host(shape.info, shape.label, added[(slice(None), *box)])

    def _model(self, donors: Donors) -> HvaeModel:
        from lesionsynth.generative.hvae_models import open_hvae

        return open_hvae(donors.model_file(self.model, "hvae"))


def _rim_mm(spacing_mm: tuple[float, float, float]) -> float:
    return RIM_MM * voxel_scale(spacing_mm)


def _added(
    image: NDArray[np.float32],
    body: NDArray[np.bool_],
    tissue: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
) -> NDArray[np.float32]:
    """What a lesion adds to the tissue around it, (C, n, n, n); it fades to 0 over a rim."""
    # Neither air nor other lesions, nor their rims, are tissue that the lesion stands out from.
    clean = ndimage.binary_erosion(tissue | body, border_value=1) & ~body
    shell = shell_mask(body, clean, spacing_mm)
    if np.count_nonzero(shell) < MIN_SHELL_VOXELS:
        shell = clean if clean.any() else ~body
    median = np.median(image[:, shell], axis=1).astype(np.float32)
    fade = np.clip(1.0 - distance_to_mm(body, spacing_mm) / _rim_mm(spacing_mm), 0.0, 1.0)
    fade[~(clean | body)] = 0.0
    return np.asarray((image - median[:, None, None, None]) * fade, dtype=np.float32)
