"""How far apart the distributions of single features of real and of made lesions are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp, wasserstein_distance

from lesionsynth.kernels.intensity import MAD_TO_SD
from lesionsynth.qc.realism.lesions import POSITIONS, Seen

OF_CHANNELS = {
    "contrast": "level",
    "seam": "seam",
    "spread ratio": "spread ratio",
    "fine texture": "band 0 inside",
    "coarse texture": "band 1.4 inside",
    "edge texture": "band 0 edge",
}
"""Features of each channel that are told one by one, and what they are called in a look."""

OF_FORM = (
    *("volume_mm3", "length_mm", "sphericity", "elongation", "flatness", "edge_mm", "fluid_mm"),
    *POSITIONS,
)
"""Features of size, shape and location."""

_BY_LOGARITHM = ("volume_mm3", "length_mm")
"""Features whose spread and distance are those of the logarithm: sizes differ by factors."""

PLACE = "place"
"""Class of a lesion's site: the only feature that is no number."""


@dataclass(frozen=True)
class FeatureDistance:
    """One feature in real and made lesions.

    Parameters
    ----------
    feature : str
    real, synthetic : float or None
        Medians.
    ks : float
        Largest difference of the two cumulative distributions: 0 alike, 1 apart. Of `place`, half the sum of
        the differences of the shares.
    wasserstein : float or None
        Mean distance by which values must be moved to make the two alike, in robust spreads of the real ones;
        None where real lesions do not differ, and for `place`. Of sizes, by their logarithms.
    n_real, n_synthetic : int
    """

    feature: str
    real: float | None
    synthetic: float | None
    ks: float
    wasserstein: float | None
    n_real: int
    n_synthetic: int


def feature_names(channels: Sequence[str]) -> list[str]:
    """Names of all features, of all channels."""
    return [*OF_FORM, PLACE, *(f"{name} {channel}" for name in OF_CHANNELS for channel in channels)]


def features_of(row: Seen, channels: Sequence[str]) -> dict[str, float]:
    """The single features of one lesion that are numbers; those that it has not are missing."""
    found = {name: row.form[name] for name in OF_FORM if name in row.form}
    for name, key in OF_CHANNELS.items():
        found |= {f"{name} {channel}": row.look[f"{number} {key}"] for number, channel in enumerate(channels)}
    return found


def distances(real: Sequence[Seen], made: Sequence[Seen], channels: Sequence[str]) -> list[FeatureDistance]:
    """Distance of every feature that both have, in the order of :func:`feature_names`."""
    columns = [[features_of(row, channels) for row in rows] for rows in (real, made)]
    found = []
    for name in feature_names(channels):
        if name == PLACE:
            found += _places(real, made)
            continue
        one, other = (np.array([row[name] for row in rows if name in row]) for rows in columns)
        if one.size and other.size:
            found.append(distance(name, one, other))
    return found


def distance(name: str, real: NDArray[np.float64], made: NDArray[np.float64]) -> FeatureDistance:
    """Distance of two samples, neither empty, of one feature."""
    one, other = (np.log(real), np.log(made)) if name in _BY_LOGARITHM else (real, made)
    spread = float(MAD_TO_SD * np.median(np.abs(one - np.median(one))))
    moved = float(wasserstein_distance(one, other))
    return FeatureDistance(
        name,
        float(np.median(real)),
        float(np.median(made)),
        float(ks_2samp(real, made, method="asymp").statistic),
        moved / spread if spread > 0 else None,
        len(real),
        len(made),
    )


def _places(real: Sequence[Seen], made: Sequence[Seen]) -> list[FeatureDistance]:
    one, other = (Counter(row.place for row in rows if row.place) for rows in (real, made))
    n_real, n_made = one.total(), other.total()
    if not n_real or not n_made:
        return []
    apart = 0.5 * sum(abs(one[name] / n_real - other[name] / n_made) for name in one | other)
    return [FeatureDistance(PLACE, None, None, apart, None, n_real, n_made)]
