"""Connected components of masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage

from lesionsynth.domain.grid import Box, bounding_box, grown

NEIGHBOURS_26 = np.ones((3, 3, 3), dtype=bool)
NEIGHBOURS_6 = ndimage.generate_binary_structure(3, 1)
_PLANES = np.indices((3, 3, 3)) == 1
"""Of each axis, the neighbours that do not lie along it."""


def components(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], list[Box]]:
    """Label the connected components (26-neighbourhood) of `mask`.

    Parameters
    ----------
    mask : ndarray, (i, j, k), bool

    Returns
    -------
    labels : ndarray, (i, j, k), int32
        0 outside, 1..n in the order (C, whatever the memory layout) of the components' first voxels.
    boxes : list of Box
        Bounding box of component 1..n.
    """
    labels = np.zeros(mask.shape, dtype=np.int32, order="F")
    places = np.flatnonzero(mask.ravel(order="F"))
    if not places.size:
        return labels, []
    boxes = _label(places, labels.ravel(order="F"), *mask.shape)
    return labels, [(slice(a, b), slice(c, d), slice(e, f)) for a, b, c, d, e, f in boxes.tolist()]


@njit(cache=True, nogil=True)
def _label(places, labels, n_i, n_j, n_k):  # type: ignore[no-untyped-def]
    """Number the components of the voxels `places` (ascending, Fortran order) in `labels`; their boxes.

    Union-find over the lesions' voxels alone: they are few, and passes over a whole volume are slow.
    """
    parent = np.arange(places.size)
    for p in range(places.size):
        labels[places[p]] = p + 1
        i, j, k = places[p] % n_i, places[p] // n_i % n_j, places[p] // (n_i * n_j)
        least = max(i - 1, 0)
        if i > 0 and labels[places[p] - 1]:  # it hangs together with all neighbours but those further on
            parent[p] = p - 1
            least = i + 1
        for c in range(max(k - 1, 0), k + 1):
            for b in range(max(j - 1, 0), min(j + 1 if c == k else j + 2, n_j)):
                row = n_i * (b + n_j * c)
                for a in range(least, min(i if row == places[p] - i else i + 2, n_i)):
                    if labels[row + a]:
                        first, second = _root(parent, labels[row + a] - 1), _root(parent, p)
                        parent[max(first, second)] = min(first, second)
    # Numbers follow the first voxel in C order, whatever the memory layout.
    firsts = np.full(places.size, n_i * n_j * n_k)
    for p in range(places.size):
        i, j, k = places[p] % n_i, places[p] // n_i % n_j, places[p] // (n_i * n_j)
        root = _root(parent, p)
        firsts[root] = min(firsts[root], (i * n_j + j) * n_k + k)
    roots = np.flatnonzero(parent == np.arange(places.size))
    roots = roots[np.argsort(firsts[roots])]
    number = np.zeros(places.size, dtype=np.int32)
    boxes = np.empty((roots.size, 6), dtype=np.int64)
    for n in range(roots.size):
        number[roots[n]] = n + 1
        boxes[n] = (n_i, 0, n_j, 0, n_k, 0)
    for p in range(places.size):
        n = number[_root(parent, p)]
        labels[places[p]] = n
        place = (places[p] % n_i, places[p] // n_i % n_j, places[p] // (n_i * n_j))
        for axis in range(3):
            boxes[n - 1, 2 * axis] = min(boxes[n - 1, 2 * axis], place[axis])
            boxes[n - 1, 2 * axis + 1] = max(boxes[n - 1, 2 * axis + 1], place[axis] + 1)
    return boxes


@njit(cache=True, nogil=True)
def _root(parent, voxel):  # type: ignore[no-untyped-def]
    """The least voxel that a voxel is known to hang together with."""
    while parent[voxel] != voxel:
        parent[voxel] = parent[parent[voxel]]
        voxel = parent[voxel]
    return voxel


def dilated(
    mask: NDArray[np.bool_], n_vox: int, spacing_mm: Sequence[float] = (1.0, 1.0, 1.0)
) -> NDArray[np.bool_]:
    """Grow `mask` by `n_vox` voxels, by faces and edges in turn (an octahedral ball).

    Along axes with longer edges it grows as far in mm as along the finest, to the nearest voxel, but by one
    at least: two voxels in the plane are not two slices of 6 mm.
    """
    result = mask.copy(order="K")
    box = bounding_box(mask)
    if box is not None:
        near = grown(box, (n_vox,) * mask.ndim, mask.shape)
        shares = [min(spacing_mm) / edge for edge in spacing_mm]
        for step in range(n_vox):
            structure = ndimage.generate_binary_structure(3, 1 + step % 2)
            for axis, share in enumerate(shares):
                if _reach_vox(step + 1, share) == _reach_vox(step, share):
                    structure &= _PLANES[axis]
            result[near] = ndimage.binary_dilation(result[near], structure)
    return result


def _reach_vox(n_vox: int, share: float) -> int:
    """How far `n_vox` voxels of the finest axis reach along one with edges 1 / `share` times as long."""
    return max(1, round(n_vox * share)) if n_vox else 0


def largest_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The biggest component of `mask`; all false where there is none."""
    labels, boxes = components(mask)
    if not boxes:
        return mask.copy()
    return np.asarray(labels == 1 + int(np.argmax(np.bincount(labels.ravel(order="K"))[1:])))
