"""The joint model of images and masks: what it learns, what it gives, and that training can be stopped."""

from __future__ import annotations

import json
import math
from copy import copy

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from lesionsynth.bank.store import LesionBank
from lesionsynth.errors import InputError
from lesionsynth.generative.checkpoint import TrainedOn, read_card, read_checkpoint
from lesionsynth.generative.codes import SAMPLINGS, draw_code
from lesionsynth.generative.crops import MOST_SPREADS
from lesionsynth.generative.hvae import Batches, HvaeTask
from lesionsynth.generative.hvae_models import accepted, open_hvae
from lesionsynth.generative.samples import Sample, Seen, samples_of
from lesionsynth.generative.specs import HvaeSpec
from lesionsynth.recipe.load import load_recipe
from lesionsynth.recipe.model import InputSpec
from lesionsynth.rng import stream
from lesionsynth.run.cohort import open_cohort
from lesionsynth.run.fit import build_bank
from lesionsynth.run.pool import ALONE
from lesionsynth.tissue import TissueSpec
from tests.trained_hvae import EDGE_MM, SETTINGS, SHAPE, Silent, blobs, train_hvae, write_blobs

SPEC = HvaeSpec.model_validate(SETTINGS)
CPU = torch.device("cpu")


def samples_like(trained_hvae, **changed):
    """Samples of the trained model's own data."""
    spec = HvaeSpec.model_validate({**SETTINGS, **changed})
    cohort = open_cohort(InputSpec(), trained_hvae.root)[1]
    with LesionBank(trained_hvae.folder / "bank") as bank:
        return samples_of(bank, cohort, TissueSpec(), spec, Silent())


def made_up(count=6, size=8, channels=2):
    rng = np.random.default_rng(0)
    names = [TrainedOn(name=f"c/{k:04d}", case="c", subject="c") for k in range(count)]
    shape = (size,) * 3
    return [
        Sample(
            n,
            True,
            rng.normal(size=(channels, *shape)).astype(np.float32),
            (rng.random(shape) < 0.2) * np.uint8(1),
        )
        for n in names
    ]


def task_of(**changed):
    spec = HvaeSpec.model_validate({**SETTINGS, "size": 8, "batch": 4, **changed})
    batches = Batches(made_up(), np.ones(2, np.float32), CPU)
    torch.manual_seed(0)
    return HvaeTask(spec, 1, batches, batches, CPU)


class TestTraining:
    def test_learns_images_and_masks_of_held_out_subjects(self, trained_hvae):
        card = trained_hvae.card
        found = card.measures
        assert card.steps > 0
        # What independent Gaussians of the training images' spread would come to, without any mask.
        assert found["elbo"] > -0.9 * 2 * SPEC.size**3 * 0.5 * (math.log(2 * math.pi) + 1)
        assert found["dice"] > 0.5
        assert found["psnr"] > 13
        assert found["held_out"] == 32

    def test_the_loss_falls_well_below_the_untrained_level(self, trained_hvae):
        samples = samples_like(trained_hvae)
        _, arrays = read_checkpoint(trained_hvae.path)
        batches = Batches(samples.parts[:64], arrays["scale"], CPU)
        losses = []
        for weights in (None, arrays):
            torch.manual_seed(0)
            task = HvaeTask(SPEC, 1, batches, batches, CPU)
            if weights is not None:
                from lesionsynth.generative.nets import load_arrays

                load_arrays(task.networks, weights)
            with torch.no_grad():
                losses.append(task.validate()["score"])
        assert losses[1] < 0.75 * losses[0]

    def test_bounds_with_moves_and_without_are_both_reported(self, trained_hvae):
        found = trained_hvae.card.measures
        assert found["elbo"] != found["elbo_k0"]
        assert found["elbo"] == pytest.approx(found["elbo_k0"], rel=0.05)

    def test_no_steps_are_the_plain_autoencoder(self):
        task = task_of(leapfrog_steps=0, mask_weight=1.0)
        (batch, *_) = task.held_out.parts(4)
        with torch.no_grad():
            codes, bound = task.bound(batch, task.moves, 1.0, np.random.default_rng(3))
            posterior = task.encode(*batch)
            noise = np.random.default_rng(3).standard_normal((2, *codes.shape), dtype=np.float32)[0]
            z = posterior.mean + posterior.log_sd.exp() * torch.from_numpy(noise)
            torch.testing.assert_close(codes, z)
            normal = torch.distributions.Normal
            mean, logits = task.networks["decoder"](z)
            image, classes = batch
            by_hand = (
                normal(mean, task.networks["decoder"].log_sd.exp().reshape(1, -1, 1, 1, 1))
                .log_prob(image)
                .flatten(1)
                .sum(1)
                + torch.distributions.Categorical(logits=logits.movedim(1, -1))
                .log_prob(classes.long())
                .flatten(1)
                .sum(1)
                + normal(0.0, 1.0).log_prob(z).sum(1)
                - normal(posterior.mean, posterior.log_sd.exp()).log_prob(z).sum(1)
            )
        torch.testing.assert_close(bound, by_hand, rtol=1e-5, atol=1e-2)

    def test_moves_of_no_size_leave_the_bound_but_for_the_tempering(self):
        task = task_of()
        (batch, *_) = task.held_out.parts(4)
        from lesionsynth.generative.leapfrog import Moves

        with torch.no_grad():
            one = task.bound(batch, Moves(0, 1.0, 1.0), 1.0, np.random.default_rng(1))
            other = task.bound(batch, Moves(4, 1e-9, 0.3), 1.0, np.random.default_rng(1))
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-2)

    def test_the_encoder_learns_through_the_moves(self):
        task = task_of(leapfrog_steps=3, leapfrog_size=0.05)
        losses = task.loss(task.held_out.parts(4)[0], np.random.default_rng(0), create_graph=True)
        losses["loss"].backward()
        for network in task.networks.values():
            assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())

    def test_a_fixed_sd_stays(self):
        task = task_of(image_sd=0.5)
        before = task.networks["decoder"].log_sd.clone()
        task.step(np.random.default_rng(0))
        assert torch.equal(task.networks["decoder"].log_sd, before)
        assert before.tolist() == pytest.approx([math.log(0.5)] * 2)

    def test_a_training_that_was_stopped_comes_to_the_same_weights(self, trained_hvae, tmp_path, monkeypatch):
        short = {"steps": 8, "validate_every": 4, "samples": 40, "size": 8}
        ((whole, _),) = train_hvae(trained_hvae.root, tmp_path / "whole", short).items()
        taken = HvaeTask.step

        def stopping(self, rng):
            stopping.left -= 1
            if stopping.left < 0:
                raise KeyboardInterrupt
            return taken(self, rng)

        stopping.left = 6
        monkeypatch.setattr(HvaeTask, "step", stopping)
        monkeypatch.setattr("lesionsynth.generative.training._SAVE_S", 0.0)
        with pytest.raises(KeyboardInterrupt):
            train_hvae(trained_hvae.root, tmp_path / "parts", short)
        stopping.left = 2  # what is left of eight, and not one more
        ((path, _),) = train_hvae(trained_hvae.root, tmp_path / "parts", short).items()
        assert read_card(path).weights == read_card(whole).weights
        one, other = load_file(whole), load_file(path)
        assert all(np.array_equal(one[name], other[name]) for name in one)

    def test_only_the_block_is_looked_at(self, trained_hvae, tmp_path):
        made = train_hvae(
            trained_hvae.root,
            tmp_path / "m",
            {"steps": 1, "samples": 20, "size": 8, "held_out": 0.0},
            count=2,
        )
        subjects = [set(card.subjects) for card in made.values()]
        assert len(subjects) == 2
        for card in made.values():
            names = {entry["subject"] for entry in card.about["trained_on"]}
            assert names <= set(card.subjects)
        assert subjects[0] != subjects[1]

    def test_held_out_subjects_have_no_codes(self, trained_hvae):
        model = open_hvae(trained_hvae.path)
        assert len({name.subject for name in model.codes.names}) == 4
        assert {*trained_hvae.card.subjects} == {f"case{k}" for k in range(1, 6)}


class TestSamples:
    def test_lie_where_they_should(self, trained_hvae):
        samples = samples_like(trained_hvae)
        assert len(samples.parts) == SPEC.samples
        on = [s for s in samples.parts if s.on_lesion]
        assert len(on) / len(samples.parts) == pytest.approx(SPEC.lesion_share, abs=0.1)
        assert all((s.classes > 0).any() for s in on)
        # About the middle: the lesion's centre is at most the jitter and half a voxel away.
        far = SPEC.jitter * SPEC.size + 1.5
        for sample in on[:20]:
            near = np.argwhere(sample.classes > 0) - (SPEC.size - 1) / 2
            assert np.abs(near).max(axis=1).min() <= far
        image = np.concatenate([s.image[0].ravel() for s in samples.parts])
        lesion = np.concatenate([s.image[0][s.classes > 0] for s in samples.parts])
        assert abs(np.median(image[image > -10])) < 0.5
        assert np.median(lesion) > 5

    def test_slices_hold_the_body_and_are_the_images_own(self, trained_hvae):
        samples = samples_like(
            trained_hvae, sample="slices", size=32, samples=10, jitter=0.0, lesion_share=1.0
        )
        assert samples.spacing_mm == pytest.approx(EDGE_MM * 28 / 30, rel=0.1)
        for sample in samples.parts:
            assert sample.image.shape == (2, 32, 32)
            number = int(sample.about.case.removeprefix("case")) - 1
            images, label, _ = blobs(number)
            body = np.count_nonzero(images[1] > 100, axis=(0, 1))
            area = np.count_nonzero(sample.image[1] > -10) * (samples.spacing_mm / EDGE_MM) ** 2
            assert np.abs(body[label.any((0, 1))] - area).min() < 0.06 * area
            lesion = np.count_nonzero(sample.classes) * (samples.spacing_mm / EDGE_MM) ** 2
            assert np.abs(np.count_nonzero(label, axis=(0, 1)) - lesion).min() <= max(3, 0.2 * lesion)

    def test_volumes_hold_all_of_a_case(self, trained_hvae):
        samples = samples_like(trained_hvae, sample="volumes", size=32)
        assert len(samples.parts) == 5
        for number, sample in enumerate(samples.parts):
            volume = np.count_nonzero(sample.classes) * samples.spacing_mm**3
            true = np.count_nonzero(blobs(number)[1]) * EDGE_MM**3
            assert volume == pytest.approx(true, rel=0.25)

    def test_axes_are_turned_towards_the_world(self, tmp_path):
        from tests.conftest import write_phantoms

        images, label, affine = blobs(0)
        label[: SHAPE[0] // 2] = 0
        images[:, : SHAPE[0] // 2] //= 2
        turned = np.array([[0, 0, -4.0, 100], [4.0, 0, 0, 0], [0, 4.0, 0, 0], [0, 0, 0, 1]])
        other = (
            np.ascontiguousarray(images[:, ::-1].transpose(0, 2, 3, 1)),
            np.ascontiguousarray(label[::-1].transpose(1, 2, 0)),
            turned,
        )
        found = []
        spec = HvaeSpec.model_validate({**SETTINGS, "sample": "volumes", "size": 32})
        for name, case in (("one", (images, label, affine)), ("other", other)):
            cohort = open_cohort(InputSpec(), write_phantoms(tmp_path / name, [case]))[1]
            bank, _ = build_bank(cohort, load_recipe("lesionmix"), tmp_path / f"b{name}", ALONE, Silent())
            with bank:
                found.append(samples_of(bank, cohort, TissueSpec(), spec, Silent()).parts[0])
        assert np.count_nonzero(found[0].classes) > 20
        np.testing.assert_array_equal(found[0].classes, found[1].classes)
        np.testing.assert_allclose(found[0].image, found[1].image, atol=1e-3)

    def test_no_lesion_is_an_error(self, tmp_path):
        from tests.conftest import write_phantoms

        images, label, affine = blobs(0)
        root = write_phantoms(tmp_path / "d", [(images, label * 0, affine)])
        with pytest.raises(InputError, match="none of the 1 cases of this block has a lesion"):
            train_hvae(root, tmp_path / "m", {})


class TestModel:
    @pytest.mark.parametrize("sampling", SAMPLINGS)
    def test_accepted_samples_are_as_large_as_those_seen(self, trained_hvae, sampling):
        model = open_hvae(trained_hvae.path)
        samples = samples_like(trained_hvae).parts
        vox = EDGE_MM**3
        seen = [np.count_nonzero(s.classes) * vox for s in samples if (s.classes > 0).any()]
        accepted = 0
        for number in range(40):
            code, near = draw_code(model.codes, sampling, 1.0, stream(7, number))
            image, classes = model.pair(code)
            assert image.shape == (2, 12, 12, 12)
            assert (near is None) == (sampling != "neighbourhood")
            if model.refusal(classes) is None:
                accepted += 1
                assert min(seen) <= np.count_nonzero(classes) * vox <= max(seen)
                if sampling != "prior":
                    assert image[0][classes > 0].mean() > 2
        share = trained_hvae.card.measures[f"{sampling}_accepted"]
        assert accepted / 40 == pytest.approx(share, abs=0.25)
        assert sampling == "prior" or share > 0.5

    def test_a_code_always_gives_the_same_pair(self, trained_hvae):
        model = open_hvae(trained_hvae.path)
        code = [float(v) for v in model.codes.latents[0]]
        (image, classes), (again, same) = model.pair(code), model.pair(json.loads(json.dumps(code)))
        assert np.array_equal(image, again)
        assert np.array_equal(classes, same)
        assert open_hvae(trained_hvae.path) is model

    def test_what_is_cut_off_is_not_usable(self, trained_hvae, monkeypatch):
        """A source takes the largest lesion of a patch alone, and none that its border cuts."""
        model = open_hvae(trained_hvae.path)
        edge = np.zeros((12, 12, 12), np.uint8)
        edge[:4, 4:8, 4:8] = 1
        assert model.refusal(edge) is None
        assert model.largest(edge) == "cut-off shape"
        before = accepted(model, "mixture")
        monkeypatch.setattr(type(model), "pair", lambda self, code: (None, edge))
        assert accepted(model, "mixture") == 0.0 < before

    def test_tissue_is_told_from_air_that_networks_see_cut(self, trained_hvae):
        """As in CT, where air lies 250 spreads below: they see it at 30."""
        model = copy(open_hvae(trained_hvae.path))
        model.tissue = np.array([[30.0, 4.0, -1000.0], [30.0, 4.0, 0.0]])
        image = np.zeros((2, 1, 1, 2), np.float32)
        image[0, ..., 1] = -MOST_SPREADS
        assert model.is_tissue(image).ravel().tolist() == [True, False]

    def test_images_come_back_in_the_units_of_the_cases(self, trained_hvae):
        model = open_hvae(trained_hvae.path)
        image = np.zeros((2, 1, 1, 1), np.float32) + np.array([0, 10, -100], np.float32)
        found = model.in_units(image)[:, 0, 0]
        assert found[:, 0] == pytest.approx([200, 300], rel=0.02)
        assert found[0, 1] > 260
        assert (found[:, 2] == model.tissue[:, 2]).all()
        assert (found >= 0).all()


class TestRefusals:
    SEEN = Seen(least_mm3=10.0, most_mm3=60.0, least_single_mm3=8.0, most_single_mm3=40.0)

    @pytest.mark.parametrize(
        ("blocks", "reason"),
        [
            ([], "empty mask"),
            ([(0, 12)], None),
            ([(0, 9)], "mask of a size not seen in training"),
            ([(0, 31), (4, 31)], "mask of a size not seen in training"),
            ([(0, 20), (4, 2)], None),
            ([(0, 12), (4, 3), (8, 3)], "broken-up mask"),
        ],
    )
    def test_masks_by_hand(self, blocks, reason):
        classes = np.zeros((36, 36, 12), np.uint8)
        for plane, count in blocks:
            classes[:count, 0, plane] = 1
        assert self.SEEN.refusal(classes, 1.0) == reason

    def test_slices_too(self):
        classes = np.zeros((36, 36), np.uint8)
        classes[:12, 3] = 1
        assert self.SEEN.refusal(classes, 1.0) is None


class TestSettings:
    def test_presets_hold(self):
        full = HvaeSpec()
        assert (full.leapfrog_steps, full.leapfrog_size, full.sqrt_beta0) == (3, 1e-3, 0.3)
        assert (full.sample, full.size, full.batch, full.learning_rate) == ("slices", 128, 16, 4.5e-5)
        assert HvaeSpec.model_validate(HvaeSpec.presets["tiny"]).dims == 3

    def test_a_size_that_cannot_be_halved_is_refused(self):
        with pytest.raises(ValueError, match="multiple of 16, got 40"):
            HvaeSpec.model_validate({"size": 40})


def test_slices_can_be_learned(tmp_path):
    root = write_blobs(tmp_path / "d", 2)
    settings = {
        "sample": "slices",
        "size": 32,
        "steps": 2,
        "validate_every": 2,
        "samples": 20,
        "sqrt_beta0": 0.3,
    }
    ((path, card),) = train_hvae(root, tmp_path / "m", settings).items()
    model = open_hvae(path)
    image, classes = model.pair([0.0] * 8)
    assert image.shape == (2, 32, 32)
    assert classes.shape == (32, 32)
    assert 0 < card.measures["held_out"] < 10, "lesions of both subjects, and not all of one"
