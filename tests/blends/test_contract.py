"""What every blend has to keep: registered means tested.

Blends by gradients differ by design: their composite is not bounded by the two images, and one that
`spreads` changes the host where alpha is 0.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from lesionsynth.domain.grid import bounding_box, grown
from lesionsynth.plugins import registry
from lesionsynth.units import mm_to_vox

# Each kind as it comes, and some in another form.
BLENDS = [model() for model in registry.kinds("blends").values()]
BLENDS += [
    registry.kinds("blends")[kind](**form)
    for kind, form in (
        ("alpha", {"edge": "label"}),
        ("soft_poisson", {"edge": "gaussian"}),
        ("poisson", {"gradients": "mixed"}),
    )
]

pytestmark = pytest.mark.parametrize(
    "blend", BLENDS, ids=lambda b: "-".join([b.kind, *b.model_dump(exclude_defaults=True).values()])
)

SPACINGS = [(1.0, 1.0, 1.0), (0.7, 0.7, 3.0), (2.0, 1.5, 2.5)]
seeds = st.integers(0, 2**16)


def scene(seed, shape=(9, 8, 7), channels=2):
    """A label, where anything may change, and two images."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), 1.0)
    label = smooth > np.quantile(smooth, 0.8)
    allowed = label | (rng.random(shape) > 0.3)
    host, lesion = (rng.normal(scale=10.0 ** rng.integers(0, 4), size=(2, channels, *shape))).astype(
        np.float32
    )
    return label, allowed, host, lesion


def blended(blend, label, allowed, host, lesion, spacing_mm=SPACINGS[0], seed=0):
    alpha = blend.alpha(label, allowed, spacing_mm)
    draw = blend.draw(np.random.default_rng(seed))
    return alpha, blend.compose(host, lesion, alpha, allowed, draw, spacing_mm)


def is_weighted_mean(blend):
    return type(blend).compose is registry.kinds("blends")["hard"].compose


@given(seed=seeds, spacing_mm=st.sampled_from(SPACINGS))
@settings(max_examples=15, deadline=None)
def test_alpha_is_a_weight_on_what_is_allowed_and_at_least_half_on_the_label(blend, seed, spacing_mm):
    label, allowed, *_ = scene(seed)
    alpha = blend.alpha(label, allowed, spacing_mm)
    assert alpha.dtype == np.float32
    assert alpha.shape == label.shape
    assert alpha.min() >= 0
    assert alpha.max() <= 1
    assert not alpha[~allowed].any()
    assert (alpha[label] >= 0.5).all()


@given(seed=seeds, spacing_mm=st.sampled_from(SPACINGS))
@settings(max_examples=10, deadline=None)
def test_nothing_changes_beyond_the_declared_reach(blend, seed, spacing_mm):
    label = np.zeros((40, 36, 30), bool)
    label[18:22, 17:20, 14:16] = scene(seed, (4, 3, 2))[0]
    everywhere = np.ones_like(label)
    host, lesion = np.random.default_rng(seed).normal(size=(2, 1, *label.shape)).astype(np.float32)
    alpha, out = blended(blend, label, everywhere, host, lesion, spacing_mm)
    reach_mm = blend.reach_mm(spacing_mm)
    distance = ndimage.distance_transform_edt(~label, sampling=spacing_mm)
    assert not alpha[distance > reach_mm + 1e-6].any()
    reach = grown(bounding_box(label), mm_to_vox(reach_mm, spacing_mm), label.shape)
    far = everywhere.copy()
    far[reach] = False
    assert far.any()
    np.testing.assert_array_equal(out[:, far], host[:, far])


@given(seed=seeds, spacing_mm=st.sampled_from(SPACINGS))
@settings(max_examples=15, deadline=None)
def test_the_host_is_untouched_where_alpha_is_zero_and_the_lesion_whole_where_it_is_one(
    blend, seed, spacing_mm
):
    label, allowed, host, lesion = scene(seed)
    alpha, out = blended(blend, label, allowed, host, lesion, spacing_mm)
    assert out.dtype == np.float32
    assert out.shape == host.shape
    if not blend.spreads:
        assert out[:, alpha == 0].tobytes() == host[:, alpha == 0].tobytes()
    if is_weighted_mean(blend):
        assert out[:, alpha == 1].tobytes() == lesion[:, alpha == 1].tobytes()


@given(seed=seeds)
@settings(max_examples=15, deadline=None)
def test_the_blend_of_equal_images_is_the_identity(blend, seed):
    label, allowed, host, _ = scene(seed)
    _, out = blended(blend, label, allowed, host, host.copy())
    np.testing.assert_array_equal(out, host)


@given(seed=seeds)
@settings(max_examples=15, deadline=None)
def test_a_weighted_mean_is_nowhere_darker_or_brighter_than_both_images(blend, seed):
    label, allowed, host, lesion = scene(seed)
    _, out = blended(blend, label, allowed, host, lesion)
    assert np.isfinite(out).all()
    if is_weighted_mean(blend):
        assert (out >= np.minimum(host, lesion)).all()
        assert (out <= np.maximum(host, lesion)).all()


@given(seed=seeds)
@settings(max_examples=15, deadline=None)
def test_intensities_in_other_units_give_the_same_blend_in_those_units(blend, seed):
    label, allowed, host, lesion = scene(seed)
    _, out = blended(blend, label, allowed, host, lesion)
    _, mapped = blended(blend, label, allowed, -3 * host + 7, -3 * lesion + 7)
    scale = np.abs(np.stack([host, lesion])).max()
    np.testing.assert_allclose(mapped, -3 * out + 7, atol=3e-5 * scale + 1e-5)


@given(seed=seeds, order=st.permutations(range(3)), axis=st.sampled_from([0, 1, 2]))
@settings(max_examples=15, deadline=None)
def test_flips_and_permutations_commute(blend, seed, order, axis):
    label, allowed, host, lesion = scene(seed)
    spacing_mm = SPACINGS[1]

    def turned(array):
        lead = array.ndim - 3
        return np.flip(array.transpose([*range(lead), *(lead + o for o in order)]), axis + lead)

    alpha, out = blended(blend, label, allowed, host, lesion, spacing_mm)
    again, turned_out = blended(
        blend, turned(label), turned(allowed), turned(host), turned(lesion), [spacing_mm[o] for o in order]
    )
    np.testing.assert_allclose(again, turned(alpha), atol=1e-6)
    scale = np.abs(np.stack([host, lesion])).max()
    np.testing.assert_allclose(turned_out, turned(out), rtol=1e-5, atol=1e-5 * scale)


def test_inputs_are_unchanged(blend):
    given_arrays = scene(1)
    before = [a.copy() for a in given_arrays]
    blended(blend, *given_arrays)
    for was, now in zip(before, given_arrays, strict=True):
        np.testing.assert_array_equal(was, now)


def test_the_order_of_the_arrays_in_memory_does_not_matter(blend):
    arrays = scene(3)
    _, out = blended(blend, *arrays)
    _, again = blended(blend, *(np.asfortranarray(a) for a in arrays))
    np.testing.assert_allclose(again, out, rtol=1e-6, atol=1e-6 * np.abs(out).max())


@pytest.mark.parametrize("channels", [1, 4])
def test_channels_are_blended_alike(blend, channels):
    label, allowed, host, lesion = scene(2, channels=channels)
    _, out = blended(blend, label, allowed, host, lesion)
    assert out.shape == (channels, *label.shape)
    for c in range(channels):
        _, alone = blended(blend, label, allowed, host[c : c + 1], lesion[c : c + 1])
        np.testing.assert_allclose(alone[0], out[c], rtol=1e-6, atol=1e-6 * np.abs(out[c]).max())


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 1, 1), (6, 5, 1)])
def test_a_label_that_fills_the_volume_and_thin_volumes(blend, shape):
    label = np.ones(shape, bool)
    host, lesion = np.random.default_rng(0).normal(size=(2, 2, *shape)).astype(np.float32)
    alpha, out = blended(blend, label, label, host, lesion)
    assert (alpha >= 0.5).all()
    assert np.isfinite(out).all()


def test_a_label_at_the_border_is_treated_as_if_the_volume_went_on(blend):
    label = np.zeros((9, 9, 9), bool)
    label[0:3, 3:6, 3:6] = True
    wide = np.pad(label, 4)
    alpha = blend.alpha(label, np.ones_like(label), SPACINGS[0])
    beyond = blend.alpha(wide, np.ones_like(wide), SPACINGS[0])
    np.testing.assert_allclose(alpha, beyond[4:-4, 4:-4, 4:-4], atol=1e-6)


def test_no_label_is_no_change(blend):
    nothing = np.zeros((4, 4, 4), bool)
    host, lesion = np.random.default_rng(0).normal(size=(2, 2, 4, 4, 4)).astype(np.float32)
    alpha, out = blended(blend, nothing, ~nothing, host, lesion)
    assert not alpha.any()
    np.testing.assert_array_equal(out, host)


@given(seed=seeds, spacing_mm=st.sampled_from(SPACINGS))
@settings(max_examples=10, deadline=None)
def test_what_the_lesion_image_is_where_it_may_not_be_used_does_not_matter(blend, seed, spacing_mm):
    label, allowed, host, lesion = scene(seed)
    _, out = blended(blend, label, allowed, host, lesion, spacing_mm)
    other = np.where(allowed, lesion, np.float32(1e4))
    _, again = blended(blend, label, allowed, host, other, spacing_mm)
    np.testing.assert_array_equal(again, out)


@pytest.mark.parametrize("spacing_mm", SPACINGS)
def test_a_device_gives_what_the_cpu_gives(blend, spacing_mm, device):
    for seed in range(3):
        label, allowed, host, lesion = scene(seed)
        draw = blend.draw(np.random.default_rng(seed))
        alpha, out = blended(blend, label, allowed, host, lesion, spacing_mm, seed)
        there = blend.alpha(device.put(label), device.put(allowed), spacing_mm)
        np.testing.assert_allclose(device.get(there), alpha, atol=1e-6)
        again = blend.compose(
            device.put(host), device.put(lesion), there, device.put(allowed), draw, spacing_mm
        )
        assert device.get(again).dtype == np.float32
        scale = np.abs(np.stack([host, lesion])).max()
        np.testing.assert_allclose(device.get(again), out, atol=1e-5 * scale)


def test_a_draw_is_plain_json_and_repeatable(blend):
    one, two = (blend.draw(np.random.default_rng(3)) for _ in range(2))
    assert one == two
    assert json.loads(json.dumps(one)) == one
