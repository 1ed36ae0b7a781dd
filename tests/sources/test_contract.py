"""What every source of lesions has to keep: registered means tested."""

from __future__ import annotations

import json
from itertools import count, islice

import numpy as np
import pytest

from lesionsynth.plugins import registry
from lesionsynth.plugins.contracts import Donors, Wanted
from tests.bank.making import make_bank, make_lesion, make_summary

# Large ellipsoids are the same as small ones, and slow.
# A model gives lesions whoever may be a donor, unless their look is a real lesion's.
SETTINGS = {
    "ellipsoid": {"sizes": [{"radius_mm": 4}, {"radius_mm": 6}]},
    "autoencoder": {"model": "m", "intensities": "bank"},
    "translation": {"model": "t"},
}

pytestmark = pytest.mark.parametrize(
    "source",
    [
        model.model_validate(SETTINGS.get(kind, {}))
        for kind, model in registry.kinds("sources").items()
        if kind != "hvae"  # asks for no donor at all: test_hvae.py
    ],
    ids=lambda s: s.kind,
)

SUBJECTS = ("A", "B", "C")
MASKS = ("M", "N")
ANY = Wanted(0, 1e9, "A", "a")


@pytest.fixture(scope="module")
def models(shape_models):
    return {"m": shape_models / "all.safetensors"}


@pytest.fixture(scope="module")
def bank(tmp_path_factory, models):
    """Five lesions of 20 to 2000 mm3 of each subject: A to D with images, M to O as masks alone."""
    cases = []
    for subject in "ABCDMNO":
        masks_only = subject >= "M"
        name = f"{subject}/mask" if masks_only else subject.lower()
        lesions = [
            make_lesion(f"{name}/{n:04d}", subject, volume_mm3=v, seed=n, channels=0 if masks_only else 1)
            for n, v in enumerate((20.0, 60.0, 200.0, 600.0, 2000.0), start=1)
        ]
        cases.append((make_summary(name, subject, has_images=not masks_only), lesions))
    with make_bank(tmp_path_factory.mktemp("bank"), cases) as opened:
        opened.models = models
        yield opened


def drawn(source, bank, wanted, subjects=SUBJECTS, masks=MASKS, n=20):
    """Draws with their lesions; those that were refused are drawn again."""
    donors = Donors(bank, subjects, mask_subjects=masks, models=bank.models)
    draws = (source.draw(np.random.default_rng(seed), donors, wanted) for seed in count())
    kept = islice((draw for draw in draws if not isinstance(draw, str)), n)
    return [(draw, None if draw is None else source.lesion(draw, donors)) for draw in kept]


def test_donors_come_from_the_given_subjects_and_the_shape_not_from_the_host(source, bank):
    known = source.donor_subjects(Donors(bank, SUBJECTS, mask_subjects=MASKS))
    for draw, lesion in drawn(source, bank, ANY):
        # Whoever a synthetic lesion takes something from is named; the host's own lesions may lend the look.
        givers = draw.get("from", [{"lesion": lesion.info.lesion, "case": lesion.info.case}])
        assert {bank.read(giver["lesion"]).info.subject for giver in givers} <= {*SUBJECTS, *MASKS}
        assert lesion.info.subject in {"B", "C", *MASKS, ""}
        assert lesion.info.subject in known or lesion.info.subject == ""
        for giver in givers:
            assert bank.read(giver["lesion"]).info.case == giver["case"]


def test_volumes_keep_to_what_is_wanted(source, bank):
    found = [lesion for _, lesion in drawn(source, bank, Wanted(50, 700, "A", "a"))]
    assert all(50 <= lesion.info.volume_mm3 <= 700 for lesion in found)


def test_where_nothing_fits_there_is_none(source, bank):
    assert {draw is None for draw, _ in drawn(source, bank, Wanted(1e6, 1e7, "A", "a"), n=3)} == {True}
    assert {draw is None for draw, _ in drawn(source, bank, ANY, subjects=(), masks=(), n=3)} == {True}
    assert source.donor_subjects(Donors(bank, ())) == frozenset()


def test_a_draw_depends_on_the_stream_only_and_is_plain_json(source, bank):
    one, two = (drawn(source, bank, ANY) for _ in range(2))
    for (first, lesion), (second, again) in zip(one, two, strict=True):
        assert first == second
        assert json.loads(json.dumps(first)) == first
        np.testing.assert_array_equal(lesion.image, again.image)
        np.testing.assert_array_equal(lesion.label, again.label)
    assert len({json.dumps(draw) for draw, _ in one}) > 3


def test_the_order_of_the_subjects_does_not_matter(source, bank):
    forth, back = (drawn(source, bank, ANY, SUBJECTS[::step], MASKS[::step]) for step in (1, -1))
    assert [d for d, _ in forth] == [d for d, _ in back]


def test_a_lesion_is_whole(source, bank):
    for _, lesion in drawn(source, bank, ANY, n=10):
        assert (lesion.label > 0).any()
        assert lesion.rim[lesion.label > 0].all()
        assert lesion.label.dtype == np.uint16
        assert lesion.image.dtype == np.float32
        assert lesion.image.shape[1:] == lesion.label.shape == lesion.rim.shape == lesion.info.shape_vox
        assert len(lesion.info.channels) == len(lesion.image)
        assert set(np.unique(lesion.label)) - {0} <= set(lesion.info.classes)


def test_what_is_added_to_the_host_ends_within_the_crop_and_is_stated(source, bank):
    for _, lesion in drawn(source, bank, ANY, n=10):
        if not lesion.on_host:
            continue
        shell = np.pad(np.zeros([n - 2 for n in lesion.label.shape], bool), 1, constant_values=True)
        strongest = np.abs(lesion.image).max()
        assert np.abs(lesion.image[:, shell]).max() < 0.05 * strongest
        for channel, stats in zip(lesion.image, lesion.info.channels, strict=True):
            assert (stats.shell_median, stats.tissue_mad, stats.edge, stats.detail) == (0, 1, 0, 0)
            assert stats.mean == pytest.approx(channel[lesion.label > 0].mean(), rel=1e-4)
