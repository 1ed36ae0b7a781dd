"""Cut the lesions of one case (or one mask) out, with everything that is measured of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lesionsynth import nifti
from lesionsynth.digest import digest_bytes
from lesionsynth.domain.case import MaskFile
from lesionsynth.domain.grid import Box, Grid, bounding_box, grown, origin_of, shape_of, shifted
from lesionsynth.domain.lesion import ChannelStats, Lesion, LesionInfo, Site
from lesionsynth.domain.load import LesionLoad
from lesionsynth.errors import InputError
from lesionsynth.host import LoadedCase
from lesionsynth.kernels.components import components, dilated
from lesionsynth.kernels.distance import voxel_scale
from lesionsynth.kernels.intensity import MIN_SHELL_VOXELS, SHELL_MM, measure, shell_mask
from lesionsynth.kernels.tissue import OUTSIDE, is_solid, place_of
from lesionsynth.spec import Spec
from lesionsynth.units import MM3_PER_ML, mm_to_vox

QUANTILES = np.linspace(0.0, 1.0, 257)
"""Levels at which a case's intensities are kept, for histogram matching."""


class BankSpec(Spec):
    """Which lesions are harvested, and how generously they are cropped."""

    min_volume_mm3: float = Field(default=10.0, gt=0)
    """Components below this are specks: no donors, though they count in the load."""
    min_voxels: int = Field(default=3, ge=1)
    """The same in voxels, for coarse grids."""
    at_border: Literal["skip", "keep"] = "skip"
    """Lesions that touch a face of the volume (along axes of more than three voxels): part of them was not
    seen, and elsewhere they have a flat face. skip: no donors, though they count in the load; keep them where
    volumes are cut close around lesions."""
    margin_mm: float = Field(default=5.0, ge=2.0)
    """Tissue kept around a lesion (at least three voxels), so that nothing is clipped when it turns."""

    def takes(self, box: Box, own: NDArray[np.bool_], grid: Grid) -> bool:
        """Whether a component is a donor: `own` are its voxels in its `box` of the volume."""
        count = int(np.count_nonzero(own))
        if count < self.min_voxels or count * grid.voxel_volume_mm3 < self.min_volume_mm3:
            return False
        ends = [s.start == 0 or s.stop == n for s, n in zip(box, grid.shape, strict=True)]
        cut = any(end and axis not in grid.flat_axes for axis, end in enumerate(ends))
        return self.at_border == "keep" or not cut


@dataclass(frozen=True, eq=False)
class CaseSummary:
    """What the bank knows of a whole case; `tissue`, `zones` and statistics are empty for a mask alone.

    `resampled` are the channels that had another grid. `tissue_hash` tells what tissue and zones were found,
    also where the files of the case are the same: they may come from a map beside it.
    """

    case: str
    subject: str
    grid: Grid
    load: LesionLoad
    has_images: bool
    tissue_kind: str | None
    tissue: NDArray[np.uint8] | None
    tissue_box: Box | None
    tissue_stats: list[tuple[float, float]]
    quantiles: list[list[float]]
    source_hashes: dict[str, str]
    zones: NDArray[np.uint8] | None = None
    resampled: tuple[str, ...] = ()
    tissue_hash: str = ""


def summarise(case: LoadedCase) -> CaseSummary:
    """Statistics of a case that its lesions and the fits need."""
    inside = case.tissue != OUTSIDE
    places = np.flatnonzero(inside.T)
    quantiles = [
        np.quantile(image.sample(places), QUANTILES) if places.size else QUANTILES * 0
        for image in case.images
    ]
    return CaseSummary(
        case=case.files.case,
        subject=case.files.subject,
        grid=case.grid,
        load=case.load,
        has_images=True,
        tissue_kind=case.tissue_kind,
        tissue=case.tissue,
        tissue_box=bounding_box(inside),
        tissue_stats=case.tissue_stats,
        quantiles=[q.astype(float).tolist() for q in quantiles],
        source_hashes=case.source_hashes,
        zones=case.zones,
        resampled=case.resampled,
        tissue_hash=digest_bytes(case.tissue.tobytes(), case.zones.tobytes()),
    )


def harvest(case: LoadedCase, spec: BankSpec) -> list[Lesion]:
    """Lesions of a case in the order of their components.

    A lesion near the border of the volume is taken with what margin there is. Edge and texture are
    measured within the crop.
    """
    labels, boxes = case.lesions
    spacing = case.grid.spacing_mm
    scale = voxel_scale(spacing)
    margin = tuple(max(3, m) for m in mm_to_vox(spec.margin_mm, spacing))
    reach = mm_to_vox(SHELL_MM[1] * scale, spacing)
    edge_mm, fluid_mm = case.site_distances_mm
    donors = []
    for number, box in enumerate(boxes, start=1):
        own = labels[box] == number
        if not spec.takes(box, own, case.grid):
            continue
        volume = float(own.sum()) * case.grid.voxel_volume_mm3
        stored = grown(box, margin, case.grid.shape)
        crop = grown(box, [max(m, r) for m, r in zip(margin, reach, strict=True)], case.grid.shape)
        kept = shifted(stored, [-c for c in origin_of(crop)])
        lesion = labels[crop] == number
        others = dilated(case.lesion_mask[crop] & ~lesion, 1)
        image = case.values(crop)
        rim = lesion | (is_solid(case.tissue[crop]) & ~others & ~case.untouchable[crop])
        shell = shell_mask(lesion, case.clean_tissue[crop] & ~others, spacing)
        found = measure(image, lesion, rim, spacing)
        medians = [
            float(np.median(channel[shell])) if shell.sum() >= MIN_SHELL_VOXELS else stats[0]
            for channel, stats in zip(image, case.tissue_stats, strict=True)
        ]
        nearest_edge = float(edge_mm[crop][lesion].min())
        nearest_fluid = None if fluid_mm is None else float(fluid_mm[crop][lesion].min())
        info = LesionInfo(
            lesion=f"{case.files.case}/{number:04d}",
            case=case.files.case,
            subject=case.files.subject,
            classes=tuple(int(v) for v in np.unique(case.label[crop][lesion])),
            volume_mm3=volume,
            centre_vox=centre_of(lesion, crop),
            origin_vox=origin_of(stored),
            shape_vox=shape_of(stored),
            axes_mm=axes_of(case.grid),
            channels=tuple(
                ChannelStats(median, spread, float(m), float(e), float(d))
                for median, (_, spread), m, e, d in zip(
                    medians, case.tissue_stats, found.mean, found.edge, found.detail, strict=True
                )
            ),
            site=Site(
                place_of(case.zones[crop][lesion], case.has_tissue_classes),
                nearest_edge,
                nearest_fluid,
            ),
            source_hash=case.label_image.source_hash,
        )
        label = np.where(lesion, case.label[crop], 0).astype(np.uint16)
        donors.append(Lesion(info, image[(slice(None), *kept)], label[kept], rim[kept]))
    return donors


def harvest_mask(mask: MaskFile, lesion_value: int, spec: BankSpec) -> tuple[CaseSummary, list[Lesion]]:
    """Shapes and places of a subject that is known by a binary lesion mask alone."""
    image = nifti.read(mask.path)
    values = image.values()
    if not np.isfinite(values).all():
        raise InputError(
            "the lesion mask has voxels that are NaN or infinite.", case=mask.subject, file=mask.path
        )
    labels, boxes = components(values > 0)
    grid = image.grid
    lesions = []
    for number, box in enumerate(boxes, start=1):
        own = labels[box] == number
        if not spec.takes(box, own, grid):
            continue
        volume = float(own.sum()) * grid.voxel_volume_mm3
        info = LesionInfo(
            lesion=f"{mask.name}/{number:04d}",
            case=mask.name,
            subject=mask.subject,
            classes=(lesion_value,),
            volume_mm3=volume,
            centre_vox=centre_of(own, box),
            origin_vox=origin_of(box),
            shape_vox=shape_of(box),
            axes_mm=axes_of(grid),
            channels=(),
            site=None,
            source_hash=image.source_hash,
        )
        shape = own.astype(np.uint16) * np.uint16(lesion_value)
        lesions.append(Lesion(info, np.empty((0, *own.shape), np.float32), shape, own))
    load = LesionLoad(float((labels > 0).sum()) * grid.voxel_volume_mm3 / MM3_PER_ML, len(boxes), 0.0)
    summary = CaseSummary(
        case=mask.name,
        subject=mask.subject,
        grid=grid,
        load=load,
        has_images=False,
        tissue_kind=None,
        tissue=None,
        tissue_box=None,
        tissue_stats=[],
        quantiles=[],
        source_hashes={mask.path.name: image.source_hash},
    )
    return summary, lesions


def axes_of(grid: Grid) -> tuple[float, ...]:
    """The affine's 3x3 part by rows: world millimetres per voxel step."""
    return tuple(float(v) for v in grid.affine[:3, :3].ravel())


def centre_of(mask: NDArray[np.bool_], box: Box) -> tuple[int, int, int]:
    """Voxel nearest the centre of mass, in the coordinates of the volume."""
    i, j, k = (int(np.rint(c.mean())) + o for c, o in zip(np.nonzero(mask), origin_of(box), strict=True))
    return (i, j, k)
