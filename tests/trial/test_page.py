"""What the page of a trial says of its intervals."""

from __future__ import annotations

import numpy as np
import pytest

from lesionsynth.trial.arms import Arm
from lesionsynth.trial.compare import Row, compare
from lesionsynth.trial.page import TITLES, render
from lesionsynth.trial.spec import TrialSpec
from lesionsynth.trial.wish import Wish

OF_FOLDS = "Intervals are over seeds and folds"
OF_SUBJECTS = "Intervals are over seeds and test subjects"
OF_ONE_PAIR = "they hold for these very networks"


def page_of(
    *groups: tuple[float, int, int], failed: dict[str, str] | None = None, held_out: float = 0.2
) -> str:
    """Of two arms in groups of (fraction, seed, fold)."""
    rng = np.random.default_rng(0)
    rows, cells = [], []
    for fraction, seed, fold in groups:
        for arm in ("none", "mix"):
            cell = {"arm": arm, "fraction": fraction, "seed": seed, "fold": fold, "rows": []}
            cells.append(cell | {"train": ["t"], "validation": ["t"], "test": [f"{fold}a", f"{fold}b"]})
            for who in cells[-1]["test"]:
                values = dict.fromkeys(TITLES, float(rng.random()))
                rows.append(Row(arm, fraction, seed, fold, ("t",), who, who, values))
    wish = Wish((Arm("none", None), Arm("mix", None)), (1.0,), 1, (0,), TrialSpec(held_out=held_out), {})
    return render("tried", wish, rows, compare(rows, TITLES), cells, failed or {}, 0)


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ([(1.0, 0, 0)], OF_ONE_PAIR),
        ([(1.0, 0, 0), (1.0, 1, 0)], OF_SUBJECTS),
        ([(1.0, 0, 0), (1.0, 0, 1)], OF_FOLDS),
    ],
)
def test_it_says_what_intervals_are_over(groups, said) -> None:
    page = page_of(*groups)
    assert [text in page for text in (OF_ONE_PAIR, OF_SUBJECTS, OF_FOLDS)] == [
        text == said for text in (OF_ONE_PAIR, OF_SUBJECTS, OF_FOLDS)
    ]
    assert ("would be shown with a probability of 80 %" in page) == (said != OF_ONE_PAIR)


def test_networks_that_could_not_be_made_are_none() -> None:
    failed = {"mix-fraction1-seed1-fold0": "no donors"}
    assert "<dt>Networks</dt><dd>3 <small>1 could not be made</small>" in page_of(
        (1.0, 0, 0), (1.0, 1, 0), failed=failed
    )
    assert "<dt>Networks</dt><dd>4</dd>" in page_of((1.0, 0, 0), (1.0, 1, 0))


def test_it_says_why_training_cases_validate() -> None:
    assert "Where fewer than three subjects could train" in page_of((1.0, 0, 0))
    page = page_of((1.0, 0, 0), held_out=0.0)
    assert "No subjects were held out" in page
    assert "fewer than three" not in page


def test_fractions_that_vary_in_other_ways_are_told_apart() -> None:
    page = page_of((1.0, 0, 0), (1.0, 0, 1), (0.5, 0, 0))
    assert f"<p>Fraction 1: {OF_FOLDS}" in page
    assert "<p>Fraction 0.5: With one seed and one fold" in page
