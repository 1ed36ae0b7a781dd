"""Semantic maps: the tissue classes of a case, with its lesions as the last classes; on a network's grid.

No torch is needed here. The map of a host is made as those of the training were, from what the checkpoint
says of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionsynth import nifti
from lesionsynth.domain.case import CaseFiles, Cohort
from lesionsynth.domain.grid import Box, Grid, origin_of, shape_of
from lesionsynth.errors import InputError
from lesionsynth.host import LoadedCase
from lesionsynth.kernels.deform import Warp, warp_image, warp_label
from lesionsynth.kernels.tissue import FLUID, GREY, VENTRICLE, WHITE
from lesionsynth.tissue import require_grid, side_file

_OWN = ((FLUID,), (GREY,), (WHITE,), (VENTRICLE,))
_MOST_CLASSES = 120
_MOST = np.iinfo(np.uint16).max
_SAME = 1e-3
_WHAT = "the label image of `map`"


@dataclass(frozen=True)
class Semantics:
    """Which classes a map has: 0 background, then tissue, then lesions.

    Parameters
    ----------
    pattern : str or None
        Path of the tissue label images, with {case} and {subject}, relative to the input; None for the codes
        of :mod:`lesionsynth.kernels.tissue`.
    groups : tuple of tuple of int
        Values that make up each class of tissue, from class 1.
    lesions : tuple of int
        Label values of lesions: the last classes.
    """

    pattern: str | None
    groups: tuple[tuple[int, ...], ...]
    lesions: tuple[int, ...]

    @classmethod
    def of(
        cls,
        cohort: Cohort,
        cases: Iterable[CaseFiles],
        pattern: str | None,
        groups: tuple[tuple[int, ...], ...],
    ) -> Semantics:
        """Of some cases of a cohort; without `groups`, each value above 0 that they have is a class.

        Raises
        ------
        InputError
            If a label image cannot be used, or there are too many values.
        """
        if pattern is None:
            return cls(None, _OWN, cohort.labels.lesion)
        if not groups:
            found: set[int] = set()
            for files in cases:
                image = nifti.read(side_file(pattern, files, cohort.root))
                found |= set(np.unique(_whole_numbers(image, files.case)).tolist())
            groups = tuple((value,) for value in sorted(found - {0}))
        if not 1 <= len(groups) <= _MOST_CLASSES:
            raise InputError(
                f"the label images {pattern} have {len(groups)} values above 0; there can be 1 to "
                f"{_MOST_CLASSES} classes.",
                file=cohort.root,
                remedy="Merge values into classes: classes: [[2, 41], [3, 42], ...].",
            )
        return cls(pattern, groups, cohort.labels.lesion)

    @property
    def count(self) -> int:
        """Number of classes, background included."""
        return 1 + len(self.groups) + len(self.lesions)

    @property
    def words(self) -> str:
        """Where the classes come from."""
        if self.pattern is not None:
            return f"{len(self.groups)} tissue classes of the label images {self.pattern}"
        return "tissue classes found by lesionsynth (fallback: no label images were given)"

    def about(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "labels": list(self.lesions),
            "map": self.pattern,
            "classes": [list(group) for group in self.groups],
            "tissue": self.words,
        }

    @classmethod
    def from_about(cls, about: dict[str, Any]) -> Semantics:
        """The reverse of :meth:`about`."""
        pattern = about["map"]
        if not all(0 <= int(value) <= _MOST for group in about["classes"] for value in group):
            raise ValueError(f"classes should be of values from 0 to {_MOST}")
        return cls(
            None if pattern is None else str(pattern),
            tuple(tuple(int(v) for v in group) for group in about["classes"]),
            tuple(int(v) for v in about["labels"]),
        )

    def tissue_of(self, case: LoadedCase) -> NDArray[np.uint8]:
        """Classes of the tissue of a whole case, without its lesions.

        Raises
        ------
        InputError
            If its label image is missing, lies on another grid, or holds other than whole numbers.
        """
        values: NDArray[Any] = case.tissue
        if self.pattern is not None:
            image = nifti.read(side_file(self.pattern, case.files, case.root))
            require_grid(case.files, image, case.grid, _WHAT)
            values = _whole_numbers(image, case.files.case)
        table = np.zeros(_MOST + 1, dtype=np.uint8)
        for number, group in enumerate(self.groups, start=1):
            table[list(group)] = number
        return table[values]

    def with_lesions(
        self, tissue: NDArray[np.uint8], label: NDArray[np.unsignedinteger]
    ) -> NDArray[np.uint8]:
        """Classes where lesions of `label` overwrite the tissue; both (i, j, k)."""
        classes = tissue.copy()
        for number, value in enumerate(self.lesions, start=1 + len(self.groups)):
            classes[label == value] = number
        return classes

    def is_lesion(self, classes: Any) -> Any:
        """Which classes are lesions, of any array library."""
        return classes > len(self.groups)


def _whole_numbers(image: nifti.Image, case: str) -> NDArray[np.uint16]:
    values = image.values()
    if not ((values >= 0) & (values <= _MOST) & (values == np.rint(values))).all():
        raise InputError(
            f"{_WHAT} has values that are not whole numbers from 0 to {_MOST}.",
            case=case,
            file=image.path,
            remedy="Give a label image, resampled with nearest-neighbour interpolation.",
        )
    return values.astype(np.uint16)


@dataclass(frozen=True)
class Window:
    """A box of a network's grid: its first voxel, which may lie before 0, and its size."""

    lower: tuple[int, int, int]
    shape: tuple[int, int, int]

    def at_least(self, shape: Sequence[int]) -> Window:
        """Grown evenly to both sides where it is smaller."""
        room = [max(0, n - own) for n, own in zip(shape, self.shape, strict=True)]
        i, j, k = (low - r // 2 for low, r in zip(self.lower, room, strict=True))
        a, b, c = (own + r for own, r in zip(self.shape, room, strict=True))
        return Window((i, j, k), (a, b, c))


@dataclass(frozen=True, eq=False)
class Frame:
    """A network's grid over a case: along the voxel axes nearest to the world's (RAS+), at its own spacing.

    Parameters
    ----------
    matrix : ndarray, (3, 3), float64
        Voxels of the case per voxel of the network; voxel 0 is the same in both.
    """

    matrix: NDArray[np.float64]

    @classmethod
    def of(cls, grid: Grid, spacing_mm: float, dims: int) -> Frame:
        """Of a case; with two dimensions, slices across the axis from foot to head stay as they are."""
        return cls.at(grid, (spacing_mm, spacing_mm, None if dims == 2 else spacing_mm))

    @classmethod
    def at(cls, grid: Grid, edges_mm: Sequence[float | None]) -> Frame:
        """Of a case, with a voxel edge for each axis of the world; None leaves the case's own."""
        matrix = np.zeros((3, 3))
        for axis, (world, sign) in enumerate(grid.world_axes):
            ratio = (edges_mm[world] or grid.spacing_mm[axis]) / grid.spacing_mm[axis]
            matrix[axis, world] = sign * (1.0 if abs(ratio - 1.0) < _SAME else ratio)
        return cls(matrix)

    def window(self, box: Box) -> Window:
        """The least window that covers a box of the case."""
        inverse = np.linalg.inv(self.matrix)
        corners = np.array([inverse @ c for c in product(*((b.start, b.stop - 1) for b in box))])
        low = np.floor(corners.min(axis=0) + _SAME).astype(int)
        high = np.ceil(corners.max(axis=0) - _SAME).astype(int)
        i, j, k = low.tolist()
        a, b, c = (high - low + 1).tolist()
        return Window((i, j, k), (a, b, c))

    def box(self, window: Window, shape: Sequence[int]) -> Box:
        """The box of a case of `shape` that the window looks at."""
        ends = [(low, low + n - 1) for low, n in zip(window.lower, window.shape, strict=True)]
        corners = np.array([self.matrix @ c for c in product(*ends)])
        low = np.floor(corners.min(axis=0)).astype(int).tolist()
        high = np.ceil(corners.max(axis=0)).astype(int).tolist()
        i, j, k = (
            slice(min(max(0, a), n - 1), max(min(n, b + 1), min(max(0, a), n - 1) + 1))
            for a, b, n in zip(low, high, shape, strict=True)
        )
        return i, j, k

    def classes(self, classes: NDArray[np.uint8], box: Box, window: Window) -> NDArray[np.uint8]:
        """Classes of a box of the case in a window; background beyond the box."""
        return warp_label(classes.astype(np.uint16), self._into(box, window)).astype(np.uint8)

    def image(self, image: NDArray[np.float32], box: Box, window: Window) -> NDArray[np.float32]:
        """Channels (C, i, j, k) of a box of the case in a window, linearly; its edge is repeated beyond."""
        return warp_image(image, self._into(box, window), 1)

    def back(self, image: NDArray[np.float32], window: Window, box: Box) -> NDArray[np.float32]:
        """Channels (C, i, j, k) of a window in a box of the case, linearly."""
        return warp_image(
            image,
            Warp(
                np.asarray(np.linalg.inv(self.matrix), dtype=np.float64),
                -np.array(window.lower, dtype=np.float64),
                origin_of(box),
                shape_of(box),
            ),
            1,
        )

    def _into(self, box: Box, window: Window) -> Warp:
        return Warp(self.matrix, -np.array(origin_of(box), dtype=np.float64), window.lower, window.shape)
