"""Channels on another grid than the label map: refused, or resampled where the recipe says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesionsynth import nifti
from lesionsynth.channels import Aligned, made_anew, on_one_grid, resampled_text
from lesionsynth.domain.case import CaseFiles, Cohort, LabelTable
from lesionsynth.domain.grid import Grid
from lesionsynth.errors import InputError
from lesionsynth.host import load_case
from lesionsynth.kernels.tissue import OUTSIDE
from lesionsynth.qc.audit import audit
from lesionsynth.recipe.load import load_recipe
from lesionsynth.run import session
from lesionsynth.run.check import check
from lesionsynth.run.pool import ALONE
from lesionsynth.tissue import TissueSpec
from tests.conftest import write_nifti
from tests.nifti_bytes import OBLIQUE, save
from tests.test_invariants import Silent, records
from tests.written_case import BOX, SHAPE, lesion_at, written

FILES = CaseFiles("a", "A", (Path("0.nii"), Path("1.nii")), Path("l.nii"))
LABELS = LabelTable({"background": 0, "lesion": 1}, {"background": "background", "lesion": "lesion"})
MAIN = Grid((20, 22, 18), np.array([[1.5, 0, 0, -14], [0, 1.5, 0, -16], [0, 0, 2, -17], [0, 0, 0, 1.0]]))
OTHER_AXES = np.array([[0, -1.2, 0, 30], [0, 0, 1.1, -25], [2.5, 0, 0, -30], [0, 0, 0, 1.0]])
TURNED = np.array([[1.3, 0.3, 0.1, -32], [-0.2, 1.5, 0.3, -28], [0.1, -0.3, 2.4, -28], [0, 0, 0, 1.0]])


def world(grid: Grid) -> np.ndarray:
    """World millimetres of each voxel, (3, i, j, k)."""
    index = np.indices(grid.shape).reshape(3, -1)
    at = grid.affine[:3, :3] @ index + grid.affine[:3, 3:]
    return np.asarray(at.reshape(3, *grid.shape))


def ramp(grid: Grid, slopes=(1.0, -2.0, 0.5), start=100.0) -> np.ndarray:
    return np.tensordot(slopes, world(grid), 1) + start


def align(image: nifti.Image, how: str = "linear", main: Grid = MAIN, first: bool = False) -> Aligned:
    """Align a channel with another one on the grid of the label map; `first`: it is the first channel."""
    reference = nifti.new(main, np.zeros(main.shape, np.float32))
    label = nifti.new(main, np.zeros(main.shape, np.uint8))
    cohort = Cohort(Path(), "x", ("FLAIR", "T1"), LABELS, (FILES,), resample=how)
    images = (image, reference) if first else (reference, image)
    return on_one_grid(FILES, cohort, images, label)


def float_image(grid: Grid, values: np.ndarray, dtype: Any = np.float32) -> nifti.Image:
    return nifti.new(grid, np.asfortranarray(values.astype(dtype)))


def inner(source: Grid, main: Grid, margin_vox: float) -> np.ndarray:
    """Voxels of `main` that lie inside the outermost voxel centres of `source`, by a margin."""
    back = np.linalg.inv(source.affine)
    at = np.tensordot(back[:3, :3], world(main), 1) + back[:3, 3].reshape(3, 1, 1, 1)
    last = np.reshape(source.shape, (3, 1, 1, 1)) - 1
    return np.asarray(((at >= margin_vox) & (at <= last - margin_vox)).all(axis=0))


class TestGeometry:
    # Filters need some voxels to forget the edge, beyond which the ramp does not go on.
    @pytest.mark.parametrize(("how", "margin"), [("linear", 0.0), ("cubic", 9.0)])
    @pytest.mark.parametrize(
        "source",
        [
            Grid((24, 52, 48), OTHER_AXES),
            Grid((45, 45, 30), TURNED),
            Grid((60, 60, 40), np.diag([1.0, 1.0, 1.0, 1]) + np.outer([1, 1, 1, 0], [0, 0, 0, -29])),
            Grid(
                (30, 34, 60), np.diag([-1.9, 1.9, 1.0, 1]) + np.array([[0, 0, 0, 29], *3 * [[0, 0, 0, -29]]])
            ),
        ],
        ids=["permuted and flipped", "turned and sheared", "finer", "flipped"],
    )
    def test_a_ramp_in_the_world_comes_out_as_it_is(self, source: Grid, how: str, margin: float) -> None:
        source = replace(source, affine=np.vstack([source.affine[:3], [0, 0, 0, 1]]))
        aligned = align(float_image(source, ramp(source)), how)
        smoothed = min(source.spacing_mm) == 1.0
        where = inner(source, MAIN, max(margin, 4.0 * smoothed))
        assert where.sum() > 60
        np.testing.assert_allclose(aligned.images[1].values()[where], ramp(MAIN)[where], atol=2e-3)
        assert aligned.resampled == ("T1",)
        assert aligned.images[1].grid.same_as(MAIN, 1e-6)

    def test_the_first_channel_may_be_the_one(self) -> None:
        source = Grid((40, 40, 40), np.diag([1.0, 1.0, 1.0, 1]) + np.outer([1, 1, 1, 0], [0, 0, 0, -18]))
        aligned = align(float_image(source, ramp(source)), first=True)
        where = inner(source, MAIN, 4)
        np.testing.assert_allclose(aligned.images[0].values()[where], ramp(MAIN)[where], atol=2e-3)
        assert aligned.resampled == ("FLAIR",)

    @given(st.permutations(range(3)), st.tuples(*3 * [st.booleans()]), st.tuples(*3 * [st.integers(-2, 2)]))
    @settings(max_examples=25)
    def test_other_axes_and_whole_voxels_are_not_interpolated(
        self, order: list[int], flips: tuple[bool, ...], shift: tuple[int, ...]
    ) -> None:
        values = np.random.default_rng(0).integers(-(2**31), 2**31 - 1, (8, 7, 9), np.int32)
        values[3, 3, 3] = -(2**31)  # the background, which float32 can tell exactly
        stored = np.transpose(values, order)[tuple(slice(None, None, -1 if f else 1) for f in flips)]
        turn = np.zeros((4, 4))  # voxel of `stored` to voxel of `values`
        turn[3, 3] = 1
        for axis, (to, flip) in enumerate(zip(order, flips, strict=True)):
            turn[to, axis] = -1 if flip else 1
            turn[to, 3] = stored.shape[axis] - 1 if flip else 0
        turn[:3, 3] += shift
        affine = MAIN.affine @ turn
        image = float_image(Grid(stored.shape, affine), stored, np.int32)
        aligned = align(image, "cubic", Grid((8, 7, 9), MAIN.affine))
        expected = np.full(values.shape, values.min())
        to = tuple(slice(max(0, s), min(n, n + s)) for s, n in zip(shift, values.shape, strict=True))
        at = tuple(slice(max(0, -s), min(n, n - s)) for s, n in zip(shift, values.shape, strict=True))
        expected[to] = values[at]
        made = aligned.images[1]
        assert made.raw.dtype == np.int32
        if aligned.resampled:
            np.testing.assert_array_equal(made.raw, expected)
            covered = np.zeros(values.shape, bool)
            covered[to] = True
            np.testing.assert_array_equal(aligned.unknown, ~covered)
        else:
            assert (list(order), any(flips), any(shift)) == ([0, 1, 2], False, False)

    def test_what_is_finer_is_smoothed_first(self) -> None:
        fine = Grid((100, 110, 120), np.diag([0.3, 0.3, 0.3, 1]) + np.outer([1, 1, 1, 0], [0, 0, 0, -14.3]))
        noise = np.random.default_rng(0).normal(0, 1, fine.shape)
        made = align(float_image(fine, noise), "linear").images[1].values()
        where = inner(fine, MAIN, 3)
        assert made[where].std() < 0.25  # sampled without smoothing it would be above 0.5


class TestValues:
    fine = Grid((40, 44, 48), np.diag([1.0, 1, 1, 1]) + np.outer([1, 1, 1, 0], [0, 0, 0, -19]))

    def test_integers_are_rounded_and_clipped_and_scaling_is_kept(self, tmp_path: Path) -> None:
        raw = np.zeros(self.fine.shape, np.uint8)
        raw[20:, :, :] = 255  # a cubic spline overshoots at an edge
        path = save(tmp_path / "a.nii", raw, self.fine.affine, scaling=(0.5, -10.0), codes=(1, 1))
        image = nifti.read(path)
        linear, cubic = (align(image, how).images[1] for how in ("linear", "cubic"))
        assert (cubic.raw.dtype, cubic.slope, cubic.inter) == (np.uint8, 0.5, -10.0)
        assert (int(cubic.raw.min()), int(cubic.raw.max())) == (0, 255)
        assert np.abs(linear.raw.astype(int) - cubic.raw).max() < 60
        expected = ((linear.values() + 10) / 0.5)[linear.raw > 0]
        np.testing.assert_array_equal(expected, np.rint(expected))

    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("version", [1, 2])
    def test_the_header_is_its_own_and_the_grid_the_references(
        self, tmp_path: Path, version: int, order: str
    ) -> None:
        path = save(
            tmp_path / "a.nii.gz",
            np.ones(self.fine.shape, np.int16),
            self.fine.affine,
            version=version,
            order=order,
            scaling=(2.0, 1.0),
            descrip=b"scan 7",
            intent_code=1007,
            slice_end=47,
            xyzt_units=2 + 8,
        )
        near = OBLIQUE.copy()
        near[:3, 3] = 0, 1, -3
        place = save(tmp_path / "r.nii.gz", np.zeros((9, 8, 7), np.float32), near, codes=(0, 3), xyzt_units=0)
        label = nifti.read(place)
        cohort = Cohort(Path(), "x", ("FLAIR", "T1"), LABELS, (FILES,), resample="linear")
        made = on_one_grid(FILES, cohort, (nifti.read(path), label), label).images[0]
        nifti.write(tmp_path / "b.nii.gz", made)
        found, wanted = nib.load(tmp_path / "b.nii.gz"), nib.load(place)
        np.testing.assert_array_equal(found.affine, wanted.affine)
        assert found.shape == (9, 8, 7)
        assert found.header.get_zooms() == wanted.header.get_zooms()
        for name in ("qform_code", "sform_code", "quatern_b", "qoffset_x"):
            assert found.header[name] == wanted.header[name]
        assert (found.header.endianness, found.header["sizeof_hdr"]) == (order, {1: 348, 2: 540}[version])
        assert found.header["descrip"] == b"scan 7"
        assert (found.header["intent_code"], found.header["slice_end"]) == (1007, 0)
        assert int(found.header["xyzt_units"]) == 8
        assert found.get_data_dtype() == np.dtype("i2").newbyteorder(order)
        np.testing.assert_array_equal(found.get_fdata(), made.values())

    def test_beyond_its_field_of_view_it_has_its_background_and_is_unknown(self) -> None:
        half = Grid((20, 22, 9), MAIN.affine @ np.diag([1.0, 1, 1, 1]))
        half = replace(half, affine=half.affine + np.array([[0, 0, 0, 0.3], *3 * [[0] * 4]]))
        values = ramp(half)
        aligned = align(float_image(half, values), "linear")
        assert aligned.unknown is not None
        np.testing.assert_array_equal(aligned.unknown, np.indices(MAIN.shape)[2] >= 9)
        assert (aligned.images[1].values()[aligned.unknown] == values.astype(np.float32).min()).all()

    @pytest.mark.parametrize("background", [0.0, -7.0, 50.0])
    def test_a_constant_background_stays_constant(self, background: float) -> None:
        values = np.full(self.fine.shape, background)
        values[15:25, 15:25, 15:25] = 100 * np.random.default_rng(0).random((10, 10, 10))
        made = align(float_image(self.fine, values), "cubic").images[1].values()
        assert (made == np.float32(background)).mean() > 0.9
        assert made[0, 0, 0] == background

    def test_next_to_voxels_without_a_number_nothing_is_known(self) -> None:
        values = ramp(self.fine)
        values[:10] = np.nan
        values[30, 30, 30] = np.inf
        aligned = align(float_image(self.fine, values), "cubic")
        made = aligned.images[1].values()
        assert np.isfinite(made).all()
        assert aligned.unknown is not None
        at_x = world(MAIN)[0]
        assert aligned.unknown[at_x < -9.5].all()
        assert 0 < aligned.unknown[at_x > -8.4].sum() <= 8
        where = inner(self.fine, MAIN, 9) & (at_x > 0) & ~aligned.unknown
        assert np.abs(made[where] - ramp(MAIN)[where]).mean() < 1


class TestCase:
    @pytest.fixture
    def make(self, tmp_path: Path) -> Callable[..., Any]:
        """A case of two channels, the second of which has slices of 2 mm and one slice less than it needs."""
        images = [np.random.default_rng(k).normal(100, 10, SHAPE).astype(np.float32) for k in range(2)]
        thick = images[1][:, :, : SHAPE[2] - 2 : 2]
        places = [np.eye(4), np.diag([1.0, 1, 2, 1]), np.eye(4)]
        return partial(written, tmp_path, [images[0], thick], channels=("CT", "MR"), affines=places)

    def test_is_refused_where_the_recipe_does_not_ask_for_it(self, make: Callable[..., Any]) -> None:
        with pytest.raises(
            InputError, match="channel MR is 16x17x8 at 1x1x2 mm, channel CT is 16x17x18"
        ) as error:
            load_case(*make(label=lesion_at(BOX)), TissueSpec())
        assert "input.resample=linear" in str(error.value.remedy)
        assert (error.value.case, Path(str(error.value.file)).name) == ("a", "1.nii.gz")

    @pytest.mark.parametrize("how", ["none", "linear"])
    def test_a_label_map_on_a_grid_of_its_own_is_refused(self, tmp_path: Path, how: str) -> None:
        places = [np.eye(4), np.eye(4), np.diag([1.0, 1, 2, 1])]
        files, cohort = written(tmp_path, channels=("CT", "MR"), affines=places)
        with pytest.raises(InputError, match="the label map has the shape of channel CT but lies") as error:
            load_case(files, replace(cohort, resample=how), TissueSpec())
        assert Path(str(error.value.file)).name == "2.nii.gz"

    def test_of_two_channels_of_one_name_the_one_on_another_grid_is_written_anew(
        self, make: Callable[..., Any]
    ) -> None:
        files, cohort = make(label=lesion_at(BOX))
        cohort = replace(cohort, channels=("MR", "MR"), resample="linear")
        targets = {Path(f"{k}.nii.gz"): (k,) for k in range(2)}
        assert list(made_anew(files, cohort, targets)) == [Path("1.nii.gz")]

    def test_what_a_channel_does_not_show_is_no_tissue(self, make: Callable[..., Any]) -> None:
        files, cohort = make(label=lesion_at(BOX))
        case = load_case(files, replace(cohort, resample="cubic"), TissueSpec())
        assert case.resampled == ("MR",)
        assert [image.grid.shape for image in case.images] == [SHAPE, SHAPE]
        assert case.missing is not None
        np.testing.assert_array_equal(case.missing, np.indices(SHAPE)[2] > 15)
        assert (case.tissue[case.missing] == OUTSIDE).all()
        assert case.untouchable[case.missing].all()
        assert sorted(case.source_hashes) == ["0.nii.gz", "1.nii.gz", "2.nii.gz"]
        assert case.source_hashes["1.nii.gz"] == nifti.read(files.images[1]).source_hash

    def test_lesions_that_a_channel_does_not_show_are_refused(self, make: Callable[..., Any]) -> None:
        files, cohort = make(label=lesion_at((slice(3, 5), slice(4, 6), slice(14, 18))))
        with pytest.raises(
            InputError, match=r"8 voxels of lesions lie where a resampled channel \(MR\)"
        ) as error:
            load_case(files, replace(cohort, resample="linear"), TissueSpec())
        assert "on_bad_case" in str(error.value.remedy)

    def test_channels_without_a_common_place_are_refused(self, tmp_path: Path) -> None:
        far = np.eye(4)
        far[0, 3] = 500
        files, cohort = written(tmp_path, channels=("CT", "MR"), affines=[np.eye(4), far, np.eye(4)])
        with pytest.raises(InputError, match="channel MR and the label map have no place in common"):
            load_case(files, replace(cohort, resample="linear"), TissueSpec())


def test_the_text_counts_cases() -> None:
    cases = [("T1",), ("T1", "FLAIR"), ()]
    assert resampled_text("cubic", cases) == (
        "resampled to the grid of the label map (cubic): FLAIR of 1 case(s), T1 of 2 case(s)"
    )
    assert resampled_text("cubic", [(), ()]) is None


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, phantoms: Any) -> Path:
    """Four phantoms; the FLAIR of three has other axes and other voxels than T1 and label."""
    root = tmp_path_factory.mktemp("mixed")
    for number, (images, label, affine) in enumerate(phantoms[:4], start=1):
        for channel, image in enumerate(images):
            place = affine
            if channel == 0 and number < 4:
                step = np.array(
                    [[0, 0, -1.0, image.shape[0] - 1], [0, 0.8, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]
                )
                grid = Grid((image.shape[2], int(image.shape[1] / 0.8), image.shape[0]), affine @ step)
                turned = float_image(Grid(image.shape, affine), image, np.int16)
                image, place = align(turned, "linear", grid).images[1].raw, grid.affine
            write_nifti(root / "imagesTr" / f"case{number}_{channel:04d}.nii.gz", image, place)
        write_nifti(root / "labelsTr" / f"case{number}.nii.gz", label, affine)
    (root / "dataset.json").write_text(
        json.dumps(
            {
                "channel_names": {"0": "FLAIR", "1": "T1"},
                "labels": {"background": 0, "lesion": 1},
                "numTraining": 4,
                "file_ending": ".nii.gz",
            }
        )
    )
    return root


class TestRun:
    overrides = ("output.copies=1", "steps.add.load=[2, 8]", "input.resample=cubic", "output.source_map=true")

    def test_all_of_a_case_is_written_on_one_grid_and_replays(self, mixed: Path, tmp_path: Path) -> None:
        output, silent = tmp_path / "out", Silent()
        outcome = session.run(load_recipe("lesionmix", self.overrides), mixed, output, silent)
        assert not outcome.failures
        told = [note for note in silent.notes if "resampled" in note]
        assert told == ["resampled to the grid of the label map (cubic): FLAIR of 3 case(s)"]
        made = records(output)
        assert len(made) == 4
        for case, record in made.items():
            host = record["host"]["case"]
            assert record["resampled"] == ([] if host == "case4" else ["FLAIR"])
            assert f"imagesTr/{host}_0000.nii.gz" in record["inputs"]
            label = nib.load(output / f"labelsTr/{case}.nii.gz")
            edited = np.asanyarray(nib.load(output / f"source_maps/{case}.nii.gz").dataobj) > 0
            assert edited.any()
            for channel in ("0000", "0001"):
                copy = nib.load(output / f"imagesTr/{case}_{channel}.nii.gz")
                original = nib.load(output / f"imagesTr/{host}_{channel}.nii.gz")
                assert copy.header == original.header
                assert copy.get_data_dtype() == np.int16
                np.testing.assert_array_equal(copy.affine, label.affine)
                different = np.asanyarray(copy.dataobj) != np.asanyarray(original.dataobj)
                assert different.any()
                assert not different[~edited].any()
        kept = output / "imagesTr/case1_0001.nii.gz"
        assert kept.read_bytes() == (mixed / "imagesTr/case1_0001.nii.gz").read_bytes()
        assert [str(finding) for finding in audit(output, None, ALONE, Silent()).findings] == []
        for path in session.replay(output, "case1__syn000", tmp_path / "again"):
            again = output / path.relative_to(tmp_path / "again")
            assert path.read_bytes() == again.read_bytes()

    def test_check_lists_it_and_names_the_key_without_it(self, mixed: Path) -> None:
        asked = check(load_recipe("lesionmix", self.overrides), mixed, None, Silent())
        assert asked.findings == []
        assert "resampled to the grid of the label map (cubic): FLAIR of 3 case(s)" in asked.facts
        refused = check(load_recipe("lesionmix"), mixed, None, Silent())
        assert [f.case for f in refused.findings] == ["case1", "case2", "case3"]
        assert all("input.resample=linear" in f.cure for f in refused.findings)
