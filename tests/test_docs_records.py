"""docs/reference/records.md says of what a run writes neither too little nor too much."""

from __future__ import annotations

import csv
import json
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from record_fields import hints_of, is_model, misfits, model_named, models_in, rows, texts_of, type_text
from scipy import ndimage

from lesionsynth.bank import rows as bank_rows
from lesionsynth.bank.store import LesionBank
from lesionsynth.cli.app import app
from lesionsynth.domain.lesion import LesionInfo
from lesionsynth.errors import LesionsynthError
from lesionsynth.generative.checkpoint import read_checkpoint, write_checkpoint
from lesionsynth.plugins import draws
from lesionsynth.run import formats
from lesionsynth.run.fit import Fit
from lesionsynth.run.ledger import note_failure
from lesionsynth.run.plan import Job
from lesionsynth.run.pool import Failure
from lesionsynth.run.workspace import Found
from tests.conftest import write_phantoms
from tests.pages import DOCS
from tests.trained_hvae import Trained

RECIPE = """
seed: 3
input: {masks: {path: "masks/{subject}.nii.gz"}}
output: {copies: 3}
sources:
  donors: {kind: lesion_bank}
  bumps: {kind: intensity_bump}
  shapes: {kind: mask_library}
  bumps_of_masks: {kind: mask_library, intensities: bump}
  made_up:
    kind: ellipsoid
    sizes: [{radius_mm: 6}]
    halo: {p: 0.7}
    capsule: {p: 0.7}
    core: {p: 0.7}
  learned: {kind: autoencoder, model: MODELS/shapes.safetensors}
  learned_shapes: {kind: autoencoder, model: MODELS/shapes.safetensors, intensities: bank}
  generated: {kind: hvae, model: MODELS/hvae.safetensors}
  painted: {kind: translation, model: MODELS/translation.safetensors}
  painted_shapes:
    kind: translation
    model: MODELS/translation.safetensors
    shapes: model
    shape_model: MODELS/shapes.safetensors
steps:
  less: {kind: inpaint, share: [0.1, 0.2], inpaint: {kind: mirror, texture: spectrum}}
  add:
    kind: populate
    load: high
    geometry: {elastic: {p: 0.5}}
    contrast: {kind: host_lesions, noise: 0.1}
    mass_effect: {p: 0.5, min_volume_mm3: 0}
    blend: {kind: soft_poisson}
    tries: 20
  bump: {kind: copy_paste, source: bumps, tries: 20}
  shape: {kind: copy_paste, source: shapes, tries: 20, pairing: inter}
  bump_of_mask: {kind: copy_paste, source: bumps_of_masks, tries: 20, pairing: inter}
  ellipsoid: {kind: copy_paste, source: made_up, tries: 20}
  learn: {kind: copy_paste, source: learned, tries: 40}
  learn_shape: {kind: copy_paste, source: learned_shapes, tries: 40}
  generate: {kind: copy_paste, source: generated, tries: 40}
  paint: {kind: copy_paste, source: painted, tries: 40}
  paint_shape: {kind: copy_paste, source: painted_shapes, tries: 40}
  back: {kind: copy_paste, pairing: removed, tries: 20}
  mix: {kind: self_mix}
  carve: {kind: carve_mix}
  as_published: {kind: carve_mix, mode: compatible}
  paint_all: {kind: translate, model: MODELS/translation.safetensors, blend: {kind: soft_poisson}}
"""
"""Every kind of step and of source; each of them finds a place in one copy at least."""

Seen = set[tuple[type[Any], str]]


def assert_fits(value: Any, model: type[Any], seen: Seen) -> None:
    assert misfits(value, model, model.__name__, seen) == []


def documented_models() -> list[type[Any]]:
    """Classes that the page has a table of, and their parts."""
    found: list[type[Any]] = []
    page = (DOCS / "reference" / "records.md.in").read_text()
    names = [line.strip("{}") for line in page.splitlines() if line.startswith("{{")]
    waiting = [model_named(name) for name in names]
    while waiting:
        model = waiting.pop()
        if model not in found:
            found.append(model)
            waiting += [part for _, part in models_in_fields(model)]
    return found


def models_in_fields(model: type[Any]) -> list[tuple[str, type[Any]]]:
    return [pair for hint in hints_of(model).values() for pair in models_in(hint)]


@pytest.fixture(scope="module")
def output(
    tmp_path_factory: pytest.TempPathFactory,
    phantoms: Any,
    shape_models: Path,
    translations: Callable[[str], Path],
    trained_hvae: Trained,
) -> Path:
    """What a run with everything in it has written, of phantoms, one of which is known by its mask alone."""
    folder = tmp_path_factory.mktemp("records")
    root = write_phantoms(folder / "data", phantoms[:5])
    (root / "masks").mkdir()
    shutil.move(root / "labelsTr" / "case5.nii.gz", root / "masks" / "other.nii.gz")
    for channel in (0, 1):
        (root / "imagesTr" / f"case5_{channel:04d}.nii.gz").unlink()
    folds = [{"train": ["case3", "case4"], "val": ["case1", "case2"]}]
    folds.append({"train": ["case1", "case2"], "val": ["case3", "case4"]})
    (root / "splits_final.json").write_text(json.dumps(folds))
    trained = {"shapes": shape_models, "hvae": trained_hvae.folder, "translation": translations("pix2pix")}
    for name, models in trained.items():  # as if of people that are in no fold
        card, arrays = read_checkpoint(models / "all.safetensors")
        card = card.model_copy(update={"subjects": ("elsewhere",)})
        write_checkpoint(folder / "models" / f"{name}.safetensors", card, arrays)
    (folder / "recipe.yaml").write_text(RECIPE.replace("MODELS", str(folder / "models")))
    with pytest.raises(SystemExit) as ended:
        app(["run", str(folder / "recipe.yaml"), "-i", str(root), "-o", str(folder / "out"), "-q"])
    assert ended.value.code == 0
    note_failure(folder / "out", Failure("case1__syn009", "edit", LesionsynthError("no room.")))
    return folder / "out"


@pytest.fixture(scope="module")
def generated(trained_hvae: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated data set with a neighbour in each record."""
    folder = tmp_path_factory.mktemp("generated") / "out"
    arguments = ["--count", "1", "--sampling", "neighbourhood", "-q"]
    with pytest.raises(SystemExit) as ended:
        app(["generate", "hvae", str(trained_hvae.path), "-o", str(folder), *arguments])
    assert ended.value.code == 0
    return folder


@pytest.fixture(scope="module")
def blurred(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lesion with a halo, removed: none of the phantoms has one."""
    folder = tmp_path_factory.mktemp("blurred")
    label = np.zeros((40, 40, 40), np.uint8)
    label[16:24, 16:24, 16:24] = 1
    image = np.random.default_rng(0).normal(1000, 10, label.shape) + 600 * ndimage.gaussian_filter(
        label.astype(float), 2.5
    )
    write_phantoms(folder / "data", [(np.stack([image, image]).astype(np.int16), label, np.eye(4))])
    options = ["--set", "tissue.kind=mask", "-q"]
    with pytest.raises(SystemExit) as ended:
        app(["run", "pseudo_healthy", "-i", str(folder / "data"), "-o", str(folder / "out"), *options])
    assert ended.value.code == 0
    return folder / "out"


def test_everything_that_is_written_is_documented_and_the_other_way_round(
    output: Path, generated: Path, blurred: Path
) -> None:
    seen: Seen = set()
    assert_fits(yaml.safe_load((output / "recipe.lock.yaml").read_text()), formats.Lock, seen)
    for line in (output / "plan.jsonl").read_text().splitlines():
        assert_fits(json.loads(line), Job, seen)
    assert_fits(json.loads((output / "cohort.json").read_text()), Found, seen)
    for path in (output / "likelihood").glob("*.json"):
        assert_fits(json.loads(path.read_text()), Fit, seen)
    for path in [*(output / "records").glob("*.json"), *(blurred / "records").glob("*.json")]:
        assert_fits(json.loads(path.read_text()), formats.Record, seen)
    for path in (output / "failures").glob("*.json"):
        assert_fits(json.loads(path.read_text()), formats.FailureNote, seen)
    for fold in json.loads((output / "splits_final.json").read_text()):
        assert_fits(fold, formats.Fold, seen)
    assert_fits(json.loads((generated / "generated.json").read_text()), formats.GeneratedSet, seen)
    record = json.loads((generated / "records" / "gen0000.json").read_text())
    assert_fits(record, formats.GeneratedRecord, seen)
    # The draws of the source hvae are tested against its class in tests/sources/test_hvae.py.
    seen |= {(draws.HvaeChoice, name) for name in texts_of(draws.HvaeChoice)}
    with (output / "manifest.csv").open() as stream:
        columns = next(csv.reader(stream))
    assert columns == list(formats.ManifestRow.__annotations__)
    seen |= {(formats.ManifestRow, column) for column in columns}
    with sqlite3.connect(output / "bank" / "index.sqlite") as index:
        for (text,) in index.execute("SELECT details FROM cases"):
            assert_fits(json.loads(text), bank_rows.CaseDetails, seen)
    done = lesions_shown(output / "bank")
    for lesion in done:
        assert_fits(lesion, LesionInfo, seen)
    every = {(model, name) for model in documented_models() for name in texts_of(model)}
    never = sorted(f"{model.__name__}.{name}" for model, name in every - seen)
    assert never == []


def lesions_shown(bank: Path) -> list[Any]:
    """What `bank show` prints, of every lesion."""
    with LesionBank(bank) as opened:
        return [json.loads(json.dumps(asdict(info))) for info in opened.infos()]


def test_every_kind_of_choice_and_edit_is_drawn(output: Path) -> None:
    """Else the other test would be easily content."""
    kinds = set()
    for path in (output / "records").glob("*.json"):
        for step in json.loads(path.read_text())["steps"]:
            kinds |= {step["step"]} if step["draws"] else set()
    assert kinds == set(yaml.safe_load(RECIPE)["steps"])


def test_columns_of_the_bank_are_on_the_page(output: Path) -> None:
    text = (DOCS / "reference" / "records.md").read_text()
    with sqlite3.connect(output / "bank" / "index.sqlite") as index:
        for table in ("cases", "lesions"):
            columns = [row[1] for row in index.execute(f"PRAGMA table_info({table})")]
            assert [name for name in columns if name != "id" and f"`{name}`" not in text] == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda record: record.update(shoe_size=44), "Record.shoe_size is not described"),
        (lambda record: record.pop("device"), "Record.device is missing"),
        (lambda record: record["load_ml"].update(after="much"), "Record.load_ml.after is 'much'"),
        (lambda record: record["steps"][0]["draws"][0].update(mood=1), "Record.steps[].draws[].mood"),
        (lambda record: record["steps"][1]["draws"][-1]["donor"].update(mood=1), ".donor.mood"),
    ],
)
def test_a_record_that_is_not_as_documented_is_noticed(
    output: Path, change: Callable[[Any], Any], said: str
) -> None:
    record = json.loads((output / "records" / "case1__syn000.json").read_text())
    assert misfits(record, formats.Record, "Record", set()) == []
    change(record)
    found = misfits(record, formats.Record, "Record", set())
    assert any(said in misfit for misfit in found), found


def test_a_field_of_which_nothing_is_said_is_an_error() -> None:
    class Silent(formats.Fold):
        test: list[str]

    with pytest.raises(TypeError, match="nothing is said of"):
        texts_of(Silent)


def test_rows_name_the_way_to_a_field() -> None:
    names = [name for name, _, _ in rows(formats.Record, {formats.StepDone})]
    assert {"host.case", "donors[].lesion", "load_ml.target"} <= set(names)
    assert "targets.*.ml" in [name for name, _, _ in rows(Job, set())]
    assert "from" in [name for name, _, _ in rows(draws.BumpChoice, set())]
    assert type_text(list[float | None]) == "list of numbers or `null`"
    assert is_model(Job)
