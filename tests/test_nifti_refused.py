"""Broken files, and files of kinds that are not supported: each is an ImageError that names the file."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lesionsynth import gzip_io, nifti
from lesionsynth.errors import ImageError
from tests.nifti_bytes import ROTATED, as_dtype, save


class TestRefused:
    """Each fault is an ImageError that names the file."""

    def fails(self, path: Path, match: str) -> None:
        with pytest.raises(ImageError, match=match) as caught:
            nifti.read(path)
        assert caught.value.file == str(path)

    # 3 is in the gzip header, 15 in the packed NIfTI header, the rest in the voxels and the trailer.
    @pytest.mark.parametrize("end", [3, 15, -60, -9, -8, -4, -1])
    def test_truncated_gzip(self, tmp_path: Path, end: int) -> None:
        path = save(tmp_path / "a.nii.gz", np.random.default_rng(0).integers(0, 99, (9, 9, 9), np.int16))
        path.write_bytes(path.read_bytes()[:end])
        self.fails(path, "damaged or truncated")

    @pytest.mark.parametrize("end", [2, 300, 352, 400, -1])
    def test_truncated_plain_file(self, tmp_path: Path, end: int) -> None:
        path = save(tmp_path / "a.nii", as_dtype("i2"))
        path.write_bytes(path.read_bytes()[:end])
        self.fails(path, "not a NIfTI file|ends after")

    @pytest.mark.parametrize("engine", ["libdeflate", "igzip", "zlib"])
    @pytest.mark.parametrize("place", [40, -6, -2])
    def test_damaged_gzip(
        self, tmp_path: Path, place: int, engine: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = save(tmp_path / "a.nii.gz", as_dtype("i2"))
        data = bytearray(path.read_bytes())
        data[place] ^= 0xFF
        path.write_bytes(bytes(data))
        if engine != "libdeflate":
            monkeypatch.setattr(gzip_io, "deflate", None)
        if engine == "zlib":
            monkeypatch.setattr(gzip_io, "igzip", None)
            monkeypatch.setattr(gzip_io, "isal_zlib", None)
        self.fails(path, "damaged")

    def test_garbage_behind(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.nii.gz", as_dtype("i2"))
        path.write_bytes(path.read_bytes() + b"not a gzip member")
        self.fails(path, "damaged")

    @pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
    @pytest.mark.parametrize("version", [1, 2])
    def test_huge_dimensions_allocate_nothing(self, tmp_path: Path, version: int, ending: str) -> None:
        size = 32767 if version == 1 else 1 << 40  # the product of the latter overflows 64 bits
        path = save(
            tmp_path / f"a{ending}", as_dtype("i2"), version=version, dim=[3, size, size, size, *4 * [1]]
        )
        tracemalloc.start()
        try:
            self.fails(path, "cannot hold|ends after")
            assert tracemalloc.get_traced_memory()[1] < 1 << 21
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize("size", [0, -3])
    def test_dimensions_of_nothing(self, tmp_path: Path, size: int) -> None:
        self.fails(save(tmp_path / "a.nii", as_dtype("i2"), dim=[3, 5, size, 3, 1, 1, 1, 1]), "dimensions")

    @pytest.mark.parametrize("count", [0, 8, -1])
    def test_impossible_number_of_dimensions(self, tmp_path: Path, count: int) -> None:
        self.fails(
            save(tmp_path / "a.nii", as_dtype("i2"), dim=[count, 5, 4, 3, 1, 1, 1, 1]), "dimensions|ends"
        )

    def test_several_frames(self, tmp_path: Path) -> None:
        self.fails(save(tmp_path / "a.nii", np.zeros((5, 4, 3, 2), np.int16)), "one 3-D volume was expected")

    @pytest.mark.parametrize(
        ("code", "label"), [(32, "complex64"), (128, "RGB"), (2304, "RGBA"), (1536, "128"), (999, "999")]
    )
    def test_kinds_of_voxels(self, tmp_path: Path, code: int, label: str) -> None:
        self.fails(save(tmp_path / "a.nii", as_dtype("f8"), datatype=code), f"type .*{label}")

    def test_pair_of_header_and_image(self, tmp_path: Path) -> None:
        nib.save(nib.Nifti1Pair(as_dtype("i2"), ROTATED, dtype=np.int16), tmp_path / "a.hdr")
        self.fails(tmp_path / "a.hdr", "single-file")

    @pytest.mark.parametrize("data", [b"", b"\0" * 400, b"PK\x03\x04" + bytes(500), b"\x1f\x8b"])
    def test_something_else(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "a.nii").write_bytes(data)
        self.fails(tmp_path / "a.nii", "not a NIfTI|damaged")

    def test_an_empty_gzip(self, tmp_path: Path) -> None:
        (tmp_path / "a.nii.gz").write_bytes(gzip.compress(b""))
        self.fails(tmp_path / "a.nii.gz", "not a NIfTI")

    def test_wrong_magic(self, tmp_path: Path) -> None:
        self.fails(save(tmp_path / "a.nii", as_dtype("i2"), magic=b"abc"), "magic")

    @pytest.mark.parametrize("offset", [0, 100, np.nan, np.inf, -1, 352.5, 1e20])
    def test_offset_of_the_voxels(self, tmp_path: Path, offset: float) -> None:
        self.fails(save(tmp_path / "a.nii", as_dtype("i2"), vox_offset=offset), "vox_offset")

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_affine_that_is_not_finite(self, tmp_path: Path, value: float) -> None:
        self.fails(save(tmp_path / "a.nii", as_dtype("i2"), srow_x=[value, 0, 0, 0]), "affine")

    @pytest.mark.parametrize("codes", [(0, 0), (1, 0)])
    def test_voxels_of_no_size(self, tmp_path: Path, codes: tuple[int, int]) -> None:
        pixdim = [1, 2, 0, 3, 1, 1, 1, 1]
        self.fails(save(tmp_path / "a.nii", as_dtype("i2"), codes=codes, pixdim=pixdim), "voxel volume of 0")

    def test_a_rotation_that_is_none(self, tmp_path: Path) -> None:
        self.fails(save(tmp_path / "a.nii", as_dtype("i2"), codes=(1, 0), quatern_b=3.0), "affine")

    @pytest.mark.parametrize(("unit", "name"), [(1, "metres"), (3, "micrometres")])
    def test_units(self, tmp_path: Path, unit: int, name: str) -> None:
        self.fails(save(tmp_path / "a.nii", as_dtype("i2"), xyzt_units=unit), f"in {name}")

    def test_scaling_that_is_not_finite(self, tmp_path: Path) -> None:
        self.fails(save(tmp_path / "a.nii", as_dtype("i2"), scaling=(np.inf, 0.0)), "scl_slope")

    def test_no_file(self, tmp_path: Path) -> None:
        self.fails(tmp_path / "a.nii", "cannot be read .No such file")
        self.fails(tmp_path, "cannot be read .Is a directory")
        (tmp_path / "f").touch()
        self.fails(tmp_path / "f" / "a.nii", "cannot be read .Not a directory")
        (tmp_path / "loop.nii").symlink_to("loop.nii")
        self.fails(tmp_path / "loop.nii", "cannot be read")

    @settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=3))
    def test_no_header_byte_makes_anything_but_an_image_error(
        self, tmp_path: Path, changes: list[tuple[int, int]]
    ) -> None:
        path = save(tmp_path / "a.nii", as_dtype("i2"))
        data = bytearray(path.read_bytes())
        for place, value in changes:
            data[place] = value
        path.write_bytes(bytes(data))
        try:
            image = nifti.read(path)
        except ImageError:
            return
        assert np.isfinite(image.grid.affine).all()
        content = image.header_bytes + image.raw.tobytes(order="F")
        assert content == bytes(data)[: len(content)]
