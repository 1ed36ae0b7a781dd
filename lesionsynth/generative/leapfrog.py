"""Hamiltonian moves of a posterior sample, and the bound on the evidence that they give.

A sample z of an encoder's Gaussian is moved along the gradient of a potential U(z) = -log p(x, z) by leapfrog
steps whose momentum is tempered: it starts wide, with variance 1/beta0, and is cooled to variance 1. Moves
are deterministic and their volume is known, so that the importance weight of the moved sample is an unbiased
estimate of the evidence p(x), and its logarithm in the mean a lower bound on log p(x), with any number of
steps. With none it is the bound of the plain variational autoencoder.

References
----------
Caterini, Doucet, Sejdinovic, Hamiltonian Variational Auto-Encoder, NeurIPS 2018, arXiv:1805.11328. Neal,
Annealed importance sampling, Statistics and Computing 2001, doi:10.1023/A:1008923215028.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Potential = Callable[[Tensor], Tensor]
"""U of samples (B, d), (B,); that of each sample depends on this sample alone."""


@dataclass(frozen=True)
class Moves:
    """How far samples are moved.

    Parameters
    ----------
    steps : int
        K leapfrog steps; 0: none.
    size : float
        Epsilon, the same along every dimension.
    sqrt_beta0 : float
        Square root of the inverse temperature at the start, in (0, 1]; 1: no tempering.
    """

    steps: int
    size: float
    sqrt_beta0: float

    def sqrt_beta(self, k: int) -> float:
        """Square root of the inverse temperature after step `k`; 1 after the last."""
        hot = 1 / self.sqrt_beta0
        return 1 / ((1 - hot) * (k / self.steps) ** 2 + hot)


def leapfrog(
    potential: Potential, z: Tensor, rho: Tensor, moves: Moves, create_graph: bool = False
) -> tuple[Tensor, Tensor]:
    """Move positions and momenta (B, d) by `moves`.

    The volume of (z, rho) shrinks by the factor sqrt_beta0 ** d: steps keep it, tempering scales rho.

    Parameters
    ----------
    potential : callable
    z, rho : Tensor, (B, d)
    moves : Moves
    create_graph : bool
        Whether gradients shall flow through the moves, as in training. The network under the potential has
        to be twice differentiable.
    """
    if moves.steps == 0:
        return z, rho
    slope = _gradient(potential, z, create_graph)
    for k in range(1, moves.steps + 1):
        half = rho - 0.5 * moves.size * slope
        z = z + moves.size * half
        slope = _gradient(potential, z, create_graph)  # the next step starts from it too
        rho = (half - 0.5 * moves.size * slope) * (moves.sqrt_beta(k - 1) / moves.sqrt_beta(k))
    return z, rho


def _gradient(potential: Potential, z: Tensor, create_graph: bool) -> Tensor:
    with torch.enable_grad():
        at = z if z.requires_grad and create_graph else z.detach().requires_grad_()
        return torch.autograd.grad(potential(at).sum(), at, create_graph=create_graph)[0]


@dataclass(frozen=True, eq=False)
class Posterior:
    """Gaussian with axis-parallel spread that an encoder gives, `mean` and `log_sd` (B, d)."""

    mean: Tensor
    log_sd: Tensor


def log_weight(
    potential: Potential,
    posterior: Posterior,
    noise: Tensor,
    momentum: Tensor,
    moves: Moves,
    create_graph: bool = False,
) -> tuple[Tensor, Tensor]:
    """Moved samples (B, d), and the logarithm of their importance weights (B,).

    The mean of the weights is exp(-U) integrated over z, and the mean of their logarithms at most the
    logarithm of that.

    Parameters
    ----------
    potential : callable
        With all constants that the evidence shall have, those of the prior included.
    posterior : Posterior
    noise, momentum : Tensor, (B, d)
        Draws of N(0, 1).
    moves : Moves
    create_graph : bool
        As in :func:`leapfrog`.
    """
    z = posterior.mean + posterior.log_sd.exp() * noise
    log_q = -0.5 * noise.square().sum(1) - posterior.log_sd.sum(1) - 0.5 * z.shape[1] * math.log(2 * math.pi)
    if moves.steps == 0:
        return z, -potential(z) - log_q
    z, rho = leapfrog(potential, z, momentum / moves.sqrt_beta0, moves, create_graph)
    # log N(rho; 0, I) less that of the start, N(momentum; 0, I): the volumes of start and tempering cancel.
    kinetic = 0.5 * (momentum.square() - rho.square()).sum(1)
    return z, -potential(z) + kinetic - log_q


def prior_energy(z: Tensor) -> Tensor:
    """-log N(z; 0, I) of (B, d), with its constant."""
    return 0.5 * z.square().sum(1) + 0.5 * z.shape[1] * math.log(2 * math.pi)
