"""Shapes of single lesions from a 3-D Wasserstein GAN with gradient penalty.

References
----------
Gulrajani et al., Improved Training of Wasserstein GANs, NeurIPS 2017, arXiv:1704.00028. Platscher, Zopes,
Federau, 2020, arXiv:2010.02745, for lesion masks from such a network (latent 128).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance
from torch import Tensor, nn

from lesionsynth.generative.autoencoder import Samples, Scale
from lesionsynth.generative.crops import Crop, whole_shape
from lesionsynth.generative.nets import SizedDecoder, constant, critic, one_hot
from lesionsynth.generative.specs import MaskGanSpec
from lesionsynth.generative.training import SCORE, mixed
from lesionsynth.rng import stream

_BETAS = (0.0, 0.9)
_LOOKED_AT = 64
"""Generated shapes that are compared with held-out ones at each look, and most real ones the critic sees."""
_FAR = 10.0
"""Distance where no generated shape is one, and the most that any other counts."""
_LEAST_SPREADS = (0.3, 0.05)
"""Of logarithmic volume and filled share, where held-out shapes are few or alike."""


def gan_networks(spec: MaskGanSpec, classes: int) -> dict[str, nn.Module]:
    """Generator and critic of shapes with `classes` label values of lesions."""
    return {
        "decoder": SizedDecoder(spec.latent, classes + 1, spec.size, spec.widths),
        "critic": critic((classes + 2, *(spec.size,) * 3), spec.widths),
    }


class GanTask:
    """Trains generator and critic; several updates of the critic to one of the generator."""

    name = "shape"

    def __init__(
        self,
        spec: MaskGanSpec,
        classes: int,
        scale: Scale,
        trained: Samples,
        held_out: Sequence[Crop],
        device: torch.device,
    ) -> None:
        self.spec, self.scale, self.device = spec, scale, device
        self.count, self.trained = classes + 1, trained
        self.networks = {name: net.to(device) for name, net in gan_networks(spec, classes).items()}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            name: torch.optim.Adam(net.parameters(), spec.learning_rate, betas=_BETAS)
            for name, net in self.networks.items()
        }
        self.held_out = np.array([form_of(crop.classes, crop.edge_mm) for crop in held_out])
        self.spreads = np.maximum(self.held_out.std(axis=0), _LEAST_SPREADS)
        self.held_out_seen = Samples(held_out[:_LOOKED_AT], spec, scale, device)
        rng = stream(spec.seed, "train", "shape", "looked at")
        self.fixed = rng.standard_normal((_LOOKED_AT, spec.latent), dtype=np.float32)

    def seen(self, classes: Tensor, sizes: Tensor) -> Tensor:
        """What the critic sees of real shapes."""
        return torch.cat([one_hot(classes, self.count), constant(sizes, self.spec.size)], 1)

    def made(self, codes: Tensor) -> Tensor:
        """What the critic sees of generated ones: probabilities of the classes, and the size."""
        logits, sizes = self.networks["decoder"](codes)
        return torch.cat([logits.float().softmax(1), constant(sizes.float(), self.spec.size)], 1)

    def step(self, rng: np.random.Generator) -> Mapping[str, Tensor]:
        """Updates of the critic, then one of the generator."""
        judge = self.networks["critic"]
        gap = penalty = torch.zeros(())
        for _ in range(self.spec.critic_steps):
            classes, sizes, _, _ = self.trained.draw(rng)
            real = self.seen(classes, sizes)
            with mixed(self.device), torch.no_grad():
                fake = self.made(self._codes(rng))
            mix = torch.from_numpy(rng.random((len(real), 1, 1, 1, 1), dtype=np.float32)).to(self.device)
            penalty = gradient_penalty(judge, (mix * real + (1 - mix) * fake))
            with mixed(self.device):
                gap = judge(real).float().mean() - judge(fake).float().mean()
            self._update("critic", self.spec.penalty * penalty - gap)
        with mixed(self.device):
            loss = -judge(self.made(self._codes(rng))).float().mean()
        self._update("decoder", loss)
        return {"wasserstein": gap.detach(), "penalty": penalty.detach(), "generator": loss.detach()}

    def _codes(self, rng: np.random.Generator) -> Tensor:
        shape = (self.spec.batch, self.spec.latent)
        return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)).to(self.device)

    def _update(self, name: str, loss: Tensor) -> None:
        self.optimizers[name].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers[name].step()

    def validate(self) -> dict[str, float]:
        """How far generated shapes are from held-out ones, and how many are none.

        Distances are Wasserstein's, of the logarithm of the volume and of the share of its box that a shape
        fills, in units of the spread of the held-out shapes. `accuracy`: share of real and generated shapes
        on their side of the mean of the critic's two means.
        """
        codes = torch.from_numpy(self.fixed).to(self.device)
        logits, sizes = self.networks["decoder"](codes)
        classes = logits.argmax(1).cpu().numpy().astype(np.uint8)
        whole = [whole_shape(item) for item in classes]
        edges = [self.scale.edge_mm(float(size)) for size in sizes.cpu()]
        kept = [form_of(w, e) for w, e in zip(whole, edges, strict=True) if not isinstance(w, str)]
        refused = 1 - len(kept) / len(whole)
        found = {"volume_distance": _FAR, "fill_distance": _FAR}
        if kept:
            for k, name in enumerate(found):
                distance = wasserstein_distance(self.held_out[:, k], np.array(kept)[:, k])
                found[name] = min(_FAR, float(distance) / float(self.spreads[k]))
        seen = self.held_out_seen
        real_scores = self.networks["critic"](self.seen(seen.classes, seen.sizes))
        fake_scores = self.networks["critic"](self.made(codes))
        middle = 0.5 * (real_scores.mean() + fake_scores.mean())
        accuracy = 0.5 * ((real_scores > middle).float().mean() + (fake_scores <= middle).float().mean())
        score = sum(found.values()) + 5 * refused
        return {SCORE: score, **found, "refused": refused, "accuracy": float(accuracy)}


def gradient_penalty(judge: nn.Module, between: Tensor) -> Tensor:
    """Mean squared distance of the norm of the critic's gradient from 1, at points between real and fake."""
    between = between.detach().requires_grad_(True)
    scores = judge(between)
    (slope,) = torch.autograd.grad(scores.sum(), between, create_graph=True)
    return ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()


def form_of(classes: NDArray[np.uint8], edge_mm: float) -> tuple[float, float]:
    """Logarithm of a shape's volume in mm3, and the share of its box that it fills."""
    found = np.nonzero(classes)
    box = np.prod([axis.max() - axis.min() + 1 for axis in found])
    count = len(found[0])
    return float(np.log(count * edge_mm**3)), float(count / box)
