"""The widths and weights of each blend, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lesionsynth.blends.alpha import Alpha
from lesionsynth.blends.hard import Hard
from lesionsynth.blends.poisson import Poisson
from lesionsynth.blends.rim import Rim
from lesionsynth.blends.soft_poisson import SoftPoisson

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


def test_alpha_may_be_centred_on_the_labels_edge_or_gaussian():
    np.testing.assert_allclose(line(Alpha(edge="label"))[:8], [0] * 4 + [0.25, 0.75, 1, 1])
    assert Alpha(edge="label").reach_mm(ISO) == 1.5
    soft = line(Alpha(edge="gaussian"))
    assert (np.diff(soft[:8]) >= 0).all()
    assert 0.5 <= soft[5] < soft[7] < 1
    assert Alpha(edge="gaussian").reach_mm(ISO) == 3.5


def test_poisson_takes_the_rim_into_its_mask():
    assert line(Poisson(rim_mm=0)).tolist() == line(Hard()).tolist()
    assert line(Poisson()).tolist() == [0] * 4 + [1] * 7 + [0] * 4
    assert line(Poisson(), (2.0, 2.0, 2.0)).tolist() == line(Poisson()).tolist()


def test_soft_poisson_draws_k_from_its_range_and_reaches_as_far_as_its_margin():
    assert {0.5 <= SoftPoisson().draw(np.random.default_rng(seed))["k"] <= 1 for seed in range(20)} == {True}
    assert SoftPoisson(k=(0.25, 0.25)).draw(np.random.default_rng(0)) == {"k": 0.25}
    assert SoftPoisson().reach_mm(ISO) == 5.5
    assert SoftPoisson().reach_mm((1.0, 1.0, 2.0)) == 2.5 + 4
    for bad in ((-0.1, 1.0), (0.5, 1.1), (0.8, 0.5)):
        with pytest.raises(ValueError, match="should"):
            SoftPoisson(k=bad)


def test_soft_poisson_with_k_of_one_is_alpha():
    rng = np.random.default_rng(0)
    host, lesion = rng.normal(size=(2, 2, 15, 15, 15)).astype(np.float32)
    label = np.zeros((15, 15, 15), bool)
    label[5:10, 5:10, 5:10] = True
    everywhere = np.ones_like(label)
    weight = Alpha().alpha(label, everywhere, ISO)
    plain = Alpha().compose(host, lesion, weight, everywhere, {}, ISO)
    soft = SoftPoisson().compose(host, lesion, weight, everywhere, {"k": 1.0}, ISO)
    np.testing.assert_array_equal(soft, plain)
