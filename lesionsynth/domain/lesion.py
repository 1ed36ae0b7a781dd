"""Lesions: what the bank's index knows of one, and one with its voxels."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIZE_EDGES_MM3 = (30.0, 100.0, 300.0, 1000.0, 5000.0, 50000.0)
"""Edges of the size classes; lesions are compared with their like."""


def size_class(volume_mm3: float) -> int:
    """Index of the size class of a volume, 0 the smallest."""
    return bisect_right(SIZE_EDGES_MM3, volume_mm3)


@dataclass(frozen=True)
class Site:
    """Where in its tissue a lesion lies.

    Parameters
    ----------
    place : str
        `periventricular`, `deep` or `juxtacortical` where tissue classes are known; `edge` or `inside` where
        there is one tissue only.
    edge_mm : float
        Distance of the lesion from the edge of its tissue, in mm.
    fluid_mm : float or None
        Distance of the lesion from the ventricles in mm; None where they are not known.
    """

    place: str
    edge_mm: float
    fluid_mm: float | None


@dataclass(frozen=True)
class ChannelStats:
    """One channel in and around a lesion, in the image's own units.

    Parameters
    ----------
    shell_median : float
        Median of lesion-free tissue 1.5 to 4 mm outside the lesion.
    tissue_mad : float
        Median absolute deviation of that tissue in the whole case, times 1.4826.
    mean : float
        Mean over the lesion.
    edge : float
        Mean gradient magnitude at the lesion's border, per mm.
    detail : float
        Standard deviation of the high-pass inside the lesion.
    """

    shell_median: float
    tissue_mad: float
    mean: float
    edge: float
    detail: float

    @property
    def surroundings(self) -> tuple[float, float]:
        """Median and spread of the tissue around."""
        return self.shell_median, self.tissue_mad

    @property
    def contrast(self) -> float:
        """Mean difference from the surroundings."""
        return self.mean - self.shell_median


@dataclass(frozen=True)
class LesionInfo:
    """Index entry of one lesion.

    Parameters
    ----------
    lesion : str
        Name: `<case>/<component>`.
    case : str
        Case it was harvested from.
    subject : str
        The person.
    classes : tuple of int
        Its label values.
    volume_mm3 : float
        Its volume.
    centre_vox : tuple of int
        Its centre in the donor's volume.
    origin_vox : tuple of int
        First voxel of the crop in the donor's volume.
    shape_vox : tuple of int
        Size of the crop.
    axes_mm : tuple of float
        3x3 part of the donor's affine, by rows: world millimetres per voxel step.
    channels : tuple of ChannelStats
        One entry per channel, in the image's own units; empty where only a mask is known.
    site : Site or None
        Where in its tissue it lies; None where that is not known.
    source_hash : str
        Digest of the label file.
    """

    lesion: str
    case: str
    subject: str
    classes: tuple[int, ...]
    volume_mm3: float
    centre_vox: tuple[int, int, int]
    origin_vox: tuple[int, int, int]
    shape_vox: tuple[int, int, int]
    axes_mm: tuple[float, ...]
    channels: tuple[ChannelStats, ...]
    site: Site | None
    source_hash: str

    @property
    def component(self) -> int:
        """Number of the lesion among the connected components of its case, from 1: the end of its name."""
        return int(self.lesion.rpartition("/")[2])

    @property
    def size_class(self) -> int:
        """Index of the lesion's size class."""
        return size_class(self.volume_mm3)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size of the donor."""
        i, j, k = np.linalg.norm(np.reshape(self.axes_mm, (3, 3)), axis=0)
        return (float(i), float(j), float(k))


@dataclass(frozen=True, eq=False)
class Lesion:
    """A lesion cropped with a margin.

    Parameters
    ----------
    info : LesionInfo
        Index entry.
    image : ndarray, (C, i, j, k), float32
        Intensities, in the units of the donor's images.
    label : ndarray, (i, j, k), uint16
        Label values of this lesion, 0 elsewhere.
    rim : ndarray, (i, j, k), bool
        Voxels that may be carried along around the label: the lesion and its own kind of
        tissue, not fluid, not outside, no other lesion.
    on_host : bool
        `image` is what the lesion adds to its host's own intensities, in units of the spread of the
        host's tissue (0 far from the lesion), instead of intensities of a donor.
    """

    info: LesionInfo
    image: NDArray[np.float32]
    label: NDArray[np.uint16]
    rim: NDArray[np.bool_]
    on_host: bool = False
