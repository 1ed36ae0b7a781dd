"""The compiled search for a place against the same rules in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesionsynth.kernels.placement import ANYWHERE, first_fit
from lesionsynth.kernels.tissue import GREY, PLACES, WHITE, place_of

SHAPE = (9, 8, 7)
BARRED = 9


def fits(centre, body, halo, volumes, least_inside, most_clipped, has_classes, place) -> bool:
    """The rules, one after the other."""
    tissue, untouchable, source, instances, zones = volumes
    at = body + centre
    within = ((at >= 0) & (at < SHAPE)).all(axis=1)
    at = tuple(at[within].T)
    kept = np.isin(tissue[at], (GREY, WHITE)) & ~untouchable[at]
    near = halo + centre
    near = tuple(near[((near >= 0) & (near < SHAPE)).all(axis=1)].T)
    return bool(
        kept.any()
        and len(body) - kept.sum() <= most_clipped
        and (tissue[at] == WHITE).sum() >= least_inside
        and not (source[at] == BARRED).any()
        and not (instances[near] > 0).any()
        and (place == ANYWHERE or place_of(zones[at][kept], has_classes) == PLACES[place])
    )


@given(
    seed=st.integers(0, 2**16),
    inside=st.sampled_from([0.0, 0.4, 0.8]),
    clipped=st.sampled_from([0.0, 0.3, 1.0]),
    has_classes=st.booleans(),
    place=st.integers(ANYWHERE, len(PLACES) - 1),
)
@settings(max_examples=80, deadline=None)
def test_it_finds_what_the_rules_allow_and_the_first_of_it(seed, inside, clipped, has_classes, place) -> None:
    rng = np.random.default_rng(seed)
    volumes = (
        rng.choice([0, 1, 2, 3, 4], SHAPE, p=[0.05, 0.05, 0.2, 0.65, 0.05]).astype(np.uint8),
        rng.random(SHAPE) < 0.05,
        (BARRED * (rng.random(SHAPE) < 0.03)).astype(np.uint16),
        (rng.random(SHAPE) < 0.03).astype(np.int32),
        rng.choice([0, 1, 2, 3], SHAPE, p=[0.85, 0.05, 0.05, 0.05]).astype(np.uint8),
    )
    body = np.argwhere(rng.random((2, 2, 3)) < 0.7) - 1
    halo = np.argwhere(np.ones((4, 4, 5))) - 2 if len(body) else np.empty((0, 3), np.int64)
    centres = rng.integers(0, SHAPE, (20, 3))
    rules = (inside * len(body), clipped * len(body), has_classes, place)
    found = first_fit(centres, body, halo, *volumes, BARRED, *rules)
    allowed = [n for n, c in enumerate(centres) if len(body) and fits(c, body, halo, volumes, *rules)]
    assert found == (allowed[0] if allowed else -1)


@pytest.mark.parametrize("n", [0, 3])
def test_nothing_to_place_fits_nowhere(n: int) -> None:
    volumes = [np.full(SHAPE, v, t) for v, t in ((WHITE, "u1"), (0, "?"), (0, "u2"), (0, "i4"), (0, "u1"))]
    none = np.empty((0, 3), np.int64)
    centres = np.ones((n, 3), np.int64)
    assert first_fit(centres, none, none, *volumes, BARRED, 0.0, 0.0, True, ANYWHERE) == -1
