"""Models of single lesions learn: they reconstruct lesions that they have not seen, and make new ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lesionsynth.bank.store import LesionBank
from lesionsynth.errors import InputError
from lesionsynth.generative.autoencoder import Samples, Scale, ShapeTask
from lesionsynth.generative.checkpoint import read_card, read_checkpoint, write_checkpoint
from lesionsynth.generative.codes import draw_code
from lesionsynth.generative.lesion_data import crops_of, held_out
from lesionsynth.generative.lesion_models import open_shapes, train_autoencoder, train_mask_gan
from lesionsynth.generative.mask_gan import GanTask, gradient_penalty
from lesionsynth.generative.specs import AutoencoderSpec, MaskGanSpec
from lesionsynth.generative.training import Place
from tests.bank.making import make_bank, make_summary
from tests.generative.models import Told

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory):
    """Sixty lesions of six subjects: balls, rods and plates, the longer the brighter."""
    from dataclasses import replace

    from lesionsynth.domain.lesion import ChannelStats
    from tests.sources.conftest import cube

    rng = np.random.default_rng(0)
    cases = []
    for subject in "ABCDEF":
        lesions = []
        for number in range(1, 11):
            radii = rng.uniform(2, 4) * rng.permutation([[1, 1, 1], [2.5, 0.8, 0.8], [2, 2, 0.7]][number % 3])
            n = int(2 * radii.max()) + 11
            at = np.stack(np.meshgrid(*(np.arange(n) - (n - 1) / 2,) * 3, indexing="ij"))
            label = (((at / radii[:, None, None, None]) ** 2).sum(axis=0) < 1).astype(np.uint16)
            bright = 2.0 + 0.5 * radii.max()
            image = np.stack([100 + 10 * bright * label, 100 - 10 * label]).astype(np.float32)
            base = cube(f"{subject.lower()}/{number:04d}", subject, 3, (bright, -1.0))
            stats = tuple(ChannelStats(100.0, 10.0, 100 + 10 * c, 1.0, 1.0) for c in (bright, -1.0))
            info = replace(base.info, shape_vox=(n, n, n), volume_mm3=float(label.sum()), channels=stats)
            lesions.append(replace(base, info=info, image=image, label=label, rim=np.ones_like(label, bool)))
        cases.append((make_summary(subject.lower(), subject), lesions))
    with make_bank(tmp_path_factory.mktemp("bank"), cases) as opened:
        yield opened


@pytest.fixture(scope="module")
def crops(bank: LesionBank):
    return crops_of(bank, "ABCDEF", (1,), 16, 1000, 0)


def tiny(model, **more):
    return model.model_validate({**model.presets["tiny"], **more})


class TestData:
    def test_subjects_are_held_out_whole(self, crops) -> None:
        train, rest = held_out(crops, 0.3, 0, "shape")
        assert {c.subject for c in train} | {c.subject for c in rest} == set("ABCDEF")
        assert {c.subject for c in train}.isdisjoint(c.subject for c in rest)
        assert len({c.subject for c in rest}) == 2

    @pytest.mark.parametrize(("subjects", "held"), [("A", 2), ("AB", 4)])
    def test_few_subjects_hold_out_lesions(self, crops, subjects, held) -> None:
        """Of two people one would be half of all that there is to learn from."""
        own = [c for c in crops if c.subject in subjects]
        train, rest = held_out([*own, *own], 0.2, 0, "shape")
        assert (len(train), len(rest)) == (2 * (len(own) - held), 2 * held)
        assert {c.name for c in train}.isdisjoint(c.name for c in rest)
        assert {c.subject for c in train} == set(subjects)

    def test_of_two_lesions_none_can_be_spared(self, crops) -> None:
        assert held_out(crops[:2], 0.2, 0, "shape") == (crops[:2], crops[:2])

    def test_nothing_held_out(self, crops) -> None:
        assert held_out(crops, 0.0, 0, "shape") == (crops, crops)

    def test_only_the_given_subjects_are_looked_at(self, bank: LesionBank) -> None:
        assert {c.subject for c in crops_of(bank, "BD", (1,), 16, 1000, 0)} == {"B", "D"}

    def test_so_many_are_drawn_of_more(self, bank: LesionBank) -> None:
        some = [[c.name for c in crops_of(bank, "ABCDEF", (1,), 16, 7, seed)] for seed in (0, 0, 1)]
        assert [len(names) for names in some] == [7, 7, 7]
        assert some[0] == some[1] != some[2]

    def test_no_lesion(self, bank: LesionBank) -> None:
        with pytest.raises(InputError, match=r"none of the 0 lesions.*fewer folds"):
            crops_of(bank, "X", (1,), 16, 1000, 0)


@pytest.fixture(scope="module")
def autoencoder(crops, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("ae")
    learned = train_autoencoder(crops, (1,), tiny(AutoencoderSpec), Place(folder, CPU, "all"), Told(), "k")
    return learned, saved(folder, "lesion-autoencoder", tiny(AutoencoderSpec), learned)


@pytest.fixture(scope="module")
def gan(crops, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("gan")
    learned = train_mask_gan(crops, (1,), tiny(MaskGanSpec), Place(folder, CPU, "all"), Told(), "k")
    return learned, saved(folder, "mask-gan", tiny(MaskGanSpec), learned)


def saved(folder: Path, kind, spec, learned) -> Path:
    from lesionsynth.generative.checkpoint import Card

    card = Card(
        kind=kind,
        config=spec.model_dump(mode="json"),
        about=learned.about,
        subjects=tuple("ABCDEF"),
        block="all",
        steps=learned.steps,
        measures=learned.measures,
        weights="",
        lesionsynth="0",
    )
    write_checkpoint(folder / "all.safetensors", card, learned.arrays)
    return folder / "all.safetensors"


def made(path: Path, sampling: str, n: int = 40):
    """Lesions of n draws, and reasons of those that are none."""
    model, rng = open_shapes(path), np.random.default_rng(0)
    found = [model.lesion(draw_code(model.codes, sampling, 1.0, rng)[0]) for _ in range(n)]
    return [x for x in found if not isinstance(x, str)], [x for x in found if isinstance(x, str)]


class TestAutoencoder:
    def test_it_reconstructs_lesions_that_it_has_not_seen(self, autoencoder) -> None:
        measures = autoencoder[0].measures
        assert measures["shape_dice"] > 0.75
        assert measures["shape_dice"] > measures["untrained_shape_dice"] + 0.4
        assert measures["image_error"] < 0.5 * measures["untrained_image_error"]

    @pytest.mark.parametrize("sampling", ["mixture", "neighbourhood"])
    def test_samples_are_lesions_of_volumes_that_were_seen(self, autoencoder, sampling: str) -> None:
        lesions, refused = made(autoencoder[1], sampling)
        assert len(lesions) > 3 * len(refused)
        low, high = autoencoder[0].about["volumes_mm3"]
        volumes = np.array([lesion.info.volume_mm3 for lesion in lesions])
        assert np.mean((volumes >= low) & (volumes <= high)) > 0.75  # a source refuses the others
        assert np.median(volumes) / np.median(open_shapes(autoencoder[1]).codes.volumes_mm3) == pytest.approx(
            1, rel=0.6
        )
        assert len({lesion.label.tobytes() for lesion in lesions}) > 0.9 * len(lesions)

    def test_codes_are_held_to_the_prior(self, autoencoder) -> None:
        codes = open_shapes(autoencoder[1]).codes.latents
        assert abs(codes.std() - 1) < 0.3
        assert np.abs(codes.mean(axis=0)).mean() < 0.75

    def test_intensities_are_those_of_the_lesions(self, autoencoder) -> None:
        model, rng = open_shapes(autoencoder[1]), np.random.default_rng(0)
        lesions, _ = made(autoencoder[1], "neighbourhood", 10)
        assert lesions
        bright, dark = [], []
        for _ in range(10):
            code = draw_code(model.codes, "neighbourhood", 0.5, rng)[0]
            lesion = model.lesion(code)
            if isinstance(lesion, str):
                continue
            image = model.image(draw_code(model.image_codes, "mixture", 1.0, rng)[0], code)
            inside = lesion.label > 0
            bright.append(image[0][inside].mean())
            dark.append(image[1][inside].mean())
            # Beyond the rim nothing was learned, and nothing is added.
            assert np.abs(image[:, 0]).max() < 0.05 * np.abs(image).max()
        assert 2.5 < np.median(bright) < 8
        assert -1.5 < np.median(dark) < -0.5

    def test_a_shape_without_images_has_none(self, crops, tmp_path: Path) -> None:
        from dataclasses import replace

        bare = [replace(c, image=c.image[:0]) for c in crops]
        spec = tiny(AutoencoderSpec, steps=2, validate_every=1)
        learned = train_autoencoder(bare, (1,), spec, Place(tmp_path, CPU, "all"), Told(), "k")
        assert learned.about["channels"] == 0
        path = saved(tmp_path, "lesion-autoencoder", spec, learned)
        assert open_shapes(path).channels == 0

    def test_a_card_that_does_not_fit_its_weights(self, autoencoder, tmp_path: Path) -> None:
        card, arrays = read_checkpoint(autoencoder[1])
        for change in ({"config": {**card.config, "latent": 5}}, {"about": {}}, {"config": {"no": 1}}):
            write_checkpoint(tmp_path / "m.safetensors", card.model_copy(update=change), arrays)
            with pytest.raises(InputError, match="cannot be used"):
                open_shapes(tmp_path / "m.safetensors")

    def test_the_latent_critic_separates_what_differs(self, crops) -> None:
        """Trained against codes that are far from the prior, it tells them from it."""
        spec = tiny(AutoencoderSpec)
        scale = Scale.of([c.edge_mm for c in crops])
        samples = Samples(crops, spec, scale, CPU)
        task = ShapeTask(spec, 1, samples, samples, CPU)
        rng = np.random.default_rng(0)
        codes = torch.full((16, spec.latent), 1.5)
        for _ in range(30):
            told = task.update(codes.clone().requires_grad_(), torch.zeros(()), rng)
        assert told["latent_accuracy"] > 0.95


class TestMaskGan:
    def test_it_makes_lesions_like_those_held_out(self, gan) -> None:
        measures = gan[0].measures
        assert measures["shape_refused"] < 0.3 * measures["untrained_shape_refused"]
        for name in ("volume_distance", "fill_distance"):
            assert measures[f"shape_{name}"] < 0.5 * measures[f"untrained_shape_{name}"]
        lesions, refused = made(gan[1], "prior")
        assert len(lesions) > 2 * len(refused)
        assert len({lesion.label.tobytes() for lesion in lesions}) > 0.8 * len(lesions)

    def test_the_critic_separates_real_from_untrained(self, crops) -> None:
        spec = tiny(MaskGanSpec, critic_steps=1)
        scale = Scale.of([c.edge_mm for c in crops])
        task = GanTask(spec, 1, scale, Samples(crops, spec, scale, CPU), crops, CPU)
        for parameter in task.networks["decoder"].parameters():
            parameter.requires_grad_(False)  # the generator stays as bad as it is
        rng = np.random.default_rng(0)
        task.optimizers["decoder"].step = lambda: None
        task._update = lambda name, loss, update=task._update: name == "critic" and update(name, loss)
        for _ in range(15):
            task.step(rng)
        with torch.no_grad():
            assert task.validate()["accuracy"] > 0.9

    def test_the_penalty_is_that_of_the_slope(self) -> None:
        class Plane(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return 3 * x[:, 0, 0, 0, 0] + 4 * x[:, 0, 1, 0, 0]

        assert float(gradient_penalty(Plane(), torch.zeros(2, 1, 2, 2, 2))) == pytest.approx((5 - 1) ** 2)

    def test_it_has_no_neighbours(self, gan) -> None:
        model = open_shapes(gan[1])
        assert model.draw_shape("neighbourhood", 1.0, np.random.default_rng(0), (0, 1e9)) is None
        assert read_card(gan[1]).kind == "mask-gan"
