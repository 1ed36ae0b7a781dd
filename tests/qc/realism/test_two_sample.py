"""The classifier tells what differs, not what is alike, and has never seen what it is tested on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from lesionsynth.errors import LesionsynthError
from lesionsynth.qc.realism import two_sample
from lesionsynth.qc.realism.compare import lesion_test
from lesionsynth.qc.realism.two_sample import Sample, floor, limited, told_apart, weights
from tests.qc.realism.making import lesions, seen


@pytest.fixture(autouse=True)
def _few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_sample, "_TREES", 40)
    monkeypatch.setattr(two_sample, "_FLOOR_ROUNDS", 2)
    monkeypatch.setattr(two_sample, "_SAMPLES", 40)


def area(real, made, apart="group", columns="look", **more):
    return told_apart(Sample.of(real), Sample.of(made), apart, columns, 0, 10, **more)


@pytest.mark.parametrize("apart", ["group", "host"])
def test_equal_populations_cannot_be_told_apart(apart: str) -> None:
    found = [area(lesions(2 * n), lesions(2 * n + 1, what="made"), apart) for n in range(3)]
    assert abs(np.mean([area.value for area in found]) - 0.5) < 0.15
    for one in found:
        assert one.low <= one.value <= one.high
        sizes = one.n_real + one.n_synthetic
        assert (one.n_groups, one.n_both) == ((4, 4) if apart == "host" else (sizes, 0))


@pytest.mark.parametrize("apart", ["group", "host"])
def test_populations_that_differ_are_told_apart(apart: str) -> None:
    found = area(lesions(0), lesions(1, shift=4.0, what="made"), apart)
    assert found.value > 0.95
    assert 0.9 < found.low <= found.value <= found.high <= 1


def test_the_control_sees_the_surroundings_alone() -> None:
    made = [replace(r, look={**r.look, "0 level +4 mm": 5.0}) for r in lesions(1, what="made")]
    assert area(lesions(0), made, columns="place").value > 0.95
    assert area(lesions(0), made, columns="look").value < 0.7


def test_a_donor_is_never_in_both_parts() -> None:
    """Copies of a lesion look alike, and nothing else does: whoever has seen one knows the others.

    Kept apart by donor that is of no use. By host, where each donor has a copy in every host, it is.
    """
    rng = np.random.default_rng(0)
    real, made = [], []
    for donor in range(40):
        first = seen(rng, 0, "", f"donor{donor}")
        for host in range(4):
            look = {name: value + 0.01 * rng.normal() for name, value in first.look.items()}
            row = replace(first, host=f"case{host}", number=4 * donor + host, look=look)
            (real if donor % 2 else made).append(replace(row, volume_mm3=50.0))
    assert area(real, made, "host").value > 0.95
    assert area(real, made, "group").value < 0.7


@pytest.mark.parametrize("seed", range(5))
def test_parts_hold_whole_groups_of_both_kinds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    key = rng.integers(30, size=200)
    y = np.where(key < 10, 0, rng.integers(2, size=200))
    fold = two_sample._folds(np.unique(key, return_inverse=True)[1], y, rng)
    assert set(fold) == set(range(5))
    for group in np.unique(key):
        assert len(set(fold[key == group])) == 1
    for part in range(5):
        assert set(y[fold == part]) == {0, 1}


def test_sizes_are_weighed_alike_in_each_host() -> None:
    """Host a: 2 real against 4 made, each of which counts half. Host b has no made ones."""
    real = Sample(
        np.zeros((3, 0)), (), np.array(["a", "a", "b"]), np.array(["1", "2", "3"]), np.full(3, 50.0)
    )
    made = Sample(np.zeros((4, 0)), (), np.array(["a"] * 4), np.array(list("4567")), np.full(4, 50.0))
    w_real, w_made, alike = weights(real, made)
    assert (w_real.tolist(), w_made.tolist(), alike) == ([1, 1, 0], [0.5] * 4, "host and size")


def test_sizes_that_only_one_side_has_do_not_count() -> None:
    def sample(*volumes: float) -> Sample:
        n = len(volumes)
        return Sample(np.zeros((n, 0)), (), np.array(["a"] * n), np.array(["x"] * n), np.array(volumes))

    w_real, w_made, _ = weights(sample(10, 20, 30, 9000), sample(2, 15, 30))
    assert w_real.tolist() == [1, 1, 1, 0]
    assert w_made.tolist() == [0, 1.5, 1.5]
    assert not np.any(weights(sample(1, 2), sample(5, 6))[0])


def test_other_hosts_are_weighed_by_size_alone() -> None:
    made = [replace(row, host=f"other{row.host}") for row in lesions(1, what="made")]
    one, other = Sample.of(lesions(0)), Sample.of(made)
    w_real, w_made, alike = weights(one, other)
    assert alike == "size"
    assert_allclose(w_real.sum(), w_made.sum())
    assert 0.3 < area(lesions(0), made, "host").value < 0.7


def test_the_size_gives_nobody_away() -> None:
    """Contrast that follows from the size, and made lesions that are larger."""
    rng = np.random.default_rng(0)
    real, made = [], []
    for rows, n, power in ((real, 150, 2.0), (made, 150, 0.5)):
        for k in range(n):
            row = seen(rng, k, "case", f"{power}/{k}")
            volume = float(20 + 180 * rng.random() ** power)
            rows.append(replace(row, volume_mm3=volume, look={**row.look, "0 level": volume / 20}))
    assert area(real, made).value < 0.65


def test_what_cannot_be_judged_is_said() -> None:
    few = area(lesions(0, 6), lesions(1, what="made"))
    assert (few.value, few.low, few.n_real) == (None, None, 6)
    assert "fewer than 10" in few.note
    assert area([], lesions(1)).note == "there are none of one kind"
    assert area(lesions(0, hosts=1), lesions(1, hosts=1, what="made"), "host").note == "all are of one host"
    far = [replace(row, volume_mm3=9e4 + row.volume_mm3) for row in lesions(1)]
    assert "of sizes that both have" in area(lesions(0), far).note
    assert floor(Sample.of([]), "group", "look", 0, 10).value is None


def test_the_floor_is_one_half() -> None:
    found = floor(Sample.of(lesions(3, 120)), "group", "look", 0, 10)
    assert abs(found.value - 0.5) < 0.1
    assert 0 < found.high - found.value < 0.15


def test_neither_threads_nor_order_matter() -> None:
    real, made = lesions(0), lesions(1, shift=1.0, what="made")
    once = lesion_test(real, made, 0, 10, 50)
    assert lesion_test(real[::-1], made[::-1], 0, 10, 50, n_jobs=2) == once
    assert lesion_test(real, made, 1, 10, 50).by_donor != once.by_donor
    assert once.by_donor.n_real + once.by_donor.n_synthetic <= 100


def test_rows_are_limited_in_their_order() -> None:
    kept = limited(list(range(100)), 10, 0, "what")
    assert kept == sorted(kept)
    assert len(set(kept)) == 10
    assert kept != limited(list(range(100)), 10, 1, "what")
    assert limited([1, 2], 10, 0, "what") == [1, 2]


def test_area_by_hand() -> None:
    """One of the pairs (real 0.5, made 0.4) is the wrong way round; it weighs a quarter, then two thirds."""
    y, score, part = np.array([0, 0, 1, 1]), np.array([0.1, 0.5, 0.4, 0.9]), np.zeros(4, int)
    assert_allclose(two_sample._area(y, np.ones(4), [(score, part)]), 0.75)
    assert_allclose(two_sample._area(y, np.array([1, 2, 3, 1.0]), [(score, part)]), 0.5)
    assert two_sample._area(y, np.ones(4), [(score, np.array([0, 0, 1, 1]))]) is None


def test_a_fault_of_scikit_learn_is_wrapped() -> None:
    made = [replace(row, look={**row.look, "0 level": float("inf")}) for row in lesions(1, what="made")]
    with pytest.raises(LesionsynthError, match=r"failed in scikit-learn: ValueError.*report this"):
        area(lesions(0), made)
