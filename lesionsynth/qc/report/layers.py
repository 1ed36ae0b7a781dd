"""Pictures in layers for the viewer of the report: host, what differs in the copy, outlines as paths."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesionsynth.qc.pictures.mosaic import png_bytes
from lesionsynth.qc.pictures.pair import Pair
from lesionsynth.qc.pictures.panels import grey
from lesionsynth.qc.pictures.slices import Cut, Orientation, cut_of


@dataclass(frozen=True)
class Layers:
    """Slices of one plane, tiled row by row in one picture a layer.

    Parameters
    ----------
    columns, rows, count : int
        Tiles side by side, tiles below each other, and how many of them hold a slice.
    size_vox : tuple of int
        Width and height of a tile.
    aspect : float
        Width over height in mm.
    host, copy : str
        Data URIs of PNG files; the copy is transparent where it looks as the host does.
    outlines : tuple of (str, str, str)
        Paths of kept, removed and added lesions for each slice, in voxels of a tile.
    start : int
        Slice that is shown first.
    """

    columns: int
    rows: int
    count: int
    size_vox: tuple[int, int]
    aspect: float
    host: str
    copy: str
    outlines: tuple[tuple[str, str, str], ...]
    start: int = 0


def layers_of(pair: Pair, cuts: Sequence[Cut], start: int = 0) -> Layers:
    """Layers of cuts of one size."""
    orientation = Orientation.of(pair.grid)
    slices = [
        tuple(
            grey(pair.image.scaled(cut_of(raw, orientation, cut)), pair.window)
            for raw in (pair.image.raw, pair.copy)
        )
        for cut in cuts
    ]
    masks = (pair.edits.kept, pair.edits.removed, pair.edits.added)
    outlines = [tuple(outline(cut_of(mask, orientation, cut)) for mask in masks) for cut in cuts]
    height, width = slices[0][0].shape
    columns = math.ceil(math.sqrt(len(cuts) * height / width)) or 1
    host = tiled([pictures[0] for pictures in slices], columns)
    copy = tiled([pictures[1] for pictures in slices], columns)
    return Layers(
        columns=columns,
        rows=-(-len(cuts) // columns),
        count=len(cuts),
        size_vox=(width, height),
        aspect=cuts[0].size_mm[1] / cuts[0].size_mm[0],
        host=data_uri(Image.fromarray(host)),
        copy=data_uri(Image.fromarray(np.stack([copy, 255 * (copy != host).astype(np.uint8)], axis=2))),
        outlines=tuple((kept, removed, added) for kept, removed, added in outlines),
        start=start,
    )


def tiled(pictures: Sequence[NDArray[np.uint8]], columns: int) -> NDArray[np.uint8]:
    """Pictures of one size, (rows, columns) each, row by row in one; black where there are none left."""
    height, width = pictures[0].shape
    sheet = np.zeros((-(-len(pictures) // columns) * height, columns * width), np.uint8)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = picture
    return sheet


def outline(mask: NDArray[np.bool_]) -> str:
    """The border of a mask along the edges of its pixels, as the path of an SVG."""
    if not mask.any():
        return ""
    padded = np.pad(mask, 1)
    lines = [
        *(f"M{a} {row}h{b - a}" for row, a, b in _runs(padded[1:, 1:-1] != padded[:-1, 1:-1])),
        *(f"M{column} {a}v{b - a}" for column, a, b in _runs((padded[1:-1, 1:] != padded[1:-1, :-1]).T)),
    ]
    return "".join(lines)


def _runs(edges: NDArray[np.bool_]) -> list[tuple[int, int, int]]:
    """Row, first column and the column after the last of each run of true values in the rows of an array."""
    steps = np.diff(np.pad(edges, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(steps == 1)
    _, ends = np.nonzero(steps == -1)
    return list(zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=True))


def data_uri(image: Image.Image) -> str:
    """A picture as the address of itself."""
    return f"data:image/png;base64,{base64.b64encode(png_bytes(image)).decode()}"
