"""Blends that spread beyond their weight, on a host."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lesionsynth.blends.poisson import Poisson
from lesionsynth.blends.soft_poisson import SoftPoisson
from lesionsynth.domain.lesion import Lesion
from lesionsynth.editing.canvas import Canvas
from lesionsynth.host import LoadedCase
from lesionsynth.kernels.tissue import FLUID, OUTSIDE, WHITE
from tests.editing.test_insertion import commit, insert

MakeHost = Callable[..., LoadedCase]
MakeLesion = Callable[..., Lesion]


class Soft(SoftPoisson):
    """With k recorded as in a real draw, whatever the draw of the test is."""

    def compose(self, host: Any, lesion: Any, alpha: Any, allowed: Any, draw: Any, spacing_mm: Any) -> Any:
        return super().compose(host, lesion, alpha, allowed, {"k": 0.5}, spacing_mm)


def edited(canvas: Canvas) -> np.ndarray:
    host = canvas.host
    return np.any([raw != image.raw for raw, image in zip(canvas.raw, host.images, strict=True)], axis=0)


def test_what_spreads_stays_in_tissue_and_off_other_lesions(
    make_host: MakeHost, make_lesion: MakeLesion
) -> None:
    """The background of a stripped brain stays 0; fluid may take part in the change, protected labels not."""
    tissue = np.full((24, 24, 24), WHITE, np.uint8)
    tissue[14:] = FLUID
    tissue[:, :8] = OUTSIDE
    label = np.zeros((24, 24, 24), np.uint16)
    label[:, :, 16:] = 3
    label[10:12, 14:16, 10:13] = 1
    rng = np.random.default_rng(0)
    images = [
        np.where(tissue == OUTSIDE, 0, rng.normal(m, 10, tissue.shape)).astype(np.int16) for m in (300, 800)
    ]
    host = make_host(tissue=tissue, label=label, images=images)
    canvas = Canvas(host)
    insertion = insert(canvas, make_lesion(3), (11, 11, 12), blend=Soft())
    assert insertion is not None
    assert np.array_equal(
        insertion.values[:, ~insertion.changed], canvas.values(insertion.box)[:, ~insertion.changed]
    )
    commit(canvas, insertion)
    changed = edited(canvas)
    frozen = (tissue == OUTSIDE) | (label == 3) | (host.lesions[0] > 0)
    assert not changed[frozen].any()
    assert not any(raw[tissue == OUTSIDE].any() for raw in canvas.raw)
    assert (changed & (tissue == FLUID)).any()
    assert not (changed & (canvas.source == 0)).any()


def test_nothing_changes_beyond_the_reach_along_each_axis(
    make_host: MakeHost, make_lesion: MakeLesion
) -> None:
    canvas = Canvas(make_host())
    blend = Soft(margin_mm=2.0)
    commit(canvas, insert(canvas, make_lesion(3), (12, 11, 12), blend=blend))
    assert blend.reach_mm((1.0, 1.0, 1.0)) == 4.5
    near = np.zeros((24, 24, 24), bool)
    near[11 - 4 : 14 + 4, 10 - 4 : 13 + 4, 11 - 4 : 14 + 4] = True
    assert not (edited(canvas) & ~near).any()
    assert (edited(canvas) & near).sum() > 5**3


@pytest.mark.parametrize("blend", [Soft(), Poisson(), Poisson(gradients="mixed")], ids=lambda b: b.kind)
def test_a_lesion_within_its_own_surroundings_keeps_its_contrast(
    make_host: MakeHost, make_lesion: MakeLesion, blend: Any
) -> None:
    insertion = insert(Canvas(make_host()), make_lesion(5), (12, 12, 12), blend=blend)
    assert insertion is not None
    assert insertion.measures["contrast"] == pytest.approx([1.0, 1.0], abs=0.1)
    assert json.loads(json.dumps(insertion.measures)) == insertion.measures


@pytest.mark.parametrize("shape", [(24, 24, 3), (24, 24, 1), (3, 24, 24)])
@pytest.mark.parametrize("blend", [Soft(), Poisson()], ids=lambda b: b.kind)
def test_thin_volumes_and_lesions_at_the_border(
    make_host: MakeHost, make_lesion: MakeLesion, shape: tuple[int, int, int], blend: Any
) -> None:
    rng = np.random.default_rng(0)
    images = [rng.normal(level, 10, shape).astype(np.int16) for level in (300, 800)]
    host = make_host(shape=shape, images=images, spacing=tuple(10.0 if n < 9 else 1.0 for n in shape))
    canvas = Canvas(host)
    commit(canvas, insert(canvas, make_lesion(9, margin=6), (shape[0] // 2, 0, shape[2] // 2), blend=blend))
    assert (canvas.label > 0).any()
    assert edited(canvas)[canvas.label > 0].any()
