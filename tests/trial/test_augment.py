"""Patches are shown as they are, but for what is drawn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from lesionsynth.trial.augment import Augmentation

ALL_FLIPS = [axes for n in range(4) for axes in itertools.combinations((1, 2, 3), n)]


def centre(volume: torch.Tensor, patch: tuple[int, ...]) -> torch.Tensor:
    """The middle of what is cut with room around it, (C, i, j, k)."""
    starts = [(n - p) // 2 for n, p in zip(volume.shape[1:], patch, strict=True)]
    return volume[(slice(None), *(slice(s, s + p) for s, p in zip(starts, patch, strict=True)))]


@pytest.mark.parametrize("patch", [(16, 16, 16), (8, 28, 24), (24, 24, 1), (1, 20, 16), (7, 9, 5)])
def test_half_of_the_patches_are_neither_turned_nor_interpolated(patch: tuple[int, int, int]) -> None:
    augmentation = Augmentation(patch)
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.normal(size=(1, *augmentation.room)).astype(np.float32))
    classes = torch.from_numpy(rng.integers(0, 2, augmentation.room).astype(np.uint8))
    plain = {"classes": 0, "image": 0}
    for seed in range(60):
        made, label = augmentation(image, classes, seed)
        assert made.shape[1:] == label.shape == patch
        for name, shown, whole in (("classes", label[None], classes[None]), ("image", made, image)):
            middle = centre(whole, patch)
            plain[name] += any(torch.equal(shown.to(whole.dtype), middle.flip(axes)) for axes in ALL_FLIPS)
    assert 20 <= plain["classes"] <= 40
    assert 4 <= plain["image"] <= 24  # no noise, contrast or blur either: 0.2 of them


@pytest.mark.parametrize(
    "patch", [(1, 32, 32), (32, 1, 32), (32, 32, 1), (8, 32, 32), (32, 8, 8), (8, 8, 32)]
)
def test_flat_and_long_patches_are_turned_within_their_planes(patch: tuple[int, int, int]) -> None:
    augmentation = Augmentation(patch)
    classes = torch.ones(augmentation.room, dtype=torch.uint8)
    image = torch.ones(1, *augmentation.room)
    outside = [1 - float(augmentation(image, classes, seed)[1].float().mean()) for seed in range(40)]
    assert np.mean(outside) < 0.06
