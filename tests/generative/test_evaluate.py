"""Measures of generated images on sets that are known to be alike or not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lesionsynth.generative.evaluate import Features, discrepancy, frechet, nearest


def pictures(count, seed, radius=3.0, noise=0.1):
    """Discs somewhere in a square of 16 voxels, two channels."""
    rng = np.random.default_rng(seed)
    at = np.stack(np.meshgrid(np.arange(16), np.arange(16), indexing="ij"), -1)
    made = []
    for _ in range(count):
        disc = np.hypot(*np.moveaxis(at - rng.uniform(5, 10, 2), -1, 0)) < radius * rng.uniform(0.8, 1.2)
        made.append(np.stack([disc * 1.0, 1.0 - disc]) + noise * rng.standard_normal((2, 16, 16)))
    return np.array(made, dtype=np.float32)


@pytest.fixture(scope="module")
def features():
    return Features(pictures(96, 0), count=6, steps=150)


class TestDistances:
    def test_of_a_set_with_itself_are_nothing(self, features):
        one = features.of(pictures(60, 1))
        assert frechet(one, one) == pytest.approx(0, abs=1e-3)
        assert discrepancy(one, one) < 0.2

    def test_grow_with_what_is_changed(self, features):
        real = features.of(pictures(80, 1))
        sets = [pictures(80, 2), pictures(80, 3, radius=3.6), pictures(80, 4, radius=4.6)]
        for distance in (frechet, discrepancy):
            found = [distance(features.of(images), real) for images in sets]
            assert found[0] < found[1] < found[2]
            assert found[2] > 5 * abs(found[0])

    def test_the_frechet_distance_of_gaussians(self):
        rng = np.random.default_rng(0)
        one = torch.from_numpy(rng.standard_normal((3000, 3)))
        other = torch.from_numpy(rng.standard_normal((3000, 3)) * 2 + [1, 0, -2])
        assert frechet(other, one) == pytest.approx(5 + 3 * (2 - 1) ** 2, rel=0.1)
        assert discrepancy(other, one) == pytest.approx(5, rel=0.1)

    def test_features_are_standardised_and_the_same_every_time(self, features):
        again = Features(pictures(96, 0), count=6, steps=150)
        assert torch.equal(features.of(pictures(5, 9)), again.of(pictures(5, 9)))
        found = features.of(pictures(96, 0))
        torch.testing.assert_close(found.mean(0), torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-5)
        torch.testing.assert_close(found.std(0), torch.ones(6, dtype=torch.float64))

    def test_cubes_too(self):
        cubes = np.random.default_rng(0).standard_normal((12, 1, 8, 8, 8)).astype(np.float32)
        assert Features(cubes, count=2, steps=2).of(cubes).shape == (12, 2)


class TestNearest:
    def test_finds_the_nearest_and_measures_by_hand(self):
        real = pictures(20, 0)
        noise = np.random.default_rng(1).standard_normal(real[:5].shape).astype(np.float32) * 0.05
        found = nearest(real[[7, 3, 9, 1, 0]] + noise, real)
        peak = real.max() - real.min()
        assert found.psnr == pytest.approx(10 * np.log10(peak**2 / 0.05**2), abs=0.3)
        assert 0.8 < found.ssim < 1

    def test_copies_are_told_from_others(self):
        real = pictures(20, 0)
        assert nearest(real, real).psnr == pytest.approx(120)
        assert nearest(real, real).ssim == pytest.approx(1, abs=1e-4)
        assert nearest(real, real, same=True).psnr < 25
        assert nearest(pictures(10, 5), real).ssim < 0.95
