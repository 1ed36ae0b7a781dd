"""Rows and small data sets of which is known how they differ."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lesionsynth.qc.realism.lesions import Seen
from tests.conftest import write_nifti

CHANNELS = ("A", "B")
SIDE = 44


def seen(rng: np.random.Generator, number: int, host: str, group: str, shift: float = 0.0, **more) -> Seen:
    """A lesion of random looks; `shift` is added to the contrast of the first channel."""
    names = (
        *("level", "seam", "spread ratio", "band 0 inside", "band 1.4 inside", "band 0 edge", "level +4 mm"),
        *("spread", "level p5", "level p95"),
    )
    look = {f"{c} {name}": float(rng.normal()) for c in range(2) for name in names}
    look["0 level"] += shift
    volume = float(rng.uniform(20, 200))
    form = {"volume_mm3": volume, "sphericity": 0.8 + 0.1 * rng.normal()}
    form |= {"elongation": rng.uniform(0.3, 1), "flatness": rng.uniform(0.3, 1), "length_mm": 5.0}
    case = more.pop("case", host)
    subject = more.pop("subject", host)
    return Seen(case, host, subject, group, number, volume, (0, 0, 0), look, form, "deep", **more)


def lesions(seed: int, n: int = 60, shift: float = 0.0, hosts: int = 4, what: str = "real") -> list[Seen]:
    """Lesions in a few hosts, each of its own group."""
    rng = np.random.default_rng(seed)
    return [seen(rng, k, f"case{k % hosts}", f"{what}/{k}", shift) for k in range(n)]


def blobs(
    root: Path, n_cases: int, seed: int, hard: bool = False, first: int = 1, n_lesions: int = 12
) -> Path:
    """Write an nnU-Net raw data set: noise in a ball with soft, or hard and brighter, bright balls in it."""
    rng = np.random.default_rng(seed)
    for number in range(first, first + n_cases):
        images, label = _case(rng, hard, n_lesions)
        for channel, image in enumerate(images):
            write_nifti(root / "imagesTr" / f"case{number}_{channel:04d}.nii.gz", image, np.eye(4))
        write_nifti(root / "labelsTr" / f"case{number}.nii.gz", label, np.eye(4))
    description = {
        "channel_names": {str(k): name for k, name in enumerate(CHANNELS)},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": n_cases,
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(description))
    return root


def _case(
    rng: np.random.Generator, hard: bool, n_lesions: int
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    shape = (SIDE,) * 3
    grid = np.stack(np.indices(shape))
    brain = np.linalg.norm(grid - SIDE / 2, axis=0) < SIDE / 2 - 2
    share, label, centres = np.zeros(shape), np.zeros(shape, np.uint8), []
    for _ in range(10_000):
        if len(centres) == n_lesions:
            break
        centre, radius = rng.uniform(8, SIDE - 8, 3), rng.uniform(1.8, 3.0)
        if np.linalg.norm(centre - SIDE / 2) > SIDE / 2 - 7:
            continue
        if any(np.linalg.norm(centre - other) < 9 for other in centres):
            continue
        centres.append(centre)
        distance = np.linalg.norm(grid - centre[:, None, None, None], axis=0)
        inside = distance <= radius
        share = np.maximum(share, inside if hard else np.clip(0.5 - (distance - radius) / 3, 0, 1))
        label[inside] = 1
    images = []
    for sign in (1, -1):
        noise = ndimage.gaussian_filter(rng.normal(size=shape), 0.8)
        image = 1000 + 25 * noise / noise.std() + sign * 200 * share
        images.append(np.where(brain, image, 0))
    return np.array(images).astype(np.int16), label
