"""Cases on a network's grid: semantic maps beside images, and patches of them. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lesionsynth.bank.store import LesionBank
from lesionsynth.domain.case import CaseFiles, Cohort
from lesionsynth.domain.grid import bounding_box
from lesionsynth.errors import InputError
from lesionsynth.generative.crops import as_shown
from lesionsynth.generative.specs import TranslationSpec
from lesionsynth.generative.tissue_map import Frame, Semantics
from lesionsynth.host import LoadedCase, load_case
from lesionsynth.kernels.components import components
from lesionsynth.rng import stream
from lesionsynth.tissue import TissueSpec

_PLACES = 20000
_MARGIN_VOX = 2
_RANGE = 99.0


@dataclass(frozen=True, eq=False)
class Scan:
    """One case on the network's grid, cut to its tissue.

    Parameters
    ----------
    case, subject : str
    classes : ndarray, (i, j, k), uint8
        Semantic map.
    image : ndarray, (C, i, j, k), float16
        Difference from the median of the case's own tissue, in units of that tissue's spread.
    lesions : tuple of ndarray, each (n, 3), int16
        Voxels of each lesion.
    tissue : ndarray, (n, 3), int16
        Some voxels of the tissue.
    """

    case: str
    subject: str
    classes: NDArray[np.uint8]
    image: NDArray[np.float16]
    lesions: tuple[NDArray[np.int16], ...]
    tissue: NDArray[np.int16]

    @property
    def name(self) -> str:
        """Of the case."""
        return self.case


def patch_shape(spec: TranslationSpec) -> tuple[int, int, int]:
    """Voxels of a patch along each axis of the network's grid."""
    return (spec.patch, spec.patch, 1 if spec.spatial_dims == 2 else spec.patch)


def working_spacing_mm(cohort: Cohort, bank: LesionBank, spec: TranslationSpec) -> float:
    """Voxel edge that the networks work at."""
    if spec.spacing_mm != "auto":
        return float(spec.spacing_mm)
    edges = []
    for files in cohort.cases:
        grid = bank.case(files.case).grid
        worlds = (world for world, _ in grid.world_axes)
        pairs = zip(worlds, grid.spacing_mm, strict=True)
        edges += [edge for world, edge in pairs if spec.spatial_dims == 3 or world != 2]
    return round(float(np.median(edges)), 4)


def chosen_cases(cohort: Cohort, spec: TranslationSpec) -> list[CaseFiles]:
    """The cases to learn from: all, or as many as are wanted at most, drawn.

    Raises
    ------
    InputError
        If there is none.
    """
    if not cohort.cases:
        raise InputError(
            "there is no case with images to learn from.",
            file=cohort.root,
            remedy="Use fewer folds, or folds.strategy per_fold or none.",
        )
    if len(cohort.cases) <= spec.most_cases:
        return list(cohort.cases)
    chosen = stream(spec.seed, "train", "cases").choice(len(cohort.cases), spec.most_cases, replace=False)
    return [cohort.cases[k] for k in sorted(chosen.tolist())]


def load_scans(
    cases: Sequence[CaseFiles],
    cohort: Cohort,
    bank: LesionBank,
    tissue: TissueSpec,
    spec: TranslationSpec,
    semantics: Semantics,
    spacing_mm: float,
) -> list[Scan]:
    """Read the cases of a training."""
    found = (load_case(files, cohort, tissue, bank.known(bank.case(files.case))) for files in cases)
    return [scan_of(case, spec, semantics, spacing_mm) for case in found]


def scan_of(case: LoadedCase, spec: TranslationSpec, semantics: Semantics, spacing_mm: float) -> Scan:
    """A case on the network's grid.

    Raises
    ------
    InputError
        If nothing of it is tissue.
    """
    frame = Frame.of(case.grid, spacing_mm, spec.spatial_dims)
    whole = (slice(0, case.grid.shape[0]), slice(0, case.grid.shape[1]), slice(0, case.grid.shape[2]))
    window = frame.window(whole)
    on_case = semantics.with_lesions(semantics.tissue_of(case), case.label)
    classes = frame.classes(on_case, whole, window)
    levelled = as_shown(case.all_values, case.tissue_stats, case.lesion_mask)
    image = frame.image(levelled, whole, window).astype(np.float16)
    body = bounding_box(classes > 0)
    if body is None:
        raise InputError(
            "nothing of the semantic map is tissue or lesion.",
            case=case.files.case,
            remedy="Check the values of the label images, or of `classes`.",
        )
    part = tuple(slice(max(0, b.start - _MARGIN_VOX), b.stop + _MARGIN_VOX) for b in body)
    classes, image = classes[part], image[(slice(None), *part)]
    short = [max(0, p - n) for p, n in zip(patch_shape(spec), classes.shape, strict=True)]
    room = [(s // 2, s - s // 2) for s in short]
    classes, image = np.pad(classes, room), np.pad(image, [(0, 0), *room], mode="edge")
    rng = stream(spec.seed, "train", "places", case.files.case)
    places = np.argwhere(classes > 0).astype(np.int16)
    if len(places) > _PLACES:
        places = places[rng.choice(len(places), _PLACES, replace=False)]
    lesions = _voxels_of_each(semantics.is_lesion(classes))
    return Scan(case.files.case, case.files.subject, classes, image, lesions, places)


def _voxels_of_each(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int16], ...]:
    numbers, boxes = components(mask)
    voxels = np.argwhere(mask).astype(np.int16)
    of = numbers[mask]
    order = np.argsort(of, kind="stable")
    ends = np.cumsum([0, *np.bincount(of, minlength=len(boxes) + 1)[1:]])
    return tuple(voxels[order[a:b]] for a, b in pairwise(ends.tolist()))


def ranges_of(scans: Sequence[Scan]) -> NDArray[np.float32]:
    """Largest difference from the tissue that is common, per channel, in spreads: (C,), 1 at least."""
    found = [
        np.percentile(np.abs(scan.image[:, scan.classes > 0].astype(np.float32)), _RANGE, axis=1)
        for scan in scans
    ]
    return np.median(found, axis=0).astype(np.float32).clip(min=1.0)


def means_of(scans: Sequence[Scan], count: int) -> NDArray[np.float32]:
    """Mean of each class in each channel, (count, C), in spreads; 0 where there is none of it."""
    total, sizes = np.zeros((count, len(scans[0].image))), np.zeros(count)
    for scan in scans:
        of = scan.classes.ravel()
        sizes += np.bincount(of, minlength=count)
        for number, channel in enumerate(scan.image):
            total[:, number] += np.bincount(of, channel.ravel().astype(np.float64), minlength=count)
    return np.asarray(total / np.maximum(sizes, 1)[:, None], dtype=np.float32)


class Patches:
    """Draws patches of some cases, every case as likely."""

    def __init__(self, scans: Sequence[Scan], spec: TranslationSpec) -> None:
        self.scans, self.spec = scans, spec
        self.shape = patch_shape(spec)

    def draw(self, rng: np.random.Generator, count: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Classes (B, p, p[, p]) and images (B, C, p, p[, p]) of `count` patches."""
        drawn = [self._one(rng) for _ in range(count)]
        classes = np.stack([own for own, _ in drawn])
        images = np.stack([image for _, image in drawn]).astype(np.float32)
        if self.spec.spatial_dims == 2:
            classes, images = classes[..., 0], images[..., 0]
        return classes, images

    def _one(self, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
        scan = self.scans[int(rng.integers(len(self.scans)))]
        places = scan.tissue
        if rng.random() < self.spec.lesion_share and scan.lesions:
            places = scan.lesions[int(rng.integers(len(scan.lesions)))]
        place = places[int(rng.integers(len(places)))]
        part = []
        for at, size, n in zip(place.tolist(), self.shape, scan.classes.shape, strict=True):
            moved = at - size // 2 + int(rng.integers(-(size // 4), size // 4 + 1))
            start = min(max(0, moved), n - size)
            part.append(slice(start, start + size))
        box = (part[0], part[1], part[2])
        classes, image = scan.classes[box], scan.image[(slice(None), *box)]
        if self.spec.flip and rng.random() < 0.5:
            classes, image = classes[::-1], image[:, ::-1]
        return classes, image
