"""Variational autoencoder of images together with their lesion masks, with Hamiltonian moves of its codes.

Image and mask are decoded from one code z: p(x, m, z) = N(z; 0, I) N(x; mean(z), sd) Cat(m; logits(z)), and
the posterior q(z | x, m) is a Gaussian whose samples are moved by tempered leapfrog steps.

References
----------
Kebaili et al., 2023, arXiv:2311.10472, for image and mask in one Hamiltonian model. Caterini et al., 2018,
arXiv:1805.11328, for the moves (:mod:`leapfrog`). Rybkin et al., Simple and effective VAE training with
calibrated decoders, 2021, arXiv:2006.13202, for the learned standard deviation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from monai.losses import DiceLoss
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from lesionsynth.generative.leapfrog import Moves, Posterior, log_weight, prior_energy
from lesionsynth.generative.nets import decoder, encoder, one_hot
from lesionsynth.generative.samples import Sample
from lesionsynth.generative.specs import HvaeSpec
from lesionsynth.generative.training import SCORE, mixed
from lesionsynth.rng import stream

_LEAST_LOG_SD, _MOST_LOG_SD = -3.0, 2.0
_POSTERIOR_LOG_SD = (-6.0, 2.0)
_UNMOVED = Moves(0, 1.0, 1.0)


class Decoder(nn.Module):
    """Mean of the image and logits of the mask from a code.

    Parameters
    ----------
    spec : HvaeSpec
    classes : int
        Label values of lesions.
    channels : int
    """

    def __init__(self, spec: HvaeSpec, classes: int, channels: int) -> None:
        super().__init__()
        shape = (channels + classes + 1, *(spec.size,) * spec.dims)
        self.channels = channels
        self.net = decoder(spec.latent, shape, spec.widths)
        start = torch.full((channels,), math.log(spec.image_sd or 1.0))
        self.log_sd = nn.Parameter(start, requires_grad=spec.image_sd is None)

    def forward(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """Means (B, C, n, ...) and logits (B, K, n, ...)."""
        found = self.net(code)
        return found[:, : self.channels], found[:, self.channels :]

    def likelihoods(self, code: Tensor, image: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Give log p(image | code) and log p(classes | code), (B,), and the logits."""
        mean, logits = self(code)
        log_sd = self.log_sd.clamp(_LEAST_LOG_SD, _MOST_LOG_SD).reshape(-1, *[1] * (image.ndim - 2))
        off = (image - mean) * torch.exp(-log_sd)
        of_image = (-0.5 * off.square() - log_sd - 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)
        of_mask = -functional.cross_entropy(logits, classes.long(), reduction="none").flatten(1).sum(1)
        return of_image, of_mask, logits


def networks_of(spec: HvaeSpec, classes: int, channels: int) -> dict[str, nn.Module]:
    """Encoder and decoder."""
    shape = (channels + classes + 1, *(spec.size,) * spec.dims)
    return {
        "encoder": encoder(shape, 2 * spec.latent, spec.widths),
        "decoder": Decoder(spec, classes, channels),
    }


class Batches:
    """Samples as tensors on a device; images divided by `scale` (C,)."""

    def __init__(self, samples: Sequence[Sample], scale: NDArray[np.float32], device: torch.device) -> None:
        shape = (1, -1, *[1] * (samples[0].image.ndim - 1))
        self.images = torch.from_numpy(np.stack([s.image for s in samples]) / scale.reshape(shape)).to(device)
        self.classes = torch.from_numpy(np.stack([s.classes for s in samples])).to(device)

    def __len__(self) -> int:
        return len(self.classes)

    def draw(self, size: int, flip: bool, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """A batch of images and classes, half of them flipped left to right where `flip`."""
        chosen = torch.from_numpy(rng.integers(len(self), size=size)).to(self.classes.device)
        image, classes = self.images[chosen], self.classes[chosen]
        turned = torch.from_numpy(rng.random(size) < 0.5).to(self.classes.device)
        if flip:
            lone = (-1, *[1] * (classes.ndim - 1))
            image = torch.where(turned.reshape(*lone, 1), image.flip(2), image)
            classes = torch.where(turned.reshape(lone), classes.flip(1), classes)
        return image, classes

    def parts(self, size: int) -> list[tuple[Tensor, Tensor]]:
        """All samples in their order, in batches."""
        return list(zip(self.images.split(size), self.classes.split(size), strict=True))


class HvaeTask:
    """Trains encoder and decoder by the bound on the evidence, a voxel's share of it, and the Dice loss.

    Parameters
    ----------
    spec : HvaeSpec
    classes : int
        Label values of lesions.
    trained, held_out : Batches
    device : torch.device
    """

    name = "hvae"

    def __init__(
        self, spec: HvaeSpec, classes: int, trained: Batches, held_out: Batches, device: torch.device
    ) -> None:
        self.spec, self.count, self.device = spec, classes + 1, device
        self.trained, self.held_out = trained, held_out
        made = networks_of(spec, classes, trained.images.shape[1])
        self.networks: dict[str, nn.Module] = {name: net.to(device) for name, net in made.items()}
        trainable = [p for net in self.networks.values() for p in net.parameters() if p.requires_grad]
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "own": torch.optim.AdamW(trainable, spec.learning_rate)
        }
        self.moves = Moves(spec.leapfrog_steps, spec.leapfrog_size, spec.sqrt_beta0)
        self.voxels = spec.size**spec.dims
        # Over the whole batch: samples without a lesion would else tell the loss nothing but noise.
        self.overlap = DiceLoss(softmax=True, to_onehot_y=True, include_background=False, batch=True)

    def encode(self, image: Tensor, classes: Tensor) -> Posterior:
        """Posterior of the code of images and their classes."""
        with mixed(self.device):
            found = self.networks["encoder"](torch.cat([image, one_hot(classes, self.count)], 1))
        mean, log_sd = found.float().chunk(2, 1)
        return Posterior(mean, log_sd.clamp(*_POSTERIOR_LOG_SD))

    def potential(self, code: Tensor, image: Tensor, classes: Tensor, mask_weight: float) -> Tensor:
        """-log p(image, classes, code), the mask's likelihood to a power; always in float32."""
        of_image, of_mask, _ = self.networks["decoder"].likelihoods(code, image, classes)
        return prior_energy(code) - of_image - mask_weight * of_mask

    def bound(
        self,
        batch: tuple[Tensor, Tensor],
        moves: Moves,
        mask_weight: float,
        rng: np.random.Generator,
        create_graph: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Moved codes (B, d), and the estimated bound on the log evidence of each sample (B,)."""
        image, classes = batch
        posterior = self.encode(image, classes)
        drawn = rng.standard_normal((2, *posterior.mean.shape), dtype=np.float32)
        noise, momentum = torch.from_numpy(drawn).to(self.device)
        energy = partial(self.potential, image=image, classes=classes, mask_weight=mask_weight)
        return log_weight(energy, posterior, noise, momentum, moves, create_graph)

    def loss(
        self, batch: tuple[Tensor, Tensor], rng: np.random.Generator, create_graph: bool = False
    ) -> dict[str, Tensor]:
        """What is minimised, and its parts."""
        codes, bound = self.bound(batch, self.moves, self.spec.mask_weight, rng, create_graph)
        overlap = self.overlap(self.networks["decoder"](codes)[1], batch[1][:, None])
        bound = -bound.mean() / self.voxels
        return {"loss": bound + self.spec.dice * overlap, "bound": bound, "overlap": overlap}

    def step(self, rng: np.random.Generator) -> Mapping[str, Tensor]:
        """One update."""
        losses = self.loss(self.trained.draw(self.spec.batch, self.spec.flip, rng), rng, create_graph=True)
        self.optimizers["own"].zero_grad(set_to_none=True)
        losses["loss"].backward()
        self.optimizers["own"].step()
        return {name: value.detach() for name, value in losses.items()}

    def validate(self) -> dict[str, float]:
        """Loss on held-out samples, bounds with moves and without (nats a sample), reconstruction.

        Both bounds have the same draws, and weigh the mask once, so that they bound the evidence.
        Dice is of lesion voxels of samples that have any; PSNR is relative to the range of each channel.
        """
        sums: dict[str, list[float]] = {SCORE: [], "elbo": [], "elbo_k0": [], "dice": [], "psnr": []}
        images = self.held_out.images
        flat = images.movedim(1, 0).flatten(1)
        peak = (flat.amax(1) - flat.amin(1)).clamp(min=1e-6)  # a channel may be flat
        for number, batch in enumerate(self.held_out.parts(self.spec.batch)):

            def rng(number: int = number) -> np.random.Generator:
                return stream(self.spec.seed, "train", "hvae", "validate", number)

            sums[SCORE] += [float(self.loss(batch, rng())["loss"])] * len(batch[1])
            sums["elbo"] += self.bound(batch, self.moves, 1.0, rng())[1].tolist()
            sums["elbo_k0"] += self.bound(batch, _UNMOVED, 1.0, rng())[1].tolist()
            mean, logits = self.networks["decoder"](self.encode(*batch).mean)
            error = (mean - batch[0]).square().flatten(2).mean(2)
            sums["psnr"] += (10 * torch.log10(peak.square() / error.clamp(min=1e-12))).mean(1).tolist()
            sums["dice"] += _dice(logits.argmax(1) > 0, batch[1] > 0)
        return {name: float(np.mean(values)) if values else 0.0 for name, values in sums.items()}

    def codes_of(self, samples: Batches) -> NDArray[np.float32]:
        """Posterior means of all samples."""
        with torch.no_grad():
            found = [self.encode(*batch).mean.cpu() for batch in samples.parts(self.spec.batch)]
        return np.asarray(torch.cat(found).numpy())


def _dice(found: Tensor, true: Tensor) -> list[float]:
    """Of each sample that has a lesion."""
    found, true = found.flatten(1), true.flatten(1)
    values = 2 * (found & true).sum(1) / (found.sum(1) + true.sum(1)).clamp(min=1)
    chosen: list[float] = values[true.any(1)].tolist()
    return chosen
