"""nnU-Net itself checks, plans and preprocesses an output, and trains on its splits.

It is too large to be a dependency: the test runs where it is installed, or with the Python that the variable
NNUNET_PYTHON names.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from lesionsynth.recipe.load import load_recipe
from lesionsynth.run.session import run
from tests.run.test_convert import Silent

PYTHON = os.environ.get("NNUNET_PYTHON") or (sys.executable if find_spec("nnunetv2") else None)
needs_nnunet = pytest.mark.skipif(
    PYTHON is None, reason="nnunetv2 is not installed, NNUNET_PYTHON is not set"
)

CHECK = """
if __name__ == "__main__":  # its workers are new processes, which import this file
    import json, sys, torch
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api
    from nnunetv2.run.run_training import get_trainer_from_args

    api.extract_fingerprints([1], num_processes=1, check_dataset_integrity=True)
    plans = api.plan_experiments([1])
    api.preprocess([1], plans, configurations=["3d_fullres"], num_processes=[1])
    found = []
    for fold in range(int(sys.argv[1])):
        trainer = get_trainer_from_args("Dataset001_Test", "3d_fullres", fold, device=torch.device("cpu"))
        train, val = trainer.get_tr_and_val_datasets()
        channels = {part.load_case(case)[0].shape[0] for part in (train, val) for case in part.identifiers}
        parts = {"train": list(train.identifiers), "val": list(val.identifiers)}
        found.append({**parts, "channels": list(channels)})
    with open(sys.argv[2], "w") as stream:
        json.dump(found, stream)
"""


@needs_nnunet
def test_nnunet_takes_an_output(make_nnunet: Callable[..., Path], tmp_path: Path) -> None:
    output = tmp_path / "nnUNet_raw" / "Dataset001_Test"
    recipe = load_recipe("lesionmix", ["output.copies=1", "folds.count=3"])
    run(recipe, make_nnunet(6), output, Silent())
    splits = json.loads((output / "splits_final.json").read_text())
    folders = {name: str(tmp_path / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    script = tmp_path / "check.py"
    script.write_text(CHECK)
    command = [str(PYTHON), str(script), str(len(splits)), str(tmp_path / "found.json")]
    done = subprocess.run(command, env={**os.environ, **folders}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "verify_dataset_integrity Done" in done.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    for ours, theirs in zip(splits, found, strict=True):
        assert sorted(theirs["train"]) == sorted(ours["train"])
        assert sorted(theirs["val"]) == sorted(ours["val"])
        assert theirs["channels"] == [2]
        assert any("__syn" in case for case in ours["train"])
        assert not any("__syn" in case for case in ours["val"])
