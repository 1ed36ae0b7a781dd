"""Data sets of full size made from the sample cohort, for benchmarks without data of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from scipy import ndimage

from lesionsynth import nifti
from lesionsynth.domain.grid import Grid

SHAPE = (182, 218, 182)
SAMPLE = Path(__file__).parent.parent / "sample_data"


def make_data_set(folder: Path, channels: int, subjects: int = 2, dtype: str = "float32") -> Path:
    """nnU-Net raw data set of stripped brains at 182x218x182 voxels of 1 mm.

    The sample cohort at twice its resolution, in the middle of the volume; channels beyond the second are
    the first ones with other noise. For dtype int16 the background is noisy, as in images with skull.
    """
    names = sorted(path.name[:-12] for path in (SAMPLE / "imagesTr").glob("*_0000.nii.gz"))[:subjects]
    grid = Grid(SHAPE, np.diag([1.0, 1.0, 1.0, 1.0]))
    for number, name in enumerate(names):
        rng = np.random.default_rng(number)
        label = _enlarged(nifti.read(SAMPLE / "labelsTr" / f"{name}.nii.gz").values(), 0)
        nifti.write(folder / "labelsTr" / f"big{number}.nii.gz", nifti.new(grid, label.astype(np.uint8)))
        for channel in range(channels):
            image = nifti.read(SAMPLE / "imagesTr" / f"{name}_{channel % 2:04d}.nii.gz").values()
            large = _enlarged(image, 3)
            noise = rng.normal(0, 0.02 * image.max(), SHAPE)
            large = np.where(_enlarged((image > 0).astype(np.float32), 0) > 0, large + noise, 0.0)
            if dtype == "int16":
                large += np.abs(rng.normal(0, 12, SHAPE))
            path = folder / "imagesTr" / f"big{number}_{channel:04d}.nii.gz"
            nifti.write(path, nifti.new(grid, np.asfortranarray(large.astype(dtype))))
    about = {
        "channel_names": {str(c): ("FLAIR", "T1", "T2", "PD")[c] for c in range(channels)},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": len(names),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(about))
    return folder


def _enlarged(volume: np.ndarray, order: int) -> np.ndarray:
    large = ndimage.zoom(volume, 2, order=order, mode="nearest")
    spare = [n - m for n, m in zip(SHAPE, large.shape, strict=True)]
    return np.pad(large, [(s // 2, s - s // 2) for s in spare])
