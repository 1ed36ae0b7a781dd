"""Remove lesions."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from lesionsynth.editing.canvas import Canvas
from lesionsynth.editing.removal import lower_load, removal_order, remove_lesion
from lesionsynth.plugins import registry
from lesionsynth.plugins.contracts import FillSpec, OperationSpec, StepContext, StepReport
from lesionsynth.plugins.load import LoadSpec
from lesionsynth.spec import Range

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
    """Target load to go down to, instead of a share."""
    inpaint: AnyFill = Field(default_factory=lambda: registry.create("fills", "fast_marching"))
    """How the places are filled."""

    @property
    def target_load(self) -> LoadSpec | None:
        """The recipe's load; none where all lesions go."""
        return None if self.lesions == "all" else self.load

    def apply(self, canvas: Canvas, context: StepContext) -> StepReport:
        """Remove lesions one by one."""
        rng = context.streams("remove")
        rejected: Counter[str] = Counter()

        def seed_of(instance: int) -> int:
            return int(context.streams("texture", instance).integers(2**31))

        order = removal_order(canvas, self.lesions, rng)
        if context.target is not None:
            low, high = context.target.low_ml, context.target.high_ml
            draws = lower_load(canvas, order, low, high, self.inpaint, seed_of, rejected)
            return StepReport(draws, dict(rejected))
        if self.lesions != "all":
            order = order[: math.ceil(rng.uniform(*self.share) * len(order))]
        found = [remove_lesion(canvas, instance, self.inpaint, seed_of(instance)) for instance in order]
        refused = sum(draw is None for draw in found)
        return StepReport(
            [draw for draw in found if draw is not None],
            {"no clean tissue to fill from": refused} if refused else {},
        )

    def replay(self, canvas: Canvas, context: StepContext, draws: list[dict[str, Any]]) -> None:
        """Remove the same lesions again."""
        for draw in draws:
            remove_lesion(canvas, draw["lesion"], self.inpaint, draw["seed"])
