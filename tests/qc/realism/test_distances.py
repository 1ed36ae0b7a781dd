"""Distances of single features, and distances to training lesions."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from lesionsynth.qc.realism.distances import distance, distances, feature_names
from lesionsynth.qc.realism.gate import Breach, breaches
from lesionsynth.qc.realism.memorised import Memorised, memorised
from lesionsynth.recipe.realism import RealismSpec
from tests.qc.realism.making import CHANNELS, lesions


def test_equal_samples_have_no_distance() -> None:
    found = distances(lesions(0), lesions(0), CHANNELS)
    assert {row.ks for row in found} == {0.0}
    assert {row.wasserstein for row in found} <= {0.0, None}
    assert {"contrast A", "seam B", "volume_mm3", "place", "sphericity"} <= {row.feature for row in found}
    assert [row.feature for row in found] == [
        n for n in feature_names(CHANNELS) if n in {r.feature for r in found}
    ]


def test_distances_by_hand() -> None:
    """0 to 3 against 10 to 13: apart, and each moved by 10, where the robust spread is 1.4826."""
    real = np.arange(4.0)
    found = distance("x", real, real + 10)
    assert (found.ks, found.real, found.synthetic) == (1.0, 1.5, 11.5)
    assert_allclose(found.wasserstein, 10 / 1.4826)
    assert distance("x", real, np.array([0.0, 1, 2, 9])).ks == 0.25
    assert distance("x", np.ones(4), real).wasserstein is None


def test_sizes_are_compared_by_factors() -> None:
    """Twice as large: ln 2 in spreads of the logarithms, which are ln 10 apart."""
    real = np.array([1.0, 10.0, 100.0])
    assert_allclose(distance("volume_mm3", real, 2 * real).wasserstein, np.log(2) / (1.4826 * np.log(10)))


def test_places_are_compared_by_their_shares() -> None:
    real = lesions(0, 10)
    made = [replace(row, place="edge") if k < 3 else row for k, row in enumerate(lesions(1, 10))]
    (row,) = [row for row in distances(real, made, CHANNELS) if row.feature == "place"]
    assert_allclose(row.ks, 0.3)
    assert (row.real, row.wasserstein, row.n_real, row.n_synthetic) == (None, None, 10, 10)


def test_a_shift_is_seen_in_its_feature_alone() -> None:
    found = {row.feature: row for row in distances(lesions(0), lesions(1, shift=3.0), CHANNELS)}
    assert found["contrast A"].ks > 0.7
    assert max(row.ks for name, row in found.items() if name not in ("contrast A",)) < 0.4
    assert distances([], lesions(1), CHANNELS) == []


def test_copies_are_memorised() -> None:
    real = lesions(0, 100)
    copies = [
        replace(row, look={name: value + 0.01 for name, value in row.look.items()}, case="copy")
        for row in real
    ]
    found = memorised(real, copies, 2, 10)
    assert found.near_share == 1.0
    assert found.added < 0.1 * found.held_out
    assert found.ks == 1.0
    assert (found.n_added, found.n_held_out, found.n_training) == (100, 100, 100)


def test_what_was_not_looked_at_cannot_pass() -> None:
    """A copy of a lesion that was not looked at seems new: the limit is for all of them."""

    def told(memory: Memorised, limit: float) -> list[Breach]:
        nothing = SimpleNamespace(by_donor=None, by_host=None, by_place=None)
        found = SimpleNamespace(memorised=memory, features=[], lesions=nothing, fills=nothing)
        return breaches(RealismSpec(max_memorised=limit), found)  # type: ignore[arg-type]

    real = lesions(0, 400)
    copies = [replace(row, case="copy") for row in real[::2]]
    part = memorised(real[:100], copies, 2, 10, coverage=0.25)
    assert 0.2 < part.near_share < 0.4
    assert [breach.value for breach in told(part, 0.2)] == [part.near_share]
    assert "cannot be judged (25% of the real lesions were looked at" in str(*told(part, 0.5))
    whole = memorised(real, copies, 2, 10)
    assert (whole.near_share, whole.coverage, told(whole, 1.0)) == (1.0, 1.0, [])
    assert told(memorised(lesions(0, 200), lesions(1, 200), 2, 10, coverage=0.5), 0.5) == []


def test_new_lesions_are_not_memorised() -> None:
    found = memorised(lesions(0, 200), lesions(1, 200), 2, 10)
    assert found.near_share < 0.15
    assert abs(found.added / found.held_out - 1) < 0.1
    assert found.how == "each subject in turn"


def test_who_is_outside_the_block_is_held_out() -> None:
    """A block of two subjects: lesions of theirs come back, those of the others are held out."""
    real = lesions(0, 100)
    block = ("case0", "case1")
    made = [replace(row, behind=block) for row in real if row.subject in block]
    found = memorised(real, made, 2, 10)
    assert (found.near_share, found.added) == (1.0, 0.0)
    assert (found.n_added, found.n_held_out) == (50, 50)
    assert found.how == "subjects outside the block"
    others = [replace(row, behind=block) for row in real if row.subject not in block]
    assert memorised(real, others, 2, 10).near_share < 0.1


def test_subjects_known_by_masks_alone_hold_no_lesions() -> None:
    real = lesions(0, 100)
    everybody = tuple(sorted({row.subject for row in real}))
    made = [replace(row, behind=(*everybody, "mask7")) for row in lesions(1, 50)]
    assert memorised(real, made, 2, 10).how == "each subject in turn"


@pytest.mark.parametrize(("n_real", "n_made"), [(0, 50), (50, 0), (50, 5), (5, 50)])
def test_too_few_are_not_judged(n_real: int, n_made: int) -> None:
    found = memorised(lesions(0, n_real), lesions(1, n_made), 2, 10)
    assert (found.added, found.held_out, found.near_share, found.ks) == (None,) * 4
    assert found.note
    assert (found.n_added, found.n_training) == (n_made, n_real)


def test_one_subject_alone_holds_nobody_out() -> None:
    found = memorised(lesions(0, 50, hosts=1), lesions(1, 50), 2, 10)
    assert (found.near_share, found.n_held_out) == (None, 0)


def test_features_in_which_nobody_differs_do_not_count() -> None:
    real = [replace(row, look={**row.look, "1 level": 1.0}) for row in lesions(0, 50)]
    far = [replace(row, look={**row.look, "1 level": 99.0}) for row in real]
    assert memorised(real, far, 2, 10).added == 0.0
