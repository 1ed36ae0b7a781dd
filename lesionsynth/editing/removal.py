"""Remove one lesion: fill its place from the tissue around it and restore what lies below."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

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

# Voxels around the grown place in which it is filled: farther ones have no say in any fill.
NOT_REMOVED = "no clean tissue to fill from"
"""Why a lesion that was to go is still there."""

_REACH_VOX = 7
_LEAST_REACHED = 0.9
_HALO_VOX = 6
_HALO_SPREADS = 3.0
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
        how many voxels were filled in which way, by a fill that has several.
    """
    own_box = bounding_box(canvas.instances[canvas.boxes[instance]] == instance)
    if own_box is None:
        return None
    place = _Place(canvas, instance, shifted(own_box, origin_of(canvas.boxes[instance])), fill)
    reached = place.reached()
    if reached is None:
        return None
    box, own, spacing = place.box, place.own, canvas.grid.spacing_mm
    within_reach, source = reached
    region = within_reach | own
    # What continues the surroundings may be grey matter; what is laid over a fill may not.
    clean, tissue = (_without(region, mask, box) for mask in (place.clean, place.tissue))
    around = Surroundings(canvas.host.all_values, tissue, box, lambda: canvas.host.mirror_matrix)

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

    before = canvas.values(box)
    filled = filling(before, within_reach, source, around)
    # Voxels joined to the rest by a corner only, or shut in by fluid, take what was filled nearest to them.
    missed = own & ~within_reach
    if missed.any():
        nearest = _nearest(within_reach | source, spacing)
        filled[:, missed] = filled[(slice(None), *(index[missed] for index in nearest))]
    draw: dict[str, Any] = {"edit": "remove", "lesion": instance, "seed": seed}
    if around.used:
        draw["filled"] = dict(around.used)
    filled, texture = add_texture(
        texture_of(fill, canvas.host),
        canvas.host.all_values,
        filled,
        region,
        clean,
        spacing,
        filling,
        np.random.default_rng(seed),
        mirror_axis=canvas.grid.axis_towards(0) if canvas.host.has_tissue_classes else None,
        box=box,
    )
    if texture:
        draw["texture"] = texture
    # Noise and cloned detail come on top of the fill; no tissue around is darker or brighter.
    low, high = (bound(before[:, source], axis=1)[:, None] for bound in (np.min, np.max))
    filled[:, region] = np.clip(filled[:, region], low, high)
    place.keep_other_channels(filled, before, region)
    draw["volume_mm3"] = canvas.volume_mm3(instance)
    canvas.remove(box, filled, region, instance, _labels_below(canvas, box, own))
    return draw


def texture_of(fill: FillSpec, host: LoadedCase) -> str:
    """The texture that `auto` stands for: a clone of tissue, where that can be told from other tissue."""
    if fill.texture != "auto":
        return fill.texture
    return "noise" if host.tissue_kind == "mask" else "clone"


class _Place:
    """The place of one lesion: what is to be filled there, and from where.

    Attributes
    ----------
    box : Box
    own, region : ndarray of bool, shape of `box`
        The lesion, and what is to be filled: the lesion grown within tissue, away from other lesions.
    usable : ndarray of bool, shape of `box`
        Tissue that it may be filled from.
    clean, tissue : ndarray of bool, shape of the volume
        White matter to take texture from, and white and grey matter to copy; shared, not to be changed.
    """

    def __init__(self, canvas: Canvas, instance: int, own_box: Box, fill: FillSpec) -> None:
        host = canvas.host
        self.classes = host.has_tissue_classes
        margin = (fill.grow_vox + _REACH_VOX + (0 if self.classes else _HALO_VOX),) * 3
        self.box = box = grown(own_box, margin, canvas.grid.shape)
        instances, codes = canvas.instances[box], host.tissue[box]
        self.own = instances == instance
        others = (instances > 0) & ~self.own
        tissue = ((codes == WHITE) | (codes == GREY)) & ~host.untouchable[box]
        free = tissue & ~others
        self.region = self.grown_region = self.own | (dilated(self.own, fill.grow_vox) & free)
        self.lead = 0
        if not self.classes:
            halo, self.lead = _halo(canvas, box, self.own, self.region)
            self.region = self.region | (halo & free)
        # Around other lesions lies their partial-volume rim: no source, or it would be drawn into the fill.
        rims = dilated(instances > 0, fill.grow_vox) if others.any() else self.grown_region
        self.usable = tissue & ~rims & ~self.region
        self.clean = self.tissue = host.clean_away(fill.grow_vox)
        if self.classes:
            self.tissue = host.clean_away(fill.grow_vox, grey=True)
        else:
            self.clean = self.tissue = self.clean & _alike(host, self.clean, box, self.region)

    def reached(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
        """What of the region the sources reach, and the sources; None where they reach too little.

        Grey matter is a source beside white matter where fluid is told from both. Where one code covers all
        tissue, what looks like the surroundings is tried first.
        """
        for source in [self.usable] if self.classes else [self.usable & self.clean[self.box], self.usable]:
            within_reach = reachable(self.region, source)
            if within_reach[self.own].mean() >= _LEAST_REACHED:
                return within_reach, source
        return None

    def keep_other_channels(
        self, filled: NDArray[np.float32], before: NDArray[np.float32], region: NDArray[np.bool_]
    ) -> None:
        """Give the halo back to all channels but the one it was found in: they show what is there."""
        halo = region & ~self.grown_region
        for channel in range(len(filled)):
            if channel != self.lead:
                filled[channel][halo] = before[channel][halo]


def _without(region: NDArray[np.bool_], mask: NDArray[np.bool_], box: Box) -> NDArray[np.bool_]:
    """`mask` of the volume without `region`: `mask` itself, unless later lesions or halos meet it."""
    if mask[box][region].any():
        mask = mask.copy()
        mask[box] &= ~region
    return mask


def _halo(
    canvas: Canvas, box: Box, own: NDArray[np.bool_], region: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], int]:
    """What shines out of a lesion beyond the grown region, such as the blur of PET, and in which channel.

    Voxels joined to the region and near it that differ from the case's tissue in the same direction as the
    lesion, in the channel where it stands out most. Only for data without tissue classes: where they are
    known, the cortex beside a bright lesion must not be taken for its halo.
    """
    stats = canvas.host.tissue_stats
    values = canvas.values(box)
    contrast = [
        (float(channel[own].mean()) - median) / spread if spread > 0 else 0.0
        for channel, (median, spread) in zip(values, stats, strict=True)
    ]
    lead = int(np.argmax(np.abs(contrast)))
    median, spread = stats[lead]
    shining = (values[lead] - median) * np.sign(contrast[lead]) > _HALO_SPREADS * spread
    reached = ndimage.binary_dilation(region, iterations=_HALO_VOX, mask=region | shining)
    return np.asarray(reached & ~region), lead


def _alike(
    host: LoadedCase, clean: NDArray[np.bool_], box: Box, region: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Voxels whose intensities are those that prevail around the region: muscle for muscle, no bone, no fat.

    Where one tissue code covers all tissue, fills and patches of texture would bring other anatomy along.
    """
    ring = dilated(region, _RING_VOX) & clean[box] & ~region
    alike = np.ones(clean.shape, dtype=bool)
    if ring.any():
        for whole, smooth in zip(host.all_values, host.smooth_values, strict=True):
            around = whole[box][ring]
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
        ndimage.distance_transform_edt(
            ~mask, sampling=spacing_mm, return_distances=False, return_indices=True
        )
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
