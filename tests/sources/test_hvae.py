"""Lesions decoded from a trained model: whole, of the sizes asked for, and the same from their draw alone."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from record_fields import misfits

from lesionsynth.bank.store import LesionBank
from lesionsynth.domain.load import LoadTarget
from lesionsynth.editing.canvas import Canvas
from lesionsynth.errors import InputError
from lesionsynth.generative.codes import SAMPLINGS
from lesionsynth.host import load_case
from lesionsynth.likelihood.over_host import CentreDensity
from lesionsynth.operations.populate import Populate
from lesionsynth.plugins.contracts import Donors, StepContext, Wanted
from lesionsynth.plugins.draws import HvaeChoice
from lesionsynth.recipe.load import load_recipe
from lesionsynth.recipe.model import InputSpec
from lesionsynth.rng import stream
from lesionsynth.run import session
from lesionsynth.run.cohort import open_cohort
from lesionsynth.sources.hvae import Hvae
from lesionsynth.tissue import TissueSpec
from tests.test_invariants import Silent
from tests.trained_hvae import EDGE_MM, train_hvae

ANY = Wanted(0, 1e9, "case1", "case1")


@pytest.fixture(scope="module")
def donors(trained_hvae):
    with LesionBank(trained_hvae.folder / "bank") as bank:
        yield Donors(bank, trained_hvae.card.subjects, models={"m": trained_hvae.path})


def drawn(source, donors, wanted=ANY, n=30):
    return [source.draw(np.random.default_rng(seed), donors, wanted) for seed in range(n)]


def usable(source, donors, wanted=ANY, n=30):
    return [draw for draw in drawn(source, donors, wanted, n) if isinstance(draw, dict)]


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_lesion_is_whole_and_ends_within_its_crop(donors, sampling):
    source = Hvae(model="m", sampling=sampling)
    found = [source.lesion(draw, donors) for draw in usable(source, donors)]
    assert found
    for lesion in found:
        assert lesion.on_host
        assert lesion.image.dtype == np.float32
        assert lesion.image.shape == (2, *lesion.label.shape)
        assert lesion.info.shape_vox == lesion.label.shape == lesion.rim.shape
        assert lesion.info.classes == (1,)
        assert (lesion.info.case, lesion.info.subject) == ("", "")
        volume = np.count_nonzero(lesion.label) * np.prod(lesion.info.spacing_mm)
        assert lesion.info.volume_mm3 == pytest.approx(volume)
        shell = np.pad(np.zeros([n - 2 for n in lesion.label.shape], bool), 1, constant_values=True)
        assert not lesion.image[:, shell].any()
        for channel, stats in zip(lesion.image, lesion.info.channels, strict=True):
            assert (stats.shell_median, stats.tissue_mad, stats.edge, stats.detail) == (0, 1, 0, 0)
            assert stats.mean == pytest.approx(channel[lesion.label > 0].mean(), rel=1e-4)


@pytest.mark.parametrize("sampling", ["mixture", "neighbourhood"])
def test_contrast_is_that_of_the_training_lesions(donors, sampling):
    source = Hvae(model="m", sampling=sampling)
    means = np.array(
        [[c.mean for c in source.lesion(draw, donors).info.channels] for draw in usable(source, donors)]
    )
    real = np.array(
        [[c.contrast / c.tissue_mad for c in info.channels] for info in donors.bank.infos(donors.subjects)]
    )
    # Decoded images are blurred: lesions keep a part of their contrast.
    share = np.median(means, 0) / np.median(real, 0)
    assert ((share > 0.3) & (share < 1.2)).all()


def test_a_draw_is_plain_json_and_gives_the_same_lesion(donors):
    source = Hvae(model="m")
    draws = usable(source, donors)
    assert draws == usable(source, donors)
    assert len({json.dumps(draw) for draw in draws}) == len(draws)
    for draw in draws[:5]:
        one = source.lesion(draw, donors)
        two = source.lesion(json.loads(json.dumps(draw)), replace(donors, cache={}))
        assert np.array_equal(one.image, two.image)
        assert np.array_equal(one.label, two.label)
        assert draw["from"] == []
        assert not misfits(draw, HvaeChoice, "draw", set())


def test_a_neighbour_is_named_and_never_the_host(donors):
    source = Hvae(model="m", sampling="neighbourhood", spread=0.5)
    hosts = ("case1", "case2", "case3", "case4", "case5")
    named = []
    for host in hosts:
        found = [draw["near"] for draw in usable(source, donors, Wanted(0, 1e9, host, host), 8)]
        named += found
        assert host not in {donors.bank.read(name).info.subject for name in found}
    assert named


def test_volumes_keep_to_what_is_wanted_and_refusals_say_why(donors):
    source = Hvae(model="m")
    every = [source.lesion(draw, donors).info.volume_mm3 for draw in usable(source, donors)]
    middle = float(np.median(every))
    found = drawn(source, donors, Wanted(middle, 1e9, "case1", "case1"))
    reasons = {draw for draw in found if isinstance(draw, str)}
    assert "generated lesion of another size" in reasons
    kept = [source.lesion(draw, donors).info.volume_mm3 for draw in found if isinstance(draw, dict)]
    assert kept
    assert min(kept) >= middle


def test_where_the_model_has_seen_no_such_size_there_is_none(donors):
    source = Hvae(model="m")
    assert drawn(source, donors, Wanted(0, 1.0, "case1"), 3) == [None] * 3
    assert drawn(source, donors, Wanted(1e6, 1e9, "case1"), 3) == [None] * 3


def test_it_needs_nobodys_lesions_and_one_model():
    assert Hvae(model="m").models_used() == {"m": (("hvae",), True, (("sample", "patches"),), "model")}
    assert Hvae(model="m").donor_subjects(Donors(None, ())) is None


def test_a_model_that_is_missing_or_flat_is_refused(donors, trained_hvae, tmp_path):
    with pytest.raises(InputError, match=r"no trained model is named.*lesionsynth train hvae"):
        drawn(Hvae(), donors, n=1)
    with pytest.raises(InputError, match=r"the model other was not prepared"):
        drawn(Hvae(model="other"), donors, n=1)
    flat = {"sample": "slices", "size": 16, "steps": 1, "samples": 20}
    (path,) = train_hvae(trained_hvae.root, tmp_path / "m", flat)
    recipe = load_recipe("hvae", [f"sources.generated.model={path}"])
    with pytest.raises(InputError, match=r"trained on sample: slices, where patches is needed") as caught:
        session.run(recipe, trained_hvae.root, tmp_path / "out", Silent())
    assert caught.value.file == str(path)


def test_populate_inserts_and_replays_them(donors, trained_hvae):
    cohort = open_cohort(InputSpec(), trained_hvae.root)[1]
    case = load_case(cohort.cases[4], cohort, TissueSpec(), donors.bank.known(donors.bank.case("case5")))
    step = Populate(source="s", surplus="keep", replace=0, max_lesions=20, site={"like_donor": False})
    target = LoadTarget(case.load.ml + 12, case.load.ml + 12, 0.15)
    context = StepContext(
        "add", target, lambda *name: stream(1, *name), {"s": Hvae(model="m")}, donors,
        CentreDensity(case), 2,
    )  # fmt: skip
    canvas = Canvas(case)
    report = step.apply(canvas, context)
    assert report.draws, report.rejected
    for draw in report.draws:
        assert set(draw["donor"]) == {"code", "from", "near"}
        assert draw["measures"]["visible"] > 1
        assert draw["volume_mm3"] >= EDGE_MM**3
    again = Canvas(case)
    step.replay(again, context, json.loads(json.dumps(report.draws)))
    assert np.array_equal(canvas.label, again.label)
    assert all(np.array_equal(a, b) for a, b in zip(canvas.raw, again.raw, strict=True))
