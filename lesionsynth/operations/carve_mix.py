"""CarveMix: lesions of another case, with a margin of random width, in the place they come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lesionsynth.domain.grid import Box, Grid, grown, origin_of, shape_of
from lesionsynth.domain.lesion import LesionInfo
from lesionsynth.editing.canvas import Canvas
from lesionsynth.editing.contrast import (
    CONTRAST_METHODS,
    ContrastSpec,
    apply_map,
    draw_contrast,
    intensity_map,
    table_of,
)
from lesionsynth.editing.insertion import lead_channel, surroundings, visibility
from lesionsynth.errors import LesionsynthError
from lesionsynth.host import LoadedCase
from lesionsynth.kernels.carve import carved, carved_of_all, carving_box, deepest_mm, deepest_of_all_mm
from lesionsynth.kernels.deform import Warp, warp_image, warp_label, warp_mask
from lesionsynth.kernels.tissue import OUTSIDE, is_solid
from lesionsynth.plugins.contracts import Donors, Draw, OperationSpec, StepContext, StepReport
from lesionsynth.plugins.registry import register
from lesionsynth.spec import Probability

_SAME_VOX = 0.05
_SPLINE_VOX = (3, 3, 3)
_OUTSIDE = "lands outside of the host's tissue"
_CROP_VOX = (1, 1, 1)

Donor = dict[str, LesionInfo]
"""Lesions of one case by name."""


@dataclass(frozen=True, eq=False)
class Carving:
    """A piece of a donor on the host's grid."""

    box: Box
    values: NDArray[np.float32]
    region: NDArray[np.bool_]
    label: NDArray[np.uint16]


@register("operations")
class CarveMix(OperationSpec):
    """Carve the lesions out of another case and put them into the host at the same place (CarveMix).

    With D the signed distance to a lesion (negative inside) and m the depth of its deepest voxel, a limit
    is drawn, half of the time from U(-m/2, 0), half from U(0, m). The region D < limit takes image and
    label of the donor.

    In the published form one limit holds for all lesions of a donor, so that small ones vanish where it is
    negative; here each lesion has its own. The donor is never of the host's subject and never without
    lesions; it is brought to the host's grid through world coordinates, by flips and permutations of axes
    where these are enough; intensities are matched to the host's surroundings; voxels outside of either
    body, and protected labels, stay the host's.

    References
    ----------
    Zhang et al., CarveMix: a simple data augmentation method for brain lesion segmentation, MICCAI 2021,
    doi:10.1007/978-3-030-87193-2_19; NeuroImage 271, 2023, doi:10.1016/j.neuroimage.2023.120041.
    """

    kind: Literal["carve_mix"] = "carve_mix"
    mode: Literal["per_lesion", "compatible"] = "per_lesion"
    """per_lesion: a limit for each lesion, and the corrections above; compatible: voxels and labels as the
    authors' script gives them for the same pair and limit (one limit, grids of equal shape taken voxel by
    voxel, intensities as they are, distances to label 1, every label taken along)."""
    donors: int = Field(default=1, ge=1, le=100)
    """Donor cases of one copy."""
    contrast: Literal["shell", "ratio", "host_lesions", "zscore", "histogram", "absolute"] = "shell"
    """How intensities are brought to the host, as in `contrast` of populate; not used for compatible."""
    inside: Probability = 0.6
    """Least share of a lesion that must come to lie in the host's tissue, else it is left out; not used for
    compatible."""
    min_contrast: float = Field(default=1.0, ge=0)
    """Least difference of a lesion from its surroundings, in units of the host tissue's spread and in the
    channel where the donor stands out most, else it is left out; not used for compatible."""
    tries: int = Field(default=10, ge=1, le=1000)
    """Cases that are tried in place of a donor that gives nothing."""

    def methods(self) -> Iterator[str]:
        """Intensities are matched in one mode only."""
        whose = "another case" if self.donors == 1 else f"{self.donors} other cases"
        yield (
            f"Lesions of {whose} were carved out with a margin of random width and put into the same place "
            f"of the host (CarveMix [@zhang2021; @zhang2023], mode {self.mode})."
        )
        if self.mode == "per_lesion":
            yield CONTRAST_METHODS[self.contrast]

    def apply(self, canvas: Canvas, context: StepContext) -> StepReport:
        """Draw donors and limits, and carve."""
        draws: list[Draw] = []
        rejected: dict[str, int] = {}
        cases = _donor_cases(context.donors, canvas)
        used: set[str] = set()
        for number in range(self.donors):
            rng = context.streams("carve", number)
            left = sorted(set(cases) - used)
            chosen = [left[int(k)] for k in rng.permutation(len(left))][: self.tries]
            if not chosen:
                _count(rejected, "no donor case with lesions")
            for case in chosen:
                used.add(case)
                found = list(self._from(canvas, context, case, cases[case], rng, rejected))
                draws += found
                if found:
                    break
        return StepReport(draws, rejected)

    def replay(self, canvas: Canvas, context: StepContext, draws: list[Draw]) -> None:
        """Carve the same lesions with the same limits."""
        for draw in draws:
            donor = _load(context.donors, draw["case"])
            if draw["donor"]["lesion"] is None:
                carving = carve_whole(canvas, donor, draw["lambda_mm"])
            else:
                lesions = _donor_cases(context.donors, canvas).get(draw["case"], {})
                info = lesions.get(draw["donor"]["lesion"])
                if info is None:
                    raise LesionsynthError(
                        f"the record names the lesion {draw['donor']['lesion']}, which is no donor here.",
                        case=canvas.case,
                    )
                carving = self._carve(canvas, context, donor, info, draw)
            if isinstance(carving, str):
                raise LesionsynthError("a recorded lesion finds no tissue in its host.", case=canvas.case)
            canvas.replace(carving.box, carving.values, carving.region, carving.label)

    def _from(
        self,
        canvas: Canvas,
        context: StepContext,
        case: str,
        lesions: Donor,
        rng: np.random.Generator,
        rejected: dict[str, int],
    ) -> Iterator[Draw]:
        """Carve what this donor gives; the draws of what was committed."""
        grid = context.donors.bank.case(case).grid
        if self.mode == "compatible" and grid.shape != canvas.grid.shape:
            _count(rejected, "grid of another shape")
            return
        donor = _load(context.donors, case)
        common: Draw = {"edit": "insert", "case": case, "subject": donor.files.subject}
        if self.mode == "compatible":
            if not (donor.label == 1).any():  # the script's distances mean nothing then
                _count(rejected, "no voxel of label 1")
                return
            depth = deepest_of_all_mm(donor.label, canvas.grid.spacing_mm)
            draw = {**common, "donor": {"lesion": None}, "lambda_mm": draw_limit_mm(rng, depth)}
            yield from self._commit(canvas, carve_whole(canvas, donor, draw["lambda_mm"]), draw, rejected)
            return
        own = context.donors.bank.of_case(canvas.host.files.subject, canvas.case)
        labels, boxes = donor.lesions
        for info in lesions.values():
            box = grown(boxes[info.component - 1], _CROP_VOX, donor.grid.shape)
            depth = deepest_mm(labels[box] == info.component, donor.grid.spacing_mm)
            draw = {
                **common,
                "donor": {"lesion": info.lesion},
                "lambda_mm": draw_limit_mm(rng, depth),
                "contrast": draw_contrast(ContrastSpec(kind=self.contrast), info, own, rng),
            }
            yield from self._commit(canvas, self._carve(canvas, context, donor, info, draw), draw, rejected)

    def _commit(
        self, canvas: Canvas, carving: Carving | str, draw: Draw, rejected: dict[str, int]
    ) -> Iterator[Draw]:
        if isinstance(carving, str):
            _count(rejected, carving)
            return
        canvas.replace(carving.box, carving.values, carving.region, carving.label)
        lesion = np.isin(carving.label[carving.region], canvas.host.labels.lesion)
        volume = float(np.count_nonzero(lesion)) * canvas.grid.voxel_volume_mm3
        yield {**draw, "volume_mm3": round(volume, 6)}

    def _carve(
        self, canvas: Canvas, context: StepContext, donor: LoadedCase, info: LesionInfo, draw: Draw
    ) -> Carving | str:
        """One lesion with its margin on the host, or why it is left out."""
        host, number = canvas.host, info.component
        spacing, shape = donor.grid.spacing_mm, donor.grid.shape
        wide = carving_box(donor.lesions[1][number - 1], draw["lambda_mm"], spacing, shape)
        crop = grown(wide, _SPLINE_VOX, shape)
        placed = onto_host(donor.grid, canvas.grid, crop)
        if placed is None:
            return _OUTSIDE
        box, warp = placed
        piece = carved(donor.lesions[0][crop] == number, draw["lambda_mm"], spacing)
        label = warp_label(np.ascontiguousarray(donor.label[crop]), warp)
        taken = warp_mask(piece & (donor.tissue[crop] != OUTSIDE) & ~donor.untouchable[crop], warp)
        region = taken & (host.tissue[box] != OUTSIDE) & ~host.untouchable[box]
        region &= ~np.isin(label, host.labels.untouchable)  # between grids a few voxels of these come along
        lesion = region & np.isin(label, host.labels.lesion)
        whole_mm3 = np.count_nonzero(piece & donor.lesion_mask[crop]) * donor.grid.voxel_volume_mm3
        kept_mm3 = np.count_nonzero(lesion & is_solid(host.tissue[box])) * canvas.grid.voxel_volume_mm3
        if kept_mm3 == 0 or kept_mm3 < self.inside * whole_mm3:
            return _OUTSIDE
        shell, spread = surroundings(canvas, box, lesion)
        bank = context.donors.bank
        maps = intensity_map(
            draw["contrast"],
            ContrastSpec().factor_limits,
            info.channels,
            shell,
            spread,
            (bank.case(info.case).quantiles, bank.case(canvas.case).quantiles),
            host.channels,
            host.has_one_tissue,
        )
        values = canvas.device.run(
            lambda image, table: apply_map(warp_image(image, warp), table),
            [donor.values(crop), table_of(maps)],
        )
        lead = lead_channel(info.channels)
        read = canvas.as_stored(values, region)
        contrast = float(read[lead][lesion].mean(dtype=np.float64)) - shell[lead]
        if visibility(contrast, spread[lead], host.images[lead].step) < self.min_contrast:
            return "visibility out of range"
        return Carving(box, values, region, label)


def draw_limit_mm(rng: np.random.Generator, deepest_mm: float) -> float:
    """Limit of the signed distance: half of the time U(-m/2, 0), half U(0, m), m the greatest depth."""
    position = float(rng.uniform(-1.0, 1.0))
    return position * deepest_mm * (0.5 if position < 0 else 1.0)


def carve_whole(canvas: Canvas, donor: LoadedCase, limit_mm: float) -> Carving | str:
    """All labels of a donor as the authors' script carves them: equal to it bit for bit.

    Parameters
    ----------
    canvas : Canvas
        Its grid's shape is the donor's; its voxel sizes count, as they do in the script.
    donor : LoadedCase
    limit_mm : float

    Returns
    -------
    Carving or str
        Why there is none, where the region is empty.
    """
    box, region = carved_of_all(donor.label, limit_mm, canvas.grid.spacing_mm)
    if not region.any():
        return _OUTSIDE
    return Carving(box, donor.values(box), region, donor.label[box])


def onto_host(donor: Grid, host: Grid, crop: Box) -> tuple[Box, Warp] | None:
    """Where a crop of a donor lies on the host's grid in the world; None where it lies beyond it.

    Returns
    -------
    box : Box
        Of the host.
    warp : Warp
        From the voxels of `box` to those of the crop. Exact where the grids differ by flips, permutations
        of axes and whole voxels, to within 0.05 voxels.
    """
    matrix = np.linalg.inv(donor.affine) @ host.affine
    whole = np.rint(matrix)
    ends = np.vstack([np.array(np.meshgrid(*[(0, n - 1) for n in host.shape])).reshape(3, -1), np.ones(8)])
    if abs(np.linalg.det(whole[:3, :3])) == 1.0 and np.abs((matrix - whole) @ ends).max() < _SAME_VOX:
        matrix = whole
    corners = np.array(np.meshgrid(*[(s.start, s.stop - 1) for s in crop])).reshape(3, -1)
    reached = (np.linalg.inv(matrix) @ np.vstack([corners, np.ones(8)]))[:3]
    lower = np.maximum(np.floor(reached.min(axis=1) + _SAME_VOX).astype(int), 0)
    upper = np.minimum(np.ceil(reached.max(axis=1) - _SAME_VOX).astype(int) + 1, host.shape)
    if (lower >= upper).any():
        return None
    i, j, k = (slice(int(a), int(b)) for a, b in zip(lower, upper, strict=True))
    centre = matrix[:3, :3] @ lower + matrix[:3, 3] - origin_of(crop)
    return (i, j, k), Warp(matrix[:3, :3], centre, (0, 0, 0), shape_of((i, j, k)))


def _donor_cases(donors: Donors, canvas: Canvas) -> dict[str, Donor]:
    """Cases with lesions of other subjects than the host's, sorted, and what the bank knows of them."""
    subject = canvas.host.files.subject
    key = ("carve_mix", subject)
    if key not in donors.cache:
        cases: dict[str, Donor] = {}
        for info in donors.bank.infos(sorted(set(donors.subjects) - {subject})):
            if info.channels:
                cases.setdefault(info.case, {})[info.lesion] = info
        donors.cache[key] = cases
    found: dict[str, Donor] = donors.cache[key]
    return found


def _load(donors: Donors, case: str) -> LoadedCase:
    assert donors.load is not None
    return donors.load(case)


def _count(rejected: dict[str, int], reason: str) -> None:
    rejected[reason] = rejected.get(reason, 0) + 1
