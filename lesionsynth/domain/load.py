"""Lesion load: how much of it there is, and how much there shall be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LesionLoad:
    """Total lesion volume of a case.

    Parameters
    ----------
    ml : float
        Volume in mL, specks included.
    count : int
        Connected components (26-neighbourhood).
    tissue_ml : float
        Volume of the tissue that may hold lesions; 0 for masks alone.
    """

    ml: float
    count: int
    tissue_ml: float


@dataclass(frozen=True)
class LoadTarget:
    """A load to be reached, and how it came about.

    Parameters
    ----------
    ml : float
        The target in mL.
    drawn_ml : float
        As drawn, before it was kept within what the host's tissue can hold.
    tolerance : float
        Relative error at which it counts as met.
    """

    ml: float
    drawn_ml: float
    tolerance: float

    @property
    def low_ml(self) -> float:
        """Least load that meets the target."""
        return self.ml * (1.0 - self.tolerance)

    @property
    def high_ml(self) -> float:
        """Largest load that meets the target."""
        return self.ml * (1.0 + self.tolerance)

    def met_by(self, load_ml: float) -> bool:
        """Whether `load_ml` lies within the tolerance."""
        return self.low_ml - 1e-9 <= load_ml <= self.high_ml + 1e-9


LOAD_KINDS = ("low", "medium", "high", "uniform", "gaussian", "real")
"""Distributions fitted on the training subjects' loads."""


def draw_load_ml(kind: str, loads_ml: Sequence[float], rng: np.random.Generator) -> float:
    """Draw a target load from the loads of the training subjects.

    Parameters
    ----------
    kind : str
        With q the quantiles of `loads_ml`: low U(q5, q33), medium U(q33, q67), high U(q67, q95),
        uniform U(q5, q95), gaussian N(mean, sd) cut to [q5, q95], real = one of the loads with
        10 % jitter.
    loads_ml : sequence of float
        Loads of the training subjects in mL; at least one.
    rng : numpy.random.Generator
        Stream of this draw.

    Returns
    -------
    float
        Load in mL, not negative.

    References
    ----------
    Basaran et al., LesionMix, DALI at MICCAI 2023, arXiv:2308.09026 (names of the distributions;
    the quantiles are ours).
    """
    loads = np.sort(np.asarray(loads_ml, dtype=np.float64))
    q5, q33, q67, q95 = np.quantile(loads, (0.05, 1 / 3, 2 / 3, 0.95))
    spans = {"low": (q5, q33), "medium": (q33, q67), "high": (q67, q95), "uniform": (q5, q95)}
    if kind in spans:
        return float(rng.uniform(*spans[kind]))
    if kind == "gaussian":
        return float(np.clip(rng.normal(loads.mean(), loads.std()), q5, q95))
    if kind == "real":
        return float(rng.choice(loads) * rng.uniform(0.9, 1.1))
    raise ValueError(f"unknown load distribution {kind!r}; known are {', '.join(LOAD_KINDS)}")
