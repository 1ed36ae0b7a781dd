"""A small case on the disk, as its reader wants it."""

from __future__ import annotations

import numpy as np

from lesionsynth.domain.case import CaseFiles, Cohort, LabelTable
from tests.conftest import write_nifti

SHAPE = (16, 17, 18)
BOX = (slice(3, 5), slice(4, 6), slice(5, 7))
VALUES = {"background": 0, "lesion": 1, "organ": 2, "other": 3, "void": 4, "large": 70000}
ROLES = dict(zip(VALUES, ("background", "lesion", "organ", "protected", "ignore", "lesion"), strict=True))
NO_ORGAN = {**ROLES, "organ": "background"}


def written(folder, images=None, label=None, roles=NO_ORGAN, channels=("CT",), affines=None):
    """Write one case and return (files, cohort)."""
    rng = np.random.default_rng(0)
    images = [rng.normal(100, 10, SHAPE).astype(np.float32) for _ in channels] if images is None else images
    label = np.zeros(SHAPE, np.uint8) if label is None else label
    affines = affines or [np.eye(4)] * (len(images) + 1)
    for n, (image, affine) in enumerate(zip([*images, label], affines, strict=True)):
        write_nifti(folder / f"{n}.nii.gz", image, affine)
    paths = [folder / f"{n}.nii.gz" for n in range(len(images) + 1)]
    files = CaseFiles("a", "A", tuple(paths[:-1]), paths[-1])
    return files, Cohort(folder, "x", tuple(channels), LabelTable(VALUES, roles), (files,))


def lesion_at(box, value=1, dtype=np.uint8):
    """A label map with one box of a value."""
    label = np.zeros(SHAPE, dtype)
    label[box] = value
    return label
