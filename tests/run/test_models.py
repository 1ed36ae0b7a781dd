"""Leak safety covers weights: a model's subjects decide where what it makes may train."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lesionsynth.api import Synthesis
from lesionsynth.errors import InputError, LeakError, OutputError
from lesionsynth.generative.checkpoint import read_checkpoint, write_checkpoint
from lesionsynth.qc.audit import audit
from lesionsynth.recipe.load import load_recipe
from lesionsynth.recipe.model import Recipe
from lesionsynth.run import session
from lesionsynth.run.check import check
from lesionsynth.run.pool import Engine
from tests.generative.models import MASKS
from tests.test_invariants import Silent

FOLDS = [
    {"train": ["case3", "case4"], "val": ["case1", "case2"]},
    {"train": ["case1", "case2"], "val": ["case3", "case4"]},
]


@pytest.fixture
def data(masks_of_phantoms: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(masks_of_phantoms, tmp_path / "data"))
    (folder / "splits_final.json").write_text(json.dumps(FOLDS))
    return folder


def model_of(models: Path, target: Path, subjects: Sequence[str], **about: object) -> Path:
    """The trained model, as if it had seen these subjects."""
    card, arrays = read_checkpoint(models / "all.safetensors")
    change = {"subjects": tuple(subjects), "about": {**card.about, **about}}
    write_checkpoint(target, card.model_copy(update=change), arrays)
    return target


def recipe_of(model: Path | str, *more: str) -> Recipe:
    source = f'sources.donors={{kind: autoencoder, model: "{model}"}}'
    return load_recipe("lesionmix", [source, MASKS, "output.copies=1", "steps.add.load=[2, 8]", *more])


def run(recipe: Recipe, data: Path, output: Path, progress: Silent | None = None) -> Path:
    outcome = session.run(recipe, data, output, progress or Silent())
    assert not outcome.failures, [str(f.error) for f in outcome.failures]
    return output


def trained_where(output: Path) -> dict[str, list[int]]:
    """Folds that each synthetic case trains."""
    folds = json.loads((output / "splits_final.json").read_text())
    cases = {case for fold in folds for case in fold["train"] if "__syn" in case}
    return {c: [k for k, fold in enumerate(folds) if c in fold["train"]] for c in sorted(cases)}


def findings(output: Path, data: Path) -> list[str]:
    return [str(f) for f in audit(output, data, Engine(), Silent()).findings]


def test_a_model_for_each_block(shape_models: Path, data: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    model_of(shape_models, models / "block0.safetensors", ["case1", "case2", "out4"])
    model_of(shape_models, models / "block1.safetensors", ["case3", "case4"])
    output = run(recipe_of(models), data, tmp_path / "out")
    assert trained_where(output) == {
        f"case{n}__syn000": [fold] for n, fold in ((1, 1), (2, 1), (3, 0), (4, 0))
    }
    assert len(list((output / "models").iterdir())) == 2
    record = json.loads((output / "records" / "case1__syn000.json").read_text())
    (weights,) = record["weights"]
    assert weights["subjects"] == ["case1", "case2", "out4"]
    assert (output / weights["file"]).is_file()
    assert findings(output, data) == []


def test_a_model_of_other_blocks_leaves_out_hosts(shape_models: Path, data: Path, tmp_path: Path) -> None:
    """Trained on what fold 0 trains, it serves that fold alone."""
    model = model_of(shape_models, tmp_path / "m.safetensors", ["case3", "case4"])
    told = Silent()
    output = run(recipe_of(model), data, tmp_path / "out", told)
    assert trained_where(output) == {"case3__syn000": [0], "case4__syn000": [0]}
    assert any(
        note.startswith("block0: its 2 hosts are left out. Its model has seen 2") for note in told.notes
    )
    assert findings(output, data) == []


def test_a_model_that_has_seen_everybody_is_refused(shape_models: Path, data: Path, tmp_path: Path) -> None:
    model = model_of(shape_models, tmp_path / "m.safetensors", ["case2", "case3"])
    with pytest.raises(LeakError, match=r"every model has seen.*one model a block.*strategy none"):
        run(recipe_of(model), data, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    output = run(recipe_of(model, "folds.strategy=none"), data, tmp_path / "out")
    assert len(list((output / "records").iterdir())) == 4


@pytest.mark.parametrize("strategy", ["none", "block"])
def test_a_model_that_has_seen_whom_the_recipe_leaves_out_is_refused(
    shape_models: Path, data: Path, tmp_path: Path, strategy: str
) -> None:
    """Those who are left out may be those who are tested; their case ids stand for them too."""
    (data / "splits_final.json").unlink()
    model = model_of(shape_models, tmp_path / "m.safetensors", ["case1", "case4"])
    few = (f"folds.strategy={strategy}", r"input.subject=case(\d)", "input.subjects=['1', '2', '3']")
    with pytest.raises(
        LeakError, match=r"donors has seen 4, whom input.subjects leaves out.*same input"
    ) as c:
        run(recipe_of(model, *few), data, tmp_path / "out")
    assert c.value.file == str(model)
    assert not (tmp_path / "out").exists()
    assert any("has seen 4" in f.fault for f in check(recipe_of(model, *few), data, None, Silent()).findings)
    with pytest.raises(LeakError, match="has seen 4"):
        Synthesis(recipe_of(model, few[1]), data, tmp_path / "memory", subjects=["1", "2", "3"])
    if strategy == "none":
        run(recipe_of(model, *few, "input.seen_by_models=['4']"), data, tmp_path / "out")


def test_a_model_of_strangers_serves_all(shape_models: Path, data: Path, tmp_path: Path) -> None:
    model = model_of(shape_models, tmp_path / "m.safetensors", ["elsewhere"])
    assert len(trained_where(run(recipe_of(model), data, tmp_path / "out"))) == 4


@pytest.mark.parametrize(
    ("about", "match"),
    [
        ({"labels": [1, 2]}, r"label values of lesions \[1, 2\], not \[1\]"),
        ({"channel_names": ["CT"]}, r"the channels \['CT'\], not \['FLAIR', 'T1'\]"),
        ({"channels": 0}, "shapes alone, where intensities are asked of it"),
    ],
)
def test_a_model_of_other_data_is_refused(
    shape_models: Path, data: Path, tmp_path: Path, about: dict[str, object], match: str
) -> None:
    model = model_of(shape_models, tmp_path / "m.safetensors", ["elsewhere"], **about)
    with pytest.raises(InputError, match=match):
        run(recipe_of(model), data, tmp_path / "out")


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ("", r"sources\.donors\.model names no trained model.*--set sources\.donors\.model"),
        ("nowhere", r"nowhere: the model of sources\.donors is not there"),
        ("empty", r"block0\.safetensors: sources\.donors has no model for block0"),
        ("data/dataset.json", "is no checkpoint"),
    ],
)
def test_no_model_to_be_found(
    data: Path, tmp_path: Path, given: str, match: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=match):
        run(recipe_of(given), data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_model_makes_another_output(shape_models: Path, data: Path, tmp_path: Path) -> None:
    model = model_of(shape_models, tmp_path / "m.safetensors", ["elsewhere"])
    run(recipe_of(model), data, tmp_path / "out")
    model_of(shape_models, model, ["elsewhere", "case1"])
    with pytest.raises(OutputError, match="trained model"):
        run(recipe_of(model), data, tmp_path / "out")
    output = tmp_path / "out"
    session.run(recipe_of(model), data, output, Silent(), update=True)
    assert set(trained_where(output)) == {"case1__syn000", "case2__syn000"}
    assert findings(output, data) == []


def test_images_that_a_model_looks_at_are_inputs(
    translations: Callable[[str], Path], data: Path, tmp_path: Path
) -> None:
    """A host whose tissue label image changes is made again, and no other."""
    shutil.copytree(data / "labelsTr", data / "seg")
    trained = translations("pix2pix")
    about = {"map": "seg/{case}.nii.gz", "classes": [[1], [2], [3], [4]]}
    model = model_of(trained, tmp_path / "m.safetensors", ["elsewhere"], **about)
    source = f'sources.donors={{kind: translation, model: "{model}"}}'
    recipe = load_recipe("lesionmix", [source, "output.copies=1", "steps.add.load=[2, 8]"])
    output = run(recipe, data, tmp_path / "out")
    written = {path.name: path.stat().st_mtime_ns for path in (output / "records").iterdir()}
    os.utime(data / "seg" / "case2.nii.gz", ns=(1, 1))
    with pytest.raises(OutputError, match="files, folds or names have changed"):
        run(recipe, data, output)
    session.run(recipe, data, output, Silent(), update=True)
    again = {path.name: path.stat().st_mtime_ns for path in (output / "records").iterdir()}
    assert {name for name in again if again[name] != written[name]} == {"case2__syn000.json"}


def test_a_model_that_knew_people_by_other_names(shape_models: Path, data: Path, tmp_path: Path) -> None:
    """Trained where case ids were taken for subjects, it has seen the persons of these cases all the same."""
    model = model_of(shape_models, tmp_path / "m.safetensors", ["case1"])
    output = run(recipe_of(model, r"input.subject=case(\d)"), data, tmp_path / "out")
    assert trained_where(output) == {"case1__syn000": [1], "case2__syn000": [1]}
    assert findings(output, data) == []


def test_a_refused_update_leaves_the_output_as_it_was(shape_models: Path, data: Path, tmp_path: Path) -> None:
    model = model_of(shape_models, tmp_path / "m.safetensors", ["elsewhere"])
    output = run(recipe_of(model), data, tmp_path / "out")
    lock = (output / "recipe.lock.yaml").read_bytes()
    everybody = model_of(shape_models, tmp_path / "n.safetensors", ["case1", "case3"])
    with pytest.raises(LeakError, match="every model has seen"):
        session.run(recipe_of(everybody), data, output, Silent(), update=True)
    assert (output / "recipe.lock.yaml").read_bytes() == lock
    assert findings(output, data) == []


@pytest.mark.parametrize("spoil", ["remove", "exchange"])
def test_a_copy_that_is_gone_or_another_is_put_back(
    shape_models: Path, data: Path, tmp_path: Path, spoil: str
) -> None:
    model = model_of(shape_models, tmp_path / "m.safetensors", ["elsewhere"])
    output = run(recipe_of(model), data, tmp_path / "out")
    (file,) = (output / "models").iterdir()
    if spoil == "remove":
        file.unlink()
    else:
        model_of(shape_models, file, ["case1"])
    (output / "records" / "case1__syn000.json").unlink()
    run(recipe_of(model), data, output)
    assert findings(output, data) == []


class TestAudit:
    @pytest.fixture
    def output(self, shape_models: Path, data: Path, tmp_path: Path) -> Path:
        model = model_of(shape_models, tmp_path / "m.safetensors", ["case3", "case4"])
        return run(recipe_of(model), data, tmp_path / "out")

    def test_subjects_that_were_left_out_of_the_records(self, output: Path, data: Path) -> None:
        """The checkpoint itself tells whom it has seen."""
        for name in ("records/case3__syn000.json", "likelihood/block1.json"):
            text = json.loads((output / name).read_text())
            for model in text["weights"] if "weights" in text else text["models"].values():
                model["subjects"].remove("case4")
            (output / name).write_text(json.dumps(text))
        found = [f for f in findings(output, data) if "was trained on are not those" in f]
        assert len(found) == 2
        assert all("case4 is on one side" in fault for fault in found)

    def test_a_model_that_was_exchanged(self, output: Path, data: Path, shape_models: Path) -> None:
        (file,) = (output / "models").iterdir()
        model_of(shape_models, file, ["case1"])
        assert any("not the one that its name says" in f for f in findings(output, data))

    def test_a_model_that_is_gone(self, output: Path, data: Path) -> None:
        (file,) = (output / "models").iterdir()
        file.unlink()
        assert any("a model that lesions came from is missing" in f for f in findings(output, data))

    def test_a_record_without_its_model(self, output: Path, data: Path) -> None:
        path = output / "records" / "case3__syn000.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "weights": []}))
        assert any("the models are not those of likelihood/block1.json" in f for f in findings(output, data))

    def test_a_fit_without_its_model(self, output: Path, data: Path) -> None:
        path = output / "likelihood" / "block1.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "models": {}}))
        assert any("names the models []; the recipe uses" in f for f in findings(output, data))

    def test_a_damaged_fit(self, output: Path, data: Path) -> None:
        path = output / "likelihood" / "block1.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "models": {"m": {"file": 3}}}))
        assert any("models" in f for f in findings(output, data))


def test_check_looks_for_the_models_of_a_recipe(data: Path, shape_models: Path, tmp_path: Path) -> None:
    found = check(recipe_of("nowhere"), data, None, Silent()).findings
    assert [(f.level, f.fault) for f in found] == [("error", "the model of sources.donors is not there.")]
    model_of(shape_models, tmp_path / "m.safetensors", ["elsewhere"])
    assert not check(recipe_of(tmp_path / "m.safetensors"), data, None, Silent()).findings
