"""Remove one lesion: fill its place from the tissue around it and restore what lies below."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lesionsynth.domain.grid import Box, bounding_box, grown, origin_of, shifted
from lesionsynth.editing.canvas import Canvas
from lesionsynth.kernels.components import dilated
from lesionsynth.kernels.inpaint import reachable
from lesionsynth.kernels.texture import clone_texture
from lesionsynth.kernels.tissue import GREY, WHITE
from lesionsynth.plugins.contracts import FillSpec

_REACH_VOX = 24


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
    clean = tissue & ~dilated(own | others, fill.grow_vox)
    for source in (clean & (host.tissue[box] == WHITE), clean):
        within_reach = reachable(region, source)
        if within_reach[own].all():
            break
    else:
        return None
    region = within_reach
    before = canvas.values(box)
    spacing = canvas.grid.spacing_mm
    filled = fill.fill(before, region, source, spacing)
    draw: dict[str, Any] = {"edit": "remove", "lesion": instance, "seed": seed}
    if fill.texture == "clone":
        filled, pieces = clone_texture(
            before,
            filled,
            region,
            source,
            spacing,
            lambda image, hole, known: fill.fill(image, hole, known, spacing),
            np.random.default_rng(seed),
            mirror_axis=_mirror_axis(canvas),
        )
        draw["texture"] = pieces
    draw["volume_mm3"] = canvas.volume_mm3(instance)
    canvas.remove(box, filled, region, instance, _labels_below(canvas, box, own))
    return draw


def _mirror_axis(canvas: Canvas) -> int | None:
    """Left-right axis where the two sides may be compared: in brains."""
    return canvas.grid.axis_towards(0) if canvas.host.has_tissue_classes else None


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


def removal_order(canvas: Canvas, choose: str, rng: np.random.Generator) -> list[int]:
    """Lesions of the canvas in the order in which they are to go: random, smallest or largest first."""
    instances = sorted(canvas.boxes)
    shuffled = [instances[int(k)] for k in rng.permutation(len(instances))]
    if choose in ("smallest", "largest"):
        shuffled.sort(key=canvas.volume_mm3, reverse=choose == "largest")
    return shuffled


def lower_load(
    canvas: Canvas,
    order: list[int],
    low_ml: float,
    high_ml: float,
    fill: FillSpec,
    seed_of: Any,
    rejected: Counter[str],
) -> list[dict[str, Any]]:
    """Remove lesions in `order` until the load is at most `high_ml`.

    Lesions whose removal would lead below `low_ml` are left for last, and of these the smallest that
    suffices is taken, so that the target is met where it can be.
    """
    draws: list[dict[str, Any]] = []
    waiting: list[int] = []

    def take(instance: int) -> None:
        draw = remove_lesion(canvas, instance, fill, seed_of(instance))
        if draw is None:
            rejected["no clean tissue to fill from"] += 1
        else:
            draws.append(draw)

    for instance in order:
        if canvas.load_ml <= high_ml:
            return draws
        if canvas.load_ml - canvas.volume_mm3(instance) / 1000.0 < low_ml:
            waiting.append(instance)
        else:
            take(instance)
    for instance in sorted(waiting, key=canvas.volume_mm3):
        if canvas.load_ml <= high_ml:
            break
        if canvas.load_ml - canvas.volume_mm3(instance) / 1000.0 <= high_ml or instance == max(
            waiting, key=canvas.volume_mm3
        ):
            take(instance)
    return draws
