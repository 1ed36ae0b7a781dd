"""A host under edit. Whatever is not written stays bit-equal to the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionsynth import nifti
from lesionsynth.backend import Device
from lesionsynth.domain.grid import Box, bounding_box, origin_of, shifted
from lesionsynth.editing.draft import Draft
from lesionsynth.host import LoadedCase
from lesionsynth.kernels.components import components
from lesionsynth.slabs import Slabs
from lesionsynth.units import MM3_PER_ML

HOST, INPAINTED, FIRST_DONOR = 0, 1, 2
"""Values of the source map: untouched, filled, and from there on the k-th inserted lesion."""

DISPLACED, TRANSLATED = 65535, 65534
"""Values of the source map where the host's own tissue was pushed aside, and where its image was painted."""


def inserted(source: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Voxels of a source map that came with a lesion."""
    return (source >= FIRST_DONOR) & (source < TRANSLATED)


@dataclass(frozen=True, eq=False)
class Saved:
    """What a canvas was like in a box (see :meth:`Canvas.save`)."""

    box: Box
    raw: list[NDArray[np.generic]]
    label: NDArray[np.unsignedinteger]
    source: NDArray[np.uint16]
    instances: NDArray[np.integer]
    boxes: dict[int, Box]
    lesion_vox: int
    clipped_vox: int


class Canvas:
    """One synthetic copy in the making.

    Parameters
    ----------
    host : LoadedCase
        Is never changed; several canvases share it.
    device : Device, optional
        Where kernels run; the CPU by default.
    spare : list of ndarray, optional
        Volumes of another canvas that is no longer needed. Those that fit are taken out and written over,
        since fresh memory of this size can cost more than all edits.
    """

    def __init__(
        self, host: LoadedCase, device: Device | None = None, spare: list[NDArray[Any]] | None = None
    ) -> None:
        self.host = host
        self.device = device or Device()
        self.grid = host.grid
        old = [] if spare is None else spare
        self._drafts = [Draft(image.raw, _memory(image.raw, old)) for image in host.images]
        self.label: NDArray[np.unsignedinteger] = _copied(host.label, old)
        self.instances: NDArray[np.integer] = _copied(host.lesions[0], old)
        self.source: NDArray[np.uint16] = _copied(np.broadcast_to(np.uint16(HOST), host.grid.shape), old)
        self._begin()

    def _begin(self) -> None:
        boxes = self.host.lesions[1]
        self.boxes: dict[int, Box] = dict(enumerate(boxes, start=1))
        self.clipped_vox = 0
        self._next_instance = len(boxes) + 1
        self._inserted = 0
        self._renumbered: list[Box] = []
        self._lesion_vox = round(self.host.load.ml * MM3_PER_ML / self.grid.voxel_volume_mm3)

    @property
    def volumes(self) -> list[NDArray[Any]]:
        """All that is as large as the host, for another canvas."""
        return [*(draft.volume for draft in self._drafts), self.label, self.instances, self.source]

    @property
    def raw(self) -> list[NDArray[np.generic]]:
        """All voxels of the channels as stored, not to be written to."""
        return [draft.whole() for draft in self._drafts]

    def reset(self) -> None:
        """Make it the host again, at the cost of the slices that were edited: new volumes cost more."""
        edited = self._edited
        for draft in self._drafts:
            draft.reset()
        self.label[..., edited] = self.host.label[..., edited]
        self.instances[..., edited] = self.host.lesions[0][..., edited]
        for box in self._renumbered:  # what is left of a lesion that was cut may reach into other slices
            self.instances[box] = self.host.lesions[0][box]
        self.source[..., edited] = HOST
        self._begin()

    @property
    def _edited(self) -> NDArray[np.intp]:
        """Slices that hold an edited voxel."""
        return np.flatnonzero(self.source.any(axis=(0, 1)))

    @property
    def case(self) -> str:
        """The host's case id."""
        return self.host.files.case

    def values(self, box: Box) -> NDArray[np.float32]:
        """Present intensities of all channels in `box`, (C, i, j, k) float32."""
        return np.stack(
            [
                image.scaled(draft.read(box))
                for image, draft in zip(self.host.images, self._drafts, strict=True)
            ]
        )

    def as_stored(self, values: NDArray[np.float32], where: NDArray[np.bool_]) -> NDArray[np.float32]:
        """`values` (C, i, j, k) as they will be read once written `where`: rounded, clipped to the dtype."""
        read = values.copy()
        for image, channel in zip(self.host.images, read, strict=True):
            channel[where] = image.scaled(image.encode(channel[where])[0])
        return read

    @property
    def load_ml(self) -> float:
        """Present lesion load."""
        return float(self._lesion_vox) * self.grid.voxel_volume_mm3 / MM3_PER_ML

    def volume_mm3(self, instance: int) -> float:
        """Present volume of one lesion."""
        count = np.count_nonzero(self.instances[self.boxes[instance]] == instance)
        return float(count) * self.grid.voxel_volume_mm3

    def write(self, box: Box, values: NDArray[np.float32], where: NDArray[np.bool_]) -> None:
        """Put intensities into the voxels of `box` where `where` is true, in the stored dtype.

        `where` (i, j, k) holds for all channels, or (C, i, j, k) for each its own.
        """
        places = [(there, bounding_box(there)) for there in where.reshape(-1, *where.shape[-3:])]
        places *= len(values) // len(places)
        parts = zip(self.host.images, self._drafts, values, places, strict=True)
        for image, draft, channel, (there, inner) in parts:
            if inner is not None:
                stored, clipped = image.encode(channel[there])
                draft.write(shifted(inner, origin_of(box)))[there[inner]] = stored
                self.clipped_vox += clipped

    def insert(
        self,
        box: Box,
        values: NDArray[np.float32],
        changed: NDArray[np.bool_],
        label: NDArray[np.uint16],
    ) -> int:
        """Commit a lesion: intensities where `changed`, labels where `label` is set; return its instance."""
        self.write(box, values, changed)
        mask = label > 0
        self.label[box][mask] = label[mask]
        self.source[box][changed] = FIRST_DONOR + self._inserted
        self._inserted += 1
        replaced = self.instances[box][mask]
        touched = np.unique(replaced)
        self._lesion_vox += int(np.count_nonzero(replaced == 0))
        instance = self._next_instance
        self._next_instance += 1
        self.instances[box][mask] = instance
        self.boxes[instance] = box
        for other in touched[touched > 0]:
            if self.volume_mm3(int(other)) == 0:
                del self.boxes[int(other)]
        return instance

    def replace(
        self, box: Box, values: NDArray[np.float32], region: NDArray[np.bool_], label: NDArray[np.uint16]
    ) -> None:
        """Commit a piece of another case: intensities and labels of `region`, whatever was there.

        Lesions that come along get an instance for each connected piece. So does what is left of a lesion
        that is cut in several: its largest piece keeps the number.
        """
        self.write(box, values, region)
        self.source[box][region] = FIRST_DONOR + self._inserted
        self._inserted += 1
        self.label[box][region] = label[region]
        lesion = np.zeros(region.shape, dtype=bool)
        lesion[region] = np.isin(label[region], self.host.labels.lesion)
        replaced = self.instances[box][region]
        self._lesion_vox += int(np.count_nonzero(lesion)) - int(np.count_nonzero(replaced))
        self.instances[box][region] = 0
        for other in np.unique(replaced[replaced > 0]).tolist():
            around = self.boxes[other]
            self._renumbered.append(around)
            self._number(around, self.instances[around] == other, other)
        self._number(box, lesion)

    def _number(self, box: Box, lesion: NDArray[np.bool_], keeps: int | None = None) -> None:
        """Give each connected piece of a lesion in `box` an instance; `keeps` is the largest one's."""
        pieces, boxes = components(lesion)
        if keeps is not None:
            del self.boxes[keeps]
        largest = int(np.argmax(np.bincount(pieces[lesion], minlength=1))) if boxes else 0
        for number, inner in enumerate(boxes, start=1):
            instance = self._next_instance
            if number == largest and keeps is not None:
                instance = keeps
            else:
                self._next_instance += 1
            self.boxes[instance] = shifted(inner, origin_of(box))
            self.instances[self.boxes[instance]][pieces[inner] == number] = instance

    def remove(
        self,
        box: Box,
        values: NDArray[np.float32],
        regions: NDArray[np.bool_],
        instance: int,
        below: NDArray[np.uint16],
    ) -> None:
        """Commit a removal: intensities in `regions` (C, i, j, k); the lesion's own voxels get `below`."""
        self.write(box, values, regions)
        own = self.instances[box] == instance
        self.label[box][own] = below[own]
        self.source[box][regions.any(axis=0)] = INPAINTED
        self.instances[box][own] = 0
        self._lesion_vox -= int(np.count_nonzero(own))
        del self.boxes[instance]

    def displace(
        self,
        box: Box,
        values: NDArray[np.float32],
        moved: NDArray[np.bool_],
        label: NDArray[np.uint16],
        instances: NDArray[np.integer],
        source: NDArray[np.uint16],
    ) -> None:
        """Commit a displacement: everything of `box` where `moved`. Lesions keep their numbers."""
        self.write(box, values, moved)
        before, after = self.instances[box][moved], instances[moved]
        self._lesion_vox += int(np.count_nonzero(after)) - int(np.count_nonzero(before))
        self.label[box][moved] = label[moved]
        self.source[box][moved] = source[moved]
        self.instances[box][moved] = after
        numbers = np.union1d(before, after)
        for number in numbers[numbers > 0].tolist():
            spans = zip(self.boxes[number], box, strict=True)
            i, j, k = (slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in spans)
            left = bounding_box(self.instances[i, j, k] == number)
            if left is None:
                del self.boxes[number]
            else:
                self.boxes[number] = shifted(left, (i.start, j.start, k.start))

    def translate(self, box: Box, values: NDArray[np.float32], where: NDArray[np.bool_]) -> None:
        """Commit another image of the same tissue and lesions."""
        self.write(box, values, where)
        source = self.source[box]
        source[where & (source == HOST)] = TRANSLATED

    def save(self, box: Box) -> Saved:
        """What is needed to undo the next edit, if it changes nothing outside `box`."""
        return Saved(
            box,
            [draft.read(box).copy() for draft in self._drafts],
            self.label[box].copy(),
            self.source[box].copy(),
            self.instances[box].copy(),
            dict(self.boxes),
            self._lesion_vox,
            self.clipped_vox,
        )

    def restore(self, saved: Saved) -> None:
        """Undo the edit made since `saved`, if it was no insertion."""
        for draft, before in zip(self._drafts, saved.raw, strict=True):
            draft.write(saved.box)[:] = before
        self.label[saved.box] = saved.label
        self.source[saved.box] = saved.source
        self.instances[saved.box] = saved.instances
        self.boxes = dict(saved.boxes)
        self._lesion_vox, self.clipped_vox = saved.lesion_vox, saved.clipped_vox

    def changes(self) -> bool:
        """Whether anything differs from the host: a voxel of a channel and the label map."""
        edited = self._edited
        return not np.array_equal(self.label[..., edited], self.host.label[..., edited]) and any(
            (draft.volume[..., k] != image.raw[..., k])[self.source[..., k] > HOST].any()
            for k in edited
            for draft, image in zip(self._drafts, self.host.images, strict=True)
        )

    def voxels(self) -> list[Slabs]:
        """The channels as they will be written, as long as the canvas is not edited again."""
        return [draft.slabs(image.slabs) for image, draft in zip(self.host.images, self._drafts, strict=True)]

    def label_image(self) -> nifti.Image:
        """The label map as it will be written."""
        return nifti.as_label(self.host.label_image, self.label)


def _memory(volume: NDArray[Any], spare: list[NDArray[Any]]) -> NDArray[Any]:
    """Memory for a copy of a volume in the order of the file: a spare one, if there is one like it."""
    for number, other in enumerate(spare):
        if (other.shape, other.dtype) == (volume.shape, volume.dtype) and other.flags.f_contiguous:
            return spare.pop(number)
    return np.empty(volume.shape, volume.dtype, order="F")


def _copied(volume: NDArray[Any], spare: list[NDArray[Any]]) -> NDArray[Any]:
    """A copy of a volume in the order of the file."""
    copy = _memory(volume, spare)
    np.copyto(copy, volume)
    return copy
