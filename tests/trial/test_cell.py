"""One cell: what it is made of, and what it leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lesionsynth import nifti
from lesionsynth.bank.store import LesionBank
from lesionsynth.domain.case import CaseFiles, Cohort
from lesionsynth.errors import LeakError, NoRoomError, OutputError
from lesionsynth.generative.checkpoint import read_card, read_checkpoint, write_checkpoint
from lesionsynth.generative.specs import SPECS
from lesionsynth.recipe.load import load_recipe
from lesionsynth.recipe.model import InputSpec, Recipe
from lesionsynth.run.cohort import open_cohort
from lesionsynth.trial.arms import Arm
from lesionsynth.trial.cell import run_cell
from lesionsynth.trial.cells import Cell, Setting
from lesionsynth.trial.segment import SegmentationTask
from lesionsynth.trial.spec import TrialSpec
from lesionsynth.trial.supply import recipe_for, synthesised

SPEC = TrialSpec.model_validate(
    {
        **TrialSpec.presets["tiny"], "steps": 4, "validate_every": 2, "widths": (4, 4, 4), "most_patch": 16,
        "validation_patches": 2,
    }
)  # fmt: skip
MODELS = {kind: spec.model_validate(spec.presets["tiny"]) for kind, spec in SPECS.items()}
CELL = Cell("mix", 1.0, 0, 0, ("case1", "case2"), ("case3",), ("case4",))
ONE = ["output.copies=1", "steps.add.load=[2, 8]"]


def setting_of(cohort: Cohort, output: Path, prevalence: float | None = None) -> Setting:
    return Setting(cohort, InputSpec(), SPEC, MODELS, output, prevalence=prevalence)


@pytest.fixture
def cohort(make_nnunet: Callable[..., Path]) -> Cohort:
    return open_cohort(InputSpec(), make_nnunet(4))[1]


def cell_of(cohort: Cohort, output: Path, cell: Cell = CELL, *more: str, recipe: str = "lesionmix"):
    arm = Arm(cell.arm, None if cell.arm == "none" else load_recipe(recipe, [*ONE, *more]))
    return run_cell(cell, arm, setting_of(cohort, output), "key")


def without_lesions(cohort: Cohort, *names: str) -> None:
    for name in names:
        label = nifti.read(cohort.case(name).label)
        nifti.write(cohort.case(name).label, nifti.new(label.grid, np.zeros_like(label.values())))


def made_of(cohort: Cohort, recipe: Recipe, folder: Path, cell: Cell = CELL) -> list[CaseFiles]:
    return synthesised(
        recipe_for(recipe, cell, InputSpec(), cohort, setting_of(cohort, folder), folder), cohort, folder
    )


def test_synthetic_cases_are_made_of_the_training_subjects_alone(cohort: Cohort, tmp_path: Path) -> None:
    made = made_of(cohort, load_recipe("lesionmix", ONE), tmp_path / "w")
    assert {files.subject for files in made} == {"case1", "case2"}
    for files in made:
        assert all(path.is_file() for path in (*files.images, files.label))
    synthetic = tmp_path / "w" / "synthetic"
    with LesionBank(synthetic / "bank") as bank:
        assert {case.subject for case in bank.cases()} == {"case1", "case2"}
    for path in (synthetic / "records").iterdir():
        record = json.loads(path.read_text())
        assert set(record["fitted_on"]) <= {"case1", "case2"}
        assert {donor["subject"] for donor in record["donors"]} <= {"case1", "case2"}


def test_seeds_get_other_lesions_and_one_seed_the_same(cohort: Cohort, tmp_path: Path) -> None:
    def volumes(seed: int, name: str) -> list[str]:
        cell = Cell("mix", 1.0, seed, 0, CELL.train, CELL.validation, CELL.test)
        made_of(cohort, load_recipe("lesionmix", ONE), tmp_path / name, cell)
        records = sorted((tmp_path / name / "synthetic" / "records").iterdir())
        return [json.loads(path.read_text())["hashes"] for path in records]

    assert volumes(0, "a") == volumes(0, "b")
    assert volumes(0, "a") != volumes(1, "c")


def test_a_cell_is_written_whole_and_leaves_nothing_else(cohort: Cohort, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = cell_of(cohort, out)
    path = out / "cells" / "mix-fraction1-seed0-fold0.json"
    assert json.loads(path.read_text()) == json.loads(json.dumps(told))
    assert [p.name for p in out.rglob("*") if p.is_file()] == [path.name]
    assert told["synthetic"] == 2
    assert [row["case"] for row in told["rows"]] == ["case4"]
    values = told["rows"][0]["values"]
    assert {"auprc", "dice", "dice_at_val", "f1_at_val", "sensitivity_large"} <= values.keys()
    assert 0 <= values["auprc"] <= 1
    assert 0.05 <= told["threshold"] <= 0.95
    # The same again comes to the same.
    again = cell_of(cohort, tmp_path / "again")
    assert again["rows"] == told["rows"]
    assert again["threshold"] == told["threshold"]


def test_what_a_stopped_cell_has_left_is_used_by_the_same_alone(cohort: Cohort, tmp_path: Path) -> None:
    folder = tmp_path / "out" / "work" / CELL.name
    (folder / "synthetic").mkdir(parents=True)
    (folder / "synthetic" / "recipe.lock.yaml").write_text("key: of another recipe\n")
    (folder / "key").write_text("another key")
    told = cell_of(cohort, tmp_path / "out")
    assert "failed" not in told
    assert told["synthetic"] == 2
    # With its own key it is another's output, and no reason to give the recipe up.
    (folder / "synthetic").mkdir(parents=True)
    (folder / "synthetic" / "other").write_text("x")
    (folder / "key").write_text("key")
    with pytest.raises(OutputError, match="other files"):
        cell_of(cohort, tmp_path / "out")


def test_a_control_validates_by_the_patches_of_all(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = []
    validate = SegmentationTask.validate
    monkeypatch.setattr(
        SegmentationTask, "validate", lambda task: shown.append(task._validation) or validate(task)
    )
    for arm in (Arm("none", None), Arm("none+lesions", None, control="lesions")):
        run_cell(replace(CELL, arm=arm.name), arm, setting_of(cohort, tmp_path), "key")
    for one, two in zip(shown[0], shown[-1], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_what_a_recipe_cannot_make_is_told_and_not_trained(cohort: Cohort, tmp_path: Path) -> None:
    alone = Cell("carve", 0.1, 0, 0, ("case1",), ("case3",), ("case4",))
    arm = Arm("carve", load_recipe("carve_mix", ["output.copies=1"]))
    told = run_cell(alone, arm, setting_of(cohort, tmp_path), "key")
    assert "case1" in told["failed"]
    assert told["rows"] == []
    assert (tmp_path / "cells" / "carve-fraction0.1-seed0-fold0.json").is_file()
    assert not (tmp_path / "work" / alone.name).exists()


def test_a_draw_of_training_subjects_without_a_lesion_is_told(cohort: Cohort, tmp_path: Path) -> None:
    """Others of the trial may have some."""
    without_lesions(cohort, "case1")
    for arm, recipe in (("none", None), ("mix", load_recipe("lesionmix", ONE))):
        cell = replace(CELL, arm=arm, train=("case1",))
        told = run_cell(cell, Arm(arm, recipe), setting_of(cohort, tmp_path), "key")
        assert "none of the training cases (case1) has a lesion" in told["failed"]
        assert told["rows"] == []
        assert (tmp_path / "cells" / f"{cell.name}.json").is_file()


def test_a_model_that_has_seen_a_test_subject_is_refused(
    cohort: Cohort, shape_models: Path, tmp_path: Path
) -> None:
    """It was trained on all four."""
    source = f'sources.donors={{kind: autoencoder, model: "{shape_models}"}}'
    with pytest.raises(LeakError, match=r"sources\.donors has seen case3, who is tested or validates here"):
        made_of(cohort, load_recipe("lesionmix", [*ONE, source]), tmp_path / "w")
    card, arrays = read_checkpoint(shape_models / "all.safetensors")
    own = card.model_copy(update={"subjects": ("case1", "case2")})
    write_checkpoint(tmp_path / "own.safetensors", own, arrays)
    source = f'sources.donors={{kind: autoencoder, model: "{tmp_path / "own.safetensors"}"}}'
    made = made_of(cohort, load_recipe("lesionmix", [*ONE, source]), tmp_path / "v")
    assert len(made) == 2
    fraction = Cell("mix", 0.5, 0, 0, ("case1",), CELL.validation, CELL.test)
    assert len(made_of(cohort, load_recipe("lesionmix", [*ONE, source]), tmp_path / "f", fraction)) == 1


def test_a_model_that_is_not_there_is_trained_on_the_training_subjects(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each as it is told to be; a translation and a model of shapes of one source are two."""
    for kind, few in {"lesion-autoencoder": {"batch": 2}, "translation": {"network": "cyclegan"}}.items():
        changed = MODELS[kind].model_copy(update={**few, "steps": 2, "validate_every": 1})
        monkeypatch.setitem(MODELS, kind, changed)
    more = ["output.copies=1", "steps.add.load=[2, 8]", "sources.painted.shapes=model"]
    of_seed = []
    for seed in range(2):
        with suppress(NoRoomError):  # two steps may not make a lesion that can be used
            cell = replace(CELL, seed=seed)
            made_of(cohort, load_recipe("translation_pix2pix", more), tmp_path / f"w{seed}", cell)
        trained = sorted((tmp_path / f"w{seed}" / "models").rglob("*.safetensors"))
        of_seed.append([read_card(model) for model in trained])
    cards = of_seed[0]
    assert [card.kind for card in cards] == ["translation", "lesion-autoencoder"]
    assert all(card.subjects == ("case1", "case2") for card in cards)
    assert cards[0].config["network"] == "pix2pix", "the recipe asks for it"
    assert cards[1].config["batch"] == 2
    assert all(a.config["seed"] != b.config["seed"] for a, b in zip(*of_seed, strict=True))
