"""gzip: whole or an error, with every set of libraries."""

from __future__ import annotations

import gzip
import struct
import subprocess
import tracemalloc
import zlib
from itertools import pairwise
from pathlib import Path

import deflate
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from isal import igzip

from lesionsynth import gzip_io
from lesionsynth.gzip_io import GzipError, Slab, adler32, compress, crc32, decompress, member, pack, peek

ENGINES = ("libdeflate", "igzip", "zlib")
CONTENT = np.random.default_rng(0).integers(0, 50, 20_000).astype(np.uint8).tobytes()
PACKED = gzip.compress(CONTENT, 1, mtime=0)
shares_fixture = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Hide the faster libraries, as where they are not installed."""
    if request.param != "libdeflate":
        monkeypatch.setattr(gzip_io, "deflate", None)
    if request.param == "zlib":
        monkeypatch.setattr(gzip_io, "igzip", None)
        monkeypatch.setattr(gzip_io, "isal_zlib", None)
    return str(request.param)


def test_engines_are_named(engine: str) -> None:
    assert gzip_io.engines() == {"read": engine, "write": "zlib" if engine == "zlib" else "igzip"}


@shares_fixture
@given(st.binary(max_size=3000))
def test_what_is_compressed_comes_back(engine: str, content: bytes) -> None:
    packed = compress(content)
    assert decompress(packed, len(content)) == content
    assert gzip.decompress(packed) == content
    assert compress(content) == packed  # no time stamp


def test_the_command_gzip_accepts_it(engine: str, tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(compress(CONTENT))
    assert subprocess.run(["gzip", "-dc", path], check=True, capture_output=True).stdout == CONTENT


def test_the_result_is_not_writable(engine: str) -> None:
    assert memoryview(decompress(PACKED, len(CONTENT))).readonly


def test_peek_reads_the_start(engine: str) -> None:
    assert peek(PACKED, 100) == CONTENT[:100]
    assert peek(PACKED, 10**6) == CONTENT
    assert peek(gzip.compress(CONTENT[:10]) + gzip.compress(CONTENT[10:]), 100) == CONTENT[:100]


@pytest.mark.parametrize("end", [0, 2, 9, 10, 11, 100, len(PACKED) // 2, -9, -8, -5, -4, -1])
def test_every_cut_is_noticed(engine: str, end: int) -> None:
    with pytest.raises(GzipError):
        decompress(PACKED[:end], len(CONTENT))


@shares_fixture
@given(st.integers(0, len(PACKED) - 1), st.integers(1, 255))
def test_a_changed_byte_is_noticed_or_harmless(engine: str, place: int, change: int) -> None:
    damaged = bytearray(PACKED)
    damaged[place] ^= change
    try:
        found = decompress(bytes(damaged), len(CONTENT))
    except GzipError:
        return
    assert found == CONTENT  # time stamp, flags of the header and the like


def test_a_wrong_checksum_is_noticed(engine: str) -> None:
    damaged = bytearray(PACKED)
    damaged[-6] ^= 1
    with pytest.raises(GzipError):
        decompress(bytes(damaged), len(CONTENT))


def test_members_are_joined(engine: str) -> None:
    for cut in (1, 348, 10_000, len(CONTENT) - 1):
        packed = gzip.compress(CONTENT[:cut]) + gzip.compress(CONTENT[cut:])
        assert decompress(packed, len(CONTENT)) == CONTENT


def test_a_last_member_that_announces_the_whole_size_hides_nothing(engine: str) -> None:
    first, second = CONTENT[:100], CONTENT
    packed = gzip.compress(first) + gzip.compress(second)
    assert decompress(packed, len(second)) == (first + second)[: len(second)]


def test_an_empty_member_in_front_is_harmless(engine: str) -> None:
    assert decompress(gzip.compress(b"") + PACKED, len(CONTENT)) == CONTENT


def test_zeros_behind_are_padding_and_anything_else_is_damage(engine: str) -> None:
    assert decompress(PACKED + bytes(512), len(CONTENT)) == CONTENT
    for garbage in (b"garbage and more of it", b"\x1f\x8b", b"x"):
        with pytest.raises(GzipError):
            decompress(PACKED + garbage, len(CONTENT))


def test_more_content_than_expected_is_left_out(engine: str) -> None:
    assert decompress(PACKED, 100) == CONTENT[:100]


def test_less_content_than_expected_is_an_error(engine: str) -> None:
    with pytest.raises(GzipError, match="ends after 20000 of 20001"):
        decompress(PACKED, len(CONTENT) + 1)


def test_an_impossible_size_is_refused_before_anything_is_allocated(engine: str) -> None:
    with pytest.raises(GzipError, match="cannot hold"):
        decompress(PACKED, 1 << 50)


@pytest.fixture(scope="module")
def packed_zeros() -> bytes:
    return gzip.compress(bytes(100 << 20), 9)


@pytest.mark.parametrize("announced", [None, 4096])
def test_a_bomb_is_stopped(engine: str, announced: int | None, packed_zeros: bytes) -> None:
    bomb = packed_zeros
    if announced is not None:  # a trailer that claims what the header of the image says
        bomb = bomb[:-4] + struct.pack("<I", announced)
    tracemalloc.start()
    try:
        with pytest.raises(GzipError, match="follow the image"):
            decompress(bomb, 4096)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


def test_what_is_no_gzip_is_an_error(engine: str) -> None:
    for data in (b"", b"\x1f", b"no gzip at all", b"\x1f\x8b\x07" + bytes(40)):
        with pytest.raises(GzipError):
            decompress(data, 10)


LEVELS = (1, 2, 3)


def joined(content: bytes, cuts: list[int], level: int = 1) -> bytes:
    """A stream packed in slabs that end at `cuts`."""
    edges = [0, *sorted(cuts), len(content)]
    return b"".join(member([pack(content[a:b], level) for a, b in pairwise(edges)]))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("cuts", [[], [1], [352, 8000, 8001, 19_999], [0, 5000, 5000, 20_000]])
def test_slabs_make_one_ordinary_member(engine: str, cuts: list[int], level: int, tmp_path: Path) -> None:
    packed = joined(CONTENT, cuts, level)
    assert zlib.decompress(packed, 31) == CONTENT  # refuses whatever follows the first member
    assert gzip.decompress(packed) == CONTENT
    assert deflate.gzip_decompress(packed) == CONTENT
    assert igzip.decompress(packed) == CONTENT
    assert decompress(packed, len(CONTENT)) == CONTENT
    (tmp_path / "a.gz").write_bytes(packed)
    assert subprocess.run(["gzip", "-t", tmp_path / "a.gz"], check=False).returncode == 0


@shares_fixture
@given(st.lists(st.binary(max_size=200), max_size=8))
def test_any_pieces_are_joined_with_the_right_checksum(engine: str, pieces: list[bytes]) -> None:
    packed = b"".join(member(pack(piece) for piece in pieces))
    whole = b"".join(pieces)
    assert gzip.decompress(packed) == whole
    assert struct.unpack("<II", packed[-8:]) == (zlib.crc32(whole), len(whole))


def test_a_slab_is_the_same_wherever_it_stands(engine: str) -> None:
    first, second = pack(CONTENT[:9000]), pack(CONTENT[9000:])
    assert gzip.decompress(b"".join(member([second, first, second]))) == (
        CONTENT[9000:] + CONTENT[:9000] + CONTENT[9000:]
    )


def test_the_size_of_a_long_stream_wraps_as_gzip_has_it(engine: str) -> None:
    long = Slab(b"", 0, (1 << 32) - 5)
    assert struct.unpack("<I", member([long, pack(b"0123456789")])[-1][4:]) == (5,)


@pytest.mark.parametrize("level", LEVELS)
def test_every_level_compresses(engine: str, level: int) -> None:
    assert len(compress(CONTENT, level)) < 0.9 * len(CONTENT)


def test_checksums_are_those_of_zlib(engine: str) -> None:
    assert crc32(CONTENT) == zlib.crc32(CONTENT)
    assert adler32(CONTENT) == zlib.adler32(CONTENT)
