"""Small data sets whose every voxel a test knows, and the copies a step makes of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionsynth.editing.canvas import Canvas
from lesionsynth.host import LoadedCase
from lesionsynth.recipe.model import Recipe
from lesionsynth.run.job import HostJobs
from lesionsynth.run.prepare import prepare
from tests.conftest import write_nifti
from tests.test_invariants import Silent

SHAPE = (24, 22, 20)
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
LABELS = {"background": 0, "lesion": 1, "lesion_core": 2, "vessel": 3}


@dataclass(frozen=True, eq=False)
class Made:
    """One copy, its record and its host."""

    canvas: Canvas
    record: dict[str, Any]
    host: LoadedCase

    @property
    def draws(self) -> list[dict[str, Any]]:
        """Edits of all steps."""
        return [draw for step in self.record["steps"] for draw in step["draws"]]

    @property
    def rejected(self) -> set[str]:
        """Reasons of refusals of all steps."""
        return {reason for step in self.record["steps"] for reason in step["rejected"]}


def image_of(seed: int, level: float = 400.0) -> NDArray[np.int16]:
    """Textured tissue, with air on two sides."""
    image = np.random.default_rng(seed).normal(level, 10, SHAPE).astype(np.int16)
    image[:1] = image[-1:] = 0
    return image


def ball(centre: tuple[float, float, float], radius_vox: float) -> NDArray[np.bool_]:
    """Voxels within a ball."""
    grid = np.indices(SHAPE)
    return np.asarray(sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= radius_vox**2)


def labelled(*lesions: NDArray[np.bool_], values: tuple[int, ...] = ()) -> NDArray[np.uint8]:
    """Label map of lesions, of label 1 where nothing else is said."""
    label = np.zeros(SHAPE, np.uint8)
    for number, lesion in enumerate(lesions):
        label[lesion] = values[number] if values else 1
    return label


def bright(image: NDArray[np.int16], label: NDArray[np.uint8]) -> NDArray[np.int16]:
    """The image with its lesions 200 above it."""
    return np.where(label > 0, image + 200, image).astype(np.int16)


def write_cases(
    root: Path, cases: Mapping[str, tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]]
) -> Path:
    """Write an nnU-Net raw data set of one channel; returns its folder."""
    for name, (image, label, affine) in cases.items():
        write_nifti(root / "imagesTr" / f"{name}_0000.nii.gz", image, affine)
        write_nifti(root / "labelsTr" / f"{name}.nii.gz", label, affine)
    about = {
        "channel_names": {"0": "CT"},
        "labels": LABELS,
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(about))
    return root


def copies(
    root: Path, output: Path, step: Mapping[str, Any], host: str | None = None, n: int = 1, **keys: Any
) -> Iterator[Made]:
    """Copies that a recipe of one step, or other `keys`, makes of `host`, or of every case."""
    recipe = Recipe.model_validate(
        {
            "steps": {"step": step},
            "output": {"copies": n},
            "folds": {"strategy": "none"},
            "tissue": {"kind": "mask"},
            "likelihood": {"kind": "grid"},
            "input": {"roles": {"vessel": "protected", "lesion_core": "lesion"}},
            **keys,
        }
    )
    prepared = prepare(recipe, root, output, Silent(), update=True)
    for job in prepared.jobs:
        if host in (None, job.host):
            maker = HostJobs(prepared.space, prepared.space.cohort.case(job.host))
            canvas, record, _ = maker.make(job)
            yield Made(canvas, record, maker.host)
