"""Train the network of one arm, and segment whole cases with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from monai.losses import DiceCELoss
from monai.networks.nets import DynUNet
from numpy.typing import NDArray
from torch import Tensor, nn

from lesionsynth.generative.training import SCORE, mixed
from lesionsynth.rng import stream
from lesionsynth.trial.arms import Form
from lesionsynth.trial.augment import Augmentation
from lesionsynth.trial.measures import auprc
from lesionsynth.trial.plan import IGNORED, Plan, SegmentationCase
from lesionsynth.trial.prototypes import Prototypes
from lesionsynth.trial.spec import TrialSpec
from lesionsynth.trial.supply import Renewed

_CERTAIN = 20.0
"""Logit of what is as good as known."""
_DECAY = 0.9
_MOST_NORM = 12.0
_RAMP = 0.2
_AT_ONCE = 4
"""Windows that are segmented together: alone each takes torch five times as long on one thread."""


def network_of(plan: Plan, channels: int, spec: TrialSpec) -> DynUNet:
    """The untrained network of a plan."""
    levels = len(plan.kernels)
    return DynUNet(
        3,
        channels,
        2,
        plan.kernels,
        plan.strides,
        plan.strides[1:],
        filters=spec.widths[:levels],
        norm_name=("INSTANCE", {"affine": True}),
        deep_supervision=True,
        deep_supr_num=levels - 2,
    )


class Patches:
    """Draws patches of cases.

    Parameters
    ----------
    cases : sequence of SegmentationCase, or Renewed
    shape : sequence of int
        Voxels along each edge of a patch.
    lesion_share : float
        Share of the patches around a lesion voxel, where the case has any.
    """

    def __init__(
        self, cases: Sequence[SegmentationCase] | Renewed, shape: Sequence[int], lesion_share: float
    ) -> None:
        self.cases, self.shape, self.lesion_share = cases, tuple(shape), lesion_share
        self._lesions: dict[int, tuple[SegmentationCase, NDArray[np.intp]]] = {}

    def _open(self, number: int) -> tuple[SegmentationCase, NDArray[np.intp]]:
        """A case and the voxels of its lesions; cases may be renewed."""
        case = self.cases[number]
        if number not in self._lesions or self._lesions[number][0] is not case:
            self._lesions[number] = case, np.argwhere(case.classes == 1)
        return self._lesions[number]

    def draw(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """A patch of a case, all as likely: image (C, i, j, k) and classes (i, j, k)."""
        case, lesions = self._open(int(rng.integers(len(self.cases))))
        shape = case.classes.shape
        at_lesion = rng.random() < self.lesion_share and len(lesions) > 0
        centre = lesions[int(rng.integers(len(lesions)))] if at_lesion else rng.integers(0, shape)
        along = zip(centre.tolist(), shape, self.shape, strict=True)
        low = np.array([self._start(c, n, p, at_lesion) for c, n, p in along])
        start, stop = np.maximum(low, 0), np.minimum(low + self.shape, shape)
        box = tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
        room = [(int(a - b), int(b + p - c)) for a, b, c, p in zip(start, low, stop, self.shape, strict=True)]
        image = np.pad(case.image[(slice(None), *box)], [(0, 0), *room])
        return torch.from_numpy(image), torch.from_numpy(np.pad(case.classes[box], room))

    @staticmethod
    def _start(centre: int, size: int, patch: int, centred: bool) -> int:
        """First voxel of a patch along one axis: in the case as far as it can be, but around a lesion."""
        low = centre - patch // 2
        if centred:
            return low
        return min(max(0, low), size - patch) if size >= patch else (size - patch) // 2


class SegmentationTask:
    """A network that learns lesions from real and synthetic patches.

    Parameters
    ----------
    spec : TrialSpec
        Its seed decides weights, patches and augmentation: arms with one seed and one share of lesions see
        real patches alike.
    plan : Plan
    real, synthetic, validation : sequence of SegmentationCase
        `synthetic` may be empty, or :class:`lesionsynth.trial.supply.Renewed`.
    share : float
        Share of the patches that are synthetic, where there are any.
    device : torch.device
    prototype : str
        Form of prototype consistency, see :class:`lesionsynth.trial.prototypes.Prototypes`.
    validation_lesions : float, optional
        Share of the validation patches around a lesion; as in training by default. Arms are to choose their
        weights by the same patches, also one that trains with another share.
    """

    name = "segmentation"

    def __init__(
        self,
        spec: TrialSpec,
        plan: Plan,
        real: Sequence[SegmentationCase],
        synthetic: Sequence[SegmentationCase] | Renewed,
        validation: Sequence[SegmentationCase],
        share: float,
        device: torch.device,
        prototype: Form = "none",
        validation_lesions: float | None = None,
    ) -> None:
        self.spec, self.plan, self.device = spec, plan, device
        self.augmentation = Augmentation(plan.patch)
        self.real = Patches(real, self.augmentation.room, spec.lesion_share)
        self.synthetic = Patches(synthetic, self.augmentation.room, spec.lesion_share)
        self._renewed = synthetic if isinstance(synthetic, Renewed) else None
        self.share = share if synthetic else 0.0
        network = network_of(plan, len(real[0].image), spec).to(device)
        self.networks: dict[str, nn.Module] = {"unet": network}
        optimizer = torch.optim.AdamW(
            network.parameters(), spec.learning_rate, weight_decay=spec.weight_decay
        )
        optimizer.param_groups[0] |= {"updates": 0, "copies": []}  # kept with the state
        self.optimizers: dict[str, torch.optim.Optimizer] = {"unet": optimizer}
        self.prototypes: Prototypes | None = None
        if prototype != "none" and self.share > 0:
            self.prototypes = Prototypes(prototype, spec.prototype_temperature, spec.widths[0]).to(device)
            self.networks["prototypes"] = self.prototypes
        self._features: list[Tensor] = []
        if self.prototypes is not None:  # those that the last layer turns into logits
            network.output_block.register_forward_pre_hook(
                lambda _, given: self._features.__setitem__(slice(None), [given[0]])
            )
        self.loss = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
        at_lesions = spec.lesion_share if validation_lesions is None else validation_lesions
        held = Patches(validation, plan.patch, at_lesions)
        rng = stream(spec.seed, "trial", "validation")
        self._validation = [held.draw(rng) for _ in range(spec.validation_patches)]

    @property
    def synthetic_cases(self) -> int:
        """How many there were, before a stop too."""
        return len(self.synthetic.cases) if self._renewed is None else len(self._copies(self._renewed))

    def _copies(self, renewed: Renewed) -> set[tuple[int, int]]:
        """Those made while it trains, before it was stopped and since."""
        return {(a, b) for a, b in self.optimizers["unet"].param_groups[0]["copies"]} | renewed.made

    def batch(self, rng: np.random.Generator, share: float | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Images (B, C, i, j, k), classes (B, i, j, k), and which are synthetic (B,), of an update."""
        wanted = (self.share if share is None else share) * self.spec.batch
        n_synthetic = int(wanted + rng.random())  # the fraction of a patch by chance
        drawn = []
        for number in range(self.spec.batch):
            # What is drawn for a patch does not depend on what kind the others are.
            seeds = rng.integers(2**31, size=2)
            patches = self.synthetic if number >= self.spec.batch - n_synthetic else self.real
            image, classes = patches.draw(np.random.default_rng(int(seeds[0])))
            drawn.append(self.augmentation(image, classes, int(seeds[1])))
        images, classes = (torch.stack(part).to(self.device) for part in zip(*drawn, strict=True))
        synthetic = torch.arange(self.spec.batch, device=self.device) >= self.spec.batch - n_synthetic
        return images, classes, synthetic

    def step(self, rng: np.random.Generator) -> Mapping[str, Tensor]:
        """One update."""
        group = self.optimizers["unet"].param_groups[0]
        done = group["updates"] / self.spec.steps
        group["lr"] = self.spec.learning_rate * (1 - done) ** _DECAY
        group["updates"] += 1
        if self._renewed is not None:
            self._renewed.at(done)
        real_alone = self.prototypes is not None and done >= 1 - self.spec.prototype_real
        images, classes, synthetic = self.batch(rng, 0.0 if real_alone else None)
        if self._renewed is not None:
            group["copies"] = sorted(self._copies(self._renewed))
        network = self.networks["unet"]
        with mixed(self.device):
            heads = network(images).unbind(1)  # coarser ones, brought to the full size, after the first
            weights = [0.5**k for k in range(len(heads))]
            losses = [w * self._loss(head, classes) for w, head in zip(weights, heads, strict=True)]
            loss = torch.stack(losses).sum() / sum(weights)
        told = {"loss": loss.detach()}
        if self.prototypes is not None:
            consistency = self.prototypes(self._features[0].float(), classes, synthetic)
            told["consistency"] = consistency.detach()
            loss = loss + self.spec.prototype_weight * min(1.0, done / _RAMP) * consistency
        self.optimizers["unet"].zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), _MOST_NORM)
        self.optimizers["unet"].step()
        return told

    def _loss(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Dice and cross-entropy; what is to be ignored is as good as known, and has no gradient."""
        ignored = (classes == IGNORED)[:, None]
        known = torch.tensor([_CERTAIN, -_CERTAIN], device=logits.device).reshape(1, 2, 1, 1, 1)
        told = torch.where(ignored, known, logits.float())
        loss: Tensor = self.loss(told, torch.where(ignored[:, 0], 0, classes)[:, None])
        return loss

    def validate(self) -> dict[str, float]:
        """One minus the area under precision over recall of all validation patches together.

        Where lesions are rare a network may find nothing at one half for long, and Dice would take the
        untrained one for the best. Without a lesion to find the last weights are the best.
        """
        found, truth = [], []
        for start in range(0, len(self._validation), _AT_ONCE):
            images, classes = map(torch.stack, zip(*self._validation[start : start + _AT_ONCE], strict=True))
            counted = classes != IGNORED
            found.append(self._lesion(images.to(self.device)).cpu()[:, 0][counted].numpy())
            truth.append((classes == 1)[counted].numpy())
        area = auprc(np.concatenate(found), np.concatenate(truth))
        if area is None:
            return {SCORE: -float(self.optimizers["unet"].param_groups[0]["updates"])}
        return {SCORE: 1.0 - area, "auprc": area}

    def _lesion(self, images: Tensor) -> Tensor:
        """Probability of a lesion (B, 1, i, j, k)."""
        with mixed(self.device):
            return self.networks["unet"](images).float().softmax(1)[:, 1:]

    @torch.inference_mode()
    def probability(self, case: SegmentationCase) -> NDArray[np.float32]:
        """Probability of a lesion in every voxel of a case, by windows that overlap, (i, j, k) float32."""
        self.networks["unet"].eval()
        image = torch.from_numpy(case.image)[None].to(self.device)
        found = sliding_window_inference(
            image, self.plan.patch, _AT_ONCE, self._lesion, overlap=self.spec.overlap, mode="gaussian"
        )
        return np.asarray(found[0, 0].cpu().numpy(), dtype=np.float32)
