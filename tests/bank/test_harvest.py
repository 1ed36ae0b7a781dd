from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from lesionsynth.bank.harvest import QUANTILES, BankSpec, harvest, harvest_mask, summarise
from lesionsynth.domain.case import MaskFile
from lesionsynth.errors import InputError
from lesionsynth.kernels.tissue import FLUID, GREY, OUTSIDE, VENTRICLE, WHITE
from tests.bank.making import make_case
from tests.conftest import write_nifti

SHAPE = (24, 24, 24)
ALL = BankSpec(min_volume_mm3=0.5, min_voxels=1)


def blank(shape=SHAPE):
    return np.zeros(shape, np.uint16)


def test_each_component_is_a_lesion_with_its_place_and_volume():
    label = blank()
    label[4:6, 10:13, 10:12] = 1
    label[6, 13, 12] = 2  # touches by a corner: the same lesion
    label[18:21, 18:21, 18:21] = 1
    affine = np.diag([2.0, 1.0, 0.5, 1.0])
    one, two = harvest(make_case(label, affine=affine, case="x"), BankSpec())
    assert (one.info.lesion, two.info.lesion) == ("x/0001", "x/0002")
    assert (one.info.case, one.info.subject) == ("x", "X")
    assert one.info.volume_mm3 == pytest.approx(13.0)
    assert two.info.volume_mm3 == pytest.approx(27.0)
    assert one.info.classes == (1, 2)
    assert two.info.classes == (1,)
    assert two.info.centre_vox == (19, 19, 19)
    assert one.info.spacing_mm == pytest.approx((2.0, 1.0, 0.5))
    # 5 mm of margin: 3 voxels (at least), 5, 10
    assert one.info.origin_vox == (1, 5, 0)
    assert one.info.shape_vox == (9, 14, 23)
    assert one.label.shape == one.rim.shape == one.image.shape[1:] == one.info.shape_vox


def test_a_crop_holds_its_own_voxels_of_every_channel_and_of_no_other_lesion():
    rng = np.random.default_rng(0)
    label = blank()
    label[8:11, 8:11, 8:11] = 1
    label[9, 9, 9] = 2
    label[13:15, 8:11, 8:11] = 1  # a neighbour within the margin
    images = rng.normal(100, 5, (2, *SHAPE))
    one, _ = harvest(make_case(label, images), ALL)
    box = tuple(slice(o, o + n) for o, n in zip(one.info.origin_vox, one.info.shape_vox, strict=True))
    np.testing.assert_array_equal(one.image, images.astype(np.float32)[(slice(None), *box)])
    alone = label.copy()
    alone[13:] = 0
    np.testing.assert_array_equal(one.label, alone[box])
    others = np.zeros(SHAPE, bool)
    others[12:16, 8:11, 8:11] = True
    assert not one.rim[others[box]].any()
    assert one.rim[one.label > 0].all()


def test_specks_are_no_donors_but_count_in_the_load_and_keep_their_numbers():
    label = blank()
    label[2, 2, 2] = 1
    label[10:13, 10:13, 10:13] = 1
    case = make_case(label, affine=np.diag([2.0, 2.0, 2.0, 1.0]))
    (lesion,) = harvest(case, BankSpec(min_volume_mm3=10.0))
    assert lesion.info.lesion == "a/0002"
    load = summarise(case).load
    assert load.count == 2
    assert load.ml == pytest.approx(28 * 8 / 1000)
    assert load.tissue_ml == pytest.approx(24**3 * 8 / 1000)
    assert [x.info.lesion for x in harvest(case, BankSpec(min_volume_mm3=8.0, min_voxels=1))] == [
        "a/0001",
        "a/0002",
    ]
    assert len(harvest(case, BankSpec(min_volume_mm3=8.0, min_voxels=2))) == 1


def test_margins_are_cut_at_the_border_of_the_volume():
    label = blank()
    label[1:4, 10:13, 21:23] = 1
    (lesion,) = harvest(make_case(label), BankSpec())
    assert lesion.info.origin_vox == (0, 5, 16)
    assert lesion.info.shape_vox == (9, 13, 8)
    assert lesion.label[1, 5, 5] == 1


def test_a_lesion_that_the_volume_cuts_is_no_donor_unless_asked_for():
    """Of what lies beyond nothing is known: elsewhere it would have a flat face."""
    for axis in range(3):
        for low in (0, SHAPE[axis] - 3):
            label = blank()
            place = [slice(10, 13)] * 3
            place[axis] = slice(low, low + 3)
            label[tuple(place)] = 1
            label[16:19, 16:19, 16:19] = 1
            case = make_case(label)
            (whole,) = harvest(case, BankSpec())
            assert whole.info.centre_vox == (17, 17, 17)
            assert len(harvest(case, BankSpec(at_border="keep"))) == 2
            assert summarise(case).load.count == 2
    thin = blank((20, 20, 3))
    thin[8:11, 8:11] = 1
    assert len(harvest(make_case(thin), BankSpec())) == 1
    thin[0:3, 2:5, 1] = 1
    assert len(harvest(make_case(thin), BankSpec())) == 1


def test_margins_are_three_voxels_at_least():
    label = blank()
    label[10:13, 10:13, 10:13] = 1
    (lesion,) = harvest(make_case(label, affine=np.diag([4.0, 2.0, 1.0, 1.0])), BankSpec())
    assert lesion.info.shape_vox == (9, 9, 13)


def test_no_lesions_and_one_slice():
    assert harvest(make_case(blank()), ALL) == []
    flat = blank((20, 20, 1))
    flat[8:11, 8:11] = 1
    (lesion,) = harvest(make_case(flat), ALL)
    assert lesion.info.shape_vox == (13, 13, 1)
    assert np.isfinite([lesion.info.channels[0].edge, lesion.info.channels[0].detail]).all()


def constructed():
    """White matter of 100, a lesion of 150, a neighbour lesion of 500, fluid of 10, protected of 900."""
    label, tissue = blank(), np.full(SHAPE, WHITE, np.uint8)
    image = np.full(SHAPE, 100.0)
    label[10:13, 10:13, 10:13] = 1
    image[10:13, 10:13, 10:13] = 150.0
    label[15:17, 10:13, 10:13] = 2
    image[14:18, 9:14, 9:14] = 500.0  # the neighbour and its halo
    tissue[10:13, 14:20, 10:13] = FLUID
    image[10:13, 14:20, 10:13] = 10.0
    label[5:8, 10:13, 10:13] = 4
    image[5:8, 10:13, 10:13] = 900.0
    image += np.random.default_rng(2).normal(0, 5, SHAPE)
    return label, image, tissue


def test_shell_statistics_are_exact_on_a_constructed_image():
    label, image, tissue = constructed()
    lesion = harvest(make_case(label, [image], tissue=tissue, kind="map"), ALL)[0]
    (stats,) = lesion.info.channels
    voxels = np.argwhere(label == 1)
    distance = np.min([np.linalg.norm(np.indices(SHAPE).T - v, axis=-1).T for v in voxels], axis=0)
    near = ndimage.binary_dilation(label == 2)  # the neighbour and its faces
    clean = (tissue == WHITE) & (label == 0)
    shell = clean & (distance >= 1.5) & (distance <= 4.0) & ~near
    assert stats.shell_median == pytest.approx(np.median(image[shell]), rel=1e-6)
    assert stats.shell_median != pytest.approx(np.median(image[shell | near]), rel=1e-6)
    assert stats.mean == pytest.approx(image[label == 1].mean(), rel=1e-6)
    assert stats.contrast == pytest.approx(stats.mean - stats.shell_median)
    median = np.median(image[clean].astype(np.float32))
    assert stats.tissue_mad == pytest.approx(1.4826 * np.median(np.abs(image[clean] - median)), rel=1e-5)


def test_a_lesion_without_a_shell_is_measured_against_the_whole_tissue():
    label, tissue = blank(), np.full(SHAPE, OUTSIDE, np.uint8)
    label[3:6, 3:6, 3:6] = 1
    tissue[15:22, 15:22, 15:22] = WHITE
    tissue[label > 0] = WHITE
    image = np.where(np.indices(SHAPE)[0] > 12, 80.0, 300.0)
    (lesion,) = harvest(make_case(label, [image], tissue=tissue), ALL)
    assert lesion.info.channels[0].shell_median == 80.0


def test_the_rim_is_tissue_and_not_fluid_outside_or_protected():
    label, image, tissue = constructed()
    tissue[:, :, :8] = OUTSIDE
    tissue[10:13, 10:13, 14:16] = GREY
    lesion = harvest(make_case(label, [image], tissue=tissue, kind="map"), ALL)[0]
    box = tuple(slice(o, o + n) for o, n in zip(lesion.info.origin_vox, lesion.info.shape_vox, strict=True))
    allowed = np.isin(tissue[box], (GREY, WHITE)) & (label[box] != 4)
    assert not lesion.rim[~allowed].any()
    inside = tuple(np.subtract((11, 11, 14), lesion.info.origin_vox))
    assert lesion.rim[inside]


def ringed():
    """White matter with a grey shell of two voxels and a ventricle in the middle."""
    tissue = np.full(SHAPE, GREY, np.uint8)
    tissue[2:22, 2:22, 2:22] = WHITE
    tissue[11:14, 11:14, 11:14] = VENTRICLE
    return tissue


@pytest.mark.parametrize(
    ("start", "place"),
    [((15, 11, 11), "periventricular"), ((3, 11, 11), "juxtacortical"), ((6, 5, 6), "deep")],
)
def test_sites_are_classed_by_the_nearest_voxel_of_the_lesion(start, place):
    label = blank()
    label[tuple(slice(s, s + 2) for s in start)] = 1
    (lesion,) = harvest(make_case(label, tissue=ringed(), kind="map"), ALL)
    assert lesion.info.site.place == place
    (alone,) = harvest(make_case(label), ALL)
    assert alone.info.site.fluid_mm is None
    assert alone.info.site.place == "inside"


def test_a_lesion_at_the_edge_of_the_only_tissue():
    label = blank()
    label[1:3, 10:12, 10:12] = 1
    (lesion,) = harvest(make_case(label), ALL)
    assert lesion.info.site.place == "edge"
    assert lesion.info.site.edge_mm == 2.0


def test_harvest_leaves_its_case_untouched():
    label, image, tissue = constructed()
    case = make_case(label, [image], tissue=tissue, kind="map")
    before = case.label.copy(), case.tissue.copy(), case.values()
    harvest(case, ALL)
    for was, now in zip(before, (case.label, case.tissue, case.values()), strict=True):
        np.testing.assert_array_equal(was, now)


def test_flipped_storage_gives_the_same_lesions():
    label, image, tissue = constructed()
    affine = np.diag([-1.0, 1.0, 1.0, 1.0])
    affine[0, 3] = SHAPE[0] - 1
    one = harvest(make_case(label, [image], tissue=tissue, kind="map"), ALL)
    two = harvest(make_case(label[::-1], [image[::-1]], tissue=tissue[::-1], kind="map", affine=affine), ALL)
    for a, b in zip(
        sorted(one, key=lambda x: x.info.volume_mm3),
        sorted(two, key=lambda x: x.info.volume_mm3),
        strict=True,
    ):
        np.testing.assert_array_equal(a.label, b.label[::-1])
        np.testing.assert_array_equal(a.rim, b.rim[::-1])
        np.testing.assert_array_equal(a.image, b.image[:, ::-1])
        assert a.info.site == b.info.site
        for p, q in zip(a.info.channels, b.info.channels, strict=True):
            assert (p.shell_median, p.tissue_mad) == (q.shell_median, q.tissue_mad)
            assert (p.mean, p.edge, p.detail) == pytest.approx((q.mean, q.edge, q.detail), rel=1e-5)


def test_a_summary_holds_quantiles_of_the_tissue():
    tissue = np.zeros(SHAPE, np.uint8)
    tissue[4:20, 4:20, 4:20] = WHITE
    image = np.where(tissue > 0, np.indices(SHAPE)[0], -999.0)
    summary = summarise(make_case(blank(), [image], tissue=tissue))
    (quantiles,) = summary.quantiles
    assert len(quantiles) == len(QUANTILES)
    assert (quantiles[0], quantiles[-1]) == (4.0, 19.0)
    assert summary.tissue_box == (slice(4, 20),) * 3
    assert summary.tissue_stats[0][0] == pytest.approx(11.5)


def test_a_case_without_tissue_can_be_summarised():
    summary = summarise(make_case(blank(), tissue=np.zeros(SHAPE, np.uint8)))
    assert summary.tissue_box is None
    assert summary.tissue_stats == [(0.0, 0.0)]
    assert set(summary.quantiles[0]) == {0.0}


def write_mask(path, mask, affine):
    write_nifti(path, mask, affine)
    return MaskFile("pat1", path)


def test_a_mask_alone_gives_shapes_places_and_a_load(tmp_path):
    mask = np.zeros((10, 10, 10), np.uint8)
    mask[1:3, 4:7, 4:6] = 1
    mask[8, 8, 8] = 255
    mask[4:7, 0:3, 1:4] = 1
    affine = np.diag([-2.0, 1.0, 1.0, 1.0])
    summary, lesions = harvest_mask(write_mask(tmp_path / "m.nii.gz", mask, affine), 5, BankSpec())
    (lesion,) = lesions
    assert lesion.info.lesion == "pat1/mask/0001"
    assert (lesion.info.case, lesion.info.subject) == ("pat1/mask", "pat1")
    assert lesion.info.volume_mm3 == pytest.approx(24.0)
    assert lesion.info.origin_vox == (1, 4, 4)
    assert lesion.info.channels == ()
    assert lesion.info.site is None
    assert lesion.image.shape == (0, 2, 3, 2)
    assert (lesion.label == 5).all()
    assert summary.load.ml == pytest.approx((12 + 1 + 27) * 2 / 1000)
    assert summary.load.count == 3
    assert not summary.has_images
    assert (summary.tissue, summary.tissue_box) == (None, None)
    assert list(summary.source_hashes) == ["m.nii.gz"]


def test_the_load_of_a_mask_counts_the_true_voxel_volume_also_on_sheared_axes(tmp_path):
    affine = np.eye(4)
    affine[0, 1] = 0.5
    mask = np.ones((10, 10, 10), np.uint8)
    keep = BankSpec(at_border="keep")
    summary, (lesion,) = harvest_mask(write_mask(tmp_path / "m.nii.gz", mask, affine), 1, keep)
    assert summary.load.ml == pytest.approx(1.0)
    assert lesion.info.volume_mm3 == pytest.approx(1000.0)


def test_empty_and_broken_masks(tmp_path):
    empty = write_mask(tmp_path / "e.nii.gz", np.zeros((4, 4, 4), np.uint8), np.eye(4))
    summary, lesions = harvest_mask(empty, 1, BankSpec())
    assert lesions == []
    assert summary.load.ml == 0.0
    broken = write_mask(tmp_path / "n.nii.gz", np.full((4, 4, 4), np.nan, np.float32), np.eye(4))
    with pytest.raises(InputError, match="NaN"):
        harvest_mask(broken, 1, BankSpec())
