"""The widths and weights of each blend, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lesionsynth.blends.alpha import Alpha
from lesionsynth.blends.hard import Hard
from lesionsynth.blends.rim import Rim

ISO = (1.0, 1.0, 1.0)


def line(blend, spacing_mm=ISO, n=15):
    """Alpha along the middle of a 5-voxel cube."""
    label = np.zeros((n, n, n), bool)
    label[5:10, 5:10, 5:10] = True
    return blend.alpha(label, np.ones_like(label), spacing_mm)[:, 7, 7]


def test_hard_is_the_label():
    assert line(Hard()).tolist() == [0] * 5 + [1] * 5 + [0] * 5
    assert Hard().reach_mm(ISO) == 0


def test_rim_mixes_the_outermost_layer_two_to_one():
    third = np.float32(2 / 3)
    assert line(Rim()).tolist() == [0] * 5 + [third, 1, 1, 1, third] + [0] * 5
    assert line(Rim(weight=0.5))[5] == 0.5
    with pytest.raises(ValueError, match=r"greater than or equal to 0\.5"):
        Rim(weight=0.4)


def test_alpha_keeps_the_label_whole_and_fades_over_its_width():
    assert line(Alpha()).tolist() == [0] * 3 + [0.25, 0.75] + [1] * 5 + [0.75, 0.25] + [0] * 3
    np.testing.assert_allclose(line(Alpha(width_mm=4.0))[:6], [0, 0.125, 0.375, 0.625, 0.875, 1])


def test_alpha_is_in_mm_and_as_wide_as_coarse_voxels_are():
    np.testing.assert_allclose(line(Alpha(), (0.5, 0.5, 0.5))[:6], [0, 0.125, 0.375, 0.625, 0.875, 1])
    np.testing.assert_allclose(line(Alpha(), (3.0, 3.0, 3.0)), line(Alpha()))
    assert Alpha().reach_mm((3.0, 3.0, 5.0)) == 7.5
    assert Alpha().reach_mm((0.5, 0.5, 0.5)) == 2.25
