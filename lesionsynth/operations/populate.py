"""Add lesions until a target load is met."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from lesionsynth.domain.lesion import Lesion, size_class
from lesionsynth.domain.load import LoadTarget
from lesionsynth.editing.canvas import Canvas, Saved
from lesionsynth.editing.contrast import ContrastSpec, draw_contrast
from lesionsynth.editing.geometry import GeometrySpec, draw_geometry, warp_of
from lesionsynth.editing.insertion import CheckSpec, Insertion, make_insertion, passes
from lesionsynth.editing.mass_effect import MassEffectSpec, draw_mass_effect, push_aside
from lesionsynth.editing.removal import Removals, remove_lesion
from lesionsynth.editing.site import SiteFinder, SiteSpec
from lesionsynth.errors import LesionsynthError, NoRoomError
from lesionsynth.kernels.deform import warp_label
from lesionsynth.plugins import registry
from lesionsynth.plugins.contracts import (
    BlendSpec,
    Draw,
    FillSpec,
    OperationSpec,
    StepContext,
    StepReport,
    Wanted,
)
from lesionsynth.plugins.load import LoadSpec
from lesionsynth.spec import Probability
from lesionsynth.units import MM3_PER_ML

if TYPE_CHECKING:
    AnyBlend = BlendSpec
    AnyFill = FillSpec
else:
    AnyBlend = registry.union("blends")
    AnyFill = registry.union("fills")

_FIT_ROUNDS = 3
_SLACK = 1.5
_TRIES_PER_SLACK = 10


@registry.register("operations")
class Populate(OperationSpec):
    """Add lesions, and remove some where there are too many, until a target load is met."""

    kind: Literal["populate"] = "populate"
    uses_map: ClassVar[bool] = True
    method: ClassVar[str] = (
        "Lesions were added to each copy until a target load was met (LesionMix [@basaran2023])."
    )
    source: str = "donors"
    """Name of the source, declared under `sources`."""
    load: LoadSpec = LoadSpec(kind="uniform")
    """Target load."""
    replace: Probability | Literal["auto"] = "auto"
    """Share of the host's own lesions that is removed first; auto: all where the training cases typically
    hold one lesion, so that it is replaced, moved, enlarged or shrunk, and none elsewhere."""
    surplus: Literal["inpaint", "keep"] = "inpaint"
    """What to do where the host has more than the target: remove lesions, or leave them."""
    max_lesions: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Largest number of lesions; auto: one where the training cases typically hold one, else any number."""
    min_volume_mm3: float = Field(default=10.0, ge=0)
    """A lesion that would come out smaller is a speck, and is drawn again."""
    tries: int = Field(default=100, ge=1, le=100000)
    """Draws in a row that may fail before the load is left as it is and reported as a shortfall."""
    geometry: GeometrySpec = GeometrySpec()
    contrast: ContrastSpec = ContrastSpec()
    site: SiteSpec = SiteSpec()
    mass_effect: MassEffectSpec = MassEffectSpec()
    blend: AnyBlend = Field(default_factory=lambda: registry.create("blends", "alpha"))
    """How the lesion is joined to the host."""
    inpaint: AnyFill = Field(default_factory=lambda: registry.create("fills", "biharmonic"))
    """How lesions are removed where there are too many."""
    check: CheckSpec = CheckSpec()

    @property
    def target_load(self) -> LoadSpec | None:
        """The recipe's load."""
        return self.load

    def source_names(self) -> tuple[str, ...]:
        """The one source."""
        return (self.source,)

    def methods_of_parts(self, *but: str) -> Iterator[str]:
        """The fill only where lesions may be removed."""
        yield from super().methods_of_parts(*but, "inpaint")
        if self.surplus == "keep":
            return
        if self.replace == "auto":
            yield "Where the cases learned from typically hold one lesion, the host's own were removed first."
        elif self.replace > 0:
            yield f"Of the host's own lesions {100 * self.replace:g} % were removed first."
        yield (
            "Where a host had more than its target, lesions were removed until it was met; where it met the "
            "target from the start, one lesion was exchanged."
        )
        yield from self.inpaint.methods()

    def apply(self, canvas: Canvas, context: StepContext) -> StepReport:
        """Remove what is too much, then add what is missing."""
        assert context.target is not None
        removals, exchanged = self._remove(canvas, context, context.target)
        rejected = removals.rejected
        added = self._add(canvas, context, context.target, rejected)
        if exchanged and not added and not canvas.boxes and context.target.low_ml > 0:
            # A host whose lesions were to be exchanged and that got none would teach that there is nothing to
            # find. Where lesions went because the target is lower than any of them, none is near it.
            raise NoRoomError(
                "its lesions were taken out, and no other could be put in "
                f"({', '.join(f'{count} x {why}' for why, count in sorted(rejected.items()))}).",
                case=canvas.case,
                remedy="Look at load, site and donors in the recipe.",
            )
        return StepReport(removals.draws + added, dict(rejected))

    def replay(self, canvas: Canvas, context: StepContext, draws: list[Draw]) -> None:
        """Make the same edits again."""
        for draw in draws:
            if draw["edit"] == "remove":
                remove_lesion(canvas, draw["lesion"], self.inpaint, draw["seed"])
                continue
            lesion = context.sources[self.source].lesion(draw["donor"], context.donors)
            self._push_aside(canvas, lesion, draw)
            insertion = self._make(canvas, context, lesion, draw)
            if insertion is None:
                raise LesionsynthError("a recorded lesion finds no tissue in its host.", case=canvas.case)
            canvas.insert(insertion.box, insertion.values, insertion.changed, insertion.label)

    def _remove(self, canvas: Canvas, context: StepContext, target: LoadTarget) -> tuple[Removals, bool]:
        """Remove lesions; what was removed, and whether any was for others to take its place."""
        removals = Removals(canvas, self.inpaint, context.streams)
        exchanged = False
        if self.surplus == "inpaint":
            order = removals.order()
            share = float(context.typical_count <= 1) if self.replace == "auto" else self.replace
            first = round(share * len(order))
            if first == 0 and order and target.met_by(canvas.load_ml):
                first = 1  # an output equal to its host would be no new case: exchange one lesion
            exchanged = first > 0
            for instance in order[:first]:
                removals.take(instance)
            removals.lower_load(order[first:], target)
        return removals, exchanged

    def _add(
        self, canvas: Canvas, context: StepContext, target: LoadTarget, rejected: Counter[str]
    ) -> list[Draw]:
        limit = self.max_lesions
        if limit == "auto":
            limit = 1 if context.typical_count <= 1 else sys.maxsize
        finder = SiteFinder(canvas, self.site, context.centres)
        own = context.donors.bank.of_case(canvas.host.files.subject, canvas.case)
        draws: list[Draw] = []
        attempt = failures = 0
        while canvas.load_ml < target.low_ml and failures < self.tries:
            if len(canvas.boxes) >= limit:
                rejected["max_lesions reached"] += 1
                break
            rng = context.streams("insert", attempt)
            attempt += 1
            single = limit - len(canvas.boxes) == 1
            # The only lesion has to make up the whole load. Where no donor can, the next best is taken.
            slack = _SLACK ** (failures // _TRIES_PER_SLACK) if single else 1.0
            own_too = not canvas.boxes and failures >= self.tries // 2
            result = self._attempt(canvas, context, target, finder, own, single, slack, own_too, rng)
            if isinstance(result, str):
                rejected[result] += 1
                failures += 1
                continue
            draw, insertion = result
            canvas.insert(insertion.box, insertion.values, insertion.changed, insertion.label)
            draws.append(draw)
            failures = 0
        return draws

    def _attempt(
        self,
        canvas: Canvas,
        context: StepContext,
        target: LoadTarget,
        finder: SiteFinder,
        own: list[Any],
        single: bool,
        slack: float,
        own_too: bool,
        rng: np.random.Generator,
    ) -> tuple[Draw, Insertion] | str:
        """Draw one lesion; what was drawn and made, or the reason why it was refused.

        `single`: no further lesion may follow, so that this one has to reach the target; `slack` widens
        what counts as reached; `own_too`: the host's own lesions may come back.
        """
        least = (target.low_ml - canvas.load_ml) * MM3_PER_ML / slack
        most = (target.high_ml - canvas.load_ml) * MM3_PER_ML * slack
        source = context.sources[self.source]
        geometry = source.own_geometry or self.geometry
        smallest, largest = geometry.scale.fit
        wanted = Wanted(
            min_mm3=least / largest**3 if single else 0.0,
            max_mm3=most / smallest**3,
            host_subject=canvas.host.files.subject,
            host_case=canvas.case,
            own_too=own_too,
        )
        donor = source.draw(rng, context.donors, wanted)
        if donor is None:
            return "no donor of a fitting size"
        if isinstance(donor, str):
            return donor
        lesion = source.lesion(donor, context.donors)
        pose = draw_geometry(geometry, lesion, rng, canvas.grid)
        bounds = (least if single else self.min_volume_mm3, most)
        label = self._fit(canvas, lesion, pose, bounds, geometry.scale.fit)
        if label is None:
            return "does not fit the load"
        warp = warp_of(lesion, pose, canvas.grid, 0.0)
        centre = finder.find(label, warp.lower, lesion.info.site, rng)
        if centre is None:
            return "no fitting site"
        draw: Draw = {
            "edit": "insert",
            "source": self.source,
            "donor": donor,
            "case": lesion.info.case,
            "subject": lesion.info.subject,
            "pose": pose,
            "centre_vox": list(centre),
            "contrast": draw_contrast(self.contrast, lesion.info, own, rng),
            "blend": self.blend.draw(rng),
            "seed": int(rng.integers(2**31)),
        }
        volume = float(np.count_nonzero(label)) * canvas.grid.voxel_volume_mm3
        pushes = draw_mass_effect(self.mass_effect, volume, rng)
        if pushes is not None:
            draw["mass_effect"] = pushes
        before = canvas.load_ml
        saved = self._push_aside(canvas, lesion, draw)
        moved = (canvas.load_ml - before) * MM3_PER_ML  # other lesions that are stretched or squeezed
        made = self._judged(
            canvas, context, lesion, draw, (bounds[0] - moved * single, bounds[1] - moved), single
        )
        if saved is not None and isinstance(made, str):
            canvas.restore(saved)
        return made

    def _judged(
        self,
        canvas: Canvas,
        context: StepContext,
        lesion: Lesion,
        draw: Draw,
        bounds: tuple[float, float],
        single: bool,
    ) -> tuple[Draw, Insertion] | str:
        """Make the lesion of a draw; it with its measures, or the reason why it is refused."""
        insertion = self._make(canvas, context, lesion, draw)
        if insertion is None:
            return "no fitting site"
        volume = float(np.count_nonzero(insertion.label)) * canvas.grid.voxel_volume_mm3
        if volume < min(self.min_volume_mm3, bounds[0]):
            return "a speck is left"
        if (single and volume < bounds[0]) or volume > bounds[1]:
            return "does not fit the load"
        if self.site.like_donor and abs(size_class(volume) - lesion.info.size_class) > 1:
            return "leaves its size class"
        failed = passes(insertion.measures, self.check)
        if failed is not None:
            return f"{failed} out of range"
        return {**draw, "volume_mm3": round(volume, 6), "measures": insertion.measures}, insertion

    def _push_aside(self, canvas: Canvas, lesion: Lesion, draw: Draw) -> Saved | None:
        """Push the host aside as `draw` says, and note the strength that was possible; how to undo it."""
        if "mass_effect" not in draw:
            return None
        warp = warp_of(lesion, draw["pose"], canvas.grid, 0.0)
        corner = [c + low for c, low in zip(draw["centre_vox"], warp.lower, strict=True)]
        pushed = push_aside(canvas, warp_label(lesion.label, warp), corner, draw["mass_effect"])
        if pushed is None:
            del draw["mass_effect"]
            return None
        saved, draw["mass_effect"]["strength"] = pushed
        return saved

    def _fit(
        self,
        canvas: Canvas,
        lesion: Lesion,
        pose: dict[str, Any],
        bounds: tuple[float, float],
        limits: tuple[float, float],
    ) -> Any:
        """Warped label with a volume within `bounds` (mm3), "fit" set in its pose; None if there is none."""
        low, high = limits
        middle = 0.5 * (bounds[0] + bounds[1]) if bounds[0] > self.min_volume_mm3 else bounds[1]
        volume = lesion.info.volume_mm3 * float(np.prod(pose["scale"]))
        if volume > bounds[1]:  # known before anything is resampled
            pose["fit"] = (middle / volume) ** (1 / 3)
        for _ in range(_FIT_ROUNDS):
            if not low <= pose["fit"] <= high:
                return None
            label = warp_label(lesion.label, warp_of(lesion, pose, canvas.grid, 0.0))
            volume = float(np.count_nonzero(label)) * canvas.grid.voxel_volume_mm3
            if volume == 0 or bounds[0] <= volume <= bounds[1]:
                return label if volume else None
            pose["fit"] *= (middle / volume) ** (1 / 3)
        return None

    def _make(self, canvas: Canvas, context: StepContext, lesion: Lesion, draw: Draw) -> Insertion | None:
        return make_insertion(
            canvas,
            lesion,
            draw,
            blend=self.blend,
            contrast=self.contrast,
            overlap=self.site.overlap,
            bank=context.donors.bank,
            painter=context.sources[self.source].painter(draw["donor"], context.donors),
        )
