from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lesionsynth.bank.store import LesionBank
from lesionsynth.domain.lesion import Lesion
from lesionsynth.editing.likeness import (
    apply_look,
    bump_on_host,
    draw_contrast_vector,
    learn_look,
    lesion_to_be_like,
    look_of,
    with_margin,
)
from lesionsynth.errors import InputError
from lesionsynth.plugins.contracts import Donors, Wanted
from tests.sources.conftest import cube, cubes

__all__ = ["cubes"]

HOST_A = Wanted(0, 1e9, "A", "a")
HOST_B = Wanted(0, 1e9, "B", "b")


def likes(donors: Donors, wanted: Wanted, volume_mm3: float, own: bool = True) -> set[str]:
    found = [
        lesion_to_be_like(np.random.default_rng(seed), donors, wanted, volume_mm3, own) for seed in range(40)
    ]
    return {"none" if info is None else info.lesion for info in found}


def test_the_hosts_own_lesions_are_the_model_where_there_are_five(cubes: LesionBank) -> None:
    donors = Donors(cubes, ("A", "B"))
    own = {f"a/{n:04d}" for n in range(1, 6)}
    assert likes(donors, HOST_A, 27.0) == own
    assert likes(donors, HOST_A, 1e5) == {"a/0001"}  # none is of like size: the nearest
    assert likes(donors, HOST_A, 27.0, own=False) == own | {"b/0001"}
    assert likes(donors, HOST_B, 27.0) == own | {"b/0001"}  # two of its own are too few


def test_the_model_is_of_like_size_else_the_nearest(cubes: LesionBank) -> None:
    donors = Donors(cubes, ("B",))
    assert likes(donors, HOST_B, 50.0) == {"b/0001"}
    assert likes(donors, HOST_B, 1500.0) == {"b/0002"}
    assert likes(donors, HOST_B, 1e6) == {"b/0002"}


def test_the_leak_rule_holds_for_models_too(cubes: LesionBank) -> None:
    assert likes(Donors(cubes, ("B",)), HOST_A, 27.0) == {"b/0001"}
    assert likes(Donors(cubes, (), mask_subjects=("M",)), HOST_A, 27.0) == {"none"}


def test_contrast_is_that_of_one_lesion_in_all_channels(cubes: LesionBank) -> None:
    donors = Donors(cubes, ("A", "B"))
    drawn = draw_contrast_vector("auto", np.random.default_rng(0), donors, HOST_A, 27.0)
    assert drawn is not None
    contrast, like = drawn
    assert contrast == [2.0, -1.0]
    assert like is not None
    assert like.subject == "A"


def test_contrast_from_ranges(cubes: LesionBank) -> None:
    donors = Donors(cubes, ())
    drawn = draw_contrast_vector(((1, 2), (-3, -3)), np.random.default_rng(0), donors, HOST_A, 27.0)
    assert drawn is not None
    assert 1 <= drawn[0][0] <= 2
    assert drawn[0][1] == -3
    assert drawn[1] is None
    with pytest.raises(InputError, match="1 ranges; the images have 2 channels"):
        draw_contrast_vector(((1, 2),), np.random.default_rng(0), donors, HOST_A, 27.0)


def test_a_shape_gets_room_and_stays_where_it_was() -> None:
    shape = cube("m/mask/0001", "M", 3, margin=0)
    label, info = with_margin(shape, 5.0)
    assert label.shape == info.shape_vox == (13, 13, 13)
    assert info.origin_vox == (15, 15, 15)
    np.testing.assert_array_equal(label[5:8, 5:8, 5:8], 1)
    assert label.sum() == 27
    trimmed, _ = with_margin(cube("a/1", "A", 3, (1.0,), margin=9), 5.0)
    np.testing.assert_array_equal(trimmed, label)


def test_a_bump_has_the_wanted_mean_and_keeps_its_shape() -> None:
    lesion = bump_on_host(cube("m/mask/0001", "M", 5, margin=0), [3.0, -1.5], 1.0)
    assert lesion.on_host
    inside = lesion.label > 0
    assert inside.sum() == 125
    np.testing.assert_allclose(lesion.image[:, inside].mean(axis=1), [3.0, -1.5], rtol=1e-5)
    assert [c.contrast for c in lesion.info.channels] == pytest.approx([3.0, -1.5])
    middle = tuple(n // 2 for n in inside.shape)
    assert lesion.image[(0, *middle)] == lesion.image[0].max()
    np.testing.assert_allclose(lesion.image[1], -0.5 * lesion.image[0], atol=1e-6)


def test_a_look_is_carried_over_by_the_distance_from_the_edge() -> None:
    like = cube("b/0002", "B", 7, (4.0, -2.0))
    deep = np.zeros(like.label.shape, bool)
    deep[(slice(6, 9),) * 3] = True
    like.image[0, deep] += 30.0  # a core that is 7 spreads above the tissue
    label, info = with_margin(cube("m/mask/0001", "M", 9, margin=0), 5.0)
    image = apply_look(learn_look(like), label, info.spacing_mm, texture=0.0, seed=1)
    core = np.zeros(label.shape, bool)
    core[(slice(8, 11),) * 3] = True
    np.testing.assert_allclose(image[0, core], 7.0, atol=1e-4)
    np.testing.assert_allclose(image[0, 5, 9, 9], 4.0, atol=1e-4)
    np.testing.assert_allclose(image[1, label > 0], -2.0, atol=1e-4)
    assert not image[:, :3].any()


def test_a_look_has_the_texture_of_its_model_and_depends_on_the_seed() -> None:
    like = cube("b/0002", "B", 10, (4.0, 4.0))
    noise = np.random.default_rng(0).normal(0, 30, like.label.shape)
    like.image[:] += np.where(like.label > 0, noise, 0)  # three spreads, alike in both channels
    label, info = with_margin(cube("m/mask/0001", "M", 14, margin=0), 5.0)

    def look(texture: float, seed: int) -> np.ndarray:
        return apply_look(learn_look(like), label, info.spacing_mm, texture, seed)

    np.testing.assert_array_equal(look(1.0, 1), look(1.0, 1))
    assert (look(1.0, 1) != look(1.0, 2)).any()
    rest = (look(1.0, 1) - look(0.0, 1))[:, label > 0]
    assert rest.std(axis=1) == pytest.approx([2.9, 2.9], abs=0.6)
    assert np.corrcoef(rest)[0, 1] > 0.9
    half = (look(0.5, 1) - look(0.0, 1))[:, label > 0]
    np.testing.assert_allclose(half, 0.5 * rest, atol=1e-4)
    assert not look(1.0, 1)[:, :3].any()


def test_a_channel_without_spread_adds_nothing() -> None:
    like = cube("b/0002", "B", 7, (4.0,))
    flat = like.info.channels[0].__class__(100.0, 0.0, 140.0, 0.0, 0.0)
    object.__setattr__(like.info, "channels", (flat,))
    label, info = with_margin(cube("m/mask/0001", "M", 5, margin=0), 5.0)
    assert not apply_look(learn_look(like), label, info.spacing_mm, 1.0, 0).any()


def test_a_look_is_learned_once(cubes: LesionBank) -> None:
    donors = Donors(cubes, ("A", "B"))
    assert look_of("b/0002", donors) is look_of("b/0002", donors)
    assert look_of("b/0002", donors).profile[1][:, 0].tolist() == pytest.approx([8.0, 3.0])


def test_flat_and_thin_shapes_come_out_whole() -> None:
    flat = cube("m/mask/0001", "M", 5, margin=0)
    info = replace(
        flat.info, axes_mm=tuple(np.diag([1.0, 1.0, 10.0]).ravel()), shape_vox=(5, 5, 1), centre_vox=(2, 2, 0)
    )
    thin = Lesion(info, np.empty((0, 5, 5, 1), np.float32), flat.label[:, :, :1], flat.rim[:, :, :1])
    like = learn_look(cube("b/0001", "B", 3, (4.0, -2.0)))
    label, grown = with_margin(thin, 5.0)
    assert label.shape == (15, 15, 5)
    image = apply_look(like, label, grown.spacing_mm, 1.0, 0)
    np.testing.assert_allclose(image[0][label > 0], 4.0, atol=1e-4)
    bumped = bump_on_host(thin, [3.0, 0.0], 1.0)
    assert np.count_nonzero(bumped.label) == 25
    assert np.isfinite(bumped.image).all()
    assert bumped.image[0][bumped.label > 0].mean() == pytest.approx(3.0, rel=1e-5)
