from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lesionsynth.bank.harvest import QUANTILES
from lesionsynth.domain.lesion import ChannelStats, LesionInfo
from lesionsynth.editing import levels
from lesionsynth.editing.contrast import (
    ContrastSpec,
    apply_map,
    draw_contrast,
    intended_contrast,
    intensity_map,
    matched_quantiles,
    slope_of,
    table_of,
)
from lesionsynth.editing.levels import two_levels
from tests.fake_device import OtherDevice

DONOR = [ChannelStats(shell_median=100.0, tissue_mad=10.0, mean=140.0, edge=1.0, detail=1.0)]
LIMITS = (0.5, 1.8)
LEVELS = list(np.linspace(0.0, 200.0, 257))
HOST_LEVELS = list(np.linspace(50.0, 450.0, 257))
BOTH = (LEVELS, HOST_LEVELS)


def mapped(
    kind: str,
    value: float,
    *,
    shell: float = 300.0,
    spread: float = 15.0,
    brightness: float = 1.0,
    levels: tuple[list[float], list[float]] = (LEVELS, LEVELS),
    one_tissue: bool = False,
    channel: str = "T1",
    **draw: object,
) -> float:
    maps = intensity_map(
        {"kind": kind, "brightness": brightness, **draw},
        LIMITS,
        DONOR,
        [shell],
        [spread],
        ([levels[0]], [levels[1]]),
        [channel],
        one_tissue,
    )
    return float(apply_map(np.full((1, 1, 1, 1), value, np.float32), table_of(maps))[0, 0, 0, 0])


def info(volume: float, *contrasts: float) -> LesionInfo:
    channels = tuple(ChannelStats(0.0, 1.0, c, 1.0, 1.0) for c in contrasts)
    return LesionInfo(
        "a",
        "c",
        "s",
        (1,),
        volume,
        (0,) * 3,
        (0,) * 3,
        (1,) * 3,
        tuple(np.eye(3).ravel()),
        channels,
        None,
        "",
    )


def test_shell_carries_the_difference_from_the_surroundings_scaled_by_their_spread() -> None:
    assert mapped("shell", 100.0) == pytest.approx(300.0)
    assert mapped("shell", 140.0) == pytest.approx(300.0 + 40.0 * 1.5)


def test_shell_factor_is_limited() -> None:
    assert mapped("shell", 140.0, spread=1000.0) == pytest.approx(300.0 + 40.0 * 1.8)
    assert mapped("shell", 140.0, spread=0.1) == pytest.approx(300.0 + 40.0 * 0.5)


@pytest.mark.parametrize("kind", ["shell", "ratio", "host_lesions"])
@pytest.mark.parametrize("units", [0.02, 1.0, 30.0])
def test_factors_are_limited_beside_the_units_of_the_cases(kind: str, units: float) -> None:
    """A host that is the same but for its units gets the same lesion in its units."""
    levels = (LEVELS, list(units * np.array(LEVELS)))
    found = [
        mapped(kind, value, shell=units * 100.0, spread=units * 10.0, levels=levels, like=[units * 40.0])
        for value in (100.0, 140.0)
    ]
    assert found == pytest.approx([units * 100.0, units * 140.0], rel=1e-5)


def test_units_are_told_by_levels_and_not_by_noise() -> None:
    """An organ alone: five times the noise at the same level is not five times the contrast."""
    calm, noisy = (list(100.0 + np.linspace(-n, n, 257)) for n in (4.0, 20.0))
    assert mapped("shell", 140.0, shell=100.0, spread=50.0, levels=(calm, noisy)) == pytest.approx(172.0)
    centred = [list(np.array(values) - 100.0) for values in (calm, calm)]  # as after z-scores
    assert mapped("shell", 140.0, shell=100.0, spread=10.0, levels=(centred[0], centred[1])) == 140.0


def two_tissues(dark: float, bright: float) -> list[float]:
    return [dark] * 100 + [bright] * 157


FAT_AND_MUSCLE = (two_tissues(100.0, 500.0), two_tissues(200.0, 1000.0))


def from_muscle(value: float, shell: float, **given: Any) -> float:
    """The donor, 140, lies in muscle of 100; muscle is 100 and fat 500 there, 200 and 1000 in the host."""
    return mapped("shell", value, shell=shell, levels=FAT_AND_MUSCLE, **{"one_tissue": True, **given})


def test_where_tissues_are_not_told_apart_a_lesion_keeps_its_level_among_others() -> None:
    assert two_levels(FAT_AND_MUSCLE[0]) == (100.0, 500.0)
    assert from_muscle(140.0, 1000.0) == pytest.approx(280.0)
    assert from_muscle(150.0, 1000.0) == pytest.approx(300.0)  # its texture too
    assert from_muscle(140.0, 200.0) == pytest.approx(200.0 + 1.5 * 40.0)  # the same tissue: as ever
    assert from_muscle(140.0, 1000.0, one_tissue=False) == pytest.approx(1000.0 + 1.5 * 40.0)
    assert from_muscle(140.0, 1000.0, brightness=1.5) == pytest.approx(1000.0 + 1.5 * -720.0)
    flat = ([7.0] * 257, FAT_AND_MUSCLE[1])
    assert mapped("shell", 140.0, shell=1000.0, levels=flat, one_tissue=True) > 1000.0


def test_noise_alone_is_one_tissue() -> None:
    assert two_levels(list(np.quantile(np.random.default_rng(0).normal(size=9999), QUANTILES))) is None
    assert two_levels([7.0] * 257) is None


def test_its_rim_becomes_that_of_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levels, "_STEEPEST", 100.0)
    assert from_muscle(100.0, 1000.0) == pytest.approx(1000.0)  # the donor's muscle is fat
    assert from_muscle(130.0, 1000.0) == pytest.approx(260.0)
    assert from_muscle(115.0, 1000.0) == pytest.approx(0.5 * (1000.0 + 260.0))
    assert from_muscle(90.0, 1000.0) == pytest.approx(980.0)


@pytest.mark.parametrize("units", [1e-9, 1.0, 1e9])
def test_the_rest_of_the_channels_keeps_its_factors(monkeypatch: pytest.MonkeyPatch, units: float) -> None:
    """One channel has knots, so all are mapped by some; in whatever units."""
    monkeypatch.setattr(levels, "_STEEPEST", 100.0)
    other = ChannelStats(shell_median=units * 100.0, tissue_mad=units, mean=0.0, edge=1.0, detail=1.0)
    noise = [units * float(v) for v in np.quantile(np.random.default_rng(0).normal(100, 9, 999), QUANTILES)]
    maps = intensity_map(
        {"kind": "shell", "brightness": 1.0},
        LIMITS,
        [DONOR[0], other],
        [1000.0, units * 300.0],
        [15.0, units],
        ([FAT_AND_MUSCLE[0], noise], [FAT_AND_MUSCLE[1], noise]),
        ["T1", "PET"],
        True,
    )
    image = np.array([[140.0, 100.0], [units * 120.0, units * -30.0]], np.float32).reshape(2, 2, 1, 1)
    expected = [280.0, 1000.0, units * 320.0, units * 170.0]
    assert apply_map(image, table_of(maps)).ravel() == pytest.approx(expected, rel=1e-5)


def test_a_bladder_is_no_second_tissue() -> None:
    """Of the quantiles of PET the last few are its hottest voxels: the lesion stays as hot as it is."""
    body = list(np.quantile(np.random.default_rng(0).normal(100.0, 10.0, 9999), QUANTILES))
    hot = body[:-5] + [5000.0] * 5
    assert two_levels(hot) is None
    for pair in ((hot, body), (body, hot)):
        found = mapped("shell", 140.0, shell=150.0, spread=10.0, levels=pair, one_tissue=True)
        assert found == pytest.approx(190.0, abs=0.5)


@pytest.mark.parametrize("value", [0.1, 0.3, 7.0, 123.4])
def test_a_constant_channel_has_no_tissues(value: float) -> None:
    assert two_levels([value] * 257) is None


@pytest.mark.parametrize("one_tissue", [False, True])
def test_hounsfield_units_are_the_same_everywhere(one_tissue: bool) -> None:
    """Livers of 110 and 30 units, with as much noise: 40 more are 40 more."""
    bright, fatty = ([float(v) for v in np.linspace(n - 25, n + 25, 257)] for n in (110, 30))
    for pair in ((bright, fatty), (fatty, bright)):
        given = {"shell": 30.0, "spread": 10.0, "levels": pair, "one_tissue": one_tissue}
        assert mapped("shell", 140.0, channel="ct", **given) == pytest.approx(70.0)
        assert mapped("shell", 140.0, channel="MR", **given) != pytest.approx(70.0)
    into_fat = {"shell": -100.0, "levels": (two_tissues(40.0, 900.0), two_tissues(-100.0, 50.0))}
    found = mapped("shell", 140.0, channel="CT", one_tissue=True, **into_fat)
    assert found == pytest.approx(140.0)


def test_a_lesion_like_its_surroundings_is_not_stretched() -> None:
    """From 130 to 100 the levels would have to change by 740: noise would become anatomy."""
    assert from_muscle(100.0, 1000.0) == pytest.approx(200.0)


@pytest.mark.parametrize("kind", ["shell", "zscore", "absolute"])
def test_intended_contrast(kind: str) -> None:
    how = {"scale": [2.0], "offset": [10.0]}
    wanted = 2.0 * 140.0 + 10.0 - 250.0 if kind == "shell" else 2.0 * 40.0
    assert intended_contrast({"kind": kind}, how, DONOR[0], 250.0) == wanted


def test_constant_tissue_leaves_the_contrast_as_it_is() -> None:
    assert mapped("shell", 140.0, spread=0.0) == pytest.approx(340.0)


def test_ratio() -> None:
    assert mapped("ratio", 140.0, shell=150.0) == pytest.approx(150.0 + 40.0 * 1.5)
    assert mapped("ratio", 100.0, shell=150.0) == pytest.approx(150.0)


def test_host_lesions_take_the_contrast_of_the_hosts_own() -> None:
    assert mapped("host_lesions", 140.0, like=[80.0]) == pytest.approx(380.0)
    # A host lesion of the other sign, as seen in T1, cannot be reached by scaling: as shell.
    assert mapped("host_lesions", 140.0, like=[-80.0]) == pytest.approx(360.0)


def test_zscore_matches_mean_and_spread_of_the_whole_image() -> None:
    assert mapped("zscore", 100.0, levels=BOTH) == pytest.approx(250.0)
    assert mapped("zscore", 200.0, levels=BOTH) == pytest.approx(450.0)


def test_histogram_matching_of_uniform_intensities_is_linear() -> None:
    assert mapped("histogram", 100.0, levels=BOTH) == pytest.approx(250.0, abs=6.0)
    values = [mapped("histogram", v, levels=BOTH) for v in (0.0, 50.0, 100.0, 150.0, 200.0)]
    assert values == sorted(values)


def test_absolute_changes_nothing() -> None:
    assert mapped("absolute", 140.0) == 140.0


def test_brightness_acts_about_the_surroundings() -> None:
    maps = intensity_map(
        {"kind": "absolute", "brightness": 1.1},
        LIMITS,
        DONOR,
        [120.0],
        [1.0],
        ([LEVELS], [LEVELS]),
        ["T1"],
        False,
    )
    image = np.array([120.0, 220.0], np.float32).reshape(1, 2, 1, 1)
    assert apply_map(image, table_of(maps)).ravel() == pytest.approx([120.0, 230.0])


def test_host_lesions_needs_enough_of_like_size() -> None:
    spec = ContrastSpec(kind="host_lesions", min_host_lesions=3)
    few, many = [info(50.0, 9.0)] * 2, [info(50.0, 9.0)] * 3
    rng = np.random.default_rng(0)
    assert draw_contrast(spec, info(50.0, 1.0), few, rng)["kind"] == "shell"
    assert draw_contrast(spec, info(50.0, 1.0), many, rng)["like"] == [9.0]
    assert draw_contrast(spec, info(60000.0, 1.0), many, rng)["kind"] == "shell"


def test_slope_of_a_piecewise_map_is_local() -> None:
    how = {"from": [0.0, 1.0, 2.0], "to": [0.0, 10.0, 11.0]}
    assert slope_of(how, 0.5) == 10.0
    assert slope_of(how, 1.5) == 1.0
    assert slope_of(how, 99.0) == 1.0


def test_matched_quantiles_never_fall() -> None:
    rng = np.random.default_rng(1)
    source, reference = np.sort(rng.normal(0, 1, 257)), np.sort(rng.gamma(2, 3, 257))
    assert (np.diff(matched_quantiles(list(source), list(reference))) >= 0).all()


@pytest.mark.parametrize("kind", ["shell", "histogram"])
def test_a_part_of_an_image_is_mapped_on_a_device_too(kind: str, device: OtherDevice) -> None:
    maps = intensity_map(
        {"kind": kind, "brightness": 1.0},
        LIMITS,
        DONOR,
        [300.0],
        [15.0],
        ([LEVELS], [HOST_LEVELS]),
        ["T1"],
        False,
    )
    image = np.random.default_rng(0).uniform(-20.0, 220.0, (1, 8, 7, 6)).astype(np.float32)
    part = (slice(None), slice(1, 5), slice(2, 7), slice(1, 4))
    there = apply_map(device.put(image)[part], device.put(table_of(maps)))
    np.testing.assert_allclose(device.get(there), apply_map(image[part], table_of(maps)), rtol=1e-6)
