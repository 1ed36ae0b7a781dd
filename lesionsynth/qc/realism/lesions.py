"""Rows of what is compared: the lesions of a case as a stranger sees them, by images and label map alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lesionsynth.bank.harvest import BankSpec, centre_of
from lesionsynth.domain.case import CaseFiles, Cohort
from lesionsynth.domain.grid import Box, Grid, bounding_box, grown, shape_of
from lesionsynth.host import LoadedCase, load_case
from lesionsynth.kernels.tissue import OUTSIDE, is_solid, place_of
from lesionsynth.likelihood.fit import box_coordinates
from lesionsynth.qc.realism import features
from lesionsynth.rng import stream
from lesionsynth.tissue import TissueSpec

_LEAST_SHELL_VOX = 20
POSITIONS = ("position left to right", "position back to front", "position down to up")


@dataclass(frozen=True)
class Seen:
    """One lesion, or one place, and what is known of where it comes from.

    Parameters
    ----------
    case, host : str
        Case in which it is seen, and the real case that this was made of: the same for a real case.
    subject : str
        Of the host.
    group : str
        Real lesion that it is, shows a copy of, or whose place it is: ``<case>/<component>``.
    number : int
        Among what was seen of its case.
    volume_mm3 : float
    centre_vox : tuple of int
    look : dict of str to float
        See :func:`lesionsynth.qc.realism.features.looks`.
    form : dict of str to float
        Size, shape and location by name.
    place : str
        Class of its site.
    behind : tuple of str
        Subjects whose lesions it could be copied from; empty where that is not known.
    """

    case: str
    host: str
    subject: str
    group: str
    number: int
    volume_mm3: float
    centre_vox: tuple[int, int, int]
    look: dict[str, float]
    form: dict[str, float] = field(default_factory=dict)
    place: str = ""
    behind: tuple[str, ...] = ()


@dataclass(frozen=True)
class Way:
    """What a worker needs to look at a case: how its files are read, and how much is looked at.

    `cohort` holds no cases. `most` is the largest number of lesions, and of places, that are looked at in one
    case; which ones follows from `seed` and the name of the case.
    """

    cohort: Cohort
    tissue: TissueSpec
    bank: BankSpec
    seed: int
    most: int


def look_at_case(way: Way, files: CaseFiles) -> tuple[int, list[Seen]]:
    """Number of lesions of a case that are large enough to be compared, and those that were looked at."""
    case = load_case(files, way.cohort, way.tissue)
    fitting = fitting_lesions(case, way.bank)
    seen = [
        lesion_seen(case, number, files.case, name_of(files.case, number))
        for number in chosen(fitting, way.most, way.seed, files.case, "lesions")
    ]
    return len(fitting), seen


def name_of(case: str, number: int) -> str:
    """Name of a real lesion: that of the bank."""
    return f"{case}/{number:04d}"


def fitting_lesions(case: LoadedCase, bank: BankSpec) -> list[int]:
    """Numbers of the lesions that the bank would take: no specks, none that the border of the volume cuts."""
    labels, boxes = case.lesions
    return [n for n, box in enumerate(boxes, start=1) if bank.takes(box, labels[box] == n, case.grid)]


def chosen(numbers: Sequence[int], most: int, seed: int, case: str, what: str) -> list[int]:
    """At most `most` of some numbers, sorted; by a stream of their own for each case."""
    if len(numbers) <= most:
        return list(numbers)
    order = stream(seed, "realism", what, case).permutation(len(numbers))[:most]
    return sorted(numbers[k] for k in order)


def lesion_seen(
    case: LoadedCase, number: int, host: str, group: str, named: str = "", behind: Iterable[str] = ()
) -> Seen:
    """One lesion of a case.

    Parameters
    ----------
    case : LoadedCase
    number : int
        Component of its lesions.
    host, group, behind
        As in :class:`Seen`.
    named : str
        Name of the case; by its files by default.
    """
    labels, boxes = case.lesions
    box = boxes[number - 1]
    own = labels[box] == number
    spacing = case.grid.spacing_mm
    edge_mm, fluid_mm = case.site_distances_mm
    centre = centre_of(own, box)
    form = features.shape(own, spacing)
    form["edge_mm"] = float(edge_mm[box][own].min())
    if fluid_mm is not None:
        form["fluid_mm"] = float(fluid_mm[box][own].min())
    form |= position(case.grid, bounding_box(case.tissue != OUTSIDE), centre)
    return Seen(
        named or case.files.case,
        host,
        case.files.subject,
        group,
        number,
        form["volume_mm3"],
        centre,
        _look(case, own, box),
        form,
        place_of(case.zones[box][own], case.has_tissue_classes),
        tuple(behind),
    )


def _look(case: LoadedCase, own: NDArray[np.bool_], box: Box) -> dict[str, float]:
    around = grown(box, features.margin_vox(case.grid.spacing_mm), case.grid.shape)
    mask = in_crop(own, box, around)
    tissue = (is_solid(case.tissue[around]) & ~case.lesion_mask[around]) | mask
    clean = case.clean_tissue[around]
    return features.looks(
        case.values(around),
        mask,
        tissue,
        [spread for _, spread in case.tissue_stats],
        case.grid.spacing_mm,
        inner_mm=0.0,
        rings_mm=features.LESION_RINGS_MM,
        around=clean if np.count_nonzero(clean) >= _LEAST_SHELL_VOX else None,
    )


def place_look(case: LoadedCase, mask: NDArray[np.bool_], around: Box, rim_mm: float) -> dict[str, float]:
    """What a place without lesion looks like, with the rim by which it was, or would be, grown.

    Parameters
    ----------
    case : LoadedCase
    mask : ndarray, bool, shape of `around`
    around : Box
        The place with its margin.
    rim_mm : float
    """
    tissue = is_solid(case.tissue[around]) & ~case.lesion_mask[around]
    return features.looks(
        case.values(around),
        mask,
        tissue | mask,
        [spread for _, spread in case.tissue_stats],
        case.grid.spacing_mm,
        inner_mm=rim_mm,
    )


def in_crop(own: NDArray[np.bool_], box: Box, around: Box) -> NDArray[np.bool_]:
    """A mask of `box` in the larger box `around`."""
    mask = np.zeros(shape_of(around), dtype=bool)
    mask[tuple(slice(b.start - a.start, b.stop - a.start) for a, b in zip(around, box, strict=True))] = own
    return mask


def position(grid: Grid, tissue: Box | None, centre_vox: Sequence[int]) -> dict[str, float]:
    """Where in the tissue's box a voxel lies along the world's axes, 0 to 1; nothing without tissue."""
    if tissue is None:
        return {}
    shares = box_coordinates(np.array([centre_vox]), grid, tissue)[0]
    return dict(zip(POSITIONS, map(float, shares), strict=True))
