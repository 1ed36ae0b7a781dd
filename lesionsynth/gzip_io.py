"""Fast, checked gzip: libdeflate and igzip where they are installed, zlib elsewhere.

A truncated or damaged stream is always an error, and no stream can make us allocate more than the
size the caller has derived from the file's header.

What is written is one ordinary gzip member made of slabs: pieces that are compressed by themselves, each
ended by a full flush. A slab that has not changed is not compressed again; the checksums are combined.
"""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

try:
    import deflate
except ImportError:
    deflate = None
try:
    from isal import igzip, igzip_lib, isal_zlib
except ImportError:
    igzip = igzip_lib = isal_zlib = None  # type: ignore[assignment]

MAX_DEFLATE_RATIO = 1032
"""No deflate stream can expand by more than this (RFC 1951)."""

DEFAULT_LEVEL = 1
"""Level of compression that is written unless another is asked for."""

_TRAILING_LIMIT = 1 << 26
_ZLIB_LEVELS = {1: 1, 2: 3, 3: 6}
_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
"""Deflate, no flags, no time stamp, no name, unknown system."""
_LAST_BLOCK = b"\x03\0"
"""An empty block that says that it is the last."""


class GzipError(ValueError):
    """The stream is truncated, damaged, or does not hold what was announced."""


def engines() -> dict[str, str]:
    """Names of the libraries used to read and to write."""
    return {
        "read": "libdeflate" if deflate else "igzip" if igzip else "zlib",
        "write": "igzip" if igzip else "zlib",
    }


@contextmanager
def _opened(data: bytes) -> Iterator[gzip.GzipFile]:
    """Stream of the decompressed bytes of all members; whatever is wrong with them is a GzipError."""
    opener = gzip.GzipFile if igzip is None else igzip.IGzipFile
    damage = (EOFError, OSError, zlib.error, *(() if igzip is None else (igzip_lib.IsalError,)))
    try:
        with opener(fileobj=io.BytesIO(data)) as stream:
            yield stream
    except damage as error:
        raise GzipError(str(error)) from None


def peek(data: bytes, size: int) -> bytes:
    """Return up to `size` decompressed bytes from the start of `data`."""
    with _opened(data) as stream:
        return stream.read(size)


def decompress(data: bytes, at_least: int) -> bytes | memoryview:
    """Decompress a whole gzip stream, checksum included.

    Parameters
    ----------
    data : bytes
        The compressed file.
    at_least : int
        Size that the caller expects; a shorter result is an error.
    """
    if at_least > MAX_DEFLATE_RATIO * len(data):
        raise GzipError(f"{len(data)} bytes cannot hold the {at_least} that the header announces")
    announced = int.from_bytes(data[-4:], "little")
    if deflate is not None and announced == at_least:
        # Several members, padding, or damage: the streaming reader below tells which.
        with suppress(deflate.DeflateError, ValueError):
            whole = deflate.gzip_decompress(data)
            if len(whole) == at_least:
                return memoryview(whole).toreadonly()
    with _opened(data) as stream:
        head = stream.read(at_least)
        trailing = 0
        while chunk := stream.read(1 << 20):
            trailing += len(chunk)
            if trailing > _TRAILING_LIMIT:
                raise GzipError(f"{trailing} bytes follow the image")
    if len(head) < at_least:
        raise GzipError(f"it ends after {len(head)} of {at_least} bytes")
    return head


@dataclass(frozen=True)
class Slab:
    """A piece of a stream, compressed by itself.

    Parameters
    ----------
    packed : bytes
        Raw deflate blocks, none of them the last, up to a byte's border.
    crc : int
        CRC-32 of the content.
    size : int
        Bytes of the content.
    """

    packed: bytes
    crc: int
    size: int


def pack(data: bytes | memoryview, level: int = DEFAULT_LEVEL, crc: int | None = None) -> Slab:
    """Compress a piece so that it can stand anywhere in a stream.

    Parameters
    ----------
    data : bytes or memoryview
        Contiguous.
    level : int
        1 (fastest) to 3, of igzip; zlib's 1, 3 and 6 stand in for them.
    crc : int, optional
        CRC-32 of `data`, where it is known.
    """
    if isal_zlib is not None:
        packer = isal_zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    else:
        packer = zlib.compressobj(_ZLIB_LEVELS[level], zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(data) + packer.flush(zlib.Z_FULL_FLUSH)
    return Slab(packed, crc32(data) if crc is None else crc, len(data))


def member(slabs: Iterable[Slab]) -> list[bytes]:
    """The parts of a gzip member that holds the content of `slabs` in turn, without a time stamp."""
    parts, crc, size = [_HEADER], 0, 0
    for slab in slabs:
        parts.append(slab.packed)
        crc = _combined(crc, slab.crc, slab.size)
        size += slab.size
    return [*parts, _LAST_BLOCK, struct.pack("<II", crc, size % (1 << 32))]


def crc32(data: bytes | memoryview) -> int:
    """CRC-32, as gzip has it."""
    return zlib.crc32(data) if isal_zlib is None else int(isal_zlib.crc32(data))


def adler32(data: bytes | memoryview) -> int:
    """Adler-32, as zlib has it."""
    return zlib.adler32(data) if isal_zlib is None else int(isal_zlib.adler32(data))


def _combined(first: int, second: int, size: int) -> int:
    """CRC-32 of two pieces joined, from theirs and the second one's size."""
    if isal_zlib is not None:
        return int(isal_zlib.crc32_combine(first, second, size))
    # A CRC is linear over exclusive or, but for its start: zeros carry the first one over the second piece.
    zeros = bytes(size)
    return zlib.crc32(zeros, first) ^ zlib.crc32(zeros) ^ second


def compress(data: bytes | memoryview, level: int = DEFAULT_LEVEL) -> bytes:
    """Compress without a time stamp, so that equal input gives equal output."""
    return b"".join(member([pack(data, level)]))
