"""How well a map of probabilities finds the lesions of a case."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lesionsynth.kernels.components import components
from lesionsynth.kernels.distance import distance_to_mm

STRATA_MM3 = {"small": (0.0, 100.0), "medium": (100.0, 1000.0), "large": (1000.0, np.inf)}
"""Volumes of the true lesions of each stratum, the upper limit excluded."""


def segmentation_measures(
    found: NDArray[np.bool_], truth: NDArray[np.bool_], spacing_mm: Sequence[float]
) -> dict[str, float | None]:
    """Measures of a segmentation, None where they are not defined.

    Parameters
    ----------
    found, truth : ndarray, (i, j, k), bool
        Without voxels that are to be ignored.
    spacing_mm : sequence of float

    Returns
    -------
    dict
        `dice` (1 where both are empty); `sensitivity`, `ppv` and `f1` of lesions: connected pieces (26
        neighbours), found or right if a voxel is shared; `hd95_mm`, the larger of the two directed 95th
        percentiles of distances between surfaces; `volume_ratio`, found over true; and, by the size of
        the true lesions, `sensitivity_<stratum>`.
    """
    both, total = int(np.count_nonzero(found & truth)), int(found.sum()) + int(truth.sum())
    numbers, boxes = components(truth)
    sizes = np.bincount(numbers[truth], minlength=len(boxes) + 1)[1:] * float(np.prod(spacing_mm))
    hit = np.isin(np.arange(1, len(boxes) + 1), numbers[found & truth])
    guesses, guessed = components(found)
    right = len(np.unique(guesses[found & truth]))
    sensitivity = float(hit.mean()) if len(hit) else None
    ppv = right / len(guessed) if guessed else None
    missed, wrong = int((~hit).sum()), len(guessed) - right
    lesions = 2 * int(hit.sum()) + missed + wrong
    measures: dict[str, float | None] = {
        "dice": 2 * both / total if total else 1.0,
        "sensitivity": sensitivity,
        "ppv": ppv,
        "f1": 2 * int(hit.sum()) / lesions if lesions else None,
        "hd95_mm": _hd95_mm(found, truth, spacing_mm),
        "volume_ratio": float(found.sum() / truth.sum()) if truth.any() else None,
    }
    for name, (low, high) in STRATA_MM3.items():
        of_size = hit[(sizes >= low) & (sizes < high)]
        measures[f"sensitivity_{name}"] = float(of_size.mean()) if len(of_size) else None
    return measures


def _hd95_mm(found: NDArray[np.bool_], truth: NDArray[np.bool_], spacing_mm: Sequence[float]) -> float | None:
    if not found.any() or not truth.any():
        return None
    one, other = (mask & ~ndimage.binary_erosion(mask) for mask in (found, truth))
    there = np.percentile(distance_to_mm(other, spacing_mm)[one], 95)
    back = np.percentile(distance_to_mm(one, spacing_mm)[other], 95)
    return float(max(there, back))


def auprc(probability: NDArray[np.float32], truth: NDArray[np.bool_]) -> float | None:
    """Area under the curve of precision over recall, as average precision; None without a true voxel.

    Voxels of equal probability are one step of the curve.
    """
    if not truth.any():
        return None
    order = np.argsort(-probability, kind="stable")
    values, hits = probability[order], truth[order]
    last = np.flatnonzero(np.append(np.diff(values) != 0, True))
    true = np.cumsum(hits)[last]
    precision = true / (last + 1)
    return float((np.diff(true, prepend=0) * precision).sum() / hits.sum())


def best_threshold(cases: Sequence[tuple[NDArray[np.float32], NDArray[np.bool_]]]) -> float:
    """The threshold with the highest mean Dice over (probability, truth) of cases; 0.5 if none is better.

    Denser near 0 and 1: networks that saw hardly any lesion are sure of none.
    """
    near_0 = [0.001, 0.002, 0.005, 0.01, 0.02]
    evenly = np.linspace(0.05, 0.95, 19).round(3).tolist()
    candidates = [0.5, *near_0, *evenly, *(1 - value for value in near_0[::-1])]
    scores = [
        np.mean([_dice(probability >= candidate, truth) for probability, truth in cases])
        for candidate in candidates
    ]
    return float(candidates[int(np.argmax(scores))])


def _dice(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    total = int(found.sum()) + int(truth.sum())
    return 2.0 * int(np.count_nonzero(found & truth)) / total if total else 1.0
