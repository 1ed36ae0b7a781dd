from __future__ import annotations

import numpy as np
import pytest

from lesionsynth.bank.store import LesionBank
from lesionsynth.plugins.contracts import Donors, Draw, Wanted
from lesionsynth.sources.mask_library import MaskLibrary


def draws(source: MaskLibrary, donors: Donors, host: str, n: int = 40) -> list[Draw]:
    rng, wanted = np.random.default_rng(0), Wanted(0, 1e9, host.upper(), host)
    return [draw for _ in range(n) if (draw := source.draw(rng, donors, wanted)) is not None]


@pytest.fixture
def donors(cubes: LesionBank) -> Donors:
    return Donors(cubes, ("A", "B"), mask_subjects=("M", "N"))


def test_shapes_are_of_masks_and_looks_of_images(donors: Donors) -> None:
    for draw in draws(MaskLibrary(), donors, "b"):
        shape, like = draw["from"]
        assert shape["subject"] in {"M", "N"}
        assert like["subject"] in {"A", "B"}
        lesion = MaskLibrary().lesion(draw, donors)
        assert lesion.on_host
        assert lesion.info.subject == shape["subject"]
        assert np.count_nonzero(lesion.label) == lesion.info.volume_mm3
        contrast = donors.bank.read(like["lesion"]).info.channels
        for got, model in zip(lesion.info.channels, contrast, strict=True):
            assert got.contrast == pytest.approx(model.contrast / model.tissue_mad, abs=1e-3)


@pytest.mark.parametrize(("intensities", "givers"), [("host", {"A"}), ("bump", {"A"}), ("bank", {"A", "B"})])
def test_intensities_of_whom(donors: Donors, intensities: str, givers: set[str]) -> None:
    source = MaskLibrary.model_validate({"intensities": intensities})
    assert {draw["from"][1]["subject"] for draw in draws(source, donors, "a")} == givers


def test_a_bump_of_the_models_contrast(donors: Donors) -> None:
    source = MaskLibrary(intensities="bump")
    (draw, *_) = draws(source, donors, "a")
    assert draw["contrast"] == [2.0, -1.0]
    lesion = source.lesion(draw, donors)
    assert [c.contrast for c in lesion.info.channels] == pytest.approx([2.0, -1.0], rel=1e-4)
    assert lesion.image[0].max() > 2.2


def test_without_masks_or_images_there_is_nothing(cubes: LesionBank, donors: Donors) -> None:
    assert MaskLibrary().donor_subjects(donors) == {"M", "N"}
    for lacking in (Donors(cubes, ("A", "B")), Donors(cubes, (), mask_subjects=("M",))):
        assert MaskLibrary().donor_subjects(lacking) == frozenset()
        assert not draws(MaskLibrary(), lacking, "a", n=3)
