"""Traditional augmentation, on in every arm: after nnU-Net's, put together from MONAI's transforms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import (
    Compose,
    RandAdjustContrastd,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandSimulateLowResolutiond,
)
from torch import Tensor

_ROOM = 0.15
"""A patch is cut larger than it is shown by so much of its edge at each end, in whole voxels, so that few
from outside turn into it. With half a voxel more all patches would be interpolated, turned or not."""


class Augmentation:
    """Turns a larger patch into one that is shown to the network.

    Parameters
    ----------
    patch : sequence of int
        Voxels along each edge.
    """

    def __init__(self, patch: Sequence[int]) -> None:
        both, image = ("image", "classes"), ("image",)
        # A patch is not turned within a plane that is long, or much of it would come from outside.
        planes = [[n for other, n in enumerate(patch) if other != axis] for axis in range(3)]
        turn = [np.pi / 6 if min(plane) * 2 > max(plane) else 0.0 for plane in planes]
        self.room = tuple(n + 2 * math.ceil(_ROOM * n) for n in patch)
        self._transform: Any = Compose(
            [
                RandAffined(
                    both, prob=0.5, spatial_size=patch, rotate_range=turn, scale_range=[(-0.25, 0.3)] * 3,
                    mode=("bilinear", "nearest"), padding_mode="zeros",
                ),
                *(RandFlipd(both, prob=0.5, spatial_axis=axis) for axis in range(3)),
                RandGaussianNoised(image, prob=0.15, std=0.15),
                RandGaussianSmoothd(image, (0.5, 1.0), (0.5, 1.0), (0.5, 1.0), prob=0.1),
                RandScaleIntensityd(image, prob=0.3, factors=0.25, channel_wise=True),
                RandSimulateLowResolutiond(image, prob=0.1, zoom_range=(0.6, 1.0)),
                RandAdjustContrastd(image, prob=0.2, gamma=(0.7, 1.5), retain_stats=True),
            ]
        )  # fmt: skip

    def __call__(self, image: Tensor, classes: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Image (C, i, j, k) and classes (i, j, k) of a patch with room around it, changed as `seed` says."""
        self._transform.set_random_state(seed=seed)
        made = self._transform({"image": image, "classes": classes[None].float()})
        return torch.as_tensor(made["image"]), torch.as_tensor(made["classes"])[0].round().long()
