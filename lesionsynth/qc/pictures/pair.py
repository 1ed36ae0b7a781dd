"""A host and a copy of it, side by side in memory, and the places where lesions came or went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from lesionsynth import nifti
from lesionsynth.domain.grid import Box, Grid, bounding_box, grown, shape_of
from lesionsynth.editing.canvas import inserted
from lesionsynth.host import LoadedCase
from lesionsynth.kernels.components import components
from lesionsynth.kernels.tissue import OUTSIDE
from lesionsynth.run.ledger import draws_of
from lesionsynth.units import mm_to_vox

if TYPE_CHECKING:
    from lesionsynth.run.formats import Record

_DARK, _BRIGHT = 0.5, 99.5
"""Percentiles of the tissue between which grey values run."""
_MOST_VOXELS = 20_000
"""Voxels that intensities are looked up in; more would change nothing."""
_MARGIN_MM = 6.0
"""Around the body, in pictures of all of it."""


@dataclass(frozen=True, eq=False)
class Edits:
    """What became of the lesions of a host in a copy of it.

    Parameters
    ----------
    grid : Grid
    host_lesion, lesion : ndarray, (i, j, k), bool
        Lesions of the host and of the copy.
    gone : ndarray, (i, j, k), bool
        Those of the host that were removed; others may lie there now.
    inside : ndarray, (i, j, k), bool
        Tissue of the host, of any kind.
    source : ndarray, (i, j, k), uint16, or None
        Source map (:mod:`lesionsynth.editing.canvas`), where it is known.
    """

    grid: Grid
    host_lesion: NDArray[np.bool_]
    lesion: NDArray[np.bool_]
    gone: NDArray[np.bool_]
    inside: NDArray[np.bool_]
    source: NDArray[np.uint16] | None = None

    @classmethod
    def of(
        cls,
        host: LoadedCase,
        label: NDArray[np.unsignedinteger],
        record: Record | None,
        source: NDArray[np.uint16] | None = None,
    ) -> Edits:
        """From the host, and label map and record of the copy; without a record none was removed."""
        lesion = np.isin(label, host.labels.lesion)
        removed = [] if record is None else [draw["lesion"] for draw in draws_of(record, "remove")]
        # The host's lesions are 1 to n in the order of their first voxels, added ones follow.
        gone = np.isin(host.lesions[0], removed) & host.lesion_mask
        return cls(host.grid, host.lesion_mask, lesion, gone, host.tissue != OUTSIDE, source)

    @cached_property
    def added(self) -> NDArray[np.bool_]:
        """Lesion voxels that are not the host's; also those put over a lesion of it, as far as is known."""
        new = ~self.host_lesion | self.gone
        if self.source is not None:
            new |= inserted(self.source)
        return self.lesion & new

    @cached_property
    def kept(self) -> NDArray[np.bool_]:
        """Lesion voxels of the host that still are."""
        return self.lesion & ~self.added

    @cached_property
    def removed(self) -> NDArray[np.bool_]:
        """Lesion voxels of the host that are none any more, or belong to another lesion."""
        return self.host_lesion & (self.gone | ~self.lesion)

    @cached_property
    def body(self) -> Box:
        """Box around the tissue, with a margin; the whole volume where there is none."""
        box = bounding_box(self.inside | self.lesion)
        if box is None:
            i, j, k = (slice(0, n) for n in self.grid.shape)
            return (i, j, k)
        return grown(box, mm_to_vox(_MARGIN_MM, self.grid.spacing_mm), self.grid.shape)

    @cached_property
    def samples(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Voxels, in the order of the file, from which grey values are found: of tissue, and of lesions."""
        return _sample(self.inside), _sample(self.host_lesion | self.lesion)


@dataclass(frozen=True, eq=False)
class Pair:
    """One channel of a host and of a copy of it.

    Parameters
    ----------
    edits : Edits
    channel : str
        Its name.
    image : nifti.Image
        The host's.
    copy : ndarray, (i, j, k)
        Voxels of the copy as stored, with the host's scaling.
    window : tuple of float
        Intensities shown as black and as white: those of the host's tissue, and of the lesions.
    """

    edits: Edits
    channel: str
    image: nifti.Image
    copy: NDArray[np.generic]
    window: tuple[float, float]

    @property
    def grid(self) -> Grid:
        """Of both."""
        return self.edits.grid


def pair_of(host: LoadedCase, edits: Edits, channel: int, name: str, copy: NDArray[np.generic]) -> Pair:
    """A :class:`Pair` of channel number `channel`, called `name`; `copy` are its voxels as stored."""
    image = host.images[channel]
    return Pair(edits, name, image, copy, _window(image, copy, edits))


def _window(image: nifti.Image, copy: NDArray[np.generic], edits: Edits) -> tuple[float, float]:
    tissue, lesions = edits.samples
    found = []
    for raw, places in ((image.raw, tissue), (image.raw, lesions), (copy, lesions)):
        values = image.scaled(raw.reshape(-1, order="F")[places])
        values = values[np.isfinite(values)]
        if values.size:
            found.append(np.percentile(values, (_DARK, _BRIGHT)))
    if not found:
        return 0.0, 1.0
    low, high = min(float(f[0]) for f in found), max(float(f[1]) for f in found)
    return low, high if high > low else low + 1.0


@dataclass(frozen=True)
class Place:
    """Where a lesion was added or removed.

    Parameters
    ----------
    edit : str
    centre_vox : tuple of int
        A voxel of it, the one nearest its centre.
    extent_mm : float
        Longest edge of its box.
    volume_mm3 : float
    """

    edit: Literal["added", "removed"]
    centre_vox: tuple[int, int, int]
    extent_mm: float
    volume_mm3: float


def places(edits: Edits, most: int) -> list[Place]:
    """Places of up to `most` edited lesions, added and removed ones in turn, the largest first.

    What another lesion has cut off one of the host is a place only where there is no other.
    """
    added = _places_of(edits.added, "added", edits.grid)
    removed = _places_of(edits.gone, "removed", edits.grid)
    if not added and not removed:
        removed = _places_of(edits.removed, "removed", edits.grid)
    found: list[Place] = []
    while len(found) < most and (added or removed):
        found += added[:1] + removed[:1]
        added, removed = added[1:], removed[1:]
    return found[:most]


def _places_of(mask: NDArray[np.bool_], edit: Literal["added", "removed"], grid: Grid) -> list[Place]:
    numbers, boxes = components(mask)
    found = []
    for number, box in enumerate(boxes, start=1):
        at = np.argwhere(numbers[box] == number)
        i, j, k = at[np.argmin(((at - at.mean(axis=0)) ** 2).sum(axis=1))] + [b.start for b in box]
        extent = max(n * s for n, s in zip(shape_of(box), grid.spacing_mm, strict=True))
        volume = len(at) * grid.voxel_volume_mm3
        found.append(Place(edit, (int(i), int(j), int(k)), float(extent), float(volume)))
    return sorted(found, key=lambda place: (-place.volume_mm3, place.centre_vox))


def lead_channel(host: LoadedCase, edits: Edits, copies: Sequence[NDArray[np.generic]]) -> int:
    """The channel in which lesions stand out most from all else in the body; the first where there are none.

    Those of the copy (`copies`: its channels as stored), or where it has none those of the host. Fluid counts
    too: where it is as bright as lesions, these are harder to see.
    """
    mask, stored = edits.lesion, copies
    if not mask.any():
        mask, stored = edits.host_lesion, [image.raw for image in host.images]
    lesions, others = _sample(mask), _sample(edits.inside & ~mask)
    if not lesions.size or not others.size:
        return 0
    areas = []
    for image, raw in zip(host.images, stored, strict=True):
        flat = raw.reshape(-1, order="F")
        areas.append(_told_apart(image.scaled(flat[lesions]), image.scaled(flat[others])))
    return int(np.argmax(areas))


def _told_apart(some: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    """How surely two samples are told apart by a threshold: 0.5 not at all (the area under the curve), 1."""
    others = np.sort(others)
    below = np.searchsorted(others, some, "left") + np.searchsorted(others, some, "right")
    area = float(below.mean()) / (2 * others.size)
    return max(area, 1 - area)


def _sample(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Voxels of a mask in the order of the file, evenly chosen where there are very many."""
    places = np.flatnonzero(mask.ravel(order="F"))
    return places[:: max(1, places.size // _MOST_VOXELS)]


def channel_number(names: Sequence[str], name: str) -> int | None:
    """Number of the channel called `name`, whatever the case of its letters; None where there is none."""
    lowered = [n.lower() for n in names]
    return lowered.index(name.lower()) if name.lower() in lowered else None
