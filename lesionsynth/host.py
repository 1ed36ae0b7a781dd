"""A case in memory: its images as stored, its labels, its tissue, its lesions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lesionsynth import nifti
from lesionsynth.channels import Aligned, on_one_grid, read_channels
from lesionsynth.domain.case import CaseFiles, Cohort, LabelTable
from lesionsynth.domain.grid import Box, Grid
from lesionsynth.domain.load import LesionLoad
from lesionsynth.errors import InputError
from lesionsynth.kernels import tissue as tissue_kernel
from lesionsynth.kernels.components import components, dilated
from lesionsynth.kernels.intensity import robust_spread
from lesionsynth.kernels.mirror import reflection
from lesionsynth.kernels.tissue import GREY, OUTSIDE, WHITE
from lesionsynth.slabs import stored_bytes
from lesionsynth.tissue import TissueKind, TissueSpec, find_tissue
from lesionsynth.units import MM3_PER_ML

_MOST = np.iinfo(np.uint16).max
# The two sides of a brain are compared on voxels at most this large, where those of the image are smaller.
_COARSE_MM = 3.0


@dataclass(frozen=True, eq=False)
class Known:
    """What was found of a case earlier, so that it need not be found again.

    Parameters
    ----------
    tissue, tissue_kind, tissue_stats, load
        As in :class:`LoadedCase`.
    read_zones : callable
        Gives its zones; a donor's are never asked for.
    """

    tissue: NDArray[np.uint8]
    tissue_kind: TissueKind
    read_zones: Callable[[], NDArray[np.uint8]]
    tissue_stats: list[tuple[float, float]]
    load: LesionLoad


@dataclass(frozen=True, eq=False)
class LoadedCase:
    """One case, read and checked.

    Parameters
    ----------
    files : CaseFiles
    labels : LabelTable
    images : tuple of nifti.Image
        One a channel, all on `grid`.
    label_image : nifti.Image
        Label map as stored.
    label : ndarray, (i, j, k), uint8 or uint16
        Label values; uint16 where the label table has values that need it.
    tissue : ndarray, (i, j, k), uint8
        Codes of :mod:`lesionsynth.kernels.tissue`.
    tissue_kind : str
        How the tissue was found.
    missing : ndarray, (i, j, k), bool, or None
        Voxels that are NaN or infinite in any channel, where there are any; they are OUTSIDE.
    known : Known or None
        What need not be computed.
    resampled : tuple of str
        Channels that were brought onto the grid of the others.
    source_hashes : dict of str to str
        Digest of each input file by its path in the input.
    root : Path
        The input, to which further files of the case are relative.
    channels : tuple of str
        Names of the channels.
    """

    files: CaseFiles
    labels: LabelTable
    images: tuple[nifti.Image, ...]
    label_image: nifti.Image
    label: NDArray[np.unsignedinteger]
    tissue: NDArray[np.uint8]
    tissue_kind: TissueKind
    missing: NDArray[np.bool_] | None = None
    known: Known | None = None
    resampled: tuple[str, ...] = ()
    source_hashes: dict[str, str] = field(default_factory=dict)
    root: Path = Path()
    channels: tuple[str, ...] = ()

    @property
    def grid(self) -> Grid:
        """Grid that all files of the case share."""
        return self.images[0].grid

    def values(self, box: Box | None = None) -> NDArray[np.float32]:
        """Scaled intensities of all channels, (C, i, j, k) float32."""
        return np.stack([image.values(box) for image in self.images])

    @cached_property
    def lesion_mask(self) -> NDArray[np.bool_]:
        """Voxels of any lesion class."""
        return _one_of(self.label, self.labels.lesion)

    @cached_property
    def untouchable(self) -> NDArray[np.bool_]:
        """Protected and ignored voxels, and those without a number."""
        labelled = _one_of(self.label, self.labels.untouchable)
        return labelled if self.missing is None else labelled | self.missing

    @cached_property
    def lesions(self) -> tuple[NDArray[np.integer], list[Box]]:
        """Connected components of the lesions and their boxes."""
        labels, boxes = components(self.lesion_mask)
        # Half the memory, and numbers are left for as many new lesions.
        return labels if len(boxes) > _MOST // 2 else labels.astype(np.uint16), boxes

    @cached_property
    def load(self) -> LesionLoad:
        """Lesion load of the case, specks included."""
        if self.known is not None:
            return self.known.load
        ml = self.grid.voxel_volume_mm3 / MM3_PER_ML
        room = self.lesion_mask | (self.tissue == WHITE)
        return LesionLoad(
            ml=float(self.lesion_mask.sum()) * ml,
            count=len(self.lesions[1]),
            tissue_ml=float(room.sum()) * ml,
        )

    @property
    def has_tissue_classes(self) -> bool:
        """Whether fluid and grey matter are told from the tissue of lesions."""
        return self.tissue_kind in ("map", "mixture")

    @property
    def has_one_tissue(self) -> bool:
        """Whether one code covers all there is, fat and muscle alike, and not an organ."""
        return self.tissue_kind == "mask"

    @cached_property
    def site_distances_mm(self) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Distance from the tissue's edge, and from the ventricles where they are known."""
        return tissue_kernel.site_distances_mm(self.tissue, self.grid.spacing_mm)

    @cached_property
    def zones(self) -> NDArray[np.uint8]:
        """Voxels near the ventricles and the edge, see :func:`lesionsynth.kernels.tissue.site_zones`."""
        if self.known is not None:
            return self.known.read_zones()
        return tissue_kernel.site_zones(
            *self.site_distances_mm, self.has_tissue_classes, self.grid.spacing_mm
        )

    @cached_property
    def clean_tissue(self) -> NDArray[np.bool_]:
        """Lesion-free voxels of the tissue that lesions lie in."""
        return self.clean_in((slice(None), slice(None), slice(None)))

    def clean_in(self, box: Box) -> NDArray[np.bool_]:
        """The part of `clean_tissue` in a box, without a pass over the whole volume."""
        return (self.tissue[box] == WHITE) & ~self.lesion_mask[box] & ~self.untouchable[box]

    @cached_property
    def all_values(self) -> NDArray[np.float32]:
        """Scaled intensities of the whole case, (C, i, j, k) float32, made once for all its copies."""
        return self.values()

    @cached_property
    def smooth_values(self) -> NDArray[np.float32]:
        """Means of 3 x 3 x 3 voxels of `all_values`."""
        return np.stack([ndimage.uniform_filter(channel, 3) for channel in self.all_values])

    @cached_property
    def mirror_matrix(self) -> NDArray[np.float64] | None:
        """Matrix from voxels to the voxels of the other side of a brain, found by the first channel.

        None where the tissue has no classes, so that it is no brain as far as is known, and where no
        symmetry is found.
        """
        if not self.has_tissue_classes:
            return None
        step = [max(1, int(_COARSE_MM / edge)) for edge in self.grid.spacing_mm]
        every = tuple(slice(None, None, s) for s in step)
        found = reflection(
            self.all_values[0][every],
            (self.tissue != OUTSIDE)[every],
            [s * edge for s, edge in zip(step, self.grid.spacing_mm, strict=True)],
            self.grid.axis_towards(0),
        )
        scale = np.diag([*step, 1.0])
        return None if found is None else scale @ found @ np.linalg.inv(scale)

    def clean_away(self, n_vox: int, grey: bool = False) -> NDArray[np.bool_]:
        """Clean tissue more than `n_vox` voxels away from every lesion, beyond their partial-volume rim.

        With `grey`, grey matter belongs to it.
        """
        if (n_vox, grey) not in self._clean_away:
            tissue = (
                self.clean_tissue | ((self.tissue == GREY) & ~self.untouchable) if grey else self.clean_tissue
            )
            self._clean_away[n_vox, grey] = np.asarray(
                tissue & ~dilated(self.lesion_mask, n_vox, self.grid.spacing_mm)
            )
        return self._clean_away[n_vox, grey]

    @cached_property
    def _clean_away(self) -> dict[tuple[int, bool], NDArray[np.bool_]]:
        return {}

    @cached_property
    def tissue_stats(self) -> list[tuple[float, float]]:
        """Median and robust spread of the clean tissue, per channel."""
        if self.known is not None:
            return self.known.tissue_stats
        where = self.clean_tissue if self.clean_tissue.any() else self.tissue != OUTSIDE
        places = np.flatnonzero(where.T)
        samples = [image.sample(places) for image in self.images]
        return [(float(np.median(s)) if s.size else 0.0, robust_spread(s)) for s in samples]


def load_case(
    files: CaseFiles,
    cohort: Cohort,
    tissue: TissueSpec,
    known: Known | None = None,
) -> LoadedCase:
    """Read all files of a case and check that they belong together.

    Parameters
    ----------
    files : CaseFiles
    cohort : Cohort
    tissue : TissueSpec
    known : Known, optional
        What was found of the case earlier.

    Raises
    ------
    InputError
        If a file is damaged, grids differ, a lesion holds voxels that are NaN or infinite, or a label value
        is unknown. Elsewhere such voxels mark what is no tissue.
    """
    stored = read_channels(files)
    label_image, label = read_label(files.case, files.label, cohort.labels)
    aligned = on_one_grid(files, cohort, stored, label_image)
    images, missing = without_missing(files, cohort, aligned, label)
    if known is not None:
        found, kind = known.tissue, known.tissue_kind
    else:
        found, kind = find_tissue(files, cohort, tissue, images, label)
        if missing is not None:
            found = np.where(missing, np.uint8(OUTSIDE), found)
    hashes = {cohort.name_of(i.path): i.source_hash for i in (*stored, label_image) if i.path}
    return LoadedCase(
        files,
        cohort.labels,
        images,
        label_image,
        label,
        found,
        kind,
        missing,
        known,
        aligned.resampled,
        hashes,
        cohort.root,
        cohort.channels,
    )


def without_missing(
    files: CaseFiles, cohort: Cohort, aligned: Aligned, label: NDArray[np.unsignedinteger]
) -> tuple[tuple[nifti.Image, ...], NDArray[np.bool_] | None]:
    """Images that read as their least intensity where they are NaN or infinite; where any of them is missing.

    Missing is what is NaN or infinite, and what a resampled channel knows nothing of.

    Raises
    ------
    InputError
        If a lesion holds such voxels, or a channel holds nothing else.
    """
    missing = aligned.unknown

    def in_lesions(where: NDArray[np.bool_]) -> int:
        return int(np.count_nonzero(_one_of(label, cohort.labels.lesion) & where))

    if missing is not None and (lesion := in_lesions(missing)):
        named = ", ".join(aligned.resampled)
        raise InputError(
            f"{lesion} voxels of lesions lie where a resampled channel ({named}) has no data.",
            case=files.case,
            file=files.label,
            remedy="Remove the case or the channel; input.on_bad_case: drop leaves such cases out.",
        )
    made = []
    for image, name in zip(aligned.images, cohort.channels, strict=True):
        if image.raw.dtype.kind != "f" or image.slabs.all_finite:
            made.append(image)
            continue
        present = np.isfinite(image.raw)
        lesion = in_lesions(~present)
        if lesion or not present.any():
            count = int(present.size - np.count_nonzero(present))
            where = f", {lesion} of them in lesions" if lesion else ": all there are"
            raise InputError(
                f"channel {name} has {count} voxels that are NaN or infinite{where}.",
                case=files.case,
                file=image.path,
                remedy="Replace them; only outside the tissue may voxels be NaN.",
            )
        made.append(replace(image, missing_as=float(image.sample(np.flatnonzero(present.T)).min())))
        missing = ~present if missing is None else missing | ~present
    return tuple(made), missing


def _one_of(label: NDArray[np.unsignedinteger], values: Sequence[int]) -> NDArray[np.bool_]:
    """Voxels whose label is one of a few values."""
    if not values:
        return np.zeros(label.shape, dtype=bool, order="F")  # pages that nobody asks for are never made
    found = label == values[0]
    for value in values[1:]:
        found |= label == value
    return found


def read_label(case: str, path: Path, labels: LabelTable) -> tuple[nifti.Image, NDArray[np.unsignedinteger]]:
    """Read a label map and check that its values are whole numbers known to the label table."""
    image = nifti.read(path)
    if image.slope == 1.0 and image.inter == 0.0 and image.raw.dtype.kind in "ui":
        stored = image.raw
    else:
        stored = image.values()
        if not np.isfinite(stored).all():
            raise InputError(
                "the label map has voxels that are NaN or infinite.",
                case=case,
                file=path,
                remedy="Write whole numbers.",
            )
        if not (stored == np.rint(stored)).all():
            raise InputError(
                "the label map has values that are not whole numbers.",
                case=case,
                file=path,
                remedy="Resample labels with nearest-neighbour interpolation.",
            )
    usable = {v for v in labels.values.values() if v <= _MOST}
    unknown = sorted(set(_values_of(stored)) - usable)
    if unknown:
        known = ", ".join(f"{v} {n}" for n, v in sorted(labels.values.items(), key=lambda item: item[1]))
        raise InputError(
            f"the label map has the unknown value {unknown[0]}; known are {known}.",
            case=case,
            file=path,
            remedy="Correct the file, or name the value where labels are named: in dataset.json, or under "
            "`input.layout.labels` for layouts that have none (bids, pattern).",
        )
    dtype = np.uint8 if max(usable, default=0) <= np.iinfo(np.uint8).max else np.uint16
    return image, stored.astype(dtype, copy=False)


def _values_of(stored: NDArray[np.generic]) -> list[int]:
    """Values that occur in a label map. Most of it is 0, which is passed over eight bytes at a time."""
    content = stored_bytes(stored)
    whole = content.size - content.size % 8
    words = content[:whole].view(np.uint64)
    other = words[np.flatnonzero(words)]
    rest = [other.view(stored.dtype), content[whole:].view(stored.dtype)]
    found = set(np.unique(np.concatenate(rest)).tolist())
    return [int(value) for value in found | ({0} if other.size < words.size else set())]
