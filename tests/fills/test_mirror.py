"""Contralateral tissue where the mid-plane is known."""

from __future__ import annotations

import numpy as np

from lesionsynth.domain.grid import Box
from lesionsynth.fills.mirror import Mirror
from lesionsynth.plugins.contracts import Surroundings

SHAPE = (48, 30, 30)
BOX: Box = (slice(4, 20), slice(6, 24), slice(6, 24))


def reflection() -> np.ndarray:
    matrix = np.eye(4)
    matrix[0, 0], matrix[0, 3] = -1.0, SHAPE[0] - 1
    return matrix


def symmetric(offset: float = 0.0) -> np.ndarray:
    """Texture that is the same on both sides, with a left side that is brighter by `offset`."""
    image = np.random.default_rng(0).normal(100, 5, (2, *SHAPE)).astype(np.float32)
    image[:, :24] = image[:, :23:-1] + offset
    return image


def hole() -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[8:15, 11:19, 11:19] = True
    return mask


def filled(image: np.ndarray, clean: np.ndarray, region: np.ndarray) -> tuple[np.ndarray, dict[str, int]]:
    around = Surroundings(image, clean, BOX, reflection)
    hidden = np.where(region, np.float32(1e5), image)[(slice(None), *BOX)]
    result = Mirror().fill(hidden, region[BOX], ~region[BOX], (1.0, 1.0, 1.0), around)
    assert np.array_equal(result[:, ~region[BOX]], hidden[:, ~region[BOX]])
    return result, around.used


def test_the_other_side_comes_back_at_the_level_of_this_one() -> None:
    image, region = symmetric(offset=40.0), hole()
    result, used = filled(image, ~region, region)
    np.testing.assert_allclose(result, image[(slice(None), *BOX)], atol=0.05)
    assert used == {"mirror": int(region.sum())}


def test_where_the_other_side_is_a_lesion_it_is_filled_otherwise() -> None:
    image, region = symmetric(), hole()
    lesion = np.zeros(SHAPE, bool)
    lesion[33:37, 10:20, 14:20] = True
    image[:, lesion] = 5000
    result, used = filled(image, ~region & ~lesion, region)
    assert result[:, region[BOX]].max() < 200
    mirrored = np.flip(lesion, 0)[BOX]
    kept = region[BOX] & ~mirrored
    np.testing.assert_allclose(result[:, kept], image[(slice(None), *BOX)][:, kept], atol=0.05)
    assert used == {"mirror": int(kept.sum()), "patch": int((region[BOX] & mirrored).sum())}


def test_where_none_of_the_other_side_is_clean_patches_fill() -> None:
    image, region = symmetric(), hole()
    clean = ~region
    clean[24:] = False
    result, used = filled(image, clean, region)
    assert used == {"mirror": 0, "patch": int(region.sum())}
    assert 3 < result[:, region[BOX]].std() < 7
