from __future__ import annotations

import numpy as np
import pytest

from lesionsynth.bank.store import LesionBank
from lesionsynth.plugins.contracts import Donors, Draw, Wanted
from lesionsynth.sources.intensity_bump import IntensityBump

ANY = Wanted(0, 1e9, "A", "a")


def draws(source: IntensityBump, donors: Donors, n: int = 60) -> list[Draw]:
    rng = np.random.default_rng(0)
    return [draw for _ in range(n) if (draw := source.draw(rng, donors, ANY)) is not None]


@pytest.mark.parametrize(
    ("shapes", "subjects"), [("images", {"B"}), ("masks", {"M", "N"}), ("all", {"B", "M", "N"})]
)
def test_shapes_of_whom(cubes: LesionBank, shapes: str, subjects: set[str]) -> None:
    donors = Donors(cubes, ("A", "B"), mask_subjects=("M", "N"))
    source = IntensityBump.model_validate({"shapes": shapes})
    found = {cubes.read(draw["lesion"]).info.subject for draw in draws(source, donors)}
    assert found == subjects
    assert source.donor_subjects(donors) == subjects | ({"A"} if shapes != "masks" else set())


def test_contrast_is_the_hosts_and_both_givers_are_named(cubes: LesionBank) -> None:
    donors = Donors(cubes, ("A", "B"), mask_subjects=("M", "N"))
    source = IntensityBump(smooth_mm=(1.0, 2.0))
    for draw in draws(source, donors):
        shape, like = draw["from"]
        assert shape["lesion"] == draw["lesion"]
        assert like["subject"] == "A"
        lesion = source.lesion(draw, donors)
        assert [c.contrast for c in lesion.info.channels] == pytest.approx([2.0, -1.0], rel=1e-4)
        assert 1 <= draw["smooth_mm"] <= 2
        stored = donors.bank.read(draw["lesion"])
        assert np.count_nonzero(lesion.label) == np.count_nonzero(stored.label)
        assert lesion.info.subject == shape["subject"]


def test_masks_and_ranges_need_no_image(cubes: LesionBank) -> None:
    donors = Donors(cubes, (), mask_subjects=("M",))
    assert IntensityBump().donor_subjects(donors) == frozenset()
    assert not draws(IntensityBump(), donors, n=3)
    ranges = IntensityBump.model_validate({"contrast": [[3, 3], [0, 0]]})
    assert ranges.donor_subjects(donors) == {"M"}
    (draw, *_) = draws(ranges, donors, n=3)
    assert draw["contrast"] == [3.0, 0.0]
    assert [giver["subject"] for giver in draw["from"]] == ["M"]
