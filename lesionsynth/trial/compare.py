"""What recipes change, as far as the cells of a trial can tell: paired differences, intervals, power."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

NONE = "none"
"""The arm without synthetic data, which the others are compared with."""


@dataclass(frozen=True)
class Row:
    """One test case of one cell.

    Parameters
    ----------
    recipe : str
        Arm; "none" without synthetic data.
    fraction : float
    seed, fold : int
    train : tuple of str
        Training subjects.
    case, subject : str
        Tested.
    values : mapping of str to float or None
        Measures; None where one is not defined.
    """

    recipe: str
    fraction: float
    seed: int
    fold: int
    train: tuple[str, ...]
    case: str
    subject: str
    values: Mapping[str, float | None]


@dataclass(frozen=True)
class Comparison:
    """One measure of one arm at one fraction.

    Parameters
    ----------
    recipe, fraction, measure
    count : int
        Rows with a value.
    mean, spread : float
        Over these; the spread is that of the means of seeds, 0 with one seed.
    pairs : int
        Rows with a value here and without synthetic data that are counted, see :func:`compare`.
    difference : float or None
        Mean of the paired differences to the arm without, over the means of seeds and folds, or test
        subjects where there is one fold; None for that arm.
    low, high : float or None
        95 % interval of it, over the same; None where the arm does not have what the trial varies.
    better : float or None
        Share of the pairs above 0, ties by half.
    detectable : float or None
        Difference that so many of these would show with 80 % power; None where they do not vary, and with
        one seed and one fold.
    """

    recipe: str
    fraction: float
    measure: str
    count: int
    mean: float
    spread: float
    pairs: int = 0
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    better: float | None = None
    detectable: float | None = None


@dataclass(frozen=True)
class Varied:
    """How many seeds and folds there are at a fraction, in any arm: what intervals are over.

    Parameters
    ----------
    seeds, folds : int
    """

    seeds: int
    folds: int

    @property
    def over_folds(self) -> bool:
        """Whether folds are taken for random, and not test subjects."""
        return self.folds > 1

    @property
    def is_one_pair(self) -> bool:
        """Whether each arm is one network: how networks differ from one training to the next is not seen."""
        return self.seeds == self.folds == 1

    @property
    def least(self) -> tuple[int, int]:
        """Seeds, and folds or test subjects, that an arm needs for an interval: what varies has to, in it."""
        return (1, 2) if self.over_folds else (min(self.seeds, 2), 1)


def varied(rows: Iterable[Row]) -> dict[float, Varied]:
    """What varies at each fraction."""
    cells: dict[float, set[tuple[int, int]]] = {}
    for row in rows:
        cells.setdefault(row.fraction, set()).add((row.seed, row.fold))
    return {
        fraction: Varied(len({seed for seed, _ in pairs}), len({fold for _, fold in pairs}))
        for fraction, pairs in cells.items()
    }


def compare(rows: Sequence[Row], measures: Iterable[str]) -> list[Comparison]:
    """Every measure of every arm and fraction, in the order of the rows.

    A pair are two rows of one fraction, seed, fold and case. The interval takes seeds and folds for random:
    test subjects of a fold share networks and training subjects, and are no independent witnesses of what
    others would show. With one fold test subjects are taken for random, and it holds for its training
    subjects alone; with one seed too it holds for these very networks alone. With few of either it is wide,
    as it has to be.

    Each seed and fold (or test subject) counts alike, however many cases it has: those of one are no
    independent witnesses either, and an error over the former is none of a mean of the latter.

    Where a seed is not whole, or values are missing, all that is said of the differences is of the largest
    table of seeds by folds (or subjects) without a gap: an interval over a few folds that happen to be
    there for every seed would not be one of the mean of all.
    """
    found = []
    of_fraction = varied(rows)
    arms = list(dict.fromkeys((row.fraction, row.recipe) for row in rows))
    without = {(r.fraction, r.seed, r.fold, r.case): r for r in rows if r.recipe == NONE}
    for measure in measures:
        for fraction, recipe in arms:
            own = [r for r in rows if (r.fraction, r.recipe) == (fraction, recipe)]
            valued = [(r, v) for r in own if (v := r.values.get(measure)) is not None]
            if not valued:
                continue
            by_seed = [np.mean([v for r, v in valued if r.seed == s]) for s in {r.seed for r, _ in valued}]
            spread = float(np.std(by_seed, ddof=1)) if len(by_seed) > 1 else 0.0
            mean = float(np.mean([v for _, v in valued]))
            pairs: list[tuple[int, int | str, float]] = []
            basis = of_fraction[fraction]
            for r, v in valued if recipe != NONE else []:
                other = without.get((r.fraction, r.seed, r.fold, r.case))
                before = None if other is None else other.values.get(measure)
                if before is not None:
                    pairs.append((r.seed, r.fold if basis.over_folds else r.subject, v - before))
            plain = Comparison(recipe, fraction, measure, len(valued), mean, spread)
            found.append(_paired(plain, pairs, basis) if pairs else plain)
    return found


def _paired(plain: Comparison, pairs: Sequence[tuple[int, int | str, float]], basis: Varied) -> Comparison:
    """The comparison with what paired differences (seed, fold or subject, difference) say."""
    cells: dict[tuple[int, int | str], list[float]] = {}
    for seed, unit, difference in pairs:
        cells.setdefault((seed, unit), []).append(difference)
    seeds, units = _without_gaps(list(cells), basis.least)
    values = np.array([d for seed, unit, d in pairs if seed in seeds and unit in units])
    table = np.array([[np.mean(cells[seed, unit]) for unit in units] for seed in seeds])
    mean = float(table.mean())
    told = replace(
        plain,
        pairs=len(values),
        difference=mean,
        better=float(np.mean((values > 0) + 0.5 * (values == 0))),
    )
    if not _has(seeds, units, basis.least):
        return told
    error, freedom = _error_of_mean(table)
    if freedom <= 0:
        return told
    half = float(stats.t.ppf(0.975, freedom)) * error
    told = replace(told, low=mean - half, high=mean + half)
    if basis.is_one_pair:
        return told
    power = float(stats.t.ppf(0.975, freedom) + stats.t.ppf(0.8, freedom)) * error
    return replace(told, detectable=power or None)


def _without_gaps(
    cells: Sequence[tuple[int, int | str]], least: tuple[int, int]
) -> tuple[list[int], list[int | str]]:
    """Seeds and units (folds or subjects) of the largest table without gaps; of equal ones most seeds.

    The seeds with the fewest units are left out one after the other. One that has what an interval needs
    goes before one that has not.
    """
    own: dict[int, set[int | str]] = {}
    for seed, unit in cells:
        own.setdefault(seed, set()).add(unit)
    ranked = sorted(own, key=lambda seed: (-len(own[seed]), seed))
    tables = []
    for count in range(len(ranked), 0, -1):
        common = set.intersection(*(own[seed] for seed in ranked[:count]))
        tables.append(
            (sorted(ranked[:count]), [u for u in dict.fromkeys(u for _, u in cells) if u in common])
        )
    return max(tables, key=lambda found: (_has(found[0], found[1], least), len(found[0]) * len(found[1])))


def _has(seeds: Sequence[int], units: Sequence[int | str], least: tuple[int, int]) -> bool:
    return len(seeds) >= least[0] and len(units) >= least[1]


def _error_of_mean(table: NDArray[np.float64]) -> tuple[float, float]:
    """Standard error of the mean of crossed random effects, and its degrees of freedom (0: none can be told).

    Rows (seeds) and columns (folds or subjects) both vary: of others the mean would be another. What does not
    vary beyond the rest is pooled with it, or two seeds of five folds would show nothing at all.

    References
    ----------
    Satterthwaite, An approximate distribution of estimates of variance components, Biometrics Bulletin 1946,
    doi:10.2307/3002019.
    """
    n_seeds, n_units = table.shape
    if min(n_seeds, n_units) < 2:
        line = table.ravel()
        return (float(line.std(ddof=1) / np.sqrt(line.size)), line.size - 1) if line.size > 1 else (0.0, 0)
    by_seed, by_unit = table.mean(axis=1), table.mean(axis=0)
    rest = table - by_seed[:, None] - by_unit + table.mean()
    freedoms = np.array([n_seeds - 1, n_units - 1, (n_seeds - 1) * (n_units - 1)])
    squares = np.array(
        [
            n_units * by_seed.var(ddof=1),
            n_seeds * by_unit.var(ddof=1),
            np.square(rest).sum() / freedoms[2],
        ]
    )
    beyond = squares[:2] > squares[2]
    if beyond.all():
        variance = float(squares @ [1, 1, -1])
        freedom = variance**2 / float(np.square(squares) @ (1 / freedoms))
    elif beyond.any():
        variance, freedom = float(squares[:2].max()), float(freedoms[np.argmax(squares[:2])])
    else:  # neither adds to what varies anyhow
        variance, freedom = float(table.var(ddof=1)), float(table.size - 1)
    return float(np.sqrt(variance / table.size)), max(1.0, freedom)
