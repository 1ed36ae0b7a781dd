"""The only reader and writer of images.

Voxels stay in their stored dtype and the header stays as the bytes it was: an output differs from
its host in the edited voxels and nowhere else.
"""

from __future__ import annotations

import io
import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from lesionsynth import gzip_io
from lesionsynth.digest import digest_bytes
from lesionsynth.domain.grid import Box, Grid
from lesionsynth.errors import ImageError, OutputError
from lesionsynth.slabs import Slabs, Stacked

FILE_ENDINGS = (".nii.gz", ".nii")
_KINDS = "uif"
_HEADER_CLASSES = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
_PEEK_BYTES = 1 << 12
_MM_CODES = (0, 2)
_XFORM_CODES = (0, 1, 2, 3, 4, 5)
_SPACINGS_MM = (1e-4, 1e4)
_LEAST_ANGLE = 1e-3
"""Volume of a voxel over that of a box with its edges; 1 where the axes are not sheared."""


def ending_of(path: Path | str) -> str:
    """Ending of an image file's name, .nii or .nii.gz; the latter for any other name."""
    return next((ending for ending in FILE_ENDINGS if str(path).endswith(ending)), FILE_ENDINGS[0])


@dataclass(frozen=True, eq=False)
class Image:
    """A 3-D NIfTI image as stored.

    Parameters
    ----------
    header_bytes : bytes
        Everything before the voxels: header, extensions, padding.
    raw : ndarray, (i, j, k)
        Voxels in the stored dtype and byte order.
    slope, inter : float
        ``value = raw * slope + inter``.
    grid : Grid
        Shape and affine.
    path : Path or None
        Where it was read from.
    source_hash : str
        blake2b of the file's bytes.
    missing_as : float or None
        Intensity that stands for voxels that are NaN or infinite, where there are any; `raw` keeps them.
    base : Image or None
        The image that this is an edited copy of; where both are equal, the copy is written without being
        compressed anew.
    series_header, series_count : bytes and int
        Of a volume that was read from a 4-D file: everything before the voxels there, and how many volumes
        it has; nothing and one elsewhere.
    """

    header_bytes: bytes
    raw: NDArray[np.generic]
    slope: float
    inter: float
    grid: Grid
    path: Path | None = None
    source_hash: str = ""
    missing_as: float | None = None
    base: Image | None = None
    series_header: bytes = b""
    series_count: int = 1

    def values(self, box: Box | None = None) -> NDArray[np.float32]:
        """Scaled intensities of `box` (or all) as a new float32 array."""
        return self.scaled(self.raw if box is None else self.raw[box])

    def sample(self, places: NDArray[np.int64]) -> NDArray[np.float32]:
        """Scaled intensities of some voxels, (n,) float32, by their indices in the order of the file."""
        return self.scaled(self.raw.reshape(-1, order="F")[places])

    def scaled(self, raw: NDArray[np.generic]) -> NDArray[np.float32]:
        """Intensities of voxels that are stored as this image's are."""
        if self.slope == 1.0 and self.inter == 0.0:
            values = raw.astype(np.float32)
        else:
            values = np.asarray(raw.astype(np.float64) * self.slope + self.inter, dtype=np.float32)
        if self.missing_as is not None:
            values[~np.isfinite(values)] = self.missing_as
        return values

    def encode(self, values: NDArray[np.float32]) -> tuple[NDArray[np.generic], int]:
        """Stored form of scaled intensities, and how many had to be clipped to the dtype's range."""
        scaled = (values.astype(np.float64) - self.inter) / self.slope
        dtype = self.raw.dtype
        if dtype.kind == "f":
            return scaled.astype(dtype), 0
        low, high = _limits(dtype)
        rounded = np.rint(scaled)
        # The largest 64-bit integers have no float64: the next lower one is the limit.
        top = float(high) if int(float(high)) == high else float(np.nextafter(float(high), 0.0))
        clipped = np.clip(rounded, low, top)
        return clipped.astype(dtype), int(np.count_nonzero(clipped != rounded))

    @property
    def step(self) -> float:
        """Difference of two neighbouring stored values; 0 where they are floating point."""
        return 0.0 if self.raw.dtype.kind == "f" else abs(self.slope)

    @cached_property
    def slabs(self) -> Slabs:
        """The voxels in pieces, of which those that equal the base's are shared with it."""
        return Slabs(self.raw, None if self.base is None else self.base.slabs)

    @property
    def stored(self) -> Stored:
        """What a file of it holds."""
        return Stored(self.header_bytes, self.slabs)

    @property
    def file_header(self) -> bytes:
        """Everything before the voxels in its file, a 4-D one or its own."""
        return self.series_header or self.header_bytes

    @property
    def voxel_hash(self) -> str:
        """See :attr:`lesionsynth.slabs.Slabs.digest`."""
        return self.slabs.digest

    def with_raw(self, raw: NDArray[np.generic]) -> Image:
        """The same image with other voxels."""
        return replace(self, raw=raw, path=None, source_hash="", base=self.base or self)


@dataclass(frozen=True)
class Stored:
    """What a file holds: the bytes before the voxels, and the voxels."""

    header_bytes: bytes
    slabs: Slabs | Stacked


def read(path: Path) -> Image:
    """Read a 3-D NIfTI-1 or NIfTI-2 file completely; raises what :func:`read_series` does."""
    return read_series(path, 1)[0]


def read_series(path: Path, count: int) -> tuple[Image, ...]:
    """Read a NIfTI-1 or NIfTI-2 file of `count` volumes completely: 3-D if it is one, else 4-D.

    Raises
    ------
    ImageError
        If the file is missing, truncated, damaged, not a single-file NIfTI of real numbers, or holds another
        number of volumes.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(
            f"cannot be read ({error.strerror or error}).", file=path, remedy="Check path and permissions."
        ) from None
    compressed = data[:2] == b"\x1f\x8b"
    try:
        head = gzip_io.peek(data, _PEEK_BYTES) if compressed else data[:_PEEK_BYTES]
        header = _parse(head, path)
        shape, dtype, offset = _layout(header, path, count)
        end = offset + count * math.prod(shape) * dtype.itemsize
        content = gzip_io.decompress(data, end) if compressed else memoryview(data)
    except gzip_io.GzipError as error:
        raise ImageError(
            f"the gzip stream is damaged or truncated: {error}.",
            file=path,
            remedy="Copy or download the file again.",
        ) from None
    if len(content) < end:
        raise ImageError(
            f"ends after {len(content)} bytes, {end} were expected.",
            file=path,
            remedy="Copy or download the file again.",
        )
    return volumes(content, count, path, digest_bytes(data))


def volumes(content: bytes | memoryview, count: int, path: Path, source_hash: str = "") -> tuple[Image, ...]:
    """The volumes of a NIfTI file, from its decompressed content, which must be whole."""
    header = _parse(bytes(content[:_PEEK_BYTES]), path)
    shape, dtype, offset = _layout(header, path, count)
    raw = np.frombuffer(content, dtype=dtype, count=count * math.prod(shape), offset=offset)
    slope, inter = _scaling(header, path)
    _require_float32(raw, slope, inter, path)
    whole = bytes(content[:offset])
    single = whole
    if count > 1:
        header = header.copy()
        set_shape(header, shape, path)
        single = header.binaryblock + whole[header.sizeof_hdr :]
    image = Image(
        header_bytes=single,
        raw=raw[: math.prod(shape)].reshape(shape, order="F"),
        slope=slope,
        inter=inter,
        grid=Grid(shape, _affine(header, path)),
        path=path,
        source_hash=source_hash,
        series_header=whole if count > 1 else b"",
        series_count=count,
    )
    whole_raw = raw.reshape((*shape, count), order="F")
    return tuple(replace(image, raw=whole_raw[..., number]) for number in range(count))


def peek(path: Path) -> tuple[tuple[int, int, int], np.dtype[np.generic]]:
    """Shape and stored dtype of an image, or of the volumes of a 4-D file, by its header alone.

    Raises
    ------
    ImageError
        As :func:`read`, as far as the header tells.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(16 * _PEEK_BYTES)
        head = gzip_io.peek(data, _PEEK_BYTES) if data[:2] == b"\x1f\x8b" else data[:_PEEK_BYTES]
    except (OSError, gzip_io.GzipError) as error:
        raise ImageError(f"its header cannot be read ({error}).", file=path) from None
    shape, dtype, _ = _layout(_parse(head, path), path, None)
    return shape, dtype


def _limits(dtype: np.dtype[Any]) -> tuple[int, int]:
    """Least and greatest value of an integer dtype."""
    limits = np.iinfo(dtype)
    return int(limits.min), int(limits.max)


def _parse(head: bytes, path: Path) -> nib.Nifti1Header:
    sizes = (int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big"))
    size = next((size for size in _HEADER_CLASSES if size in sizes), None)
    if size is None or len(head) < size:
        raise ImageError(
            "is not a NIfTI file.",
            file=path,
            remedy="Convert it if it is of another format; copy or fetch it again if it is empty or points "
            "to one (git-lfs, git-annex).",
        )
    try:
        return _HEADER_CLASSES[size](binaryblock=head[:size], check=False)
    except (HeaderDataError, ValueError) as error:
        raise ImageError(f"has a damaged NIfTI header: {error}.", file=path) from None


def header_of(image: Image) -> nib.Nifti1Header:
    """The header proper, as a copy to be changed."""
    return _parse(image.header_bytes[:_PEEK_BYTES], image.path or Path("image")).copy()


def _layout(
    header: nib.Nifti1Header, path: Path, count: int | None
) -> tuple[tuple[int, int, int], np.dtype[np.generic], int]:
    """Shape, dtype in the file's byte order, offset of the voxels; `count` is any if None."""
    if bytes(header["magic"])[:2] != b"n+":
        raise ImageError(
            "is not a single-file NIfTI (magic n+1 or n+2).", file=path, remedy="Convert it to .nii.gz."
        )
    n_dims, *dims = (int(d) for d in header["dim"])
    found = dims[3] if n_dims > 3 else 1
    if not 1 <= n_dims <= 7 or any(d < 1 for d in dims[:n_dims]) or any(d != 1 for d in dims[4:n_dims]):
        found = 0
    if found == 0 or count not in (None, found):
        several = count is not None and count > 1
        raise ImageError(
            f"has dimensions {dims[: max(0, min(n_dims, 7))]}, "
            f"{f'{count} volumes, one a channel, were' if several else 'one 3-D volume was'} expected.",
            file=path,
            remedy="Correct the list of channels."
            if several
            else "Split a 4-D file into one file a channel.",
        )
    shape = (*dims[:n_dims], 1, 1)[:3]
    code = int(header["datatype"])
    try:
        dtype = nib.nifti1.data_type_codes.dtype[code].newbyteorder(header.endianness)
    except KeyError:
        dtype = None
    if dtype is None or dtype.kind not in _KINDS or dtype.itemsize > 8:
        label = nib.nifti1.data_type_codes.label[code] if dtype is not None else code
        raise ImageError(
            f"has voxels of type {label}; integers and real floats up to 64 bits are supported.",
            file=path,
            remedy="Convert it, for example to float32.",
        )
    offset = float(header["vox_offset"])
    if not (offset.is_integer() and header.sizeof_hdr <= offset < 1 << 31):
        raise ImageError(f"has a damaged NIfTI header: vox_offset is {offset:g}.", file=path)
    return (shape[0], shape[1], shape[2]), dtype, int(offset)


def _scaling(header: nib.Nifti1Header, path: Path) -> tuple[float, float]:
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0.0 or np.isnan(slope):
        return 1.0, 0.0
    if not (np.isfinite(slope) and np.isfinite(inter)):
        raise ImageError(f"has scl_slope {slope} and scl_inter {inter}.", file=path, remedy="Rewrite it.")
    return slope, inter


def _require_float32(raw: NDArray[np.generic], slope: float, inter: float, path: Path) -> None:
    """Refuse intensities beyond a 32-bit float, which they are computed in."""
    if raw.dtype.kind != "f":
        largest = float(max(abs(limit) for limit in _limits(raw.dtype)))
    elif raw.dtype.itemsize < 8 and (slope, inter) == (1.0, 0.0):
        return
    else:
        largest = float(np.fmax.reduce(np.abs(raw)))
        if np.isinf(largest):
            largest = float(np.abs(raw[np.isfinite(raw)]).max(initial=0))
    reached = largest * abs(slope) + abs(inter)  # Python's floats do not overflow aloud
    if reached > float(np.finfo(np.float32).max):
        raise ImageError(
            f"has intensities up to {reached:.3g}, which a 32-bit float cannot hold.",
            file=path,
            remedy="Rewrite it with other units or another scl_slope.",
        )


def _with_qfac(header: nib.Nifti1Header) -> nib.Nifti1Header:
    """The header with the sign of its third axis, where it leaves it out: NIfTI takes 0 for 1."""
    if header["pixdim"][0] == 0:
        header = header.copy()
        header["pixdim"][0] = 1
    return header


def _affine(header: nib.Nifti1Header, path: Path) -> NDArray[np.float64]:
    unit = int(header["xyzt_units"]) % 8
    if unit not in _MM_CODES:
        raise ImageError(
            f"gives lengths in {'metres' if unit == 1 else 'micrometres'}, millimetres were expected.",
            file=path,
            remedy="Rewrite it with xyzt_units mm.",
        )
    for name in ("qform_code", "sform_code"):
        if int(header[name]) not in _XFORM_CODES:
            raise ImageError(
                f"has {name} {int(header[name])}; NIfTI knows 0 to {max(_XFORM_CODES)}.",
                file=path,
                remedy="Repair its header.",
            )
    if int(header["sform_code"]) == 0 and (header["pixdim"][1:4] < 0).any():
        raise ImageError("has a voxel size below 0.", file=path, remedy="Repair its header.")
    try:
        with np.errstate(all="ignore"):
            affine = np.asarray(_with_qfac(header).get_best_affine(), dtype=np.float64)
    except (HeaderDataError, ValueError) as error:
        raise ImageError(f"has a damaged affine: {error}.", file=path) from None
    volume = abs(np.linalg.det(affine[:3, :3])) if np.isfinite(affine).all() else 0.0
    if not 1e-9 < volume < 1e9:
        raise ImageError(
            f"has an affine with a voxel volume of {volume:g} mm3.", file=path, remedy="Repair its header."
        )
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    if spacing_mm.min() < _SPACINGS_MM[0] or spacing_mm.max() > _SPACINGS_MM[1]:
        sizes = "x".join(f"{size:.3g}" for size in spacing_mm)
        raise ImageError(f"has voxels of {sizes} mm.", file=path, remedy="Repair its header.")
    if volume < _LEAST_ANGLE * spacing_mm.prod():
        raise ImageError("has axes that are almost parallel.", file=path, remedy="Repair its header.")
    return affine


def write(path: Path, image: Image, *, level: int = gzip_io.DEFAULT_LEVEL, sync: bool = True) -> None:
    """Write `image` so that `path` holds all of it or is not there at all; see :func:`content`."""
    write_bytes(path, *content(path, image.stored, level), sync=sync)


def content(path: Path, image: Stored, level: int = gzip_io.DEFAULT_LEVEL) -> Sequence[bytes | memoryview]:
    """What a file of `image` holds, in parts: header and voxels, compressed if `path` ends with .gz.

    Parameters
    ----------
    path : Path
    image : Stored
        Where its slabs equal their base, the base's compressed ones are used again. The bytes are the same as
        without a base.
    level : int
        Of the compression, see :func:`lesionsynth.gzip_io.pack`.
    """
    slabs = image.slabs
    if path.name.endswith(".gz"):
        packed = (slabs.packed(number, level) for number in range(len(slabs)))
        return gzip_io.member(chain([gzip_io.pack(image.header_bytes, level)], packed))
    return [image.header_bytes, *slabs.pieces]


def write_bytes(path: Path, *parts: bytes | memoryview, sync: bool = True) -> None:
    """Write a file, part by part, by way of a temporary one beside it and a rename."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.writelines(parts)
                stream.flush()
                if sync:
                    os.fsync(stream.fileno())
            os.chmod(temporary, 0o666 & ~_UMASK)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OutputError(
            f"cannot be written ({error.strerror or error}).",
            file=path,
            remedy="Check free space and permissions, then run the same command again.",
        ) from None


def _read_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_UMASK = _read_umask()


def as_label(image: Image, raw: NDArray[np.integer]) -> Image:
    """Label map with the geometry of `image`.

    An integer map without scaling keeps its dtype and every byte of its header; any other becomes the
    smallest unsigned integer type with the scaling reset.
    """
    stored = image.raw.dtype
    plain = stored.kind in "ui" and image.slope == 1.0 and image.inter == 0.0
    if plain and int(raw.max(initial=0)) <= _limits(stored)[1]:
        return image.with_raw(raw.astype(image.raw.dtype))
    return like(image, raw.astype(np.uint8 if int(raw.max(initial=0)) < 256 else np.uint16))


def like(image: Image, raw: NDArray[np.generic]) -> Image:
    """An image of another dtype with the geometry, extensions and description of `image`."""
    header = header_of(image)
    header.set_data_dtype(raw.dtype)
    for name, value in (("scl_slope", 1.0), ("scl_inter", 0.0), ("cal_min", 0.0), ("cal_max", 0.0)):
        header[name] = value
    rest = image.header_bytes[header.sizeof_hdr :]
    stored = raw.astype(raw.dtype.newbyteorder(header.endianness))
    return Image(header.binaryblock + rest, stored, 1.0, 0.0, image.grid)


def set_shape(header: nib.Nifti1Header, shape: Sequence[int], path: Path | None) -> None:
    """Make a header that of a volume, or of a series of volumes, of another shape.

    Raises
    ------
    ImageError
        If that kind of header cannot hold it.
    """
    try:
        header.set_data_shape(shape)
    except HeaderDataError:
        raise ImageError(
            f"has a header that cannot hold {'x'.join(map(str, shape))} voxels.",
            file=path,
            remedy="Use NIfTI-2.",
        ) from None


def new(grid: Grid, raw: NDArray[np.generic]) -> Image:
    """A NIfTI-1 image made from scratch."""
    header = nib.Nifti1Header()
    header.set_data_shape(grid.shape)
    header.set_data_dtype(raw.dtype)
    header.set_sform(grid.affine, code=2)
    header.set_qform(grid.affine, code=2, strip_shears=True)
    header.set_xyzt_units("mm")
    header["scl_slope"], header["scl_inter"] = 1.0, 0.0
    header["vox_offset"], header["magic"] = 352, b"n+1"
    buffer = io.BytesIO()
    header.write_to(buffer)
    return Image(buffer.getvalue().ljust(352, b"\0"), raw, 1.0, 0.0, grid)


def affine_conflict(image: Image) -> str | None:
    """What is wrong where qform and sform are both set and disagree, or None."""
    header = header_of(image)
    if int(header["qform_code"]) <= 0 or int(header["sform_code"]) <= 0:
        return None
    try:
        other = np.asarray(_with_qfac(header).get_qform(), dtype=np.float64)
    except (HeaderDataError, ValueError) as error:
        return f"the qform is damaged ({error}); the sform is used."
    shift_mm = np.abs(Grid(image.grid.shape, other).corners_mm() - image.grid.corners_mm()).max()
    if shift_mm <= 0.1 * min(image.grid.spacing_mm):
        return None
    return f"qform and sform disagree by up to {shift_mm:.3g} mm; the sform is used."
