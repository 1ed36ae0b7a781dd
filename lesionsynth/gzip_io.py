"""Fast, checked gzip: libdeflate and igzip where they are installed, zlib elsewhere.

A truncated or damaged stream is always an error, and no stream can make us allocate more than the
size the caller has derived from the file's header.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress

try:
    import deflate
except ImportError:
    deflate = None
try:
    from isal import igzip, igzip_lib
except ImportError:
    igzip = igzip_lib = None  # type: ignore[assignment]

MAX_DEFLATE_RATIO = 1032
"""No deflate stream can expand by more than this (RFC 1951)."""

_TRAILING_LIMIT = 1 << 26


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


def compress(data: bytes | memoryview) -> bytes:
    """Compress at level 1 without a time stamp, so that equal input gives equal output."""
    if igzip is not None:
        compressed: bytes = igzip.compress(data, compresslevel=1, mtime=0)
        return compressed
    return gzip.compress(data, compresslevel=1, mtime=0)
