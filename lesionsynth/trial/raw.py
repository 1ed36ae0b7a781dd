"""Raw data sets of nnU-Net, written from what is in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lesionsynth import nifti
from lesionsynth.domain.grid import Grid
from lesionsynth.layouts.dataset_json import DESCRIPTION


def write_case(
    root: Path,
    side: str,
    case: str,
    image: NDArray[np.float32],
    label: NDArray[np.unsignedinteger],
    grid: Grid,
) -> None:
    """Write channels (C, i, j, k) and label map (i, j, k) of a case; `side` is Tr or Ts."""
    for channel, values in enumerate(image):
        path = root / f"images{side}" / f"{case}_{channel:04d}.nii.gz"
        nifti.write(path, nifti.new(grid, np.asfortranarray(values)))
    nifti.write(root / f"labels{side}" / f"{case}.nii.gz", nifti.new(grid, np.asfortranarray(label)))


def write_description(root: Path, channels: Sequence[str], labels: Mapping[str, int], count: int) -> None:
    """Write dataset.json; `count` cases train."""
    about = {
        "channel_names": {str(number): name for number, name in enumerate(channels)},
        "labels": dict(labels),
        "numTraining": count,
        "file_ending": ".nii.gz",
    }
    nifti.write_bytes(root / DESCRIPTION, json.dumps(about, indent=1).encode())
