"""What every fill has to keep, run over the registry: registered means tested."""

from __future__ import annotations

import numpy as np
import pytest

from lesionsynth.plugins import registry
from lesionsynth.plugins.contracts import FillSpec
from tests.fake_device import OtherDevice

KINDS = sorted(registry.kinds("fills"))
SHAPE = (14, 15, 16)
ISO = (1.0, 1.0, 1.0)


@pytest.fixture(params=KINDS)
def fill(request: pytest.FixtureRequest) -> FillSpec:
    made: FillSpec = registry.create("fills", request.param)
    return made


def hole(centre: tuple[int, int, int] = (7, 7, 8), radius: float = 3.2) -> np.ndarray:
    grid = np.indices(SHAPE)
    return sum((grid[a] - centre[a]) ** 2 for a in range(3)) <= radius**2


def textured(channels: int = 2) -> np.ndarray:
    return np.random.default_rng(3).normal(100, 5, (channels, *SHAPE)).astype(np.float32)


def test_nothing_outside_the_region_changes(fill: FillSpec) -> None:
    image, region = textured(), hole()
    before = image.copy()
    filled = fill.fill(image, region, ~region, ISO)
    assert np.array_equal(image, before)
    assert np.array_equal(filled[:, ~region], image[:, ~region])
    assert filled.dtype == np.float32


def test_what_was_in_the_region_does_not_matter(fill: FillSpec) -> None:
    image, region = textured(), hole()
    other = image.copy()
    other[:, region] = 9e6
    assert np.array_equal(fill.fill(image, region, ~region, ISO), fill.fill(other, region, ~region, ISO))


def test_only_sources_are_used(fill: FillSpec) -> None:
    image, region = textured(), hole()
    source = ~region
    source[10:] = False
    other = image.copy()
    other[:, 10:] = np.where(region[10:], other[:, 10:], 9e6)
    assert np.array_equal(
        fill.fill(image, region, source, ISO)[:, region], fill.fill(other, region, source, ISO)[:, region]
    )


def test_a_constant_is_continued(fill: FillSpec) -> None:
    image, region = np.full((1, *SHAPE), 7.0, np.float32), hole()
    assert fill.fill(image, region, ~region, ISO) == pytest.approx(7.0, abs=1e-3)


def test_values_stay_within_their_sources(fill: FillSpec) -> None:
    image, region = textured(), hole()
    filled = fill.fill(image, region, ~region, ISO)[:, region]
    known = image[:, ~region]
    assert (filled.min(axis=1) >= known.min(axis=1)).all()
    assert (filled.max(axis=1) <= known.max(axis=1)).all()


def test_a_ramp_is_continued_better_than_by_its_mean(fill: FillSpec) -> None:
    image = (10.0 * np.indices(SHAPE)[0][None]).astype(np.float32)
    region = hole()
    error = fill.fill(image, region, ~region, ISO)[:, region] - image[:, region]
    assert np.sqrt((error**2).mean()) < 0.4 * image[:, region].std()


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 5.0), (0.5, 2.0, 1.0)])
def test_anisotropic_voxels_and_the_border(fill: FillSpec, spacing: tuple[float, float, float]) -> None:
    image, region = textured(), hole(centre=(0, 14, 8))
    filled = fill.fill(image, region, ~region, spacing)
    assert np.isfinite(filled).all()
    assert np.abs(filled[:, region].mean() - 100) < 10


def test_an_empty_region_changes_nothing(fill: FillSpec) -> None:
    image = textured()
    none = np.zeros(SHAPE, bool)
    assert np.array_equal(fill.fill(image, none, ~none, ISO), image)


def test_twice_the_same(fill: FillSpec) -> None:
    image, region = textured(), hole()
    assert np.array_equal(fill.fill(image, region, ~region, ISO), fill.fill(image, region, ~region, ISO))


@pytest.mark.parametrize("spacing", [ISO, (1.0, 1.0, 5.0)])
def test_a_device_gives_the_same_as_the_cpu(
    fill: FillSpec, spacing: tuple[float, float, float], device: OtherDevice
) -> None:
    """To a tenth of the texture. Tighter tolerances, where there are, stand with the kernels."""
    image, region = textured(3), hole()
    source = ~region
    source[:, 11:] = False
    there = device.get(fill.fill(device.put(image), device.put(region), device.put(source), spacing))
    here = fill.fill(image, region, source, spacing)
    assert there.dtype == here.dtype
    assert np.array_equal(there[:, ~region], image[:, ~region])
    assert np.sqrt(((there - here)[:, region] ** 2).mean()) < 0.1 * image.std()
