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
