"""Slices, patches and low-resolution volumes of cases, with their lesion masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lesionsynth.bank.store import LesionBank
from lesionsynth.domain.case import Cohort
from lesionsynth.domain.grid import Box, Grid, bounding_box, grown, origin_of
from lesionsynth.domain.lesion import LesionInfo
from lesionsynth.errors import InputError
from lesionsynth.generative.checkpoint import TrainedOn
from lesionsynth.generative.crops import RIM_MM, as_shown
from lesionsynth.generative.specs import HvaeSpec
from lesionsynth.host import LoadedCase, load_case
from lesionsynth.kernels.components import components
from lesionsynth.kernels.deform import Warp, warp_image, warp_label
from lesionsynth.kernels.tissue import OUTSIDE
from lesionsynth.rng import stream
from lesionsynth.tissue import TissueSpec

_MIDDLE = 0.5
"""Share of a sample's edge in which what it is about shall lie."""
_SMOOTHED_VOX = 3
"""Voxels, of the sample or the case, around a sample that resampling looks at."""


class Learner(Protocol):
    """What a model is told while its data are read: see :class:`lesionsynth.generative.training.Told`."""

    def start(self, stage: str, total: int) -> None:
        """A stage of `total` cases begins."""

    def advance(self, done: int = 1) -> None:
        """So many more are read."""


@dataclass(frozen=True, eq=False)
class Sample:
    """A part of a case; its axes are the case's own, in the order and direction nearest RAS+.

    Parameters
    ----------
    about : TrainedOn
        The lesion that it lies on; the case where it lies on none.
    on_lesion : bool
    image : ndarray, (C, n, n[, n]), float32
        Difference from the median of the case's tissue, in units of that tissue's spread.
    classes : ndarray, (n, n[, n]), uint8
        0 outside, k for the k-th label value of lesions.
    """

    about: TrainedOn
    on_lesion: bool
    image: NDArray[np.float32]
    classes: NDArray[np.uint8]

    @property
    def subject(self) -> str:
        """Whose it is."""
        return self.about.subject

    @property
    def name(self) -> str:
        """Of the lesion, or of the case."""
        return self.about.name


@dataclass(frozen=True, eq=False)
class Samples:
    """All samples of a training, their voxel edge, and the tissue of the cases.

    Parameters
    ----------
    parts : tuple of Sample
    spacing_mm : float
    tissue : tuple of (float, float, float)
        Of each channel, in the images' own units: median, spread and least intensity, means over the cases.
    """

    parts: tuple[Sample, ...]
    spacing_mm: float
    tissue: tuple[tuple[float, float, float], ...]


def samples_of(
    bank: LesionBank, cohort: Cohort, tissue: TissueSpec, spec: HvaeSpec, told: Learner
) -> Samples:
    """Samples of all cases of a cohort, as many of one as of the other.

    Raises
    ------
    InputError
        If there is no lesion among them.
    """
    infos = {case.case: bank.of_case(case.subject, case.case) for case in cohort.cases}
    if not any(infos.values()):
        raise InputError(
            f"none of the {len(cohort.cases)} cases of this block has a lesion.",
            file=cohort.root,
            remedy="Use fewer folds, or folds.strategy per_fold or none.",
        )
    spacing = spec.spacing_mm or _auto_spacing(bank, cohort, spec, [i for own in infos.values() for i in own])
    parts: list[Sample] = []
    levels = []
    told.start("samples", len(cohort.cases))
    for number, files in enumerate(cohort.cases):
        case = load_case(files, cohort, tissue, bank.known(bank.case(files.case)))
        # Cases share the number of samples; the first get what is left over.
        count = spec.samples // len(cohort.cases) + (number < spec.samples % len(cohort.cases))
        view = _View(case, spacing, cohort.labels.lesion)
        parts += view.samples(infos[files.case], count, spec)
        levels.append([(m, s, low) for (m, s), low in zip(case.tissue_stats, view.least, strict=True)])
        told.advance()
    means = np.mean(np.array(levels), axis=0)
    return Samples(tuple(parts), spacing, tuple((float(m), float(s), float(low)) for m, s, low in means))


def _auto_spacing(bank: LesionBank, cohort: Cohort, spec: HvaeSpec, lesions: Sequence[LesionInfo]) -> float:
    if spec.sample == "patches":
        fine = float(np.median([bank.case(c.case).grid.voxel_volume_mm3 ** (1 / 3) for c in cohort.cases]))
        extents = [2 * RIM_MM + max(_extent_mm(bank, info)) for info in lesions]
        return round(max(fine, float(np.quantile(extents, 0.9)) / (_MIDDLE * spec.size)), 4)
    extent = 0.0
    for case in cohort.cases:
        summary = bank.case(case.case)
        box = summary.tissue_box
        if box is not None:
            sides = [(b.stop - b.start) * s for b, s in zip(box, summary.grid.spacing_mm, strict=True)]
            up = summary.grid.axis_towards(2)
            extent = max(extent, *(s for a, s in enumerate(sides) if spec.sample == "volumes" or a != up))
    return round(extent / (spec.size - 2), 4)  # with a voxel to spare on each side


def _extent_mm(bank: LesionBank, info: LesionInfo) -> list[float]:
    box = bounding_box(bank.read(info.lesion).label > 0)
    assert box is not None
    return [(b.stop - b.start) * s for b, s in zip(box, info.spacing_mm, strict=True)]


class _View:
    """One case on the grid of the samples.

    Parameters
    ----------
    case : LoadedCase
    spacing_mm : float
    values : sequence of int
        Label values of lesions, in the order of the classes.
    """

    def __init__(self, case: LoadedCase, spacing_mm: float, values: Sequence[int]) -> None:
        self.case, self.spacing_mm, self.values = case, spacing_mm, values
        self.matrix = _towards_world(case.grid) * spacing_mm
        self.matrix /= np.array(case.grid.spacing_mm)[:, None]
        self.up = case.grid.axis_towards(2)
        images = case.all_values
        self.least = [float(channel.min()) for channel in images]
        self.images = as_shown(images, case.tissue_stats, case.lesion_mask)

    def samples(self, lesions: Sequence[LesionInfo], count: int, spec: HvaeSpec) -> Iterator[Sample]:
        """Samples of the case; the whole of it once where they are volumes."""
        files = self.case.files
        whole = TrainedOn(name=files.case, case=files.case, subject=files.subject)
        box = bounding_box(self.case.tissue != OUTSIDE)
        if box is None:
            return
        middle = np.array([(b.start + b.stop - 1) / 2 for b in box])
        if spec.sample == "volumes":
            largest = max(lesions, key=lambda info: info.volume_mm3, default=None)
            about = whole if largest is None else _named(largest)
            yield self._cut(middle, (spec.size,) * 3, about, largest is not None)
            return
        rng = stream(spec.seed, "train", "samples", files.case)
        tissue = np.argwhere(self.case.tissue != OUTSIDE)
        for _ in range(count):
            info = None
            if lesions and rng.random() < spec.lesion_share:
                info = lesions[int(rng.integers(len(lesions)))]
                at = np.array(info.centre_vox, dtype=np.float64)
            else:
                at = tissue[int(rng.integers(len(tissue)))].astype(np.float64)
            about = whole if info is None else _named(info)
            moved = self.matrix @ (rng.uniform(-1, 1, 3) * spec.jitter * spec.size)
            if spec.sample == "patches":
                yield self._cut(at + moved, (spec.size,) * 3, about, info is not None)
                continue
            # A slice shows what lies around the middle of the tissue, unless the lesion lies too far off.
            reach = np.abs(self.matrix).sum(1) * spec.size * _MIDDLE / 2
            centre = np.clip(middle, at - reach, at + reach) + moved
            centre[self.up] = at[self.up] if info is None else self._level(info, rng)
            yield self._cut(centre, (spec.size, spec.size, 1), about, info is not None)

    def _level(self, info: LesionInfo, rng: np.random.Generator) -> float:
        """One of the slices that a lesion lies in, by how much of it lies there."""
        numbers, boxes = self.case.lesions
        box = boxes[info.component - 1]
        places = np.nonzero(numbers[box] == info.component)[self.up]
        return float(box[self.up].start + places[int(rng.integers(places.size))])

    def _cut(
        self, centre: NDArray[np.float64], shape: tuple[int, int, int], about: TrainedOn, on_lesion: bool
    ) -> Sample:
        half = (np.array(shape) - 1) / 2
        matrix = self.matrix.copy()
        if shape[2] == 1:
            matrix[:, 2] = 0.0
            matrix[self.up, 2] = 1.0  # a slice of the case as it is, however thick
            centre[self.up] = np.rint(centre[self.up])
        reach = np.abs(matrix) @ (half + _SMOOTHED_VOX) + _SMOOTHED_VOX
        size = self.case.grid.shape
        at = [int(np.clip(np.rint(c), 0, n - 1)) for c, n in zip(centre, size, strict=True)]
        spot: Box = (slice(at[0], at[0] + 1), slice(at[1], at[1] + 1), slice(at[2], at[2] + 1))
        box = grown(spot, [int(np.ceil(r)) for r in reach], size)
        warp = Warp(matrix, centre - origin_of(box) - matrix @ half, (0, 0, 0), shape)
        image = warp_image(self.images[(slice(None), *box)], warp, 1)
        label = warp_label(self.case.label[box].astype(np.uint16), warp)
        classes = np.zeros(label.shape, dtype=np.uint8)
        for number, value in enumerate(self.values, start=1):
            classes[label == value] = number
        image = np.where(self._inside(warp, box), image, image.min(axis=(1, 2, 3), keepdims=True))
        if shape[2] == 1:
            image, classes = image[..., 0], classes[..., 0]
        return Sample(about, on_lesion, np.ascontiguousarray(image, np.float32), classes)

    def _inside(self, warp: Warp, box: Box) -> NDArray[np.bool_]:
        """Where a sample lies in the case's volume; beyond, the least intensity is shown."""
        inside = np.ones(warp.shape, dtype=bool)
        for where, start, n in zip(warp.coordinates(), origin_of(box), self.case.grid.shape, strict=True):
            inside &= (where + start >= -0.5) & (where + start <= n - 0.5)
        return inside


def _towards_world(grid: Grid) -> NDArray[np.float64]:
    """Voxel axis and sign of each world axis, a (3, 3) matrix of 0 and +-1."""
    matrix = np.zeros((3, 3))
    for axis, (world, sign) in enumerate(grid.world_axes):
        matrix[axis, world] = sign
    return matrix


def _named(info: LesionInfo) -> TrainedOn:
    return TrainedOn(name=info.lesion, case=info.case, subject=info.subject)


@dataclass(frozen=True)
class Seen:
    """Range of lesion volumes in the samples: of all lesion voxels together, and of the largest lesion."""

    least_mm3: float
    most_mm3: float
    least_single_mm3: float
    most_single_mm3: float

    @classmethod
    def of(cls, samples: Sequence[Sample], spacing_mm: float) -> Seen:
        """Of samples, those without any lesion left aside; a slice is as thick as its voxels are wide."""
        found = [sizes for sizes in (component_sizes(sample.classes) for sample in samples) if sizes.size]
        if not found:
            raise InputError(
                "no lesion is left on the grid of the samples.",
                remedy=f"Choose a spacing_mm below {spacing_mm:g}, or a larger size.",
            )
        totals, largest = [int(sizes.sum()) for sizes in found], [int(sizes.max()) for sizes in found]
        vox_mm3 = spacing_mm**3
        return cls(
            min(totals) * vox_mm3, max(totals) * vox_mm3, min(largest) * vox_mm3, max(largest) * vox_mm3
        )

    def refusal(self, classes: NDArray[np.uint8], spacing_mm: float) -> str | None:
        """Why a generated mask (n, n[, n]) is none, or None where it is one."""
        sizes = component_sizes(classes) * spacing_mm**3
        if not sizes.size:
            return "empty mask"
        if sizes[sizes < self.least_single_mm3].sum() > _MOST_SPECKS * sizes.sum():
            return "broken-up mask"
        if sizes.sum() < self.least_mm3 or sizes.sum() > self.most_mm3:
            return "mask of a size not seen in training"
        return None


_MOST_SPECKS = 0.25
"""Share of a mask that may be smaller than any lesion that was trained on."""


def component_sizes(classes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Voxels of each connected component of the lesions of a sample (n, n[, n])."""
    mask = np.atleast_3d(classes > 0)
    numbers, _ = components(mask)
    return np.bincount(numbers[mask])[1:] if mask.any() else np.zeros(0, dtype=np.int64)
