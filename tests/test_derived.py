"""4-D files: read volume by volume, written with every byte that is not edited; joined from 3-D ones."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesionsynth import nifti, slabs
from lesionsynth.derived import as_written, joined
from lesionsynth.domain.grid import Grid
from lesionsynth.errors import ImageError
from lesionsynth.slabs import Slabs, Stacked
from tests.nifti_bytes import OBLIQUE, save

SERIES = np.arange(5 * 4 * 3 * 2).reshape(5, 4, 3, 2)


def content(path: Path, stored: nifti.Stored) -> bytes:
    return b"".join(bytes(part) for part in nifti.content(path, stored))


def same(images: Any) -> list[Slabs]:
    return [image.slabs for image in images]


class TestRead:
    @pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("version", [1, 2])
    @pytest.mark.parametrize("code", ["u1", "i2", "f4", "f8"])
    def test_volumes_are_nibabels(
        self, tmp_path: Path, code: str, version: int, order: str, ending: str
    ) -> None:
        path = save(
            tmp_path / f"a{ending}",
            SERIES.astype(code),
            OBLIQUE,
            version=version,
            order=order,
            scaling=(0.5, 2.0),
        )
        expected = nib.load(path)
        images = nifti.read_series(path, 2)
        for number, image in enumerate(images):
            np.testing.assert_array_equal(image.raw, SERIES[..., number])
            assert image.raw.dtype == np.dtype(code).newbyteorder(order)
            np.testing.assert_array_equal(image.values(), expected.get_fdata(dtype=np.float32)[..., number])
            np.testing.assert_array_equal(image.grid.affine, expected.affine)
            assert (image.grid.shape, image.source_hash) == ((5, 4, 3), images[0].source_hash)
            assert not image.raw.flags.writeable
            assert image.raw.flags.f_contiguous

    @pytest.mark.parametrize("count", [1, 3])
    def test_another_number_of_volumes_is_refused(self, tmp_path: Path, count: int) -> None:
        path = save(tmp_path / "a.nii", SERIES.astype("i2"))
        wanted = "one 3-D volume was" if count == 1 else "3 volumes, one a channel, were"
        with pytest.raises(ImageError, match=rf"has dimensions \[5, 4, 3, 2\], {wanted} expected") as caught:
            nifti.read_series(path, count)
        assert caught.value.file == str(path)
        with pytest.raises(ImageError, match="2 volumes, one a channel"):
            nifti.read_series(save(tmp_path / "b.nii", SERIES[..., 0].astype("i2")), 2)

    def test_five_dimensions_are_refused(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.nii", SERIES.astype("i2"), dim=[5, 5, 4, 3, 1, 2, 1, 1])
        for count in (1, 2):
            with pytest.raises(ImageError, match=r"has dimensions \[5, 4, 3, 1, 2\]"):
                nifti.read_series(path, count)

    @pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
    def test_a_truncated_series(self, tmp_path: Path, ending: str) -> None:
        path = save(tmp_path / f"a{ending}", SERIES.astype("i2"))
        path.write_bytes(path.read_bytes()[:-9])
        with pytest.raises(ImageError, match=r"ends after|truncated"):
            nifti.read_series(path, 2)


class TestWrite:
    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("version", [1, 2])
    def test_a_series_comes_back_byte_for_byte_but_for_what_is_edited(
        self, tmp_path: Path, version: int, order: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(slabs, "SLAB_VOX", 16)  # no part of a volume, so that the last one is short
        path = save(
            tmp_path / "a.nii.gz",
            SERIES.astype("i2"),
            version=version,
            order=order,
            scaling=(0.5, 2.0),
            descrip=b"scan 7",
            toffset=3.0,
            slice_end=2,
        )
        whole = gzip.decompress(path.read_bytes())
        images = nifti.read_series(path, 2)
        assert gzip.decompress(content(path, joined(images, same(images)))) == whole
        raw = images[1].raw.copy(order="F")
        raw[2, 1, 0] = 99
        edited = [images[0].slabs, images[1].with_raw(raw).slabs]
        made = gzip.decompress(content(path, joined(images, edited)))
        assert [k for k, (a, b) in enumerate(zip(made, whole, strict=True)) if a != b] == [
            len(whole) - 2 * 60 + 2 * (2 + 5) + (order == ">")
        ]
        assert content(tmp_path / "a.nii", joined(images, edited)) == made

    @pytest.mark.parametrize("version", [1, 2])
    def test_a_volume_alone_is_a_3d_file(self, tmp_path: Path, version: int) -> None:
        source = save(
            tmp_path / "a.nii",
            SERIES.astype("i2"),
            OBLIQUE,
            version=version,
            scaling=(0.5, 2.0),
            descrip=b"x",
        )
        for number, image in enumerate(nifti.read_series(source, 2)):
            nifti.write(tmp_path / "b.nii.gz", image)
            found, expected = nib.load(tmp_path / "b.nii.gz"), nib.load(source)
            assert found.shape == (5, 4, 3)
            assert found.header["dim"][:5].tolist() == [3, 5, 4, 3, 1]
            assert found.header["descrip"] == b"x"
            np.testing.assert_array_equal(found.affine, expected.affine)
            np.testing.assert_array_equal(found.get_fdata(), expected.get_fdata()[..., number])

    def test_some_volumes_of_a_series_get_a_header_of_their_own(self, tmp_path: Path) -> None:
        three = np.stack([SERIES[..., 0], SERIES[..., 1], -SERIES[..., 0]], axis=3).astype("i2")
        images = nifti.read_series(save(tmp_path / "a.nii", three), 3)[1:]
        (tmp_path / "b.nii").write_bytes(content(tmp_path / "b.nii", joined(images, same(images))))
        np.testing.assert_array_equal(nib.load(tmp_path / "b.nii").get_fdata(), three[..., 1:])


class TestJoin:
    def volumes(self, folder: Path, *forms: tuple[str, str, tuple[float, float]]) -> list[nifti.Image]:
        return [
            nifti.read(
                save(
                    folder / f"{k}.nii",
                    (SERIES[..., 0] + k).astype(code),
                    OBLIQUE,
                    order=order,
                    scaling=scaling,
                )
            )
            for k, (code, order, scaling) in enumerate(forms)
        ]

    @pytest.mark.parametrize(
        ("forms", "expected"),
        [
            ([("i2", "<", (1, 0)), ("i2", "<", (1, 0))], "<i2"),
            ([("i2", ">", (0.5, 3)), ("i2", ">", (0.5, 3))], ">i2"),
            ([("i2", ">", (1, 0)), ("i2", "<", (1, 0))], ">i2"),
            ([("u1", ">", (1, 0)), ("i2", "<", (1, 0))], ">i2"),
            ([("u1", "<", (1, 0)), ("i2", "<", (1, 0)), ("u2", "<", (1, 0))], "<i4"),
            ([("i2", "<", (1, 0)), ("f4", "<", (1, 0))], "<f4"),
            ([("i4", ">", (2, 0)), ("f4", "<", (2, 0))], ">f8"),
        ],
    )
    def test_volumes_become_one_series_without_loss(
        self, tmp_path: Path, forms: list[Any], expected: str
    ) -> None:
        images = self.volumes(tmp_path, *forms)
        path = tmp_path / "all.nii.gz"
        path.write_bytes(content(path, joined(images, same(images))))
        found = nib.load(path)
        assert found.get_data_dtype() == np.dtype(expected)
        assert found.shape == (5, 4, 3, len(images))
        assert found.header["dim"][5:].tolist() == [1, 1, 1]
        assert found.header.get_zooms()[3] == 1.0
        np.testing.assert_array_equal(found.affine, nib.load(tmp_path / "0.nii").affine)
        for number, (image, back) in enumerate(
            zip(images, nifti.read_series(path, len(images)), strict=True)
        ):
            np.testing.assert_array_equal(back.values(), image.values())
            np.testing.assert_array_equal(back.raw, SERIES[..., 0] + number)

    @pytest.mark.parametrize(
        ("forms", "told"),
        [
            ([("i2", "<", (1, 0)), ("i2", "<", (0.5, 0))], r"int16 x 1 \+ 0, int16 x 0.5 \+ 0"),
            ([("i8", "<", (1, 0)), ("f8", "<", (1, 0))], "int64"),
            ([("u8", "<", (1, 0)), ("i8", "<", (1, 0))], "uint64"),
        ],
    )
    def test_what_has_no_common_form_is_refused(self, tmp_path: Path, forms: list[Any], told: str) -> None:
        images = self.volumes(tmp_path, *forms)
        with pytest.raises(ImageError, match=f"cannot be joined.*{told}") as caught:
            joined(images, same(images))
        assert caught.value.remedy
        assert caught.value.file == str(tmp_path / "0.nii")

    def test_one_volume_is_its_own_file(self, tmp_path: Path) -> None:
        (image,) = self.volumes(tmp_path, ("i2", "<", (1, 0)))
        assert (
            content(tmp_path / "x.nii", joined([image], [image.slabs])) == (tmp_path / "0.nii").read_bytes()
        )

    def test_a_series_that_the_header_cannot_count_is_refused(self) -> None:
        image = nifti.new(Grid((1, 1, 1), np.eye(4)), np.zeros((1, 1, 1), np.uint8))
        with pytest.raises(ImageError, match="cannot hold 1x1x1x40000"):
            joined([image] * 40000, [image.slabs] * 40000)


def test_as_written_is_what_a_reader_gets(tmp_path: Path) -> None:
    three = np.stack([SERIES[..., 0], SERIES[..., 1], -SERIES[..., 0]], axis=3).astype("i2")
    images = nifti.read_series(save(tmp_path / "a.nii", three, OBLIQUE, scaling=(0.5, 2.0)), 3)
    targets = {Path("one.nii.gz"): (0,), Path("two.nii.gz"): (1, 2)}
    expected = as_written(images, targets)
    for path, channels in targets.items():
        members = [images[k] for k in channels]
        (tmp_path / path).write_bytes(content(path, joined(members, same(members))))
        for number, found in zip(channels, nifti.read_series(tmp_path / path, len(channels)), strict=True):
            assert found.header_bytes == expected[number].header_bytes
            assert found.file_header == expected[number].file_header
            np.testing.assert_array_equal(found.raw, expected[number].raw)
            assert found.raw.dtype == expected[number].raw.dtype


@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.integers(1, 3))
def test_stacked_slabs_are_their_bytes_in_turn(lengths: list[int], level: int) -> None:
    rng = np.random.default_rng(0)
    volumes = [rng.integers(0, 3, (n, 1, 1), np.int16) for n in lengths]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slabs, "SLAB_VOX", 8)
        stacked = Stacked([Slabs(volume) for volume in volumes])
        expected = b"".join(volume.tobytes() for volume in volumes)
        assert b"".join(bytes(piece) for piece in stacked.pieces) == expected
        packed = nifti.content(Path("a.nii.gz"), nifti.Stored(b"", stacked), level)  # type: ignore[arg-type]
        assert gzip.decompress(b"".join(bytes(part) for part in packed)) == expected
        other = [volume.copy() for volume in volumes]
        other[-1][-1] += 1
        assert Stacked([Slabs(volume) for volume in other]).digest != stacked.digest
