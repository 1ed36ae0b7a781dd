from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from lesionsynth.trial.prototypes import Prototypes


def batch_of(seed: int = 0, size: int = 4):
    """Two patches, a real one and a synthetic one, with a corner that is lesion."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, 3, size, size, size, generator=generator)
    classes = torch.zeros(2, size, size, size, dtype=torch.long)
    classes[:, :2, :2, :2] = 1
    return features, classes, torch.tensor([False, True])


def means_of(features, classes, number):
    return torch.stack([features[number][:, classes[number] == c].mean(1) for c in (0, 1)])


def test_the_direct_form_is_one_minus_the_cosine_of_each_class():
    features, classes, synthetic = batch_of()
    real, made = (means_of(features, classes, n) for n in (0, 1))
    expected = (1 - (normalize(real, dim=1) * normalize(made, dim=1)).sum(1)).sum()
    found = Prototypes("direct", 0.1, 3)(features, classes, synthetic)
    torch.testing.assert_close(found, expected)
    alike = features[:1].repeat(2, 1, 1, 1, 1)
    assert float(Prototypes("direct", 0.1, 3)(alike, classes, synthetic)) == pytest.approx(0, abs=1e-5)


def test_the_cross_form_classifies_each_kind_by_the_prototypes_of_the_other():
    features, classes, synthetic = batch_of()

    def classified(number, prototypes):
        voxels = features[number].flatten(1).T
        labels = classes[number].flatten()
        logits = normalize(voxels, dim=1) @ normalize(prototypes, dim=1).T / 0.15
        return torch.stack([cross_entropy(logits[labels == c], labels[labels == c]) for c in (0, 1)]).mean()

    real, made = (means_of(features, classes, n) for n in (0, 1))
    found = Prototypes("cross", 0.15, 3)(features, classes, synthetic)
    torch.testing.assert_close(found, classified(1, real) + classified(0, made))


def test_real_prototypes_are_a_running_mean_without_gradient():
    first, classes, synthetic = batch_of(0)
    second, *_ = batch_of(1)
    prototypes = Prototypes("cross", 0.15, 3)
    second.requires_grad_()
    prototypes(first, classes, synthetic)
    prototypes(second, classes, synthetic).backward()
    expected = 0.9 * means_of(first, classes, 0) + 0.1 * means_of(second.detach(), classes, 0)
    torch.testing.assert_close(prototypes.real, expected)
    assert not prototypes.real.requires_grad
    assert second.grad[0].any()  # real voxels, classified by synthetic prototypes
    assert second.grad[1].any()


def test_a_class_that_is_not_there_is_left_out():
    features, classes, synthetic = batch_of()
    classes[1] = 0
    features.requires_grad_()
    prototypes = Prototypes("cross", 0.15, 3)
    loss = prototypes(features, classes, synthetic)
    assert torch.isfinite(loss)
    loss.backward()
    assert torch.isfinite(features.grad).all()
    assert features.grad[1].any()  # its background is still told by the real prototypes
    nothing = Prototypes("cross", 0.15, 3)
    assert float(nothing(features.detach(), torch.zeros_like(classes), synthetic)) == 0
    assert nothing.real[1].isnan().all()
    nothing(*batch_of(2))
    assert not nothing.real.isnan().any()


def test_a_batch_of_one_kind_and_ignored_voxels_count_nothing():
    features, classes, _ = batch_of()
    for kind in (False, True):
        assert float(Prototypes("direct", 0.1, 3)(features, classes, torch.tensor([kind] * 2))) == 0
    synthetic = torch.tensor([False, True])
    ignored = classes.clone()
    ignored[:, 3] = 2
    other = features.clone()
    other[:, :, 3] = 100
    one, two = (Prototypes("cross", 0.15, 3)(f, ignored, synthetic) for f in (features, other))
    torch.testing.assert_close(one, two)
