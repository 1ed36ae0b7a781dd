"""NIfTI files whose header fields and raw voxels are exactly as a test wants them."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

OBLIQUE = np.array([[1.2, 0.3, 0.1, -40], [-0.2, 1.5, 0.4, 12], [0.1, -0.3, 2.8, 5], [0, 0, 0, 1.0]])
ROTATED = np.array([[0.0, -2, 0, 10], [1.5, 0, 0, -7], [0, 0, 3, 1], [0, 0, 0, 1]])
RAW = np.arange(-30, 30).reshape(5, 4, 3)


def save(
    path: Path,
    raw: NDArray[Any],
    affine: NDArray[np.float64] | None = ROTATED,
    *,
    version: int = 1,
    order: str = "<",
    scaling: tuple[float, float] = (1.0, 0.0),
    codes: tuple[int, int] = (1, 1),
    **fields: Any,
) -> Path:
    """Write an image with nibabel's header but our own bytes, so that raw voxels and fields are exact."""
    header = {1: nib.Nifti1Header, 2: nib.Nifti2Header}[version](endianness=order)
    header.set_data_shape(raw.shape)
    header.set_data_dtype(raw.dtype.newbyteorder(order))
    header.set_zooms([2.0, 1.5, 3.0, 1.0][: raw.ndim])
    qform, sform = codes
    if qform:
        header.set_qform(affine, code=qform, strip_shears=True)
    if sform:
        header.set_sform(affine, code=sform)
    header.set_xyzt_units("mm")
    header["scl_slope"], header["scl_inter"] = scaling
    header["magic"] = {1: b"n+1", 2: b"n+2\0\r\n\x1a\n"}[version]
    header["vox_offset"] = {1: 352, 2: 544}[version]
    for name, value in fields.items():
        header[name] = value
    data = header.binaryblock + bytes(4) + raw.astype(raw.dtype.newbyteorder(order)).tobytes(order="F")
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path


def as_dtype(code: str) -> NDArray[Any]:
    return (RAW if code[0] in "if" else RAW + 30).astype(code)
