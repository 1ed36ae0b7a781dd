"""A large lesion pushes its host aside before it is inserted: images, labels and other lesions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from lesionsynth.domain.grid import Box
from lesionsynth.editing.canvas import DISPLACED, HOST, Canvas, Saved
from lesionsynth.kernels.deform import Warp, warp_image, warp_label
from lesionsynth.kernels.distance import distance_to_mm
from lesionsynth.kernels.mass_effect import MAX_STRENGTH, ellipsoid_of, push_apart, reach_box
from lesionsynth.kernels.tissue import OUTSIDE
from lesionsynth.spec import Probability, Range, Spec

_LEAST_VOX = 1e-3


class MassEffectSpec(Spec):
    """Large lesions push the tissue around them aside, radially."""

    p: Probability = 0.0
    """Probability for a lesion that is large enough."""
    min_volume_mm3: float = Field(default=1000.0, ge=0)
    """Smaller lesions replace tissue and push nothing aside."""
    strength: Range = (0.2, 0.5)
    """Share of the lesion's volume that is pushed aside instead of replaced; at most 0.6. Less is pushed near
    the edge of the body, which does not move, nor do protected labels."""
    reach_mm: Range = (10.0, 20.0)
    """How far beyond the lesion tissue is squeezed."""

    def methods(self) -> Iterator[str]:
        """Only where it may happen."""
        if self.p > 0:
            yield (
                f"Lesions of {self.min_volume_mm3:g} mm3 or more pushed the tissue around them aside with "
                f"probability {self.p:g}, after a model of lesion growth [@bachcuadra2004]."
            )

    @field_validator("strength")
    @classmethod
    def _does_not_fold(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] < 0 or value[1] > MAX_STRENGTH:
            raise ValueError(f"should lie within [0, {MAX_STRENGTH}], got [{value[0]:g}, {value[1]:g}]")
        return value

    @field_validator("reach_mm")
    @classmethod
    def _reaches_out(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] <= 0:
            raise ValueError(f"should be above 0, got [{value[0]:g}, {value[1]:g}]")
        return value


def draw_mass_effect(
    spec: MassEffectSpec, volume_mm3: float, rng: np.random.Generator
) -> dict[str, float] | None:
    """Draw whether and how a lesion of this volume pushes its host aside, as JSON."""
    if spec.p == 0 or volume_mm3 < spec.min_volume_mm3 or rng.random() >= spec.p:
        return None
    return {
        "strength": float(rng.uniform(*spec.strength)),
        "reach_mm": float(rng.uniform(*spec.reach_mm)),
    }


def push_aside(
    canvas: Canvas, label: NDArray[np.uint16], corner: Sequence[int], draw: dict[str, float]
) -> tuple[Saved, float] | None:
    """Push the host aside for a lesion that is going to be inserted.

    Parameters
    ----------
    canvas : Canvas
        Is changed: intensities (cubic), labels, lesions and source map (where tissue moved).
    label : ndarray, (i, j, k), uint16
        The lesion as warped onto the host's grid, not cut.
    corner : sequence of int
        Voxel of the host on which its first voxel lies.
    draw : dict
        "strength" and "reach_mm".

    Returns
    -------
    tuple or None
        What :meth:`Canvas.restore` needs to undo it, and the strength that was possible: nothing folds.
        None, and nothing changed, where no tissue can move.
    """
    spacing = canvas.grid.spacing_mm
    body = ellipsoid_of(label > 0, spacing, corner)
    box = reach_box(body, draw["reach_mm"], spacing, canvas.grid.shape)
    still_mm = distance_to_mm(_anchored(canvas, box), spacing)
    if not still_mm.any():
        return None
    field, strength = push_apart(body, draw["strength"], draw["reach_mm"], box, spacing, still_mm)
    moved = np.asarray((np.abs(field) > _LEAST_VOX).any(axis=0))
    if not moved.any():
        return None
    shape = (moved.shape[0], moved.shape[1], moved.shape[2])
    warp = Warp(np.eye(3), np.zeros(3), (0, 0, 0), shape, field)
    new_label, new_instances = _moved_labels(canvas.label[box], canvas.instances[box], warp)
    moved &= ~np.isin(new_label, canvas.host.labels.untouchable)  # what stays is not drawn out either
    values = canvas.device.run(
        lambda image, moved: warp_image(image, replace(warp, displacement_vox=moved)),
        [canvas.values(box)],
        [field],
    )
    saved = canvas.save(box)
    canvas.displace(
        box,
        values,
        moved,
        new_label,
        new_instances,
        _moved_source(canvas.source[box], field),
    )
    return saved, strength


def _anchored(canvas: Canvas, box: Box) -> NDArray[np.bool_]:
    """What does not move: all that is outside the body, protected labels, the faces of the volume."""
    anchored = (canvas.host.tissue[box] == OUTSIDE) | canvas.host.untouchable[box]
    for axis, (span, n) in enumerate(zip(box, canvas.grid.shape, strict=True)):
        faces = np.moveaxis(anchored, axis, 0)
        if n > 1 and span.start == 0:
            faces[:1] = True
        if n > 1 and span.stop == n:
            faces[-1:] = True
    return np.asarray(anchored)


def _moved_labels(
    label: NDArray[np.unsignedinteger], instances: NDArray[np.integer], warp: Warp
) -> tuple[NDArray[np.unsignedinteger], NDArray[np.integer]]:
    """Labels and lesion numbers after the warp, moved together so that they still agree."""
    there = (label > 0) | (instances > 0)
    pairs, index = np.unique(
        np.stack([label[there].astype(np.int64), instances[there].astype(np.int64)]),
        axis=1,
        return_inverse=True,
    )
    codes = np.zeros(label.shape, dtype=np.uint16)
    codes[there] = index.ravel() + 1
    new = warp_label(codes, warp)
    values, numbers = np.hstack([np.zeros((2, 1), dtype=np.int64), pairs])
    return values[new].astype(label.dtype), numbers[new].astype(instances.dtype)


def _moved_source(source: NDArray[np.uint16], field: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Source map after the displacement: of earlier edits it moves along, the host's becomes displaced."""
    index: Any = np.indices(source.shape, sparse=True)
    at = [
        np.clip(np.rint(i + moved), 0, n - 1).astype(np.intp)
        for i, moved, n in zip(index, field, source.shape, strict=True)
    ]
    taken = source[tuple(at)]
    return np.where(taken == HOST, np.uint16(DISPLACED), taken)
