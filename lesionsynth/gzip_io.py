"""Fast, checked gzip: libdeflate and igzip where they are installed, zlib elsewhere.

A truncated or damaged stream is always an error, and no stream can make us allocate more than the
size the caller has derived from the file's header.
"""

from __future__ import annotations

import gzip
import io
import zlib
from types import ModuleType

try:
    import deflate
except ImportError:  # pragma: no cover - exercised by tests that hide the package
    deflate = None

_igzip: ModuleType | None
try:
    from isal import igzip as _igzip
except ImportError:  # pragma: no cover
    _igzip = None

MAX_DEFLATE_RATIO = 1032
"""No deflate stream can expand by more than this (RFC 1951)."""

_TRAILING_LIMIT = 1 << 26


class GzipError(ValueError):
    """The stream is truncated, damaged, or does not hold what was announced."""


def engines() -> dict[str, str]:
    """Names of the libraries used to read and to write."""
    return {
        "read": "libdeflate" if deflate else "igzip" if _igzip else "zlib",
        "write": "igzip" if _igzip else "zlib",
    }


def peek(data: bytes, size: int) -> bytes:
    """Return up to `size` decompressed bytes from the start of `data`."""
    try:
        return zlib.decompressobj(31).decompress(data[: 64 * 1024], size)
    except zlib.error as error:
        raise GzipError(str(error)) from None


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
        try:
            return memoryview(deflate.gzip_decompress(data))
        except deflate.DeflateError:
            pass  # several members, padding, or damage: the streaming reader tells which
    opener = _igzip.IGzipFile if _igzip is not None else gzip.GzipFile
    try:
        with opener(fileobj=io.BytesIO(data)) as stream:
            head: bytes = stream.read(at_least)
            trailing = 0
            while chunk := stream.read(1 << 20):
                trailing += len(chunk)
                if trailing > _TRAILING_LIMIT:
                    raise GzipError(f"{trailing} bytes follow the image")
    except (EOFError, OSError, zlib.error, getattr(_igzip, "IsalError", OSError)) as error:
        raise GzipError(str(error)) from None
    if len(head) < at_least:
        raise GzipError(f"it ends after {len(head)} of {at_least} bytes")
    return head


def compress(data: bytes | memoryview) -> bytes:
    """Compress at level 1 without a time stamp, so that equal input gives equal output."""
    if _igzip is not None:
        compressed: bytes = _igzip.compress(data, compresslevel=1, mtime=0)
        return compressed
    return gzip.compress(data, compresslevel=1, mtime=0)
