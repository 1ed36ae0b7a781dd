from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesionsynth.domain.load import LOAD_KINDS, LoadTarget, draw_load_ml

LOADS = [12.0, 1.0, 3.0, 7.0, 2.0, 30.0, 5.0, 18.0]
BOUNDS = {"low": (0.05, 1 / 3), "medium": (1 / 3, 2 / 3), "high": (2 / 3, 0.95), "uniform": (0.05, 0.95)}


def draws(kind, loads=LOADS, n=500):
    rng = np.random.default_rng(0)
    return np.array([draw_load_ml(kind, loads, rng) for _ in range(n)])


@pytest.mark.parametrize("kind", BOUNDS)
def test_named_loads_fill_the_range_between_their_quantiles(kind):
    low, high = np.quantile(LOADS, BOUNDS[kind])
    found = draws(kind)
    assert low <= found.min() < low + 0.02 * (high - low)
    assert high - 0.02 * (high - low) < found.max() <= high
    assert found.mean() == pytest.approx((low + high) / 2, abs=4 * (high - low) / np.sqrt(12 * 500))


def test_gaussian_loads_are_cut_to_their_quantiles():
    low, high = np.quantile(LOADS, (0.05, 0.95))
    found = draws("gaussian")
    assert (found.min(), found.max()) == (low, high)
    free = found[(found > low) & (found < high)]
    assert len(free) > 250
    assert abs(np.median(found) - np.mean(LOADS)) < 4 * np.std(LOADS) / np.sqrt(500)


def test_real_loads_are_those_of_subjects_with_a_tenth_of_jitter():
    ratios = draws("real")[:, None] / np.array(LOADS)
    nearest = ratios[np.arange(len(ratios)), np.abs(np.log(ratios)).argmin(axis=1)]
    assert nearest.min() >= 0.9
    assert nearest.max() <= 1.1
    assert np.ptp(nearest) > 0.15
    assert set(np.abs(np.log(ratios)).argmin(axis=1)) == set(range(len(LOADS)))


@pytest.mark.parametrize("kind", LOAD_KINDS)
def test_one_subject_gives_its_load(kind):
    found = draws(kind, [4.0], 20)
    assert found == pytest.approx(4.0, rel=0.1)
    if kind != "real":
        assert set(found) == {4.0}


@pytest.mark.parametrize("kind", LOAD_KINDS)
def test_loads_are_never_negative_and_do_not_depend_on_the_order_of_subjects(kind):
    assert (draws(kind, [0.0, 0.0, 1.0, 50.0]) >= 0).all()
    np.testing.assert_array_equal(draws(kind), draws(kind, LOADS[::-1]))


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="unknown load distribution 'huge'"):
        draws("huge", n=1)


@given(st.floats(0, 1e4), st.floats(0.01, 0.5))
def test_a_target_is_met_within_its_tolerance(ml, tolerance):
    target = LoadTarget(ml, ml, tolerance)
    assert target.low_ml <= ml <= target.high_ml
    for load in (target.low_ml, ml, target.high_ml):
        assert target.met_by(load)
    assert not target.met_by(ml * (1 + tolerance) * 1.001 + 1e-6)
    assert not target.met_by(ml * (1 - tolerance) * 0.999 - 1e-6)


def test_a_target_of_nothing_is_met_by_nothing():
    assert LoadTarget(0.0, 0.0, 0.05).met_by(0.0)
    assert not LoadTarget(0.0, 0.0, 0.05).met_by(0.001)
