"""Any image that we support is written and read as nibabel and SimpleITK read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from lesionsynth import nifti
from lesionsynth.domain.case import LabelTable
from lesionsynth.domain.grid import Grid
from lesionsynth.errors import InputError
from lesionsynth.host import read_label
from tests.fuzz.limits import fuzzed
from tests.nifti_bytes import save

CODES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")
SHAPES = st.tuples(*[st.integers(1, 6)] * 3)
SPACINGS = st.tuples(*[st.floats(0.05, 20)] * 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")


@st.composite
def rotations(draw: st.DrawFn) -> NDArray[np.float64]:
    """Any rotation, half of them with a reflection."""
    # Whole numbers: ITK gives up on directions with parts such as 1e-200.
    parts = draw(st.lists(st.integers(-9, 9), min_size=4, max_size=4))
    length = np.linalg.norm(parts)
    assume(length > 0)
    w, x, y, z = np.array(parts) / length
    turn = nib.quaternions.quat2mat([w, x, y, z])
    return turn @ np.diag([draw(st.sampled_from([-1.0, 1.0])), 1, 1])


@st.composite
def affines(draw: st.DrawFn) -> NDArray[np.float64]:
    """Rotation, voxel sizes and an origin."""
    affine = np.eye(4)
    affine[:3, :3] = draw(rotations()) * draw(SPACINGS)
    affine[:3, 3] = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    return affine


@st.composite
def volumes(draw: st.DrawFn, finite: bool = False) -> NDArray[Any]:
    """Voxels of any dtype we read: its limits, NaN and infinities among them unless all shall be `finite`."""
    dtype = np.dtype(draw(st.sampled_from(CODES)))
    if dtype.kind == "f":
        values = st.floats(-(2.0**99), 2.0**99, width=32)  # beyond 32-bit floats images are refused
        values = values if finite else values | st.sampled_from([np.nan, np.inf, -np.inf])
    else:
        values = st.integers(int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    return draw(hnp.arrays(dtype, draw(SHAPES), elements=values))


@fuzzed(150)
@given(
    raw=volumes(),
    affine=affines(),
    version=st.sampled_from((1, 2)),
    order=st.sampled_from("<>"),
    ending=st.sampled_from((".nii", ".nii.gz")),
    codes=st.sampled_from(((1, 0), (0, 1), (1, 1), (2, 4), (0, 3))),
    slope=st.floats(2.0**-10, 1024, width=32) | st.sampled_from((1.0, 0.0, -2.0, float("nan"))),
    inter=st.floats(-1e6, 1e6, width=32) | st.just(0.0),
)
def test_reading_equals_nibabel_and_writing_keeps_every_byte(
    folder: Path,
    raw: NDArray[Any],
    affine: NDArray[np.float64],
    version: int,
    order: str,
    ending: str,
    codes: tuple[int, int],
    slope: float,
    inter: float,
) -> None:
    zooms = np.linalg.norm(affine[:3, :3], axis=0)
    path = save(
        *(folder / f"a{ending}", raw, affine),
        **{"version": version, "order": order, "scaling": (slope, inter), "codes": codes},
        pixdim=[1 if np.linalg.det(affine[:3, :3]) > 0 else -1, *zooms, 1, 1, 1, 1],
    )
    image, expected = nifti.read(path), nib.load(path)
    np.testing.assert_array_equal(image.raw, raw)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(image.values(), expected.get_fdata(dtype=np.float32))
    np.testing.assert_array_equal(image.grid.affine, expected.affine)
    np.testing.assert_allclose(image.grid.spacing_mm, zooms, rtol=1e-4)
    np.testing.assert_allclose(image.grid.affine, affine, rtol=1e-4, atol=2e-3)
    nifti.write(folder / "b.nii", image, sync=False)
    nifti.write(folder / "b.nii.gz", image, sync=False)
    assert (folder / "b.nii").read_bytes() == image.header_bytes + image.raw.tobytes(order="F")
    again = nifti.read(folder / "b.nii.gz")
    assert (again.header_bytes, again.raw.tobytes()) == (image.header_bytes, image.raw.tobytes())
    assert again.voxel_hash == image.voxel_hash


@fuzzed(80)
@given(raw=volumes(finite=True), affine=affines())  # ITK reads what is not finite as 0
def test_new_images_are_the_same_to_itk(folder: Path, raw: NDArray[Any], affine: NDArray[np.float64]) -> None:
    import SimpleITK as sitk

    path = folder / "c.nii.gz"
    nifti.write(path, nifti.new(Grid(raw.shape, affine), raw), sync=False)
    image = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, raw)
    corner = [n - 1 for n in raw.shape]
    expected = np.diag([-1, -1, 1]) @ (affine[:3, :3] @ corner + affine[:3, 3])  # ITK's world is LPS
    np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(corner), expected, rtol=1e-4, atol=1e-2)


@fuzzed(150)
@given(
    raw=volumes(),
    changed=st.lists(st.floats(-1e9, 1e9, width=32), min_size=1, max_size=5),
    slope=st.floats(2.0**-10, 1024, width=32),
    inter=st.floats(-1024, 1024, width=32),
)
def test_what_is_encoded_is_the_nearest_value_there_is(
    folder: Path, raw: NDArray[Any], changed: list[float], slope: float, inter: float
) -> None:
    image = nifti.read(save(folder / "d.nii", raw, scaling=(slope, inter)))
    values = np.array(changed, np.float32)
    stored, clipped = image.encode(values)
    assert stored.dtype == image.raw.dtype
    wanted = (values.astype(np.float64) - image.inter) / image.slope
    if stored.dtype.kind == "f":
        np.testing.assert_allclose(stored, wanted, rtol=1e-6, atol=1e-40)  # subnormal numbers have fewer bits
        assert clipped == 0
    else:
        low, high = np.iinfo(stored.dtype).min, np.iinfo(stored.dtype).max
        inside = (np.rint(wanted) >= low) & (np.rint(wanted) <= high)
        assert clipped == np.count_nonzero(~inside)
        assert (np.abs(stored[inside] - wanted[inside]) <= 0.5).all()
        assert np.isin(stored[~inside], [low, high]).all() or stored.dtype.itemsize == 8


@fuzzed(150)
@given(
    known=st.sets(st.integers(1, 65535), min_size=1, max_size=6),
    code=st.sampled_from(CODES),
    data=st.data(),
)
def test_a_label_map_keeps_its_values_or_is_refused(
    folder: Path, known: set[int], code: str, data: st.DataObject
) -> None:
    table = LabelTable({"background": 0} | {f"lesion{v}": v for v in known}, {"background": "background"})
    dtype = np.dtype(code)
    low, high = (-(2**16), 2**17) if dtype.kind == "f" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    here = [v for v in (0, *sorted(known)) if v <= high]
    strange = st.integers(int(low), int(high)) if data.draw(st.booleans()) else st.nothing()
    raw = data.draw(hnp.arrays(dtype, data.draw(SHAPES), elements=st.sampled_from(here) | strange))
    path = save(folder / "e.nii.gz", raw)
    unknown = set(raw.ravel().tolist()) - {0, *known}
    if unknown:
        with pytest.raises(InputError, match="unknown value") as caught:
            read_label("case", path, table)
        assert str(path) in str(caught.value)
    else:
        _, label = read_label("case", path, table)
        np.testing.assert_array_equal(label, raw)
        assert label.dtype in (np.uint8, np.uint16)
