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
from lesionsynth.kernels.texture import clone_texture
from lesionsynth.kernels.tissue import GREY, WHITE
from lesionsynth.plugins.contracts import FillSpec, Streams
from lesionsynth.units import MM3_PER_ML

_REACH_VOX = 12
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
        Of the choice of texture patches.

    Returns
    -------
    dict or None
        The draw, as JSON; None where nothing around could be used (nothing is changed then).
    """
    host = canvas.host
    lesion_box = canvas.boxes[instance]
    own_box = bounding_box(canvas.instances[lesion_box] == instance)
    if own_box is None:
        return None
    reach = (_REACH_VOX,) * 3
    box = grown(shifted(own_box, origin_of(lesion_box)), reach, canvas.grid.shape)
    own = canvas.instances[box] == instance
    others = (canvas.instances[box] > 0) & ~own
    tissue = np.isin(host.tissue[box], (GREY, WHITE)) & ~host.untouchable[box]
    region = own | (dilated(own, fill.grow_vox) & tissue & ~others)
    grown_region = region
    if not host.has_tissue_classes:
        halo, lead = _halo(canvas, box, own, region)
        region = region | (halo & tissue & ~others)
    # Around other lesions lies their partial-volume rim: no source, or it would be drawn into the fill.
    usable = tissue & ~dilated(own | others, fill.grow_vox) & ~region
    clean = host.clean_away(fill.grow_vox).copy()
    clean[box] &= ~region
    preferred = usable & (host.tissue[box] == WHITE)
    if not host.has_tissue_classes:
        clean &= _alike(host, clean, box, region)
        preferred &= clean[box]
    for source in (preferred, usable):
        within_reach = reachable(region, source)
        if within_reach[own].mean() >= _LEAST_REACHED:
            break
    else:
        return None
    spacing = canvas.grid.spacing_mm
    before = canvas.values(box)
    filled = fill.fill(before, within_reach, source, spacing)
    region = within_reach | own
    # Voxels joined to the rest by a corner only, or shut in by fluid, take what was filled nearest to them.
    missed = own & ~within_reach
    if missed.any():
        nearest = _nearest(within_reach | source, spacing)
        filled[:, missed] = filled[(slice(None), *(index[missed] for index in nearest))]
    draw: dict[str, Any] = {"edit": "remove", "lesion": instance, "seed": seed}
    if fill.texture == "clone":
        filled, draw["texture"] = clone_texture(
            host.all_values,
            filled,
            region,
            clean,
            spacing,
            lambda image, hole, known: fill.fill(image, hole, known, spacing),
            np.random.default_rng(seed),
            mirror_axis=canvas.grid.axis_towards(0) if host.has_tissue_classes else None,
            box=box,
        )
    if not host.has_tissue_classes:  # the halo belongs to one channel, the others show what is there
        kept = region & ~grown_region
        for channel in range(len(filled)):
            if channel != lead:
                filled[channel][kept] = before[channel][kept]
    draw["volume_mm3"] = canvas.volume_mm3(instance)
    canvas.remove(box, filled, region, instance, _labels_below(canvas, box, own))
    return draw


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
    ring = dilated(region, _RING_VOX) & clean[box]
    alike = np.ones(clean.shape, dtype=bool)
    if ring.any():
        for whole in host.all_values:
            around = whole[box][ring]
            reach = _ALIKE_SPREADS * robust_spread(around)
            smooth = ndimage.uniform_filter(whole, 3)
            alike &= np.abs(smooth - np.median(around)) <= reach
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
            self.rejected["no clean tissue to fill from"] += 1
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
