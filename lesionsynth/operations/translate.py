"""Give the whole image the look of a trained image translation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from lesionsynth.domain.grid import Box, bounding_box, grown
from lesionsynth.editing.canvas import Canvas
from lesionsynth.editing.insertion import surroundings, visibility
from lesionsynth.generative.specs import Network
from lesionsynth.kernels.distance import distance_to_mm, voxel_scale
from lesionsynth.kernels.noise import gaussian_noise
from lesionsynth.plugins import registry
from lesionsynth.plugins.contracts import (
    BlendSpec,
    Donors,
    Draw,
    ModelUse,
    OperationSpec,
    StepContext,
    StepReport,
)

if TYPE_CHECKING:
    AnyBlend = BlendSpec
else:
    AnyBlend = registry.union("blends")

_RIM_MM = 2.5
"""Tissue around a lesion that keeps its look with it, on voxels up to 1 mm."""
_AWAY_VOX = 2
"""Clean tissue lies farther than this from every lesion."""
_MOSTLY = 0.5
"""A lesion with a larger share of its voxels outside the map's tissue is not painted."""


@registry.register("operations")
class Translate(OperationSpec):
    """Paint the whole image anew from its map of tissue and lesions, by a trained image translation.

    Lesions and labels stay; the steps before have added or removed them. Platscher, Zopes, Federau,
    arXiv:2010.02745.
    """

    kind: Literal["translate"] = "translate"
    edits_lesions: ClassVar[bool] = False
    memory_vox: ClassVar[int] = 30
    model: str = ""
    """Folder of models with one for each block (<block>.safetensors), or one checkpoint, from `lesionsynth
    train translation`. Relative to the working directory."""
    network: Network | None = None
    """What kind of translation the model must be; without it: any."""
    blend: AnyBlend = Field(default_factory=lambda: registry.create("blends", "alpha"))
    """How the painted tissue is joined to the rest of the host at its outer edge: any but poisson, which has
    no level of its own. soft_poisson leaves the tissue within its edge and margin mostly the host's."""
    noise: float = Field(default=1.0, ge=0)
    """Factor on white noise as strong as in clean tissue of the host, added since networks paint smoothly."""
    min_contrast: float = Field(default=1.0, ge=0)
    """Least difference of a painted lesion from its surroundings, in units of the host tissue's spread, in
    the channel where it stands out most. One that is paler, and paler than before, keeps its former look."""

    @field_validator("blend")
    @classmethod
    def _keeps_levels(cls, blend: BlendSpec) -> BlendSpec:
        if blend.kind == "poisson":
            raise ValueError("cannot be poisson: of gradients alone, the painted level would be lost")
        return blend

    def methods(self) -> Iterator[str]:
        """What was painted, and what was not."""
        yield (
            "Then all tissue of the copy was painted anew by a network that translates semantic maps to "
            "images (after [@platscher2020]); its outer edge was joined to the rest of the image "
            f"({self.blend.kind} blending)."
        )
        if self.noise > 0:
            yield f"White noise was added, {self.noise:g} x as strong as in clean tissue of the host."
        if self.min_contrast > 0:
            yield (
                f"Lesions that stood out by less than {self.min_contrast:g} x the spread of the host's "
                "tissue when painted, and less than before, kept their former look."
            )

    def models_used(self) -> dict[str, ModelUse]:
        """The translation."""
        return {self.model: ModelUse.translation(self.network)}

    def apply(self, canvas: Canvas, context: StepContext) -> StepReport:
        """Paint; where lesions have become too pale, once more around them."""
        rng = context.streams("translate")
        draw: Draw = {"edit": "translate", "blend": self.blend.draw(rng), "seed": int(rng.integers(2**31))}
        painting = _Painting(self, canvas, context.donors, draw["seed"])
        if painting.box is None:
            return StepReport([], {"no tissue to paint": 1})
        former = _contrasts(canvas, canvas.values)
        outside = painting.outside()
        spared = list(outside)
        while True:
            values, changed = painting.joined(draw["blend"], spared)
            found = _contrasts(canvas, painting.with_box(canvas.as_stored(values, changed)))
            pale = [
                number
                for number, (_, seen) in found.items()
                if number not in spared and seen < self.min_contrast and seen < former[number][1]
            ]
            if not pale:
                break
            spared = sorted([*spared, *pale])
        draw["spared"] = spared
        draw["noise"] = painting.noise
        draw["contrast"] = {str(number): contrast for number, (contrast, _) in found.items()}
        draw["visible"] = {str(number): seen for number, (_, seen) in found.items()}
        draw["volume_mm3"] = painting.commit(values, changed)
        refused = {
            "visibility out of range": len(spared) - len(outside),
            "outside the tissue of the map": len(outside),
        }
        return StepReport([draw], {reason: count for reason, count in refused.items() if count})

    def replay(self, canvas: Canvas, context: StepContext, draws: list[dict[str, Any]]) -> None:
        """Paint the same again."""
        for draw in draws:
            painting = _Painting(self, canvas, context.donors, draw["seed"])
            painting.commit(*painting.joined(draw["blend"], draw["spared"]))


class _Painting:
    """The painted image of one canvas, and how it is joined to it.

    Attributes
    ----------
    box : Box or None
        What may change lies in it; None where the map has no tissue.
    """

    def __init__(self, step: Translate, canvas: Canvas, donors: Donors, seed: int) -> None:
        from lesionsynth.generative.translation_models import open_translation

        self.blend, self.canvas = step.blend, canvas
        host = canvas.host
        model = open_translation(donors.model_file(step.model, "translation"))
        self._tissue = model.tissue_of(host, donors.cache)
        classes = model.semantics.with_lesions(self._tissue, canvas.label)
        body = (classes > 0) & ~host.untouchable
        inner = bounding_box(body)
        self.box = None if inner is None else grown(inner, (1, 1, 1), canvas.grid.shape)
        if self.box is None:
            return
        self.body, self.before = body[self.box], canvas.values(self.box)
        levels = np.array(host.tissue_stats, dtype=np.float32)[:, :, None, None, None]
        painted = levels[:, 0] + levels[:, 1] * model.translated(host, classes, self.box)
        rng, clean = np.random.default_rng(seed), host.clean_away(_AWAY_VOX)
        noise = gaussian_noise(host.all_values, self.body, clean, rng, self.box, white=True)
        self.noise = 0.0 if noise is None else step.noise
        if noise is not None:
            painted[:, self.body] += step.noise * noise
        # A channel without spread says nothing, and the network has seen nothing of it.
        flat = levels[:, 1, 0, 0, 0] == 0
        painted[flat] = self.before[flat]
        self._painted = painted
        known = host.all_values[(slice(None), *self.box)][:, self.body]
        self._range = tuple(bound(known, axis=1)[:, None, None, None] for bound in (np.min, np.max))

    def outside(self) -> list[int]:
        """Lesions that mostly lie where the map knows no tissue: the network would paint islands."""
        canvas = self.canvas
        return [
            number
            for number, box in sorted(canvas.boxes.items())
            if (self._tissue[box][canvas.instances[box] == number] == 0).mean() > _MOSTLY
        ]

    def joined(self, blend: Draw, spared: list[int]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Intensities of the box, and which of its voxels may be written: not those of `spared` lesions."""
        assert self.box is not None
        spacing = self.canvas.grid.spacing_mm
        instances = self.canvas.instances[self.box]
        allowed = self.body
        if spared:
            kept = np.isin(instances, spared)
            rim = (distance_to_mm(kept, spacing) <= _RIM_MM * voxel_scale(spacing)) & (instances == 0)
            allowed = allowed & ~kept & ~rim
        # The edge of the blend lies inside the tissue, but for lesions, which are painted as a whole.
        whole = allowed & (distance_to_mm(~allowed, spacing) > self.blend.reach_mm(spacing))
        whole |= allowed & (instances > 0)
        alpha = self.blend.alpha(whole, allowed, spacing)

        def join(before: Any, painted: Any, alpha: Any, allowed: Any) -> Any:
            return self.blend.compose(before, painted, alpha, allowed, blend, spacing)

        values = self.canvas.device.run(join, [self.before, self._painted], [alpha, allowed])
        # No tissue becomes darker or brighter than any tissue of the host.
        values = np.clip(values, *self._range)
        changed = allowed & (alpha > 0)
        if self.blend.spreads:
            changed |= allowed & (values != self.before).any(axis=0)
        return np.where(changed, values, self.before), changed

    def with_box(self, values: NDArray[np.float32]) -> Callable[[Box], NDArray[np.float32]]:
        """What any box of the canvas will hold once `values` are in theirs."""

        def read(wide: Box) -> NDArray[np.float32]:
            found = self.canvas.values(wide)
            assert self.box is not None
            both = [(max(w.start, b.start), min(w.stop, b.stop)) for w, b in zip(wide, self.box, strict=True)]
            if all(low < high for low, high in both):
                there = [slice(lo - w.start, hi - w.start) for (lo, hi), w in zip(both, wide, strict=True)]
                here = [slice(lo - b.start, hi - b.start) for (lo, hi), b in zip(both, self.box, strict=True)]
                found[(slice(None), *there)] = values[(slice(None), *here)]
            return found

        return read

    def commit(self, values: NDArray[np.float32], changed: NDArray[np.bool_]) -> float:
        """Write what was joined; return the volume painted."""
        assert self.box is not None
        self.canvas.translate(self.box, values, changed)
        return round(float(np.count_nonzero(changed)) * self.canvas.grid.voxel_volume_mm3, 6)


def _contrasts(
    canvas: Canvas, read: Callable[[Box], NDArray[np.float32]]
) -> dict[int, tuple[list[float], float]]:
    """Mean less surroundings of each lesion, per channel, and the largest of them in spreads of the tissue.

    `read` gives the intensities of a box, (C, i, j, k).
    """
    found = {}
    steps = [image.step for image in canvas.host.images]
    for number, box in sorted(canvas.boxes.items()):
        mask = canvas.instances[box] == number
        levels, spreads = surroundings(canvas, box, mask, read)
        means = read(box)[:, mask].mean(axis=1, dtype=np.float64).tolist()
        contrast = [round(mean - level, 6) for mean, level in zip(means, levels, strict=True)]
        found[number] = contrast, max(map(visibility, contrast, spreads, steps))
    return found
