from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from lesionsynth.kernels.noise import gaussian_noise, spectrum_noise

SHAPE = (48, 44, 44)
BOX = tuple(slice(10, 40) for _ in range(3))


def tissue(sigma=1.0, seed=0):
    """Two channels whose texture is correlated over `sigma` voxels, and between them by -0.8."""
    white = np.random.default_rng(seed).standard_normal((2, *SHAPE))
    white[1] = -0.8 * white[0] + 0.6 * white[1]
    smooth = np.stack([ndimage.gaussian_filter(channel, sigma) for channel in white])
    smooth *= np.array([5.0, 20.0])[:, None, None, None] / smooth.std(axis=(1, 2, 3), keepdims=True)
    return (smooth + np.array([100.0, 700.0])[:, None, None, None]).astype(np.float32)


@pytest.fixture
def region():
    inner = np.zeros((30, 30, 30), bool)
    inner[5:25, 5:25, 5:25] = True
    return inner


def whole(region):
    mask = np.zeros(SHAPE, bool)
    mask[BOX] = region
    return mask


def neighbour_correlation(cube, step):
    return np.corrcoef(cube[step:].ravel(), cube[:-step].ravel())[0, 1]


def assert_as_smooth(noise, image, tolerance):
    for channel in range(2):
        cube = noise[channel].reshape(20, 20, 20)
        for step in (1, 2):
            expected = neighbour_correlation(image[channel], step)
            assert neighbour_correlation(cube, step) == pytest.approx(expected, abs=tolerance)


def test_spectrum_and_correlation_are_those_of_the_tissue(region):
    image = tissue()
    noise = spectrum_noise(image, region, ~whole(region), np.random.default_rng(1), BOX)
    assert noise.shape == (2, 8000)
    np.testing.assert_allclose(noise.std(axis=1), image.std(axis=(1, 2, 3)), rtol=0.15)
    assert np.corrcoef(noise)[0, 1] == pytest.approx(-0.8, abs=0.06)
    assert_as_smooth(noise, image, 0.13)


def test_white_noise_differs_between_neighbours_as_the_tissue_does(region):
    image = tissue(sigma=0.6)
    noise = gaussian_noise(image, region, ~whole(region), np.random.default_rng(1), BOX, white=True)
    for channel in range(2):
        cube = noise[channel].reshape(20, 20, 20)
        natural = np.diff(image[channel], axis=0).std()
        assert np.diff(cube, axis=0).std() == pytest.approx(natural, rel=0.1)
        assert abs(neighbour_correlation(cube, 1)) < 0.05
    assert np.corrcoef(noise)[0, 1] == pytest.approx(-0.8, abs=0.06)


@pytest.mark.parametrize("sigma", [0.0, 0.6, 1.0])
def test_gaussian_noise_is_as_strong_and_as_smooth_as_the_tissue(region, sigma):
    image = tissue(sigma)
    noise = gaussian_noise(image, region, ~whole(region), np.random.default_rng(1), BOX)
    np.testing.assert_allclose(noise.std(axis=1), image.std(axis=(1, 2, 3)), rtol=0.15)
    assert np.corrcoef(noise)[0, 1] == pytest.approx(-0.8, abs=0.06)
    assert_as_smooth(noise, image, 0.08)


@pytest.mark.parametrize(
    ("sigma", "shape", "place", "stored"),
    [
        ((1.2, 1.2, 0.0), SHAPE, (slice(10, 40),) * 3, np.float32),  # thick slices
        ((1.3, 1.3, 0.0), (96, 96, 1), (slice(40, 60), slice(40, 60), slice(0, 1)), np.float32),
        ((1.2, 1.2, 1.2), SHAPE, (slice(20, 23),) * 3, np.float32),
        ((1.2, 1.2, 1.2), SHAPE, (slice(20, 21),) * 3, np.float32),
        ((0.6, 0.6, 0.6), SHAPE, (slice(10, 40),) * 3, np.int16),
    ],
)
def test_strength_in_few_slices_small_places_and_whole_numbers(sigma, shape, place, stored):
    texture = np.random.default_rng(0).standard_normal(shape)
    texture = ndimage.gaussian_filter(texture, sigma)
    image = (
        (100 + 1.5 * texture / texture.std()).round(0 if stored is np.int16 else 6)[None].astype(np.float32)
    )
    region = np.zeros(shape, bool)
    region[place] = True
    box = tuple(slice(0, n) for n in shape)
    drawn = [gaussian_noise(image, region, ~region, np.random.default_rng(n), box)[0] for n in range(150)]
    assert np.sqrt(np.mean(np.square(np.concatenate(drawn)))) == pytest.approx(image.std(), rel=0.2)


def test_edges_between_tissues_make_no_noise(region):
    """Half of the neighbourhood is brighter by twenty spreads of the noise."""
    plain = tissue(sigma=0.6)
    stepped = plain + np.where(np.indices(SHAPE)[1] < 22, np.float32(0), np.float32(400))
    noise = [
        gaussian_noise(image, region, ~whole(region), np.random.default_rng(1), BOX).std(axis=1)
        for image in (plain, stepped)
    ]
    np.testing.assert_allclose(noise[1], noise[0], rtol=0.1)


@pytest.mark.parametrize("kind", [spectrum_noise, gaussian_noise])
def test_only_clean_tissue_is_looked_at(kind, region):
    image = tissue()
    clean = ~whole(region) & (np.indices(SHAPE)[0] < 30)
    other = np.where(clean, image, np.float32(1e6))
    first, second = (kind(values, region, clean, np.random.default_rng(2), BOX) for values in (image, other))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("kind", [spectrum_noise, gaussian_noise])
def test_too_little_clean_tissue_gives_none(kind, region):
    clean = np.zeros(SHAPE, bool)
    clean[:5, :5, :5] = True
    assert kind(tissue(), region, clean, np.random.default_rng(0), BOX) is None


@pytest.mark.parametrize("kind", [spectrum_noise, gaussian_noise])
def test_flat_tissue_gives_no_noise(kind, region):
    flat = np.full((1, *SHAPE), 7.0, np.float32)
    noise = kind(flat, region, ~whole(region), np.random.default_rng(0), BOX)
    assert np.abs(noise).max() < 1e-2
