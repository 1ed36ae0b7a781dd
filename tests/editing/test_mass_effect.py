"""Pushing a host aside: images, labels, lesions, source map and account together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import ndimage

from lesionsynth.backend import Device
from lesionsynth.editing.canvas import DISPLACED, FIRST_DONOR, HOST, Canvas
from lesionsynth.editing.mass_effect import MassEffectSpec, draw_mass_effect, push_aside
from lesionsynth.host import LoadedCase
from lesionsynth.kernels.tissue import OUTSIDE, WHITE
from lesionsynth.recipe.load import load_recipe
from lesionsynth.run.job import HostJobs
from lesionsynth.run.prepare import prepare
from tests.fake_device import FakeGpus
from tests.test_invariants import Silent

SHAPE = (48, 48, 48)
CENTRE = (24, 24, 24)
DRAW = {"strength": 0.5, "reach_mm": 12.0}


def ball(centre: tuple[int, int, int], radius: float) -> np.ndarray:
    grid = np.indices(SHAPE) - np.reshape(centre, (3, 1, 1, 1))
    return np.asarray((grid**2).sum(axis=0) <= radius**2)


@pytest.fixture
def host(make_host: Callable[..., LoadedCase]) -> LoadedCase:
    """A ramp with two lesions near the middle, a protected vessel, and nothing beyond a sphere."""
    label = np.full(SHAPE, 2, np.uint16)
    label[ball((24, 35, 24), 3)] = 1
    label[ball((12, 24, 24), 2)] = 4
    label[30:33, 24:26, 24:26] = 3
    tissue = np.where(ball(CENTRE, 21), WHITE, OUTSIDE).astype(np.uint8)
    label[tissue == OUTSIDE] = 0
    ramp = (np.indices(SHAPE).sum(axis=0) * 10).astype(np.int16)
    return make_host(SHAPE, label, tissue, images=[ramp, ramp.astype(np.float32) * 0.5])


def lesion_label() -> np.ndarray:
    return ball(CENTRE, 7).astype(np.uint16)


def pushed(host: LoadedCase, device: Device | None = None, **draw: float) -> Canvas:
    canvas = Canvas(host, device)
    assert push_aside(canvas, lesion_label(), (0, 0, 0), {**DRAW, **draw}) is not None
    return canvas


def test_what_moves_is_marked_and_the_rest_is_the_hosts(host: LoadedCase) -> None:
    canvas = pushed(host)
    still = canvas.source == HOST
    assert set(np.unique(canvas.source)) == {HOST, DISPLACED}
    assert 0.05 < (~still).mean() < 0.6
    for raw, image in zip(canvas.raw, host.images, strict=True):
        assert np.array_equal(raw[still], image.raw[still])
        assert (raw[~still] != image.raw[~still]).mean() > 0.3
    assert np.array_equal(canvas.label[still], host.label[still])


def test_nothing_outside_the_body_nor_protected_nor_at_the_border_moves(host: LoadedCase) -> None:
    canvas = pushed(host)
    kept = (host.tissue == OUTSIDE) | host.untouchable
    assert (canvas.source[kept] == HOST).all()
    assert np.array_equal(canvas.label == 3, host.label == 3)
    free = Canvas(host)
    assert push_aside(free, lesion_label()[10:], (0, 0, 0), DRAW) is not None  # near the face i = 0
    assert (free.source[0] == HOST).all()


def test_a_protected_plate_is_not_drawn_out(make_host: Callable[..., LoadedCase]) -> None:
    """On thick slices tissue moves by less than a slice, and labels are taken from half a voxel on."""
    shape = (76, 76, 17)
    label = np.full(shape, 2, np.uint16)
    label[32:45, 32:45, 12] = 3
    canvas = Canvas(make_host(shape, label, spacing=(1.0, 1.0, 5.0)))
    grid = (np.indices(shape) - np.reshape((38, 38, 8), (3, 1, 1, 1))) * np.reshape((1, 1, 5), (3, 1, 1, 1))
    lesion = ((grid**2).sum(axis=0) <= 25**2).astype(np.uint16)
    assert push_aside(canvas, lesion, (0, 0, 0), DRAW) is not None
    assert (canvas.source == DISPLACED).any()
    assert np.array_equal(canvas.label == 3, label == 3)


def test_intensities_and_labels_move_together_outwards(host: LoadedCase) -> None:
    canvas = pushed(host)
    lesion, before = canvas.label == 1, host.label == 1
    shift = np.array(ndimage.center_of_mass(lesion)) - ndimage.center_of_mass(before)
    assert shift[1] > 0.4  # it lies behind the new lesion, and goes further back
    assert np.abs(shift[[0, 2]]).max() < 0.3
    # The ramp is linear: where tissue came along by d voxels it is darker by 10 d.
    drop = (host.images[0].raw - canvas.raw[0])[24, 33, 24] / 10
    assert 0.4 < drop < 2.0


def test_lesions_keep_their_numbers_and_the_account_stays_exact(host: LoadedCase) -> None:
    canvas = pushed(host)
    lesion = np.isin(canvas.label, host.labels.lesion)
    assert np.array_equal(lesion, canvas.instances > 0)
    assert set(np.unique(canvas.instances)) - {0} == set(canvas.boxes) == {1, 2}
    assert canvas.load_ml == pytest.approx(lesion.sum() / 1000)
    for number, box in canvas.boxes.items():
        assert canvas.volume_mm3(number) == np.count_nonzero(canvas.instances == number)
        assert np.count_nonzero(canvas.instances[box]) == np.count_nonzero(canvas.instances == number)
        classes = np.unique(canvas.label[canvas.instances == number])
        assert np.array_equal(classes, np.unique(host.label[host.lesions[0] == number]))


def test_it_can_be_undone(host: LoadedCase) -> None:
    canvas = Canvas(host)
    result = push_aside(canvas, lesion_label(), (0, 0, 0), DRAW)
    assert result is not None
    canvas.restore(result[0])
    untouched = Canvas(host)
    assert all(np.array_equal(a, b) for a, b in zip(canvas.raw, untouched.raw, strict=True))
    for name in ("label", "source", "instances"):
        assert np.array_equal(getattr(canvas, name), getattr(untouched, name))
    assert canvas.boxes == untouched.boxes
    assert (canvas.load_ml, canvas.clipped_vox) == (untouched.load_ml, untouched.clipped_vox)
    assert not canvas.changes()


def test_the_same_draw_gives_the_same_voxels_also_with_the_strength_that_was_used(host: LoadedCase) -> None:
    one, two = Canvas(host), Canvas(host)
    first = push_aside(one, lesion_label(), (0, 0, 0), DRAW)
    assert first is not None
    push_aside(two, lesion_label(), (0, 0, 0), {**DRAW, "strength": first[1]})
    assert all(np.array_equal(a, b) for a, b in zip(one.raw, two.raw, strict=True))
    assert np.array_equal(one.label, two.label)


def test_earlier_edits_move_along_in_the_source_map(host: LoadedCase) -> None:
    canvas = Canvas(host)
    canvas.source[ball((24, 33, 24), 2)] = FIRST_DONOR
    assert push_aside(canvas, lesion_label(), (0, 0, 0), DRAW) is not None
    where = np.array(ndimage.center_of_mass(canvas.source == FIRST_DONOR))
    assert where[1] > 33.3


def test_nothing_happens_where_nothing_can_move(make_host: Callable[..., LoadedCase]) -> None:
    host = make_host((6, 6, 6), tissue=np.full((6, 6, 6), OUTSIDE, np.uint8))
    canvas = Canvas(host)
    assert push_aside(canvas, np.ones((2, 2, 2), np.uint16), (2, 2, 2), DRAW) is None
    assert not canvas.source.any()


@pytest.mark.parametrize("shape", [(30, 30, 1), (30, 30, 3)])
def test_flat_volumes(make_host: Callable[..., LoadedCase], shape: tuple[int, int, int]) -> None:
    canvas = Canvas(make_host(shape, spacing=(1.0, 1.0, 10.0)))
    label = np.zeros(shape, np.uint16)
    label[10:20, 10:20, shape[2] // 2] = 1
    push_aside(canvas, label, (0, 0, 0), DRAW)
    assert np.array_equal(canvas.label > 0, canvas.instances > 0)
    assert (canvas.source[0] == HOST).all()


def test_only_large_lesions_push_and_off_draws_nothing() -> None:
    rng = np.random.default_rng(0)
    state = rng.bit_generator.state
    assert draw_mass_effect(MassEffectSpec(), 1e6, rng) is None
    assert rng.bit_generator.state == state
    always = MassEffectSpec(p=1.0, strength=(0.3, 0.4), reach_mm=(5.0, 6.0))
    assert draw_mass_effect(always, 999.0, rng) is None
    drawn = draw_mass_effect(always, 1000.0, rng)
    assert drawn is not None
    assert 0.3 <= drawn["strength"] <= 0.4
    assert 5.0 <= drawn["reach_mm"] <= 6.0


@pytest.mark.parametrize(
    "wrong", [{"strength": (0.2, 0.9)}, {"strength": (-0.1, 0.2)}, {"reach_mm": (0.0, 5.0)}, {"p": 2}]
)
def test_what_would_fold_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        MassEffectSpec.model_validate(wrong)


def test_populate_pushes_records_and_replays(make_nnunet: Callable[..., Path], tmp_path: Path) -> None:
    effect = "{p: 1.0, min_volume_mm3: 200, strength: [0.4, 0.5], reach_mm: [16, 24]}"
    recipe = load_recipe(
        "lesionmix",
        ["output.copies=2", "folds.strategy=none", f"steps.add.mass_effect={effect}", "steps.add.load=6.0"],
    )
    prepared = prepare(recipe, make_nnunet(3), tmp_path / "out", Silent())
    pushes = 0
    for job in prepared.jobs:
        maker = HostJobs(prepared.space, prepared.space.cohort.case(job.host))
        canvas, record, _ = maker.make(job)
        draws = [draw for step in record["steps"] for draw in step["draws"]]
        pushes += sum("mass_effect" in draw for draw in draws)
        assert ((canvas.source == DISPLACED).any()) == any("mass_effect" in draw for draw in draws)
        lesion = np.isin(canvas.label, maker.host.labels.lesion)
        assert np.array_equal(lesion, canvas.instances > 0)
        assert record["load_ml"]["after"] == pytest.approx(
            lesion.sum() * canvas.grid.voxel_volume_mm3 / 1000, abs=1e-5
        )
        assert record["load_ml"]["after"] <= record["load_ml"]["target"] * 1.05 + 1e-6
        again = maker.remake(job, record)
        assert np.array_equal(canvas.label, again.label)
        assert np.array_equal(canvas.source, again.source)
        assert np.array_equal(canvas.instances, again.instances)
        assert all(np.array_equal(a, b) for a, b in zip(canvas.raw, again.raw, strict=True))
    assert pushes


def test_tissue_moves_on_a_gpu_as_on_the_cpu(host: LoadedCase, fake_gpus: Callable[..., FakeGpus]) -> None:
    gpus, here = fake_gpus(), pushed(host)
    there = pushed(host, Device("cuda:0"))
    assert gpus.memories[0].peak > 0
    assert np.array_equal(there.label, here.label)
    np.testing.assert_allclose(there.raw[0], here.raw[0], atol=1)
    np.testing.assert_allclose(there.raw[1], here.raw[1], atol=1e-2)
