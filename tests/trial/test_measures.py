from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance
from sklearn.metrics import average_precision_score

from lesionsynth.trial.measures import auprc, best_threshold, segmentation_measures

SPACING = (1.0, 2.0, 0.5)


def volume(*boxes: tuple[slice, slice, slice]) -> np.ndarray:
    mask = np.zeros((20, 20, 20), dtype=bool)
    for box in boxes:
        mask[box] = True
    return mask


ONE = (slice(1, 5), slice(1, 5), slice(1, 5))  # 64 voxels, 64 mm3
TWO = (slice(10, 16), slice(10, 16), slice(10, 16))  # 216 voxels
FAR = (slice(17, 19), slice(1, 3), slice(1, 3))  # 8 voxels


def test_what_is_found_missed_and_made_up_is_counted_by_lesions_and_by_voxels():
    truth, found = volume(ONE, TWO), volume((slice(3, 5), *ONE[1:]), FAR)
    measures = segmentation_measures(found, truth, SPACING)
    assert measures["dice"] == pytest.approx(2 * 32 / (280 + 40))
    assert measures["sensitivity"] == 0.5
    assert measures["ppv"] == 0.5
    assert measures["f1"] == pytest.approx(2 / (2 + 1 + 1))
    assert measures["volume_ratio"] == pytest.approx(40 / 280)
    assert measures["sensitivity_small"] == 1.0
    assert measures["sensitivity_medium"] == 0.0
    assert measures["sensitivity_large"] is None


def test_one_piece_over_two_lesions_finds_both_and_is_one():
    truth = volume(ONE, TWO)
    measures = segmentation_measures(np.ones_like(truth), truth, SPACING)
    assert (measures["sensitivity"], measures["ppv"], measures["f1"]) == (1.0, 1.0, 1.0)


@pytest.mark.filterwarnings("ignore:monai.metrics.utils get_mask_edges")
@pytest.mark.parametrize("seed", range(4))
def test_distance_is_that_of_monai(seed):
    rng = np.random.default_rng(seed)
    a, b, c, d = rng.integers(2, 10, size=4)
    truth, found = volume(ONE, TWO), volume((slice(a, a + 7), slice(b, b + 6), slice(c, c + d)))
    ours = segmentation_measures(found, truth, SPACING)["hd95_mm"]
    both = [torch.from_numpy(mask[None, None]) for mask in (found, truth)]
    theirs = compute_hausdorff_distance(*both, include_background=True, percentile=95, spacing=SPACING)
    assert ours == pytest.approx(float(theirs), abs=1e-5)


def test_what_is_not_defined_is_none():
    nothing, something = volume(), volume(ONE)
    empty = segmentation_measures(nothing, nothing, SPACING)
    assert empty["dice"] == 1.0
    assert all(empty[name] is None for name in ("sensitivity", "ppv", "f1", "hd95_mm", "volume_ratio"))
    missed = segmentation_measures(nothing, something, SPACING)
    assert (missed["dice"], missed["sensitivity"], missed["f1"]) == (0.0, 0.0, 0.0)
    assert missed["ppv"] is missed["hd95_mm"] is None
    made_up = segmentation_measures(something, nothing, SPACING)
    assert (made_up["dice"], made_up["ppv"], made_up["f1"]) == (0.0, 0.0, 0.0)
    assert made_up["sensitivity"] is made_up["volume_ratio"] is None
    assert auprc(np.zeros(5, np.float32), np.zeros(5, bool)) is None


@pytest.mark.parametrize("seed", range(3))
def test_precision_recall_is_that_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    truth = rng.random(5000) < 0.05
    probability = np.clip(rng.normal(0.3 + 0.3 * truth, 0.2), 0, 1).astype(np.float32)
    probability = probability.round(2)  # ties
    assert auprc(probability, truth) == pytest.approx(average_precision_score(truth, probability), abs=1e-9)


def test_the_threshold_is_the_best_over_cases_and_one_half_where_none_is_better():
    truth = np.array([True, True, False, False])
    assert best_threshold([(np.array([0.9, 0.8, 0.1, 0.1], np.float32), truth)]) == 0.5
    low = best_threshold([(np.array([0.4, 0.3, 0.1, 0.1], np.float32), truth)])
    assert 0.1 < low <= 0.3
    high = best_threshold([(np.array([0.95, 0.9, 0.7, 0.6], np.float32), truth)])
    assert 0.7 < high <= 0.9
