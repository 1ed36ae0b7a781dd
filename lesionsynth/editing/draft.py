"""A volume under edit, of which only what is asked for is copied."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionsynth.domain.grid import Box
from lesionsynth.slabs import SLAB_VOX, Slabs, stored_bytes


class Draft:
    """A copy of a volume, made slab by slab where a box is first read or written.

    Lesions touch a small part of a host; to copy and compare the rest takes longer than to make them.

    Parameters
    ----------
    original : ndarray, (i, j, k)
        Is never changed.
    volume : ndarray, (i, j, k)
        Memory of the same shape and dtype in Fortran order, whatever it holds.
    """

    def __init__(self, original: NDArray[Any], volume: NDArray[Any]) -> None:
        self.volume = volume
        self._bytes, self._original_bytes = stored_bytes(volume), stored_bytes(original)
        n_slabs = -(-volume.size // SLAB_VOX)
        self._made = np.zeros(n_slabs, dtype=bool)
        self._written = np.zeros(n_slabs, dtype=bool)

    def read(self, box: Box) -> NDArray[Any]:
        """What `box` holds now: a view that cannot be written to."""
        self._make(self._slabs_of(box))
        view = self.volume[box]
        view.flags.writeable = False
        return view

    def write(self, box: Box) -> NDArray[Any]:
        """A view of `box` to be written to at once."""
        slabs = self._slabs_of(box)
        self._make(slabs)
        self._written[slabs] = True
        return self.volume[box]

    def whole(self) -> NDArray[Any]:
        """All of it, a view that cannot be written to."""
        return self.read((slice(None), slice(None), slice(None)))

    def reset(self) -> None:
        """Make it the original again."""
        for number in np.flatnonzero(self._written).tolist():
            self._copy(number, number + 1)
        self._written[:] = False

    def slabs(self, base: Slabs) -> Slabs:
        """What a file will hold, as long as nothing more is written; `base` are the original's."""
        return Slabs(self.volume, base, self._written)

    def _slabs_of(self, box: Box) -> slice:
        """Slabs that the slices of a box touch."""
        n_slices = self.volume.shape[2]
        slice_vox = self.volume.size // n_slices
        first, last, _ = box[2].indices(n_slices)
        return slice(first * slice_vox // SLAB_VOX, -(-last * slice_vox // SLAB_VOX))

    def _make(self, slabs: slice) -> None:
        missing = slabs.start + np.flatnonzero(~self._made[slabs])
        for run in np.split(missing, np.flatnonzero(np.diff(missing) > 1) + 1):
            if run.size:
                self._copy(int(run[0]), int(run[-1]) + 1)
        self._made[slabs] = True

    def _copy(self, first: int, last: int) -> None:
        size = SLAB_VOX * self.volume.itemsize
        self._bytes[first * size : last * size] = self._original_bytes[first * size : last * size]
