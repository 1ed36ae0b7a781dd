"""How a donor is turned, flipped, scaled and bent before it is placed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from lesionsynth.domain.grid import Grid, bounding_box
from lesionsynth.domain.lesion import Lesion
from lesionsynth.kernels.deform import Warp, draw_control_mm, warp_onto, world_matrix
from lesionsynth.spec import Growth, Probability, Range, Spec
from lesionsynth.units import mm_to_vox


class RotateSpec(Spec):
    """Rotation about the world axes."""

    method: ClassVar[str] = (
        "Rotation was by {degrees} degrees to either side, with probability {p} for each axis."
    )

    p: Probability = 0.5
    """Probability for each axis."""
    degrees: Range = (0.0, 30.0)
    """Angle, to either side."""


class ScaleSpec(Spec):
    """Change of size."""

    method: ClassVar[str] = "Scale factors were {factor}, with probability {p}."

    p: Probability = 0.5
    """Probability, for each axis where `per_axis`."""
    factor: Growth = (0.8, 1.25)
    """Factor on the length. Beyond about 0.7 to 1.4 the texture gives a lesion away."""
    per_axis: bool = True
    """Draw a factor for each axis, or one for all."""
    fit: Growth = (0.8, 1.25)
    """Bounds of the extra factor by which the last lesion is made to fit the target load."""


class ElasticSpec(Spec):
    """Smooth random bending."""

    method: ClassVar[str] = (
        "They were bent by cubic B-splines with control points {spacing_mm} mm apart, displaced by "
        "{magnitude_mm} mm (standard deviation), with probability {p}."
    )

    p: Probability = 0.0
    """Probability."""
    spacing_mm: float = Field(default=8.0, ge=1)
    """Distance of the control points."""
    magnitude_mm: Range = (0.5, 1.5)
    """Standard deviation of the control points' displacement; halved where space would fold."""


class GeometrySpec(Spec):
    """How a donor is turned, flipped, scaled and bent: all in one interpolation, about its centre."""

    method: ClassVar[str] = (
        "Lesions were brought to the host's grid, and changed in shape, by one interpolation with cubic "
        "B-splines [@unser1999], after smoothing where the host's voxels are larger [@cardoso2015]."
    )

    flip: Probability = 0.5
    """Probability of a flip along each world axis."""
    rotate: RotateSpec = RotateSpec()
    scale: ScaleSpec = ScaleSpec()
    elastic: ElasticSpec = ElasticSpec()

    def methods_of_parts(self, *but: str) -> Iterator[str]:
        """Those that may happen."""
        if self.flip > 0:
            yield f"Flips were along each axis with probability {self.flip:g}."
        never = [name for name in ("rotate", "scale", "elastic") if getattr(self, name).p == 0]
        yield from super().methods_of_parts(*but, *never)


def draw_geometry(spec: GeometrySpec, lesion: Lesion, rng: np.random.Generator, grid: Grid) -> dict[str, Any]:
    """Draw a pose, as JSON; on the grid of a few slices one that stays in their plane."""
    flips = [bool(v) for v in rng.random(3) < spec.flip]
    turned = rng.random(3) < spec.rotate.p
    angles = rng.uniform(*spec.rotate.degrees, size=3) * rng.choice((-1.0, 1.0), size=3)
    scaled = rng.random(3) < spec.scale.p
    factors = np.exp(rng.uniform(np.log(spec.scale.factor[0]), np.log(spec.scale.factor[1]), size=3))
    if not spec.scale.per_axis:
        scaled, factors = np.repeat(scaled[0], 3), np.repeat(factors[0], 3)
    pose: dict[str, Any] = {
        "flips": flips,
        "rotation_deg": [float(a) if t else 0.0 for a, t in zip(angles, turned, strict=True)],
        "scale": [float(f) if s else 1.0 for f, s in zip(factors, scaled, strict=True)],
        "fit": 1.0,
        "elastic": None,
    }
    if rng.random() < spec.elastic.p:
        magnitude = float(rng.uniform(*spec.elastic.magnitude_mm))
        extent = [n * s * 1.25 for n, s in zip(lesion.label.shape, lesion.info.spacing_mm, strict=True)]
        control = draw_control_mm(rng, extent, spec.elastic.spacing_mm, magnitude)
        pose["elastic"] = {"spacing_mm": spec.elastic.spacing_mm, "control_mm": control.tolist()}
    for axis in grid.flat_axes:
        _keep_in_plane(pose, grid.world_axes[axis][0], lesion)
    return pose


def _keep_in_plane(pose: dict[str, Any], across: int, lesion: Lesion) -> None:
    """Neither turn out of the plane across a world axis, nor scale or bend along it."""
    pose["rotation_deg"] = [a if axis == across else 0.0 for axis, a in enumerate(pose["rotation_deg"])]
    pose["scale"][across] = 1.0
    if pose["elastic"] is not None:
        axes = np.reshape(lesion.info.axes_mm, (3, 3))
        along = int(np.argmax(np.abs(axes[across]) / np.linalg.norm(axes, axis=0)))
        control = np.array(pose["elastic"]["control_mm"])
        control[along] = 0.0
        pose["elastic"]["control_mm"] = control.tolist()


def warp_of(lesion: Lesion, pose: dict[str, Any], grid: Grid, margin_mm: float) -> Warp:
    """The resampling that a pose stands for, of the lesion and `margin_mm` around it (a voxel at least)."""
    world = world_matrix(pose["flips"], pose["rotation_deg"], [s * pose["fit"] for s in pose["scale"]])
    body = bounding_box(lesion.label > 0)
    assert body is not None
    elastic = pose["elastic"]
    bend_mm = 0.0 if elastic is None else float(np.abs(elastic["control_mm"]).max())
    return warp_onto(
        np.reshape(lesion.info.axes_mm, (3, 3)),
        grid.affine[:3, :3],
        world,
        [c - o for c, o in zip(lesion.info.centre_vox, lesion.info.origin_vox, strict=True)],
        body,
        [max(1, m) for m in mm_to_vox(margin_mm + bend_mm, grid.spacing_mm)],
        None if elastic is None else np.array(elastic["control_mm"]),
        1.0 if elastic is None else elastic["spacing_mm"],
    )
