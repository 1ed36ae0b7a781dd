"""Connected components of masks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lesionsynth.domain.grid import Box, bounding_box, grown, origin_of, shifted

NEIGHBOURS_26 = np.ones((3, 3, 3), dtype=bool)
NEIGHBOURS_6 = ndimage.generate_binary_structure(3, 1)


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
    labels = np.zeros(mask.shape, dtype=np.int32)
    box = bounding_box(mask)
    if box is None:
        return labels, []
    inner, _ = ndimage.label(mask[box], structure=NEIGHBOURS_26)
    labels[box] = inner
    origin = origin_of(box)
    return labels, [shifted(b, origin) for b in ndimage.find_objects(inner)]


def dilated(mask: NDArray[np.bool_], n_vox: int) -> NDArray[np.bool_]:
    """Grow `mask` by `n_vox` voxels, by faces and edges in turn (an octahedral ball)."""
    result = mask.copy(order="K")
    box = bounding_box(mask)
    if box is not None:
        near = grown(box, (n_vox,) * mask.ndim, mask.shape)
        for step in range(n_vox):
            structure = ndimage.generate_binary_structure(3, 1 + step % 2)
            result[near] = ndimage.binary_dilation(result[near], structure)
    return result


def largest_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The biggest component of `mask`; all false where there is none."""
    labels, boxes = components(mask)
    if not boxes:
        return mask.copy()
    return np.asarray(labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:])))
