from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lesionsynth.bank.store import LesionBank
from lesionsynth.domain.lesion import Lesion
from lesionsynth.errors import InputError
from lesionsynth.kernels.synthetic_lesion import signed_distance_mm
from lesionsynth.plugins.contracts import Donors, Wanted
from lesionsynth.sources.ellipsoid import Ellipsoid

ANY = Wanted(0, 1e9, "A", "a")
STILL = {"edge_mm": (1.0, 1.0), "texture": (0.0, 0.0), "bending": 0.0, "lesion_class": 1}


def source_of(**fields: object) -> Ellipsoid:
    settings = {"contrast": [[2, 2], [-1, -1]], "sizes": [{"radius_mm": 4}], **STILL, **fields}
    return Ellipsoid.model_validate(settings)


def one(source: Ellipsoid, bank: LesionBank, wanted: Wanted = ANY, seed: int = 0) -> Lesion:
    donors = Donors(bank, ())
    draw = source.draw(np.random.default_rng(seed), donors, wanted)
    assert draw is not None
    return source.lesion(draw, donors)


def layers(lesion: Lesion) -> tuple[np.ndarray, np.ndarray]:
    """Distances from the edge, and the first channel relative to a contrast of two."""
    distance = signed_distance_mm(lesion.label > 0, lesion.info.spacing_mm)
    return distance, lesion.image[0] / 2


def test_a_plain_one_is_its_contrast_inside_and_fades_over_its_edge(cubes: LesionBank) -> None:
    lesion = one(source_of(), cubes)
    distance, weight = layers(lesion)
    np.testing.assert_allclose(weight[distance < 0], 1.0, atol=1e-5)
    np.testing.assert_allclose(weight[distance > 0], np.clip(1 - distance[distance > 0], 0, 1), atol=1e-5)
    np.testing.assert_allclose(lesion.image[1], -0.5 * lesion.image[0], atol=1e-6)
    assert (lesion.info.case, lesion.info.subject, lesion.info.site) == ("", "", None)


def test_radii_are_the_classes_times_the_factor(cubes: LesionBank) -> None:
    source = source_of(sizes=[{"radius_mm": 4}, {"radius_mm": 8, "weight": 3}])
    donors, rng = Donors(cubes, ()), np.random.default_rng(0)
    found: Counter[float] = Counter()
    for _ in range(400):
        draw = source.draw(rng, donors, ANY)
        assert draw is not None
        size = 4.0 if max(draw["radii_mm"]) <= 5 else 8.0
        assert all(0.75 * size <= r <= 1.25 * size for r in draw["radii_mm"])
        volume = 4 / 3 * math.pi * np.prod(draw["radii_mm"])
        assert draw["voxels"] * draw["spacing_mm"] ** 3 == pytest.approx(volume, rel=0.01)
        found[size] += 1
    assert abs(found[8.0] - 300) < 4 * math.sqrt(400 * 3 / 16)


@settings(deadline=None, max_examples=60)
@given(low=st.floats(0, 5e4), width=st.floats(1.001, 10), seed=st.integers(0, 100))
def test_the_volume_is_within_what_is_wanted(cubes: LesionBank, low: float, width: float, seed: int) -> None:
    source = source_of(sizes=[{"radius_mm": r} for r in (4, 8, 16, 32)])
    high = max(200.0, low * width)
    draw = source.draw(np.random.default_rng(seed), Donors(cubes, ()), Wanted(low, high, "A", "a"))
    ball = 4 / 3 * math.pi
    fits = [r for r in (4, 8, 16, 32) if ball * (0.75 * r) ** 3 <= high and ball * (1.25 * r) ** 3 >= low]
    assert (draw is None) == (not fits)
    if draw is not None:
        assert low <= draw["voxels"] * draw["spacing_mm"] ** 3 <= high


def test_the_label_has_that_volume_and_does_not_touch_the_crop(cubes: LesionBank) -> None:
    for seed in range(8):
        lesion = one(source_of(bending=0.5), cubes, seed=seed)
        volume = np.count_nonzero(lesion.label) * np.prod(lesion.info.spacing_mm)
        assert volume == pytest.approx(lesion.info.volume_mm3)
        inner = lesion.label[1:-1, 1:-1, 1:-1]
        assert np.count_nonzero(inner) == np.count_nonzero(lesion.label)


def test_halo_capsule_and_core(cubes: LesionBank) -> None:
    halo = {"p": 1, "strength": [0.5, 0.5], "width_mm": [4, 4]}
    distance, weight = layers(one(source_of(halo=halo), cubes))
    np.testing.assert_allclose(weight[np.abs(distance - 3.0) < 1e-3], 0.25, atol=1e-3)
    assert weight[(distance > 1) & (distance < 5)].min() > 0
    assert not weight[distance > 5.01].any()
    capsule = {"p": 1, "strength": [0.6, 0.6], "width_mm": [1, 1]}
    distance, weight = layers(one(source_of(capsule=capsule), cubes))
    np.testing.assert_allclose(weight[(distance < 0) & (distance > -0.5)], 1.6, atol=1e-5)
    np.testing.assert_allclose(weight[distance < -1], 1.0, atol=1e-5)
    core = {"p": 1, "strength": [-0.5, -0.5], "share": [0.5, 0.5]}
    distance, weight = layers(one(source_of(core=core), cubes))
    deepest = distance.min()
    np.testing.assert_allclose(weight[(distance < 0) & (distance > deepest / 2)], 1.0, atol=1e-5)
    np.testing.assert_allclose(weight[distance < deepest / 2 - 1], -0.5, atol=1e-5)


def test_texture_is_a_share_of_the_contrast_alike_in_all_channels(cubes: LesionBank) -> None:
    lesion = one(source_of(texture=(0.2, 0.2), grain_mm=(0.5, 0.5), sizes=[{"radius_mm": 8}]), cubes)
    inside = lesion.label > 0
    assert lesion.image[0, inside].std() == pytest.approx(0.4, rel=0.15)
    np.testing.assert_allclose(lesion.image[1], -0.5 * lesion.image[0], atol=1e-6)


def test_any_size_may_be_wanted(cubes: LesionBank) -> None:
    unbounded, bounded = (one(source_of(), cubes, Wanted(0, most, "A", "a")) for most in (math.inf, 1e9))
    np.testing.assert_array_equal(unbounded.label, bounded.label)


def test_the_own_grid_is_as_fine_as_the_host_where_that_is_affordable(cubes: LesionBank) -> None:
    donors = Donors(cubes, ())
    for radius, spacing in ((2.0, 0.25), (16.0, 1.0), (64.0, 2.0)):
        source = source_of(sizes=[{"radius_mm": radius}], factor=(1, 1))
        draw = source.draw(np.random.default_rng(0), donors, ANY)
        assert draw is not None
        assert draw["spacing_mm"] == pytest.approx(spacing)


def test_its_label_is_the_lowest_of_the_bank_unless_it_is_given(cubes: LesionBank) -> None:
    rng = np.random.default_rng(0)
    unset = source_of(lesion_class=None)
    for masks, expected in ((("N",), 3), (("M", "N"), 1)):
        draw = unset.draw(rng, Donors(cubes, (), mask_subjects=masks), ANY)
        assert draw is not None
        assert draw["class"] == expected
    assert set(np.unique(one(source_of(lesion_class=7), cubes).label)) == {0, 7}
    with pytest.raises(InputError, match="Set lesion_class"):
        unset.draw(rng, Donors(cubes, ()), ANY)


def test_ranges_need_nobody_and_auto_names_whom_it_imitates(cubes: LesionBank) -> None:
    assert source_of().donor_subjects(Donors(cubes, ())) is None
    auto, donors = source_of(contrast="auto"), Donors(cubes, ("A", "B"))
    assert auto.donor_subjects(donors) == {"A", "B"}
    draw = auto.draw(np.random.default_rng(0), donors, ANY)
    assert draw is not None
    (giver,) = draw["from"]
    assert (giver["subject"], giver["case"], draw["contrast"]) == ("A", "a", [2.0, -1.0])
    plain = source_of().draw(np.random.default_rng(0), donors, ANY)
    assert plain is not None
    assert plain["from"] == []


@pytest.mark.parametrize(
    "fields", [{"factor": (0, 1)}, {"edge_mm": (0, 1)}, {"sizes": []}, {"sizes": [{"radius_mm": 0}]}]
)
def test_bad_settings_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        source_of(**fields)
