from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from pydantic import ValidationError

from lesionsynth.plugins.contracts import Donors, Wanted
from lesionsynth.sources.lesion_bank import LesionBankSource
from tests.bank.making import make_bank, make_lesion, make_summary

ANY = Wanted(0.0, 1e9, "A")


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    """A: one huge lesion; B: eight small ones of class 2 and two large ones; C: one; M: a mask alone."""
    b = [make_lesion(f"b/{n:04d}", "B", volume_mm3=20.0 + n, classes=(2,)) for n in range(8)]
    b += [make_lesion(f"b/{n:04d}", "B", volume_mm3=2000.0 + n) for n in range(8, 10)]
    cases = [
        (make_summary("a", "A"), [make_lesion("a/0001", "A", volume_mm3=9000.0, classes=(5,))]),
        (make_summary("b", "B"), b),
        (make_summary("c", "C"), [make_lesion("c/0001", "C", volume_mm3=150.0)]),
        (make_summary("M/mask", "M", has_images=False), [make_lesion("M/mask/0001", "M", channels=0)]),
    ]
    with make_bank(tmp_path_factory.mktemp("bank"), cases) as opened:
        yield opened


def frequencies(bank, subjects, wanted=ANY, n=1200, **spec):
    source, donors = LesionBankSource(**spec), Donors(bank, tuple(subjects))
    rng = np.random.default_rng(0)
    draws = [source.draw(rng, donors, wanted) for _ in range(n)]
    return Counter(None if draw is None else draw["lesion"] for draw in draws)


def test_stratified_gives_every_size_class_the_same_chance(bank):
    found = frequencies(bank, "BC")
    small = sum(found[f"b/{n:04d}"] for n in range(8))
    large = found["b/0008"] + found["b/0009"]
    sd = np.sqrt(1200 * 2 / 9)
    for count in (small, large, found["c/0001"]):
        assert abs(count - 400) < 4 * sd
    assert abs(found["b/0008"] - found["b/0009"]) < 4 * np.sqrt(400)


def test_uniform_gives_every_lesion_the_same_chance(bank):
    found = frequencies(bank, "BC", choice="uniform")
    assert len(found) == 11
    for count in found.values():
        assert abs(count - 1200 / 11) < 4 * np.sqrt(1200 / 11)


def test_masks_alone_give_no_lesions(bank):
    assert set(frequencies(bank, "M", n=5)) == {None}


@pytest.mark.parametrize("own", ["avoid", "forbid"])
def test_the_host_is_no_donor_while_there_are_others(bank, own):
    found = frequencies(bank, "AC", own_subject=own, n=50)
    assert set(found) == {"c/0001"}
    # Others exist though none of them fits: the answer is no, and not the host's own lesion.
    assert set(frequencies(bank, "AC", Wanted(5000, 1e9, "A"), own_subject=own, n=50)) == {None}


def test_the_host_gives_to_itself_where_others_did_not_fit_unless_forbidden(bank):
    wanted = Wanted(5000, 1e9, "A", own_too=True)
    assert set(frequencies(bank, "AC", wanted, own_subject="avoid", n=50)) == {"a/0001"}
    assert set(frequencies(bank, "AC", wanted, own_subject="forbid", n=50)) == {None}


def test_a_host_that_is_alone_may_give_to_itself_unless_forbidden(bank):
    assert set(frequencies(bank, "A", own_subject="avoid", n=5)) == {"a/0001"}
    assert set(frequencies(bank, "A", own_subject="forbid", n=5)) == {None}
    assert set(frequencies(bank, "AC", own_subject="allow", n=50)) == {"a/0001", "c/0001"}


def test_filters_of_the_source(bank):
    assert set(frequencies(bank, "ABC", min_volume_mm3=100, max_volume_mm3=200, n=9)) == {"c/0001"}
    assert {name[0] for name in frequencies(bank, "ABC", lesion_class=2, n=99)} == {"b"}
    assert not frequencies(bank, "ABC", lesion_class=2, n=200).keys() & {"b/0008", "b/0009"}
    # Only the host has this class: it is alone among the donors that the source allows.
    assert set(frequencies(bank, "ABC", lesion_class=5, n=9)) == {"a/0001"}


def test_bounds_are_inclusive(bank):
    assert set(frequencies(bank, "BC", Wanted(150, 150, "A"), n=5)) == {"c/0001"}


def test_sources_share_a_cache_without_mixing(bank):
    donors = Donors(bank, ("B", "C"))
    rng = np.random.default_rng(0)
    for lesion_class, expected in ((2, "b"), (None, "bc"), (2, "b")):
        source = LesionBankSource(lesion_class=lesion_class)
        found = {source.draw(rng, donors, ANY)["lesion"][0] for _ in range(40)}
        assert found == set(expected)
    assert len(donors.cache) == 2


def test_bounds_in_order():
    with pytest.raises(ValidationError, match="min_volume_mm3 should not be above"):
        LesionBankSource(min_volume_mm3=5, max_volume_mm3=4)
