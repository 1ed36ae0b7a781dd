"""Remove one lesion: fill its place from the tissue around it and restore what lies below."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from lesionsynth.domain.grid import Box, bounding_box, grown, origin_of, shifted
from lesionsynth.domain.load import LoadTarget
from lesionsynth.editing.canvas import Canvas
from lesionsynth.host import LoadedCase
from lesionsynth.kernels.components import dilated
from lesionsynth.kernels.inpaint import reachable
from lesionsynth.kernels.intensity import robust_spread
from lesionsynth.kernels.texture import add_texture
from lesionsynth.kernels.tissue import GREY, WHITE
from lesionsynth.plugins.contracts import FillSpec, Streams, Surroundings
from lesionsynth.units import MM3_PER_ML

NOT_REMOVED = "no clean tissue to fill from"
"""Why a lesion that was to go is still there."""

# Voxels around the grown place in which it is filled: farther ones have no say in any fill.
_REACH_VOX = 7
_LEAST_REACHED = 0.9
# A lesion may shine so many voxels beyond its grown place.
_HALO_VOX = 6
# It does so in channels where it stands out by so many spreads of the tissue beyond: layer by layer it falls
# at least so much, until hardly any of it is left, or what may be chance: two errors of a layer's median.
# What does not fade to a quarter within reach is none.
_HALO_SPREADS = 1.5
_HALO_FALL = 0.95
_HALO_LEAST = 0.02
_HALO_SURE = 2.5
_HALO_FADED = 0.25
_RING_VOX = 3
_ALIKE_SPREADS = 2.5


def remove_lesion(canvas: Canvas, instance: int, fill: FillSpec, seed: int) -> dict[str, Any] | None:
    """Fill the place of one lesion and commit it.

    Parameters
    ----------
    canvas : Canvas
    instance : int
        Lesion to be removed.
    fill : FillSpec
    seed : int
        Of the texture.

    Returns
    -------
    dict or None
        The draw, as JSON; None where nothing around could be used (nothing is changed then). `filled` tells
        how many voxels were filled in which way, by a fill that has several; `halo` by how many voxels more
        the place was grown in each channel, where any was.
    """
    own_box = bounding_box(canvas.instances[canvas.boxes[instance]] == instance)
    if own_box is None:
        return None
    place = _Place(canvas, instance, shifted(own_box, origin_of(canvas.boxes[instance])), fill.grow_vox)
    before = canvas.values(place.box)
    extents = place.extents(before)
    if extents is None:
        return None
    rng = np.random.default_rng(seed)
    used: dict[str, Counter[str]] = {"filled": Counter(), "texture": Counter()}
    filled, regions = before.copy(), np.zeros(before.shape, dtype=bool)
    for extent in extents:
        made = _filled(canvas, place, extent, fill, before, rng, used)
        filled[extent.channels] = made[extent.channels]
        regions[extent.channels] = extent.region
    draw: dict[str, Any] = {"edit": "remove", "lesion": instance, "seed": seed}
    draw |= {name: dict(counts) for name, counts in used.items() if counts}
    if any(extent.halo_vox for extent in extents):
        halos = {channel: extent.halo_vox for extent in extents for channel in extent.channels}
        draw["halo"] = [halos[channel] for channel in range(len(before))]
    draw["volume_mm3"] = canvas.volume_mm3(instance)
    canvas.remove(place.box, filled, regions, instance, _labels_below(canvas, place.box, place.own))
    return draw


def _filled(
    canvas: Canvas,
    place: _Place,
    extent: _Extent,
    fill: FillSpec,
    before: NDArray[np.float32],
    rng: np.random.Generator,
    used: dict[str, Counter[str]],
) -> NDArray[np.float32]:
    """All channels with an extent of the place filled; how that was done is added to `used`."""
    box, region, spacing = place.box, extent.region, canvas.grid.spacing_mm
    around = Surroundings(canvas.host.all_values, extent.tissue, box, lambda: canvas.host.mirror_matrix)

    def filling(
        image: NDArray[np.float32],
        hole: NDArray[np.bool_],
        known: NDArray[np.bool_],
        around: Surroundings | None = None,
    ) -> NDArray[np.float32]:
        def attempt(parts: Any, hole: Any, known: Any) -> Any:
            if around is not None:
                around.used.clear()  # of an attempt that a GPU was too small for
            return fill.fill(parts[0], hole, known, spacing, around)[None]

        # Channels are filled jointly, so all of them are one part.
        return canvas.device.run(attempt, [image[None]], [hole, known])[0]

    filled = filling(before, extent.within_reach, extent.source, around)
    # Voxels joined to the rest by a corner only, or shut in by fluid, take what was filled nearest to them.
    missed = place.own & ~extent.within_reach
    if missed.any():
        nearest = _nearest(extent.within_reach | extent.source, spacing)
        filled[:, missed] = filled[(slice(None), *(index[missed] for index in nearest))]
    filled, texture = add_texture(
        texture_of(fill, canvas.host),
        canvas.host.all_values,
        filled,
        region,
        extent.clean,
        spacing,
        filling,
        rng,
        mirror_axis=canvas.grid.axis_towards(0) if canvas.host.has_tissue_classes else None,
        box=box,
    )
    used["filled"].update(around.used)
    used["texture"].update(texture)
    # Noise and cloned detail come on top of the fill; no tissue around is darker or brighter.
    low, high = (bound(before[:, extent.source], axis=1)[:, None] for bound in (np.min, np.max))
    filled[:, region] = np.clip(filled[:, region], low, high)
    return filled


def texture_of(fill: FillSpec, host: LoadedCase) -> str:
    """The texture that `auto` stands for: a clone of tissue, where that can be told from other tissue."""
    if fill.texture != "auto":
        return fill.texture
    return "noise" if host.has_one_tissue else "clone"


@dataclass(frozen=True, eq=False)
class _Extent:
    """What is filled at the place of a lesion in some channels, and from where.

    Parameters
    ----------
    channels : list of int
    halo_vox : int
        By how much the place was grown beyond what annotations leave out.
    region, within_reach, source : ndarray of bool, shape of the place's box
        What is filled; what of the lesion grown the sources reach; the sources.
    clean, tissue : ndarray of bool, shape of the volume
        White matter to take texture from, and white and grey matter to copy; shared, not to be changed.
    """

    channels: list[int]
    halo_vox: int
    region: NDArray[np.bool_]
    within_reach: NDArray[np.bool_]
    source: NDArray[np.bool_]
    clean: NDArray[np.bool_]
    tissue: NDArray[np.bool_]


class _Place:
    """The place of one lesion.

    Attributes
    ----------
    box : Box
    own : ndarray of bool, shape of `box`
        The lesion.
    """

    def __init__(self, canvas: Canvas, instance: int, own_box: Box, grow_vox: int) -> None:
        self._host, self._grow_vox = canvas.host, grow_vox
        margin = (grow_vox + _REACH_VOX + (0 if self._host.has_tissue_classes else _HALO_VOX),) * 3
        self.box = box = grown(own_box, margin, canvas.grid.shape)
        codes, instances = self._host.tissue[box], canvas.instances[box]
        self.own = instances == instance
        self._others = (instances > 0) & ~self.own
        self._tissue = ((codes == WHITE) | (codes == GREY)) & ~self._host.untouchable[box]
        self._free = self._tissue & (instances == 0)

    def extents(self, values: NDArray[np.float32]) -> list[_Extent] | None:
        """What is filled, channels of one extent together; None where the sources reach too little.

        A halo with too little tissue beyond it goes as far as there is enough.
        """
        waiting: dict[int, list[int]] = defaultdict(list)
        for channel, width in enumerate(self._halo_widths(values)):
            waiting[width].append(channel)
        found = []
        for width in range(max(waiting), -1, -1):
            if not (channels := waiting[width]):
                continue
            if (extent := self._extent(width, channels)) is not None:
                found.append(extent)
            elif width == 0:
                return None
            else:
                waiting[width - 1] += channels
        return found

    def _extent(self, halo_vox: int, channels: list[int]) -> _Extent | None:
        """Of the lesion grown within tissue, away from other lesions.

        Grey matter is a source beside white matter where fluid is told from both. Where one code covers all
        tissue, what looks like the surroundings is tried first.
        """
        host, box, grow_vox = self._host, self.box, self._grow_vox + halo_vox
        grown_place = self._grown(self.own, grow_vox) & self._free
        if halo_vox and self._others.any():
            # Between two lesions each has its half of what shines there.
            spacing = host.grid.spacing_mm
            own, others = (distance_transform_edt(~m, spacing) for m in (self.own, self._others))
            grown_place &= (own < others) | self._grown(self.own, self._grow_vox)
        region = self.own | grown_place
        # Around other lesions lies their partial-volume rim: no source, or it would be drawn into the fill.
        rims = self._grown(self.own | self._others, grow_vox) if self._others.any() else region
        usable = self._tissue & ~rims & ~region
        clean = tissue = host.clean_away(grow_vox)
        if host.has_tissue_classes:
            tissue, sources = host.clean_away(grow_vox, grey=True), [usable]
        else:
            clean = tissue = clean & _alike(host, clean, box, region, channels)
            sources = [usable & clean[box], usable]
        for source in sources:
            within_reach = reachable(region, source)
            if within_reach[self.own].mean() >= _LEAST_REACHED:
                # What continues the surroundings may be grey matter; what is laid over a fill may not.
                whole = within_reach | self.own
                clean, tissue = (_without(whole, mask, box) for mask in (clean, tissue))
                return _Extent(channels, halo_vox, whole, within_reach, source, clean, tissue)
        return None

    def _grown(self, mask: NDArray[np.bool_], n_vox: int) -> NDArray[np.bool_]:
        return dilated(mask, n_vox, self._host.grid.spacing_mm)

    def _halo_widths(self, values: NDArray[np.float32]) -> list[int]:
        """By how many voxels a lesion shines beyond its grown place in each channel, as by the blur of PET.

        Outwards from its label such a channel falls, layer by layer, from the lesion to the tissue beyond.
        Only for data without tissue classes: where they are known, the cortex beside a bright lesion must not
        be taken for its halo.
        """
        widths = [0] * len(values)
        if self._host.has_tissue_classes:
            return widths
        layers, within = [], self.own
        for reach in range(1, self._grow_vox + _HALO_VOX + 1):
            wider = self._grown(self.own, reach)
            layers.append(self._free & wider & ~within)
            within = wider
        beyond = self._free & ~within
        if not beyond.any():
            return widths
        for number, channel in enumerate(values):
            level, spread = float(np.median(channel[beyond])), robust_spread(channel[beyond])
            contrast = float(channel[self.own].mean()) - level
            if abs(contrast) <= _HALO_SPREADS * spread:
                continue
            before, width = 1.0, 0
            for n, layer in enumerate(layers, start=1):
                inside = channel[layer]
                if not inside.size:
                    break
                left = (float(np.median(inside)) - level) / contrast
                chance = _HALO_SURE * spread / np.sqrt(inside.size) / abs(contrast)
                if not max(_HALO_LEAST, chance) < left < _HALO_FALL * before:
                    break
                before, width = left, n
            if before <= _HALO_FADED:  # else it is an organ that is brighter than what lies beyond
                widths[number] = max(0, width - self._grow_vox)
        return widths


def _without(region: NDArray[np.bool_], mask: NDArray[np.bool_], box: Box) -> NDArray[np.bool_]:
    """`mask` of the volume without `region`: `mask` itself, unless later lesions or halos meet it."""
    if mask[box][region].any():
        mask = mask.copy()
        mask[box] &= ~region
    return mask


def _alike(
    host: LoadedCase,
    clean: NDArray[np.bool_],
    box: Box,
    region: NDArray[np.bool_],
    channels: Sequence[int],
) -> NDArray[np.bool_]:
    """Voxels whose intensities are those that prevail around the region: muscle for muscle, no bone, no fat.

    Where one tissue code covers all tissue, fills and patches of texture would bring other anatomy along.
    """
    ring = dilated(region, _RING_VOX) & clean[box] & ~region
    alike = np.ones(clean.shape, dtype=bool)
    if ring.any():
        for channel in channels:
            around, smooth = host.all_values[channel][box][ring], host.smooth_values[channel]
            alike &= np.abs(smooth - np.median(around)) <= _ALIKE_SPREADS * robust_spread(around)
    return alike


def _labels_below(canvas: Canvas, box: Box, own: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """Label under a removed lesion: the nearest organ where it lies in or at one, background elsewhere."""
    label = canvas.label[box]
    organ = np.isin(label, canvas.host.labels.organ)
    touching = dilated(own, 1) & organ
    background = min(canvas.host.labels.of_role("background"), default=0)
    if not touching.any():
        return np.full(label.shape, background, dtype=np.uint16)
    return np.asarray(label[tuple(_nearest(organ, canvas.grid.spacing_mm))])


def _nearest(mask: NDArray[np.bool_], spacing_mm: Sequence[float]) -> NDArray[np.int32]:
    """Indices (3, i, j, k) of the true voxel nearest to each voxel."""
    return np.asarray(
        distance_transform_edt(~mask, sampling=spacing_mm, return_distances=False, return_indices=True)
    )


class Removals:
    """Removes lesions of one canvas, one by one, and keeps account.

    Parameters
    ----------
    canvas : Canvas
    fill : FillSpec
    streams : Streams
        Of the step; the order and each lesion's texture have streams of their own.
    """

    def __init__(self, canvas: Canvas, fill: FillSpec, streams: Streams) -> None:
        self.canvas, self.fill, self.streams = canvas, fill, streams
        self.draws: list[dict[str, Any]] = []
        self.rejected: Counter[str] = Counter()

    def order(self, choose: str = "random") -> list[int]:
        """Lesions in the order in which they are to go: random, smallest or largest first."""
        instances = sorted(self.canvas.boxes)
        shuffled = [instances[int(k)] for k in self.streams("remove").permutation(len(instances))]
        if choose in ("smallest", "largest"):
            shuffled.sort(key=self.canvas.volume_mm3, reverse=choose == "largest")
        return shuffled

    def take(self, instance: int) -> None:
        """Remove one lesion."""
        seed = int(self.streams("texture", instance).integers(2**31))
        draw = remove_lesion(self.canvas, instance, self.fill, seed)
        if draw is None:
            self.rejected[NOT_REMOVED] += 1
        else:
            self.draws.append(draw)

    def lower_load(self, order: list[int], target: LoadTarget) -> None:
        """Remove lesions in `order` until the load is not above the target.

        Lesions whose removal would lead below it are left for last, and of these the smallest goes first,
        so that the target is met where it can be and is missed by little where it cannot.
        """
        canvas, waiting = self.canvas, []
        for instance in order:
            if canvas.load_ml > target.high_ml:
                if canvas.load_ml - canvas.volume_mm3(instance) / MM3_PER_ML < target.low_ml:
                    waiting.append(instance)
                else:
                    self.take(instance)
        for instance in sorted(waiting, key=canvas.volume_mm3):
            if canvas.load_ml > target.high_ml:
                self.take(instance)

    def keep_within(self, order: list[int], target: LoadTarget) -> None:
        """As :meth:`lower_load` where nothing is added afterwards: what fits into the target is kept.

        Lesions that are above it alone go first. They have to go whatever else does, and small ones that were
        taken before would be taken for nothing.
        """
        large = [i for i in order if self.canvas.volume_mm3(i) / MM3_PER_ML > target.high_ml]
        for instance in large:
            self.take(instance)
        self.lower_load([i for i in order if i not in large], target)
