"""Classifier two-sample tests: whether a random forest tells made from real lesions it has not seen.

Lopez-Paz and Oquab, Revisiting classifier two-sample tests, ICLR 2017, arXiv:1610.06545; here the area under
the curve stands for the accuracy, and lesions that belong together are never in both parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from lesionsynth.errors import LesionsynthError
from lesionsynth.qc.realism.features import is_beyond
from lesionsynth.qc.realism.lesions import Seen
from lesionsynth.rng import stream

_TREES = 200
_FOLDS = 5
_SAMPLES = 200
_SIZES = 5
"""Classes of size that are weighed alike."""
_SHARED_FROM = 0.5
"""Sizes are weighed alike within hosts if so many made lesions have a real one of their size in the host."""
_FLOOR_ROUNDS = 10

Columns = Literal["look", "place"]
Row = TypeVar("Row")


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval and its sample sizes; None, with the reason, where there is none.

    Parameters
    ----------
    value, low, high : float or None
        Of a floor, `low` and `high` are the mean minus and plus the standard deviation over ways to halve.
    n_real, n_synthetic : int
        Lesions or places that took part.
    n_groups : int
        Donor lesions, hosts or places by which they were kept apart.
    n_both : int
        Of these, how many hold both kinds.
    note : str
        Why there is no value.
    """

    value: float | None
    low: float | None
    high: float | None
    n_real: int
    n_synthetic: int
    n_groups: int
    n_both: int = 0
    note: str = ""


@dataclass(frozen=True, eq=False)
class Sample:
    """Lesions as a classifier sees them.

    Parameters
    ----------
    x : ndarray, (n, p), float64
    names : tuple of str
        Of the p features.
    host, group : ndarray, (n,), str
    volume_mm3 : ndarray, (n,), float64
    """

    x: NDArray[np.float64]
    names: tuple[str, ...]
    host: NDArray[np.str_]
    group: NDArray[np.str_]
    volume_mm3: NDArray[np.float64]

    @classmethod
    def of(cls, rows: Sequence[Seen]) -> Sample:
        """Of what was seen."""
        names = tuple(rows[0].look) if rows else ()
        return cls(
            np.array([[row.look[name] for name in names] for row in rows]).reshape(len(rows), len(names)),
            names,
            np.array([row.host for row in rows], dtype=str),
            np.array([row.group for row in rows], dtype=str),
            np.array([row.volume_mm3 for row in rows]),
        )

    def __len__(self) -> int:
        return len(self.volume_mm3)

    def part(self, index: Any) -> Sample:
        """Some of the rows."""
        arrays = (self.host[index], self.group[index], self.volume_mm3[index])
        return Sample(self.x[index], self.names, *arrays)


def limited(rows: Sequence[Row], most: int, seed: int, what: str) -> list[Row]:
    """At most so many rows, in their order."""
    order = stream(seed, "realism", what).permutation(len(rows))[:most]
    return [rows[k] for k in sorted(order)]


def weights(
    real: Sample, made: Sample
) -> tuple[NDArray[np.float64], NDArray[np.float64], Literal["host and size", "size"]]:
    """Weights by which both have as many of each size, in each host where the hosts are shared; 0 elsewhere.

    Classes of size hold as many real lesions each, within the sizes that both have.

    Returns
    -------
    w_real, w_made : ndarray
    alike : str
        What they are alike in.
    """
    low = max(real.volume_mm3.min(), made.volume_mm3.min())
    high = min(real.volume_mm3.max(), made.volume_mm3.max())
    inside = [(s.volume_mm3 >= low) & (s.volume_mm3 <= high) for s in (real, made)]
    within = real.volume_mm3[inside[0]]
    count = int(np.clip(len(within) // 8, 1, _SIZES))
    edges = np.quantile(within, np.linspace(0, 1, count + 1)[1:-1]) if len(within) else np.empty(0)
    hosts = np.unique(np.concatenate([real.host, made.host]))
    sizes = [np.digitize(s.volume_mm3, edges) for s in (real, made)]
    cells = [
        np.searchsorted(hosts, s.host) * count + size for s, size in zip((real, made), sizes, strict=True)
    ]
    alike: Literal["host and size", "size"] = "host and size"
    shared = np.count_nonzero(np.isin(cells[1][inside[1]], cells[0][inside[0]]))
    if shared < _SHARED_FROM * np.count_nonzero(inside[1]):
        cells, alike = sizes, "size"
    n = len(hosts) * count
    own, other = (
        np.bincount(cell, weights=keep, minlength=n) for cell, keep in zip(cells, inside, strict=True)
    )
    both = (own > 0) & (other > 0)
    share = np.where(both, own / np.maximum(other, 1), 0.0)
    return both[cells[0]] * inside[0].astype(float), share[cells[1]] * inside[1], alike


def told_apart(
    real: Sample,
    made: Sample,
    apart: Literal["host", "group"],
    columns: Columns,
    seed: int,
    least: int,
    n_jobs: int = 1,
    rounds: int = 2,
    samples: int | None = None,
) -> Estimate:
    """Area under the curve of telling `made` from `real`, 0.5 where it cannot be done.

    Parameters
    ----------
    real, made : Sample
    apart : str
        What is never in both parts: a host, or a group.
    columns : str
        "look": what the lesion itself looks like; "place": what lies 3 mm and more around it. The second
        is a control: some of what it gives away leaks into the first.
    seed : int
        Of forests, parts and bootstrap.
    least : int
        Fewer of either kind are not judged.
    n_jobs : int
        Processes; the result does not depend on them.
    rounds : int
        Forests and ways to share the groups out.
    samples : int, optional
        Bootstrap samples of groups, whose middle 95 % are the interval; 200 by default.

    Raises
    ------
    LesionsynthError
        If scikit-learn is not installed or fails.
    """
    if not len(real) or not len(made):
        return Estimate(None, None, None, len(real), len(made), 0, 0, "there are none of one kind")
    w_real, w_made, _ = weights(real, made)
    weight = np.concatenate([w_real, w_made])
    y = np.repeat([0, 1], [len(real), len(made)])
    used = weight > 0
    x = np.concatenate([real.x, made.x])[:, [is_beyond(name) == (columns == "place") for name in real.names]]
    names = np.concatenate([getattr(real, apart), getattr(made, apart)])
    n_real, n_made = int(used[y == 0].sum()), int(used[y == 1].sum())
    key = np.unique(names[used], return_inverse=True)[1]
    n_groups = int(key.max()) + 1 if key.size else 0
    held = np.stack([np.bincount(key, y[used] == kind, minlength=1) > 0 for kind in (0, 1)])
    n_both = int(held.all(axis=0).sum())

    def nothing(note: str) -> Estimate:
        return Estimate(None, None, None, n_real, n_made, n_groups, n_both, note)

    if min(n_real, n_made) < least:
        return nothing(f"fewer than {least} of one kind, of sizes that both have")
    if n_groups < 2:
        return nothing("all are of one host" if apart == "host" else "all are of one lesion")
    if not x.shape[1]:
        return nothing("there are no such features")
    bundle = np.unique(np.concatenate([real.group, made.group])[used], return_inverse=True)[1]
    x, y, weight = x[used], y[used], weight[used]
    seen = [_scores(x, y, key, weight, seed, number, n_jobs) for number in range(rounds)]
    # Scores of forests that have seen different hosts do not compare; by group they are pooled.
    if apart == "group":
        scores = np.mean([score for score, _ in seen], axis=0)
        parts = [(scores, np.where(np.isnan(scores), -1, 0))]
    else:
        parts = [(score, np.where(np.isnan(score), -1, fold)) for score, fold in seen]
    value = _area(y, weight, parts)
    if value is None:
        return nothing("no part holds both kinds")
    rng = stream(seed, "realism", "bootstrap", apart, columns)
    count = int(bundle.max()) + 1
    drawn = [
        _area(y, weight * np.bincount(rng.integers(count, size=count), minlength=count)[bundle], parts)
        for _ in range(_SAMPLES if samples is None else samples)
    ]
    known = [area for area in drawn if area is not None]
    low, high = np.percentile(known, (2.5, 97.5)) if known else (value, value)
    return Estimate(value, float(low), float(high), n_real, n_made, n_groups, n_both)


def floor(
    real: Sample, apart: Literal["host", "group"], columns: Columns, seed: int, least: int, n_jobs: int = 1
) -> Estimate:
    """The same between two halves of the real lesions, shared out at random within host and size.

    Returns
    -------
    Estimate
        Mean over ways to halve them, and the mean minus and plus the standard deviation.
    """
    if len(real) < 2:
        return Estimate(None, None, None, len(real), 0, 0, 0, "too few real lesions to halve them")
    edges = np.quantile(real.volume_mm3, np.linspace(0, 1, _SIZES + 1)[1:-1])
    cell = np.unique(real.host, return_inverse=True)[1] * _SIZES + np.digitize(real.volume_mm3, edges)
    found = []
    for number in range(_FLOOR_ROUNDS):
        order = stream(seed, "realism", "halves", number).permutation(len(real))
        order = order[np.argsort(cell[order], kind="stable")]
        halves = real.part(order[::2]), real.part(order[1::2])
        once = told_apart(*halves, apart, columns, seed + number, least, n_jobs, rounds=1, samples=0)
        if once.value is None:
            return once
        found.append(once)
    values = [once.value for once in found if once.value is not None]
    mean, spread = float(np.mean(values)), float(np.std(values))
    first = found[0]
    sizes = (first.n_real, first.n_synthetic, first.n_groups, first.n_both)
    return Estimate(mean, mean - spread, mean + spread, *sizes)


def _scores(
    x: NDArray[np.float64],
    y: NDArray[np.int64],
    key: NDArray[np.int64],
    weight: NDArray[np.float64],
    seed: int,
    number: int,
    n_jobs: int,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """How made each row looks to a forest that has not seen its group, and the part each row is in.

    NaN where the forest would have seen one kind only.
    """
    rng = stream(seed, "realism", "forest", number)
    fold = _folds(key, y, rng)
    score = np.full(len(y), np.nan)
    random_state = int(rng.integers(2**31))
    parts = [part for part in np.unique(fold) if np.unique(y[fold != part]).size == 2]
    sides = [(fold != part, fold == part) for part in parts]
    tasks = [(x[train], y[train], weight[train], x[test], _TREES, random_state) for train, test in sides]
    for (_, test), seen in zip(sides, _all(tasks, n_jobs), strict=True):
        score[test] = seen
    return score, fold


def _all(tasks: Sequence[tuple[Any, ...]], n_jobs: int) -> list[NDArray[np.float64]]:
    """What a forest says for each task, in their order; in processes, since small trees keep threads idle."""
    if n_jobs == 1:
        return [_forest(*task) for task in tasks]
    import joblib

    with joblib.parallel_config(backend="loky", inner_max_num_threads=1):
        found: list[NDArray[np.float64]] = joblib.Parallel(n_jobs)(
            joblib.delayed(_forest)(*task) for task in tasks
        )
    return found


def _forest(
    x: NDArray[np.float64],
    y: NDArray[np.int64],
    weight: NDArray[np.float64],
    unseen: NDArray[np.float64],
    trees: int,
    random_state: int,
) -> NDArray[np.float64]:
    """How made unseen rows look to a forest that has learned from others."""
    forest_kind, _, _ = _scikit_learn()
    try:
        forest = forest_kind(trees, min_samples_leaf=2, random_state=random_state)
        seen: NDArray[np.float64] = forest.fit(x, y, weight).predict_proba(unseen)[:, 1]
    except (ValueError, TypeError, RuntimeError, FloatingPointError) as error:
        raise LesionsynthError(
            f"the two-sample test failed in scikit-learn: {type(error).__name__}: {error}.",
            remedy="Please report this, with the version of scikit-learn.",
        ) from error
    return seen


def _folds(key: NDArray[np.int64], y: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Parts that groups are shared out to, as large as each other, in both kinds alike.

    Groups of one kind (a real lesion that nobody has copied, a host of a data set of its own) and groups of
    both are shared out apart.
    """
    _, kfold, _ = _scikit_learn()
    order = rng.permutation(int(key.max()) + 1)[key]
    holds = np.stack([np.bincount(order, y == kind) > 0 for kind in (0, 1)])
    content = (holds[0] + 2 * holds[1])[order]
    fold = np.zeros(len(y), dtype=np.int64)
    for number, kind in enumerate(np.unique(content)):
        rows = np.flatnonzero(content == kind)
        parts = min(_FOLDS, np.unique(order[rows]).size)
        if parts < 2:
            fold[rows] = number
            continue
        for part, (_, test) in enumerate(kfold(parts).split(rows, groups=order[rows])):
            fold[rows[test]] = part
    return fold


def _area(
    y: NDArray[np.int64],
    weight: NDArray[np.float64],
    parts: Sequence[tuple[NDArray[np.float64], NDArray[np.int64]]],
) -> float | None:
    """Area under the curve, mean over the parts of all rounds that hold both kinds; -1 is no part."""
    _, _, area = _scikit_learn()
    found = []
    for score, fold in parts:
        for part in np.unique(fold[fold >= 0]):
            use = (fold == part) & (weight > 0)
            if np.unique(y[use]).size == 2:
                found.append(float(area(y[use], score[use], sample_weight=weight[use])))
    return float(np.mean(found)) if found else None


def _scikit_learn() -> tuple[Any, Any, Any]:
    """Forest, parts by group, and area under the curve.

    Raises
    ------
    LesionsynthError
        If scikit-learn is not installed.
    """
    try:
        from sklearn.ensemble import RandomForestClassifier
        from sklearn.metrics import roc_auc_score
        from sklearn.model_selection import GroupKFold
    except ImportError as error:
        raise LesionsynthError(
            f"the two-sample tests need scikit-learn ({error}).",
            remedy="Install it: pip install 'lesionsynth[realism]'.",
        ) from None
    return RandomForestClassifier, GroupKFold, roc_auc_score


def require_scikit_learn() -> None:
    """Refuse to begin without scikit-learn, before anything that takes time."""
    _scikit_learn()
