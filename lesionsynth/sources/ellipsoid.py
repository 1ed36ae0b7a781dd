"""Bent ellipsoids with blurred-noise texture: lesions without any donor."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from lesionsynth.domain.lesion import Lesion, LesionInfo
from lesionsynth.editing.likeness import (
    Contrast,
    draw_contrast_vector,
    lesion_on_host,
    named,
    subjects_with_images,
)
from lesionsynth.errors import InputError
from lesionsynth.kernels.synthetic_lesion import (
    along_profile,
    blurred_noise,
    ellipsoid_level,
    lowest,
    signed_distance_mm,
)
from lesionsynth.plugins.contracts import Donors, Draw, SourceSpec, Wanted
from lesionsynth.plugins.registry import register
from lesionsynth.spec import Probability, Range, Spec

# Voxels of the lesion's own grid: fine enough for a smooth shape, as fine as the host's where that is
# affordable.
_VOXELS_PER_RADIUS = 8
_MOST_VOXELS = 64


class SizeSpec(Spec):
    """A class of sizes."""

    radius_mm: float = Field(gt=0)
    """Radius; each half axis is drawn about it."""
    weight: float = Field(default=1.0, gt=0)
    """How often, relative to the other classes that fit."""


class HaloSpec(Spec):
    """Oedema: a fading zone around the lesion, not labelled. The blend has to reach as far (width_mm)."""

    p: Probability = 0.0
    """Probability."""
    strength: Range = (0.2, 0.5)
    """Its contrast at the lesion's edge, as a share of the lesion's."""
    width_mm: Range = (3.0, 10.0)
    """Where it has faded to nothing."""


class CapsuleSpec(Spec):
    """A rim at the border, inside the label, that stands out from the lesion's body."""

    p: Probability = 0.0
    """Probability."""
    strength: Range = (0.3, 0.8)
    """Added at the rim, as a share of the lesion's contrast; negative: weaker than the body."""
    width_mm: Range = (1.0, 2.0)
    """Width of the rim."""


class CoreSpec(Spec):
    """A necrotic core."""

    p: Probability = 0.0
    """Probability."""
    strength: Range = (-0.5, 0.5)
    """Contrast of the core, as a share of the lesion's; negative: on the other side of the tissue."""
    share: Range = (0.3, 0.6)
    """Depth at which it begins, counted from the centre, as a share of the greatest depth."""


@register("sources")
class Ellipsoid(SourceSpec):
    """Bent ellipsoids of several sizes with blurred-noise texture, which need no donor.

    After SynTumor: Hu et al., Label-Free Liver Tumor Segmentation, CVPR 2023, arXiv:2303.14869.
    """

    kind: Literal["ellipsoid"] = "ellipsoid"
    method: ClassVar[str] = (
        "Lesions were bent ellipsoids with a texture of blurred noise, after SynTumor [@hu2023]; none was "
        "taken from a donor."
    )
    sizes: tuple[SizeSpec, ...] = Field(
        default=tuple(SizeSpec(radius_mm=r) for r in (4.0, 8.0, 16.0, 32.0)), min_length=1
    )
    """Classes of sizes. One is drawn among those that fit the load that is still missing."""
    factor: Range = (0.75, 1.25)
    """Half axes, relative to the radius of the class; drawn for each axis."""
    bending: float = Field(default=0.25, ge=0, le=0.5)
    """Strength of the elastic deformation: standard deviation, as a share of the radius."""
    contrast: Contrast = "auto"
    """Difference from the surroundings in units of the host tissue's spread: [low, high] for each channel;
    auto: all channels together as a real lesion of like size, the host's own where it has five."""
    edge_mm: Range = (1.0, 2.0)
    """Width of the zone outside the label over which the lesion fades into the tissue."""
    texture: Range = (0.1, 0.3)
    """Standard deviation of the texture, as a share of the contrast."""
    grain_mm: Range = (1.0, 3.0)
    """Coarseness of the texture: standard deviation of the Gaussian that blurs the noise."""
    halo: HaloSpec = HaloSpec()
    capsule: CapsuleSpec = CapsuleSpec()
    core: CoreSpec = CoreSpec()
    lesion_class: int | None = Field(default=None, gt=0)
    """Label value; without it the lowest that the lesions of the bank have."""

    @field_validator("factor", "edge_mm", "grain_mm")
    @classmethod
    def _positive(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] <= 0:
            raise ValueError(f"should be above 0, got {value[0]:g}")
        return value

    def donor_subjects(self, donors: Donors) -> frozenset[str] | None:
        """Subjects of the lesions that auto imitates."""
        return subjects_with_images(donors) if self.contrast == "auto" else None

    def draw(self, rng: np.random.Generator, donors: Donors, wanted: Wanted) -> Draw | None:
        """Draw size, look, and the seed of shape and texture."""
        size = self._draw_size(rng, donors, wanted)
        if size is None:
            return None
        drawn = draw_contrast_vector(
            self.contrast, rng, donors, wanted, size["voxels"] * size["spacing_mm"] ** 3
        )
        if drawn is None:
            return None
        contrast, like = drawn
        return {
            **size,
            "contrast": contrast,
            "look": {
                "edge_mm": float(rng.uniform(*self.edge_mm)),
                "texture": float(rng.uniform(*self.texture)),
                "grain_mm": float(rng.uniform(*self.grain_mm)),
                "halo": _draw_part(rng, self.halo, "width_mm"),
                "capsule": _draw_part(rng, self.capsule, "width_mm"),
                "core": _draw_part(rng, self.core, "share"),
            },
            "bending": self.bending,
            "class": self._class(donors),
            "seed": int(rng.integers(2**31)),
            "from": [] if like is None else [named(like)],
        }

    def lesion(self, draw: Draw, donors: Donors) -> Lesion:
        """Make shape and texture from the seed."""
        rng = np.random.default_rng(draw["seed"])
        spacing, look = draw["spacing_mm"], draw["look"]
        reach = max(draw["radii_mm"]) * (1 + 1.5 * draw["bending"]) + _fade_mm(look) + 2 * spacing
        side = 2 * math.ceil(reach / spacing) + 1
        shape = (side, side, side)
        level = ellipsoid_level(shape, spacing, draw["radii_mm"], draw["bending"], rng)
        mask = lowest(level, draw["voxels"])
        weight = _weight(signed_distance_mm(mask, (spacing,) * 3), look)
        noise = blurred_noise(rng.standard_normal(shape, dtype=np.float32), [look["grain_mm"] / spacing] * 3)
        weight *= 1 + look["texture"] * noise
        image = np.asarray(draw["contrast"], dtype=np.float32)[:, None, None, None] * weight
        info = LesionInfo(
            lesion=self.kind,
            case="",
            subject="",
            classes=(draw["class"],),
            volume_mm3=draw["voxels"] * spacing**3,
            centre_vox=(side // 2,) * 3,
            origin_vox=(0, 0, 0),
            shape_vox=shape,
            axes_mm=tuple(float(v) for v in (spacing * np.eye(3)).ravel()),
            channels=(),
            site=None,
            source_hash="",
        )
        return lesion_on_host(info, mask.astype(np.uint16) * np.uint16(draw["class"]), image)

    def _draw_size(self, rng: np.random.Generator, donors: Donors, wanted: Wanted) -> dict[str, Any] | None:
        """Half axes, and grid and number of voxels of a volume within what is wanted."""
        ball = 4 / 3 * math.pi
        fits = [
            s
            for s in self.sizes
            if ball * (s.radius_mm * self.factor[0]) ** 3 <= wanted.max_mm3
            and ball * (s.radius_mm * self.factor[1]) ** 3 >= wanted.min_mm3
        ]
        if not fits:
            return None
        weights = np.array([s.weight for s in fits])
        size = fits[int(rng.choice(len(fits), p=weights / weights.sum()))]
        radii = size.radius_mm * rng.uniform(*self.factor, size=3)
        volume = ball * float(np.prod(radii))
        volume = min(max(volume, wanted.min_mm3), wanted.max_mm3)
        radius = (volume / ball) ** (1 / 3)
        radii *= radius / np.cbrt(np.prod(radii))
        spacing = radius / _VOXELS_PER_RADIUS
        if wanted.host_case:
            finest = min(donors.bank.case(wanted.host_case).grid.spacing_mm)
            spacing = min(spacing, max(finest, 2 * float(radii.max()) / _MOST_VOXELS))
        least, most = math.ceil(wanted.min_mm3 / spacing**3), wanted.max_mm3 / spacing**3
        voxels = max(round(volume / spacing**3), least)
        if voxels > most:  # which is infinite where any size will do
            voxels = math.floor(most)
        return {"radii_mm": radii.tolist(), "spacing_mm": spacing, "voxels": voxels} if voxels > 0 else None

    def _class(self, donors: Donors) -> int:
        if self.lesion_class is not None:
            return self.lesion_class
        key = ("lowest class",)
        if key not in donors.cache:
            known = donors.bank.infos((*donors.subjects, *donors.mask_subjects))
            donors.cache[key] = min((min(info.classes) for info in known), default=0)
        value: int = donors.cache[key]
        if value == 0:
            raise InputError(
                "no lesion of the cohort says which label value a lesion has.",
                remedy="Set lesion_class of the source ellipsoid.",
            )
        return value


def _draw_part(
    rng: np.random.Generator, spec: HaloSpec | CapsuleSpec | CoreSpec, extent: str
) -> dict[str, float] | None:
    present = rng.random() < spec.p
    drawn = {
        "strength": float(rng.uniform(*spec.strength)),
        extent: float(rng.uniform(*getattr(spec, extent))),
    }
    return drawn if present else None


def _fade_mm(look: dict[str, Any]) -> float:
    """How far outside the label the lesion adds anything."""
    return float(look["edge_mm"] + (look["halo"]["width_mm"] if look["halo"] else 0.0))


def _weight(distance_mm: NDArray[np.float32], look: dict[str, Any]) -> NDArray[np.float32]:
    """Contrast at each distance from the edge, relative to that of the lesion's body."""
    halo, capsule, core, edge = look["halo"], look["capsule"], look["core"], look["edge_mm"]

    def line(knots: list[float], values: list[float]) -> NDArray[np.float32]:
        return along_profile(distance_mm, (np.array(knots), np.array([values])))[0]

    if halo:
        weight = line([0.0, edge, edge + halo["width_mm"]], [1.0, halo["strength"], 0.0])
    else:
        weight = line([0.0, edge], [1.0, 0.0])
    if capsule:
        width = capsule["width_mm"]
        weight += line([-width, -width / 2, 0.0, edge], [0.0, capsule["strength"], capsule["strength"], 0.0])
    if core:
        start = float(distance_mm.min()) * (1 - core["share"])
        weight += line([start - edge, start], [core["strength"] - 1.0, 0.0])
    return weight
