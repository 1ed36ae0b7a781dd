from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from pydantic import PrivateAttr
from scipy import ndimage

from lesionsynth.backend import Device
from lesionsynth.domain.load import LoadTarget
from lesionsynth.editing.canvas import INPAINTED, Canvas
from lesionsynth.editing.removal import Removals, remove_lesion, texture_of
from lesionsynth.fills.biharmonic import Biharmonic
from lesionsynth.fills.fast_marching import FastMarching
from lesionsynth.fills.mirror import Mirror
from lesionsynth.fills.patch import Patch
from lesionsynth.fills.trend import Trend
from lesionsynth.host import LoadedCase
from lesionsynth.kernels.components import dilated
from lesionsynth.kernels.tissue import FLUID, GREY, OUTSIDE, WHITE
from lesionsynth.plugins.contracts import FillSpec, Surroundings
from lesionsynth.rng import stream
from lesionsynth.tissue import TissueKind
from tests.fake_device import FakeGpus

MakeHost = Callable[..., LoadedCase]
SHAPE = (24, 24, 24)


def cube(*corners: tuple[int, int, int], side: int = 3, value: int = 1) -> np.ndarray:
    label = np.zeros(SHAPE, np.uint16)
    for i, j, k in corners:
        label[i : i + side, j : j + side, k : k + side] = value
    return label


def bright(label: np.ndarray) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [(rng.normal(level, 10, SHAPE) + 200 * (label > 0)).astype(np.int16) for level in (300, 800)]


def test_the_lesion_goes_and_nothing_else(make_host: MakeHost) -> None:
    label = cube((10, 10, 10), (3, 3, 3))
    host = make_host(label=label, images=bright(label))
    canvas = Canvas(host)
    gone = canvas.instances == canvas.instances[11, 11, 11]
    draw = remove_lesion(canvas, int(canvas.instances[11, 11, 11]), FastMarching(), 1)
    assert draw is not None
    assert draw["volume_mm3"] == 27
    assert (canvas.label[gone] == 0).all()
    assert (canvas.label[3:6, 3:6, 3:6] == 1).all()
    assert canvas.load_ml == pytest.approx(0.027)
    region = canvas.source == INPAINTED
    assert region[dilated(gone, 2)].all()
    for raw, image, level in zip(canvas.raw, host.images, (300, 800), strict=True):
        assert np.array_equal(raw[~region], image.raw[~region])
        assert abs(float(raw[gone].mean()) - level) < 15
        assert 4 < float(raw[gone].std()) < 20  # texture like that around it (10), not a smooth patch


@pytest.mark.parametrize(
    ("kind", "texture"), [("mask", "noise"), ("organ", "clone"), ("mixture", "clone"), ("map", "clone")]
)
def test_texture_is_cloned_where_tissues_are_told_apart(
    make_host: MakeHost, kind: TissueKind, texture: str
) -> None:
    host = replace(make_host(), tissue_kind=kind)
    assert texture_of(FastMarching(), host) == texture
    assert texture_of(FastMarching(texture="spectrum"), host) == "spectrum"


def test_nothing_is_filled_beyond_the_range_of_the_surroundings(make_host: MakeHost) -> None:
    label = cube((8, 8, 8), side=8)
    rng = np.random.default_rng(0)
    flat = np.clip(rng.normal(0, 10, SHAPE), 0, 3).astype(np.int16)  # noise goes below
    canvas = Canvas(make_host(label=label, images=[np.where(label > 0, 500, flat).astype(np.int16)] * 2))
    assert remove_lesion(canvas, 1, FastMarching(texture="noise"), 1) is not None
    assert all(raw.min() >= 0 and raw.max() <= 3 for raw in canvas.raw)


def test_without_texture_the_place_is_smooth(make_host: MakeHost) -> None:
    label = cube((10, 10, 10), side=5)
    spreads = []
    for texture in ("clone", "none"):
        canvas = Canvas(make_host(label=label, images=bright(label)))
        remove_lesion(canvas, 1, FastMarching(texture=texture), 1)
        spreads.append(float(canvas.raw[0][label > 0].std()))
    assert spreads[1] < spreads[0]


def test_the_organ_comes_back_under_a_tumour(make_host: MakeHost) -> None:
    label = np.zeros(SHAPE, np.uint16)
    label[4:20, 4:20, 4:20] = 2
    tumour = cube((10, 10, 10)) > 0
    label[tumour] = 1
    canvas = Canvas(make_host(label=label, tissue=np.where(label > 0, WHITE, OUTSIDE).astype(np.uint8)))
    remove_lesion(canvas, 1, FastMarching(), 1)
    assert (canvas.label[tumour] == 2).all()
    assert np.array_equal(canvas.label == 2, label > 0)


def test_protected_voxels_are_neither_filled_nor_used(make_host: MakeHost) -> None:
    label = cube((10, 10, 10))
    label[13:15] = 3
    images = bright(label == 1)
    for image in images:
        image[label == 3] = 9000
    host = make_host(label=label, images=images)
    canvas = Canvas(host)
    remove_lesion(canvas, 1, FastMarching(), 1)
    assert (canvas.source[label == 3] == 0).all()
    assert canvas.raw[0][label == 1].max() < 400


def test_a_lesion_without_any_clean_tissue_around_is_kept(make_host: MakeHost) -> None:
    label = cube((10, 10, 10))
    tissue = np.where(label > 0, WHITE, OUTSIDE).astype(np.uint8)
    host = make_host(label=label, tissue=tissue)
    canvas = Canvas(host)
    assert remove_lesion(canvas, 1, FastMarching(), 1) is None
    assert not canvas.changes()
    assert canvas.load_ml == pytest.approx(0.027)


def test_the_seed_alone_decides_the_texture(make_host: MakeHost) -> None:
    label = cube((10, 10, 10))
    host = make_host(label=label, images=bright(label))
    results = []
    for seed in (1, 1, 2):
        canvas = Canvas(host)
        remove_lesion(canvas, 1, FastMarching(), seed)
        results.append(canvas.raw[0])
    assert np.array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])


@pytest.mark.parametrize(("target", "left"), [(0.081, 3), (0.05, 2), (0.0, 0), (1.0, 4)])
def test_load_is_lowered_to_the_target(make_host: MakeHost, target: float, left: int) -> None:
    label = cube((3, 3, 3), (3, 12, 3), (12, 3, 12), (12, 12, 12))
    canvas = Canvas(make_host(label=label, images=bright(label)))
    removals = Removals(canvas, FastMarching(), lambda *name: stream(0, *name))
    removals.lower_load(removals.order(), LoadTarget(target, target, 0.1))
    assert len(canvas.boxes) == left
    assert len(removals.draws) == 4 - left


def test_where_each_lesion_is_too_much_the_smallest_goes(make_host: MakeHost) -> None:
    label = cube((3, 3, 3), side=6) | cube((14, 14, 14), side=4)
    canvas = Canvas(make_host(label=label, images=bright(label)))
    removals = Removals(canvas, FastMarching(), lambda *name: stream(0, *name))
    removals.lower_load(removals.order(), LoadTarget(0.25, 0.25, 0.05))
    assert [draw["volume_mm3"] for draw in removals.draws] == [64]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("choose", ["random", "smallest", "largest"])
def test_where_nothing_is_added_what_fits_stays(make_host: MakeHost, choose: str, seed: int) -> None:
    """One that is above the target alone has to go whatever else does, and so takes nothing along."""
    label = cube((3, 3, 3), side=6) | cube((14, 14, 14), side=4) | cube((14, 3, 3), side=3)
    canvas = Canvas(make_host(label=label, images=bright(label)))
    removals = Removals(canvas, FastMarching(), lambda *name: stream(seed, *name))
    removals.keep_within(removals.order(choose), LoadTarget(0.1, 0.1, 0.05))
    assert [draw["volume_mm3"] for draw in removals.draws] == [216]


def test_order_by_size(make_host: MakeHost) -> None:
    label = cube((3, 3, 3), side=4) | cube((14, 14, 14), side=3) | cube((14, 3, 3), side=5)
    canvas = Canvas(make_host(label=label))
    removals = Removals(canvas, FastMarching(), lambda *name: stream(0, *name))
    volumes = [canvas.volume_mm3(i) for i in removals.order("largest")]
    assert volumes == [125, 64, 27]
    assert [canvas.volume_mm3(i) for i in removals.order("smallest")] == volumes[::-1]


class Asking(FillSpec):
    """Fills with zeros and keeps what it was told of the whole case."""

    kind: str = "asking"
    texture: str = "none"
    _seen: list[Surroundings | None] = PrivateAttr(default_factory=list)

    def fill(self, image, region, source, spacing_mm, around=None):  # type: ignore[no-untyped-def]
        self._seen.append(around)
        if around is not None:
            around.used["zeros"] = int(region.sum())
        return np.where(region, np.float32(0), image)


def test_a_fill_is_told_of_the_whole_case_and_the_draw_of_what_it_did(make_host: MakeHost) -> None:
    label = cube((10, 10, 10), (3, 3, 3))
    host = make_host(label=label, images=bright(label))
    canvas = Canvas(host)
    fill = Asking()
    draw = remove_lesion(canvas, 1, fill, 1)
    (around,) = fill._seen
    assert around is not None
    assert np.array_equal(around.image, host.all_values)
    region = canvas.source == INPAINTED
    assert draw is not None
    assert draw["filled"] == {"zeros": int(region.sum())}
    assert not (around.clean & (region | dilated(label > 0, 2))).any()
    assert around.clean.any()
    assert region[around.box].sum() == region.sum()
    assert around.mirror() is None  # one code for all tissue: not known to be a brain


def test_texture_is_cloned_without_the_whole_case(make_host: MakeHost) -> None:
    label = cube((10, 10, 10))
    fill = Asking(texture="clone")
    remove_lesion(Canvas(make_host(label=label, images=bright(label))), 1, fill, 1)
    assert [around is None for around in fill._seen] == [False, True]


@pytest.mark.parametrize("texture", ["spectrum", "noise"])
def test_noise_of_the_strength_of_the_surroundings(make_host: MakeHost, texture: str) -> None:
    label = cube((9, 9, 9), side=6)
    canvas = Canvas(make_host(label=label, images=bright(label)))
    draw = remove_lesion(canvas, 1, FastMarching(texture=texture), 1)
    assert draw is not None
    assert draw["texture"] == {texture: 1}
    assert 6 < canvas.raw[0][label > 0].std() < 14
    again = Canvas(make_host(label=label, images=bright(label)))
    assert remove_lesion(again, 1, FastMarching(texture=texture), 1) == draw
    assert np.array_equal(canvas.raw[0], again.raw[0])


LARGE = (44, 44, 44)


def shining(width: float, fat: bool = False) -> tuple[np.ndarray, list[np.ndarray]]:
    """A lesion in two channels: cut off at its label, beside fat in half of the image, and blurred."""
    label = np.zeros(LARGE, np.uint16)
    label[18:26, 18:26, 18:26] = 1
    rng = np.random.default_rng(0)
    sharp = rng.normal(300, 10, LARGE) - 200 * (label > 0) + 500 * fat * (np.indices(LARGE)[0] > 28)
    blurred = rng.normal(50, 2, LARGE) + 1000 * ndimage.gaussian_filter((label > 0).astype(float), width)
    return label, [sharp.astype(np.int16), blurred.astype(np.int16)]


def test_the_blur_of_a_lesion_goes_in_the_channel_that_has_it(make_host: MakeHost) -> None:
    label, images = shining(2.5, fat=True)
    host = make_host(shape=LARGE, label=label, images=images)
    canvas = Canvas(host)
    draw = remove_lesion(canvas, 1, Biharmonic(), 1)
    assert draw is not None
    assert draw["halo"][0] == 0
    assert 3 <= draw["halo"][1] <= 6
    ring = dilated(label > 0, 2)
    assert np.array_equal(canvas.raw[0][~ring], images[0][~ring])
    assert abs(float(canvas.raw[0][label > 0].mean()) - 300) < 15  # not drawn towards fat
    assert abs(float(canvas.raw[1][label > 0].mean()) - 50) < 20  # of a contrast of 700
    assert (canvas.source[canvas.raw[1] != images[1]] == INPAINTED).all()


@pytest.mark.parametrize("kind", ["mask", "mixture"])
def test_no_halo_of_a_sharp_lesion_or_where_tissues_are_told_apart(
    make_host: MakeHost, kind: TissueKind
) -> None:
    label, images = shining(0.0 if kind == "mask" else 2.5)
    canvas = Canvas(replace(make_host(shape=LARGE, label=label, images=images), tissue_kind=kind))
    draw = remove_lesion(canvas, 1, Biharmonic(), 1)
    assert draw is not None
    assert "halo" not in draw
    assert np.array_equal(canvas.source == INPAINTED, dilated(label > 0, 2))


def test_a_channel_without_halo_is_filled_by_what_is_like_it_there(make_host: MakeHost) -> None:
    """Sources beside the lesion are none in PET; T1 is to be filled from them all the same."""
    errors = []
    for seed in range(6):
        label, images = shining(2.0)
        images[0] = np.random.default_rng(seed).normal(300, 10, LARGE).astype(np.int16)
        canvas = Canvas(make_host(shape=LARGE, label=label, images=images))
        assert remove_lesion(canvas, 1, Biharmonic(texture="none"), 1) is not None
        errors.append(float(canvas.raw[0][label > 0].mean()) - 300)
    assert np.sqrt(np.mean(np.square(errors))) < 2.5


def test_other_channels_keep_their_voxels_bit_for_bit(make_host: MakeHost) -> None:
    label, images = shining(2.5)
    images[0] = images[0].astype(np.int32) * 1_000_003
    canvas = Canvas(make_host(shape=LARGE, label=label, images=images))
    assert remove_lesion(canvas, 1, Biharmonic(), 1) is not None
    ring = dilated(label > 0, 2)
    assert (canvas.source[~ring] == INPAINTED).any()
    assert np.array_equal(canvas.raw[0][~ring], images[0][~ring])


def test_the_halo_that_is_told_is_the_one_that_went(make_host: MakeHost) -> None:
    """There is little tissue: none lies beyond the whole halo."""
    label, images = shining(4.0)
    tissue = np.full(LARGE, OUTSIDE, np.uint8)
    tissue[12:32, 12:32, 12:32] = WHITE
    canvas = Canvas(make_host(shape=LARGE, label=label, images=images, tissue=tissue))
    draw = remove_lesion(canvas, 1, Biharmonic(), 1)
    assert draw is not None
    changed = (canvas.raw[1] != images[1]) & (tissue == WHITE)
    reached = max(n for n in range(9) if (changed & ~dilated(label > 0, n)).any()) + 1
    assert draw.get("halo", [0, 0])[1] == reached - 2


def test_an_organ_that_is_brighter_than_what_lies_beyond_is_no_halo(make_host: MakeHost) -> None:
    label, images = shining(0.0)
    away = np.linalg.norm(np.indices(LARGE) - 21.5, axis=0)
    organ = 400 * np.exp(-((away / 15) ** 2))
    noise = np.random.default_rng(0).normal(50, 2, LARGE)
    images[1] = (noise + 100 * (label > 0) + organ).astype(np.int16)
    canvas = Canvas(make_host(shape=LARGE, label=label, images=images))
    draw = remove_lesion(canvas, 1, Biharmonic(), 1)
    assert draw is not None
    assert "halo" not in draw


def test_between_two_lesions_each_has_its_half(make_host: MakeHost) -> None:
    label = np.zeros(LARGE, np.uint16)
    label[12:18, 18:26, 18:26] = label[26:32, 18:26, 18:26] = 1
    blurred = 50 + 1000 * ndimage.gaussian_filter((label > 0).astype(float), 2.5)
    noise = np.random.default_rng(0).normal(0, 2, LARGE)
    images = [(300 + noise).astype(np.int16), (blurred + noise).astype(np.int16)]
    canvas = Canvas(make_host(shape=LARGE, label=label, images=images))
    draw = remove_lesion(canvas, int(canvas.instances[14, 20, 20]), Biharmonic(), 1)
    assert draw is not None
    assert draw["halo"][1] > 2  # with grow_vox beyond the middle
    assert np.array_equal(canvas.raw[1][22:], images[1][22:])


def test_a_gradient_of_the_tissue_is_no_halo(make_host: MakeHost) -> None:
    label, images = shining(0.0)
    slope = (20 * np.indices(LARGE)[0]).astype(np.int16)
    canvas = Canvas(make_host(shape=LARGE, label=label, images=[image + slope for image in images]))
    draw = remove_lesion(canvas, 1, Biharmonic(), 1)
    assert draw is not None
    assert "halo" not in draw


def test_fluid_and_other_lesions_are_no_source(make_host: MakeHost) -> None:
    """Fluid on one side, grey matter on the other, another lesion near by: only grey and white are used."""
    label = cube((10, 10, 10), (10, 16, 10))
    tissue = np.full(SHAPE, WHITE, np.uint8)
    tissue[:10], tissue[14:] = FLUID, GREY
    tissue[label > 0] = WHITE
    images = bright(label)
    for image in images:
        image[tissue == FLUID] = 9000
    canvas = Canvas(replace(make_host(label=label, tissue=tissue, images=images), tissue_kind="map"))
    gone = canvas.instances == canvas.instances[11, 11, 11]
    assert remove_lesion(canvas, int(canvas.instances[11, 11, 11]), Trend(), 1) is not None
    assert (canvas.source[tissue == FLUID] == 0).all()
    assert canvas.raw[0][gone].max() < 400
    assert (canvas.source[label > 0] > 0).sum() == 27
    fill = Asking()
    remove_lesion(canvas, min(canvas.boxes), fill, 1)
    (around,) = fill._seen
    assert around is not None
    assert around.clean[tissue == GREY].any()
    assert not around.clean[tissue == FLUID].any()


def test_mirror_says_that_it_found_no_other_side(make_host: MakeHost) -> None:
    label = cube((10, 10, 10))
    canvas = Canvas(make_host(label=label, images=bright(label)))
    draw = remove_lesion(canvas, 1, Mirror(), 1)
    assert draw is not None
    assert set(draw["filled"]) <= {"patch", "trend"}
    assert "texture" not in draw


def test_voxels_that_a_small_gpu_did_not_fill_are_counted_once(
    make_host: MakeHost, fake_gpus: Callable[..., FakeGpus]
) -> None:
    label = cube((10, 10, 10))
    draws, values = [], []
    for device, total in (("cpu", 0), ("cuda:0", 1e9), ("cuda:0", 300_000)):
        gpus = fake_gpus(total=total)
        canvas = Canvas(make_host(label=label, images=bright(label)), Device(device))
        draws.append(remove_lesion(canvas, 1, Patch(), 1))
        values.append(canvas.raw[0].copy())
        assert (len(canvas.device.notes) > 0) == (total == 300_000), gpus.memories[0].peak
    assert draws[0] == draws[1] == draws[2]
    assert np.array_equal(values[0], values[2])
