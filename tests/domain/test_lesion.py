from __future__ import annotations

import numpy as np
import pytest

from lesionsynth.domain.grid import Grid
from lesionsynth.domain.lesion import SIZE_EDGES_MM3, size_class
from lesionsynth.domain.likelihood import LikelihoodMap
from tests.bank.making import make_lesion


def test_size_classes_begin_at_their_edges():
    assert size_class(0.0) == 0
    for number, edge in enumerate(SIZE_EDGES_MM3, start=1):
        assert size_class(np.nextafter(edge, 0)) == number - 1
        assert size_class(edge) == number


def test_an_entry_tells_size_spacing_and_contrast():
    info = make_lesion("a/0001", "A", volume_mm3=150.0).info
    assert info.component == 1
    assert info.size_class == 2
    assert info.spacing_mm == (1.0, 2.0, 0.5)
    assert info.channels[0].contrast == 30.0


def test_a_likelihood_map_is_a_density():
    grid = Grid((2, 2, 2), np.eye(4))
    LikelihoodMap(np.full((2, 2, 2), 1 / 8, np.float32), grid, "grid", ())
    bad = np.full((2, 2, 2), 1 / 8, np.float32)
    bad[0, 0, 0], bad[1, 1, 1] = -0.125, 0.375
    for density in (bad, bad * np.nan, np.full((2, 2, 2), 1.0)):
        with pytest.raises(ValueError, match="sums to 1"):
            LikelihoodMap(density, grid, "grid", ())
