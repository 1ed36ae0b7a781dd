"""What is pasted where nothing is said of load: counts, and the host's own lesions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from lesionsynth.editing.canvas import Canvas
from lesionsynth.editing.pasting import CountRange, removed_lesions
from lesionsynth.host import LoadedCase


def test_removed_lesions_are_those_of_the_host_that_are_gone(make_host: Callable[..., LoadedCase]) -> None:
    label = np.zeros((24, 24, 24), np.uint16)
    for number in range(3):
        label[4 + 6 * number, 8, 8] = 1
    canvas = Canvas(make_host(label=label))
    assert removed_lesions(canvas) == set()
    box = (slice(8, 13), slice(6, 11), slice(6, 11))
    shape = (5, 5, 5)
    canvas.remove(
        box, np.zeros((2, *shape), np.float32), np.ones((2, *shape), bool), 2, np.zeros(shape, np.uint16)
    )
    assert removed_lesions(canvas) == {2}
    everything = np.ones(shape, bool)
    canvas.replace(box, np.zeros((2, *shape), np.float32), everything, np.ones(shape, np.uint16))
    assert removed_lesions(canvas) == {2}  # what has come since is not the host's own


def test_a_range_of_counts_begins_at_one() -> None:
    counts = TypeAdapter(CountRange)
    assert counts.validate_python([1, 3]) == (1, 3)
    for wrong in ([0, 1], [3, 2], [1.5, 2]):
        with pytest.raises(ValidationError):
            counts.validate_python(wrong)
