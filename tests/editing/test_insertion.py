from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lesionsynth.blends.alpha import Alpha
from lesionsynth.blends.hard import Hard
from lesionsynth.domain.lesion import ChannelStats, Lesion
from lesionsynth.editing.canvas import FIRST_DONOR, Canvas
from lesionsynth.editing.contrast import ContrastSpec
from lesionsynth.editing.insertion import CheckSpec, Insertion, make_insertion, passes
from lesionsynth.host import LoadedCase
from lesionsynth.kernels.tissue import FLUID, WHITE
from lesionsynth.plugins.contracts import BlendSpec

MakeHost = Callable[..., LoadedCase]
MakeLesion = Callable[..., Lesion]
STILL = {"flips": [False] * 3, "rotation_deg": [0.0] * 3, "scale": [1.0] * 3, "fit": 1.0, "elastic": None}


def insert(
    canvas: Canvas, lesion: Lesion, centre: tuple[int, int, int], *, blend: BlendSpec | None = None,
    overlap: str = "avoid", contrast: dict[str, Any] | None = None, pose: dict[str, Any] | None = None,
    quantiles: list[float] | None = None,
) -> Insertion | None:  # fmt: skip
    draw = {
        "pose": pose or STILL,
        "centre_vox": list(centre),
        "contrast": contrast or {"kind": "shell", "brightness": 1.0},
        "blend": {},
        "seed": 7,
    }
    # All cases are in the same units, and of one tissue if nothing else is said.
    levels = SimpleNamespace(quantiles=[quantiles or [100.0] * 3] * len(canvas.raw))
    bank: Any = SimpleNamespace(case=lambda _: levels)
    return make_insertion(
        canvas, lesion, draw, blend=blend or Alpha(), contrast=ContrastSpec(), overlap=overlap, bank=bank
    )


def commit(canvas: Canvas, insertion: Insertion | None) -> None:
    assert insertion is not None
    canvas.insert(insertion.box, insertion.values, insertion.changed, insertion.label)


def test_label_lands_voxel_for_voxel_and_load_grows_by_it(
    make_host: MakeHost, make_lesion: MakeLesion
) -> None:
    canvas = Canvas(make_host())
    commit(canvas, insert(canvas, make_lesion(3), (10, 11, 12)))
    expected = np.zeros((24, 24, 24), bool)
    expected[9:12, 10:13, 11:14] = True
    assert np.array_equal(canvas.label > 0, expected)
    assert canvas.load_ml == pytest.approx(0.027)


def test_in_another_tissue_than_its_own_the_donors_edge_is_not_asked_for(
    make_host: MakeHost, make_lesion: MakeLesion
) -> None:
    """From muscle of 100 to fat of 900: 140 stays 140, which is far from what is around it."""
    fat = np.random.default_rng(0).normal(900, 10, (24, 24, 24)).astype(np.int16)
    canvas = Canvas(make_host(images=[fat, fat]))
    lesion = make_lesion(3, levels=(100.0, 100.0), contrast=40.0)
    made = insert(canvas, lesion, (11, 11, 11), quantiles=[100.0] * 128 + [900.0] * 129)
    assert made is not None
    assert made.measures["contrast"] == pytest.approx([1.0, 1.0], abs=0.05)
    assert made.measures["edge"] == made.measures["detail"] == [None, None]
    assert made.values[:, made.label > 0].mean() == pytest.approx(140.0, abs=15)
    assert passes(made.measures, CheckSpec()) is None


def test_of_a_contrast_that_is_none_there_is_no_share(make_host: MakeHost, make_lesion: MakeLesion) -> None:
    """Rounding is no contrast either."""
    canvas, brighter = Canvas(make_host()), {"kind": "shell", "brightness": 1.07}
    for level in np.linspace(10.3, 99.7, 20):
        lesion = make_lesion(3, levels=(level, 3 * level), contrast=0.0)
        made = insert(canvas, lesion, (11, 11, 11), contrast=brighter)
        assert made is not None
        assert made.measures["contrast"] == [None, None]


def test_lesion_keeps_its_contrast_against_the_hosts_surroundings(
    make_host: MakeHost, make_lesion: MakeLesion
) -> None:
    host = make_host()
    canvas = Canvas(host)
    insertion = insert(canvas, make_lesion(3), (10, 11, 12))
    assert insertion is not None
    assert insertion.measures["contrast"] == pytest.approx([1.0, 1.0], abs=0.02)
    scale = [spread / 10.0 for _, spread in host.tissue_stats]
    assert insertion.measures["contrast_achieved"] == pytest.approx([40 * s for s in scale], rel=0.02)


def test_only_label_and_rim_change(make_host: MakeHost, make_lesion: MakeLesion) -> None:
    host = make_host()
    canvas = Canvas(host)
    commit(canvas, insert(canvas, make_lesion(3), (10, 11, 12), blend=Alpha(width_mm=2.0)))
    changed = np.zeros((24, 24, 24), bool)
    for raw, image in zip(canvas.raw, host.images, strict=True):
        changed |= raw != image.raw
    near = np.zeros_like(changed)
    near[7:14, 8:15, 9:16] = True
    assert not (changed & ~near).any()
    assert np.array_equal(canvas.source == FIRST_DONOR, canvas.source > 0)
    assert not (changed & (canvas.source == 0)).any()


def test_fluid_and_protected_voxels_are_neither_labelled_nor_changed(
    make_host: MakeHost, make_lesion: MakeLesion
) -> None:
    tissue = np.full((24, 24, 24), WHITE, np.uint8)
    tissue[11:] = FLUID
    label = np.zeros((24, 24, 24), np.uint16)
    label[:, :11] = 3
    host = make_host(tissue=tissue, label=label)
    canvas = Canvas(host)
    commit(canvas, insert(canvas, make_lesion(5), (10, 11, 12)))
    frozen = (tissue == FLUID) | (label == 3)
    assert np.array_equal(canvas.label[frozen], label[frozen])
    assert (canvas.label == 1).any()
    for raw, image in zip(canvas.raw, host.images, strict=True):
        assert np.array_equal(raw[frozen], image.raw[frozen])


def test_lesions_of_the_host_are_kept_or_replaced(make_host: MakeHost, make_lesion: MakeLesion) -> None:
    label = np.zeros((24, 24, 24), np.uint16)
    label[9:12, 10:13, 11:14] = 4
    for overlap, value in (("merge", 4), ("overwrite", 1)):
        host = make_host(label=label)
        canvas = Canvas(host)
        commit(canvas, insert(canvas, make_lesion(5), (10, 11, 12), overlap=overlap))
        assert canvas.label[10, 11, 12] == value
        assert (canvas.label == 1).any()
        same = all(
            np.array_equal(r[label == 4], i.raw[label == 4])
            for r, i in zip(canvas.raw, host.images, strict=True)
        )
        assert same == (overlap == "merge")
        assert canvas.load_ml == pytest.approx(0.125)
        assert len(canvas.boxes) == (2 if overlap == "merge" else 1)


def test_lesion_at_the_border_is_cut(make_host: MakeHost, make_lesion: MakeLesion) -> None:
    canvas = Canvas(make_host())
    commit(canvas, insert(canvas, make_lesion(3), (0, 23, 12)))
    assert (canvas.label > 0).sum() == 2 * 2 * 3
    assert insert(canvas, make_lesion(3), (0, 23, 12)) is None  # no room is left there


def test_nothing_left_of_the_label_is_no_insertion(make_host: MakeHost, make_lesion: MakeLesion) -> None:
    canvas = Canvas(make_host(tissue=np.full((24, 24, 24), FLUID, np.uint8)))
    assert insert(canvas, make_lesion(3), (10, 11, 12)) is None


def test_classes_travel_together(make_host: MakeHost, make_lesion: MakeLesion) -> None:
    lesion = make_lesion(5)
    lesion.label[7, 7, 7] = 4
    canvas = Canvas(make_host())
    commit(canvas, insert(canvas, lesion, (10, 11, 12)))
    assert canvas.label[10, 11, 12] == 4
    assert (canvas.label == 1).sum() == 124


def test_noise_depends_on_the_draws_seed_alone(make_host: MakeHost, make_lesion: MakeLesion) -> None:
    canvas = Canvas(make_host())
    noisy = {"kind": "shell", "brightness": 1.0, "noise": 0.5}
    first, again = (insert(canvas, make_lesion(3), (10, 11, 12), contrast=noisy) for _ in range(2))
    plain = insert(canvas, make_lesion(3), (10, 11, 12))
    assert first is not None
    assert again is not None
    assert plain is not None
    assert np.array_equal(first.values, again.values)
    assert not np.array_equal(first.values, plain.values)


def test_clipping_is_counted(make_host: MakeHost, make_lesion: MakeLesion) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(225, 245, (24, 24, 24)).astype(np.uint8)] * 2
    canvas = Canvas(make_host(images=images))
    commit(canvas, insert(canvas, make_lesion(3), (10, 11, 12), blend=Hard()))
    assert canvas.clipped_vox == 2 * 27
    assert canvas.raw[0][10, 11, 12] == 255


def test_what_the_stored_type_cannot_hold_is_not_counted_as_contrast(
    make_host: MakeHost, make_lesion: MakeLesion
) -> None:
    """Labels would be written for lesions that are not in the image."""
    bright = np.random.default_rng(0).integers(248, 256, (24, 24, 24)).astype(np.uint8)
    canvas = Canvas(make_host(images=[bright] * 2))
    made = insert(canvas, make_lesion(5), (10, 11, 12))
    assert made is not None
    median = np.median(bright)
    commit(canvas, made)
    written = [float(raw[canvas.label > 0].mean()) for raw in canvas.raw]
    assert made.measures["contrast_achieved"] == pytest.approx([w - median for w in written], abs=2.0)
    assert canvas.clipped_vox > 0
    assert passes(made.measures, CheckSpec()) == "contrast"


@pytest.mark.parametrize(("contrast", "visible"), [(0.35, 0.0), (0.6, 2.0)])
def test_no_stored_tissue_is_flatter_than_half_a_step(
    make_host: MakeHost, make_lesion: MakeLesion, contrast: float, visible: float
) -> None:
    """Of coarse counts, nearly all of them one number, the spread is 0."""
    coarse = np.where(np.random.default_rng(0).random((24, 24, 24)) < 0.1, 7, 6).astype(np.int16)
    canvas = Canvas(make_host(images=[coarse] * 2))
    assert canvas.host.tissue_stats[0][1] == 0
    made = insert(canvas, make_lesion(5, levels=(6.0, 6.0), contrast=contrast), (12, 12, 12), blend=Hard())
    assert made is not None
    assert made.measures["visible"] == visible


def test_anisotropic_hosts_get_the_volume_in_millimetres(
    make_host: MakeHost, make_lesion: MakeLesion
) -> None:
    canvas = Canvas(make_host(spacing=(1.0, 1.0, 3.0)))
    commit(canvas, insert(canvas, make_lesion(9, margin=6), (12, 12, 12)))
    assert canvas.load_ml == pytest.approx(0.729)
    assert (canvas.label > 0).sum() == 9 * 9 * 3


def test_check_names_what_is_out_of_range() -> None:
    measures = {"lead_channel": 1, "contrast": [9.0, 1.0], "edge": [9.0, 1.0], "detail": [9.0, 2.0]}
    measures["visible"] = 1.0
    assert passes(measures, CheckSpec()) == "detail"
    assert passes({**measures, "lead_channel": 0}, CheckSpec()) == "contrast"
    assert passes({**measures, "detail": [1.0, None]}, CheckSpec()) is None
    assert passes({**measures, "detail": [1.0, None], "visible": 0.99}, CheckSpec()) == "visibility"
    assert passes({**measures, "detail": [1.0, None], "visible": 0.0}, CheckSpec(min_contrast=0)) is None


@pytest.mark.parametrize(("added", "visible"), [(0.5, False), (3.0, True), (-3.0, True)])
def test_a_lesion_on_its_host_is_refused_where_it_cannot_be_seen(
    make_host: MakeHost, make_lesion: MakeLesion, added: float, visible: bool
) -> None:
    canvas = Canvas(make_host())
    lesion = make_lesion(side=5)
    image = np.stack([np.where(lesion.label > 0, added, 0), np.zeros(lesion.label.shape)]).astype(np.float32)
    stats = (ChannelStats(0.0, 1.0, added, 0.0, 0.0), ChannelStats(0.0, 1.0, 0.0, 0.0, 0.0))
    on_host = Lesion(replace(lesion.info, channels=stats), image, lesion.label, lesion.rim, on_host=True)
    made = insert(canvas, on_host, (12, 12, 12))
    assert made is not None
    spread = canvas.host.tissue_stats[0][1]
    assert made.measures["visible"] == pytest.approx(abs(added), abs=0.5 / spread)  # stored as integers
    assert made.measures["edge"] == made.measures["detail"] == [None, None]
    assert passes(made.measures, CheckSpec(contrast=(0.0, 9.0))) == (None if visible else "visibility")


def test_on_flat_tissue_any_contrast_is_seen_and_none_is_not(
    make_host: MakeHost, make_lesion: MakeLesion
) -> None:
    flat = make_host(images=[np.full((24, 24, 24), level, np.int16) for level in (300, 800)])
    made = insert(Canvas(flat), make_lesion(), (12, 12, 12))
    assert made is not None
    assert passes(made.measures, CheckSpec(edge=(0, 9), detail=(0, 9))) is None
    unseen = insert(Canvas(flat), make_lesion(contrast=0.0), (12, 12, 12))
    assert unseen is not None
    assert passes(unseen.measures, CheckSpec()) == "visibility"
