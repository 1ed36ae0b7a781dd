"""Small data sets that the tests make themselves."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import settings
from make_sample_data import make_subject
from numpy.typing import NDArray

from tests.fake_device import device, fake_device, fake_gpus
from tests.generative.models import masks_of_phantoms, shape_models
from tests.generative.translating import translations
from tests.trained_hvae import trained_hvae

# Tests run in parallel: threads of torch that wait for each other's core would take many times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

__all__ = [
    "device",
    "fake_device",
    "fake_gpus",
    "masks_of_phantoms",
    "shape_models",
    "trained_hvae",
    "translations",
]

# Compiled kernels are loaded when they are first called, which has nothing to do with the example.
settings.register_profile("compiled", deadline=None)
settings.load_profile("compiled")

SHAPE, SPACING = (24, 30, 25), (4.0, 4.0, 4.0)
LESION_RICH = (0, 3, 4, 1, 2, 5)
"""Phantom subjects, those with several lesions at this size first."""


def write_nifti(path: Path, data: NDArray[np.generic], affine: NDArray[np.float64]) -> None:
    """Write an image with nibabel, so that our own writer is not tested by itself."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nib.Nifti1Image(data, affine).to_filename(path)


@pytest.fixture(scope="session")
def phantoms() -> list[tuple[NDArray[np.int16], NDArray[np.uint8], NDArray[np.float64]]]:
    """Six phantom brains at 24x30x25 voxels of 4 mm: (images (2, i, j, k), label, affine)."""
    return [make_subject(index, shape=SHAPE, spacing_mm=SPACING) for index in LESION_RICH]


def write_phantoms(
    root: Path, phantoms: list[tuple[NDArray[np.int16], NDArray[np.uint8], NDArray[np.float64]]]
) -> Path:
    """Write an nnU-Net raw data set of cases case1, case2, ...; returns its folder."""
    for number, (images, label, affine) in enumerate(phantoms, start=1):
        for channel, image in enumerate(images):
            write_nifti(root / "imagesTr" / f"case{number}_{channel:04d}.nii.gz", image, affine)
        write_nifti(root / "labelsTr" / f"case{number}.nii.gz", label, affine)
    description = {
        "channel_names": {"0": "FLAIR", "1": "T1"},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": len(phantoms),
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(description))
    return root


@pytest.fixture
def make_nnunet(
    tmp_path: Path, phantoms: list[tuple[NDArray[np.int16], NDArray[np.uint8], NDArray[np.float64]]]
) -> Callable[..., Path]:
    """Write an nnU-Net raw data set of phantoms; returns its folder."""

    def make(n: int = 4, name: str = "data", splits: object = None) -> Path:
        root = write_phantoms(tmp_path / name, phantoms[:n])
        if splits is not None:
            (root / "splits_final.json").write_text(json.dumps(splits))
        return root

    return make
