"""One cut of a pair in colours: host, copy, what differs, outlines of lesions, where voxels come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from lesionsynth.domain.grid import Grid
from lesionsynth.editing.canvas import DISPLACED, FIRST_DONOR, INPAINTED, TRANSLATED, inserted
from lesionsynth.qc.pictures.pair import Pair
from lesionsynth.qc.pictures.slices import Cut, Orientation, cut_of

_Any = TypeVar("_Any", bound=np.generic)
Rgb = NDArray[np.uint8]
"""A picture, (rows, columns, 3)."""

# Okabe and Ito's colours, which the colour-blind tell apart too.
KEPT, ADDED, REMOVED = (86, 180, 233), (230, 159, 0), (204, 121, 167)
_DONORS = ((230, 159, 0), (0, 158, 115), (240, 228, 66), (86, 180, 233), (213, 94, 0))
_FILLED, _MOVED, _PAINTED = (204, 121, 167), (150, 150, 150), (0, 114, 178)
_FRAME = (255, 255, 255)
_DIM = 0.45
_THIN_PX = 100
"""Smaller pictures have outlines of one pixel, larger ones of two."""
_FULL_DIFFERENCE = 0.5
"""Share of the window at which a difference is shown in full colour."""


class Panels:
    """Draws cuts of one pair, all at the same size.

    Parameters
    ----------
    pair : Pair
    longest_px : int
        Longest edge of a picture. Voxels are shown as they are, never interpolated where they are enlarged.
    """

    def __init__(self, pair: Pair, longest_px: int) -> None:
        self.pair = pair
        self._orientation = Orientation.of(pair.grid)
        self._longest_px = longest_px
        self._line_px = 1 if longest_px < _THIN_PX else 2

    def size(self, cut: Cut) -> tuple[int, int]:
        """Rows and columns of the picture of a cut."""
        return picture_size(cut, self._longest_px)

    def host(self, cut: Cut) -> Rgb:
        """The host in grey."""
        return _rgb(grey(self._values(self.pair.image.raw, cut), self.pair.window))

    def copy(self, cut: Cut) -> Rgb:
        """The copy in grey."""
        return _rgb(grey(self._values(self.pair.copy, cut), self.pair.window))

    def difference(self, cut: Cut) -> Rgb:
        """Copy minus host over the dimmed host: orange where it is brighter, blue where darker."""
        low, high = self.pair.window
        change = (self._values(self.pair.copy, cut) - self._values(self.pair.image.raw, cut)) / (high - low)
        weight = np.clip(np.abs(np.nan_to_num(change)) / _FULL_DIFFERENCE, 0.0, 1.0)[..., None] ** 0.5
        colour = np.where(change[..., None] > 0, np.array(ADDED), np.array(KEPT))
        dimmed = _DIM * self.host(cut)
        return np.asarray(dimmed * (1 - weight) + colour * weight, dtype=np.uint8)

    def outlined(self, cut: Cut) -> Rgb:
        """The copy with the outlines of kept, added and removed lesions."""
        picture = self.copy(cut)
        for edge, colour in self.outlines(cut):
            picture[edge] = colour
        return picture

    def outlines(self, cut: Cut) -> list[tuple[NDArray[np.bool_], tuple[int, int, int]]]:
        """Outlines of kept, removed and added lesions with their colours."""
        edits = self.pair.edits
        masks = ((edits.kept, KEPT), (edits.removed, REMOVED), (edits.added, ADDED))
        return [(edge_of(self._cut(mask, cut), self._line_px), colour) for mask, colour in masks]

    def source(self, cut: Cut) -> Rgb:
        """Where voxels come from, over the dimmed copy: donors in turn, what was filled, moved or painted."""
        picture = (_DIM * self.copy(cut)).astype(np.uint8)
        if self.pair.edits.source is None:
            return picture
        source = self._cut(self.pair.edits.source, cut)
        donors = np.array(_DONORS, dtype=np.uint8)
        made = inserted(source)
        picture[made] = donors[(source[made].astype(int) - FIRST_DONOR) % len(donors)]
        picture[source == INPAINTED] = _FILLED
        picture[source == DISPLACED] = _MOVED
        painted = source == TRANSLATED  # all of a brain, as a rule: what lies below is to be seen
        picture[painted] = (0.5 * picture[painted] + 0.5 * np.array(_PAINTED)).astype(np.uint8)
        return picture

    def _values(self, raw: NDArray[np.generic], cut: Cut) -> NDArray[np.float32]:
        """Intensities of a cut of voxels as stored."""
        return resized(self.pair.image.scaled(cut_of(raw, self._orientation, cut)), self.size(cut))

    def _cut(self, volume: NDArray[_Any], cut: Cut) -> NDArray[_Any]:
        return resized(cut_of(volume, self._orientation, cut), self.size(cut))


KINDS: dict[str, Callable[[Panels, Cut], Rgb]] = {
    "host": Panels.host,
    "synthetic": Panels.copy,
    "difference (orange: brighter)": Panels.difference,
    "lesion outlines": Panels.outlined,
    "source map": Panels.source,
}
"""The pictures of a cut by name."""


def picture_size(cut: Cut, longest_px: int) -> tuple[int, int]:
    """Rows and columns of a cut whose longest edge is `longest_px`."""
    scale = longest_px / max(cut.size_mm)
    return max(1, round(cut.size_mm[0] * scale)), max(1, round(cut.size_mm[1] * scale))


def context(pair: Pair, whole: Cut, part: Cut, longest_px: int) -> Rgb:
    """The copy's slice, with a frame around the part that is shown enlarged."""
    panels = Panels(pair, longest_px)
    size = panels.size(whole)

    def pixel(edge: int, outer: slice, count: int) -> float:
        return (edge - outer.start) * count / (outer.stop - outer.start)

    (top, bottom), (left, right) = (
        (pixel(inner.start, outer, count), pixel(inner.stop, outer, count) - 1)
        for inner, outer, count in ((part.rows, whole.rows, size[0]), (part.columns, whole.columns, size[1]))
    )
    picture = Image.fromarray(panels.copy(whole))
    if bottom - top < size[0] - 1 or right - left < size[1] - 1:
        ImageDraw.Draw(picture).rectangle((left, top, right, bottom), outline=_FRAME)
    return np.asarray(picture)


def grey(values: NDArray[np.generic], window: tuple[float, float]) -> NDArray[np.uint8]:
    """Intensities as 8-bit grey values; what is no number is black."""
    low, high = window
    share = (np.nan_to_num(values.astype(np.float32), nan=low, posinf=high, neginf=low) - low) / (high - low)
    return np.asarray(np.clip(share, 0.0, 1.0) * 255 + 0.5, dtype=np.uint8)


def resized(picture: NDArray[_Any], size: tuple[int, int]) -> NDArray[_Any]:
    """A picture at another size, (rows, columns): voxels repeated, or averaged where it shrinks."""
    if picture.shape == size:
        return picture
    shrinks = picture.dtype.kind == "f" and (size[0] < picture.shape[0] or size[1] < picture.shape[1])
    how = Image.Resampling.BOX if shrinks else Image.Resampling.NEAREST
    kind = np.float32 if picture.dtype.kind == "f" else np.int32
    image = Image.fromarray(np.ascontiguousarray(picture.astype(kind)))
    return np.asarray(image.resize((size[1], size[0]), how)).astype(picture.dtype)


def edge_of(mask: NDArray[np.bool_], width_px: int) -> NDArray[np.bool_]:
    """Outermost pixels of a mask, inside of it; where it leaves the picture it has no edge."""
    return np.asarray(mask & ~ndimage.binary_erosion(mask, iterations=width_px, border_value=1))


def shared_width_mm(grid: Grid, extent_mm: float) -> float:
    """Width of a close-up: the lesion and as much around it, 60 mm at least."""
    widest = max(n * s for n, s in zip(grid.shape, grid.spacing_mm, strict=True))
    return min(max(60.0, 2.0 * extent_mm), widest)


def _rgb(picture: NDArray[np.uint8]) -> Rgb:
    return np.repeat(picture[..., None], 3, axis=2)
