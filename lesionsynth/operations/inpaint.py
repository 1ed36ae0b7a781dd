"""Remove lesions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from lesionsynth.editing.canvas import Canvas
from lesionsynth.editing.removal import Removals, remove_lesion
from lesionsynth.plugins import registry
from lesionsynth.plugins.contracts import FillSpec, OperationSpec, StepContext, StepReport
from lesionsynth.plugins.load import LoadSpec
from lesionsynth.spec import Range, words_of

if TYPE_CHECKING:
    AnyFill = FillSpec
else:
    AnyFill = registry.union("fills")


@registry.register("operations")
class Inpaint(OperationSpec):
    """Remove lesions: some, down to a target load, or all (pseudo-healthy)."""

    kind: Literal["inpaint"] = "inpaint"
    lesions: Literal["random", "smallest", "largest", "all"] = "random"
    """Which lesions go first; all removes every one."""
    share: Range = (0.25, 0.75)
    """Share of the lesions that is removed, drawn for each copy; at least one. Not used with `load`."""
    load: LoadSpec | None = None
    """Target load to go down to, instead of a share; lesions that are above it alone go first."""
    inpaint: AnyFill = Field(default_factory=lambda: registry.create("fills", "biharmonic"))
    """How the places are filled."""

    def methods(self) -> Iterator[str]:
        """Which lesions were removed, and how."""
        order = {"random": "in random order"}.get(self.lesions, f"the {self.lesions} first")
        if self.lesions == "all":
            yield "All lesions of the host were removed."
        elif self.load is not None:
            yield (
                f"Lesions were removed until a target load was met: any above it alone first, others {order}."
            )
        else:
            yield f"A share of {words_of(self.share)} of the lesions was removed, {order}."
        yield from self.methods_of_parts(*(["load"] if self.lesions == "all" else []))

    @property
    def target_load(self) -> LoadSpec | None:
        """The recipe's load; none where all lesions go."""
        return None if self.lesions == "all" else self.load

    def apply(self, canvas: Canvas, context: StepContext) -> StepReport:
        """Remove lesions one by one."""
        removals = Removals(canvas, self.inpaint, context.streams)
        order = removals.order(self.lesions)
        if context.target is not None:
            removals.keep_within(order, context.target)
        else:
            share = 1.0 if self.lesions == "all" else context.streams("share").uniform(*self.share)
            for instance in order[: math.ceil(share * len(order))]:
                removals.take(instance)
        return StepReport(removals.draws, dict(removals.rejected))

    def replay(self, canvas: Canvas, context: StepContext, draws: list[dict[str, Any]]) -> None:
        """Remove the same lesions again."""
        for draw in draws:
            remove_lesion(canvas, draw["lesion"], self.inpaint, draw["seed"])
