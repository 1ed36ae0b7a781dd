"""Where in a latent space new samples are drawn: its prior, a mixture, or near what was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from lesionsynth.generative.checkpoint import TrainedOn, needed
from lesionsynth.rng import stream

Sampling = Literal["prior", "mixture", "neighbourhood"]
SAMPLINGS: tuple[Sampling, ...] = get_args(Sampling)
_ARRAYS = ("latents", "volumes_mm3", "weights", "means", "spreads")
_MOST_COMPONENTS = 8
_CASES_PER_COMPONENT = 10
_TRIALS = 64
_NEAR = 0.3
"""Spread of a neighbourhood, as a share of that of its component: with all of it, it would be no nearer."""
_DECIMALS = 5
"""A code is rounded so that its draw stays short; far finer than what a decoder tells apart."""


@dataclass(frozen=True, eq=False)
class Codes:
    """The training data in a latent space.

    Parameters
    ----------
    latents : ndarray, (n, d), float32
    volumes_mm3 : ndarray, (n,), float64
        Of each lesion; 0 where that says nothing.
    names : tuple of TrainedOn
        Who they are.
    weights, means, spreads : ndarray, (k,), (k, d), (k, d)
        Mixture of Gaussians with axis-parallel spread.
    """

    latents: NDArray[np.float32]
    volumes_mm3: NDArray[np.float64]
    names: tuple[TrainedOn, ...]
    weights: NDArray[np.float64]
    means: NDArray[np.float64]
    spreads: NDArray[np.float64]

    def arrays(self, prefix: str) -> dict[str, NDArray[Any]]:
        """What a checkpoint keeps beside the names."""
        return {f"{prefix}{name}": getattr(self, name) for name in _ARRAYS}

    @classmethod
    def from_arrays(cls, prefix: str, arrays: dict[str, NDArray[Any]], names: object) -> Codes:
        """The reverse of :meth:`arrays`; `names` as the card of a checkpoint has them."""
        known = TypeAdapter(tuple[TrainedOn, ...]).validate_python(names)
        return cls(names=known, **{name: arrays[f"{prefix}{name}"] for name in _ARRAYS})


def fit_codes(
    latents: NDArray[np.float32], volumes_mm3: NDArray[np.float64], names: tuple[TrainedOn, ...], seed: int
) -> Codes:
    """Fit the mixture; the number of its components is that of the best BIC, up to one a ten cases.

    References
    ----------
    Schwarz, Estimating the Dimension of a Model, Annals of Statistics 1978, doi:10.1214/aos/1176344136.
    """
    mixture = needed("sklearn.mixture")
    most = max(1, min(_MOST_COMPONENTS, len(latents) // _CASES_PER_COMPONENT))
    data = latents.astype(np.float64)
    floor = 1e-3 * max(float(data.var(axis=0).mean()), 1e-6)
    tried = [
        mixture.GaussianMixture(k, covariance_type="diag", reg_covar=floor, random_state=seed % 2**32).fit(
            data if len(data) > 1 else np.repeat(data, 2, axis=0)
        )
        for k in range(1, most + 1)
    ]
    best = min(tried, key=lambda m: m.bic(data))
    return Codes(latents, volumes_mm3, names, best.weights_, best.means_, np.sqrt(best.covariances_))


def prior_codes(latent: int) -> Codes:
    """Of a model that encodes nothing: a mixture of one component, the prior, and no neighbours."""
    nothing, one = np.empty((0, latent), np.float32), np.ones((1, latent))
    return Codes(nothing, np.empty(0), (), np.ones(1), 0 * one, one)


def trial_codes(codes: Codes, sampling: Sampling, seed: int) -> list[list[float]]:
    """Some draws, by which the share of usable ones is measured."""
    drawn = [draw_code(codes, sampling, 1.0, stream(seed, "trials", sampling, k)) for k in range(_TRIALS)]
    return [draw[0] for draw in drawn if draw is not None]


def draw_code(
    codes: Codes,
    sampling: Sampling,
    spread: float,
    rng: np.random.Generator,
    fits: NDArray[np.bool_] | None = None,
) -> tuple[list[float], TrainedOn | None] | None:
    """Draw a code, as plain numbers, and whom it is near; None where nothing trained on fits.

    Parameters
    ----------
    codes : Codes
    sampling : str
        prior: N(0, I); mixture: of the fitted Gaussians; neighbourhood: Gaussian about one of the training
        data, with 0.3 times the spread of the component of the mixture that is nearest.
    spread : float
        Factor on the standard deviation.
    rng : numpy.random.Generator
    fits : ndarray, (n,), bool, optional
        Of which data the neighbourhood may be; all by default.
    """
    n, d = codes.latents.shape
    noise = np.multiply(spread, rng.standard_normal(d))
    near: TrainedOn | None = None
    if sampling == "prior":
        code = noise
    elif sampling == "mixture":
        k = int(rng.choice(len(codes.weights), p=codes.weights / codes.weights.sum()))
        code = codes.means[k] + codes.spreads[k] * noise
    else:
        among = np.arange(n) if fits is None else np.flatnonzero(fits)
        if among.size == 0:
            return None
        chosen = int(among[int(rng.integers(among.size))])
        k = int(np.argmin(((codes.means - codes.latents[chosen]) ** 2).sum(axis=1)))
        code = codes.latents[chosen] + _NEAR * codes.spreads[k] * noise
        near = codes.names[chosen]
    return [round(float(v), _DECIMALS) for v in code], near
