"""Tempered leapfrog steps against a linear-Gaussian model, whose evidence is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from lesionsynth.generative.leapfrog import Moves, Posterior, leapfrog, log_weight, prior_energy

DRAWS = 200_000
LOADINGS = torch.tensor(
    [[0.6, -0.8], [1.1, 0.3], [-0.5, 0.9], [0.2, 1.2], [-1.3, 0.4], [0.7, 0.7]], dtype=torch.float64
)
SEEN = torch.tensor([1.0, 0.3, -1.4, -0.2, -1.5, 0.1], dtype=torch.float64)
SD = 0.7


def potential(z):
    """-log p(x, z) of x = Wz + N(0, SD^2), z = N(0, I)."""
    off = (SEEN - z @ LOADINGS.T) / SD
    likelihood = 0.5 * off.square().sum(1) + len(SEEN) * (math.log(SD) + 0.5 * math.log(2 * math.pi))
    return likelihood + prior_energy(z)


@pytest.fixture(scope="module")
def evidence():
    w = LOADINGS.numpy()
    return multivariate_normal(np.zeros(len(w)), w @ w.T + SD**2 * np.eye(len(w))).logpdf(SEEN.numpy())


@pytest.fixture(scope="module")
def noise():
    generator = torch.Generator().manual_seed(0)
    return torch.randn((2, DRAWS, 2), dtype=torch.float64, generator=generator)


def weights(noise, moves):
    flat = Posterior(torch.zeros(1, 2, dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64))
    return log_weight(potential, flat, noise[0], noise[1], moves)[1]


@pytest.mark.parametrize("beta0", [0.3, 0.6, 1.0])
@pytest.mark.parametrize("size", [0.01, 0.1, 0.3])
@pytest.mark.parametrize("steps", [0, 1, 3, 10])
def test_the_weights_average_to_the_evidence(noise, evidence, steps, size, beta0):
    log_w = weights(noise, Moves(steps, size, math.sqrt(beta0)))
    relative = (log_w - evidence).exp()
    error = float(relative.std() / math.sqrt(DRAWS))
    assert error < 0.02
    assert abs(math.log(float(relative.mean()))) < 4 * error
    assert float(log_w.mean()) < evidence


def test_moves_tighten_the_bound(noise, evidence):
    plain = weights(noise, Moves(0, 0.1, math.sqrt(0.3)))
    moved = weights(noise, Moves(3, 0.1, math.sqrt(0.3)))
    error = float((moved - plain).std() / math.sqrt(DRAWS))
    gain = float((moved - plain).mean())
    assert gain > 50 * error
    # Of what the plain bound lacks, a good part.
    assert gain > 0.25 * (evidence - float(plain.mean()))


def test_no_moves_leave_the_sample_and_ignore_the_momentum(noise):
    moves = Moves(0, 0.1, 0.3)
    one, two = (weights(torch.stack([noise[0], noise[1] * k]), moves) for k in (1, 2))
    assert torch.equal(one, two)


def test_untempered_steps_run_backwards(noise):
    z, rho = noise[0][:100], noise[1][:100]
    moves = Moves(7, 0.2, 1.0)
    there, momentum = leapfrog(potential, z, rho, moves)
    back, momentum = leapfrog(potential, there, -momentum, moves)
    assert (there - z).abs().max() > 0.5
    torch.testing.assert_close(back, z, rtol=0, atol=1e-12)
    torch.testing.assert_close(-momentum, rho, rtol=0, atol=1e-12)


def test_energy_is_kept_to_second_order(noise):
    z, rho = noise[0][:1000], noise[1][:1000]

    def drift(steps, size):
        end, momentum = leapfrog(potential, z, rho, Moves(steps, size, 1.0))
        change = potential(end) + 0.5 * momentum.square().sum(1) - potential(z) - 0.5 * rho.square().sum(1)
        return float(change.abs().mean())

    assert drift(20, 0.05) / drift(40, 0.025) == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("steps", [1, 3, 10])
@pytest.mark.parametrize("sqrt_beta0", [0.3, 1.0])
def test_volume_shrinks_by_the_tempering_alone(steps, sqrt_beta0):
    moves = Moves(steps, 0.2, sqrt_beta0)

    def move(state):
        return torch.cat(leapfrog(potential, state[None, :2], state[None, 2:], moves, True), 1)[0]

    state = torch.tensor([0.3, -0.2, 0.7, 0.1], dtype=torch.float64, requires_grad=True)
    jacobian = torch.autograd.functional.jacobian(move, state)
    assert float(torch.linalg.slogdet(jacobian)[1]) == pytest.approx(2 * math.log(sqrt_beta0), abs=1e-10)


def test_gradients_flow_through_the_moves(noise):
    moves = Moves(3, 0.2, 0.5)
    mean = torch.tensor([[0.3, -0.4]], dtype=torch.float64, requires_grad=True)

    def bound(mean):
        flat = Posterior(mean, torch.zeros(1, 2, dtype=torch.float64))
        return log_weight(potential, flat, noise[0][:50], noise[1][:50], moves, create_graph=True)[1].mean()

    assert torch.autograd.gradcheck(bound, mean)
