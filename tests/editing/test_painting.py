"""Lesions that are painted where they come to lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lesionsynth.blends.soft_poisson import SoftPoisson
from lesionsynth.domain.lesion import Lesion
from lesionsynth.editing.canvas import Canvas
from lesionsynth.editing.contrast import ContrastSpec
from lesionsynth.editing.insertion import CheckSpec, Insertion, make_insertion, passes
from lesionsynth.host import LoadedCase
from lesionsynth.operations.copy_paste import CopyPaste
from lesionsynth.plugins.contracts import Painter, Placed
from tests.editing.test_insertion import STILL

MakeHost = Callable[..., LoadedCase]
MakeLesion = Callable[..., Lesion]


def shape_of(lesion: Lesion) -> Lesion:
    """A lesion without an image, with nothing that keeps the blend off its surroundings."""
    rim = np.ones(lesion.label.shape, bool)
    return Lesion(replace(lesion.info, channels=()), lesion.image[:0], lesion.label, rim)


def flat(*levels: float) -> Painter:
    """Paints the label and two voxels around it evenly, in spreads."""

    def paint(placed: Placed) -> NDArray[np.float32]:
        return np.stack([np.full(placed.label.shape, level, np.float32) for level in levels])

    return paint


def paint(
    canvas: Canvas, lesion: Lesion, painter: Painter, *, brightness: float = 1.0, noise: float = 0.0
) -> Insertion:
    draw = {
        "pose": STILL,
        "centre_vox": [10, 11, 12],
        "contrast": {"kind": "shell", "brightness": brightness, "noise": noise},
        "blend": {"k": 1.0},
        "seed": 7,
    }
    bank: Any = None
    made = make_insertion(
        canvas, shape_of(lesion), draw, blend=SoftPoisson(), contrast=ContrastSpec(), overlap="avoid",
        bank=bank, painter=painter,
    )  # fmt: skip
    assert made is not None
    return made


def test_what_is_painted_is_added_in_spreads_and_nothing_else_changes(
    make_host: MakeHost, make_lesion: MakeLesion
) -> None:
    host = make_host()
    canvas = Canvas(host)
    made = paint(canvas, make_lesion(3), flat(4.0, -2.0), brightness=1.5)
    canvas.insert(made.box, made.values, made.changed, made.label)
    body = np.zeros(host.grid.shape, bool)
    body[9:12, 10:13, 11:14] = True
    assert np.array_equal(canvas.label > 0, body)
    for raw, image, (_, spread), level in zip(
        canvas.raw, host.images, host.tissue_stats, (4.0, -2.0), strict=True
    ):
        added = raw.astype(float) - image.raw
        assert added[10, 11, 12] == pytest.approx(1.5 * level * spread, abs=1)
        assert not added[canvas.source == 0].any()
    assert 27 < np.count_nonzero(canvas.source) < 24**3 / 4


def test_the_painter_is_told_where_the_lesion_lies(make_host: MakeHost, make_lesion: MakeLesion) -> None:
    canvas = Canvas(make_host())
    seen: list[Placed] = []

    def look(placed: Placed) -> NDArray[np.float32]:
        seen.append(placed)
        return np.full((2, *placed.label.shape), 5.0, np.float32)

    made = paint(canvas, make_lesion(3), look)
    (placed,) = seen
    assert placed.canvas is canvas
    assert placed.box == made.box
    assert np.array_equal(placed.label, made.label)
    whole = np.zeros(canvas.grid.shape, np.uint16)
    whole[placed.box] = placed.label
    assert np.argwhere(whole).mean(axis=0).tolist() == [10, 11, 12]


def test_nothing_is_compared_with_a_donor_but_what_cannot_be_seen_is_refused(
    make_host: MakeHost, make_lesion: MakeLesion
) -> None:
    canvas = Canvas(make_host())
    strong = paint(canvas, make_lesion(3), flat(1.0, -6.0)).measures
    for name in ("contrast", "edge", "detail"):
        assert strong[name] == [None, None]
    assert strong["lead_channel"] == 1
    assert strong["visible"] == pytest.approx(6.0, rel=0.05)
    assert passes(strong, CheckSpec()) is None
    faint = paint(canvas, make_lesion(3), flat(0.5, -0.4)).measures
    assert faint["lead_channel"] == 0
    assert passes(faint, CheckSpec()) == "visibility"


def test_noise_comes_on_top(make_host: MakeHost, make_lesion: MakeLesion) -> None:
    canvas = Canvas(make_host())
    plain = paint(canvas, make_lesion(7), flat(5.0, 5.0))
    noisy = paint(canvas, make_lesion(7), flat(5.0, 5.0), noise=2.0)
    body = plain.label > 0
    spread = canvas.host.tissue_stats[0][1]
    assert (noisy.values - plain.values)[0][body].std() == pytest.approx(2 * spread, rel=0.15)


def test_blur_and_gamma_leave_a_lesion_alone_that_has_no_image_yet(make_lesion: MakeLesion) -> None:
    lesion = shape_of(make_lesion(3))
    altered = CopyPaste().altered(lesion, {"blur_mm": 1.0, "gamma": 1.3})
    assert np.array_equal(altered.label, lesion.label)
    assert altered.image.shape == lesion.image.shape
