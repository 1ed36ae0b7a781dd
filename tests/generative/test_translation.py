from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from lesionsynth.errors import InputError
from lesionsynth.generative.checkpoint import read_card, read_checkpoint, write_checkpoint
from lesionsynth.generative.specs import TranslationSpec
from lesionsynth.generative.tissue_map import Semantics
from lesionsynth.generative.training import Place, train
from lesionsynth.generative.translation import CycleTask, Lessons, PairedTask, train_translation
from lesionsynth.generative.translation_data import Patches, Scan, means_of, ranges_of, scan_of
from lesionsynth.generative.translation_models import Translator, open_translation
from lesionsynth.generative.translation_nets import Pool, generator
from lesionsynth.kernels.tissue import FLUID, GREY, WHITE
from tests.bank.making import make_case
from tests.generative.models import Told
from tests.generative.translating import spec_of

CPU = torch.device("cpu")
SEMANTICS = Semantics(None, ((FLUID,), (GREY,), (WHITE,)), (1,))
LEVELS = np.array([[-8.0, 0.0], [-3.0, 2.0], [1.0, -1.0], [0.0, 0.0], [5.0, -2.0]], np.float32)
"""Of each class in two channels, in spreads."""


def made_up(number: int, n: int = 20, subject: str = "") -> Scan:
    """Tissue in layers with two lesions, at the level of each class, with noise of one spread."""
    rng = np.random.default_rng(number)
    classes = np.zeros((n, n, n), np.uint8)
    for depth, tissue in ((2, 1), (4, 2), (6, 3)):
        classes[(slice(depth, n - depth),) * 3] = tissue
    classes[8:10, 8:10, 8:10] = 4
    classes[7 + number % 3 : 12, 12:15, 12:15] = 4
    image = np.moveaxis(LEVELS[classes], -1, 0) + rng.normal(size=(2, n, n, n))
    lesions = (np.argwhere(classes[:, :11] == 4), np.argwhere(classes == 4)[8:])
    return Scan(
        f"case{number}",
        subject or f"subject{number}",
        classes,
        image.astype(np.float16),
        tuple(voxels.astype(np.int16) for voxels in lesions),
        np.argwhere(classes > 0).astype(np.int16),
    )


SCANS = [made_up(number) for number in range(3)]


def lessons(spec: TranslationSpec) -> Lessons:
    held = Patches(SCANS[2:], spec).draw(np.random.default_rng(0), spec.validation_patches)
    return Lessons(Patches(SCANS[:2], spec), held, SEMANTICS, ranges_of(SCANS), means_of(SCANS, 5))


# A CycleGAN begins with each class at its mean, and has less to gain.
@pytest.mark.parametrize(("network", "part"), [("pix2pix", 0.5), ("spade", 0.5), ("cyclegan", 0.75)])
def test_a_translation_learns_tissue_and_lesions(network, part, translations):
    path = translations(network) / "all.safetensors"
    card = read_card(path)
    seen = card.measures
    assert seen["l1"] < part * seen["untrained_l1"]
    assert 0.6 < seen["lesion_contrast"] < 1.4
    # Real images differ from the mean of their class too: that is what no translation can know.
    assert seen["l1_lesion"] < 2 * seen["l1_lesion_of_means"]
    assert 0.15 < seen["ssim"] <= 1
    assert 0 <= seen["discriminator_accuracy"] <= 1
    assert len(card.about["validated_on"]) == 1
    assert card.about["spacing_mm"] == 4.0
    model = open_translation(path)
    classes = np.full((20, 18, 7), model.semantics.groups.index((WHITE,)) + 1, np.uint8)
    classes[8:12, 8:12, 2:5] = model.semantics.count - 1
    image = model.image(classes)
    assert image.shape == (2, 20, 18, 7)
    assert np.array_equal(image, Translator(path).image(classes))
    lesion = classes == model.semantics.count - 1
    far = np.pad(classes, ((0, 30), (0, 0), (0, 0)))  # windows without tissue
    assert model.image(far, skip=True).shape == (2, 50, 18, 7)
    assert not model.image(far, skip=True)[:, 40:].any()
    assert model.image(far)[:, 40:].any()
    assert image[0][lesion].mean() - image[0][~lesion].mean() > 2  # lesions are bright on FLAIR


class Swapped(PairedTask):
    """Calls real made up and made up real."""

    def told_apart(self, real, made):
        return super().told_apart(made, real)


class Alike(PairedTask):
    """Calls both real, as a published code did."""

    def told_apart(self, real, made):
        return self.adversary(torch.cat([real, made]), True, for_discriminator=True)


@pytest.mark.parametrize(
    ("task", "low", "high"), [(PairedTask, 0.9, 1.0), (Swapped, 0.0, 0.1), (Alike, 0.4, 0.6)]
)
def test_the_discriminator_tells_real_from_made_up(task, low, high):
    torch.manual_seed(0)
    spec = spec_of(network="pix2pix")
    one = task(spec, lessons(spec), CPU)
    rng = np.random.default_rng(0)
    for _ in range(60):
        _, hot, image = one.tensors(*one.lessons.trained.draw(rng, spec.batch))
        with torch.no_grad():
            found = one.translate(hot)
        one.tell_apart(hot, image, found)
    with torch.no_grad():
        accuracy = one.validate()["discriminator_accuracy"]
    assert low <= accuracy <= high


def test_the_discriminator_sees_the_map():
    torch.manual_seed(0)
    spec = spec_of(network="spade")
    task = PairedTask(spec, lessons(spec), CPU)
    _, hot, image = task.tensors(*task.lessons.held_out)
    with torch.no_grad():
        assert not torch.equal(task.scores(hot, image), task.scores(hot.flip(1), image))


def test_generator_and_discriminator_want_the_opposite():
    spec = spec_of(network="pix2pix")
    task = PairedTask(spec, lessons(spec), CPU)
    real, made = torch.full((2, 1, 3, 3, 3), 1.0), torch.zeros(2, 1, 3, 3, 3)
    assert task.told_apart(real, made) == 0
    assert task.told_apart(made, real) == 1
    assert task.fooled(made) == 1
    assert task.fooled(real) == 0
    # Scores are compared as they are: an activation before would pull negative ones to 0.
    assert task.fooled(real - 3) == pytest.approx(9.0)


@pytest.mark.parametrize("size", [1, 4])
def test_small_lesions_count_as_much_as_large_ones(size):
    spec = spec_of(network="pix2pix", lesion_weight=2.0)
    task = PairedTask(spec, lessons(spec), CPU)
    labels = torch.full((2, 16, 16, 16), 3, dtype=torch.uint8)
    labels[0, :size, :size, :size] = 4
    image = torch.zeros(2, 2, 16, 16, 16)
    found = image + 3.0 * (labels == 4)[:, None]
    assert float(task.error(found, image, labels)) == pytest.approx(3.0 * size**3 / (2 * 16**3) + 2 * 3.0)


@pytest.mark.parametrize("network", ["pix2pix", "spade", "cyclegan"])
@pytest.mark.parametrize("dims", [2, 3])
def test_generators_are_unbounded_and_leave_their_settings_alone(network, dims):
    torch.manual_seed(0)
    spec = spec_of(network=network, spatial_dims=dims)
    before = spec.model_dump()
    net = generator(spec, 5, 2)
    hot = torch.zeros(1, 5, *[16] * dims)
    hot[:, 3] = 1
    with torch.no_grad():
        image = net(hot)
    assert image.shape == (1, 2, *[16] * dims)
    assert image.min() < 0 < image.max()
    if network == "cyclegan":  # shows the map at the mean of its classes before anything else
        net.means.copy_(torch.from_numpy(LEVELS))
        assert torch.equal(net.show(hot)[0, 0], torch.full([16] * dims, LEVELS[3, 0]))
    assert spec.model_dump() == before


@pytest.mark.parametrize("network", ["pix2pix", "spade"])
def test_every_voxel_of_the_map_is_seen(network):
    torch.manual_seed(0)
    net = generator(spec_of(network=network), 5, 2).eval()
    hot = torch.zeros(1, 5, 16, 16, 16)
    hot[:, 3] = 1
    other = hot.clone()
    other[0, :, 9, 9, 9] = torch.tensor([0, 0, 0, 0, 1.0])
    with torch.no_grad():
        if network == "spade":  # MONAI's part looks at every second voxel
            assert torch.equal(net.grow(other)[0], net.grow(hot)[0])
        moved = (net(other) - net(hot)).abs().sum(1)[0]
    assert moved[9, 9, 9] > 0.1


@pytest.mark.parametrize(("share", "expected"), [(1.0, 1.0), (0.0, 0.0)])
def test_patches_lie_at_lesions_as_often_as_asked(share, expected):
    scan = made_up(0, 40)
    far = replace(scan, tissue=np.full((5, 3), 38, np.int16))  # all other patches lie in a corner
    patches = Patches([far], spec_of(patch=16, lesion_share=share, flip=False))
    classes, images = patches.draw(np.random.default_rng(0), 50)
    assert classes.shape == (50, 16, 16, 16)
    assert images.shape == (50, 2, 16, 16, 16)
    assert images.dtype == np.float32
    assert (classes == 4).any((1, 2, 3)).mean() == expected


def test_each_lesion_is_as_likely_whatever_its_size():
    scan = made_up(0, 64)
    lesions = (np.full((1, 3), 10, np.int16), np.full((1000, 3), 50, np.int16))
    classes = np.zeros((64, 64, 64), np.uint8)
    classes[10, 10, 10], classes[50, 50, 50] = 4, 3
    one = replace(scan, classes=classes, lesions=lesions)
    drawn, _ = Patches([one], spec_of(lesion_share=1.0)).draw(np.random.default_rng(0), 200)
    assert 0.4 < (drawn == 4).any((1, 2, 3)).mean() < 0.6


def test_a_scan_is_in_spreads_of_its_own_tissue_and_cut_to_it():
    rng = np.random.default_rng(0)
    label, tissue = np.zeros((40, 40, 40)), np.zeros((40, 40, 40), np.uint8)
    tissue[10:30, 10:30, 10:30] = WHITE
    label[15:18, 15:18, 15:18], label[24, 24, 24] = 1, 1
    images = [rng.normal(level, spread, label.shape) for level, spread in ((300, 10), (-5, 0.1))]
    images[0][label == 1] += 50
    case = make_case(label, images, tissue=tissue)
    scan = scan_of(case, spec_of(), Semantics(None, ((WHITE,),), (1, 2)), 1.0)
    assert scan.classes.shape == (24, 24, 24)
    assert np.bincount(scan.classes.ravel(), minlength=4).tolist() == [24**3 - 20**3, 20**3 - 28, 28, 0]
    white = scan.image[:, scan.classes == 1].astype(float)
    np.testing.assert_allclose(np.median(white, axis=1), 0, atol=0.02)
    np.testing.assert_allclose(white.std(axis=1), 1, atol=0.03)
    assert scan.image[0][scan.classes == 2].mean() == pytest.approx(5, abs=0.6)
    assert sorted(len(voxels) for voxels in scan.lesions) == [1, 27]


def test_a_pool_gives_back_earlier_samples_and_keeps_them_in_its_state():
    pool, rng = Pool(4, [1]), np.random.default_rng(0)
    given = []
    for number in range(100):
        sample = torch.full((1, 1), float(number))
        given.append(float(pool.swapped(sample, rng)))
    assert given[:4] == [0, 1, 2, 3]
    late = [n - g for n, g in enumerate(given)]
    assert min(late) >= 0
    assert 0.3 < np.mean([d > 0 for d in late]) < 0.7
    again = Pool(4, [1])
    again.load_state_dict(pool.state_dict())
    assert torch.equal(again.kept, pool.kept)
    assert int(again.count) == 4


@pytest.mark.parametrize("task", [PairedTask, CycleTask])
def test_a_training_that_goes_on_comes_to_the_same_weights(task, tmp_path):
    name = "cyclegan" if task is CycleTask else "spade"
    spec = spec_of(network=name, steps=4, validate_every=2, validation_patches=2, pool=1, batch=2)

    def run(folder, *steps):
        for count in steps:
            torch.manual_seed(0)
            one = task(spec, lessons(spec), CPU)
            train(one, spec.model_copy(update={"steps": count}), Place(folder, CPU, "all"), Told(), "key")
        return torch.load(folder / "state" / "all-translation.pt", weights_only=True)["networks"]

    straight, stopped = run(tmp_path / "a", 4), run(tmp_path / "b", 2, 4)
    for network, weights in straight.items():
        for key, value in weights.items():
            assert torch.equal(value, stopped[network][key]), (network, key)


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    """A translation of slices, trained for three steps."""
    folder = tmp_path_factory.mktemp("slices")
    spec = spec_of(network="pix2pix", spatial_dims=2, steps=3, validate_every=3, validation_patches=4)
    learned = train_translation(SCANS, SEMANTICS, 1.0, spec, Place(folder, CPU, "all"), Told(), "key")
    return spec, learned


def test_the_same_training_comes_to_the_same_weights(slices, tmp_path):
    spec, learned = slices
    torch.manual_seed(7)  # whatever was drawn before
    again = train_translation(SCANS, SEMANTICS, 1.0, spec, Place(tmp_path, CPU, "all"), Told(), "key")
    assert learned.arrays.keys() == again.arrays.keys()
    assert all(np.array_equal(array, again.arrays[name]) for name, array in learned.arrays.items())
    other = spec.model_copy(update={"seed": 1})
    third = train_translation(SCANS, SEMANTICS, 1.0, other, Place(tmp_path, CPU, "all"), Told(), "other")
    assert any(not np.array_equal(array, third.arrays[name]) for name, array in learned.arrays.items())


def test_slices_are_translated_one_by_one(slices, translations, tmp_path):
    spec, learned = slices
    card = read_card(translations("pix2pix") / "all.safetensors")
    card = card.model_copy(update={"config": spec.model_dump(mode="json"), "about": learned.about})
    write_checkpoint(tmp_path / "m.safetensors", card, learned.arrays)
    model = open_translation(tmp_path / "m.safetensors")
    classes = np.random.default_rng(0).integers(0, 5, (18, 20, 3)).astype(np.uint8)
    image = model.image(classes)
    assert image.shape == (2, 18, 20, 3)
    np.testing.assert_allclose(image[..., :1], model.image(classes[..., :1]), rtol=1e-4, atol=1e-4)


def test_what_cannot_be_used_is_refused(translations, tmp_path):
    path = translations("pix2pix") / "all.safetensors"
    model = open_translation(path)
    one = make_case(np.zeros((4, 4, 4)))
    with pytest.raises(InputError, match="channels 2; the case has 1") as caught:
        model.tissue_of(one, {})
    assert "trained on this data set" in caught.value.remedy
    two = make_case(np.zeros((4, 4, 4)), [np.zeros((4, 4, 4))] * 2)
    with pytest.raises(InputError, match=r"lesion labels \(1,\); the case has \(1, 2\)"):
        model.tissue_of(two, {})
    with pytest.raises(InputError, match="no such checkpoint"):
        open_translation(tmp_path / "none.safetensors")
    card, arrays = read_checkpoint(path)
    wider = card.model_copy(update={"config": {**card.config, "widths": [4, 8]}})
    write_checkpoint(tmp_path / "wider.safetensors", wider, arrays)
    with pytest.raises(InputError, match="cannot be used"):
        open_translation(tmp_path / "wider.safetensors")
    write_checkpoint(tmp_path / "other.safetensors", card.model_copy(update={"kind": "hvae"}), arrays)
    with pytest.raises(InputError, match="is a hvae; translation was expected"):
        open_translation(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"network": "spade", "patch": 16, "widths": [8, 8, 8, 8]}, "patch should be more than 16"),
        ({"map": "m.nii", "classes": [[70000]]}, "less than or equal to 65535"),
        ({"patch": 20, "widths": (4, 8, 16)}, "multiple of 8"),
        ({"patch": 16, "widths": (4, 8), "discriminator_layers": 3}, "32 or more"),
        ({"classes": [[1, 2]]}, "not given"),
        ({"map": ""}, "at least 1 character"),
        ({"network": "stylegan"}, "pix2pix"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, what):
    with pytest.raises(ValidationError, match=what):
        TranslationSpec.model_validate(settings)


@pytest.mark.parametrize("preset", sorted(TranslationSpec.presets))
def test_presets_are_settings(preset):
    TranslationSpec.model_validate(TranslationSpec.presets[preset])
