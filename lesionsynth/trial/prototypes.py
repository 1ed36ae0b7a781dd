"""Prototype consistency: features are to say the same of lesion and background in both kinds of patches.

References
----------
After Huo, Ourselin, Sparks, arXiv:2406.14826; the forms are given in docs/explanation/methods.md.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy, normalize

from lesionsynth.trial.arms import Form

CLASSES = 2
_MOMENTUM = 0.9


class Prototypes(nn.Module):
    """Compares the mean features of each class between the real and the synthetic patches of a batch.

    Parameters
    ----------
    form : str
        cross: voxels of either kind are classified by the prototypes of the other, against their own labels;
        direct: one minus the cosine of the prototypes, which a network can satisfy by making all features
        equal.
    temperature : float
        Of the softmax of cosines, for cross.
    features : int

    Attributes
    ----------
    real : Tensor, (classes, features)
        Running mean of the real prototypes, without gradient; NaN where none was seen yet. It is kept with
        the state of a training.
    """

    real: Tensor

    def __init__(self, form: Form, temperature: float, features: int) -> None:
        super().__init__()
        self.form, self.temperature = form, temperature
        self.register_buffer("real", torch.full((CLASSES, features), torch.nan))

    def forward(self, features: Tensor, classes: Tensor, synthetic: Tensor) -> Tensor:
        """Consistency of a batch; 0 where it holds patches of one kind only.

        Parameters
        ----------
        features : Tensor, (B, F, i, j, k)
        classes : Tensor, (B, i, j, k), long
            0 background, 1 lesion; others do not count.
        synthetic : Tensor, (B,), bool

        Returns
        -------
        Tensor
            A scalar. Classes that either kind has not are left out.
        """
        parts = [self._voxels(features, classes, chosen) for chosen in (~synthetic, synthetic)]
        means = [_means(*part) for part in parts]
        self._remember(means[0].detach())
        if not len(parts[0][0]) or not len(parts[1][0]):
            return features.sum() * 0.0
        if self.form == "direct":
            both = ~(means[0].isnan().any(1) | means[1].isnan().any(1))
            return (1.0 - cosine_similarity(means[0][both], means[1][both], dim=1)).sum()
        return self._classified(*parts[1], self.real) + self._classified(*parts[0], means[1])

    @staticmethod
    def _voxels(features: Tensor, classes: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, F) and classes (N,) of the voxels that count in some patches."""
        labels = classes[chosen].flatten()
        own = features[chosen].movedim(1, -1).flatten(0, -2)
        counted = labels < CLASSES
        return own[counted], labels[counted]

    def _classified(self, features: Tensor, labels: Tensor, prototypes: Tensor) -> Tensor:
        """Cross-entropy of voxels by the cosines with prototypes, each class with the same weight."""
        known = ~prototypes.isnan().any(1)
        if not bool(known.all()):
            return features.sum() * 0.0  # by one prototype nothing can be told apart
        logits = normalize(features, dim=1) @ normalize(prototypes, dim=1).T / self.temperature
        losses = [
            cross_entropy(logits[labels == c], labels[labels == c])
            for c in range(CLASSES)
            if bool((labels == c).any())
        ]
        return torch.stack(losses).mean()

    def _remember(self, means: Tensor) -> None:
        """Take real prototypes into the running mean."""
        fresh, seen = ~means.isnan().any(1), ~self.real.isnan().any(1)
        both = fresh & seen
        self.real[both] = _MOMENTUM * self.real[both] + (1.0 - _MOMENTUM) * means[both]
        self.real[fresh & ~seen] = means[fresh & ~seen]


def _means(features: Tensor, labels: Tensor) -> Tensor:
    """Mean features of each class, (classes, F); NaN for one without a voxel."""
    rows = [
        features[labels == c].mean(0)
        if bool((labels == c).any())
        else features.new_full((features.shape[1],), torch.nan)
        for c in range(CLASSES)
    ]
    return torch.stack(rows)
