"""Images made of others: on another grid, or joined in one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionsynth import nifti
from lesionsynth.errors import ImageError
from lesionsynth.nifti import Image, Stored, header_of, set_shape, volumes
from lesionsynth.slabs import Slabs, Stacked

_PLACE = (
    *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)
"""Header fields that say where a grid lies, beside shape, voxel size and unit."""
_ACQUIRED = ("dim_info", "slice_start", "slice_end", "slice_code", "slice_duration")
"""Header fields that say in which order the voxels of a grid were acquired."""


def on_grid_of(image: Image, raw: NDArray[np.generic], reference: Image) -> Image:
    """`image` resampled: other voxels of the same dtype and scaling, on the grid of `reference`.

    The header stays the image's own, but for all that says what its grid is.
    """
    header, place = header_of(image), header_of(reference)
    set_shape(header, reference.grid.shape, image.path)
    for name in _PLACE:
        header[name] = place[name]
    for name in _ACQUIRED:
        header[name] = 0
    header["pixdim"][:4] = place["pixdim"][:4]
    header["xyzt_units"] = int(header["xyzt_units"]) // 8 * 8 + int(place["xyzt_units"]) % 8
    rest = image.header_bytes[header.sizeof_hdr :]
    return replace(
        image,
        header_bytes=header.binaryblock + rest,
        raw=raw,
        grid=reference.grid,
        series_header=b"",
        series_count=1,
    )


def joined(images: Sequence[Image], voxels: Sequence[Slabs]) -> Stored:
    """What the file of some channels holds: a 4-D file has a volume for each, in their order.

    Parameters
    ----------
    images : sequence of Image
        On one grid. The header is that of the 4-D file they are from, byte for byte, if they are all of it;
        else it is made from the first one's.
    voxels : sequence of Slabs
        Their voxels, edited or not.

    Raises
    ------
    ImageError
        If the images have no common form that keeps every value.
    """
    first, count = images[0], len(images)
    if count == 1:
        return Stored(first.header_bytes, voxels[0])
    series = first.series_header
    if first.series_count == count and all(image.series_header == series for image in images):
        return Stored(series, Stacked(voxels))
    header = header_of(first)
    dtype = _common_dtype(images).newbyteorder(header.endianness)
    set_shape(header, (*first.grid.shape, count), first.path)
    header.set_data_dtype(dtype)
    header["pixdim"][4] = 1.0
    same = [
        slabs if image.raw.dtype == dtype else Slabs(slabs.volume(image.grid.shape).astype(dtype))
        for image, slabs in zip(images, voxels, strict=True)
    ]
    return Stored(header.binaryblock + first.header_bytes[header.sizeof_hdr :], Stacked(same))


def as_written(images: Sequence[Image], targets: Mapping[Path, Sequence[int]]) -> tuple[Image, ...]:
    """Images as they would be read again from files that hold so many channels each.

    Parameters
    ----------
    images : sequence of Image
        One a channel.
    targets : mapping of Path to sequence of int
        Numbers of the channels that each file holds.
    """
    found = [replace(image, series_header=b"", series_count=1) for image in images]
    for path, channels in targets.items():
        if len(channels) > 1:
            members = [images[number] for number in channels]
            content = nifti.content(Path("plain.nii"), joined(members, [image.slabs for image in members]))
            again = volumes(b"".join(content), len(channels), path)
            for number, image in zip(channels, again, strict=True):
                found[number] = image
    return tuple(found)


def _common_dtype(images: Sequence[Image]) -> np.dtype[Any]:
    """Type that holds the voxels of all images as they are."""
    dtypes = {image.raw.dtype for image in images}
    common = np.result_type(*dtypes)
    exact_bits = np.finfo(common).nmant + 1 if common.kind == "f" else 64
    lost = any(dtype.kind in "ui" and 8 * dtype.itemsize > exact_bits for dtype in dtypes)
    if lost or len({(image.slope, image.inter) for image in images}) > 1:
        forms = ", ".join(f"{i.raw.dtype.name} x {i.slope:g} + {i.inter:g}" for i in images)
        raise ImageError(
            f"the channels cannot be joined in one file: they are stored as {forms}.",
            file=images[0].path,
            remedy="Store them in one type and scaling, or choose an output.layout with a file a channel.",
        )
    return common
