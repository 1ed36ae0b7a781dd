"""One copy against its host, voxel by voxel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lesionsynth import nifti
from lesionsynth.domain.case import LabelTable
from lesionsynth.domain.finding import Finding
from lesionsynth.kernels.components import NEIGHBOURS_26
from lesionsynth.operations.carve_mix import CarveMix
from lesionsynth.qc.audit_evidence import REMAKE, Record
from lesionsynth.qc.audit_reach import outside_reach, reach_vox
from lesionsynth.recipe.model import Recipe

_BLOCK_VOX = 3
"""Changes of the label less than this apart are of one lesion: tissue and other lesions cut off pieces."""


@dataclass(frozen=True, eq=False)
class Volumes:
    """A case on the disk: channels, label map and its values; `names` are its paths in the output."""

    images: Sequence[nifti.Image]
    label_image: nifti.Image
    label: NDArray[np.unsignedinteger]
    names: Sequence[str] = field(default_factory=tuple)

    def lesion(self, labels: LabelTable) -> NDArray[np.bool_]:
        """Voxels of any lesion class."""
        return np.isin(self.label, labels.lesion)


def compare(
    host: Volumes,
    copy: Volumes,
    record: Record,
    recipe: Recipe,
    labels: LabelTable,
    source: NDArray[np.generic] | None,
) -> Iterator[Finding]:
    """What is wrong in a copy beside its host.

    Parameters
    ----------
    host, copy : Volumes
        On one grid, with equal dtypes of the channels.
    record : Record
    recipe : Recipe
    labels : LabelTable
    source : ndarray, (i, j, k), or None
        The source map, where one was written: it says exactly where the copy may differ.
    """
    case, label_name = record.case, copy.names[-1]
    differs = np.zeros(host.label.shape, dtype=bool, order="F")
    for old, new in zip(host.images, copy.images, strict=True):
        differs |= _bits(old.raw) != _bits(new.raw)
    relabelled = host.label != copy.label
    if not differs.any():
        yield Finding(
            "error", f"no channel differs from the host {record.host.case}.", REMAKE, case, copy.names[0]
        )
    if not relabelled.any():
        fault = f"the label map equals that of the host {record.host.case}."
        yield Finding("error", fault, REMAKE, case, label_name)
    host_lesion, lesion = host.lesion(labels), copy.lesion(labels)
    for what, where in (("new", lesion & relabelled), ("removed", host_lesion & ~lesion)):
        unseen = without(where, differs)
        if unseen:
            i, j, k = unseen[0][1]
            fault = (
                f"{len(unseen)} {what} lesion(s) of the label show in no channel, such as {unseen[0][0]} "
                f"voxels at ({i}, {j}, {k}): all channels equal the host's there."
            )
            yield Finding("error", fault, REMAKE, case, label_name)
    yield from _protected(host, copy, differs, record, recipe, labels)
    changed = differs | relabelled
    if source is not None:
        yield from _outside(
            changed & (source == 0), case, copy, "where the source map says that it is the host's"
        )
    reach = reach_vox(recipe, record, host.images[0].grid.spacing_mm)
    if reach is not None:
        left = outside_reach(changed, host_lesion, lesion, relabelled, recipe, record, reach)
        far = " x ".join(map(str, reach))
        where = f"more than {far} voxels from every edited lesion, farther than any edit reaches"
        yield from _outside(left, case, copy, where)


def _protected(
    host: Volumes,
    copy: Volumes,
    differs: NDArray[np.bool_],
    record: Record,
    recipe: Recipe,
    labels: LabelTable,
) -> Iterator[Finding]:
    """Protected and ignored labels are never written or overwritten, nor are the images there."""
    values = labels.untouchable
    steps = [recipe.steps.get(step.step) for step in record.steps]
    if not values or any(isinstance(step, CarveMix) and step.mode == "compatible" for step in steps):
        return  # the authors' script, which that mode equals, knows no protected labels
    before = np.isin(host.label, values)
    moved = (before | np.isin(copy.label, values)) & (host.label != copy.label)
    for what, where in (("labels", moved), ("intensities", before & differs)):
        if where.any():
            i, j, k = first_of(where)
            fault = (
                f"{np.count_nonzero(where)} {what} of protected or ignored voxels differ from the host's, "
                f"the first at ({i}, {j}, {k})."
            )
            yield Finding(
                "error", fault, REMAKE, record.case, copy.names[-1] if what == "labels" else copy.names[0]
            )


def _outside(where: NDArray[np.bool_], case: str, copy: Volumes, why: str) -> Iterator[Finding]:
    if where.any():
        i, j, k = first_of(where)
        fault = (
            f"{np.count_nonzero(where)} voxel(s) differ from the host's {why}; the first is ({i}, {j}, {k})."
        )
        yield Finding("error", fault, REMAKE, case, copy.names[0])


def without(mask: NDArray[np.bool_], seen: NDArray[np.bool_]) -> list[tuple[int, tuple[int, int, int]]]:
    """Groups of voxels of `mask` of which none is `seen`: their sizes and first voxels.

    Voxels belong to one group if a chain of blocks of 3 x 3 x 3 voxels leads from one to the other.
    """
    places = np.argwhere(mask)
    if not len(places):
        return []
    blocks = places // _BLOCK_VOX
    coarse = np.zeros(blocks.max(axis=0) + 1, dtype=bool)
    coarse[tuple(blocks.T)] = True
    group = ndimage.label(coarse, NEIGHBOURS_26)[0][tuple(blocks.T)]
    sizes, hits = np.bincount(group), np.bincount(group, weights=seen[tuple(places.T)])
    found = []
    for number in np.flatnonzero((sizes > 0) & (hits == 0)).tolist():
        i, j, k = (int(v) for v in places[np.argmax(group == number)])
        found.append((int(sizes[number]), (i, j, k)))
    return found


def first_of(mask: NDArray[np.bool_]) -> tuple[int, int, int]:
    """Indices of the first true voxel."""
    i, j, k = (int(v) for v in np.unravel_index(int(np.argmax(mask)), mask.shape))
    return i, j, k


def _bits(raw: NDArray[np.generic]) -> NDArray[np.generic]:
    """Voxels as whole numbers, so that NaN equals itself and 0 is not -0."""
    return raw if raw.dtype.kind in "ui" else raw.view(f"u{raw.dtype.itemsize}")
