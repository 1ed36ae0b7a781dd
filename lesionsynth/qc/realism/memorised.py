"""Whether added lesions are nearer to those they could be copied from than other people's lesions are.

After the data-copying test of Meehan, Chaudhuri and Dasgupta, AISTATS 2020, arXiv:2004.05675: distances of
made lesions to the nearest training lesion against those of held-out real ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.stats import ks_2samp

from lesionsynth.kernels.intensity import MAD_TO_SD
from lesionsynth.qc.realism.lesions import Seen

_FORM = ("sphericity", "elongation", "flatness")
_LOOK = ("level", "spread", "level p5", "level p95")
"""Intensities of the lesion itself: how it is joined to its surroundings must not hide that it is a copy."""
_NEAR_QUANTILE = 0.05
_MOST_SPREADS = 5.0
"""A single feature counts at most so much: one outlier must not decide who is near."""


@dataclass(frozen=True)
class Memorised:
    """Distances to the nearest training lesion, in spreads of a feature (root mean square over features).

    Parameters
    ----------
    added, held_out : float or None
        Medians; None where there are too few.
    near_share : float or None
        Share of added lesions that are nearer than one in twenty of the held-out ones: 0.05 is expected.
    ks : float or None
        Kolmogorov-Smirnov distance of the two distributions.
    n_added, n_held_out, n_training : int
        Lesions; a real one is held out from every block that its subject is outside of.
    how : str
        Who was held out.
    note : str
        Why there is nothing.
    coverage : float
        Share of the real lesions that were looked at: a copy of any other seems new.
    """

    added: float | None
    held_out: float | None
    near_share: float | None
    ks: float | None
    n_added: int
    n_held_out: int
    n_training: int
    how: str
    note: str = ""
    coverage: float = 1.0


def memorised(
    real: Sequence[Seen], made: Sequence[Seen], n_channels: int, least: int, coverage: float = 1.0
) -> Memorised:
    """Compare added lesions with the real ones of the subjects behind them.

    Parameters
    ----------
    real : sequence of Seen
    made : sequence of Seen
        `behind` says whose lesions each could be a copy of; all real ones where it is empty.
    n_channels : int
    least : int
        Fewer added or held-out lesions are not judged.
    coverage : float
        Share of the real lesions that `real` is.

    Returns
    -------
    Memorised
        Held out from each set of training lesions are those of other subjects. Where nobody is outside
        (folds none), each subject's lesions are held out in turn and compared with everybody else's.
    """
    everybody = frozenset(row.subject for row in real)
    sets = sorted({frozenset(row.behind) & everybody or everybody for row in made}, key=sorted)
    inside = all(subjects == everybody for subjects in sets)
    how = "each subject in turn" if inside else "subjects outside the block"
    if not real or not made:
        return Memorised(None, None, None, None, len(made), 0, len(real), how, "there are none of one kind")
    x, z = _scaled(real, made, n_channels)
    subject = np.array([row.subject for row in real])
    of_added = np.full(len(made), np.nan)
    of_held_out: list[float] = []
    held_out = np.zeros(len(real), dtype=bool)
    for subjects in sets:
        trains = np.isin(subject, sorted(subjects))
        rows = [
            k for k, row in enumerate(made) if (frozenset(row.behind) & everybody or everybody) == subjects
        ]
        of_added[rows] = _nearest(z[rows], x[trains])
        if not inside:
            of_held_out += _nearest(x[~trains], x[trains]).tolist()
            held_out |= ~trains
    if inside:
        for name in sorted(everybody):
            own = subject == name
            if not own.all():
                of_held_out += _nearest(x[own], x[~own]).tolist()
                held_out |= own
    n_held_out = int(held_out.sum())
    if min(len(made), n_held_out) < least:
        note = f"fewer than {least} added or held-out lesions"
        return Memorised(None, None, None, None, len(made), n_held_out, len(real), how, note)
    near = float(np.quantile(of_held_out, _NEAR_QUANTILE))
    return Memorised(
        float(np.median(of_added)),
        float(np.median(of_held_out)),
        float((of_added < near).mean()),
        float(ks_2samp(of_added, of_held_out, method="asymp").statistic),
        len(made),
        n_held_out,
        len(real),
        how,
        coverage=coverage,
    )


def _scaled(
    real: Sequence[Seen], made: Sequence[Seen], n_channels: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Features of both in robust spreads of the real ones, without those in which these do not differ.

    The size counts by its logarithm.
    """
    names = [f"{number} {name}" for number in range(n_channels) for name in _LOOK]
    columns = [
        np.array(
            [
                [
                    np.log(row.volume_mm3),
                    *(row.form[name] for name in _FORM),
                    *(row.look[name] for name in names),
                ]
                for row in rows
            ]
        )
        for rows in (real, made)
    ]
    middle = np.median(columns[0], axis=0)
    spread = MAD_TO_SD * np.median(np.abs(columns[0] - middle), axis=0)
    differ = spread > 0
    x, z = ((c[:, differ] - middle[differ]) / spread[differ] for c in columns)
    return x, z


def _nearest(x: NDArray[np.float64], training: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of each row to the nearest training row, per feature; infinite where there is none."""
    if not len(x) or not len(training):
        return np.full(len(x), np.inf)
    if not x.shape[1]:
        return np.zeros(len(x))
    return np.sqrt(cdist(_cut(x), _cut(training), "sqeuclidean").min(axis=1) / x.shape[1])


def _cut(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.clip(x, -_MOST_SPREADS, _MOST_SPREADS)
