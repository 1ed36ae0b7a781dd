"""Adversarial autoencoders of single lesions: one for shapes, one for intensities given the shape.

The codes of an autoencoder are held to N(0, I) by a discriminator in the latent space.

References
----------
Makhzani et al., Adversarial Autoencoders, 2015, arXiv:1511.05644. Huo, Ourselin, Sparks, 2024,
arXiv:2406.14826, for the two stages of lesions; its formulas could not be had: networks and losses are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any

import numpy as np
import torch
from monai.losses import DiceCELoss
from monai.networks.blocks import Convolution
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from lesionsynth.generative.crops import RIM_MM, Crop
from lesionsynth.generative.nets import (
    ACT,
    NORM,
    SizedDecoder,
    constant,
    decoder,
    encoder,
    latent_critic,
    one_hot,
)
from lesionsynth.generative.specs import AutoencoderSpec, CubeSpec
from lesionsynth.generative.training import SCORE, mixed

_FIELD = 8
_BETAS = (0.5, 0.9)


@dataclass(frozen=True)
class Scale:
    """How sizes are told to a network: the logarithm of the voxel edge, standardised."""

    mean: float
    spread: float

    @classmethod
    def of(cls, edges_mm: Sequence[float]) -> Scale:
        """Of the training lesions."""
        logs = np.log(edges_mm)
        return cls(float(logs.mean()), max(float(logs.std()), 0.05))

    def size(self, edge_mm: Any) -> Any:
        """What a network is told."""
        return (np.log(edge_mm) - self.mean) / self.spread

    def edge_mm(self, size: float) -> float:
        """The reverse of :meth:`size`."""
        return float(np.exp(self.mean + self.spread * size))


TURNS = [(axes, signs) for axes in permutations(range(3)) for signs in product((False, True), repeat=3)]
"""The 48 ways to lay a cube on itself."""


def turned(cube: Tensor, turn: tuple[Sequence[int], Sequence[bool]]) -> Tensor:
    """A cube (..., n, n, n) turned."""
    lead = cube.ndim - 3
    axes, signs = turn
    laid = cube.permute(*range(lead), *(lead + a for a in axes))
    return torch.flip(laid, [lead + k for k, sign in enumerate(signs) if sign])


class Samples:
    """Crops as tensors on a device, drawn in batches, flipped and turned where the settings say so.

    Images only where asked for: a shape may have none.
    """

    def __init__(
        self,
        crops: Sequence[Crop],
        spec: CubeSpec,
        scale: Scale,
        device: torch.device,
        with_images: bool = False,
    ) -> None:
        self.spec, self.device = spec, device
        self.classes = torch.from_numpy(np.stack([c.classes for c in crops])).to(device)
        self.sizes = torch.tensor([scale.size(c.edge_mm) for c in crops], dtype=torch.float32, device=device)
        self.images = self.known = self.classes[:, :0]
        if with_images:
            self.images = torch.from_numpy(np.stack([c.image for c in crops])).to(device)
            self.known = torch.from_numpy(np.stack([c.known for c in crops])).to(device)

    def __len__(self) -> int:
        return len(self.sizes)

    def draw(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Classes, sizes, images, known voxels of a batch."""
        chosen = torch.from_numpy(rng.integers(len(self), size=self.spec.batch)).to(self.device)
        parts = [self.classes[chosen], self.images[chosen], self.known[chosen]]
        if self.spec.turn:
            turn = TURNS[int(rng.integers(len(TURNS)))]
            parts = [turned(part, turn) for part in parts]
        return parts[0], self.sizes[chosen], parts[1], parts[2]


class _Adversarial:
    """What both autoencoders share: a discriminator in the latent space, and the two updates."""

    name = ""

    def __init__(
        self, spec: AutoencoderSpec, latent: int, parts: dict[str, nn.Module], device: torch.device
    ) -> None:
        self.spec, self.latent, self.device = spec, latent, device
        self.networks: dict[str, nn.Module] = {
            name: network.to(device) for name, network in {**parts, "critic": latent_critic(latent)}.items()
        }
        own = [p for name in parts for p in self.networks[name].parameters()]
        critic = self.networks["critic"].parameters()
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "own": torch.optim.Adam(own, spec.learning_rate, betas=_BETAS),
            "critic": torch.optim.Adam(critic, spec.learning_rate, betas=_BETAS),
        }

    def update(self, codes: Tensor, loss: Tensor, rng: np.random.Generator) -> dict[str, Tensor]:
        """One update of the autoencoder by `loss` and the critic's view of `codes`, one of the critic."""
        critic = self.networks["critic"]
        with mixed(self.device):
            fooled = _told(critic(codes), 1.0)
        self.optimizers["own"].zero_grad(set_to_none=True)
        (loss + self.spec.adversarial * fooled).backward()
        self.optimizers["own"].step()
        prior = torch.from_numpy(rng.standard_normal(codes.shape, dtype=np.float32)).to(self.device)
        with mixed(self.device):
            drawn, coded = critic(prior), critic(codes.detach())
            told = 0.5 * (_told(drawn, 1.0) + _told(coded, 0.0))
        self.optimizers["critic"].zero_grad(set_to_none=True)
        told.backward()
        self.optimizers["critic"].step()
        accuracy = 0.5 * ((drawn > 0).float().mean() + (coded <= 0).float().mean())
        return {"loss": loss.detach(), "latent": told.detach(), "latent_accuracy": accuracy}


def _told(logits: Tensor, target: float) -> Tensor:
    return functional.binary_cross_entropy_with_logits(
        logits.float(), torch.full_like(logits.float(), target)
    )


def shape_networks(spec: AutoencoderSpec, classes: int) -> dict[str, nn.Module]:
    """Encoder and decoder of shapes with `classes` label values of lesions."""
    cube = (spec.size,) * 3
    return {
        "encoder": encoder((classes + 2, *cube), spec.latent, spec.widths),
        "decoder": SizedDecoder(spec.latent, classes + 1, spec.size, spec.widths),
    }


class ShapeTask(_Adversarial):
    """Trains the shape autoencoder: cross-entropy + Dice of the classes, squared error of the size."""

    name = "shape"

    def __init__(
        self, spec: AutoencoderSpec, classes: int, trained: Samples, held_out: Samples, device: torch.device
    ) -> None:
        super().__init__(spec, spec.latent, shape_networks(spec, classes), device)
        self.count, self.trained, self.held_out = classes + 1, trained, held_out
        self.loss = DiceCELoss(softmax=True, to_onehot_y=True, include_background=False)

    def encode(self, classes: Tensor, sizes: Tensor) -> Tensor:
        """Codes of shapes."""
        hot = one_hot(classes, self.count)
        return self.networks["encoder"](torch.cat([hot, constant(sizes, self.spec.size)], 1)).float()

    def step(self, rng: np.random.Generator) -> Mapping[str, Tensor]:
        """One update."""
        classes, sizes, _, _ = self.trained.draw(rng)
        with mixed(self.device):
            codes = self.encode(classes, sizes)
            logits, found = self.networks["decoder"](codes)
        fit = self.loss(logits.float(), classes[:, None])
        size = functional.mse_loss(found.float(), sizes)
        return {**self.update(codes, fit + 0.1 * size, rng), "size": size.detach()}

    def validate(self) -> dict[str, float]:
        """Reconstruction of held-out lesions: Dice of lesion against not, and the error of the size."""
        dices, errors = self.reconstruct(self.held_out)
        return {
            SCORE: 1 - float(np.mean(dices)),
            "dice": float(np.mean(dices)),
            "size_error": float(np.mean(errors)),
        }

    def reconstruct(self, samples: Samples) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Dice of each sample with its reconstruction, and the error of its size."""
        dices, errors = [], []
        with torch.no_grad():
            for start in range(0, len(samples), self.spec.batch):
                part = slice(start, start + self.spec.batch)
                codes = self.encode(samples.classes[part], samples.sizes[part])
                logits, sizes = self.networks["decoder"](codes)
                found, true = logits.argmax(1) > 0, samples.classes[part] > 0
                both = (found & true).flatten(1).sum(1)
                dices.append(
                    (2 * both / (found.flatten(1).sum(1) + true.flatten(1).sum(1)).clamp(min=1)).cpu()
                )
                errors.append((sizes - samples.sizes[part]).abs().cpu())
        return torch.cat(dices).double().numpy(), torch.cat(errors).double().numpy()

    def shapes_of(self, codes: Sequence[Sequence[float]]) -> NDArray[np.uint8]:
        """Classes (N, n, n, n) that codes (N, latent) stand for."""
        with torch.no_grad():
            logits, _ = self.networks["decoder"](torch.tensor(codes, dtype=torch.float32, device=self.device))
        return np.asarray(logits.argmax(1).cpu().numpy().astype(np.uint8))

    def codes_of(self, samples: Samples) -> NDArray[np.float32]:
        """Codes of all samples."""
        with torch.no_grad():
            found = [
                self.encode(
                    samples.classes[k : k + self.spec.batch], samples.sizes[k : k + self.spec.batch]
                ).cpu()
                for k in range(0, len(samples), self.spec.batch)
            ]
        return np.asarray(torch.cat(found).numpy())


class Painter(nn.Module):
    """Image of a lesion from its code, its shape, the distance from its edge, and its size."""

    def __init__(self, spec: AutoencoderSpec, classes: int, channels: int) -> None:
        super().__init__()
        cube = (spec.size,) * 3
        self.field = decoder(spec.image_latent, (_FIELD, *cube), spec.widths)
        width = spec.widths[0]
        self.paint = nn.Sequential(
            Convolution(3, _FIELD + classes + 3, width, act=ACT, norm=NORM),
            Convolution(3, width, width, act=ACT, norm=NORM),
            Convolution(3, width, channels, conv_only=True),
        )

    def forward(self, code: Tensor, guide: Tensor) -> Tensor:
        """Image (B, C, n, n, n) from codes and :func:`guide_of`."""
        return self.paint(torch.cat([self.field(code), guide], 1))


def guide_of(classes: Tensor, sizes: Tensor, distances: Tensor, count: int) -> Tensor:
    """What the intensities are conditioned on, (B, count + 2, n, n, n)."""
    return torch.cat([one_hot(classes, count), distances[:, None], constant(sizes, classes.shape[-1])], 1)


def edge_distances(classes: NDArray[np.uint8], edge_mm: float) -> NDArray[np.float32]:
    """Signed distance from the edge of a shape in units of the rim, negative inside, cut at -4 and 2."""
    mask = classes > 0
    outside = ndimage.distance_transform_edt(~mask) if mask.any() else np.full(mask.shape, 1e3)
    inside = ndimage.distance_transform_edt(mask)
    signed = np.where(mask, 0.5 - inside, outside - 0.5) * edge_mm / RIM_MM
    return np.clip(signed, -4.0, 2.0).astype(np.float32)


def image_networks(spec: AutoencoderSpec, classes: int, channels: int) -> dict[str, nn.Module]:
    """Encoder and decoder of intensities."""
    cube = (spec.size,) * 3
    return {
        "encoder": encoder((channels + classes + 3, *cube), spec.image_latent, spec.widths),
        "decoder": Painter(spec, classes, channels),
    }


class ImageTask(_Adversarial):
    """Trains the intensity autoencoder: absolute error in the lesion, and with half the weight in its rim.

    Intensities are differences from the tissue around, divided by `scale` of each channel.
    """

    name = "image"

    def __init__(
        self,
        spec: AutoencoderSpec,
        classes: int,
        trained: Samples,
        held_out: Samples,
        crops: tuple[Sequence[Crop], Sequence[Crop]],
        scale: NDArray[np.float32],
        device: torch.device,
    ) -> None:
        super().__init__(spec, spec.image_latent, image_networks(spec, classes, len(scale)), device)
        self.count, self.trained, self.held_out = classes + 1, trained, held_out
        self.scale = torch.from_numpy(scale).to(device)[:, None, None, None]
        for samples, own in zip((trained, held_out), crops, strict=True):
            samples.images = samples.images / self.scale
            distances = np.stack([edge_distances(c.classes, c.edge_mm) for c in own])
            # Drawn and turned together with the images, as one more channel of theirs.
            samples.images = torch.cat([samples.images, torch.from_numpy(distances).to(device)[:, None]], 1)

    def _parts(self, batch: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Guide, image and weights of a batch."""
        classes, sizes, images, known = batch
        image, distances = images[:, :-1], images[:, -1]
        inside = classes > 0
        weights = (inside.float() + 0.5 * (known & ~inside & (distances <= 1))).unsqueeze(1)
        return guide_of(classes, sizes, distances, self.count), image, weights

    def encode(self, guide: Tensor, image: Tensor, weights: Tensor) -> Tensor:
        """Codes of images."""
        return self.networks["encoder"](torch.cat([image * (weights > 0), guide], 1)).float()

    def step(self, rng: np.random.Generator) -> Mapping[str, Tensor]:
        """One update."""
        guide, image, weights = self._parts(self.trained.draw(rng))
        with mixed(self.device):
            codes = self.encode(guide, image, weights)
            found = self.networks["decoder"](codes, guide)
        return self.update(codes, _weighted_error(found.float(), image, weights).mean(), rng)

    def validate(self) -> dict[str, float]:
        """Absolute error on held-out lesions, and its ratio to that of each lesion's own mean."""
        errors, flat = [], []
        for start in range(0, len(self.held_out), self.spec.batch):
            part = slice(start, start + self.spec.batch)
            held = self.held_out
            guide, image, weights = self._parts(
                (held.classes[part], held.sizes[part], held.images[part], held.known[part])
            )
            found = self.networks["decoder"](self.encode(guide, image, weights), guide)
            errors.append(_weighted_error(found, image, weights).cpu())
            total = weights.sum((2, 3, 4), keepdim=True)
            mean = (image * weights).sum((2, 3, 4), keepdim=True) / total.clamp(min=1e-6)
            flat.append(_weighted_error(mean.expand_as(image), image, weights).cpu())
        error = float(torch.cat(errors).mean())
        return {SCORE: error, "error": error, "error_of_mean": float(torch.cat(flat).mean())}

    def codes_of(self) -> NDArray[np.float32]:
        """Codes of all training samples."""
        found = []
        data = self.trained
        with torch.no_grad():
            for start in range(0, len(data), self.spec.batch):
                part = slice(start, start + self.spec.batch)
                parts = self._parts(
                    (data.classes[part], data.sizes[part], data.images[part], data.known[part])
                )
                found.append(self.encode(*parts).cpu())
        return np.asarray(torch.cat(found).numpy())


def _weighted_error(found: Tensor, image: Tensor, weights: Tensor) -> Tensor:
    """Mean absolute error of each sample, (B,)."""
    total = (weights.sum((1, 2, 3, 4)) * image.shape[1]).clamp(min=1e-6)
    return ((found - image).abs() * weights).sum((1, 2, 3, 4)) / total
