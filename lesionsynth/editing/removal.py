"""Remove one lesion: fill its place from the tissue around it and restore what lies below."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lesionsynth.domain.grid import Box, bounding_box, grown, origin_of, shifted
from lesionsynth.domain.load import LoadTarget
from lesionsynth.editing.canvas import Canvas
from lesionsynth.kernels.components import dilated
from lesionsynth.kernels.inpaint import reachable
from lesionsynth.kernels.texture import clone_texture
from lesionsynth.kernels.tissue import GREY, WHITE
from lesionsynth.plugins.contracts import FillSpec, Streams
from lesionsynth.units import MM3_PER_ML

_REACH_VOX = 8


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
    # Around other lesions lies their partial-volume rim: no source, or it would be drawn into the fill.
    usable = tissue & ~dilated(own | others, fill.grow_vox)
    for source in (usable & (host.tissue[box] == WHITE), usable):
        within_reach = reachable(region, source)
        if within_reach[own].all():
            break
    else:
        return None
    region = within_reach
    spacing = canvas.grid.spacing_mm
    filled = fill.fill(canvas.values(box), region, source, spacing)
    draw: dict[str, Any] = {"edit": "remove", "lesion": instance, "seed": seed}
    if fill.texture == "clone":
        clean = host.clean_away(fill.grow_vox).copy()
        clean[box] &= ~region
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
    draw["volume_mm3"] = canvas.volume_mm3(instance)
    canvas.remove(box, filled, region, instance, _labels_below(canvas, box, own))
    return draw


def _labels_below(canvas: Canvas, box: Box, own: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """Label under a removed lesion: the nearest organ where it lies in or at one, background elsewhere."""
    label = canvas.label[box]
    organ = np.isin(label, canvas.host.labels.organ)
    touching = dilated(own, 1) & organ
    background = min(canvas.host.labels.of_role("background"), default=0)
    if not touching.any():
        return np.full(label.shape, background, dtype=np.uint16)
    nearest = ndimage.distance_transform_edt(
        ~organ, sampling=canvas.grid.spacing_mm, return_distances=False, return_indices=True
    )
    return np.asarray(label[tuple(nearest)])


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
