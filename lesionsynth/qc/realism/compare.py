"""Put together: what a data set and its synthetic cases have in common, and what gives the latter away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lesionsynth.qc.realism.copies import CopySeen, look_at_copy
from lesionsynth.qc.realism.distances import FeatureDistance, distances
from lesionsynth.qc.realism.gate import Breach, breaches, check_names
from lesionsynth.qc.realism.lesions import Seen, Way, look_at_case
from lesionsynth.qc.realism.memorised import Memorised, memorised
from lesionsynth.qc.realism.sides import Sides, open_sides
from lesionsynth.qc.realism.two_sample import (
    Estimate,
    Sample,
    floor,
    limited,
    require_scikit_learn,
    told_apart,
    weights,
)
from lesionsynth.recipe.model import Recipe
from lesionsynth.run.pool import Engine, Failure, Progress, run_all

_UNKNOWN_DONORS = "whose lesions were copied is known of the output of a run only"
_NO_FILLS = "what was removed is known of the output of a run only"


@dataclass(frozen=True)
class Counts:
    """How many cases and lesions there are, and how many were looked at."""

    cases: int
    cases_looked_at: int
    lesions: int
    lesions_looked_at: int

    @property
    def coverage(self) -> float:
        """Share of all lesions that was looked at, those of other cases reckoned as as many."""
        cases, lesions = max(1, self.cases), max(1, self.lesions)
        return self.cases_looked_at / cases * self.lesions_looked_at / lesions


@dataclass(frozen=True)
class LesionTest:
    """Two-sample tests of added against real lesions, and of real ones against each other.

    `alike_in` is what real and added lesions were weighed to be alike in.
    """

    by_donor: Estimate
    by_host: Estimate
    place: Estimate
    floor_by_donor: Estimate
    floor_by_host: Estimate
    alike_in: str


@dataclass(frozen=True)
class FillTest:
    """Two-sample tests of filled places against untouched ones, and of untouched ones against each other."""

    by_place: Estimate
    by_host: Estimate
    place: Estimate
    floor: Estimate
    removed: int


@dataclass(frozen=True)
class Realism:
    """Everything that was found."""

    real: str
    synthetic: str
    channels: tuple[str, ...]
    n_real: Counts
    n_synthetic: Counts
    features: list[FeatureDistance]
    lesions: LesionTest
    fills: FillTest
    memorised: Memorised
    notes: list[str]
    limits: dict[str, Any]
    breaches: list[Breach]

    def as_json(self) -> dict[str, Any]:
        """All of it by name; what there is not is null."""
        return {**asdict(self), "channels": list(self.channels)}


@dataclass(frozen=True)
class Rows:
    """What was seen, sorted by case and number."""

    real: list[Seen]
    made: list[Seen]
    filled: list[Seen]
    clean: list[Seen]


def compare(
    real: Path,
    synthetic: Path,
    recipe: Recipe | None,
    engine: Engine,
    progress: Progress,
    overrides: Sequence[str] = (),
) -> Realism:
    """Compare a synthetic data set with a real one.

    Parameters
    ----------
    real, synthetic : Path
        Folder of the real data set; output of a run on it, or folder of a data set with the same channels.
        Nothing is written.
    recipe : Recipe, optional
        By default that of the output's lock.
    engine : Engine
    progress : Progress
    overrides : sequence of str
        ``dotted.key=value`` for the recipe of the lock.

    Raises
    ------
    LesionsynthError
        If scikit-learn is missing, or one of the two cannot be read.
    """
    require_scikit_learn()
    sides = open_sides(real, synthetic, recipe, overrides)
    check_names(sides.recipe.realism, sides.cohort.channels)
    rows, n_real, n_synthetic, removed, notes = look(sides, engine, progress)
    found = judge(
        sides, rows, (n_real, n_synthetic), removed, engine.n_jobs, progress, [*sides.notes, *notes]
    )
    return replace(found, breaches=breaches(sides.recipe.realism, found))


def look(sides: Sides, engine: Engine, progress: Progress) -> tuple[Rows, Counts, Counts, int, list[str]]:
    """Read the cases of both sides, as many as the recipe allows, in parallel."""
    spec = sides.recipe.realism
    notes: list[str] = []
    real, n_real = _cases(sides.way(len(sides.real)), sides, sides.real, "real", engine, progress, notes)
    made: list[Seen] = []
    filled: list[Seen] = []
    clean: list[Seen] = []
    removed = 0
    if sides.copies is None:
        made, n_made = _cases(
            sides.way(len(sides.plain), synthetic=True),
            sides,
            sides.plain,
            "synthetic",
            engine,
            progress,
            notes,
        )
        n_synthetic = Counts(sides.n_synthetic, len(sides.plain), n_made, len(made))
    else:
        way = sides.way(len(sides.copies))
        items = [(copy.case, (way, copy, sides.rim_vox)) for copy in sides.copies]
        copies: list[CopySeen] = []
        for result in run_all(look_at_copy, items, stage="synthetic", engine=engine, progress=progress):
            _sort_out(result, sides, copies, notes)
        copies.sort(key=lambda copy: copy.case)
        made = [row for copy in copies for row in copy.added]
        filled = [row for copy in copies for row in copy.filled]
        clean = [row for copy in copies for row in copy.clean]
        removed = sum(copy.n_filled for copy in copies)
        n_synthetic = Counts(sides.n_synthetic, len(copies), sum(copy.n_added for copy in copies), len(made))
    total = Counts(sides.n_real, len(sides.real), n_real, len(real))
    for what, counts in (("real", total), ("synthetic", n_synthetic)):
        if counts.cases_looked_at < counts.cases:
            notes.append(
                f"{counts.cases_looked_at} of {counts.cases} {what} cases were looked at (realism.cases: "
                f"{spec.cases})"
            )
        if counts.lesions_looked_at < counts.lesions:
            notes.append(
                f"{counts.lesions_looked_at} of {counts.lesions} {what} lesions of these were looked at"
            )
    return Rows(real, made, filled, clean), total, n_synthetic, removed, notes


def _cases(
    way: Way,
    sides: Sides,
    cases: Sequence[Any],
    stage: str,
    engine: Engine,
    progress: Progress,
    notes: list[str],
) -> tuple[list[Seen], int]:
    """All lesions of plain cases."""
    items = [(files.case, (way, files)) for files in cases]
    found: list[tuple[int, list[Seen]]] = []
    for result in run_all(look_at_case, items, stage=stage, engine=engine, progress=progress):
        _sort_out(result, sides, found, notes)
    rows = sorted((row for _, seen in found for row in seen), key=_order)
    return rows, sum(count for count, _ in found)


def _order(row: Seen) -> tuple[str, int]:
    """Forests see the rows in one order, whoever was ready first."""
    return row.case, row.number


def _sort_out(result: Any, sides: Sides, found: list[Any], notes: list[str]) -> None:
    if not isinstance(result, Failure):
        found.append(result)
    elif sides.recipe.input.on_bad_case == "drop":
        notes.append(f"left out: {result.error}")
    else:
        raise result.error


def judge(
    sides: Sides,
    rows: Rows,
    counts: tuple[Counts, Counts],
    removed: int,
    n_jobs: int,
    progress: Progress,
    notes: Sequence[str],
) -> Realism:
    """All figures, from what was seen; `counts` are those of the real and of the synthetic side."""
    spec, seed = sides.recipe.realism, sides.recipe.seed
    known = sides.copies is not None
    channels = sides.cohort.channels
    progress.start("classify", 2)
    lesions = lesion_test(rows.real, rows.made, seed, spec.min_lesions, spec.lesions, n_jobs, known)
    progress.advance()
    fills = fill_test(rows, seed, spec.min_lesions, spec.lesions, n_jobs, removed, known)
    progress.advance()
    return Realism(
        str(sides.cohort.root),
        str(sides.synthetic),
        channels,
        *counts,
        distances(rows.real, rows.made, channels),
        lesions,
        fills,
        memorised(rows.real, rows.made, len(channels), spec.min_lesions, counts[0].coverage),
        list(notes),
        spec.model_dump(mode="json"),
        [],
    )


def lesion_test(
    real: Sequence[Seen],
    made: Sequence[Seen],
    seed: int,
    least: int,
    most: int,
    n_jobs: int = 1,
    donors_known: bool = True,
) -> LesionTest:
    """Added against real lesions: by donor, by host, by their places alone, and the floors."""
    one = Sample.of(limited(sorted(real, key=_order), most, seed, "real lesions"))
    other = Sample.of(limited(sorted(made, key=_order), most, seed, "added lesions"))
    if donors_known:
        by_donor = told_apart(one, other, "group", "look", seed, least, n_jobs)
    else:
        by_donor = Estimate(None, None, None, len(one), len(other), 0, 0, _UNKNOWN_DONORS)
    place = told_apart(one, other, "group", "place", seed, least, n_jobs, rounds=1)
    return LesionTest(
        by_donor,
        told_apart(one, other, "host", "look", seed, least, n_jobs),
        place,
        floor(one, "group", "look", seed, least // 2, n_jobs),
        floor(one, "host", "look", seed, least // 2, n_jobs),
        weights(one, other)[2] if len(one) and len(other) else "",
    )


def fill_test(
    rows: Rows, seed: int, least: int, most: int, n_jobs: int, removed: int, known: bool = True
) -> FillTest:
    """Filled against untouched places; a place, whatever the copy, is never in both parts."""
    kept = limited(list(range(len(rows.filled))), most, seed, "fills")
    filled, clean = ([side[k] for k in kept] for side in (rows.filled, rows.clean))
    one, other = Sample.of(clean), Sample.of(filled)
    if not known or not filled:
        note = _NO_FILLS if not known else "no place was filled that has its like in untouched tissue"
        nothing = Estimate(None, None, None, 0, 0, 0, 0, note)
        return FillTest(nothing, nothing, nothing, nothing, removed)
    return FillTest(
        told_apart(one, other, "group", "look", seed, least, n_jobs),
        told_apart(one, other, "host", "look", seed, least, n_jobs),
        told_apart(one, other, "group", "place", seed, least, n_jobs, rounds=1),
        floor(one, "group", "look", seed, least // 2, n_jobs),
        removed,
    )
