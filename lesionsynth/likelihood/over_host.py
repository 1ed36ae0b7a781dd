"""Lay a likelihood map over a host: its density times the host's tissue."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lesionsynth.domain.grid import Grid, bounding_box
from lesionsynth.domain.likelihood import LikelihoodMap
from lesionsynth.errors import NoRoomError
from lesionsynth.host import LoadedCase
from lesionsynth.kernels.tissue import OUTSIDE, WHITE
from lesionsynth.likelihood.fit import ORGAN_BINS, box_coordinates


def density_over(
    host: LoadedCase, likelihood: LikelihoodMap, floor: float, registration: NDArray[np.float64] | None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Voxels of the host that may be a lesion's centre, and their cumulated probability.

    Parameters
    ----------
    host : LoadedCase
    likelihood : LikelihoodMap
    floor : float
        Share of the density that is spread evenly.
    registration : ndarray, (4, 4), or None
        From the map's millimetres to the host's, for kind affine.

    Returns
    -------
    voxels : ndarray, (N,), int64
        Flat indices (C order) of the host's tissue without protected voxels.
    cumulated : ndarray, (N,), float64
        Cumulated density, ending at 1.

    Raises
    ------
    NoRoomError
        If the host has no tissue that could hold a lesion.
    """
    room = (host.tissue == WHITE) & ~host.untouchable
    voxels = np.flatnonzero(room)
    if voxels.size == 0:
        raise NoRoomError(
            "has no tissue that could hold a lesion.",
            case=host.files.case,
            remedy="Look at its tissue map under bank/tissue and give `tissue.map` or `tissue.brain_mask`.",
        )
    # In float64: a million voxels cumulated in float32 would lose the unlikely ones.
    density = np.maximum(_sampled(host, likelihood, room, voxels, registration).astype(np.float64), 0.0)
    total = density.sum()
    density = density / total if total > 0 else np.full(voxels.size, 1.0 / voxels.size)
    cumulated = np.cumsum((1.0 - floor) * density + floor / voxels.size)
    return voxels, cumulated / cumulated[-1]


def _sampled(
    host: LoadedCase,
    likelihood: LikelihoodMap,
    room: NDArray[np.bool_],
    voxels: NDArray[np.int64],
    registration: NDArray[np.float64] | None,
) -> NDArray[np.floating]:
    """Density of the map at `voxels`, not normalised."""
    if registration is None and host.grid.same_as(likelihood.grid) and likelihood.kind in ("grid", "map"):
        return likelihood.density.reshape(-1)[voxels]
    index = np.stack(np.unravel_index(voxels, room.shape), axis=1)
    if likelihood.kind == "organ":
        box = bounding_box(host.tissue != OUTSIDE)
        if box is None:
            return np.ones(voxels.size)
        where = box_coordinates(index, host.grid, box) * ORGAN_BINS - 0.5
        return np.asarray(ndimage.map_coordinates(likelihood.density, where.T, order=1, mode="nearest"))
    to_map = _to_map(host.grid, likelihood, registration)
    where = index @ to_map[:3, :3].T + to_map[:3, 3]
    return np.asarray(ndimage.map_coordinates(likelihood.density, where.T, order=1, mode="constant"))


def _to_map(
    grid: Grid, likelihood: LikelihoodMap, registration: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """Matrix from the host's voxels to the map's voxels."""
    world = grid.affine if registration is None else np.linalg.inv(registration) @ grid.affine
    return np.asarray(np.linalg.inv(likelihood.grid.affine) @ world)
