from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lesionsynth.trial.compare import Row, compare


def rows_of(values: dict[tuple[str, int, str], float | None], fraction: float = 1.0) -> list[Row]:
    return [
        Row(recipe, fraction, seed, 0, ("t",), case, case.split("_")[0], {"dice": value})
        for (recipe, seed, case), value in values.items()
    ]


def made_up(effect: float, seeds: int, subjects: int, spread: float = 0.05) -> list[Row]:
    rng = np.random.default_rng(0)
    values = {}
    for seed in range(seeds):
        for subject in range(subjects):
            values["none", seed, f"s{subject}"] = before = float(rng.normal(0.5, 0.1))
            values["mix", seed, f"s{subject}"] = before + effect + float(rng.normal(0, spread))
    return rows_of(values)


def test_means_spreads_and_paired_differences_by_hand():
    rows = rows_of(
        {
            ("none", 0, "a"): 0.2, ("none", 0, "b"): 0.4, ("none", 1, "a"): 0.3, ("none", 1, "b"): None,
            ("mix", 0, "a"): 0.5, ("mix", 0, "b"): 0.4, ("mix", 1, "a"): 0.2, ("mix", 1, "b"): 0.9,
        }
    )  # fmt: skip
    none, mix = compare(rows, ["dice"])
    assert (none.recipe, none.count, none.mean) == ("none", 3, pytest.approx(0.3))
    assert none.spread == pytest.approx(np.std([0.3, 0.3], ddof=1))
    assert none.difference is none.low is none.detectable is None
    assert (mix.count, mix.mean) == (4, pytest.approx(0.5))
    assert mix.spread == pytest.approx(np.std([0.45, 0.55], ddof=1))
    # b of seed 1 has no value without synthetic data, and so no pair: a is what both seeds have.
    assert (mix.pairs, mix.difference) == (2, pytest.approx((0.3 - 0.1) / 2))
    assert mix.better == pytest.approx((1 + 0) / 2)
    assert mix.low < mix.difference < mix.high
    assert [c.measure for c in compare(rows, ["dice", "unknown"])] == ["dice", "dice"]


@pytest.mark.parametrize(("of_seeds", "of_subjects"), [(0.3, 0.3), (0.3, 0.0), (0.0, 0.3), (0.0, 0.0)])
def test_the_interval_is_that_of_an_analysis_of_variance_by_hand(of_seeds, of_subjects):
    rng = np.random.default_rng(4)
    rest = rng.normal(0, 0.05, size=(4, 5))
    rest -= rest.mean(0) - 0.2 * rest[0]  # its means vary less than it does
    rest -= rest.mean(1, keepdims=True)
    table = rest + of_seeds * np.arange(4)[:, None] + of_subjects * np.arange(5)
    values = {}
    for (seed, subject), value in np.ndenumerate(table):
        values["none", seed, f"s{subject}"] = 0.5
        values["mix", seed, f"s{subject}"] = 0.5 + float(value)
    mix = compare(rows_of(values), ["dice"])[1]
    mean = table.mean()
    ss_seed = 5 * ((table.mean(1) - mean) ** 2).sum()
    ss_subject = 4 * ((table.mean(0) - mean) ** 2).sum()
    ss_rest = ((table - mean) ** 2).sum() - ss_seed - ss_subject
    ms = ss_seed / 3, ss_subject / 4, ss_rest / 12
    assert ((ms[0] > ms[2]), (ms[1] > ms[2])) == (of_seeds > 0, of_subjects > 0)
    variance, freedom = {
        (True, True): (ms[0] + ms[1] - ms[2], None),
        (True, False): (ms[0], 3),
        (False, True): (ms[1], 4),
        (False, False): ((ss_seed + ss_subject + ss_rest) / 19, 19),
    }[of_seeds > 0, of_subjects > 0]
    if freedom is None:
        freedom = max(1, variance**2 / (ms[0] ** 2 / 3 + ms[1] ** 2 / 4 + ms[2] ** 2 / 12))
    error = np.sqrt(variance / 20)
    assert mix.difference == pytest.approx(mean)
    assert mix.high - mix.difference == pytest.approx(stats.t.ppf(0.975, freedom) * error)
    assert mix.difference - mix.low == pytest.approx(stats.t.ppf(0.975, freedom) * error)
    assert mix.detectable == pytest.approx((stats.t.ppf(0.975, freedom) + stats.t.ppf(0.8, freedom)) * error)


@pytest.mark.parametrize("seeds", [2, 5])
def test_where_neither_seeds_nor_folds_matter_the_interval_is_not_for_nothing(seeds):
    """As wide as that of so many independent values: it misses the truth as often as it may."""
    rng = np.random.default_rng(6)
    held = 0
    for _ in range(600):
        values = {}
        for (seed, fold), value in np.ndenumerate(rng.normal(0.02, 0.05, size=(seeds, 5))):
            values["none", seed, f"s{fold}"] = 0.5
            values["mix", seed, f"s{fold}"] = 0.5 + float(value)
        mix = compare(rows_of(values), ["dice"])[1]
        held += mix.low <= 0.02 <= mix.high
    assert 0.94 <= held / 600 <= 0.993


@pytest.mark.parametrize(("seeds", "subjects"), [(5, 5), (5, 2), (1, 6), (4, 1)])
def test_the_interval_holds_the_truth_as_often_as_it_says(seeds, subjects):
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(300):
        # Seeds where there are several, subjects where there are several, and what neither explains.
        of_seed = rng.normal(0, 0.03 * (seeds > 1), size=(seeds, 1))
        of_subject = rng.normal(0, 0.05 * (subjects > 1), size=(1, subjects))
        table = 0.02 + of_seed + of_subject + rng.normal(0, 0.02, size=(seeds, subjects))
        values = {}
        for (seed, subject), value in np.ndenumerate(table):
            values["none", seed, f"s{subject}"] = 0.5
            values["mix", seed, f"s{subject}"] = 0.5 + float(value)
        mix = compare(rows_of(values), ["dice"])[1]
        held += mix.low <= 0.02 <= mix.high
    assert 0.90 <= held / 300 <= 1.0


@pytest.mark.parametrize("seeds", [1, 4])
def test_test_subjects_of_a_fold_are_one_witness(seeds):
    """A fold's training subjects gain or lose for all of its test subjects, whatever their number."""
    rng = np.random.default_rng(7)
    held = 0
    for _ in range(300):
        of_fold = rng.normal(0, 0.05, size=5)
        rows = []
        for fold in range(5):
            for seed in range(seeds):
                of_network = rng.normal(0, 0.02)
                for subject in range(6):
                    change = 0.02 + of_fold[fold] + of_network + rng.normal(0, 0.01)
                    for recipe, value in (("none", 0.5), ("mix", 0.5 + change)):
                        who = f"{fold}{subject}"
                        rows.append(Row(recipe, 1.0, seed, fold, (str(fold),), who, who, {"dice": value}))
        mix = compare(rows, ["dice"])[1]
        held += mix.low <= 0.02 <= mix.high
    assert 0.90 <= held / 300 <= 0.99


def of_folds(table: dict[tuple[int, int], float], recipe: str = "mix", subjects: int = 1) -> list[Row]:
    """Rows of both arms, by (seed, fold)."""
    return [
        Row(arm, 1.0, seed, fold, (str(fold),), f"{fold}{who}", f"{fold}{who}", {"dice": value})
        for (seed, fold), change in table.items()
        for who in range(subjects)
        for arm, value in (("none", 0.5), (recipe, 0.5 + change))
    ]


@pytest.mark.parametrize(("seeds", "of_last"), [(2, 1), (2, 2), (2, 4), (3, 1), (5, 2)])
def test_a_seed_that_is_not_whole_takes_nothing_from_the_others(seeds, of_last):
    """As a budget leaves a trial: of the last seed only some folds are done."""
    rng = np.random.default_rng(8)
    held = 0
    for _ in range(300):
        change = 0.02 + rng.normal(0, 0.05, size=5) + rng.normal(0, 0.02, size=(seeds, 5))
        done = {(s, f): v for (s, f), v in np.ndenumerate(change) if s < seeds - 1 or f < of_last}
        mix = compare(of_folds(done), ["dice"])[1]
        held += mix.low <= 0.02 <= mix.high
    assert 0.94 <= held / 300 <= 1.0


@pytest.mark.parametrize(
    ("done", "counted"),
    [
        ([5, 1], [(0, f) for f in range(5)]),
        ([5, 4], [(s, f) for s in range(2) for f in range(4)]),
        ([5, 5, 1], [(s, f) for s in range(2) for f in range(5)]),
        ([4, 2], [(s, f) for s in range(2) for f in range(2)]),  # as many: more seeds
        ([3, 1, 1, 1], [(0, f) for f in range(3)]),  # one fold would not tell how folds differ
    ],
)
def test_difference_and_interval_are_of_the_largest_part_without_gaps(done, counted):
    rng = np.random.default_rng(9)
    values = {(s, f): float(rng.normal(0, 0.1)) for s, n in enumerate(done) for f in range(n)}
    some = compare(of_folds(values, subjects=2), ["dice"])[1]
    whole = compare(of_folds({at: values[at] for at in counted}, subjects=2), ["dice"])[1]
    assert some.pairs == 2 * len(counted)
    for name in ("difference", "low", "high", "better", "detectable"):
        assert getattr(some, name) == pytest.approx(getattr(whole, name))


def test_folds_of_the_trial_are_what_every_arm_is_judged_by():
    """An arm that was made in one fold only has no interval: not one over the test subjects of that fold."""
    rng = np.random.default_rng(10)
    both = {(s, f): float(rng.normal(0, 0.1)) for s in range(2) for f in range(2)}
    part = {at: value for at, value in both.items() if at[1] == 0}
    rows = of_folds(both, subjects=4) + [r for r in of_folds(part, "part", 4) if r.recipe == "part"]
    found = {c.recipe: c for c in compare(rows, ["dice"])}
    assert found["mix"].low is not None
    assert (found["part"].pairs, found["part"].difference) == (8, pytest.approx(np.mean([*part.values()])))
    assert found["part"].low is found["part"].high is found["part"].detectable is None
    # Nor has one with one of the trial's seeds where the trial has one fold: seeds vary there.
    once = {(s, 0): 0.1 * s for s in range(3)}
    rows = of_folds(once, subjects=4)
    rows += [r for r in of_folds({(0, 0): 0.1}, "part", 4) if r.recipe == "part"]
    assert {c.recipe: c.low is None for c in compare(rows, ["dice"])} == {
        "none": True, "mix": False, "part": True,
    }  # fmt: skip


def test_one_pair_of_networks_says_nothing_of_others():
    mix = compare(made_up(0.1, 1, 8), ["dice"])[1]
    assert mix.low < 0.1 < mix.high
    assert mix.detectable is None
    assert compare(made_up(0.1, 2, 8), ["dice"])[1].detectable is not None


def test_more_seeds_and_subjects_show_less():
    few, many = (compare(made_up(0.05, n, n), ["dice"])[1] for n in (3, 12))
    assert many.high - many.low < 0.6 * (few.high - few.low)
    assert many.detectable < 0.6 * few.detectable
    assert many.low > 0


def test_nothing_is_said_of_how_one_seed_and_one_subject_vary():
    mix = compare(made_up(0.1, 1, 1), ["dice"])[1]
    assert mix.pairs == 1
    assert mix.low is mix.high is mix.detectable is None


def test_two_cases_of_a_subject_are_no_two_subjects():
    values = {}
    for subject in range(3):
        for scan in range(8):
            for recipe in ("none", "mix"):
                values[recipe, 0, f"s{subject}_{scan}"] = 0.1 * subject if recipe == "mix" else 0.0
    mix = compare(rows_of(values), ["dice"])[1]
    assert mix.pairs == 24
    # Three subjects: with 24 independent cases it would be a seventh of that.
    assert mix.high - mix.low == pytest.approx(2 * stats.t.ppf(0.975, 2) * 0.1 / np.sqrt(3))


def test_fractions_are_compared_with_themselves():
    rows = made_up(0.0, 2, 3) + [
        Row(r.recipe, 0.1, r.seed, r.fold, r.train, r.case, r.subject, {"dice": r.values["dice"] / 2})
        for r in made_up(0.2, 2, 3)
    ]
    found = {(c.fraction, c.recipe): c for c in compare(rows, ["dice"])}
    assert set(found) == {(f, r) for f in (1.0, 0.1) for r in ("none", "mix")}
    assert found[0.1, "mix"].difference == pytest.approx(0.1, abs=0.03)
    assert found[1.0, "mix"].difference == pytest.approx(0.0, abs=0.05)


def test_each_subject_or_fold_counts_once_however_many_cases_it_has():
    counts, gains = {"a": 20, "b": 1, "c": 1, "d": 1, "e": 1}, {"a": 0.1}
    for folds in ([0] * 5, range(5)):
        rows = [
            Row(recipe, 1.0, 0, fold, ("t",), f"{s}_{n}", s, {"dice": 0.5 + gain})
            for fold, (s, count) in zip(folds, counts.items(), strict=True)
            for n in range(count)
            for recipe, gain in (("none", 0), ("mix", gains.get(s, 0)))
        ]
        mix = compare(rows, ["dice"])[1]
        table = [0.1, 0, 0, 0, 0]
        assert mix.difference == pytest.approx(np.mean(table))
        assert (mix.low, mix.high) == pytest.approx(stats.t.interval(0.95, 4, 0.02, stats.sem(table)))
        assert (mix.pairs, mix.better) == (24, pytest.approx((20 + 4 / 2) / 24))
