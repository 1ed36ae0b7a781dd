from __future__ import annotations

import numpy as np
import pytest
from make_sample_data import OVERSAMPLING, SEED, TEMPLATE_EXTENT, block_mean, make_subject
from phantom_anatomy import make_anatomy
from scipy import ndimage

from lesionsynth.kernels.tissue import (
    FLUID,
    GREY,
    NEAR_EDGE,
    NEAR_VENTRICLE,
    OUTSIDE,
    VENTRICLE,
    WHITE,
    body,
    contrast_of,
    mark_ventricles,
    place_of,
    site_distances_mm,
    site_zones,
    stripped_brain,
    three_classes,
    tissue_channels,
    without_padding,
)

SHAPE, SPACING = (36, 45, 38), (2.7, 2.7, 2.7)
FLAIR, T1 = 0, 1


def true_shares(index):
    """Shares of (fluid, grey, white) in each voxel of a phantom, and of the lateral ventricles."""
    rng = np.random.default_rng(np.random.SeedSequence([SEED, index]))
    spacing = np.array(SPACING)
    scale = float(np.min(np.array(SHAPE) * spacing / TEMPLATE_EXTENT))
    severity = (0.5 + index * 0.6180339887) % 1
    atrophy = float(np.clip(0.6 * severity + rng.uniform(0, 0.5), 0, 1))
    fine = tuple(n * OVERSAMPLING for n in SHAPE)
    anatomy = make_anatomy(rng, fine, spacing / OVERSAMPLING, scale, atrophy)
    share = {name: block_mean(values) for name, values in anatomy.fractions.items()}
    grey = share["grey"] + share["striatum"] + share["thalamus"]
    white = share["white"] + share["stem"] + share["pallidum"]
    return np.stack([share["csf"], grey, white]), block_mean((anatomy.ventricle < 0).astype(float))


@pytest.fixture(scope="module", params=[0, 1, 2])
def phantom(request):
    images, label, _ = make_subject(request.param, shape=SHAPE, spacing_mm=SPACING)
    shares, ventricles = true_shares(request.param)
    return images.astype(np.float32), label > 0, shares, ventricles


def recall(tissue, code, where):
    return float((tissue[where] == code).mean())


def test_t1_separates_the_tissues_of_a_phantom(phantom):
    images, lesions, shares, _ = phantom
    brain = stripped_brain(images, SPACING)
    tissue = three_classes(images[[T1]], brain, lesions, "t1")
    pure = (shares > 0.95) & brain & ~lesions
    for code, where in zip((FLUID, GREY, WHITE), pure, strict=True):
        assert recall(tissue, code, where) > 0.85
    assert (tissue[lesions] == WHITE).all()
    assert (tissue[~brain & ~lesions] == OUTSIDE).all()
    medians = [np.median(images[T1][tissue == code]) for code in (FLUID, GREY, WHITE)]
    assert medians == sorted(medians)


def test_flair_alone_separates_fluid_from_tissue(phantom):
    images, lesions, shares, _ = phantom
    brain = stripped_brain(images, SPACING)
    tissue = three_classes(images[[FLAIR]], brain, lesions, "flair")
    pure = (shares > 0.95) & brain & ~lesions
    assert recall(tissue, FLUID, pure[0]) > 0.98
    assert recall(tissue, WHITE, pure[1] | pure[2]) > 0.98
    assert not (tissue == GREY).any()


def test_lateral_ventricles_are_found_and_are_fluid(phantom):
    images, lesions, _, ventricles = phantom
    tissue = three_classes(images[[FLAIR]], stripped_brain(images, SPACING), lesions, "flair")
    before = tissue.copy()
    mark_ventricles(tissue, SPACING)
    assert recall(tissue, VENTRICLE, (ventricles > 0.95) & ~lesions) > 0.95
    assert (before[tissue == VENTRICLE] == FLUID).all()
    np.testing.assert_array_equal(tissue[tissue != VENTRICLE], before[tissue != VENTRICLE])


def test_the_brain_of_a_phantom_is_found_whole(phantom):
    images, *_ = phantom
    brain = stripped_brain(images, SPACING)
    bright = (images != 0).any(axis=0)
    assert brain[bright].all()
    assert np.count_nonzero(brain & ~bright) <= 1


def test_tissue_follows_flips_and_permutations(phantom):
    images, lesions, *_ = phantom
    brain = stripped_brain(images, SPACING)
    one = three_classes(images[[T1]], brain, lesions, "t1")

    def turned(array):
        return np.flip(np.moveaxis(array, -1, -3), -2)

    two = three_classes(turned(images[[T1]]), turned(brain), turned(lesions), "t1")
    assert (two != turned(one)).mean() < 1e-3


def test_lesions_do_not_take_part_in_the_fit(phantom):
    images, lesions, *_ = phantom
    brain = stripped_brain(images, SPACING)
    bright = np.where(lesions, 5 * images, images)
    one = three_classes(images[[T1]], brain, lesions, "t1")
    two = three_classes(bright[[T1]], brain, lesions, "t1")
    far = brain & ~ndimage.binary_dilation(lesions, np.ones((7, 7, 7)))
    assert (one[far] == two[far]).mean() > 0.9999


def test_lesions_count_as_white_matter_also_outside_the_brain_mask():
    images, label, _ = make_subject(0, shape=(24, 30, 25), spacing_mm=(4.0, 4.0, 4.0))
    lesions = label > 0
    lesions[0, 0, 0] = True
    brain = stripped_brain(images.astype(np.float32), SPACING)
    assert three_classes(images[[T1]].astype(np.float32), brain, lesions, "t1")[0, 0, 0] == WHITE


def test_no_classes_without_a_brain_contrast_or_enough_voxels():
    rng = np.random.default_rng(0)
    shape = (12, 12, 12)
    noise = rng.normal(size=(1, *shape)).astype(np.float32)
    nothing, everything = np.zeros(shape, bool), np.ones(shape, bool)
    few = nothing.copy()
    few[:5, :5, :5] = True
    assert three_classes(noise, nothing, nothing, "t1") is None
    assert three_classes(noise, few, nothing, "t1") is None
    assert three_classes(np.ones_like(noise), everything, nothing, "t1") is None


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("T1", "t1"), ("t1w", "t1"), ("MPRAGE", "t1"), ("T1_SPACE", "t1"), ("T1 slices", "t1"), ("t1n", "t1"),
        ("T1POST", "t1post"), ("T1-Gd", "t1post"), ("T1ce", "t1post"), ("t1c", "t1post"), ("T1+C", "t1post"),
        ("T1w_ce", "t1post"), ("FLAIR", "flair"), ("T2-FLAIR", "flair"), ("t2f", "flair"), ("T2w", "t2"),
        ("CT", None), ("ADC", None), ("PD", None),
    ],
)  # fmt: skip
def test_contrasts_are_known_by_name(name, kind):
    assert contrast_of(name) == kind


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["FLAIR", "T1", "T1POST", "T2"], [1, 3]),
        (["FLAIR", "T1"], [1]),
        (["T1POST", "T2"], [0, 1]),
        (["T1POST", "T1"], [1]),
        (["FLAIR", "T2"], [1]),
        (["FLAIR"], [0]),
        (["CT"], []),
    ],
)
def test_tissue_is_told_by_t1_with_t2_or_by_the_best_there_is(names, chosen):
    assert tissue_channels(names) == chosen


def ball(shape=(20, 20, 20), radius=6):
    centre = (np.array(shape) - 1) / 2
    offset = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1) - centre
    return np.linalg.norm(offset, axis=-1) <= radius


def test_a_stripped_brain_is_one_object_on_a_constant_background_with_its_holes_filled():
    head = ball()
    image = np.where(head, 100.0, -7.0).astype(np.float32)[None]
    image[0, 10, 10, 10] = -7.0
    np.testing.assert_array_equal(stripped_brain(image, SPACING), head)


def test_holes_are_what_no_face_leads_out_of():
    head = ball()
    shell = head & ~ball(radius=4)
    image = np.where(shell, 100.0, 0.0).astype(np.float32)[None]
    np.testing.assert_array_equal(stripped_brain(image, SPACING), ndimage.binary_fill_holes(shell))
    image[0, 10, 10, 13:] = 0.0  # a channel to the outside
    np.testing.assert_array_equal(stripped_brain(image, SPACING), image[0] > 0)


def test_what_is_no_stripped_brain():
    rng = np.random.default_rng(0)
    head = ball()
    noisy = np.where(head, 100.0, 0.0) + rng.normal(size=head.shape)
    two = ball((20, 20, 20), 3) | np.roll(ball((20, 20, 20), 3), 10, axis=0)
    trunk = np.zeros_like(head)
    trunk[5:15, 5:15, :] = True
    full = np.ones_like(head)
    for image in (noisy, two, trunk, full, np.zeros_like(head)):
        assert stripped_brain(image.astype(np.float32)[None], SPACING) is None
    slice_of_brain = np.where(head[:, :, 10:11], 100.0, 0.0).astype(np.float32)[None]
    assert stripped_brain(slice_of_brain, SPACING) is None


def test_a_brain_may_be_cut_at_one_face_and_shows_in_any_channel():
    head = ball()[:, :, 8:]
    one, two = np.zeros((2, *head.shape), np.float32)
    one[head & (np.arange(20)[:, None, None] < 10)] = 5
    two[head] = 9
    np.testing.assert_array_equal(stripped_brain(np.stack([one, two]), SPACING), head)


def test_the_body_is_what_is_not_air_without_holes_and_specks():
    shape = (30, 30, 30)
    rng = np.random.default_rng(0)
    image = np.full(shape, -1000.0) + rng.normal(0, 5, shape)
    trunk = ball(shape, 10)
    image[trunk] = 40.0
    image[14:16, 14:16, 14:16] = -1000.0
    image[1, 1, 1] = 3000.0
    found = body(image.astype(np.float32)[None])
    assert found[14:16, 14:16, 14:16].all()
    assert not found[1, 1, 1]
    assert (found & ~ball(shape, 12)).sum() == 0
    assert found[trunk].all()


@pytest.mark.parametrize("padding", [-2000, -3024])
def test_what_lies_outside_the_field_of_view_of_ct_is_air(padding):
    x, y, _ = np.meshgrid(*[np.arange(n) for n in (48, 48, 12)], indexing="ij")
    inside = ((x - 24) / 18) ** 2 + ((y - 24) / 12) ** 2 < 1
    noise = np.random.default_rng(0).normal(0, 15, inside.shape)
    ct = (np.where(inside, 40.0, -1000.0) + noise).round().clip(-1024).astype(np.float32)
    outside = np.hypot(x - 23.5, y - 23.5) > 24
    padded = np.where(outside, np.float32(padding), ct)
    plain = np.where(outside, np.float32(-1024), ct)
    assert np.array_equal(body(padded[None]), body(plain[None]))
    assert body(padded[None])[~inside].mean() < 0.2
    # Other images may have such values: they are as they were.
    assert np.array_equal(without_padding(100 * padded + 1e6), 100 * padded + 1e6)
    assert np.array_equal(without_padding(plain), plain)


def test_a_head_in_zeroed_air_is_no_stripped_brain():
    """As of a defaced scan: bone and scalp would be taken for tissue."""
    head = np.zeros((40, 48, 44), np.float32)
    head[6:34, 6:42, 4:40] = 100
    assert stripped_brain(head[None], (3.0, 3.0, 3.0)) is not None
    assert stripped_brain(head[None], (4.5, 4.5, 4.5)) is None


@pytest.mark.parametrize("thickness_mm", [1.0, 5.0])
def test_places_on_a_single_slice_are_those_of_the_plane(thickness_mm):
    """What lies above and below was not looked at: it is not outside."""
    y, x = np.mgrid[:120, :120] - 59.5
    r = np.hypot(x, y)
    slice_ = np.select([r < 8, r < 40, r < 46, r < 52], [FLUID, WHITE, GREY, FLUID], OUTSIDE).astype(np.uint8)
    tissue = slice_[:, :, None].copy()
    spacing = (1.0, 1.0, thickness_mm)
    mark_ventricles(tissue, spacing)
    assert set(tissue[r[:, :, None] < 8]) == {VENTRICLE}
    assert set(tissue[(r[:, :, None] > 46.5) & (r[:, :, None] < 51)]) == {FLUID}
    edge, fluid = site_distances_mm(tissue, spacing)
    at = {radius: (int(59.5 + radius), 60, 0) for radius in (11, 25, 39)}
    assert edge[at[25]] == pytest.approx(15, abs=1)
    zones = site_zones(edge, fluid, True, spacing)
    assert {radius: place_of(zones[where], True) for radius, where in at.items()} == {
        11: "periventricular",
        25: "deep",
        39: "juxtacortical",
    }


def test_a_flat_image_is_all_body():
    assert body(np.full((1, 8, 8, 8), 3.0, np.float32)).all()


def layered():
    """A cube of 15 voxels: grey shell of one voxel, white inside, a fluid core of 3x3x3."""
    tissue = np.zeros((15, 15, 15), np.uint8)
    tissue[1:14, 1:14, 1:14] = GREY
    tissue[2:13, 2:13, 2:13] = WHITE
    tissue[6:9, 6:9, 6:9] = FLUID
    return tissue


def test_deep_fluid_is_ventricle_by_hand():
    tissue = layered()
    mark_ventricles(tissue, (3.0, 3.0, 3.0))
    expected = layered()
    expected[6:9, 6:9, 6:9] = VENTRICLE
    np.testing.assert_array_equal(tissue, expected)


def test_small_or_shallow_fluid_is_none():
    tissue = layered()
    mark_ventricles(tissue, (1.0, 1.0, 1.0))
    np.testing.assert_array_equal(tissue, layered())
    shallow = layered()
    shallow[6:9, 6:9, 6:9] = WHITE
    shallow[2:13, 2:13, 2] = FLUID
    expected = shallow.copy()
    mark_ventricles(shallow, (3.0, 3.0, 3.0))
    np.testing.assert_array_equal(shallow, expected)
    empty = np.zeros((3, 3, 3), np.uint8)
    mark_ventricles(empty, (1, 1, 1))
    assert not empty.any()


def test_site_distances_by_hand():
    tissue = layered()
    tissue[6:9, 6:9, 6:9] = VENTRICLE
    tissue[4, 7, 7] = GREY  # a speck of other tissue
    edge, fluid = site_distances_mm(tissue, (1.0, 1.0, 2.0))
    assert edge[7, 7, 7] == 6.0  # from i = 1; the ventricle is no edge
    assert edge[2, 7, 7] == 1.0
    assert edge[7, 7, 2] == 2.0
    assert edge[4, 7, 7] == 3.0
    assert edge[0, 0, 0] == 0.0
    assert fluid[3, 7, 7] == 3.0
    assert fluid[7, 7, 3] == 6.0
    assert np.isinf(fluid[0, 7, 7])


def test_the_border_of_the_volume_is_an_edge():
    """But for that of volumes as thin as a few slices: nobody knows what lies beyond."""
    edge, fluid = site_distances_mm(np.full((5, 5, 5), WHITE, np.uint8), (1.0, 1.0, 1.0))
    assert fluid is None
    expected = np.ones((5, 5, 5))
    expected[1:-1, 1:-1, 1:-1] = 2
    expected[2, 2, 2] = 3
    np.testing.assert_array_equal(edge, expected)
    edge, _ = site_distances_mm(np.full((5, 5, 1), WHITE, np.uint8), (1.0, 1.0, 1.0))
    np.testing.assert_array_equal(edge, expected[:, :, 2:3])
    edge, fluid = site_distances_mm(np.zeros((4, 4, 4), np.uint8), (1.0, 1.0, 1.0))
    assert fluid is None
    assert not edge.any()


def place(edge, fluid, has_classes, spacing=1.0):
    """Class of a site of one voxel at these distances."""
    edge, fluid = (None if d is None else np.full((1, 1, 1), d, np.float32) for d in (edge, fluid))
    return place_of(site_zones(edge, fluid, has_classes, (spacing,) * 3), has_classes)


@pytest.mark.parametrize("spacing_mm", [0.9, 1.0, 1.2, 1.3, 2.4, 1.2000000476837158])
def test_places_reach_whole_voxels_on_any_spacing(spacing_mm):
    vox = np.float32(max(1.0, spacing_mm))
    two, three = float(2 * vox), float(3 * vox)
    assert place(two, None, True, spacing_mm) == "juxtacortical"
    assert place(9.0, three, True, spacing_mm) == "periventricular"
    assert place(three, None, False, spacing_mm) == "edge"


def test_places_by_their_distances():
    assert place(1.0, 2.0, True) == "periventricular"
    assert place(1.0, 3.5, True) == "juxtacortical"
    assert place(2.5, 3.5, True) == "deep"
    assert place(2.5, None, True) == "deep"
    assert place(2.5, 3.5, True, 2.0) == "periventricular"
    assert place(3.5, None, False) == "inside"
    assert place(2.5, 0.0, False) == "edge"


def test_the_place_of_a_lesion_is_that_of_its_nearest_voxels():
    edge = np.array([1.0, 9.0, 9.0], np.float32).reshape(3, 1, 1)
    fluid = np.array([9.0, 9.0, 1.0], np.float32).reshape(3, 1, 1)
    zones = site_zones(edge, fluid, True, (1.0, 1.0, 1.0))
    assert zones.ravel().tolist() == [NEAR_EDGE, 0, NEAR_VENTRICLE]
    assert place_of(zones, True) == "periventricular"
    assert place_of(zones[:2], True) == "juxtacortical"
    assert place_of(zones[1:2], True) == "deep"
    assert place_of(zones[:0], True) == "deep"


@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray])
def test_zones_are_laid_out_as_their_tissue(layout):
    tissue = layout(layered())
    edge, fluid = site_distances_mm(tissue, (1.0, 1.0, 1.0))
    assert site_zones(edge, fluid, True, (1.0, 1.0, 1.0)).strides == tissue.strides
