from __future__ import annotations

import numpy as np

from lesionsynth.kernels.mirror import mirrored


def flip(n):
    matrix = np.eye(4)
    matrix[0, 0], matrix[0, 3] = -1.0, n - 1
    return matrix


def test_whole_voxels_are_mirrored_exactly():
    image = np.random.default_rng(0).normal(100, 5, (2, 30, 20, 20)).astype(np.float32)
    box = (slice(2, 9), slice(4, 12), slice(0, 20))
    values, usable = mirrored(image, np.ones(image.shape[1:], bool), flip(30), box)
    assert usable.all()
    np.testing.assert_allclose(values, image[:, ::-1][(slice(None), *box)], atol=1e-2)


def test_between_voxels_a_smooth_image_is_kept():
    i, j, k = np.indices((40, 30, 30))
    image = np.sin(i / 4.0 + j / 5.0 + k / 6.0)[None].astype(np.float32)
    matrix = flip(40)
    matrix[:3, 3] += (-0.4, 0.3, 0.5)
    box = (slice(8, 14), slice(8, 16), slice(8, 18))
    values, usable = mirrored(image, np.ones((40, 30, 30), bool), matrix, box)
    x = np.indices((40, 30, 30))[(slice(None), *box)]
    expected = np.sin((38.6 - x[0]) / 4.0 + (x[1] + 0.3) / 5.0 + (x[2] + 0.5) / 6.0)
    assert usable.all()
    np.testing.assert_allclose(values[0], expected, atol=2e-3)


def test_a_voxel_is_used_only_where_all_around_its_mirror_place_is_clean():
    image = np.full((1, 20, 8, 8), 5.0, np.float32)
    clean = np.ones((20, 8, 8), bool)
    clean[15] = False
    matrix = flip(20)
    box = (slice(0, 8), slice(0, 8), slice(0, 8))
    values, usable = mirrored(image, clean, matrix, box)
    assert usable.all(axis=(1, 2)).tolist() == [True] * 4 + [False] + [True] * 3
    assert (values[:, ~usable] == 0).all()
    matrix[0, 3] -= 0.5
    _, usable = mirrored(image, clean, matrix, box)
    assert usable.all(axis=(1, 2)).tolist() == [True] * 3 + [False] * 2 + [True] * 3


def test_outside_the_volume_nothing_is_usable():
    image = np.ones((1, 10, 10, 10), np.float32)
    matrix = flip(10)
    matrix[0, 3] += 50
    values, usable = mirrored(image, np.ones((10, 10, 10), bool), matrix, (slice(0, 4),) * 3)
    assert not usable.any()
    assert values.shape == (1, 4, 4, 4)
    matrix[0, 3] = 5.0
    _, usable = mirrored(image, np.ones((10, 10, 10), bool), matrix, (slice(0, 10),) * 3)
    assert usable[:, 5, 5].tolist() == [True] * 6 + [False] * 4
