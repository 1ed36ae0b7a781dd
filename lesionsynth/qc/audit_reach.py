"""Where a copy may differ from its host, told from label maps and draws, not by the engine that made it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lesionsynth.domain.grid import grown
from lesionsynth.editing.pasting import PasteSpec
from lesionsynth.kernels.components import components
from lesionsynth.operations.carve_mix import CarveMix
from lesionsynth.operations.copy_paste import CopyPaste
from lesionsynth.operations.inpaint import Inpaint
from lesionsynth.operations.populate import Populate
from lesionsynth.operations.translate import Translate
from lesionsynth.plugins.contracts import OperationSpec
from lesionsynth.qc.audit_evidence import Draw, Record
from lesionsynth.recipe.model import Recipe
from lesionsynth.units import mm_to_vox

_HALO_VOX = 6
"""A fill follows what shines out of a lesion (PET) so far, where tissues are not told apart."""
_LONGEST = 2.0 ** (2 / 3)
"""Longest axis of an ellipsoid of mean radius 1 whose axes differ by a factor of 2 at most."""
_CUT = 1.3
"""A lesion may have been larger in every direction before it was cut to the tissue."""

Reach = tuple[int, int, int]


def reach_vox(recipe: Recipe, record: Record, spacing_mm: Sequence[float]) -> Reach | None:
    """Voxels beyond the box of an edited lesion that any edit of a record may have changed, along each axis.

    None where the draws do not tell: an operation from another package, an image that was painted as a whole,
    or a lesion that was added and then removed, which has left no label.
    """
    reach = (0, 0, 0)
    for step in record.steps:
        operation = recipe.steps.get(step.step)
        for draw in step.draws:
            if draw.edit == "remove" and (draw.lesion is None or draw.lesion > record.lesions.before):
                return None
            one = _reach_of(operation, draw, spacing_mm)
            if one is None:
                return None
            reach = (max(reach[0], one[0]), max(reach[1], one[1]), max(reach[2], one[2]))
    return reach


def _reach_of(
    operation: OperationSpec | None, draw: Draw, spacing_mm: Sequence[float]
) -> Sequence[int] | None:
    if isinstance(operation, Populate | Inpaint) and draw.edit == "remove":
        return (operation.inpaint.grow_vox + _HALO_VOX,) * 3
    if isinstance(operation, CarveMix):
        return [n + 2 for n in mm_to_vox(max(0.0, draw.lambda_mm or 0.0), spacing_mm)]
    if isinstance(operation, Populate):
        blend = operation.blend
    elif isinstance(operation, PasteSpec):
        blend = operation.blend_of({"blend": draw.blend})
    else:
        return None
    reach_mm = blend.reach_mm(spacing_mm)
    if draw.mass_effect is not None:
        radius_mm = _CUT * float(np.cbrt(0.75 * draw.volume_mm3 / np.pi))
        reach_mm = max(reach_mm, _LONGEST * (radius_mm + draw.mass_effect.reach_mm))
    return [n + 1 for n in mm_to_vox(reach_mm, spacing_mm)]


def outside_reach(
    changed: NDArray[np.bool_],
    host_lesion: NDArray[np.bool_],
    lesion: NDArray[np.bool_],
    relabelled: NDArray[np.bool_],
    recipe: Recipe,
    record: Record,
    reach: Reach,
) -> NDArray[np.bool_]:
    """Changed voxels that no edit can have reached.

    Parameters
    ----------
    changed : ndarray, (i, j, k), bool
        Voxels that differ from the host in any channel or the label.
    host_lesion, lesion, relabelled : ndarray, (i, j, k), bool
        Lesions of the host and of the copy, and voxels whose label differs.
    recipe : Recipe
    record : Record
    reach : tuple of int
        From :func:`reach_vox`.
    """
    left = changed.copy()
    numbers, boxes = components(host_lesion | lesion | relabelled)
    edited = set(np.unique(numbers[changed if _may_coincide(recipe, record) else relabelled]).tolist())
    spread = any(_cuts_far(recipe.steps.get(step.step)) for step in record.steps)
    for number, box in enumerate(boxes, start=1):
        if number in edited:
            own = max(s.stop - s.start for s in box) if spread else 0
            left[grown(box, [r + own for r in reach], left.shape)] = False
    return left


def _cuts_far(operation: OperationSpec | None) -> bool:
    """Whether voxels change beyond what is left of a label, which may be cut to the tissue by its own size.

    A carved lesion keeps the margin of what was cut off; a spreading blend solves the box around all pieces.
    """
    return isinstance(operation, CarveMix) or (
        isinstance(operation, Populate | CopyPaste) and operation.blend.spreads
    )


def keeps_count(recipe: Recipe, record: Record) -> bool:
    """Whether no edit of a record can have joined, cut or covered other lesions than its own."""
    pushed = any(draw.mass_effect is not None for draw in record.draws)
    return not pushed and not any(_overwrites(recipe.steps.get(step.step)) for step in record.steps)


def _overwrites(operation: OperationSpec | None) -> bool:
    if isinstance(operation, Populate | PasteSpec):
        return operation.site.overlap == "overwrite"
    return not isinstance(operation, Inpaint | Translate)


def _may_coincide(recipe: Recipe, record: Record) -> bool:
    """Whether an edit may have left the label as it was: one lesion in the place of another."""
    edits = {draw.edit for draw in record.draws}
    return {"insert", "remove"} <= edits or any(
        _overwrites(recipe.steps.get(step.step)) for step in record.steps
    )
