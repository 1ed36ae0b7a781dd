"""Damaged NIfTI headers: an error that names the file, or the image that nibabel reads."""

from __future__ import annotations

import gzip
import logging
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lesionsynth import nifti
from lesionsynth.errors import ImageError
from tests.fuzz.limits import fuzzed, result_or_error
from tests.nifti_bytes import OBLIQUE, as_dtype, save

CODES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")
HEADERS = {1: nib.Nifti1Header, 2: nib.Nifti2Header}
FIELDS = {version: tuple(kind.template_dtype.names) for version, kind in HEADERS.items()}
DECISIVE = (
    *("sizeof_hdr", "dim", "datatype", "bitpix", "pixdim", "vox_offset", "scl_slope", "scl_inter", "magic"),
    *("xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x"),
    *("srow_x", "srow_y", "srow_z"),
)


@pytest.fixture(autouse=True)
def _quiet_nibabel() -> Iterator[None]:
    """Let nibabel complain about headers to nobody."""
    logger = logging.getLogger("nibabel.global")
    level, logger.level = logger.level, logging.CRITICAL + 1
    yield
    logger.level = level


def field_values(dtype: np.dtype[Any]) -> st.SearchStrategy[Any]:
    """Values of a header field: its limits, small ones, and any other."""
    if dtype.kind == "f":
        width = dtype.itemsize * 8
        odd = [0.0, -0.0, 1.0, -1.0, 352.0, 1e-30, 1e30, float("nan"), float("inf"), -float("inf")]
        return st.sampled_from(odd) | st.floats(width=width, allow_subnormal=False)  # type: ignore[arg-type]
    if dtype.kind in "iu":
        low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
        odd = [v for v in (0, 1, -1, 2, 3, 4, 7, 8, 64, 352, low, high) if low <= v <= high]
        return st.sampled_from(odd) | st.integers(low, high)
    return st.binary(max_size=dtype.itemsize)


@st.composite
def changes(draw: st.DrawFn, version: int) -> list[tuple[str, int, Any]]:
    """Fields, elements of them, and what is put there."""
    template = HEADERS[version].template_dtype
    found = []
    for name in draw(
        st.lists(st.sampled_from(DECISIVE) | st.sampled_from(FIELDS[version]), min_size=1, max_size=3)
    ):
        base, shape = template[name].base, template[name].shape
        place = draw(st.integers(0, shape[0] - 1)) if shape else 0
        found.append((name, place, draw(field_values(base))))
    return found


def damaged(content: bytes, version: int, order: str, made: list[tuple[str, int, Any]]) -> bytes:
    """The content of a file with other values in some fields of its header."""
    size = HEADERS[version].template_dtype.itemsize
    header = np.frombuffer(content[:size], HEADERS[version].template_dtype.newbyteorder(order)).copy()
    for name, place, value in made:
        if header[name].ndim > 1:
            header[name][0, place] = value
        else:
            header[name][0] = value
    return header.tobytes() + content[size:]


def by_nibabel(content: bytes, version: int) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Values and affine as nibabel has them; None where it refuses."""
    kind = {1: nib.Nifti1Image, 2: nib.Nifti2Image}[version]
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            image = kind.from_bytes(content)
            return np.asarray(image.get_fdata(dtype=np.float32)), image.affine
    except Exception:
        return None


def agrees(path: Path, content: bytes, version: int) -> None:
    """Our reader refuses, or reads what nibabel reads; what it has read is written as it was."""
    path.write_bytes(gzip.compress(content, 1) if path.name.endswith(".gz") else content)
    image = result_or_error(lambda: nifti.read(path), path)
    if not isinstance(image, nifti.Image):
        assert isinstance(image, ImageError)
        return
    values = result_or_error(image.values)
    assert np.isfinite(image.grid.affine).all()
    expected = by_nibabel(content, version)
    if expected is not None:
        shape = expected[0].shape
        assert image.grid.shape == (*shape, 1, 1)[:3]
        np.testing.assert_array_equal(values, expected[0].reshape(image.grid.shape))
        np.testing.assert_array_equal(image.grid.affine, expected[1])
    again = path.with_name(f"again-{path.name}")
    nifti.write(again, image, sync=False)
    whole = again.read_bytes()
    whole = gzip.decompress(whole) if path.name.endswith(".gz") else whole
    assert whole == content[: len(whole)]
    assert len(whole) == len(image.header_bytes) + image.raw.nbytes


@fuzzed(400)
@given(
    st.sampled_from((1, 2)).flatmap(lambda v: st.tuples(st.just(v), changes(v))),
    st.sampled_from("<>"),
    st.sampled_from(CODES),
    st.sampled_from([(0, 0), (1, 0), (0, 1), (1, 1)]),
    st.booleans(),
)
def test_fields(
    tmp_path_factory: pytest.TempPathFactory,
    made: tuple[int, list[tuple[str, int, Any]]],
    order: str,
    code: str,
    codes: tuple[int, int],
    packed: bool,
) -> None:
    version, fields = made
    path = tmp_path_factory.getbasetemp() / ("a.nii.gz" if packed else "a.nii")
    plain = save(
        path.with_name("plain.nii"), as_dtype(code), OBLIQUE, version=version, order=order, codes=codes
    )
    agrees(path, damaged(plain.read_bytes(), version, order, fields), version)


@fuzzed(200)
@given(
    st.sampled_from((1, 2)),
    st.sampled_from("<>"),
    st.lists(st.tuples(st.integers(0, 700), st.integers(0, 7)), min_size=1, max_size=4),
    st.booleans(),
)
def test_bits(
    tmp_path_factory: pytest.TempPathFactory,
    version: int,
    order: str,
    flips: list[tuple[int, int]],
    packed: bool,
) -> None:
    path = tmp_path_factory.getbasetemp() / ("b.nii.gz" if packed else "b.nii")
    plain = save(path.with_name("plain.nii"), as_dtype("i2"), OBLIQUE, version=version, order=order)
    content = bytearray(plain.read_bytes())
    for place, bit in flips:
        content[place % len(content)] ^= 1 << bit
    agrees(path, bytes(content), version)


@fuzzed(100)
@given(
    st.sampled_from((1, 2)),
    st.sampled_from("<>"),
    st.lists(
        st.tuples(st.integers(-(2**31), 2**31 - 1) | st.sampled_from([0, 8, 16, 32, 48]), st.integers(0, 60)),
        max_size=4,
    ),
    st.integers(-64, 64),
    st.binary(max_size=40),
)
def test_extensions_whose_sizes_lie(
    tmp_path_factory: pytest.TempPathFactory,
    version: int,
    order: str,
    extensions: list[tuple[int, int]],
    shift: int,
    inside: bytes,
) -> None:
    path = tmp_path_factory.getbasetemp() / "c.nii"
    size = HEADERS[version].template_dtype.itemsize
    plain = save(path, as_dtype("i2"), OBLIQUE, version=version, order=order).read_bytes()
    block = b"\1\0\0\0" + b"".join(struct.pack(f"{order}ii", *sizes) + inside for sizes in extensions)
    content = plain[:size] + block + plain[size + 4 :]
    start = size + len(block) + shift
    agrees(path, damaged(content, version, order, [("vox_offset", 0, max(0, start))]), version)


@pytest.mark.parametrize("version", [1, 2])
def test_a_header_in_the_other_byte_order_than_its_voxels_is_read_as_it_says(
    tmp_path: Path, version: int
) -> None:
    plain = save(tmp_path / "a.nii", as_dtype("i2"), OBLIQUE, version=version, order="<").read_bytes()
    size = HEADERS[version].template_dtype.itemsize
    header = np.frombuffer(plain[:size], HEADERS[version].template_dtype).byteswap()
    agrees(tmp_path / "a.nii", header.tobytes() + plain[size:], version)


def refused(path: Path, said: str) -> None:
    with pytest.raises(ImageError, match=said) as caught:
        nifti.read(path)
    assert caught.value.file == str(path)


@pytest.mark.parametrize("name", ["qform_code", "sform_code"])
@pytest.mark.parametrize("code", [-1, 6, 32767])
def test_unknown_codes_of_an_affine(tmp_path: Path, name: str, code: int) -> None:
    """Tools read them in different ways: nibabel as none, ITK as any other."""
    refused(
        save(tmp_path / "a.nii", as_dtype("i2"), **{name: code}), f"has {name} {code}; NIfTI knows 0 to 5"
    )


@pytest.mark.parametrize("codes", [(0, 0), (1, 0)])
def test_voxels_of_a_size_below_0(tmp_path: Path, codes: tuple[int, int]) -> None:
    path = save(tmp_path / "a.nii", as_dtype("i2"), codes=codes, pixdim=[1, 2, -1.5, 3, 1, 1, 1, 1])
    refused(path, "voxel size below 0")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ([[1e-6, 0, 0], [0, 1e6, 0], [0, 0, 1]], "has voxels of 1e-06x1e\\+06x1 mm"),
        ([[1, 1, 0], [0, 1e-5, 0], [0, 0, 1]], "axes that are almost parallel"),
    ],
)
def test_voxels_of_no_sensible_shape(tmp_path: Path, columns: list[list[float]], said: str) -> None:
    affine = np.eye(4)
    affine[:3, :3] = columns
    refused(save(tmp_path / "a.nii", as_dtype("i2"), affine, codes=(0, 1)), said)


@pytest.mark.parametrize(
    ("code", "scaling"), [("u1", (3e38, 0.0)), ("i8", (1e30, 0.0)), ("f4", (1e30, 0.0)), ("f8", (1.0, 0.0))]
)
def test_intensities_beyond_a_32_bit_float(tmp_path: Path, code: str, scaling: tuple[float, float]) -> None:
    raw = as_dtype(code)
    if raw.dtype.kind == "f":
        raw.flat[:3] = np.nan, np.inf, 1e300 if code == "f8" else 1e30
    refused(save(tmp_path / "a.nii", raw, scaling=scaling), "which a 32-bit float cannot hold")
