"""Damaged gzip streams: an error, or exactly what gzip itself reads, with every set of libraries."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesionsynth import gzip_io, nifti
from lesionsynth.errors import ImageError
from tests.fuzz.limits import bounded, clear, fuzzed
from tests.nifti_bytes import save

ENGINES = ("libdeflate", "igzip", "zlib")
SIZES = (0, 1, 3000, 2**31, 2**32 - 1)
CONTENT = np.random.default_rng(0).integers(0, 30, 3000).astype(np.uint8).tobytes()


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Hide the faster libraries, as where they are not installed."""
    if request.param != "libdeflate":
        monkeypatch.setattr(gzip_io, "deflate", None)
    if request.param == "zlib":
        monkeypatch.setattr(gzip_io, "igzip", None)
        monkeypatch.setattr(gzip_io, "isal_zlib", None)
    return str(request.param)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """One to three members with whatever a gzip header may hold, one of them maybe empty."""
    cuts = sorted(draw(st.lists(st.integers(0, len(CONTENT)), max_size=2)))
    made = b""
    for start, stop in zip([0, *cuts], [*cuts, len(CONTENT)], strict=True):
        flags, extra = draw(st.sampled_from([(0, b""), (4, b"\x03\0abc"), (8, b"name\0"), (16, b"note\0")]))
        packer = zlib.compressobj(draw(st.sampled_from([0, 1, 9])), zlib.DEFLATED, -15)
        part = CONTENT[start:stop]
        made += struct.pack("<BBBBIBB", 0x1F, 0x8B, 8, flags, draw(st.integers(0, 2**32 - 1)), 0, 3) + extra
        made += packer.compress(part) + packer.flush()
        made += struct.pack("<II", zlib.crc32(part), len(part))
    return made


@st.composite
def damaged_streams(draw: st.DrawFn) -> bytes:
    """A stream that is cut, flipped, spliced, repeated, or followed by something."""
    data = bytearray(draw(streams()))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, max(0, len(data) - 1)) | st.integers(0, min(20, max(0, len(data) - 1))))
        match draw(st.sampled_from(["cut", "flip", "insert", "remove", "repeat", "behind", "size"])):
            case "cut":
                del data[place:]
            case "flip" if data:
                data[place] ^= 1 << draw(st.integers(0, 7))
            case "insert":
                data[place:place] = draw(st.binary(min_size=1, max_size=12))
            case "remove":
                del data[place : place + draw(st.integers(1, 12))]
            case "repeat":
                data += data[place:]
            case "behind":
                data += draw(st.binary(max_size=30) | st.just(bytes(300)) | st.just(b"\x1f\x8b\x08"))
            case "size" if len(data) > 4:
                data[-4:] = draw(st.sampled_from(SIZES)).to_bytes(4, "little")
    return bytes(data)


def agrees(data: bytes, at_least: int) -> None:
    """Our decompressor refuses, or gives what gzip gives."""
    try:
        with bounded(megabytes=256):
            found = bytes(gzip_io.decompress(data, at_least))
            start = gzip_io.peek(data, 100)
    except gzip_io.GzipError:
        return
    try:
        expected = gzip.decompress(data)
    except (OSError, EOFError, zlib.error):
        # Parts of a header that nobody needs, such as its own checksum, are not looked at by all.
        expected = CONTENT
    assert found == expected[:at_least]
    assert len(found) == at_least
    assert start == expected[:100]


@fuzzed(100)
@given(streams(), st.integers(0, len(CONTENT)))
def test_whole_streams_are_read(engine: str, data: bytes, at_least: int) -> None:
    assert gzip_io.decompress(data, at_least) == CONTENT[:at_least]
    assert gzip_io.peek(data, 100) == CONTENT[:100]


@fuzzed(400)
@given(damaged_streams(), st.just(len(CONTENT)) | st.integers(0, 2 * len(CONTENT)))
def test_damaged_streams(engine: str, data: bytes, at_least: int) -> None:
    agrees(data, at_least)


@fuzzed(150)
@given(damaged_streams())
def test_whatever_is_called_an_image(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.nii.gz"
    path.write_bytes(data)
    with pytest.raises(ImageError) as caught, bounded():
        nifti.read(path)
    clear(str(caught.value), path)


@pytest.fixture(scope="module", params=[(5, 4, 3), (1000, 1000, 32), (32767, 32767, 32767)], ids=str)
def bomb(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An image of some shape in a stream that unpacks to 128 MB of zeros."""
    path = tmp_path_factory.getbasetemp() / "bomb.nii"
    save(path, np.zeros((5, 4, 3), np.int16), dim=[3, *request.param, 1, 1, 1, 1])
    packer, zeros = zlib.compressobj(1, zlib.DEFLATED, 31), bytes(1 << 20)
    packed = packer.compress(path.read_bytes()[:352])
    return packed + b"".join(packer.compress(zeros) for _ in range(128)) + packer.flush()


@pytest.mark.parametrize("announced", [None, 0, 352 + 5 * 4 * 3 * 2, 2**32 - 1])
def test_a_bomb_that_calls_itself_an_image(
    tmp_path: Path, engine: str, bomb: bytes, announced: int | None
) -> None:
    """Never is more unpacked than the header says, whatever the trailer says."""
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(bomb if announced is None else bomb[:-4] + announced.to_bytes(4, "little"))
    with bounded(megabytes=96):
        try:
            image = nifti.read(path)
        except ImageError as error:
            clear(str(error), path)
        else:
            assert image.grid.shape == (1000, 1000, 32)
            assert announced is None
