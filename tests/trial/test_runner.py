"""Which cells are done again, and which are not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lesionsynth.generative import training
from lesionsynth.recipe.load import load_recipe
from lesionsynth.recipe.model import InputSpec
from lesionsynth.run.cohort import open_cohort
from lesionsynth.run.pool import ALONE
from lesionsynth.trial.arms import Arm, arms_of
from lesionsynth.trial.cells import Cell, Setting
from lesionsynth.trial.runner import Runner
from tests.test_invariants import Silent
from tests.trial.test_cell import CELL, MODELS, SPEC

NONE = replace(CELL, arm="none")


@pytest.fixture
def root(make_nnunet: Callable[..., Path]) -> Path:
    return make_nnunet(4)


def key_of(root: Path, cell: Cell, arm: Arm, trainer: str | None = None, **changed: object) -> str:
    setting = Setting(open_cohort(InputSpec(), root)[1], InputSpec(), SPEC, MODELS, root.parent / "out")
    return Runner(replace(setting, **changed), Silent(), ALONE, trainer, None).key(cell, arm)


def touch(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def mix(*overrides: str) -> Arm:
    return Arm("mix", load_recipe("lesionmix", overrides))


def test_all_that_a_cell_depends_on_is_in_its_key(root: Path) -> None:
    keys = [key_of(root, CELL, mix())]
    assert key_of(root, CELL, mix()) == keys[0]
    keys.append(key_of(root, replace(CELL, seed=1), mix()))
    keys.append(key_of(root, CELL, mix("output.copies=3")))
    keys.append(key_of(root, CELL, mix("training.share=0.25")))
    keys.append(key_of(root, CELL, replace(mix(), renewed=1.0)))
    keys.append(key_of(root, CELL, replace(mix(), prototype="cross")))
    keys.append(key_of(root, CELL, mix(), spec=SPEC.model_copy(update={"steps": 5})))
    keys.append(key_of(root, CELL, mix(), prevalence=0.01))
    keys.append(key_of(root, CELL, mix(), trainer="nnUNetTrainer"))
    about = root / "dataset.json"
    about.write_text(about.read_text().replace('"T1"', '"CT"'))  # is normalised in another way
    keys.append(key_of(root, CELL, mix()))
    touch(root / "labelsTr" / "case1.nii.gz")
    keys.append(key_of(root, CELL, mix()))
    assert len(set(keys)) == len(keys)


def test_networks_of_another_kind_of_device_or_torch_are_others(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU computes in half precision: arms of one group are to be made alike."""
    keys = [key_of(root, CELL, mix(), device=name) for name in ("cpu", "auto")]
    with monkeypatch.context() as other:
        other.setattr(training, "open_torch_device", lambda *given: torch.device("cuda", 1))
        keys.append(key_of(root, CELL, mix(), device="cuda:1"))
        other.setattr(training, "open_torch_device", lambda *given: torch.device("cuda", 0))
        assert key_of(root, CELL, mix(), device="cuda") == keys[-1]
    with monkeypatch.context() as other:
        other.setattr(torch, "__version__", "9.9")
        keys.append(key_of(root, CELL, mix()))
    assert len(set(keys)) == (3 if not torch.cuda.is_available() else 4)
    # nnU-Net trains where and with what it likes, and torch is not asked.
    monkeypatch.delattr(training, "open_torch_device")
    keys = [key_of(root, CELL, mix(), "nnUNetTrainer", device=name) for name in ("cpu", "cuda")]
    assert keys[0] == keys[1]


def test_the_arms_of_one_call_do_not_change_each_others_keys(root: Path) -> None:
    """Arms may be added to a trial, in any order."""
    longer, more = (arm for arm in arms_of([], load_recipe, controls=["longer", "lesions"]) if arm.control)
    none = key_of(root, NONE, Arm("none", None))
    assert none == key_of(root, NONE, replace(Arm("none", None)))
    assert len({none, key_of(root, NONE, longer), key_of(root, NONE, more)}) == 3
    # Settings of the built-in network are nothing to nnU-Net, nor are those of models that are not needed.
    others = {kind: spec.model_copy(update={"steps": 5}) for kind, spec in MODELS.items()}
    for changed in ({"spec": SPEC.model_copy(update={"steps": 5})}, {"models": others}):
        assert key_of(root, CELL, mix(), "nnUNetTrainer") == key_of(
            root, CELL, mix(), "nnUNetTrainer", **changed
        )


def test_files_that_one_recipe_reads_count_for_its_arm_alone(root: Path) -> None:
    """A tissue map beside the images, and masks without images."""
    for folder in ("tissue", "masks"):
        (root / folder).mkdir()
    for number in range(1, 5):
        label = root / "labelsTr" / f"case{number}.nii.gz"
        (root / "tissue" / f"case{number}.nii.gz").write_bytes(label.read_bytes())
    (root / "masks" / "other.nii.gz").write_bytes(label.read_bytes())
    tissue = mix("tissue.map=tissue/{case}.nii.gz")
    masks = mix("input.masks.path=masks/{subject}.nii.gz")
    before = [key_of(root, CELL, arm) for arm in (mix(), tissue, masks)]
    touch(root / "tissue" / "case1.nii.gz")
    after = [key_of(root, CELL, arm) for arm in (mix(), tissue, masks)]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]
    touch(root / "masks" / "other.nii.gz")
    last = [key_of(root, CELL, arm) for arm in (mix(), tissue, masks)]
    assert [a == b for a, b in zip(after, last, strict=True)] == [True, True, False]


def test_a_cell_that_is_done_is_read_and_not_done_again(root: Path) -> None:
    setting = Setting(open_cohort(InputSpec(), root)[1], InputSpec(), SPEC, MODELS, root.parent / "out")
    runner = Runner(setting, Silent(), ALONE, None, None)
    pair = (NONE, Arm("none", None))
    assert runner.told(*pair) is None
    assert runner.do([pair], "first")
    told = runner.told(*pair)
    assert told is not None
    path = setting.output / "cells" / f"{NONE.name}.json"
    path.write_text(json.dumps(told | {"mark": 1}))
    assert Runner(setting, Silent(), ALONE, None, 0.0).do([pair], "again")  # needs no time
    assert json.loads(path.read_text())["mark"] == 1
    path.write_text("[]")
    assert runner.told(*pair) is None
    assert not Runner(setting, Silent(), ALONE, None, 0.0).do([pair], "again")
