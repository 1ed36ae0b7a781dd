"""What every source of lesions has to keep: registered means tested."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lesionsynth.plugins import registry
from lesionsynth.plugins.contracts import Donors, Wanted
from tests.bank.making import make_bank, make_lesion, make_summary

pytestmark = pytest.mark.parametrize(
    "source", [m() for m in registry.kinds("sources").values()], ids=lambda s: s.kind
)

SUBJECTS = ("A", "B", "C")


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    """Subjects A to D with five lesions each, of 20 to 2000 mm3."""
    cases = []
    for subject in "ABCD":
        name = subject.lower()
        lesions = [
            make_lesion(f"{name}/{n:04d}", subject, volume_mm3=v, seed=n)
            for n, v in enumerate((20.0, 60.0, 200.0, 600.0, 2000.0), start=1)
        ]
        cases.append((make_summary(name, subject), lesions))
    with make_bank(tmp_path_factory.mktemp("bank"), cases) as opened:
        yield opened


def drawn(source, bank, wanted, subjects=SUBJECTS, n=60):
    donors = Donors(bank, subjects)
    draws = [source.draw(np.random.default_rng(seed), donors, wanted) for seed in range(n)]
    return [(draw, None if draw is None else source.lesion(draw, donors)) for draw in draws]


def test_donors_come_from_the_given_subjects_and_not_from_the_host(source, bank):
    for _, lesion in drawn(source, bank, Wanted(0, 1e9, "A")):
        assert lesion.info.subject in {"B", "C"}


def test_volumes_keep_to_what_is_wanted(source, bank):
    found = [lesion for _, lesion in drawn(source, bank, Wanted(50, 700, "A"))]
    assert all(50 <= lesion.info.volume_mm3 <= 700 for lesion in found)


def test_where_nothing_fits_there_is_none(source, bank):
    assert {draw is None for draw, _ in drawn(source, bank, Wanted(1e6, 1e7, "A"), n=3)} == {True}
    assert {draw is None for draw, _ in drawn(source, bank, Wanted(0, 1e9, "A"), subjects=(), n=3)} == {True}


def test_a_draw_depends_on_the_stream_only_and_is_plain_json(source, bank):
    wanted = Wanted(0, 1e9, "A")
    one, two = (drawn(source, bank, wanted) for _ in range(2))
    for (first, lesion), (second, again) in zip(one, two, strict=True):
        assert first == second
        assert json.loads(json.dumps(first)) == first
        np.testing.assert_array_equal(lesion.image, again.image)
        np.testing.assert_array_equal(lesion.label, again.label)
    assert len({json.dumps(draw) for draw, _ in one}) > 3


def test_the_order_of_the_subjects_does_not_matter(source, bank):
    wanted = Wanted(0, 1e9, "A")
    forth, back = (drawn(source, bank, wanted, subjects) for subjects in (SUBJECTS, SUBJECTS[::-1]))
    assert [d for d, _ in forth] == [d for d, _ in back]


def test_a_lesion_is_whole(source, bank):
    for _, lesion in drawn(source, bank, Wanted(0, 1e9, "A"), n=10):
        assert (lesion.label > 0).any()
        assert lesion.rim[lesion.label > 0].all()
        assert lesion.label.dtype == np.uint16
        assert lesion.image.dtype == np.float32
        assert lesion.image.shape[1:] == lesion.label.shape == lesion.rim.shape == lesion.info.shape_vox
        assert len(lesion.info.channels) == len(lesion.image)
        assert set(np.unique(lesion.label)) - {0} <= set(lesion.info.classes)
