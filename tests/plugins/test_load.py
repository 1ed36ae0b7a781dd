from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from lesionsynth.domain.load import LesionLoad
from lesionsynth.plugins.load import LoadSpec

HOST = LesionLoad(1.0, 2, 1000.0)
LOADS = [LesionLoad(float(ml), 3, 1000.0) for ml in range(1, 21)]


def draws(value, loads=LOADS, host=HOST, n=200):
    spec = LoadSpec.model_validate(value)
    return [spec.draw(loads, host, np.random.default_rng(seed)) for seed in range(n)]


def test_short_forms():
    assert LoadSpec.model_validate("high") == LoadSpec(kind="high")
    assert LoadSpec.model_validate(12.5) == LoadSpec(kind="fixed", ml=12.5)
    assert LoadSpec.model_validate(0) == LoadSpec(kind="fixed", ml=0.0)
    assert LoadSpec.model_validate([5, 10]) == LoadSpec(kind="range", range_ml=(5.0, 10.0))


@pytest.mark.parametrize(
    "value",
    [
        "huge",
        True,
        -1,
        [10, 5],
        [-1, 5],
        {"kind": "fixed"},
        {"kind": "range"},
        {"kind": "log_range"},
        {"kind": "log_range", "range_ml": [0, 5]},
        {"kind": "low", "tolerance": 0},
    ],
)
def test_loads_that_make_no_sense(value):
    with pytest.raises(ValidationError):
        LoadSpec.model_validate(value)


def test_fixed_and_range():
    assert {t.ml for t in draws(12.5)} == {12.5}
    found = [t.ml for t in draws([5, 10])]
    assert 5 <= min(found) < 5.5
    assert 9.5 < max(found) <= 10


def test_small_loads_come_as_often_as_large_ones_in_a_log_range():
    found = np.log([t.ml for t in draws({"kind": "log_range", "range_ml": [0.1, 50]}, n=1000)])
    middle = np.log(0.1 * 50) / 2
    assert np.log(0.1) <= found.min() < np.log(0.11)
    assert np.log(48) < found.max() <= np.log(50)
    assert found.mean() == pytest.approx(middle, abs=0.2)  # the deviation of the mean is 0.057
    assert np.mean(found < middle) == pytest.approx(0.5, abs=0.06)


def test_a_named_target_keeps_to_the_share_of_tissue_that_lesions_take():
    small = LesionLoad(0.1, 1, 100.0)
    most = 100.0 * np.quantile(np.arange(1, 21) / 1000, 0.95)
    for target in draws("high", host=small):
        assert target.ml == pytest.approx(most)
        assert target.drawn_ml > target.ml
    for target in draws("low"):
        assert target.ml == target.drawn_ml
    assert {t.ml for t in draws(500, host=small)} == {500.0}  # what is asked for outright is not touched


def test_masks_alone_say_nothing_of_shares():
    loads = [LesionLoad(5.0, 1, 0.0)] * 3
    assert {t.ml for t in draws("uniform", loads, LesionLoad(0, 0, 1.0))} == {5.0}


def test_one_or_two_subjects_say_little_of_the_range():
    found = [t.ml for t in draws("uniform", [LesionLoad(4.0, 1, 1000.0)])]
    assert 2.0 <= min(found) < 2.5
    assert 5.5 < max(found) <= 6.0
    exact = {t.ml for t in draws("uniform", [LesionLoad(4.0, 1, 1000.0)] * 3)}
    assert exact == {4.0}


def test_the_tolerance_is_handed_on():
    (target,) = draws({"kind": "fixed", "ml": 2, "tolerance": 0.25}, n=1)
    assert (target.low_ml, target.high_ml) == (1.5, 2.5)
