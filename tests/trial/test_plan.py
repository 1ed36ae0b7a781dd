from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from lesionsynth.domain.case import CaseFiles
from lesionsynth.domain.grid import Grid
from lesionsynth.errors import InputError
from lesionsynth.trial.plan import Scan, make_plan, on_own_grid, prepared
from lesionsynth.trial.spec import TrialSpec

SPEC = TrialSpec.model_validate({**TrialSpec.presets["tiny"], "widths": (4, 8, 8, 8, 8)})


def scan_of(shape, spacing=(1.0, 1.0, 1.0), axes=((0, 1), (1, 1), (2, 1)), seed=0, name="a") -> Scan:
    """A scan whose voxel axes lie along the world's axes as given."""
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, sign) in enumerate(axes):
        affine[world, axis] = sign * spacing[axis]
    image = rng.normal(100, 10, size=(2, *shape)).astype(np.float32)
    classes = np.zeros(shape, dtype=np.uint8)
    classes[3:6, 4:8, 5:9] = 1
    image[:, classes == 1] += 50
    files = CaseFiles(name, name, (), Path(name))
    return Scan(files, image, classes, Grid(shape, affine))


def test_spacing_and_patch_are_the_medians_of_the_training_cases():
    scans = [scan_of((40, 44, 20), (1, 1, s)) for s in (3.0, 3.0, 5.0)]
    plan = make_plan(scans, ["T1", "T2"], SPEC)
    assert plan.spacing_mm == (1.0, 1.0, 3.0)
    # Not more than 32, and halved as often as the strides say.
    assert plan.patch[:2] == (32, 32)
    assert plan.patch[2] <= 20
    for axis in range(3):
        assert plan.patch[axis] % np.prod([s[axis] for s in plan.strides]) == 0


def test_thick_slices_are_not_looked_across_at_first():
    plan = make_plan([scan_of((64, 64, 16), (1, 1, 4))], ["T1", "T2"], SPEC)
    assert plan.kernels[0] == (3, 3, 1)
    assert plan.strides[:2] == ((1, 1, 1), (2, 2, 1))
    assert plan.kernels[-1] == (3, 3, 3)
    assert len(plan.kernels) == len(plan.strides)


def test_a_small_case_has_fewer_resolutions():
    plan = make_plan([scan_of((9, 10, 12))], ["T1", "T2"], SPEC)
    assert plan.strides == ((1, 1, 1), (2, 2, 2), (1, 1, 1))
    assert plan.patch == (8, 10, 12)


@pytest.mark.parametrize("mm", [0.0, -1.0])
def test_voxels_have_edges(mm):
    with pytest.raises(ValidationError, match="greater than 0"):
        TrialSpec.model_validate({"spacing_mm": [1, 1, mm]})


@pytest.mark.parametrize("spacing_mm", [(100.0, 100.0, 100.0), (9.0, 9.0, 9.0), (10.0, 20.0, 100.0)])
def test_a_spacing_of_which_a_case_is_one_voxel_is_refused(spacing_mm):
    """There a network could tell nothing from anything."""
    spec = SPEC.model_copy(update={"spacing_mm": spacing_mm})
    with pytest.raises(InputError, match=r"10 x 10 x 10 mm.*spacing_mm"):
        make_plan([scan_of((10, 10, 10))], ["T1", "T2"], spec)
    assert make_plan([scan_of((10, 10, 30))], ["T1", "T2"], spec.model_copy(update={"spacing_mm": (9, 9, 9)}))


def test_training_cases_without_a_lesion_are_refused():
    scan = scan_of((10, 10, 10))
    scan.classes[:] = 0
    with pytest.raises(InputError, match=r"none of the training cases \(a\) has a lesion"):
        make_plan([scan], ["T1", "T2"], SPEC)


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1)])
def test_a_case_on_any_axes_is_brought_to_the_worlds_and_back(order, signs):
    axes = tuple(zip(order, signs, strict=True))
    scan = scan_of((12, 15, 17), axes=axes)
    plan = make_plan([scan], ["T1", "T2"], SPEC)
    case = prepared(scan, plan)
    assert sorted(case.classes.shape) == [12, 15, 17]
    own = on_own_grid((case.classes == 1).astype(np.float32), case, scan.classes.shape)
    assert np.array_equal(own > 0.5, scan.classes == 1)
    plain = prepared(scan_of((12, 15, 17)), plan)
    world = np.transpose(plain.image, (0, *(1 + np.argsort(order)))) if signs == (1, 1, 1) else None
    if world is not None:
        np.testing.assert_allclose(case.image, world, atol=1e-5)


def test_channels_are_normalised_where_they_are_not_0():
    scan = scan_of((20, 20, 20))
    scan.image[:, :, :, :8] = 0
    scan.classes[:, :, :8] = 0
    case = prepared(scan, make_plan([scan], ["T1", "T2"], SPEC))
    assert case.image.shape == (2, 20, 20, 12)  # cropped
    np.testing.assert_allclose(case.image.mean(axis=(1, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(case.image.std(axis=(1, 2, 3)), 1, atol=1e-4)
    own = on_own_grid(np.ones(case.classes.shape, np.float32), case, scan.classes.shape)
    assert not own[:, :, :8].any()
    assert (own[:, :, 8:] == 1).all()


def test_ct_has_the_range_of_lesions():
    scan = scan_of((16, 16, 16))
    plan = make_plan([scan], ["CT", "PET"], SPEC)
    assert plan.ct[1] is None
    low, high, mean, spread = plan.ct[0]
    lesion = scan.image[0][scan.classes == 1]
    assert (low, high) == pytest.approx(tuple(np.percentile(lesion, [0.5, 99.5])), rel=1e-5)
    case = prepared(scan, plan)
    assert case.image[0].min() >= (low - mean) / spread - 1e-4
    assert case.image[0][case.classes == 1].mean() == pytest.approx(0, abs=0.05)


def test_another_spacing_keeps_the_extent():
    scan = scan_of((24, 24, 24))
    scan.classes[11:19, 10:20, 11:20] = 1
    plan = make_plan([scan], ["T1", "T2"], SPEC.model_copy(update={"spacing_mm": (2.0, 2.0, 2.0)}))
    case = prepared(scan, plan)
    assert case.classes.shape == (13, 13, 13)
    own = on_own_grid((case.classes == 1).astype(np.float32), case, scan.classes.shape)
    both = ((own >= 0.5) & (scan.classes == 1)).sum() * 2 / ((own >= 0.5).sum() + (scan.classes == 1).sum())
    assert both > 0.8
