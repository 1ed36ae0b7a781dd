"""A small network, trained for real on made-up cases."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lesionsynth.generative.tissue_map import Frame, Window
from lesionsynth.generative.training import SCORE, Place, seed_weights, train
from lesionsynth.trial.arms import CONTROLS, Arm
from lesionsynth.trial.plan import IGNORED, Plan, SegmentationCase
from lesionsynth.trial.prototypes import Prototypes
from lesionsynth.trial.segment import Patches, SegmentationTask
from lesionsynth.trial.spec import TrialSpec
from tests.generative.models import Told

CPU = torch.device("cpu")
PLAN = Plan((1.0, 1.0, 1.0), (16, 16, 16), ((3, 3, 3),) * 3, ((1, 1, 1), (2, 2, 2), (2, 2, 2)), (None,))
SPEC = TrialSpec.model_validate(
    {
        **TrialSpec.presets["tiny"],
        "steps": 60,
        "widths": (6, 12, 12),
        "validate_every": 20,
        "learning_rate": 1e-2,
    }
)


def case_of(number: int, level: float = 2.0) -> SegmentationCase:
    """Noise with a bright cube that is a lesion, and a dark one that is none."""
    rng = np.random.default_rng(number)
    image = rng.normal(0, 0.5, size=(1, 20, 20, 20)).astype(np.float32)
    classes = np.zeros((20, 20, 20), np.uint8)
    i, j, k = rng.integers(2, 12, size=3)
    classes[i : i + 5, j : j + 5, k : k + 5] = 1
    image[0][classes == 1] += level
    image[0, 15:18, :5, :5] -= level
    frame = Frame(np.eye(3))
    return SegmentationCase(
        f"c{number}", f"c{number}", image, classes, frame, Window((0, 0, 0), (20, 20, 20))
    )


REAL, OTHER, HELD = [case_of(k) for k in range(3)], [case_of(k) for k in (7, 8)], [case_of(5)]


def task_of(synthetic=(), share=0.5, spec=SPEC, real=REAL, folder=Path(), prototype="none", validated=None):
    seed_weights(spec, Place(folder, CPU, "cell"), SegmentationTask.name)
    return SegmentationTask(spec, PLAN, real, synthetic, HELD, share, CPU, prototype, validated)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    task = task_of(OTHER)
    found = train(task, SPEC, Place(folder, CPU, "cell"), Told(), "k")
    return task, found


def test_it_learns_lesions_and_finds_them_in_a_case_it_has_not_seen(trained):
    task, found = trained
    assert found.untrained["auprc"] < 0.4
    assert found.measures["auprc"] > 0.9
    assert found.ran == SPEC.steps
    new = case_of(11)
    probability = task.probability(new)
    assert probability.shape == new.classes.shape
    assert probability.min() >= 0
    assert probability.max() <= 1
    both = ((probability > 0.5) & (new.classes == 1)).sum()
    assert 2 * both / ((probability > 0.5).sum() + (new.classes == 1).sum()) > 0.8


def test_a_stopped_training_comes_to_the_same_weights(tmp_path):
    """Prototypes, which are no weights, go on too."""
    short = SPEC.model_copy(update={"steps": 30, "validate_every": 10})
    whole = task_of(OTHER, spec=short, prototype="cross")
    train(whole, short, Place(tmp_path / "whole", CPU, "cell"), Told(), "k")
    place = Place(tmp_path, CPU, "cell")
    first = task_of(OTHER, spec=short, prototype="cross")

    class StopError(Exception):
        pass

    class Stopping(Told):
        def advance(self, done=1, told=""):
            if told.startswith("loss") and self.told:
                raise StopError
            super().advance(done, told)

    from lesionsynth.generative import training

    before = training._SAVE_S
    training._SAVE_S = 0.0
    try:
        with pytest.raises(StopError):
            train(first, short, place, Stopping(), "k")
    finally:
        training._SAVE_S = before
    again, told = task_of(OTHER, spec=short, prototype="cross"), Told()
    train(again, short, place, told, "k")
    assert any("goes on after step" in note for note in told.notes)
    for name in ("unet", "prototypes"):
        one, two = (task.networks[name].state_dict() for task in (whole, again))
        assert all(torch.equal(one[key], two[key]) for key in one)


def test_arms_of_one_seed_begin_alike_and_see_the_same_real_patches():
    without, with_some, none_of_it = task_of(), task_of(OTHER, 0.5), task_of(OTHER, 0.0)
    for one, two in zip(
        without.networks["unet"].parameters(), with_some.networks["unet"].parameters(), strict=True
    ):
        assert torch.equal(one, two)
    batches = [task.batch(np.random.default_rng(3)) for task in (without, none_of_it)]
    assert torch.equal(batches[0][0], batches[1][0])
    seeded = (task.batch(np.random.default_rng(5)) for task in (without, with_some))
    (plain, *_), (mixed, _, synthetic) = seeded
    assert synthetic.tolist() == [False, True]
    assert torch.equal(plain[0], mixed[0])
    assert not torch.equal(plain[1], mixed[1])


def test_all_arms_validate_on_the_same_patches():
    """A control that looks at more lesions chooses its weights by what the others choose theirs by."""
    arms = [Arm("none", None), *(Arm(f"none+{name}", None, control=name) for name in CONTROLS)]
    base, *others = (task_of(spec=arm.network(SPEC), validated=SPEC.lesion_share) for arm in arms)
    assert others
    for other in others:
        for one, two in zip(base._validation, other._validation, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_synthetic_patches_have_the_share_that_was_asked():
    marked = [case_of(k) for k in (7, 8)]
    for case in marked:
        case.image[:] = 99
    task = task_of(marked, share=0.25)
    rng = np.random.default_rng(0)
    seen = torch.cat([task.batch(rng)[0].amax(dim=(1, 2, 3, 4)) for _ in range(150)])
    assert (seen > 20).float().mean() == pytest.approx(0.25, abs=0.07)
    half = task_of(marked, share=0.5)
    assert all((half.batch(rng)[0].amax(dim=(1, 2, 3, 4)) > 20).sum() == 1 for _ in range(20))
    assert not (torch.cat([task_of(marked, 0.0).batch(rng)[0].flatten() for _ in range(10)]) > 20).any()


def test_ignored_voxels_do_not_count():
    task = task_of()
    logits = torch.randn(1, 2, 16, 16, 16, requires_grad=True)
    classes = torch.zeros(1, 16, 16, 16, dtype=torch.long)
    classes[:, 4:8, 4:8, 4:8] = 1
    classes[:, 10:] = IGNORED
    task._loss(logits, classes).backward()
    assert not logits.grad[:, :, 10:].any()
    assert logits.grad[:, :, :10].any()
    other = logits.detach().clone()
    other[:, :, 10:] *= -3
    assert torch.equal(task._loss(other, classes), task._loss(logits.detach(), classes))


def test_patches_lie_at_lesions_as_often_as_asked_and_within_the_case_else():
    case = case_of(1)
    case.image[:] = 1
    patches = Patches([case], (8, 8, 8), 1.0)
    rng = np.random.default_rng(0)
    for _ in range(30):
        image, classes = patches.draw(rng)
        assert image.shape == (1, 8, 8, 8)
        assert classes[4, 4, 4] == 1
    anywhere = Patches([case], (8, 8, 8), 0.0)
    assert all((anywhere.draw(rng)[0] == 1).all() for _ in range(30))
    larger = Patches([case], (26, 8, 8), 0.0).draw(rng)[0]
    assert larger.shape == (1, 26, 8, 8)
    assert not larger[0, :3].any()
    assert larger[0, 3:23].all()


def test_the_learning_rate_falls_to_nothing_and_is_kept_with_the_state():
    task = task_of(spec=SPEC.model_copy(update={"steps": 4}))
    rates = []
    for k in range(4):
        task.step(np.random.default_rng(k))
        rates.append(task.optimizers["unet"].param_groups[0]["lr"])
    assert rates == pytest.approx([SPEC.learning_rate * (1 - k / 4) ** 0.9 for k in range(4)])
    state = task.optimizers["unet"].state_dict()
    assert state["param_groups"][0]["updates"] == 4
    assert json.dumps(state["param_groups"][0]["updates"])


def test_prototypes_bring_real_and_synthetic_lesions_together(tmp_path):
    """Synthetic lesions are dark where real ones are bright: with the loss their features come nearer."""
    odd = [case_of(k, level=-2.0) for k in (7, 8)]
    changed = {"steps": 60, "learning_rate": 2e-3, "prototype_weight": 5.0, "prototype_real": 0.0}
    spec = SPEC.model_copy(update=changed)

    def apart(prototype: str) -> float:
        task = task_of(odd, spec=spec, prototype=prototype)
        for number in range(20):
            losses = task.step(np.random.default_rng(number))
        assert ("consistency" in losses) == (prototype != "none")
        # How badly the voxels of either kind are told by the prototypes of the other.
        judge, network = Prototypes("cross", 0.15, 6), task.networks["unet"].eval()
        features = []
        hook = network.output_block.register_forward_pre_hook(lambda _, given: features.append(given[0]))
        both = [REAL[0], odd[0]]
        with torch.no_grad():
            network(torch.from_numpy(np.stack([case.image[:, :16, :16, :16] for case in both])))
            classes = torch.from_numpy(np.stack([case.classes[:16, :16, :16] for case in both])).long()
            found = judge(features[0], classes, torch.tensor([False, True]))
        hook.remove()
        return float(found)

    without, cross = apart("none"), apart("cross")
    assert cross < 0.7 * without


class Unsure(torch.nn.Module):
    """Ranks voxels as they should be, and finds no lesion probable."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        lesion = 2 * image - 10
        return torch.cat([torch.zeros_like(lesion), lesion], dim=1)


def test_weights_that_rank_well_are_better_than_those_that_find_something_by_chance():
    """Dice at one half would have it that the untrained network is the better one."""
    task = task_of()
    with torch.no_grad():
        task.networks["unet"].eval()
        untrained = task.validate()
        task.networks["unet"] = Unsure()
        ranked = task.validate()
    assert ranked["auprc"] > 0.9 > 0.5 > untrained["auprc"]
    assert ranked[SCORE] == pytest.approx(1 - ranked["auprc"])


def test_without_a_lesion_to_find_the_last_weights_are_kept(tmp_path: Path):
    healthy = [case_of(k) for k in (5, 6)]
    for case in healthy:
        case.classes[case.classes == 1] = 0
    spec = SPEC.model_copy(update={"steps": 4, "validate_every": 2})
    seed_weights(spec, Place(tmp_path, CPU, "cell"), SegmentationTask.name)
    task = SegmentationTask(spec, PLAN, REAL, (), healthy, 0.0, CPU, "none")
    assert train(task, spec, Place(tmp_path, CPU, "cell"), Told(), "k").steps == 4


def test_the_last_updates_of_prototypes_see_real_patches_alone():
    marked = [case_of(k) for k in (7, 8)]
    for case in marked:
        case.image[:] = 99
    spec = SPEC.model_copy(update={"steps": 10, "prototype_real": 0.3})
    task = task_of(marked, spec=spec, prototype="cross")
    seen = []
    draw = task.batch

    def watched(rng, share=None):
        batch = draw(rng, share)
        seen.append(bool(batch[2].any()))
        return batch

    task.batch = watched
    for number in range(10):
        task.step(np.random.default_rng(number))
    assert seen == [True] * 7 + [False] * 3
