"""Layers of the viewer: outlines by hand, and a copy that is transparent where it is the host."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lesionsynth.qc.pictures.slices import cut_of_box
from lesionsynth.qc.report.layers import layers_of, outline, tiled
from tests.qc.pictures.test_panels import ALL, pair

__all__ = ["pair"]


def opened(uri: str) -> np.ndarray:
    head, _, data = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def filled(path: str, shape: tuple[int, int]) -> np.ndarray:
    """The mask that a path encloses, by the even-odd rule along the rows."""
    crossings = np.zeros((shape[0], shape[1] + 1), int)
    for column, row, length in re.findall(r"M(\d+) (\d+)v(\d+)", path):
        crossings[int(row) : int(row) + int(length), int(column)] += 1
    return np.cumsum(crossings, axis=1)[:, :-1] % 2 == 1


def test_the_outline_of_a_square() -> None:
    mask = np.zeros((4, 5), bool)
    mask[1:3, 2:4] = True
    assert outline(mask) == "M2 1h2M2 3h2M2 1v2M4 1v2"
    assert outline(np.zeros((4, 5), bool)) == ""
    assert outline(np.ones((1, 1), bool)) == "M0 0h1M0 1h1M0 0v1M1 0v1"


@settings(max_examples=60)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**36 - 1))
def test_an_outline_encloses_its_mask(height: int, width: int, bits: int) -> None:
    mask = np.array([bits >> n & 1 for n in range(height * width)], bool).reshape(height, width)
    path = outline(mask)
    assert np.array_equal(filled(path, mask.shape), mask)
    across = sum(int(n) for n in re.findall(r"h(\d+)", path))
    padded = np.pad(mask, 1)
    assert across == np.count_nonzero(padded[1:] != padded[:-1])


def test_pictures_are_laid_out_row_by_row() -> None:
    sheet = tiled([np.full((2, 3), n, np.uint8) for n in (1, 2, 3)], 2)
    assert sheet.shape == (4, 6)
    assert sheet[::2, ::3].tolist() == [[1, 2], [3, 0]]


def test_the_copy_shows_only_where_it_differs(pair) -> None:  # type: ignore[no-untyped-def]
    cuts = [cut_of_box(pair.grid, (0, 0, k), "axial", ALL) for k in (8, 12, 16)]
    made = layers_of(pair, cuts, start=1)
    assert (made.count, made.columns, made.rows, made.start) == (3, 2, 2, 1)
    assert (made.size_vox, made.aspect) == ((24, 24), 1.0)
    host, copy = opened(made.host), opened(made.copy)
    assert host.shape == (48, 48)
    assert copy.shape == (48, 48, 2)
    seen = copy[..., 1] == 255
    over = np.where(seen, copy[..., 0], host)
    for number, k in enumerate((8, 12, 16)):
        tile = (slice(24 * (number // 2), None), slice(24 * (number % 2), None))
        turned = (pair.copy[:, :, k] != pair.image.raw[:, :, k])[::-1, ::-1].T
        assert np.array_equal(seen[tile][:24, :24], turned)
        expected = np.rint(pair.copy[:, :, k][::-1, ::-1].T * 2.55)
        assert np.abs(over[tile][:24, :24] - expected).max() <= 1
        kept, removed, added = made.outlines[number]
        masks = (pair.edits.kept, pair.edits.removed, pair.edits.added)
        for path, mask in zip((kept, removed, added), masks, strict=True):
            assert np.array_equal(filled(path, (24, 24)), mask[:, :, k][::-1, ::-1].T)
