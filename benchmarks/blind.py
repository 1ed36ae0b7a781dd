"""Can a classifier tell filled from untouched tissue? Features of a place, and a random forest on them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

MARGIN = 9
"""Voxels around a place that its features look at."""

_RINGS_MM = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0)
_SHELL_MM = (3.0, 7.0)
_BANDS = ((0.0, 0.7), (0.7, 1.4), (1.4, 2.8))


def features(
    values: NDArray[np.float32],
    mask: NDArray[np.bool_],
    tissue: NDArray[np.bool_],
    scale: Sequence[float],
    spacing_mm: Sequence[float],
) -> NDArray[np.float64]:
    """What a place looks like in each channel: contrast, radial profile, texture, edge; and across channels.

    Parameters
    ----------
    values : ndarray, (C, i, j, k)
        The place with MARGIN voxels around it.
    mask : ndarray, (i, j, k), bool
        The lesion that was, or is said to have been, here.
    tissue : ndarray, (i, j, k), bool
        White and grey matter without other lesions: only there anything is looked at.
    scale : sequence of float
        Spread of the channel's clean tissue.
    spacing_mm : sequence of float
    """
    distance = ndimage.distance_transform_edt(~mask, sampling=spacing_mm)
    distance = np.where(mask, 1.0 - ndimage.distance_transform_edt(mask, sampling=spacing_mm), distance)
    shell = (distance > _SHELL_MM[0]) & (distance <= _SHELL_MM[1]) & tissue
    # What a fill has changed: the place and the rim by which it was grown.
    inner = (distance <= 2.0) & tissue
    edge = (distance > 1.0) & (distance <= 3.0) & tissue
    rings = [(distance > low) & (distance <= low + 1.0) & tissue for low in _RINGS_MM]
    found: list[float] = []
    smooth = []
    for channel, spread in zip(values.astype(np.float64), scale, strict=True):
        unit = (channel - np.median(channel[shell])) / spread
        smooth.append(unit)
        gradient = np.sqrt(sum(np.gradient(unit, axis=a) ** 2 for a in range(3)))
        local_mean = ndimage.uniform_filter(unit, 3)
        rough = np.sqrt(np.maximum(ndimage.uniform_filter(unit**2, 3) - local_mean**2, 0))
        found += [_mean(unit, ring) for ring in rings]
        found += [_ratio(_mean(rough, ring), _mean(rough, shell)) for ring in rings]
        found += [_ratio(_mean(gradient, ring), _mean(gradient, shell)) for ring in rings]
        found += [_mean(unit, inner), float(unit[inner].std()), _ratio(unit[inner].std(), unit[shell].std())]
        found += list(np.percentile(unit[inner], (5, 50, 95)))
        found += [_ratio(_mean(gradient, edge), _mean(gradient, inner))]
        for low, high in _BANDS:
            band = (ndimage.gaussian_filter(unit, low) if low else unit) - ndimage.gaussian_filter(unit, high)
            found += [
                _ratio(band[inner].std(), band[shell].std()),
                _ratio(band[edge].std(), band[shell].std()),
            ]
        for axis in range(3):
            step = np.diff(unit, axis=axis)
            for where in (inner, edge):
                pair = np.take(where, range(1, where.shape[axis]), axis) & np.take(
                    where, range(where.shape[axis] - 1), axis
                )
                found.append(float(np.abs(step[pair]).mean()) if pair.any() else 0.0)
    for a in range(len(smooth)):
        for b in range(a):
            found += [_alike(smooth[a], smooth[b], inner), _alike(smooth[a], smooth[b], shell)]
    return np.nan_to_num(np.array(found))


def _mean(values: NDArray[np.float64], where: NDArray[np.bool_]) -> float:
    return float(values[where].mean()) if where.any() else 0.0


def _ratio(a: float, b: float) -> float:
    return float(a / b) if b > 0 else 1.0


def _alike(a: NDArray[np.float64], b: NDArray[np.float64], where: NDArray[np.bool_]) -> float:
    """Correlation of the fine detail of two channels."""
    a, b = ((c - ndimage.gaussian_filter(c, 1.4))[where] for c in (a, b))
    return float(np.corrcoef(a, b)[0, 1]) if a.size > 3 and a.std() > 0 and b.std() > 0 else 0.0


def auc(
    fake: NDArray[np.float64], real: NDArray[np.float64], groups: NDArray[np.int64], rounds: int = 3
) -> tuple[float, float]:
    """Area under the curve of telling `fake` from `real`, rows being places; no group in both parts.

    Returns
    -------
    median, range : float
        Over `rounds` forests and ways to share the groups out.
    """
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GroupKFold

    x = np.concatenate([fake, real])
    y = np.concatenate([np.ones(len(fake)), np.zeros(len(real))])
    group = np.concatenate([groups, groups])
    n_folds = min(5, len(np.unique(groups)))
    results = []
    for seed in range(rounds):
        order = np.random.default_rng(seed).permutation(group.max() + 1)
        score = np.zeros(len(y))
        for train, test in GroupKFold(n_folds).split(x, y, order[group]):
            forest = RandomForestClassifier(200, min_samples_leaf=2, random_state=seed)
            score[test] = forest.fit(x[train], y[train]).predict_proba(x[test])[:, 1]
        results.append(roc_auc_score(y, score))
    return float(np.median(results)), float(np.ptp(results))
