"""Lesions painted by small trained translations into phantoms."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import get_args

import numpy as np
import pytest

from lesionsynth.bank.store import LesionBank
from lesionsynth.domain.load import LoadTarget
from lesionsynth.editing.canvas import Canvas
from lesionsynth.errors import InputError, LesionsynthError
from lesionsynth.generative.checkpoint import read_checkpoint, write_checkpoint
from lesionsynth.generative.specs import Network
from lesionsynth.host import load_case
from lesionsynth.likelihood.over_host import CentreDensity
from lesionsynth.operations.copy_paste import CopyPaste
from lesionsynth.operations.populate import Populate
from lesionsynth.plugins.contracts import Donors, ModelUse, Placed, StepContext, Wanted
from lesionsynth.recipe.load import load_recipe
from lesionsynth.recipe.model import InputSpec
from lesionsynth.rng import stream
from lesionsynth.run.cohort import open_cohort
from lesionsynth.run.train import train_models
from lesionsynth.sources.translation import Translation
from lesionsynth.tissue import TissueSpec
from tests.conftest import write_nifti, write_phantoms
from tests.generative.models import Told
from tests.generative.translating import spec_of

ANY = Wanted(0, 1e9, "case4", "case4")
TARGET = LoadTarget(30.0, 30.0, 0.3)
STEP = {
    "kind": "populate", "source": "s", "replace": 0.0, "surplus": "keep", "site": {"like_donor": False},
    "blend": {"kind": "soft_poisson", "k": [1, 1]},
}  # fmt: skip


@pytest.fixture(scope="module")
def path(translations):
    return translations("pix2pix") / "all.safetensors"


@pytest.fixture(scope="module")
def donors(path):
    """Lesions of three phantoms, and those of two more as masks alone."""
    with LesionBank(path.parent / "bank") as bank:
        yield Donors(bank, ("case1", "case2", "case3"), models={"m": path}, mask_subjects=("out4", "out5"))


@pytest.fixture(scope="module")
def host(masks_of_phantoms):
    _, cohort, _ = open_cohort(InputSpec(), masks_of_phantoms)
    return load_case(cohort.case("case4"), cohort, TissueSpec())


def context_of(source, host, donors):
    return StepContext(
        step="add",
        target=TARGET,
        streams=partial(stream, 1, host.files.case, 0, "add"),
        sources={"s": source},
        donors=donors,
        centres=CentreDensity(host),
        typical_count=5,
    )


def populated(source, host, donors, **more):
    step, context, canvas = (
        Populate.model_validate({**STEP, **more}),
        context_of(source, host, donors),
        Canvas(host),
    )
    return step, context, canvas, step.apply(canvas, context)


@pytest.fixture(scope="module")
def done(host, donors):
    return populated(Translation(model="m"), host, donors)


def test_lesions_are_put_in_and_stand_out_as_real_ones_do(done, host):
    _, _, canvas, report = done
    assert len(report.draws) >= 3
    real = host.values()[0][host.lesion_mask].mean() - host.tissue_stats[0][0]
    made = (canvas.label > 0) & ~host.lesion_mask
    added = (canvas.raw[0].astype(float) - host.images[0].raw)[made].mean()
    assert 0.5 * real < added < 1.5 * real
    for draw in report.draws:
        assert draw["measures"]["lead_channel"] == 0  # FLAIR
        assert draw["measures"]["contrast_achieved"][0] > 0
        assert draw["measures"]["visible"] >= 1
        assert draw["measures"]["contrast"] == [None, None]


def test_every_other_voxel_is_the_hosts(done, host):
    _, _, canvas, _ = done
    for raw, image in zip(canvas.raw, host.images, strict=True):
        assert np.array_equal(raw[canvas.source == 0], image.raw[canvas.source == 0])
    assert np.array_equal(canvas.label[canvas.source == 0], host.label[canvas.source == 0])
    assert (canvas.source > 0).mean() < 0.2


def test_replay_gives_the_same_voxels(done, host, donors):
    step, context, canvas, report = done
    draws = json.loads(json.dumps(report.draws))
    assert draws == report.draws
    again = Canvas(host)
    fresh = replace(context, donors=replace(donors, cache={}), streams=None)
    step.replay(again, fresh, draws)
    assert np.array_equal(again.label, canvas.label)
    assert all(np.array_equal(a, b) for a, b in zip(again.raw, canvas.raw, strict=True))


def test_what_is_painted_depends_on_the_place(done, host, donors):
    _, context, _, report = done
    paint = context.sources["s"].painter(report.draws[0]["donor"], donors)
    label = np.zeros((6, 6, 6), np.uint16)
    label[2:4, 2:4, 2:4] = 1
    middle = [int(axis.mean()) for axis in np.nonzero(host.clean_tissue)]
    one, two = (
        paint(Placed(Canvas(host), tuple(slice(m + by, m + by + 6) for m in middle), label)) for by in (-3, 2)
    )
    assert one.shape == (2, 6, 6, 6)
    assert one[0][label > 0].mean() > 1
    assert not np.array_equal(one, two)


def test_copy_paste_paints_too(host, donors):
    step = CopyPaste.model_validate(
        {"kind": "copy_paste", "source": "s", "pairing": "inter", "lesions": [2, 2], "blur": {"p": 1.0}}
    )
    context, canvas = context_of(Translation(model="m"), host, donors), Canvas(host)
    report = step.apply(canvas, context)
    assert len(report.draws) == 2
    assert all(draw["measures"]["contrast_achieved"][0] > 0 for draw in report.draws)
    again = Canvas(host)
    step.replay(again, context, report.draws)
    assert all(np.array_equal(a, b) for a, b in zip(again.raw, canvas.raw, strict=True))


def test_shapes_of_masks_need_no_image_and_are_named(host, donors):
    source = Translation(model="m", shapes="masks")
    assert source.donor_subjects(donors) == {"out4", "out5"}
    draw = source.draw(np.random.default_rng(0), donors, ANY)
    lesion = source.lesion(draw, donors)
    assert lesion.info.subject in {"out4", "out5"}
    assert len(lesion.image) == len(lesion.info.channels) == 0
    *_, report = populated(source, host, donors)
    assert {draw["subject"] for draw in report.draws} <= {"out4", "out5"}
    assert report.draws


def test_shapes_of_a_model_are_new(host, donors, shape_models):
    source = Translation(model="m", shapes="model", shape_model="s", sampling="neighbourhood", spread=0.5)
    assert source.models_used() == {
        "m": ModelUse(("translation",), images=True),
        "s": ModelUse(("lesion-autoencoder",), field="shape_model"),
    }
    assert source.donor_subjects(donors) is None
    both = replace(donors, models={**donors.models, "s": shape_models / "all.safetensors"})
    wanted = replace(ANY, min_mm3=300, max_mm3=20000)
    draws = [source.draw(np.random.default_rng(seed), both, wanted) for seed in range(20)]
    kept = [draw for draw in draws if isinstance(draw, dict)]
    assert len(kept) > 3
    for draw in kept:
        lesion = source.lesion(json.loads(json.dumps(draw)), both)
        assert 300 <= lesion.info.volume_mm3 <= 20000
        assert lesion.info.subject == ""
        again = source.lesion(draw, both)
        assert np.array_equal(lesion.label, again.label)
    *_, canvas, report = populated(source, host, both)
    assert report.draws
    assert canvas.load_ml > host.load.ml


def test_a_model_that_is_not_given_or_not_of_this_data_is_refused(host, donors, path, tmp_path):
    with pytest.raises(InputError, match="no trained model is named") as caught:
        populated(Translation(), host, donors)
    assert "lesionsynth train translation" in caught.value.remedy
    with pytest.raises(InputError, match="lesionsynth train lesion-autoencoder"):
        Translation(model="m", shapes="model").draw(np.random.default_rng(0), donors, ANY)
    with pytest.raises(LesionsynthError, match="was not prepared"):
        populated(Translation(model="else"), host, donors)
    card, arrays = read_checkpoint(path)
    other = card.model_copy(update={"about": {**card.about, "labels": [3]}})
    write_checkpoint(tmp_path / "other.safetensors", other, arrays)
    foreign = replace(donors, models={"m": tmp_path / "other.safetensors"}, cache={})
    with pytest.raises(InputError, match=r"lesion labels \(3,\); the case has \(1,\)") as caught:
        populated(Translation(model="m"), host, foreign)
    assert "other.safetensors" in str(caught.value)
    assert "case4" in str(caught.value)


@pytest.mark.parametrize("network", get_args(Network))
def test_the_recipe_of_a_network_takes_no_other_model(network):
    """Also a trial, which trains what is not there, has to know it."""
    recipe = load_recipe(f"translation_{network}")
    (use,) = recipe.sources["painted"].models_used().values()
    assert use == (("translation",), True, (("network", network),), "model")
    assert Translation(model="m").models_used()["m"].config == ()


def test_the_methods_say_whose_shapes_they_are():
    for shapes, words in (("bank", "real lesions"), ("masks", "lesion masks"), ("model", "latent space")):
        (told,) = Translation(shapes=shapes).methods()
        assert words in told
        assert "@platscher2020" in told


def test_label_images_of_the_user_are_the_map_of_the_host_too(phantoms, tmp_path):
    root = write_phantoms(tmp_path / "data", phantoms[:2])
    _, cohort, _ = open_cohort(InputSpec(), root)
    for files in cohort.cases:
        case = load_case(files, cohort, TissueSpec())
        aseg = np.array([0, 24, 3, 41, 4], np.int16)[case.tissue]  # values as FreeSurfer has them
        write_nifti(root / "aseg" / f"{files.case}.nii.gz", aseg, case.grid.affine)
    spec = spec_of(
        network="pix2pix", map="aseg/{case}.nii.gz", steps=2, validate_every=2, validation_patches=2
    )
    recipe, told = load_recipe("lesionmix", ["folds.strategy=none"]), Told()
    (made,) = train_models("translation", spec, recipe, root, tmp_path / "m", told, device="cpu")
    assert any("4 tissue classes of the label images" in note for note in told.notes)
    with LesionBank(tmp_path / "m" / "bank") as bank:
        donors = Donors(bank, ("case1",), models={"m": made})
        painter = Translation(model="m").painter({}, donors)
        host = load_case(cohort.case("case2"), cohort, TissueSpec())
        placed = Placed(Canvas(host), (slice(8, 14),) * 3, np.ones((6, 6, 6), np.uint16))
        assert painter(placed).shape == (2, 6, 6, 6)
        (classes,) = (value for key, value in donors.cache.items() if key[0] == "tissue classes")
        assert np.array_equal(np.array([0, 24, 3, 41, 4])[host.tissue], np.array([0, 3, 4, 24, 41])[classes])
        train_models("translation", spec, recipe, root, tmp_path / "m", told, device="cpu")
        assert any("trained already" in note for note in told.notes)
        (root / "aseg" / "case2.nii.gz").unlink()
        donors.cache.clear()
        with pytest.raises(LesionsynthError, match=r"case2\.nii\.gz"):
            painter(placed)
