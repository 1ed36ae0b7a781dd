"""Lesions of a trained model in a host: drawn, refused, and made again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lesionsynth.bank.store import LesionBank
from lesionsynth.errors import InputError
from lesionsynth.plugins.contracts import Donors, ModelUse, Wanted
from lesionsynth.sources.autoencoder import Autoencoder

ANY = Wanted(0, 1e9, "A", "a")


@pytest.fixture
def donors(cubes: LesionBank, shape_models: Path) -> Donors:
    return Donors(cubes, ("A", "B"), models={"m": shape_models / "all.safetensors"})


def accepted(source: Autoencoder, donors: Donors, wanted: Wanted = ANY, n: int = 10):
    found, reasons, seed = [], [], 0
    while len(found) < n and seed < 400:
        draw = source.draw(np.random.default_rng(seed), donors, wanted)
        seed += 1
        (reasons if isinstance(draw, str) or draw is None else found).append(draw)
    return found, reasons


@pytest.mark.parametrize("sampling", ["prior", "mixture", "neighbourhood"])
def test_each_sampling_gives_lesions_of_the_volumes_seen(sampling: str, donors: Donors) -> None:
    source = Autoencoder(model="m", sampling=sampling)
    found, _ = accepted(source, donors)
    assert len(found) == 10
    low, high = 10.0, 1e6
    for draw in found:
        lesion = source.lesion(draw, donors)
        assert low <= lesion.info.volume_mm3 <= high
        assert lesion.info.volume_mm3 == pytest.approx(draw["volume_mm3"], abs=0.01)
        assert lesion.on_host
        assert len(lesion.image) == 2
        assert bool(draw["near"]) == bool(draw["image_near"]) == (sampling == "neighbourhood")


def test_what_is_not_wanted_is_refused_with_a_reason(donors: Donors) -> None:
    source = Autoencoder(model="m", sampling="mixture")
    every, _ = accepted(source, donors, n=12)
    middle = float(np.median([draw["volume_mm3"] for draw in every]))
    found, reasons = accepted(source, donors, Wanted(0.9 * middle, 1.1 * middle, "A", "a"), n=2)
    assert "generated lesion of another size" in reasons
    assert all(0.9 * middle <= draw["volume_mm3"] <= 1.1 * middle for draw in found)


def test_the_look_of_a_real_lesion(donors: Donors) -> None:
    source = Autoencoder(model="m", intensities="bank", texture=0)
    for draw in accepted(source, donors, n=5)[0]:
        lesion = source.lesion(draw, donors)
        like = donors.bank.read(draw["like"])
        (giver,) = draw["from"]
        assert giver["lesion"] == draw["like"]
        for channel, stats in zip(lesion.image, like.info.channels, strict=True):
            inside = channel[lesion.label > 0].mean()
            assert inside == pytest.approx(stats.contrast / stats.tissue_mad, rel=0.15)


def test_intensities_need_a_model_that_makes_them() -> None:
    assert Autoencoder(model="m").models_used() == {"m": ModelUse(("lesion-autoencoder",), True)}
    kinds = ("lesion-autoencoder", "mask-gan")
    assert Autoencoder(model="m", intensities="host").models_used() == {"m": ModelUse(kinds)}
    # A GAN has no codes of lesions to be near to: it would give nothing.
    near = {"model": "m", "sampling": "neighbourhood"}
    assert Autoencoder(intensities="host", **near).models_used() == {"m": ModelUse(kinds[:1])}


def test_no_model(cubes: LesionBank) -> None:
    with pytest.raises(InputError, match=r"no trained model is named.*lesionsynth train"):
        Autoencoder().draw(np.random.default_rng(0), Donors(cubes, ("A",)), ANY)
