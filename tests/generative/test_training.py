"""The training loop: what is killed goes on to the same weights, and ends when nothing is gained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lesionsynth.errors import DeviceError, LesionsynthError
from lesionsynth.generative.specs import TrainSpec
from lesionsynth.generative.training import Place, forget, open_torch_device, train
from tests.generative.models import Told

SPEC = TrainSpec(steps=20, validate_every=5, patience=3, seed=4)


class Line:
    """Fits y = 3 x by one weight, with dropout so that torch's own randomness counts too."""

    name = "line"

    def __init__(self, stop_at: int | None = None, rate: float = 0.1) -> None:
        torch.manual_seed(0)
        self.networks = {"net": torch.nn.Sequential(torch.nn.Dropout(0.2), torch.nn.Linear(1, 1))}
        self.optimizers = {"adam": torch.optim.Adam(self.networks["net"].parameters(), rate)}
        self.steps, self.stop_at = 0, stop_at

    def step(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        if self.steps == self.stop_at:
            raise KeyboardInterrupt
        self.steps += 1
        x = torch.from_numpy(rng.standard_normal((8, 1), dtype=np.float32))
        loss = ((self.networks["net"](x) - 3 * x) ** 2).mean()
        self.optimizers["adam"].zero_grad()
        loss.backward()
        self.optimizers["adam"].step()
        return {"loss": loss.detach()}

    def validate(self) -> dict[str, float]:
        return {"score": abs(float(self.networks["net"][1].weight.detach()[0, 0]) - 3)}

    @property
    def weights(self) -> list[float]:
        whole = torch.nn.utils.parameters_to_vector(self.networks["net"].parameters())
        return [float(v) for v in whole.detach()]


def place(folder: Path) -> Place:
    return Place(folder, torch.device("cpu"), "block0")


def test_it_learns_and_keeps_the_best(tmp_path: Path) -> None:
    task = Line()
    result = train(task, SPEC.model_copy(update={"steps": 100}), place(tmp_path), Told(), "k")
    assert result.measures["score"] < 0.2 * result.untrained["score"]
    assert task.validate()["score"] == result.measures["score"]
    assert list((tmp_path / "log").rglob("events*"))


def test_what_was_killed_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = Line()
    train(straight, SPEC, place(tmp_path / "one"), Told(), "k")
    monkeypatch.setattr("lesionsynth.generative.training._SAVE_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        train(Line(stop_at=13), SPEC, place(tmp_path / "two"), Told(), "k")
    told, again = Told(), Line()
    result = train(again, SPEC, place(tmp_path / "two"), told, "k")
    assert told.notes == ["block0: line goes on after step 13."]
    assert again.steps == 7
    assert again.weights == straight.weights
    assert result.ran == 20


@pytest.mark.parametrize("spoil", ["key", "damage"])
def test_a_state_of_another_training_is_not_gone_on_with(tmp_path: Path, spoil: str) -> None:
    train(Line(), SPEC, place(tmp_path), Told(), "k")
    if spoil == "damage":
        (state,) = (tmp_path / "state").iterdir()
        state.write_bytes(state.read_bytes()[:100])
    task = Line()
    train(task, SPEC, place(tmp_path), Told(), "other" if spoil == "key" else "k")
    assert task.steps == 20


def test_it_ends_when_nothing_is_gained(tmp_path: Path) -> None:
    task = Line(rate=1e-12)
    result = train(task, SPEC.model_copy(update={"steps": 1000}), place(tmp_path), Told(), "k")
    assert result.ran < 1000
    assert task.steps == result.ran


def test_what_only_got_worse_is_told_and_is_not_the_untrained_network(tmp_path: Path) -> None:
    """As where the subjects that only validate are unlike the others."""
    told, task = Told(), Line()
    before = task.weights
    task.validate = lambda: {"score": float(np.abs(np.subtract(task.weights, before)).sum())}
    result = train(task, SPEC, place(tmp_path), told, "k")
    assert result.steps == SPEC.validate_every
    assert result.measures["score"] > 0
    assert task.weights != before
    (note,) = told.notes
    assert note.startswith("block0: line has learned nothing that helps with held-out data.")


def test_a_loss_that_is_no_number_is_said(tmp_path: Path) -> None:
    task = Line()
    with torch.no_grad():
        task.networks["net"][1].weight.fill_(float("nan"))
    with pytest.raises(LesionsynthError, match=r"loss of line is nan at step 5.*learning_rate"):
        train(task, SPEC, place(tmp_path), Told(), "k")


def test_the_state_goes_when_it_is_no_longer_needed(tmp_path: Path) -> None:
    train(Line(), SPEC, place(tmp_path), Told(), "k")
    forget(place(tmp_path), "line")
    assert not list((tmp_path / "state").iterdir())


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:99"])
def test_a_device_that_is_not_there(name: str) -> None:
    with pytest.raises(DeviceError):
        open_torch_device(name)
