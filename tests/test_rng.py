"""Streams: addressed by name, pinned, independent of each other and of the order of the work."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesionsynth.rng import stream

Name = tuple[str | int, ...]


def first(seed: int, *name: str | int) -> tuple[int, ...]:
    return tuple(int(v) for v in stream(seed, *name).integers(2**63, size=2))


def test_pinned_values() -> None:
    """A change here changes every data set that was ever made: it belongs under *Changes output*."""
    drawn = stream(2026, "sub01", 3, "add", "load").integers(10**9, size=3)
    assert drawn.tolist() == [598865446, 356796371, 535648911]
    assert stream(0).random() == 0.6369616873214543


def test_streams_do_not_depend_on_what_was_drawn_before() -> None:
    names: list[Name] = [("a", 0), ("a", 1), ("b", 0)]
    forward = {name: first(7, *name) for name in names}
    backward = {name: first(7, *name) for name in reversed(names)}
    assert forward == backward
    assert len(set(forward.values())) == 3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "bc"), ("ab", "c")),
        ((1,), ("1",)),
        (("a",), ("a", "")),
        (("a", "b"), ("b", "a")),
        ((), ("",)),
        ((0,), ()),
        ((-1,), (1,)),
        (("int:1",), (1,)),
    ],
)
def test_names_that_look_alike_are_different_streams(one: Name, other: Name) -> None:
    assert first(0, *one) != first(0, *other)


def test_seeds_are_different_streams() -> None:
    seeds = [0, 1, 2**32, 2**63 - 1]
    assert len({first(seed, "a") for seed in seeds}) == len(seeds)


def test_a_numpy_integer_is_an_integer() -> None:
    assert first(0, "a", int(np.int64(3))) == first(0, "a", np.int64(3))  # type: ignore[arg-type]
    assert first(0, "a", 10**30) != first(0, "a", 10**30 + 1)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError):
        stream(-1, "a")


parts = st.lists(st.one_of(st.text(max_size=3), st.integers(-3, 3)), max_size=4)


@given(st.integers(0, 2**63), parts, parts)
def test_equal_names_and_only_those_give_equal_streams(
    seed: int, one: list[str | int], other: list[str | int]
) -> None:
    same_name = [(type(p), p) for p in one] == [(type(p), p) for p in other]
    assert (first(seed, *one) == first(seed, *other)) is same_name
