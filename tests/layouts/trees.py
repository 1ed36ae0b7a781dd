"""Trees of small files: layouts look at names, not at voxels."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def touch(root: Path, names: Iterable[str]) -> None:
    """Make files that hold their own name."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def nnunet(root: Path, cases: Iterable[str], *, channels: int = 2, **description: Any) -> Path:
    """An nnU-Net raw data set; `description` replaces or adds keys of dataset.json, None removes one."""
    ending = description.get("file_ending") or ".nii.gz"
    root.mkdir(parents=True, exist_ok=True)
    for case in cases:
        touch(root, [f"imagesTr/{case}_{k:04d}{ending}" for k in range(channels)])
        touch(root, [f"labelsTr/{case}{ending}"])
    content = {
        "channel_names": {str(k): name for k, name in enumerate(("FLAIR", "T1", "T2")[:channels])},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": 0,
        "file_ending": ".nii.gz",
        **description,
    }
    kept = {key: value for key, value in content.items() if value is not None}
    (root / "dataset.json").write_text(json.dumps(kept))
    return root


def decathlon(root: Path, cases: Iterable[str], *, ending: str = ".nii.gz", **description: Any) -> Path:
    """A data set of the Decathlon; `description` replaces or adds keys of dataset.json, None removes one."""
    names = [f"{case}{ending}" for case in cases]
    touch(root, [f"{folder}/{name}" for folder in ("imagesTr", "labelsTr") for name in names])
    touch(root, ["imagesTr/._hidden.nii.gz", "labelsTr/._hidden.nii.gz", "imagesTs/test.nii.gz"])
    content = {
        "name": "BRATS",
        "tensorImageSize": "4D",
        "modality": {"0": "FLAIR", "1": "T1w"},
        "labels": {"0": "background", "1": "edema", "2": "enhancing tumour"},
        "numTraining": len(names),
        "numTest": 1,
        "training": [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names],
        "test": ["./imagesTs/test.nii.gz"],
        **description,
    }
    kept = {key: value for key, value in content.items() if value is not None}
    (root / "dataset.json").write_text(json.dumps(kept))
    return root
