"""SelfMix: the host's own lesions, weighted by depth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from lesionsynth.operations.self_mix import DepthWeighted, SelfMix
from lesionsynth.recipe.load import load_recipe
from lesionsynth.run import session
from tests.fake_device import OtherDevice
from tests.operations.making import AFFINE, ball, bright, copies, image_of, labelled, write_cases
from tests.test_invariants import Silent

ALIKE = {"flip": 0, "rotate": {"p": 0}, "scale": {"p": 0}}


def test_weights_by_hand() -> None:
    label = np.zeros((7, 5, 5), bool)
    label[1:6, 1:4, 1:4] = True
    alpha = DepthWeighted(edge=0.6).alpha(label, np.ones_like(label), (1.0, 1.0, 1.0))
    assert alpha[1, 1, 1] == pytest.approx(0.6 + 0.4 / 2)
    assert alpha[3, 2, 2] == alpha[2, 2, 2] == 1.0
    assert not alpha[~label].any()
    assert DepthWeighted(edge=1.0).alpha(label, label, (1.0, 1.0, 1.0))[label].min() == 1.0
    single = np.zeros((3, 3, 3), bool)
    single[1, 1, 1] = True
    assert DepthWeighted(edge=0.6).alpha(single, single, (1.0, 1.0, 1.0))[1, 1, 1] == 1.0


def test_a_lesion_at_the_border_of_its_box_has_an_outside_there() -> None:
    label = np.ones((3, 3, 3), bool)
    alpha = DepthWeighted(edge=0.5).alpha(label, label, (1.0, 1.0, 1.0))
    assert alpha[0, 0, 0] == pytest.approx(0.75)
    assert alpha[1, 1, 1] == 1.0


def test_the_device_gives_the_same_weights(device: OtherDevice) -> None:
    label = ball((9, 9, 9), 4.0)
    blend = DepthWeighted(edge=0.7)
    on_device = blend.alpha(device.put(label), device.put(label), (1.0, 2.0, 1.0))
    here = blend.alpha(label, label, (1.0, 2.0, 1.0))
    np.testing.assert_allclose(device.get(on_device), here, atol=1e-6)


def test_own_lesions_are_mixed_with_the_tissue_there(tmp_path: Path) -> None:
    cases = {}
    for number, name in enumerate(("a_ses-1", "a_ses-2", "b")):
        label = labelled(ball((7, 7, 7), 3.2))
        cases[name] = (bright(image_of(number), label), label, AFFINE)
    root = write_cases(tmp_path / "data", cases)
    step = {"kind": "self_mix", "weight": [0.5, 0.5], "geometry": ALIKE}
    for made in copies(root, tmp_path / "out", step, "a_ses-1", n=4):
        (draw,) = made.draws
        assert draw["case"] == "a_ses-1"
        assert made.record["own_subject_donors"] == 1
        assert draw["blend"] == {"edge": 0.5}
        taken = made.canvas.source >= 2
        values, before = made.canvas.raw[0], made.host.images[0].raw
        assert np.array_equal(taken, (made.canvas.label == 1) & (made.host.label == 0))
        alpha = DepthWeighted(edge=0.5).alpha(taken, taken, (2.0, 2.0, 2.0))
        weight = (values - before)[taken].astype(float) / 200
        assert np.corrcoef(weight, alpha[taken])[0, 1] > 0.8
        assert weight[alpha[taken] == 1].mean() == pytest.approx(1.0, abs=0.15)


def test_weights_below_one_half_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"within \[0.5, 1\]"):
        SelfMix.model_validate({"weight": [0.3, 1.0]})


@pytest.mark.parametrize("name", ["carve_mix", "carve_mix_compatible", "copy_paste", "self_mix", "relocate"])
def test_shipped_recipes_run(name: str, make_nnunet: object, tmp_path: Path) -> None:
    recipe = load_recipe(name, ["output.copies=1", "folds.strategy=none"])
    outcome = session.run(recipe, make_nnunet(3), tmp_path / "out", Silent())
    assert len(outcome.done) == 3
    assert sum(row["lesions_inserted"] for row in outcome.done) > 0
