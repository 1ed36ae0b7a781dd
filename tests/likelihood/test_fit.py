from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesionsynth.bank.store import LesionBank
from lesionsynth.domain.grid import Grid
from lesionsynth.domain.lesion import LesionInfo
from lesionsynth.errors import InputError
from lesionsynth.likelihood.fit import (
    ORGAN_BINS,
    box_coordinates,
    chosen_kind,
    fit_map,
    lesion_weights,
)
from lesionsynth.likelihood.spec import LikelihoodSpec
from tests.bank.making import bank_of, make_bank, make_case, make_lesion, make_summary
from tests.conftest import write_nifti

SHAPE = (16, 14, 12)
SHARP = LikelihoodSpec(smoothing_mm=0.0)


def spots(*boxes, shape=SHAPE):
    label = np.zeros(shape, np.uint16)
    for box in boxes:
        label[box] = 1
    return label


BIG = (slice(2, 5), slice(2, 5), slice(2, 5))
SMALL = (slice(10, 11), slice(8, 10), slice(8, 9))


@pytest.fixture
def bank(tmp_path):
    with bank_of(
        tmp_path,
        make_case(spots(BIG), case="a"),
        make_case(spots(SMALL), case="b"),
        make_case(spots(), case="c"),
    ) as opened:
        yield opened


def fit(bank, subjects, kind="grid", spec=SHARP, **more):
    return fit_map(bank, subjects, kind, spec, root=bank.folder, **more)


def test_weights_by_hand():
    mask = np.zeros((7, 5, 5), bool)
    mask[1:4, 1:4, 1:4] = True
    assert lesion_weights(mask, (1, 1, 1), "voxels").tolist() == [1.0] * 27
    assert lesion_weights(mask, (1, 1, 1), "lesions").tolist() == [1 / 27] * 27
    weights = lesion_weights(mask, (1, 1, 1), "distance")
    depth = np.ones((3, 3, 3))
    depth[1, 1, 1] = 2
    np.testing.assert_allclose(weights, (depth / depth.sum()).ravel(), rtol=1e-6)


def test_depth_is_in_mm_and_ends_at_the_crop():
    mask = np.ones((1, 1, 5), bool)
    np.testing.assert_allclose(
        lesion_weights(mask, (9, 9, 1), "distance"), np.array([1, 2, 3, 2, 1]) / 9, rtol=1e-6
    )
    np.testing.assert_allclose(lesion_weights(mask, (1, 9, 9), "distance"), [0.2] * 5, rtol=1e-6)


@pytest.mark.parametrize(("weighting", "share"), [("voxels", 27 / 29), ("lesions", 0.5), ("distance", 0.5)])
def test_the_grid_map_counts_voxels_or_lesions(bank, weighting, share):
    found, notes = fit(bank, "ABC", spec=LikelihoodSpec(smoothing_mm=0, weighting=weighting))
    assert notes == []
    assert found.density.shape == SHAPE
    assert found.density.dtype == np.float32
    assert found.density[BIG].sum() == pytest.approx(share)
    assert found.density.sum() == pytest.approx(1.0)
    assert np.count_nonzero(found.density) == 29
    assert found.fitted_on == ("A", "B")
    if weighting == "distance":
        assert found.density[3, 3, 3] == 2 * found.density[2, 2, 2] == found.density[BIG].max()


def test_only_the_given_subjects_are_looked_at(tmp_path, bank):
    alone, _ = fit(bank, "A")
    other = tmp_path / "other"
    with bank_of(
        other, make_case(spots(BIG), case="a"), make_case(spots((slice(0, 16),) * 3), case="b")
    ) as changed:
        np.testing.assert_array_equal(fit(changed, "A")[0].density, alone.density)
    assert alone.fitted_on == ("A",)
    assert not alone.density[SMALL].any()


def test_a_subjects_cases_all_count(tmp_path):
    cases = [make_case(spots(BIG), case="a1", subject="A"), make_case(spots(SMALL), case="a2", subject="A")]
    with bank_of(tmp_path, *cases) as bank:
        assert fit(bank, "A")[0].density[SMALL].sum() == pytest.approx(0.5)


def test_smoothing_is_in_mm_also_on_anisotropic_grids(tmp_path):
    label = spots((slice(20, 21), slice(20, 21), slice(8, 9)), shape=(41, 41, 17))
    case = make_case(label, affine=np.diag([1.0, 1.0, 3.0, 1.0]), case="a")
    with bank_of(tmp_path, case) as bank:
        found, _ = fit(bank, "A", spec=LikelihoodSpec(smoothing_mm=4.0))
    index = np.indices(label.shape)
    for axis, step in enumerate((1.0, 1.0, 3.0)):
        offset = (index[axis] - index[axis][label > 0]) * step
        assert (found.density * offset).sum() == pytest.approx(0.0, abs=1e-4)
        assert np.sqrt((found.density * offset**2).sum()) == pytest.approx(4.0, rel=0.05)


def test_no_lesions_give_an_even_map(bank):
    found, _ = fit(bank, "C")
    assert found.density.min() == found.density.max() == pytest.approx(1 / np.prod(SHAPE))
    assert found.fitted_on == ()


def test_nobody_left_is_an_error(bank):
    with pytest.raises(InputError, match="no training subject is left"):
        fit(bank, ["nobody"])


def test_cases_on_another_grid_are_left_out_and_named(tmp_path):
    cases = [
        make_case(spots(BIG), case="a"),
        make_case(spots(SMALL), case="b", affine=np.diag([2.0, 2, 2, 1])),
    ]
    with bank_of(tmp_path, *cases) as bank:
        found, (note,) = fit(bank, "AB")
    assert found.fitted_on == ("A",)
    assert "such as b" in note


def test_images_and_not_masks_alone_decide_on_the_grid(tmp_path):
    mask = make_lesion("0/mask/0001", "0", channels=0)
    entries = [
        (make_summary("0/mask", "0", shape=(30, 30, 30), has_images=False), [mask]),
        (make_summary("a", "A", shape=(12, 13, 14)), [make_lesion("a/0001", "A")]),
    ]
    with make_bank(tmp_path, entries) as bank:
        found, (note,) = fit(bank, ["0", "A"])
    assert found.grid.shape == (12, 13, 14)
    assert found.fitted_on == ("A",)
    assert "such as 0/mask" in note


def test_masks_alone_on_the_same_grid_count(tmp_path):
    mask = make_lesion("M/mask/0001", "M", channels=0)
    entries = [(make_summary("M/mask", "M", has_images=False), [mask]), (make_summary("a", "A"), [])]
    with make_bank(tmp_path, entries) as bank:
        found, notes = fit(bank, "AM")
        assert notes == []
        assert found.fitted_on == ("M",)
        box = tuple(slice(o, o + n) for o, n in zip(mask.info.origin_vox, mask.info.shape_vox, strict=True))
        np.testing.assert_array_equal(found.density[box] > 0, mask.label > 0)
        organ, (note,) = fit(bank, "AM", "organ")
    assert organ.fitted_on == ()
    assert "no tissue to place them by" in note


def cut_tissue(shape, box):
    tissue = np.zeros(shape, np.uint8)
    tissue[box] = 3
    return tissue


def test_the_organ_map_is_a_position_in_the_tissues_box(tmp_path):
    shape, box = (40, 40, 40), (slice(4, 36), slice(4, 36), slice(4, 36))
    label = spots((slice(4, 5), slice(35, 36), slice(20, 21)), shape=shape)
    case = make_case(label, tissue=cut_tissue(shape, box), affine=np.diag([2.0, 2, 2, 1]), case="a")
    with bank_of(tmp_path, case) as bank:
        found, _ = fit(bank, "A", "organ")
    assert found.kind == "organ"
    assert found.density.shape == (ORGAN_BINS,) * 3
    assert np.argwhere(found.density).tolist() == [[0, 31, 16]]
    assert found.grid.spacing_mm == pytest.approx((2.0, 2.0, 2.0))


def test_the_organ_map_does_not_depend_on_storage_or_spacing(tmp_path):
    shape = (32, 16, 64)
    label = spots((slice(2, 3), slice(1, 2), slice(60, 61)), shape=shape)
    affine = np.diag([1.0, 2.0, 0.5, 1.0])
    flipped = np.array([[0, 0, -1.0, 31], [-2.0, 0, 0, 30], [0, 0.5, 0, 0], [0, 0, 0, 1.0]])
    turned = np.flip(label.transpose(1, 2, 0), (0, 2))  # stored as P, S, L
    with bank_of(
        tmp_path, make_case(label, affine=affine, case="a"), make_case(turned, affine=flipped, case="b")
    ) as bank:
        one, two = fit(bank, "A", "organ")[0], fit(bank, "B", "organ")[0]
    np.testing.assert_array_equal(one.density, two.density)
    np.testing.assert_allclose(one.grid.affine, two.grid.affine)
    assert np.argwhere(one.density).tolist() == [[2, 2, 30]]


@given(
    st.permutations(range(3)),
    st.tuples(*[st.booleans()] * 3),
    st.tuples(*[st.integers(0, 4)] * 3),
)
def test_box_coordinates_follow_the_world_axes(order, flipped, voxel):
    axes = np.eye(3)[:, list(order)] * np.where(flipped, -1.0, 1.0)
    affine = np.eye(4)
    affine[:3, :3] = axes
    grid = Grid((5, 5, 5), affine)
    assert [(w, s) for w, s in grid.world_axes] == [
        (o, -1 if f else 1) for o, f in zip(order, flipped, strict=True)
    ]
    (where,) = box_coordinates(np.array([voxel]), grid, (slice(0, 5),) * 3)
    world = axes @ (np.array(voxel) - 2.0)
    np.testing.assert_allclose(where, (world + 2.5) / 5)


def test_oblique_axes_get_one_world_axis_each():
    c = np.cos(np.deg2rad(44))
    s = np.sin(np.deg2rad(44))
    affine = np.eye(4)
    affine[:2, :2] = [[c, -s], [s, c]]
    assert sorted(w for w, _ in Grid((4, 4, 4), affine).world_axes) == [0, 1, 2]


def test_the_organ_map_needs_a_case_with_images(tmp_path):
    entries = [(make_summary("M/mask", "M", has_images=False), [make_lesion("M/mask/0001", "M", channels=0)])]
    with make_bank(tmp_path, entries) as bank, pytest.raises(InputError, match="no case with images"):
        fit(bank, "M", "organ")


def test_the_affine_map_lies_on_the_reference(tmp_path):
    reference = Grid((20, 20, 20), np.diag([1.0, 1.0, 1.0, 1.0]))
    case = make_case(spots((slice(3, 4),) * 3, shape=(10, 10, 10)), affine=np.diag([2.0, 2, 2, 1]), case="a")
    moved = np.eye(4)
    moved[:3, 3] = (1.0, -2.0, 0.0)  # the case lies 1 mm further right, 2 mm further back
    with bank_of(tmp_path, case) as bank:
        found, notes = fit(bank, "A", "affine", reference=reference, registrations={"a": moved})
        assert notes == []
        assert np.argwhere(found.density).tolist() == [[5, 8, 6]]
        _, (note,) = fit(bank, "A", "affine", reference=reference, registrations={})
        assert "such as a" in note
        with pytest.raises(ValueError, match="needs a reference"):
            fit(bank, "A", "affine")


def test_lesions_beyond_the_reference_are_dropped(tmp_path):
    reference = Grid((3, 3, 3), np.eye(4))
    case = make_case(spots((slice(1, 5), slice(1, 2), slice(1, 2))), case="a")
    with bank_of(tmp_path, case) as bank:
        found, _ = fit(bank, "A", "affine", reference=reference, registrations={"a": np.eye(4)})
    assert np.argwhere(found.density).tolist() == [[1, 1, 1], [2, 1, 1]]


def test_a_given_map_is_normalised(tmp_path, bank):
    values = np.zeros(SHAPE, np.float32)
    values[3, 3, 3], values[4, 4, 4] = 30, 10
    write_nifti(tmp_path / "map.nii.gz", values, np.diag([2.0, 2, 2, 1]))
    found, _ = fit(bank, "A", "map", LikelihoodSpec(kind="map", map="map.nii.gz"))
    assert found.kind == "map"
    assert found.density[3, 3, 3] == pytest.approx(0.75)
    assert found.grid.spacing_mm == (2.0, 2.0, 2.0)
    assert found.fitted_on == ()


@pytest.mark.parametrize("values", [np.zeros(SHAPE), np.full(SHAPE, -1.0), np.full(SHAPE, np.nan)])
def test_a_given_map_must_be_a_density(tmp_path, bank, values):
    write_nifti(tmp_path / "map.nii.gz", values.astype(np.float32), np.eye(4))
    with pytest.raises(InputError, match="must be finite, not negative"):
        fit(bank, "A", "map", LikelihoodSpec(kind="map", map="map.nii.gz"))


def test_kind_map_needs_a_map():
    with pytest.raises(ValueError, match="needs `map`"):
        LikelihoodSpec(kind="map")


def test_auto_takes_the_grid_where_it_is_shared_and_says_so():
    same = [make_summary("a", "A"), make_summary("b", "B")]
    kind, why = chosen_kind(LikelihoodSpec(), same)
    assert (kind, "share one grid" in why) == ("grid", True)
    kind, why = chosen_kind(LikelihoodSpec(), [*same, make_summary("c", "C", shape=(9, 9, 9))])
    assert (kind, "different grids" in why) == ("organ", True)
    kind, why = chosen_kind(LikelihoodSpec(kind="affine"), same)
    assert (kind, "as the recipe says" in why) == ("affine", True)


def test_one_lesion_is_held_in_memory_at_a_time(bank, monkeypatch):
    alive: list[LesionInfo] = []
    shapes = LesionBank.shapes

    def watched(self, subjects):
        for info, label in shapes(self, subjects):
            alive.append(info)
            yield info, label
            alive.pop()

    monkeypatch.setattr(LesionBank, "shapes", watched)
    fit(bank, "AB")
    assert alive == []
