"""Voxels as pieces of a file, so that what two copies of an image share is worked on once."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from lesionsynth import gzip_io
from lesionsynth.digest import digest_bytes

SLAB_VOX = 1 << 16
"""Small, so that an edit touches few bytes beside its own; smaller ones take longer to pack."""


class Slabs:
    """The stored bytes of voxels in pieces, each compared, summed and compressed at most once.

    Parameters
    ----------
    raw : ndarray, (i, j, k)
        Must not change as long as this is used.
    base : Slabs or None
        Of an image that most of these equal: what was done for its pieces is used again.
    edited : ndarray, (n,), bool, or None
        Pieces that may differ from the base's. The others are not looked at, whatever `raw` holds there.
    """

    def __init__(
        self,
        raw: NDArray[np.generic],
        base: Slabs | None = None,
        edited: NDArray[np.bool_] | None = None,
    ) -> None:
        self._dtype, self._what = raw.dtype, f"{raw.dtype.str}{raw.shape}"
        self._content = stored_bytes(raw)
        self._size = SLAB_VOX * raw.itemsize
        self._base = base if base is not None and base._what == self._what else None
        self._shared: dict[int, bool] = {}
        if edited is not None:
            self._shared.update(dict.fromkeys(np.flatnonzero(~edited).tolist(), True))
        self._empty: dict[int, bool] = {}
        self._sums: dict[int, tuple[int, int]] = {}
        self._packed: dict[tuple[int, int], gzip_io.Slab] = {}

    def __len__(self) -> int:
        return -(-self._content.size // self._size)

    @property
    def pieces(self) -> Iterator[memoryview]:
        """The stored bytes."""
        return (self._owner(number)._piece(number).data for number in range(len(self)))

    def volume(self, shape: tuple[int, int, int]) -> NDArray[np.generic]:
        """The voxels, (i, j, k), as a copy."""
        return np.frombuffer(b"".join(self.pieces), self._dtype).reshape(shape, order="F")

    def _piece(self, number: int) -> NDArray[np.uint8]:
        return self._content[number * self._size : (number + 1) * self._size]

    def _owner(self, number: int) -> Slabs:
        """The base where a piece equals the base's, itself elsewhere."""
        if self._base is None:
            return self
        if number not in self._shared:
            self._shared[number] = _same(self._piece(number), self._base._piece(number))
        return self._base if self._shared[number] else self

    def _is_empty(self, number: int) -> bool:
        """Whether a piece holds zeros only, as half of a stripped brain's file does."""
        if number not in self._empty:
            piece = self._piece(number)
            self._empty[number] = not piece[0] and not piece.any()
        return self._empty[number]

    @property
    def all_finite(self) -> bool:
        """Whether no voxel is NaN or infinite."""
        return all(
            self._is_empty(number) or bool(np.isfinite(self._piece(number).view(self._dtype)).all())
            for number in range(len(self))
        )

    def sums(self, number: int) -> tuple[int, int]:
        """CRC-32 and Adler-32 of a piece."""
        owner = self._owner(number)
        if number not in owner._sums:
            piece = owner._piece(number)
            empty = owner._is_empty(number)
            owner._sums[number] = _empty_sums(piece.size) if empty else _sums(piece.data)
        return owner._sums[number]

    def packed(self, number: int, level: int) -> gzip_io.Slab:
        """A piece compressed, with the CRC-32."""
        owner = self._owner(number)
        if (number, level) not in owner._packed:
            crc = owner._sums[number][0] if number in owner._sums else None
            piece, empty = owner._piece(number), owner._is_empty(number)
            slab = _empty_slab(piece.size, level) if empty else gzip_io.pack(piece.data, level, crc)
            owner._packed[number, level] = slab
        return owner._packed[number, level]

    @property
    def digest(self) -> str:
        """Digest of voxels, dtype and shape: what "equal output" is judged by.

        blake2b over the CRC-32 and Adler-32 of each 65,536 voxels. That tells accidents apart, not forgeries,
        and takes a tenth of the time of compressing the voxels, where blake2b over them all takes twice that.
        """
        sums = [struct.pack("<II", *self.sums(number)) for number in range(len(self))]
        return digest_bytes(self._what.encode(), *sums)


@lru_cache(maxsize=64)
def _empty_slab(size: int, level: int) -> gzip_io.Slab:
    """Zeros, compressed."""
    return gzip_io.pack(bytes(size), level)


def _sums(data: bytes | memoryview) -> tuple[int, int]:
    return gzip_io.crc32(data), gzip_io.adler32(data)


@lru_cache(maxsize=64)
def _empty_sums(size: int) -> tuple[int, int]:
    """CRC-32 and Adler-32 of zeros."""
    return _sums(bytes(size))


class Stacked:
    """Slabs of the volumes that a file holds one after the other.

    Parameters
    ----------
    volumes : sequence of Slabs
    """

    def __init__(self, volumes: Sequence[Slabs]) -> None:
        self._volumes = tuple(volumes)
        self._places = [(volume, number) for volume in volumes for number in range(len(volume))]

    def __len__(self) -> int:
        return len(self._places)

    @property
    def pieces(self) -> Iterator[memoryview]:
        """The stored bytes."""
        return chain.from_iterable(volume.pieces for volume in self._volumes)

    def packed(self, number: int, level: int) -> gzip_io.Slab:
        """A piece compressed, with the CRC-32."""
        volume, own_number = self._places[number]
        return volume.packed(own_number, level)

    @property
    def digest(self) -> str:
        """Digest of the volumes' digests."""
        return digest_bytes(*(volume.digest.encode() for volume in self._volumes))


def stored_bytes(raw: NDArray[np.generic]) -> NDArray[np.uint8]:
    """The bytes of voxels in the order of the file; no copy if they lie so already."""
    return np.ascontiguousarray(raw.T).reshape(-1).view(np.uint8)


def _same(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    """Whether bytes are equal; eight at a time where they go by eights, which takes half the time."""
    width = "u8" if one.size % 8 == 0 else "u1"
    return bool((one.view(width) == other.view(width)).all())
