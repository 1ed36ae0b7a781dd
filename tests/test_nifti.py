"""Reading equals nibabel; writing keeps headers and voxels."""

from __future__ import annotations

import gzip
import stat
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from lesionsynth import gzip_io, nifti, slabs
from lesionsynth.domain.grid import Grid
from lesionsynth.errors import OutputError
from tests.nifti_bytes import OBLIQUE, RAW, ROTATED, as_dtype, save

DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")


def by_itk(path: Path) -> tuple[NDArray[np.generic], tuple[float, ...]]:
    """Voxels and spacing as SimpleITK reads them; tests of a GPU are collected without it."""
    import SimpleITK as sitk

    image = sitk.ReadImage(str(path))
    return np.asarray(sitk.GetArrayFromImage(image)).T, image.GetSpacing()


class TestRead:
    @pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("version", [1, 2])
    @pytest.mark.parametrize("code", DTYPES)
    def test_equals_nibabel(self, tmp_path: Path, code: str, version: int, order: str, ending: str) -> None:
        path = save(tmp_path / f"a{ending}", as_dtype(code), version=version, order=order)
        image, expected = nifti.read(path), nib.load(path)
        assert image.raw.dtype == np.dtype(code).newbyteorder(order)
        np.testing.assert_array_equal(image.raw, as_dtype(code))
        np.testing.assert_array_equal(image.values(), expected.get_fdata(dtype=np.float32))
        assert image.values().dtype == np.float32
        np.testing.assert_allclose(image.grid.affine, expected.affine, rtol=0, atol=0)
        assert image.grid.shape == (5, 4, 3)

    @pytest.mark.parametrize("engine", ["igzip", "zlib"])
    def test_works_without_the_fast_libraries(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
    ) -> None:
        path = save(tmp_path / "a.nii.gz", as_dtype("i2"))
        expected = nifti.read(path)
        monkeypatch.setattr(gzip_io, "deflate", None)
        if engine == "zlib":
            monkeypatch.setattr(gzip_io, "igzip", None)
            monkeypatch.setattr(gzip_io, "isal_zlib", None)
        image = nifti.read(path)
        np.testing.assert_array_equal(image.raw, expected.raw)
        assert (image.header_bytes, image.source_hash) == (expected.header_bytes, expected.source_hash)
        nifti.write(tmp_path / "b.nii.gz", image)
        np.testing.assert_array_equal(nib.load(tmp_path / "b.nii.gz").get_fdata(), RAW)

    @pytest.mark.parametrize(
        ("scaling", "code"),
        [((0.25, -3.0), "i2"), ((2.0, 0.0), "f4"), ((-1.0, 7.0), "u1"), ((1.0, 5.0), "i4")],
    )
    def test_scaling(self, tmp_path: Path, scaling: tuple[float, float], code: str) -> None:
        path = save(tmp_path / "a.nii", as_dtype(code), scaling=scaling)
        image = nifti.read(path)
        assert (image.slope, image.inter) == scaling
        np.testing.assert_array_equal(image.values(), nib.load(path).get_fdata(dtype=np.float32))
        box = (slice(1, 3), slice(0, 2), slice(2, 3))
        np.testing.assert_array_equal(image.values(box), image.values()[box])

    @pytest.mark.parametrize("slope", [0.0, np.nan])
    def test_no_slope_means_no_scaling(self, tmp_path: Path, slope: float) -> None:
        image = nifti.read(save(tmp_path / "a.nii", as_dtype("i2"), scaling=(slope, np.nan)))
        np.testing.assert_array_equal(image.values(), RAW)

    @pytest.mark.parametrize(
        ("codes", "affine"),
        [((1, 0), ROTATED), ((0, 2), OBLIQUE), ((1, 2), OBLIQUE), ((0, 0), None), ((4, 4), ROTATED)],
    )
    def test_affine_is_nibabels(
        self, tmp_path: Path, codes: tuple[int, int], affine: NDArray[np.float64] | None
    ) -> None:
        path = save(tmp_path / "a.nii.gz", as_dtype("i2"), affine, codes=codes)
        grid = nifti.read(path).grid
        np.testing.assert_array_equal(grid.affine, nib.load(path).affine)
        if codes[1]:
            np.testing.assert_allclose(grid.affine, affine, atol=1e-5)
        if codes == (0, 0):
            assert grid.spacing_mm == (2.0, 1.5, 3.0)

    def test_few_slices_and_a_single_one(self, tmp_path: Path) -> None:
        three = nifti.read(save(tmp_path / "a.nii", np.ones((7, 6, 3), np.int16)))
        assert three.grid.shape == (7, 6, 3)
        flat = nifti.read(save(tmp_path / "b.nii", np.arange(42, dtype=np.int16).reshape(7, 6)))
        assert flat.grid.shape == (7, 6, 1)
        np.testing.assert_array_equal(flat.raw[..., 0], np.arange(42).reshape(7, 6))

    def test_four_dimensions_with_one_frame_are_one_volume(self, tmp_path: Path) -> None:
        image = nifti.read(save(tmp_path / "a.nii", as_dtype("i2")[..., None]))
        assert image.grid.shape == (5, 4, 3)
        nifti.write(tmp_path / "b.nii", image)
        assert nib.load(tmp_path / "b.nii").shape == (5, 4, 3, 1)

    @pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
    def test_extensions_are_kept(self, tmp_path: Path, ending: str) -> None:
        source = nib.Nifti1Image(as_dtype("i2"), ROTATED, dtype=np.int16)
        comment = b"scanner " * 900  # longer than what is peeked at
        source.header.extensions.append(nib.nifti1.Nifti1Extension("comment", comment))
        path = tmp_path / f"a{ending}"
        nib.save(source, path)
        image = nifti.read(path)
        assert len(image.header_bytes) > 7200
        nifti.write(tmp_path / f"b{ending}", image.with_raw(image.raw + np.int16(1)))
        nifti.write(tmp_path / f"c{ending}", nifti.like(image, (RAW > 0).astype(np.uint8)))
        for name, expected in (("b", RAW + 1), ("c", RAW > 0)):
            written = nib.load(tmp_path / f"{name}{ending}")
            assert written.header.extensions[0].get_content().rstrip(b"\0") == comment
            np.testing.assert_array_equal(written.get_fdata(), expected)

    def test_content_counts_and_not_the_ending(self, tmp_path: Path) -> None:
        save(tmp_path / "a.nii", as_dtype("i2")).rename(tmp_path / "plain.nii.gz")
        save(tmp_path / "a.nii.gz", as_dtype("i2")).rename(tmp_path / "packed.nii")
        for name in ("plain.nii.gz", "packed.nii"):
            np.testing.assert_array_equal(nifti.read(tmp_path / name).raw, RAW)

    def test_members_and_padding(self, tmp_path: Path) -> None:
        data = save(tmp_path / "a.nii", as_dtype("i2")).read_bytes()
        for cut in (100, 348, 400):
            (tmp_path / "b.nii.gz").write_bytes(gzip.compress(data[:cut]) + gzip.compress(data[cut:]))
            np.testing.assert_array_equal(nifti.read(tmp_path / "b.nii.gz").raw, RAW)
        (tmp_path / "c.nii").write_bytes(data + bytes(100))
        np.testing.assert_array_equal(nifti.read(tmp_path / "c.nii").raw, RAW)

    @pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
    def test_voxels_are_read_only(self, tmp_path: Path, ending: str) -> None:
        raw = nifti.read(save(tmp_path / f"a{ending}", as_dtype("i2"))).raw
        with pytest.raises(ValueError, match="read-only"):
            raw[0, 0, 0] = 1

    def test_source_hash_is_of_the_file(self, tmp_path: Path) -> None:
        one = nifti.read(save(tmp_path / "a.nii", as_dtype("i2")))
        other = nifti.read(save(tmp_path / "b.nii", as_dtype("i2") + np.int16(1)))
        (tmp_path / "c.nii").write_bytes((tmp_path / "a.nii").read_bytes())
        assert one.source_hash == nifti.read(tmp_path / "c.nii").source_hash != other.source_hash


class TestWrite:
    @pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("version", [1, 2])
    @pytest.mark.parametrize("code", ["u1", "i2", "f4", "f8"])
    def test_header_and_voxels_come_back_bit_equal(
        self, tmp_path: Path, code: str, version: int, order: str, ending: str
    ) -> None:
        source = save(
            tmp_path / f"a{ending}",
            as_dtype(code),
            OBLIQUE,
            version=version,
            order=order,
            scaling=(0.5, 3.0),
            codes=(0, 3),
            descrip=b"scan 7",
            cal_max=99.0,
            intent_code=1007,
            slice_duration=0.3,
        )
        image = nifti.read(source)
        copy = tmp_path / "deeper" / "still" / f"b{ending}"
        nifti.write(copy, image)
        opener = gzip.decompress if ending.endswith("gz") else bytes
        assert opener(copy.read_bytes()) == opener(source.read_bytes())
        again = nifti.read(copy)
        assert again.header_bytes == image.header_bytes
        assert again.raw.dtype == image.raw.dtype
        np.testing.assert_array_equal(again.raw, image.raw)

    def test_others_read_it(self, tmp_path: Path) -> None:
        image = nifti.read(save(tmp_path / "a.nii.gz", as_dtype("i2"), scaling=(0.5, 1.0)))
        edited = image.raw.copy()
        edited[1, 2, 1] = 77
        nifti.write(tmp_path / "b.nii.gz", image.with_raw(edited), sync=False)
        assert subprocess.run(["gzip", "-t", tmp_path / "b.nii.gz"], check=False).returncode == 0
        by_nibabel = nib.load(tmp_path / "b.nii.gz")
        np.testing.assert_array_equal(by_nibabel.get_fdata(), edited * 0.5 + 1.0)
        voxels, spacing = by_itk(tmp_path / "b.nii.gz")
        np.testing.assert_allclose(voxels, edited * 0.5 + 1.0)
        np.testing.assert_allclose(spacing, image.grid.spacing_mm, rtol=1e-6)

    def test_equal_images_give_equal_files(self, tmp_path: Path) -> None:
        image = nifti.read(save(tmp_path / "a.nii.gz", as_dtype("i2")))
        nifti.write(tmp_path / "b.nii.gz", image)
        nifti.write(tmp_path / "c.nii.gz", image)
        assert (tmp_path / "b.nii.gz").read_bytes() == (tmp_path / "c.nii.gz").read_bytes()

    def test_permissions_follow_the_umask(self, tmp_path: Path) -> None:
        nifti.write_bytes(tmp_path / "a", b"x")
        (tmp_path / "b").write_bytes(b"x")
        modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"]
        assert modes[0] == modes[1]

    def test_a_failure_leaves_the_old_file_and_nothing_else(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"old")
        with pytest.raises(TypeError):
            nifti.write_bytes(tmp_path / "a", "text")  # type: ignore[arg-type]
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a": b"old"}
        nifti.write_bytes(tmp_path / "a", b"new")
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a": b"new"}

    def test_a_full_disk_leaves_the_old_file_and_nothing_else(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"old")
        program = (
            "import resource, signal, sys; from pathlib import Path; from lesionsynth import nifti, errors\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (9, 9))\n"
            "try: nifti.write_bytes(Path(sys.argv[1]), bytes(100))\n"
            "except errors.OutputError as error: print(error)"
        )
        command = [sys.executable, "-c", program, str(tmp_path / "a")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "cannot be written (File too large)" in done.stdout
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a": b"old"}

    def test_where_no_file_can_be(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        (tmp_path / "folder" / "inner").mkdir(parents=True)
        for path in (tmp_path / "file" / "a", tmp_path / "folder"):
            with pytest.raises(OutputError, match="cannot be written") as caught:
                nifti.write_bytes(path, b"x")
            assert caught.value.file == str(path)
        assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "folder", "inner"]


class TestCopiesOfAHost:
    """Slabs that a copy shares with its host are compressed once; nothing in the files tells."""

    SLAB = 4 * 6 * 5 * 8

    @pytest.fixture(autouse=True)
    def small_slabs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(slabs, "SLAB_VOX", self.SLAB // 4)

    def host(self, path: Path, code: str = "f4", order: str = "<") -> nifti.Image:
        raw = np.random.default_rng(0).integers(0, 200, (6, 5, 21)).astype(code)
        return nifti.read(save(path, raw, order=order, scaling=(0.5, 3.0), descrip=b"scan 7"))

    def written(self, path: Path, image: nifti.Image, level: int = 1) -> bytes:
        nifti.write(path, image, level=level, sync=False)
        return path.read_bytes()

    @pytest.mark.parametrize("engine", ["igzip", "zlib"])
    @pytest.mark.parametrize("code", ["u1", "i2", "f4", "f8"])
    @pytest.mark.parametrize("order", ["<", ">"])
    def test_bytes_are_those_of_an_image_by_itself(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str, code: str, engine: str
    ) -> None:
        if engine == "zlib":
            monkeypatch.setattr(gzip_io, "isal_zlib", None)
        host = self.host(tmp_path / "h.nii.gz", code, order)
        for number, slices in enumerate(((), (0,), (7, 8), (20,), tuple(range(21)))):
            raw = host.raw.copy(order="F")
            raw[2, 3, list(slices)] += raw.dtype.type(1)
            copy = host.with_raw(raw)
            alone = replace(copy, base=None)
            path = tmp_path / f"{number}.nii.gz"
            assert self.written(path, copy) == self.written(tmp_path / "alone.nii.gz", alone)
            again = nifti.read(path)
            np.testing.assert_array_equal(again.raw, raw)
            assert (again.header_bytes, again.raw.dtype) == (host.header_bytes, host.raw.dtype)
            assert gzip.decompress(path.read_bytes()) == host.header_bytes + raw.tobytes(order="F")

    def test_untouched_slabs_are_compressed_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        packed = []
        pack = gzip_io.pack
        monkeypatch.setattr(
            gzip_io, "pack", lambda data, level, crc=None: packed.append(len(data)) or pack(data, level)
        )
        host = self.host(tmp_path / "h.nii.gz")
        for expected in ([352, self.SLAB, self.SLAB, self.SLAB * 5 // 8], [352, self.SLAB], [352, self.SLAB]):
            raw = host.raw.copy(order="F")
            raw[1, 1, 9] = -5.0
            nifti.write(tmp_path / "c.nii.gz", host.with_raw(raw), sync=False)
            assert packed == expected
            packed.clear()

    def test_empty_slabs(self, tmp_path: Path) -> None:
        raw = np.zeros((6, 5, 40), np.float32, order="F")
        raw[0, 0, 39] = 5.0
        raw[5, 4, 7] = -0.0  # equal to zero, but another byte
        host = nifti.new(Grid(raw.shape, np.eye(4)), raw)
        for image in (host, host.with_raw(raw.copy(order="F"))):
            packed = self.written(tmp_path / "e.nii.gz", image)
            assert gzip.decompress(packed)[352:] == raw.tobytes(order="F")

    def test_bits_count_and_not_values(self, tmp_path: Path) -> None:
        host = self.host(tmp_path / "h.nii.gz")
        raw = host.raw.copy(order="F")
        raw[0, 0, 0], raw[1, 0, 0] = np.nan, 0.0
        host = replace(host, raw=raw)
        other = raw.copy(order="F")
        other[1, 0, 0] = -0.0
        self.written(tmp_path / "a.nii.gz", host.with_raw(raw.copy(order="F")))
        self.written(tmp_path / "b.nii.gz", host.with_raw(other))
        for name, expected in (("a", raw), ("b", other)):
            found = nifti.read(tmp_path / f"{name}.nii.gz").raw
            assert found.tobytes(order="F") == expected.tobytes(order="F")

    def test_a_copy_of_a_copy_knows_the_host(self, tmp_path: Path) -> None:
        host = self.host(tmp_path / "h.nii.gz")
        assert host.with_raw(host.raw).with_raw(host.raw).base is host

    def test_another_memory_layout_or_dtype_is_no_trouble(self, tmp_path: Path) -> None:
        host = self.host(tmp_path / "h.nii.gz")
        for number, raw in enumerate((np.ascontiguousarray(host.raw), host.raw.astype(np.float64))):
            packed = self.written(tmp_path / f"{number}.nii.gz", host.with_raw(raw))
            assert gzip.decompress(packed)[352:] == raw.tobytes(order="F")

    @pytest.mark.parametrize("level", [1, 2, 3])
    def test_levels_hold_the_same_and_others_read_it(self, tmp_path: Path, level: int) -> None:
        host = self.host(tmp_path / "h.nii.gz")
        raw = host.raw.copy(order="F")
        raw[1:3, 1:3, 3:12] = 77
        path = tmp_path / "c.nii.gz"
        for copy in (host.raw, raw):  # the second time with what the first has packed
            packed = self.written(path, host.with_raw(copy), level)
            assert zlib.decompress(packed, 31)[352:] == copy.tobytes(order="F")
            assert subprocess.run(["gzip", "-t", path], check=False).returncode == 0
            np.testing.assert_array_equal(nib.load(path).get_fdata(), copy * 0.5 + 3.0)
            np.testing.assert_allclose(by_itk(path)[0], copy * 0.5 + 3.0)

    def test_label_maps_are_copies_too(self, tmp_path: Path) -> None:
        host = self.host(tmp_path / "h.nii.gz", "u1")
        label = nifti.as_label(replace(host, slope=1.0, inter=0.0), host.raw.astype(np.uint16))
        assert label.base is not None
        assert gzip.decompress(self.written(tmp_path / "l.nii.gz", label))[352:] == host.raw.tobytes(
            order="F"
        )

    def test_plain_files(self, tmp_path: Path) -> None:
        host = self.host(tmp_path / "h.nii")
        assert self.written(tmp_path / "c.nii", host.with_raw(host.raw)) == (tmp_path / "h.nii").read_bytes()


def voxel_hash(raw: NDArray[np.generic]) -> str:
    return slabs.Slabs(raw).digest


class TestVoxelHash:
    def test_tells_voxels_dtypes_and_shapes_apart(self) -> None:
        raw = np.random.default_rng(0).integers(0, 9, (4, 5, 20), np.int16)
        one = raw.copy()
        one[3, 4, 19] += 1
        swapped = raw.copy()
        swapped[0, 0, :8], swapped[0, 0, 8:16] = raw[0, 0, 8:16], raw[0, 0, :8]
        others = (one, swapped, raw.astype(np.int32), raw.reshape(5, 4, 20), raw.astype(">i2"), raw[:, :, :0])
        assert len({voxel_hash(image) for image in (raw, *others)}) == 7

    def test_is_of_the_voxels_and_not_of_their_layout(self) -> None:
        raw = np.random.default_rng(0).normal(size=(4, 5, 20)).astype(np.float32)
        assert voxel_hash(raw) == voxel_hash(np.asfortranarray(raw)) == voxel_hash(raw[:, ::1])

    def test_does_not_depend_on_the_library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        raw = np.random.default_rng(0).normal(size=(4, 5, 20)).astype(np.float32)
        found = voxel_hash(raw)
        monkeypatch.setattr(gzip_io, "isal_zlib", None)
        assert voxel_hash(raw) == found


class TestEncode:
    def image(self, code: str, slope: float = 1.0, inter: float = 0.0) -> nifti.Image:
        grid = Grid((2, 2, 1), np.eye(4))
        return nifti.Image(b"", np.zeros(grid.shape, code), slope, inter, grid)

    def test_rounds_to_the_nearest(self) -> None:
        values = np.array([1.4, 1.6, -1.6, 2.0], np.float32).reshape(2, 2, 1)
        raw, clipped = self.image("i2").encode(values)
        assert (raw.ravel().tolist(), raw.dtype, clipped) == ([1, 2, -2, 2], np.int16, 0)

    def test_scaling_is_undone(self) -> None:
        values = np.array([3.0, 3.5, 4.0, 5.2], np.float32).reshape(2, 2, 1)
        raw, _ = self.image(">i2", 0.5, 3.0).encode(values)
        assert (raw.ravel().tolist(), raw.dtype) == ([0, 1, 2, 4], np.dtype(">i2"))

    @pytest.mark.parametrize("code", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"])
    def test_clips_and_counts(self, code: str) -> None:
        limits = np.iinfo(code)
        values = np.array([-1e30, 1e30, 1.0, 0.4], np.float32).reshape(2, 2, 1)
        raw, clipped = self.image(code).encode(values)
        assert clipped == 2
        assert raw[0, 0, 0] == limits.min
        assert int(raw[0, 1, 0]) == pytest.approx(limits.max, rel=1e-15)
        assert raw.dtype == np.dtype(code)

    def test_floats_are_neither_rounded_nor_clipped(self) -> None:
        values = np.array([1.25, -7e30, 0.1, 3], np.float32).reshape(2, 2, 1)
        raw, clipped = self.image("f4").encode(values)
        np.testing.assert_array_equal(raw, values)
        assert clipped == 0

    @given(
        hnp.arrays(np.int16, (2, 2, 1)),
        st.sampled_from([1.0, 0.5, -2.0, 0.1]),
        st.sampled_from([0.0, -1024.0, 12.5]),
    )
    def test_stored_voxels_survive_the_round_trip(
        self, raw: NDArray[np.int16], slope: float, inter: float
    ) -> None:
        image = self.image("i2", slope, inter).with_raw(raw)
        encoded, clipped = image.encode(image.values())
        np.testing.assert_array_equal(encoded, raw)
        assert clipped == 0


class TestLabels:
    def test_an_integer_label_map_keeps_header_and_dtype(self, tmp_path: Path) -> None:
        image = nifti.read(save(tmp_path / "a.nii", as_dtype("i2"), order=">", intent_code=1002))
        label = nifti.as_label(image, (RAW > 3).astype(np.uint16))
        assert label.header_bytes == image.header_bytes
        assert label.raw.dtype == np.dtype(">i2")
        np.testing.assert_array_equal(label.raw, RAW > 3)

    @pytest.mark.parametrize(
        ("code", "scaling", "top", "expected"),
        [
            ("f4", (1.0, 0.0), 3, "u1"),
            ("i2", (0.5, 0.0), 3, "u1"),
            ("u1", (1.0, 2.0), 300, "u2"),
            ("u1", (1.0, 0.0), 300, "u2"),
            ("i1", (1.0, 0.0), 200, "u1"),
        ],
    )
    def test_any_other_becomes_the_smallest_unsigned_integer(
        self, tmp_path: Path, code: str, scaling: tuple[float, float], top: int, expected: str
    ) -> None:
        image = nifti.read(
            save(tmp_path / "a.nii.gz", as_dtype(code), OBLIQUE, scaling=scaling, codes=(0, 2))
        )
        wanted = (RAW > 3) * top
        nifti.write(tmp_path / "b.nii.gz", nifti.as_label(image, wanted.astype(np.uint16)))
        written = nib.load(tmp_path / "b.nii.gz")
        assert written.get_data_dtype() == np.dtype(expected)
        np.testing.assert_array_equal(np.asanyarray(written.dataobj), wanted)
        np.testing.assert_array_equal(written.affine, nib.load(tmp_path / "a.nii.gz").affine)

    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("version", [1, 2])
    def test_like_keeps_geometry_and_description(self, tmp_path: Path, version: int, order: str) -> None:
        source = save(
            tmp_path / "a.nii", as_dtype("i2"), version=version, order=order, descrip=b"scan 7", cal_max=9.0
        )
        nifti.write(tmp_path / "b.nii", nifti.like(nifti.read(source), RAW.astype(np.float32) / 7))
        written = nib.load(tmp_path / "b.nii")
        np.testing.assert_array_equal(written.get_fdata(dtype=np.float32), RAW.astype(np.float32) / 7)
        np.testing.assert_array_equal(written.affine, nib.load(source).affine)
        assert written.header["descrip"] == b"scan 7"
        assert (float(written.header["cal_max"]), int(written.header["bitpix"])) == (0.0, 32)
        assert written.header.endianness == order
        assert written.header["sizeof_hdr"] == {1: 348, 2: 540}[version]

    def test_new_is_read_by_others(self, tmp_path: Path) -> None:
        raw = np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32)
        nifti.write(tmp_path / "a.nii.gz", nifti.new(Grid((5, 4, 3), ROTATED), raw))
        written = nib.load(tmp_path / "a.nii.gz")
        np.testing.assert_array_equal(written.get_fdata(dtype=np.float32), raw)
        np.testing.assert_allclose(written.affine, ROTATED, atol=1e-6)
        np.testing.assert_allclose(written.get_qform(), ROTATED, atol=1e-5)
        np.testing.assert_array_equal(by_itk(tmp_path / "a.nii.gz")[0], raw)
        nifti.write(tmp_path / "b.nii", nifti.new(Grid((5, 4, 3), OBLIQUE), raw))
        np.testing.assert_allclose(nifti.read(tmp_path / "b.nii").grid.affine, OBLIQUE, atol=1e-6)


def test_voxel_hash_is_of_values_dtype_and_shape() -> None:
    raw = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    changed = raw.copy()
    changed[1, 2, 3] = 0
    others = [raw.astype(np.uint16), raw.astype(">i2"), raw.reshape(3, 2, 4), changed]
    assert len({voxel_hash(other) for other in [raw, *others]}) == 5
    assert voxel_hash(np.asfortranarray(raw)) == voxel_hash(raw)


def test_affine_conflict(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    for codes in ((1, 0), (0, 1), (1, 1), (0, 0)):
        assert nifti.affine_conflict(nifti.read(save(path, as_dtype("i2"), codes=codes))) is None
    moved = nifti.read(save(path, as_dtype("i2"), qoffset_x=ROTATED[0, 3] + 5.0))
    assert "disagree by up to 5 mm" in str(nifti.affine_conflict(moved))
    unsigned = save(path, as_dtype("i2"), codes=(1, 0))
    content = bytearray(unsigned.read_bytes())
    content[76:80] = bytes(4)  # pixdim[0]: NIfTI takes 0 for 1
    unsigned.write_bytes(bytes(content))
    np.testing.assert_allclose(nifti.read(unsigned).grid.affine, ROTATED, atol=1e-4)
    broken = nifti.read(save(path, as_dtype("i2"), quatern_b=3.0))
    assert "qform is damaged" in str(nifti.affine_conflict(broken))
