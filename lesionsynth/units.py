"""Conversions between voxels, millimetres and millilitres."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MM3_PER_ML = 1000.0


def voxel_volume_mm3(spacing_mm: Sequence[float]) -> float:
    """Volume of one voxel in mm3."""
    return float(np.prod(np.asarray(spacing_mm, dtype=np.float64)))


def mm_to_vox(distance_mm: float, spacing_mm: Sequence[float]) -> tuple[int, ...]:
    """Whole voxels per axis that cover `distance_mm` (rounded up)."""
    return tuple(int(np.ceil(distance_mm / s - 1e-9)) for s in spacing_mm)
