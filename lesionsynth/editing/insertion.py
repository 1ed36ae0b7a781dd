"""Insert one lesion: warp, match contrast, blend, measure. Made from a Draw, without randomness."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lesionsynth.backend import modules_of
from lesionsynth.bank.store import LesionBank
from lesionsynth.domain.grid import Box, bounding_box, grown, origin_of, shape_of
from lesionsynth.domain.lesion import ChannelStats, Lesion
from lesionsynth.editing.canvas import Canvas
from lesionsynth.editing.contrast import (
    ContrastSpec,
    apply_map,
    intended_contrast,
    intensity_map,
    slope_of,
    table_of,
)
from lesionsynth.editing.geometry import warp_of
from lesionsynth.kernels.deform import Warp, warp_image, warp_label, warp_mask
from lesionsynth.kernels.distance import voxel_scale
from lesionsynth.kernels.intensity import MIN_SHELL_VOXELS, SHELL_MM, measure, shell_mask
from lesionsynth.kernels.tissue import OUTSIDE, is_solid
from lesionsynth.plugins.contracts import BlendSpec, Painter, Placed
from lesionsynth.spec import Range, Spec, words_of
from lesionsynth.units import mm_to_vox

_PLAIN = 1000.0
_ANY = 10.0
"""A ratio up to which everything passes is no limit in words."""
_UNSTATED = (ChannelStats(0.0, 1.0, 0.0, 0.0, 0.0),)
"""Of a painted lesion: there is no donor whose contrast, edge and detail it could keep."""


class CheckSpec(Spec):
    """Ratios of an inserted lesion to its donor; outside these ranges it is drawn again.

    They are judged in the channel where the donor stands out most, and recorded for all channels.
    """

    contrast: Range = (0.7, 1.4)
    """Contrast against the surroundings, after the intended scaling."""
    edge: Range = (0.7, 1.4)
    """Steepness of the border."""
    detail: Range = (0.7, 1.4)
    """High-frequency texture inside."""
    min_contrast: float = Field(default=1.0, ge=0)
    """Least difference from the surroundings, in units of the host tissue's spread, in the same channel:
    one that cannot be seen is no lesion, and its label would be wrong."""

    def methods(self) -> Iterator[str]:
        """What was asked of a lesion, where it was anything."""
        by_limits: dict[tuple[float, float], list[str]] = {}
        for name, limits in (("contrast", self.contrast), ("edge", self.edge), ("texture", self.detail)):
            if limits[0] > 0 or limits[1] < _ANY:
                by_limits.setdefault(limits, []).append(name)
        asked = [
            f"its {' or '.join(names)} was not {words_of(limits)} times what was intended"
            for limits, names in by_limits.items()
        ]
        if self.min_contrast > 0:
            asked.append(f"it stood out by less than {self.min_contrast:g} x the spread of the host's tissue")
        if asked:
            yield f"A lesion was drawn again where {' or '.join(asked)}."


@dataclass(frozen=True, eq=False)
class Insertion:
    """A lesion ready to be committed to a canvas."""

    box: Box
    values: NDArray[np.float32]
    changed: NDArray[np.bool_]
    label: NDArray[np.uint16]
    measures: dict[str, Any]


def label_on_host(canvas: Canvas, label: NDArray[np.uint16], box: Box, overlap: str) -> NDArray[np.uint16]:
    """The part of a warped label in `box` that may be written: on tissue, not on protected labels.

    With overlap "merge", voxels that are lesion already stay what they are.
    """
    host = canvas.host
    free = is_solid(host.tissue[box]) & ~host.untouchable[box]
    if overlap != "overwrite":
        free &= canvas.instances[box] == 0
    return np.where(free, label, 0).astype(np.uint16)


def placed_box(warp: Warp, centre: Sequence[int], shape: Sequence[int]) -> tuple[Box, Box]:
    """Where a warped crop lies on the host, cut to the volume: box of the host, box of the crop."""
    on_host, in_crop = [], []
    for low, size, c, n in zip(warp.lower, warp.shape, centre, shape, strict=True):
        start, stop = max(0, c + low), min(n, c + low + size)
        on_host.append(slice(start, max(start, stop)))
        in_crop.append(slice(start - c - low, max(start, stop) - c - low))
    return (on_host[0], on_host[1], on_host[2]), (in_crop[0], in_crop[1], in_crop[2])


def make_insertion(
    canvas: Canvas,
    lesion: Lesion,
    draw: dict[str, Any],
    *,
    blend: BlendSpec,
    contrast: ContrastSpec,
    overlap: str,
    bank: LesionBank,
    painter: Painter | None = None,
) -> Insertion | None:
    """Warp, match and blend a lesion as `draw` says.

    Parameters
    ----------
    canvas : Canvas
        Is not changed.
    lesion : Lesion
    draw : dict
        With "pose", "centre_vox", "contrast", "blend" and "seed".
    blend, contrast, overlap
        Of the step.
    bank : LesionBank
        Knows the whole-image statistics of donor and host.
    painter : callable, optional
        Paints a lesion that has no image of its own. Of `contrast`, only brightness and noise apply to it:
        there is no donor to be like.

    Returns
    -------
    Insertion or None
        None where nothing of the label is left on the host.
    """
    grid, host = canvas.grid, canvas.host
    warp = warp_of(lesion, draw["pose"], grid, blend.reach_mm(grid.spacing_mm) + 2 * max(grid.spacing_mm))
    box, crop = placed_box(warp, draw["centre_vox"], grid.shape)
    label = label_on_host(canvas, warp_label(lesion.label, warp)[crop], box, overlap)
    mask = label > 0
    if not mask.any():
        return None
    before = canvas.values(box)
    allowed = is_solid(host.tissue[box]) & ~host.untouchable[box]
    allowed &= warp_mask(lesion.rim, warp)[crop] & (canvas.instances[box] == 0)
    allowed |= mask
    shell_values, spread = surroundings(canvas, box, mask)
    image, stats, adds = lesion.image, lesion.info.channels, lesion.on_host
    if painter is not None:
        image, stats, adds = painter(Placed(canvas, box, label)), _UNSTATED * len(spread), True
    if adds:
        maps = [{"scale": [s * draw["contrast"]["brightness"]], "offset": [0.0]} for s in spread]
        intended = [how["scale"][0] * s.contrast for how, s in zip(maps, stats, strict=True)]
    else:
        maps = intensity_map(
            draw["contrast"],
            contrast.factor_limits,
            stats,
            shell_values,
            spread,
            (bank.case(lesion.info.case).quantiles, bank.case(canvas.case).quantiles),
            host.channels,
            host.has_one_tissue,
        )
        intended = [
            intended_contrast(draw["contrast"], *channel)
            for channel in zip(maps, stats, shell_values, strict=True)
        ]
    alpha = blend.alpha(mask, allowed, grid.spacing_mm)
    if (alpha[mask] < 0.5).any():
        raise ValueError(f"blend {blend.kind} gives a label voxel less than half of the lesion")

    def join(before: Any, image: Any, table: Any, noise: Any, alpha: Any, allowed: Any, moved: Any) -> Any:
        """Composite and lesion image of each channel, (C, 2, i, j, k)."""
        xp, _ = modules_of(before)
        if painter is None:
            bent = replace(warp, displacement_vox=moved if warp.displacement_vox is not None else None)
            image = warp_image(image, bent)[(slice(None), *crop)]
        donor = apply_map(image, table) + noise
        if adds:
            donor = donor + before
        composite = blend.compose(before, donor, alpha, allowed, draw["blend"], grid.spacing_mm)
        return xp.stack([composite, donor], axis=1)

    joined = canvas.device.run(
        join,
        [before, image, table_of(maps), _noise(draw, spread, mask.shape)],
        [alpha, allowed, np.zeros(0) if warp.displacement_vox is None else warp.displacement_vox],
    )
    values, donor = joined[:, 0], joined[:, 1]
    changed = alpha > 0
    if blend.spreads:
        around = (host.tissue[box] != OUTSIDE) & ~host.untouchable[box] & (canvas.instances[box] == 0)
        changed |= around & (values != before).any(axis=0)
        values = np.where(changed, values, before)
    read = canvas.as_stored(values, changed)
    measures = _measures(read, mask, allowed, grid.spacing_mm, stats, maps, shell_values, intended)
    if painter is not None:
        measures["lead_channel"] = int(np.argmax(np.abs(image[:, mask].mean(axis=1))))
    measures["contrast_kept"] = _kept(before[:, mask], donor[:, mask], read[:, mask])
    lead = measures["lead_channel"]
    # On its host a lesion is what it adds: the place itself may be unlike its surroundings.
    seen = (read - before)[lead][mask].mean() if adds else measures["contrast_achieved"][lead]
    measures["visible"] = visibility(float(seen), spread[lead], host.images[lead].step)
    return Insertion(box, values, changed, label, measures)


def _noise(draw: dict[str, Any], spread: Sequence[float], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Noise that is added to the lesion image, (C, i, j, k), or (C, 1, 1, 1) of zeros."""
    strength = draw["contrast"].get("noise", 0.0) * np.array(spread, dtype=np.float32)[:, None, None, None]
    if not strength.any():
        return strength
    rng = np.random.default_rng(draw["seed"])
    return np.asarray(rng.standard_normal((len(spread), *shape), dtype=np.float32) * strength)


def _kept(
    before: NDArray[np.float32], donor: NDArray[np.float32], after: NDArray[np.float32]
) -> list[float | None]:
    """Share of the change from host to lesion image that the blend has kept, per channel of (C, N)."""
    wanted = (donor - before).mean(axis=1, dtype=np.float64)
    found = (after - before).mean(axis=1, dtype=np.float64)
    return [round(float(f / w), 4) if w else None for f, w in zip(found, wanted, strict=True)]


def surroundings(
    canvas: Canvas,
    box: Box,
    mask: NDArray[np.bool_],
    values: Callable[[Box], NDArray[np.float32]] | None = None,
) -> tuple[list[float], list[float]]:
    """Median of clean tissue around a lesion, and spread of the host's tissue, per channel.

    `values` gives the intensities of a box (C, i, j, k), by default those of the canvas.
    """
    spacing = canvas.grid.spacing_mm
    own = bounding_box(mask)
    assert own is not None
    reach = mm_to_vox(SHELL_MM[1] * voxel_scale(spacing), spacing)
    offset = origin_of(box)
    lesion_box = tuple(slice(s.start + o, s.stop + o) for s, o in zip(own, offset, strict=True))
    wide = grown((lesion_box[0], lesion_box[1], lesion_box[2]), reach, canvas.grid.shape)
    placed = np.zeros(shape_of(wide), dtype=bool)
    placed[
        tuple(slice(s.start - w.start, s.stop - w.start) for s, w in zip(lesion_box, wide, strict=True))
    ] = mask[own]
    clean = canvas.host.clean_in(wide) & (canvas.instances[wide] == 0)
    shell = shell_mask(placed, clean, spacing)
    stats = canvas.host.tissue_stats
    if np.count_nonzero(shell) < MIN_SHELL_VOXELS:
        return [median for median, _ in stats], [spread for _, spread in stats]
    around = (values or canvas.values)(wide)
    return [float(np.median(channel[shell])) for channel in around], [spread for _, spread in stats]


def _measures(
    values: NDArray[np.float32],
    mask: NDArray[np.bool_],
    allowed: NDArray[np.bool_],
    spacing_mm: Sequence[float],
    donor: Sequence[ChannelStats],
    maps: Sequence[dict[str, list[float]]],
    shell: Sequence[float],
    intended_contrasts: Sequence[float],
) -> dict[str, Any]:
    """Contrast, edge and detail of the inserted lesion relative to what was intended, per channel."""
    found = measure(values, mask, allowed, spacing_mm)
    ratios: dict[str, Any] = {
        "lead_channel": lead_channel(donor),
        "contrast": [],
        "edge": [],
        "detail": [],
    }
    for c, (stats, wanted) in enumerate(zip(donor, intended_contrasts, strict=True)):
        slope = slope_of(maps[c], stats.mean)
        own = slope * stats.contrast
        # In another tissue than its own the donor's edge and detail are not what is wanted.
        elsewhere = abs(wanted - own) > 1e-3 * abs(own) + 1e-6 * abs(slope * stats.mean)
        kept = 0.0 if elsewhere else slope
        for name, value, intended in (
            ("contrast", found.mean[c] - shell[c], wanted if elsewhere else own),
            ("edge", found.edge[c], kept * stats.edge),
            ("detail", found.detail[c], kept * stats.detail),
        ):
            ratios[name].append(round(float(value / intended), 4) if intended else None)
    ratios["contrast_achieved"] = [round(float(m - s), 6) for m, s in zip(found.mean, shell, strict=True)]
    return ratios


def lead_channel(donor: Sequence[ChannelStats]) -> int:
    """The channel in which a donor stands out most."""
    return int(np.argmax([abs(s.contrast) / s.tissue_mad if s.tissue_mad > 0 else 0.0 for s in donor]))


def visibility(contrast: float, spread: float, step: float) -> float:
    """Contrast in units of the tissue's spread, at most `_PLAIN`, which any contrast is on flat tissue.

    Where intensities are stored in steps, no tissue is flatter than half of one.
    """
    spread = max(spread, step / 2)
    if spread > 0:
        return round(min(abs(contrast) / spread, _PLAIN), 4)
    return _PLAIN if contrast else 0.0


def passes(measures: dict[str, Any], check: CheckSpec) -> str | None:
    """Name of the measure that is out of its range, or None."""
    if measures["visible"] < check.min_contrast:
        return "visibility"
    lead = measures["lead_channel"]
    for name in ("contrast", "edge", "detail"):
        ratio = measures[name][lead]
        low, high = getattr(check, name)
        if ratio is not None and not low <= ratio <= high:
            return name
    return None
