"""Translate semantic maps to images: pix2pix, SPADE and CycleGAN. How each is trained.

References
----------
Isola, Zhu, Zhou, Efros, Image-to-Image Translation with Conditional Adversarial Networks, CVPR 2017,
arXiv:1611.07004. Park, Liu, Wang, Zhu, CVPR 2019, arXiv:1903.07291. Zhu, Park, Isola, Efros, Unpaired
Image-to-Image Translation using Cycle-Consistent Adversarial Networks, ICCV 2017, arXiv:1703.10593. For
lesions: Platscher, Zopes, Federau, Image Translation for Medical Image Generation, 2020, arXiv:2010.02745.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.losses import PatchAdversarialLoss
from monai.metrics import SSIMMetric
from numpy.typing import NDArray
from torch import Tensor, nn

from lesionsynth.generative.lesion_data import held_out
from lesionsynth.generative.nets import arrays_of, one_hot
from lesionsynth.generative.specs import TranslationSpec
from lesionsynth.generative.tissue_map import Semantics
from lesionsynth.generative.training import SCORE, Learned, Place, Told, mixed, seed_weights, train
from lesionsynth.generative.translation_data import Patches, Scan, means_of, ranges_of
from lesionsynth.generative.translation_nets import Altered, Pool, discriminator, generator
from lesionsynth.rng import stream

_BETAS = (0.5, 0.999)
_WINDOW = 7


@dataclass(frozen=True, eq=False)
class Lessons:
    """What a translation is trained and looked at on.

    Parameters
    ----------
    trained : Patches
    held_out : tuple of ndarray
        Classes (N, p, p[, p]) and images (N, C, p, p[, p]) in spreads.
    semantics : Semantics
    ranges : ndarray, (C,), float32
        What an image is divided by for a network: the difference from the tissue that is common.
    means : ndarray, (K, C), float32
        Mean of each class in the training cases, in spreads.
    """

    trained: Patches
    held_out: tuple[NDArray[np.uint8], NDArray[np.float32]]
    semantics: Semantics
    ranges: NDArray[np.float32]
    means: NDArray[np.float32]


def train_translation(
    scans: Sequence[Scan],
    semantics: Semantics,
    spacing_mm: float,
    spec: TranslationSpec,
    place: Place,
    told: Told,
    key: str,
) -> Learned:
    """Train a generator of images from semantic maps on some cases."""
    train_on, validate_on = held_out(scans, spec.held_out, spec.seed, "translation")
    rng = stream(spec.seed, "train", "held-out patches")
    lessons = Lessons(
        Patches(train_on, spec),
        Patches(validate_on, spec).draw(rng, spec.validation_patches),
        semantics,
        ranges_of(train_on),
        means_of(train_on, semantics.count),
    )
    seed_weights(spec, place, "translation")
    task = (CycleTask if spec.network == "cyclegan" else PairedTask)(spec, lessons, place.device)
    done = train(task, spec, place, told, key)
    about = {
        **semantics.about(),
        "channels": len(lessons.ranges),
        "spacing_mm": spacing_mm,
        "validated_on": sorted({scan.subject for scan in validate_on}),
    }
    arrays = {**arrays_of({"generator": task.networks["generator"]}), "ranges": lessons.ranges}
    measures = {name: value for name, value in done.measures.items() if name != SCORE}
    measures["untrained_l1"] = done.untrained["l1"]
    return Learned(about, arrays, {**measures, "ran": float(done.ran)}, done.steps, (task.name,))


class _Translation(ABC):
    """What all methods share: the adversarial terms, and what is measured."""

    name = "translation"

    def __init__(self, spec: TranslationSpec, lessons: Lessons, device: torch.device) -> None:
        self.spec, self.lessons, self.device = spec, lessons, device
        self.semantics = lessons.semantics
        self.count, self.channels = self.semantics.count, len(lessons.ranges)
        self.ranges = torch.from_numpy(lessons.ranges).to(device).reshape(-1, *[1] * spec.spatial_dims)
        # Real is 1 and made up is 0, and the targets are compared with the scores themselves.
        self.adversary = PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True)
        self.networks: dict[str, nn.Module] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}

    def _add(self, networks: dict[str, nn.Module], trained: dict[str, Sequence[str]]) -> None:
        """Networks, and which of them each optimizer trains."""
        self.networks = {name: network.to(self.device) for name, network in networks.items()}
        for name, parts in trained.items():
            own = [p for part in parts for p in self.networks[part].parameters()]
            self.optimizers[name] = torch.optim.Adam(own, self.spec.learning_rate, betas=_BETAS)

    def tensors(
        self, classes: NDArray[np.uint8], images: NDArray[np.float32]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Classes, one-hot map and image of patches, as networks take them."""
        labels = torch.from_numpy(classes).to(self.device)
        return labels, one_hot(labels, self.count), torch.from_numpy(images).to(self.device) / self.ranges

    def translate(self, hot: Tensor) -> Tensor:
        """Images of one-hot maps."""
        return self.networks["generator"](hot)

    @abstractmethod
    def scores(self, hot: Tensor, image: Tensor) -> Tensor:
        """What the discriminator of images makes of them."""

    def fooled(self, scores: Tensor) -> Tensor:
        """Loss of a generator: how far the discriminator is from taking its output for real."""
        return self.adversary(scores.float(), True, for_discriminator=False)

    def told_apart(self, real: Tensor, made: Tensor) -> Tensor:
        """Loss of a discriminator: real is 1, made up is 0."""
        return 0.5 * (
            self.adversary(real.float(), True, for_discriminator=True)
            + self.adversary(made.float(), False, for_discriminator=True)
        )

    def error(self, found: Tensor, image: Tensor, labels: Tensor) -> Tensor:
        """Mean absolute error of patches, and as much again of their lesions, however small these are."""
        error = (found.float() - image).abs().mean(1)
        lesion = self.semantics.is_lesion(labels).float()
        axes = tuple(range(1, error.ndim))
        sizes = lesion.sum(axes)
        inside = (error * lesion).sum(axes) / sizes.clamp(min=1)
        return error.mean() + self.spec.lesion_weight * inside.sum() / (sizes > 0).sum().clamp(min=1)

    def update(self, name: str, loss: Tensor) -> Tensor:
        """One step of an optimizer."""
        self.optimizers[name].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers[name].step()
        return loss.detach()

    def held_out_batches(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Held-out patches."""
        classes, images = self.lessons.held_out
        for start in range(0, len(classes), self.spec.batch):
            part = slice(start, start + self.spec.batch)
            yield self.tensors(classes[part], images[part])

    def validate(self) -> dict[str, float]:
        """What the images of held-out maps are like, beside the held-out images; errors in spreads.

        Returns
        -------
        dict
            "l1" and "l1_lesion": mean absolute error, and that in lesions; "l1_of_means",
            "l1_lesion_of_means": where each class is painted with its mean; "lesion_contrast": difference of
            lesions from the tissue, made over real, in the channel where it is largest; "ssim";
            "discriminator_accuracy": share of patches, real and made, that are scored nearer to what they
            are.
        """
        similarity = SSIMMetric(self.spec.spatial_dims, data_range=2.0, win_size=_WINDOW)
        means = torch.from_numpy(self.lessons.means).to(self.device)
        sums = {"l1": [0.0] * 3, "l1_lesion": [0.0] * 3}
        told, alike, lesions = [], [], []
        for labels, hot, image in self.held_out_batches():
            found = self.translate(hot).float()
            told += [(self.scores(hot, image).float().flatten(1).mean(1) > 0.5).cpu()]
            told += [(self.scores(hot, found).float().flatten(1).mean(1) <= 0.5).cpu()]
            alike.append(similarity(found, image).cpu().flatten())
            flat = means[labels.long()].movedim(-1, 1)
            found, image = found * self.ranges, image * self.ranges
            lesion = self.semantics.is_lesion(labels)
            for name, where in (("l1", torch.ones_like(lesion)), ("l1_lesion", lesion)):
                for number, guess in enumerate((found, flat)):
                    sums[name][number] += float((guess - image).abs().mean(1)[where].sum())
                sums[name][2] += float(where.sum())
            lesions.append(torch.stack([x.movedim(1, -1)[lesion].sum(0) for x in (found, image)]).cpu())
        measures = {
            name + of: total[number] / max(total[2], 1.0)
            for name, total in sums.items()
            for number, of in enumerate(("", "_of_means"))
        }
        made, real = torch.stack(lesions).sum(0) / max(sums["l1_lesion"][2], 1.0)
        strongest = int(real.abs().argmax())
        return {
            SCORE: measures["l1"] + measures["l1_lesion"],
            **measures,
            "lesion_contrast": float(made[strongest] / real[strongest]) if real[strongest] else 0.0,
            "ssim": float(torch.cat(alike).mean()),
            "discriminator_accuracy": float(torch.cat(told).float().mean()),
        }


class PairedTask(_Translation):
    """pix2pix and SPADE: an image that is like the one of the map, and that a discriminator takes for real.

    The discriminator sees map and image together.
    """

    def __init__(self, spec: TranslationSpec, lessons: Lessons, device: torch.device) -> None:
        super().__init__(spec, lessons, device)
        self._add(
            {
                "generator": generator(spec, self.count, self.channels),
                "discriminator": discriminator(spec, self.count + self.channels),
            },
            {"generator": ["generator"], "discriminator": ["discriminator"]},
        )

    def scores(self, hot: Tensor, image: Tensor) -> Tensor:
        """What the discriminator makes of images of these maps."""
        return self.networks["discriminator"](torch.cat([hot, image], 1))[-1]

    def step(self, rng: np.random.Generator) -> Mapping[str, Tensor]:
        """One update of each network."""
        labels, hot, image = self.tensors(*self.lessons.trained.draw(rng, self.spec.batch))
        with mixed(self.device):
            found = self.translate(hot)
            fooled = self.fooled(self.scores(hot, found))
        error = self.error(found, image, labels)
        self.update("generator", fooled + self.spec.l1 * error)
        return {
            "error": error.detach(),
            "fooled": fooled.detach(),
            "told": self.tell_apart(hot, image, found),
        }

    def tell_apart(self, hot: Tensor, image: Tensor, found: Tensor) -> Tensor:
        """One update of the discriminator."""
        with mixed(self.device):
            told = self.told_apart(self.scores(hot, image), self.scores(hot, found.detach()))
        return self.update("discriminator", told)


class CycleTask(_Translation):
    """CycleGAN: a generator of images from maps, and one of maps from images, learned from unpaired patches.

    The way there and back has to end where it began. Weights are kept by the error on held-out pairs.
    """

    def __init__(self, spec: TranslationSpec, lessons: Lessons, device: torch.device) -> None:
        super().__init__(spec, lessons, device)
        shape = [self.channels, *[spec.patch] * spec.spatial_dims]
        self._add(
            {
                "generator": generator(spec, self.count, self.channels),
                "mapper": Altered(spec, self.channels),
                "discriminator": discriminator(spec, self.channels),
                "map_discriminator": discriminator(spec, self.channels),
                "pool": Pool(spec.pool, shape),
                "map_pool": Pool(spec.pool, shape),
            },
            {
                "generators": ["generator", "mapper"],
                "discriminator": ["discriminator"],
                "map_discriminator": ["map_discriminator"],
            },
        )
        self.networks["generator"].means.copy_(torch.from_numpy(lessons.means / lessons.ranges))

    def scores(self, hot: Tensor, image: Tensor) -> Tensor:
        """What the discriminator makes of images; it does not know the maps."""
        return self.networks["discriminator"](image)[-1]

    def step(self, rng: np.random.Generator) -> Mapping[str, Tensor]:
        """One update of each network."""
        labels, hot, _ = self.tensors(*self.lessons.trained.draw(rng, self.spec.batch))
        # Unpaired: the image is of other patches, whose lesions are not looked at.
        _, _, image = self.tensors(*self.lessons.trained.draw(rng, self.spec.batch))
        paint, mapper = self.networks["generator"].alter, self.networks["mapper"]
        map_scores = self.networks["map_discriminator"]
        shown = self.networks["generator"].show(hot)
        with mixed(self.device):
            found, drawn = paint(shown), mapper(image)
            fooled = self.fooled(self.scores(hot, found)) + self.fooled(map_scores(drawn)[-1])
            again, redrawn = paint(drawn), mapper(found)
            same, redone = paint(image), mapper(shown)
        cycle = (again.float() - image).abs().mean() + self.error(redrawn, shown, labels)
        identity = (same.float() - image).abs().mean() + self.error(redone, shown, labels)
        self.update("generators", fooled + self.spec.cycle * cycle + self.spec.identity * identity)
        made = self.networks["pool"].swapped(found.detach(), rng)
        maps = self.networks["map_pool"].swapped(drawn.detach(), rng)
        with mixed(self.device):
            told = self.told_apart(self.scores(hot, image), self.scores(hot, made))
            told_maps = self.told_apart(map_scores(shown)[-1], map_scores(maps)[-1])
        self.update("discriminator", told)
        self.update("map_discriminator", told_maps)
        return {"cycle": cycle.detach(), "fooled": fooled.detach(), "told": told.detach()}
