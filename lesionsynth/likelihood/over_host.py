"""Lay a likelihood map over a host: its density times the host's tissue."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lesionsynth.domain.grid import Grid, bounding_box
from lesionsynth.domain.likelihood import LikelihoodMap
from lesionsynth.errors import NoRoomError
from lesionsynth.host import LoadedCase
from lesionsynth.kernels.tissue import OUTSIDE, WHITE
from lesionsynth.likelihood.fit import ORGAN_BINS, box_coordinates


class CentreDensity:
    """Density of lesion centres over one host, worked out when it is first drawn from.

    Parameters
    ----------
    host : LoadedCase
    likelihood : callable, optional
        Gives the map; without it all tissue is alike.
    floor, registration
        See :func:`density_over`.
    """

    def __init__(
        self,
        host: LoadedCase,
        likelihood: Callable[[], LikelihoodMap] | None = None,
        floor: float = 0.0,
        registration: NDArray[np.float64] | None = None,
    ) -> None:
        self._host, self._likelihood = host, likelihood
        self._floor, self._registration = floor, registration

    @cached_property
    def _cumulated(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        likelihood = None if self._likelihood is None else self._likelihood()
        return density_over(self._host, likelihood, self._floor, self._registration)

    def draw(self, rng: np.random.Generator, n: int) -> NDArray[np.int64]:
        """Draw `n` centres, (n, 3) in voxels.

        Raises
        ------
        NoRoomError
            If the host has no tissue that could hold a lesion.
        """
        voxels, cumulated = self._cumulated
        picks = np.searchsorted(cumulated, rng.random(n))
        chosen = voxels[np.minimum(picks, voxels.size - 1)]
        return np.stack(np.unravel_index(chosen, self._host.grid.shape, order="F"), axis=1)


def density_over(
    host: LoadedCase, likelihood: LikelihoodMap | None, floor: float, registration: NDArray[np.float64] | None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Voxels of the host that may be a lesion's centre, and their cumulated probability.

    Parameters
    ----------
    host : LoadedCase
    likelihood : LikelihoodMap or None
        None: all tissue is alike.
    floor : float
        Share of the density that is spread evenly.
    registration : ndarray, (4, 4), or None
        From the map's millimetres to the host's, for kind affine.

    Returns
    -------
    voxels : ndarray, (N,), int64
        Flat indices (Fortran order, that of the file) of the host's tissue without protected voxels.
    cumulated : ndarray, (N,), float64
        Cumulated density, ending at 1.

    Raises
    ------
    NoRoomError
        If the host has no tissue that could hold a lesion.
    """
    room = host.tissue == WHITE
    if host.untouchable.any():
        room &= ~host.untouchable
    voxels = np.flatnonzero(room.ravel(order="F"))
    if voxels.size == 0:
        raise NoRoomError(
            "has no tissue that could hold a lesion.",
            case=host.files.case,
            remedy="Look at its tissue map under bank/tissue and give `tissue.map` or `tissue.brain_mask`.",
        )
    even = np.arange(1, voxels.size + 1) / voxels.size
    if likelihood is None:
        return voxels, even
    density = np.maximum(_sampled(host, likelihood, room, voxels, registration), 0.0)
    # In float64: a million voxels cumulated in float32 would lose the unlikely ones.
    cumulated = np.cumsum(density, dtype=np.float64)
    if not cumulated[-1] > 0:
        return voxels, even
    cumulated *= (1.0 - floor) / cumulated[-1]
    if floor:
        cumulated += floor * even
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
        return likelihood.density.ravel(order="F")[voxels]
    index = np.stack(np.unravel_index(voxels, room.shape, order="F"), axis=1)
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
