"""Hosts and lesions that can be checked by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from lesionsynth import nifti
from lesionsynth.domain.case import CaseFiles, LabelTable
from lesionsynth.domain.grid import Grid
from lesionsynth.domain.lesion import ChannelStats, Lesion, LesionInfo, Site
from lesionsynth.host import LoadedCase
from lesionsynth.kernels.tissue import WHITE

TABLE = LabelTable(
    {"background": 0, "lesion": 1, "liver": 2, "vessel": 3, "core": 4},
    {
        "background": "background",
        "lesion": "lesion",
        "liver": "organ",
        "vessel": "protected",
        "core": "lesion",
    },
)


@pytest.fixture
def make_host(tmp_path: object) -> Callable[..., LoadedCase]:
    """Build a case in memory: textured tissue everywhere, int16, two channels."""

    def make(
        shape: tuple[int, int, int] = (24, 24, 24),
        label: NDArray[np.uint16] | None = None,
        tissue: NDArray[np.uint8] | None = None,
        spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
        images: list[NDArray[np.generic]] | None = None,
    ) -> LoadedCase:
        rng = np.random.default_rng(0)
        grid = Grid(shape, np.diag([*spacing, 1.0]))
        if images is None:
            images = [rng.normal(level, 10, shape).astype(np.int16) for level in (300, 800)]
        label = np.zeros(shape, np.uint16) if label is None else label
        tissue = np.full(shape, WHITE, np.uint8) if tissue is None else tissue
        files = CaseFiles("host", "person", (), nifti.Path("none"))
        stored = tuple(nifti.new(grid, image) for image in images)
        names = tuple(f"channel{number}" for number in range(len(images)))
        label_image = nifti.new(grid, label.astype(np.uint8))
        return LoadedCase(files, TABLE, stored, label_image, label, tissue, "mask", channels=names)

    return make


@pytest.fixture
def make_lesion() -> Callable[..., Lesion]:
    """Build a donor: a bright cube on flat surroundings."""

    def make(
        side: int = 3,
        margin: int = 5,
        levels: tuple[float, ...] = (100.0, 50.0),
        contrast: float = 40.0,
        value: int = 1,
    ) -> Lesion:
        n = side + 2 * margin
        label = np.zeros((n, n, n), np.uint16)
        label[(slice(margin, margin + side),) * 3] = value
        image = np.stack([np.full(label.shape, level, np.float32) for level in levels])
        image[:, label > 0] += contrast
        centre = margin + side // 2
        info = LesionInfo(
            lesion="donor/0001",
            case="donor",
            subject="somebody",
            classes=(value,),
            volume_mm3=float(side**3),
            centre_vox=(centre,) * 3,
            origin_vox=(0, 0, 0),
            shape_vox=label.shape,
            axes_mm=tuple(np.eye(3).ravel()),
            channels=tuple(ChannelStats(level, 10.0, level + contrast, 10.0, 5.0) for level in levels),
            site=Site("inside", 9.0, None),
            source_hash="",
        )
        return Lesion(info, image, label, np.ones(label.shape, bool))

    return make
