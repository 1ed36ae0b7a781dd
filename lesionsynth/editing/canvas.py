"""A host under edit. Whatever is not written stays bit-equal to the host."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lesionsynth import nifti
from lesionsynth.backend import Device
from lesionsynth.domain.grid import Box
from lesionsynth.host import LoadedCase
from lesionsynth.units import MM3_PER_ML

HOST, INPAINTED, FIRST_DONOR = 0, 1, 2
"""Values of the source map: untouched, filled, and from there on the k-th inserted lesion."""


class Canvas:
    """One synthetic copy in the making.

    Parameters
    ----------
    host : LoadedCase
        Is never changed; several canvases share it.
    device : Device, optional
        Where kernels run; the CPU by default.
    """

    def __init__(self, host: LoadedCase, device: Device | None = None) -> None:
        self.host = host
        self.device = device or Device()
        self.grid = host.grid
        self.raw = [image.raw.copy(order="F") for image in host.images]
        self.label = host.label.copy()
        self.source = np.zeros(host.grid.shape, dtype=np.uint16)
        labels, boxes = host.lesions
        self.instances = labels.copy()
        self.boxes: dict[int, Box] = dict(enumerate(boxes, start=1))
        self.clipped_vox = 0
        self._next_instance = len(boxes) + 1
        self._inserted = 0
        self._lesion_vox = int(np.count_nonzero(labels))

    @property
    def case(self) -> str:
        """The host's case id."""
        return self.host.files.case

    def values(self, box: Box) -> NDArray[np.float32]:
        """Present intensities of all channels in `box`, (C, i, j, k) float32."""
        return np.stack(
            [image.with_raw(raw).values(box) for image, raw in zip(self.host.images, self.raw, strict=True)]
        )

    @property
    def lesions(self) -> NDArray[np.bool_]:
        """Voxels of any lesion, host's and inserted."""
        return self.instances > 0

    @property
    def load_ml(self) -> float:
        """Present lesion load."""
        return float(self._lesion_vox) * self.grid.voxel_volume_mm3 / MM3_PER_ML

    def volume_mm3(self, instance: int) -> float:
        """Present volume of one lesion."""
        count = np.count_nonzero(self.instances[self.boxes[instance]] == instance)
        return float(count) * self.grid.voxel_volume_mm3

    def write(self, box: Box, values: NDArray[np.float32], where: NDArray[np.bool_]) -> None:
        """Put intensities into the voxels of `box` where `where` is true, in the stored dtype."""
        for image, raw, channel in zip(self.host.images, self.raw, values, strict=True):
            stored, clipped = image.encode(channel[where])
            raw[box][where] = stored
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

    def remove(
        self,
        box: Box,
        values: NDArray[np.float32],
        region: NDArray[np.bool_],
        instance: int,
        below: NDArray[np.uint16],
    ) -> None:
        """Commit a removal: intensities in `region`; the lesion's own voxels get the labels `below`."""
        self.write(box, values, region)
        own = self.instances[box] == instance
        self.label[box][own] = below[own]
        self.source[box][region] = INPAINTED
        self.instances[box][own] = 0
        self._lesion_vox -= int(np.count_nonzero(own))
        del self.boxes[instance]

    def changes(self) -> bool:
        """Whether anything differs from the host: a voxel of a channel and the label map."""
        edited = self.source > HOST
        return bool((self.label != self.host.label).any()) and any(
            (raw[edited] != image.raw[edited]).any()
            for raw, image in zip(self.raw, self.host.images, strict=True)
        )

    def images(self) -> list[nifti.Image]:
        """The channels as they will be written."""
        return [image.with_raw(raw) for image, raw in zip(self.host.images, self.raw, strict=True)]

    def label_image(self) -> nifti.Image:
        """The label map as it will be written."""
        return nifti.as_label(self.host.label_image, self.label)
