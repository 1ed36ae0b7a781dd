"""Sampling of codes: by prior, mixture and neighbourhood."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lesionsynth.generative.checkpoint import TrainedOn
from lesionsynth.generative.codes import Codes, draw_code, fit_codes, prior_codes


@pytest.fixture(scope="module")
def two_clouds() -> Codes:
    """Forty codes about (5, 5), forty about (-5, 5), in two numbers; volumes 1 to 80."""
    rng = np.random.default_rng(0)
    middle = np.repeat([[5.0, 5.0], [-5.0, 5.0]], 40, axis=0)
    latents = (middle + 0.3 * rng.standard_normal((80, 2))).astype(np.float32)
    names = tuple(TrainedOn(name=f"c/{k}", case="c", subject="s") for k in range(80))
    return fit_codes(latents, np.arange(1.0, 81.0), names, seed=0)


def drawn(codes: Codes, sampling, spread=1.0, n=400, fits=None):
    rng = np.random.default_rng(1)
    found = [draw_code(codes, sampling, spread, rng, fits) for _ in range(n)]
    return np.array([code for code, _ in found]), [near for _, near in found]


def test_the_mixture_finds_both_clouds(two_clouds: Codes) -> None:
    assert len(two_clouds.weights) == 2
    codes, near = drawn(two_clouds, "mixture")
    assert near == [None] * 400
    assert np.abs(np.abs(codes[:, 0]) - 5).mean() < 0.4
    assert 0.4 < (codes[:, 0] > 0).mean() < 0.6


def test_the_prior_knows_no_data(two_clouds: Codes) -> None:
    codes, near = drawn(two_clouds, "prior")
    assert near == [None] * 400
    np.testing.assert_allclose(codes.mean(axis=0), 0, atol=0.2)
    np.testing.assert_allclose(codes.std(axis=0), 1, atol=0.15)


def test_the_neighbourhood_is_of_what_fits(two_clouds: Codes) -> None:
    fits = two_clouds.volumes_mm3 > 40
    codes, near = drawn(two_clouds, "neighbourhood", fits=fits)
    assert {one.name for one in near} <= {f"c/{k}" for k in range(40, 80)}
    assert codes[:, 0].max() < 0
    exact, of = drawn(two_clouds, "neighbourhood", spread=0.0, n=5)
    for code, one in zip(exact, of, strict=True):
        np.testing.assert_allclose(code, two_clouds.latents[int(one.name[2:])], atol=1e-5)


def test_any_seed_of_a_training_will_do() -> None:
    latents = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    names = tuple(TrainedOn(name=f"c/{k}", case="c", subject="s") for k in range(30))
    fitted = [fit_codes(latents, np.arange(1.0, 31.0), names, seed) for seed in (3, 2**32 + 3, 2**63 - 1)]
    assert np.array_equal(fitted[0].means, fitted[1].means)
    assert all(np.isfinite(codes.means).all() for codes in fitted)


def test_no_neighbour_fits(two_clouds: Codes) -> None:
    rng = np.random.default_rng(0)
    assert draw_code(two_clouds, "neighbourhood", 1.0, rng, np.zeros(80, bool)) is None
    assert draw_code(prior_codes(3), "neighbourhood", 1.0, rng) is None


def test_a_model_that_encodes_nothing_has_the_prior_for_a_mixture() -> None:
    codes, _ = drawn(prior_codes(3), "mixture")
    np.testing.assert_allclose(codes.std(axis=0), 1, atol=0.15)


def test_a_code_is_json_and_depends_on_the_stream_alone(two_clouds: Codes) -> None:
    code, _ = draw_code(two_clouds, "mixture", 1.0, np.random.default_rng(3))
    assert json.loads(json.dumps(code)) == code
    assert draw_code(two_clouds, "mixture", 1.0, np.random.default_rng(3))[0] == code


@pytest.mark.parametrize("n", [1, 2, 9])
def test_few_codes_have_one_component(n: int) -> None:
    latents = np.random.default_rng(0).standard_normal((n, 4)).astype(np.float32)
    names = tuple(TrainedOn(name=str(k), case="c", subject="s") for k in range(n))
    codes = fit_codes(latents, np.ones(n), names, seed=0)
    assert len(codes.weights) == 1
    np.testing.assert_allclose(codes.means[0], latents.mean(axis=0), atol=1e-5)
    assert (codes.spreads > 0).all()


def test_codes_come_back_from_a_checkpoint(two_clouds: Codes) -> None:
    again = Codes.from_arrays("x/", two_clouds.arrays("x/"), two_clouds.names)
    for name, array in two_clouds.arrays("").items():
        np.testing.assert_array_equal(getattr(again, name), array)
