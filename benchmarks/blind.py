"""Can a classifier tell made from real? Features of a place, and a random forest on them.

Used on filled and untouched tissue, and on inserted and real lesions.
"""

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
    """What a filled place looks like, see :func:`looks`: the place and the rim by which it was grown."""
    return np.array(list(looks(values, mask, tissue, scale, spacing_mm).values()))


def looks(
    values: NDArray[np.float32],
    mask: NDArray[np.bool_],
    tissue: NDArray[np.bool_],
    scale: Sequence[float],
    spacing_mm: Sequence[float],
    inner_mm: float = 2.0,
    rings_mm: Sequence[float] = _RINGS_MM,
    around: NDArray[np.bool_] | None = None,
) -> dict[str, float]:
    """What a place looks like in each channel: contrast, radial profile, texture, edge; and across channels.

    Names begin with the number of the channel, or of two.

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
    inner_mm : float
        The place reaches so far beyond the mask, and its edge a millimetre to either side of that.
    rings_mm : sequence of float
        Distances from the mask's edge at which rings of 1 mm begin, negative inside. Those deep inside are
        there in large lesions only, and tell the size.
    around : ndarray, (i, j, k), bool, optional
        What the surroundings that level and texture are compared with are taken from; all of `tissue` by
        default.
    """
    distance = ndimage.distance_transform_edt(~mask, sampling=spacing_mm)
    distance = np.where(mask, 1.0 - ndimage.distance_transform_edt(mask, sampling=spacing_mm), distance)
    shell = (distance > _SHELL_MM[0]) & (distance <= _SHELL_MM[1])
    shell &= tissue if around is None else around
    inner = (distance <= inner_mm) & tissue
    edge = (distance > inner_mm - 1.0) & (distance <= inner_mm + 1.0) & tissue
    rings = {low: (distance > low) & (distance <= low + 1.0) & tissue for low in rings_mm}
    found: dict[str, float] = {}
    smooth = []
    for number, (channel, spread) in enumerate(zip(values.astype(np.float64), scale, strict=True)):
        unit = (channel - np.median(channel[shell])) / spread
        smooth.append(unit)
        gradient = np.sqrt(sum(np.gradient(unit, axis=a) ** 2 for a in range(3)))
        local_mean = ndimage.uniform_filter(unit, 3)
        rough = np.sqrt(np.maximum(ndimage.uniform_filter(unit**2, 3) - local_mean**2, 0))
        own: dict[str, float] = {}
        own |= {f"level {low:+.0f} mm": _mean(unit, ring) for low, ring in rings.items()}
        for name, image in (("roughness", rough), ("gradient", gradient)):
            usual = _mean(image, shell)
            own |= {f"{name} {low:+.0f} mm": _ratio(_mean(image, ring), usual) for low, ring in rings.items()}
        own |= {"level": _mean(unit, inner), "spread": float(unit[inner].std())}
        own["spread ratio"] = _ratio(unit[inner].std(), unit[shell].std())
        own |= {f"level p{q}": float(np.percentile(unit[inner], q)) for q in (5, 50, 95)}
        own["gradient edge/inside"] = _ratio(_mean(gradient, edge), _mean(gradient, inner))
        for low, high in _BANDS:
            band = (ndimage.gaussian_filter(unit, low) if low else unit) - ndimage.gaussian_filter(unit, high)
            own[f"band {low:g} inside"] = _ratio(band[inner].std(), band[shell].std())
            own[f"band {low:g} edge"] = _ratio(band[edge].std(), band[shell].std())
        for axis in range(3):
            step = np.diff(unit, axis=axis)
            for name, where in (("inside", inner), ("edge", edge)):
                pair = np.take(where, range(1, where.shape[axis]), axis) & np.take(
                    where, range(where.shape[axis] - 1), axis
                )
                own[f"step {axis} {name}"] = float(np.abs(step[pair]).mean()) if pair.any() else 0.0
        found |= {f"{number} {name}": value for name, value in own.items()}
    for a in range(len(smooth)):
        for b in range(a):
            found[f"{b}{a} alike inside"] = _alike(smooth[a], smooth[b], inner)
            found[f"{b}{a} alike around"] = _alike(smooth[a], smooth[b], shell)
    return {name: float(np.nan_to_num(value)) for name, value in found.items()}


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
    from sklearn.metrics import roc_auc_score

    x = np.concatenate([fake, real])
    y = np.concatenate([np.ones(len(fake)), np.zeros(len(real))])
    group = np.concatenate([groups, groups])
    results = [roc_auc_score(y, scores(x, y, group, seed)) for seed in range(rounds)]
    return float(np.median(results)), float(np.ptp(results))


def scores(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    group: NDArray[np.int64],
    seed: int,
    weight: NDArray[np.float64] | None = None,
    n_folds: int = 5,
) -> NDArray[np.float64]:
    """How made each row looks to a forest that has not seen its group."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import GroupKFold

    order = np.random.default_rng(seed).permutation(group.max() + 1)
    score = np.zeros(len(y))
    folds = GroupKFold(min(n_folds, len(np.unique(group))))
    for train, test in folds.split(x, y, order[group]):
        forest = RandomForestClassifier(200, min_samples_leaf=2, random_state=seed)
        forest.fit(x[train], y[train], None if weight is None else weight[train])
        score[test] = forest.predict_proba(x[test])[:, 1]
    return score
