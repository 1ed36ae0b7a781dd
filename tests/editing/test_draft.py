"""A draft is its original wherever nothing was written, and only what is asked for is copied."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lesionsynth.domain.grid import Box
from lesionsynth.editing.draft import Draft
from lesionsynth.slabs import SLAB_VOX, Slabs

SHAPE = (48, 50, 70)  # 2400 voxels a slice: the slabs begin within slices
N_SLABS = -(-48 * 50 * 70 // SLAB_VOX)


def original(dtype: str = "<i2", order: Any = "F") -> NDArray[Any]:
    values = np.random.default_rng(0).integers(-100, 100, SHAPE)
    return np.array(values.astype(dtype), order=order)


def draft_of(volume: NDArray[Any]) -> Draft:
    return Draft(volume, np.full(volume.shape, 77, volume.dtype, order="F"))


spans = [st.tuples(st.integers(0, n), st.integers(0, n)).map(lambda s: slice(min(s), max(s))) for n in SHAPE]
boxes = st.tuples(*spans)


@given(st.lists(st.tuples(boxes, st.booleans()), max_size=6), st.sampled_from([">f4", "<i2", "u1"]))
def test_a_draft_is_a_copy(edits: list[tuple[Box, bool]], dtype: str) -> None:
    volume = original(dtype)
    before, expected = volume.copy(), volume.copy()
    draft = draft_of(volume)
    for number, (box, written) in enumerate(edits):
        assert np.array_equal(draft.read(box), expected[box])
        if written:
            draft.write(box)[:] = number
            expected[box] = number
    stored = b"".join(draft.slabs(Slabs(volume)).pieces)
    assert stored == expected.tobytes(order="F")
    assert draft.slabs(Slabs(volume)).digest == Slabs(expected).digest
    assert np.array_equal(draft.whole(), expected)
    draft.reset()
    assert np.array_equal(draft.whole(), before)
    assert np.array_equal(volume, before)


def test_only_what_is_asked_for_is_copied() -> None:
    draft = draft_of(original())
    draft.read((slice(3, 5), slice(3, 5), slice(0, 1)))
    assert N_SLABS == 3
    assert (draft.volume.ravel(order="F")[SLAB_VOX:] == 77).all()
    assert not (draft.volume.ravel(order="F")[:SLAB_VOX] == 77).all()


def test_what_was_only_read_is_the_base_s() -> None:
    volume = original()
    base, draft = Slabs(volume), draft_of(volume)
    draft.read((slice(0, 5), slice(0, 5), slice(0, 70)))
    draft.write((slice(0, 5), slice(0, 5), slice(69, 70)))[:] = 3
    slabs = draft.slabs(base)
    packed = [slabs.packed(number, 1) is base.packed(number, 1) for number in range(N_SLABS)]
    assert packed == [True, True, False]


def test_volumes_in_another_order() -> None:
    volume = original(order="C")
    assert np.array_equal(draft_of(volume).whole(), volume)


def test_what_is_read_cannot_be_written_to() -> None:
    draft = draft_of(original())
    with pytest.raises(ValueError, match="read-only"):
        draft.whole()[0] = 1
