"""What is painted where."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lesionsynth import nifti
from lesionsynth.domain.grid import Grid
from lesionsynth.qc.pictures.mosaic import mosaic, png_bytes
from lesionsynth.qc.pictures.pair import Edits, Pair, lead_channel, places
from lesionsynth.qc.pictures.panels import ADDED, KEPT, KINDS, REMOVED, Panels, edge_of, grey, resized
from lesionsynth.qc.pictures.slices import cut_around, cut_of_box

SHAPE = (24, 24, 24)
ALL = (slice(0, 24),) * 3


def ball(centre: tuple[int, int, int], radius: float) -> np.ndarray:
    away = np.indices(SHAPE) - np.reshape(centre, (3, 1, 1, 1))
    return np.asarray((away**2).sum(axis=0) <= radius**2)


@pytest.fixture
def pair() -> Pair:
    """A lesion stays at (6, 6, 12), a larger one comes at (17, 6, 12), one goes at (6, 17, 12)."""
    stays, comes, goes = ball((6, 6, 12), 2), ball((17, 6, 12), 3), ball((6, 17, 12), 2)
    host = np.full(SHAPE, 50, np.float32)
    host[stays | goes] = 90
    copy = host.copy()
    copy[comes], copy[goes] = 90, 50
    source = np.zeros(SHAPE, np.uint16)
    source[comes], source[goes] = 2, 1
    grid = Grid(SHAPE, np.eye(4))
    inside = np.ones(SHAPE, bool)
    edits = Edits(grid, stays | goes, stays | comes, goes, inside, source)
    return Pair(edits, "FLAIR", nifti.new(grid, host), copy, (0, 100))


def whole(pair: Pair, kind: str) -> np.ndarray:
    """The axial slice 12 with one pixel a voxel, by voxel: (i, j, 3)."""
    panels = Panels(pair, 24)
    cut = cut_of_box(pair.grid, (0, 0, 12), "axial", ALL)
    return KINDS[kind](panels, cut).transpose(1, 0, 2)[::-1, ::-1]


def test_places_are_found_added_and_removed_in_turn(pair: Pair) -> None:
    found = places(pair.edits, 5)
    assert [(p.edit, p.centre_vox) for p in found] == [("added", (17, 6, 12)), ("removed", (6, 17, 12))]
    assert found[0].volume_mm3 == ball((17, 6, 12), 3).sum()
    assert found[0].extent_mm == 7
    assert places(pair.edits, 1) == found[:1]


def test_a_lesion_over_another_is_added_where_the_source_map_says_so(pair: Pair) -> None:
    assert pair.edits.source is not None
    pair.edits.source[6, 6, 12] = 3
    assert pair.edits.added[6, 6, 12]
    assert not pair.edits.kept[6, 6, 12]
    assert pair.edits.kept.sum() == ball((6, 6, 12), 2).sum() - 1


def test_host_and_copy_are_grey_in_one_window(pair: Pair) -> None:
    host, copy = whole(pair, "host"), whole(pair, "synthetic")
    assert host[17, 6].tolist() == [128, 128, 128]
    assert copy[17, 6].tolist() == [230, 230, 230]
    assert np.array_equal(host[6, 6], copy[6, 6])


def test_differences_are_orange_and_blue_and_nowhere_else(pair: Pair) -> None:
    picture = whole(pair, "difference (orange: brighter)").astype(int)
    brighter, darker, same = picture[17, 6], picture[6, 17], picture[6, 6]
    assert brighter[0] > brighter[2] + 100
    assert darker[2] > darker[0] + 50
    assert same[0] == same[1] == same[2]
    coloured = picture.max(axis=2) != picture.min(axis=2)
    assert np.array_equal(coloured, (pair.copy != pair.image.raw)[:, :, 12])


def test_outlines_have_the_colours_of_the_legend(pair: Pair) -> None:
    picture = whole(pair, "lesion outlines")
    assert tuple(picture[6, 8]) == KEPT
    assert tuple(picture[17, 9]) == ADDED
    assert tuple(picture[6, 19]) == REMOVED
    assert len(set(picture[17, 6].tolist())) == 1  # inside it is grey


def test_sources_are_coloured_and_the_rest_is_dimmed(pair: Pair) -> None:
    picture = whole(pair, "source map")
    coloured = picture.max(axis=2) != picture.min(axis=2)
    assert pair.edits.source is not None
    assert np.array_equal(coloured, pair.edits.source[:, :, 12] > 0)
    assert picture[17, 6].tolist() != picture[6, 17].tolist()
    assert picture[0, 0, 0] < whole(pair, "synthetic")[0, 0, 0]


def test_every_kind_is_drawn_at_the_size_asked_for(pair: Pair) -> None:
    cut = cut_around(pair.grid, (17, 6, 12), "coronal", 12.0)
    for draw in KINDS.values():
        picture = draw(Panels(pair, 60), cut)
        assert (picture.shape, picture.dtype) == ((60, 60, 3), np.uint8)


@pytest.mark.parametrize("dtype", [np.float32, np.uint16, np.bool_])
def test_voxels_are_repeated_where_they_are_enlarged(dtype: Any) -> None:
    values = np.array([[0, 1], [1, 0]], dtype=dtype)
    larger = resized(values, (4, 6))
    assert larger.dtype == dtype
    assert np.array_equal(larger, values.repeat(2, axis=0).repeat(3, axis=1))


def test_intensities_are_averaged_where_they_shrink() -> None:
    values = np.array([[0, 2], [4, 6]], dtype=np.float32)
    assert resized(values, (1, 1)).tolist() == [[3.0]]


def test_grey_of_no_number_and_beyond_the_window() -> None:
    values = np.array([[np.nan, -np.inf, -5, 0, 5, 10, 20, np.inf]], dtype=np.float32)
    assert grey(values, (0, 10)).tolist() == [[0, 0, 0, 0, 128, 255, 255, 255]]


def test_an_edge_lies_inside_and_is_open_at_the_picture() -> None:
    mask = np.zeros((5, 5), bool)
    mask[1:5, 1:4] = True
    assert edge_of(mask, 1).astype(int).tolist() == [
        [0, 0, 0, 0, 0],
        [0, 1, 1, 1, 0],
        [0, 1, 0, 1, 0],
        [0, 1, 0, 1, 0],
        [0, 1, 0, 1, 0],
    ]


def test_a_mosaic_without_pictures_is_its_words() -> None:
    assert np.asarray(mosaic(["one"], [], ["caption"])).max() > 200


def test_a_mosaic_holds_every_picture_whole() -> None:
    red, blue = (np.full((30, 40, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    made = mosaic(["one", "two\nlines"], [("first", [red, blue]), ("", [None, red])], ["caption"])
    pixels = np.asarray(made)
    assert (pixels == (255, 0, 0)).all(axis=2).sum() == 2 * 30 * 40
    assert (pixels == (0, 0, 255)).all(axis=2).sum() == 30 * 40
    assert png_bytes(made) == png_bytes(made)
    assert png_bytes(made)[:4] == b"\x89PNG"


def test_a_lesion_put_where_one_was_removed_is_added_whole(pair: Pair) -> None:
    old, new = ball((6, 17, 12), 4), ball((8, 17, 12), 3)
    edits = replace(pair.edits, host_lesion=old, lesion=new, gone=old, source=None)
    assert np.array_equal(edits.added, new)
    assert np.array_equal(edits.removed, old)
    assert not edits.kept.any()
    found = {place.edit: place.volume_mm3 for place in places(edits, 2)}
    assert found == {"added": new.sum(), "removed": old.sum()}


def test_what_was_only_cut_off_is_no_place(pair: Pair) -> None:
    edits = replace(pair.edits, gone=np.zeros(SHAPE, bool))
    assert edits.removed.any()
    assert [place.edit for place in places(edits, 5)] == ["added"]
    # Unless there is nothing else to see.
    alone = replace(edits, lesion=pair.edits.kept)
    assert [(place.edit, place.centre_vox) for place in places(alone, 5)] == [("removed", (6, 17, 12))]
    assert places(replace(alone, lesion=alone.host_lesion), 5) == []


def test_the_leading_channel_tells_lesions_from_everything_else() -> None:
    """On the second channel lesions differ more from their tissue, but there is fluid as bright."""
    lesion, fluid = ball((6, 6, 12), 3), ball((17, 17, 12), 6)
    first, second = np.full(SHAPE, 50, np.float32), np.full(SHAPE, 50, np.float32)
    first[fluid], second[fluid] = 10, 90
    host = SimpleNamespace(images=[nifti.new(Grid(SHAPE, np.eye(4)), values) for values in (first, second)])
    copies = [first.copy(), second.copy()]
    copies[0][lesion], copies[1][lesion] = 70, 90
    nothing, everywhere = np.zeros(SHAPE, bool), np.ones(SHAPE, bool)
    # The host has no lesion: what counts is the copy's.
    edits = Edits(Grid(SHAPE, np.eye(4)), nothing, lesion, nothing, everywhere)
    assert lead_channel(host, edits, copies) == 0  # type: ignore[arg-type]
    host.images.reverse()
    assert lead_channel(host, edits, copies[::-1]) == 1  # type: ignore[arg-type]
    # The copy has none: what counts is the host's.
    host.images = [nifti.new(Grid(SHAPE, np.eye(4)), values) for values in copies]
    edits = Edits(Grid(SHAPE, np.eye(4)), lesion, nothing, lesion, everywhere)
    assert lead_channel(host, edits, [first, second]) == 0  # type: ignore[arg-type]
    edits = Edits(Grid(SHAPE, np.eye(4)), nothing, nothing, nothing, everywhere)
    assert lead_channel(host, edits, copies) == 0  # type: ignore[arg-type]
