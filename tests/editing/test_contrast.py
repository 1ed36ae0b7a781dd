from __future__ import annotations

import numpy as np
import pytest

from lesionsynth.domain.lesion import ChannelStats, LesionInfo
from lesionsynth.editing.contrast import (
    ContrastSpec,
    apply_map,
    draw_contrast,
    intensity_map,
    matched_quantiles,
    slope_of,
    table_of,
)
from tests.fake_device import OtherDevice

DONOR = [ChannelStats(shell_median=100.0, tissue_mad=10.0, mean=140.0, edge=1.0, detail=1.0)]
LIMITS = (0.5, 1.8)
LEVELS = list(np.linspace(0.0, 200.0, 257))
HOST_LEVELS = list(np.linspace(50.0, 450.0, 257))


def mapped(kind: str, value: float, *, shell: float = 300.0, spread: float = 15.0, **draw: object) -> float:
    maps = intensity_map(
        {"kind": kind, "brightness": 1.0, **draw},
        LIMITS,
        DONOR,
        [shell],
        [spread],
        lambda: ([LEVELS], [HOST_LEVELS]),
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
    assert mapped("zscore", 100.0) == pytest.approx(250.0)
    assert mapped("zscore", 200.0) == pytest.approx(450.0)


def test_histogram_matching_of_uniform_intensities_is_linear() -> None:
    assert mapped("histogram", 100.0) == pytest.approx(250.0, abs=6.0)
    values = [mapped("histogram", v) for v in (0.0, 50.0, 100.0, 150.0, 200.0)]
    assert values == sorted(values)


def test_absolute_changes_nothing() -> None:
    assert mapped("absolute", 140.0) == 140.0


def test_brightness_acts_about_the_surroundings() -> None:
    maps = intensity_map(
        {"kind": "absolute", "brightness": 1.1}, LIMITS, DONOR, [120.0], [1.0], lambda: ([LEVELS], [LEVELS])
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
        {"kind": kind, "brightness": 1.0}, LIMITS, DONOR, [300.0], [15.0], lambda: ([LEVELS], [HOST_LEVELS])
    )
    image = np.random.default_rng(0).uniform(-20.0, 220.0, (1, 8, 7, 6)).astype(np.float32)
    part = (slice(None), slice(1, 5), slice(2, 7), slice(1, 4))
    there = apply_map(device.put(image)[part], device.put(table_of(maps)))
    np.testing.assert_allclose(device.get(there), apply_map(image[part], table_of(maps)), rtol=1e-6)
