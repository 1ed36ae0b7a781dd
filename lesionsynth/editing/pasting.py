"""Paste a few single lesions: what copy-paste operations share. There is no target load."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field

from lesionsynth.domain.lesion import Lesion
from lesionsynth.editing.canvas import Canvas
from lesionsynth.editing.contrast import ContrastSpec, draw_contrast
from lesionsynth.editing.geometry import GeometrySpec, draw_geometry, warp_of
from lesionsynth.editing.insertion import CheckSpec, Insertion, make_insertion, passes
from lesionsynth.editing.site import SiteFinder, SiteSpec
from lesionsynth.errors import LesionsynthError
from lesionsynth.kernels.deform import warp_label
from lesionsynth.likelihood.over_host import CentreDensity
from lesionsynth.plugins.contracts import BlendSpec, Draw, OperationSpec, Painter, StepContext, StepReport
from lesionsynth.spec import words_of


def _ordered(value: tuple[int, int]) -> tuple[int, int]:
    if not 0 < value[0] <= value[1]:
        raise ValueError(f"should be [low, high] with 1 <= low <= high, got [{value[0]}, {value[1]}]")
    return value


CountRange = Annotated[tuple[int, int], AfterValidator(_ordered)]
"""A pair [low, high] of numbers from 1."""


_NO_DONOR = "no donor left"


class PasteSpec(OperationSpec):
    """A step that pastes a number of lesions, each drawn and placed by itself."""

    lesions: CountRange | Literal["removed"] = (1, 1)
    """How many lesions are pasted, drawn for each copy; removed: as many as earlier steps have taken out of
    the host. No donor comes twice in one copy."""
    min_volume_mm3: float = Field(default=10.0, ge=0)
    """A lesion that would come out smaller is a speck, and is drawn again."""
    tries: int = Field(default=100, ge=1, le=100000)
    """Draws in a row that may fail before there are fewer lesions than wanted."""
    geometry: GeometrySpec = GeometrySpec()
    contrast: ContrastSpec = ContrastSpec(kind="absolute")
    site: SiteSpec = SiteSpec(like_donor=False)
    """Where a lesion may be put. Centres are drawn evenly over the tissue that lesions lie in."""
    check: CheckSpec = CheckSpec(contrast=(0.25, 4.0), edge=(0.0, 1000.0), detail=(0.0, 1000.0))
    """Ranges outside of which a lesion is drawn again. By default it has to be as bright or dark as it was
    to within a factor of 4, and visible."""

    def methods_of_parts(self, *but: str) -> Iterator[str]:
        """How many lesions, and where; then the parts."""
        if self.lesions == "removed":
            count = "as many lesions as had been removed"
        else:
            count = "one lesion" if self.lesions == (1, 1) else f"{words_of(self.lesions)} lesions"
        yield f"Into each copy went {count}, at places drawn evenly over the tissue of lesions."
        yield from super().methods_of_parts(*but)

    @abstractmethod
    def choose(
        self, canvas: Canvas, context: StepContext, used: list[Draw], rng: np.random.Generator
    ) -> Draw | str | None:
        """Choose a lesion: what is recorded under "donor"; None where there is none left.

        A text says why what was drawn is none. `used` are the choices of this copy so far. One that comes
        again is refused.
        """

    @abstractmethod
    def lesion(self, donor: Draw, context: StepContext) -> Lesion:
        """The lesion of a choice, without any randomness."""

    def geometry_of(self, context: StepContext) -> GeometrySpec:
        """How lesions are turned, scaled and bent."""
        return self.geometry

    def painter(self, donor: Draw, context: StepContext) -> Painter | None:
        """Paints the lesion of a choice in its place; None where it has an image of its own."""
        return None

    @abstractmethod
    def blend_of(self, draw: Draw) -> BlendSpec:
        """The blend for a draw."""

    def draw_more(self, rng: np.random.Generator) -> Draw:
        """Draw what else is random: further fields of the draw."""
        return {}

    def altered(self, lesion: Lesion, draw: Draw) -> Lesion:
        """The lesion with what :meth:`draw_more` has drawn."""
        return lesion

    def apply(self, canvas: Canvas, context: StepContext) -> StepReport:
        """Paste lesions until there are as many as drawn."""
        rejected: Counter[str] = Counter()
        if self.lesions == "removed":
            wanted = len(removed_lesions(canvas))
        else:
            wanted = int(context.streams("count").integers(self.lesions[0], self.lesions[1] + 1))
        finder = SiteFinder(canvas, self.site, CentreDensity(canvas.host))
        own = context.donors.bank.of_case(canvas.host.files.subject, canvas.case)
        draws: list[Draw] = []
        attempt = failures = 0
        while len(draws) < wanted and failures < self.tries:
            result = self._attempt(canvas, context, finder, own, draws, context.streams("insert", attempt))
            attempt += 1
            if isinstance(result, str):
                rejected[result] += 1
                failures += 1
                if result == _NO_DONOR:
                    break
                continue
            draw, insertion = result
            canvas.insert(insertion.box, insertion.values, insertion.changed, insertion.label)
            draws.append(draw)
            failures = 0
        return StepReport(draws, dict(rejected))

    def replay(self, canvas: Canvas, context: StepContext, draws: list[Draw]) -> None:
        """Paste the same lesions again."""
        for draw in draws:
            insertion = self._make(canvas, context, self.lesion(draw["donor"], context), draw)
            if insertion is None:
                raise LesionsynthError("a recorded lesion finds no tissue in its host.", case=canvas.case)
            canvas.insert(insertion.box, insertion.values, insertion.changed, insertion.label)

    def _attempt(
        self,
        canvas: Canvas,
        context: StepContext,
        finder: SiteFinder,
        own: list[Any],
        before: list[Draw],
        rng: np.random.Generator,
    ) -> tuple[Draw, Insertion] | str:
        """Draw one lesion; what was drawn and made, or the reason why it was refused."""
        used = [draw["donor"] for draw in before]
        donor = self.choose(canvas, context, used, rng)
        if donor is None:
            return _NO_DONOR
        if isinstance(donor, str):
            return donor
        if donor in used:
            return "donor pasted before"
        lesion = self.lesion(donor, context)
        pose = draw_geometry(self.geometry_of(context), lesion, rng, canvas.grid)
        warp = warp_of(lesion, pose, canvas.grid, 0.0)
        label = warp_label(lesion.label, warp)
        if not label.any():
            return "a speck is left"
        centre = finder.find(label, warp.lower, lesion.info.site, rng)
        if centre is None:
            return "no fitting site"
        draw: Draw = {
            "edit": "insert",
            "donor": donor,
            "case": lesion.info.case,
            "subject": lesion.info.subject,
            "pose": pose,
            "centre_vox": list(centre),
            "contrast": draw_contrast(self.contrast, lesion.info, own, rng),
            **self.draw_more(rng),
            "seed": int(rng.integers(2**31)),
        }
        insertion = self._make(canvas, context, lesion, draw)
        if insertion is None:
            return "no fitting site"
        volume = float(np.count_nonzero(insertion.label)) * canvas.grid.voxel_volume_mm3
        if volume < self.min_volume_mm3:
            return "a speck is left"
        failed = passes(insertion.measures, self.check)
        if failed is not None:
            return f"{failed} out of range"
        return {**draw, "volume_mm3": round(volume, 6), "measures": insertion.measures}, insertion

    def _make(self, canvas: Canvas, context: StepContext, lesion: Lesion, draw: Draw) -> Insertion | None:
        return make_insertion(
            canvas,
            self.altered(lesion, draw),
            draw,
            blend=self.blend_of(draw),
            contrast=self.contrast,
            overlap=self.site.overlap,
            bank=context.donors.bank,
            painter=self.painter(draw["donor"], context),
        )


def removed_lesions(canvas: Canvas) -> set[int]:
    """The host's own lesions that are no longer on the canvas, by their numbers."""
    return set(range(1, len(canvas.host.lesions[1]) + 1)) - set(canvas.boxes)


def draw_own(
    canvas: Canvas,
    context: StepContext,
    used: list[Draw],
    rng: np.random.Generator,
    only: set[int] | None = None,
) -> Draw | None:
    """Draw one of the host case's lesions in the bank, all equally likely; None where there is none left.

    Parameters
    ----------
    canvas : Canvas
    context : StepContext
        Its leak rule may forbid the host's subject as a donor.
    used : list of dict
        Choices that are not to come again.
    rng : numpy.random.Generator
    only : set of int, optional
        Numbers of the lesions that may be drawn.
    """
    subject = canvas.host.files.subject
    if subject not in context.donors.subjects:
        return None
    left = [
        {"lesion": info.lesion}
        for info in context.donors.bank.of_case(subject, canvas.case)
        if only is None or info.component in only
    ]
    left = [draw for draw in left if draw not in used]
    return left[int(rng.integers(len(left)))] if left else None
