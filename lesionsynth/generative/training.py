"""The loop that trains every model: validation, early stop, log, and a state to go on from when killed.

What a step does is decided by its number and the seed alone, so that a training that was stopped and goes on
comes to the same weights as one that was not, on the CPU with one number of threads. On a GPU convolutions
are not added up in one order, and it comes to others that are as good.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lesionsynth.digest import digest_json
from lesionsynth.errors import DeviceError, LesionsynthError
from lesionsynth.generative.checkpoint import needed
from lesionsynth.generative.nets import features_last
from lesionsynth.generative.specs import TrainSpec
from lesionsynth.rng import stream

SCORE = "score"
"""Name of the measure that decides which weights are kept: the lower the better."""
_SAVE_S = 30.0
"""Between two states on disk: what a kill costs at most."""


class Told(Protocol):
    """Whom a training tells how it is getting on."""

    def start(self, stage: str, total: int) -> None:
        """A stage of `total` steps begins."""

    def advance(self, done: int = 1, told: str = "") -> None:
        """So many more are done; `told` is shown beside the bar."""

    def note(self, message: str) -> None:
        """Something the user should know."""


class Task(Protocol):
    """One model under training."""

    name: str
    networks: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]

    def step(self, rng: np.random.Generator) -> Mapping[str, torch.Tensor]:
        """Update the networks once; the losses."""

    def validate(self) -> dict[str, float]:
        """Measures on held-out data (the training data where none is held out), "score" among them."""


@dataclass
class Trained:
    """How a training went: steps and measures of the kept weights, measures before the first step."""

    steps: int = 0
    measures: dict[str, float] = field(default_factory=dict)
    untrained: dict[str, float] = field(default_factory=dict)
    ran: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Learned:
    """What a training hands over to its checkpoint."""

    about: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    measures: dict[str, float]
    steps: int
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """Where a training happens.

    Parameters
    ----------
    folder : Path
        For its state and its log.
    device : torch.device
    name : str
        Such as `block0`: of the state's file and in the names of the random streams.
    """

    folder: Path
    device: torch.device
    name: str


def open_torch_device(wanted: str, threads: int = 1) -> torch.device:
    """The device that ``--device`` asks for, for torch; on the CPU it computes with so many threads.

    Raises
    ------
    DeviceError
        If a GPU is demanded and torch has none, or the name is not known.
    """
    torch.set_num_threads(threads)
    kind, _, index = wanted.partition(":")
    if wanted not in ("auto", "cpu") and (kind != "cuda" or not (index.isdigit() or wanted == "cuda")):
        raise DeviceError(f"the device {wanted!r} is not known.", remedy="Use auto, cpu, cuda or cuda:i.")
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count <= int(index or 0):
        raise DeviceError(
            f"there is no {wanted} for torch {torch.__version__}, which sees {count} GPU(s).",
            remedy="Use --device auto or cpu, or install a build of torch for CUDA.",
        )
    torch.backends.cudnn.benchmark = (
        True  # all batches have one shape, and the fastest way for it differs much
    )
    return torch.device("cuda", int(index or 0))


def mixed(device: torch.device) -> Any:
    """Mixed precision on a GPU (bfloat16, whose range needs no loss scaling); nothing on the CPU."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")


def train(task: Task, spec: TrainSpec, place: Place, told: Told, key: str) -> Trained:
    """Train to the end and leave the best weights in the task's networks.

    Parameters
    ----------
    task : Task
        With untrained networks.
    spec : TrainSpec
    place : Place
    told : Told
    key : str
        Of settings and data; a state with another key is not gone on with.

    Raises
    ------
    LesionsynthError
        If a loss is no longer a number.
    """
    if place.device.type == "cpu":
        for network in task.networks.values():
            features_last(network)
    state_path = place.folder / "state" / f"{place.name}-{task.name}.pt"
    key = digest_json([key, task.name, torch.__version__])
    result, best, since = Trained(), None, 0
    state = _read_state(state_path, key)
    if state is None:
        result.untrained = _validated(task)
        result.measures = result.untrained
    else:
        _restore(task, state)
        result, best, since = Trained(**state["result"]), state["best"], state["since"]
        told.note(f"{place.name}: {task.name} goes on after step {result.ran}.")
    log = needed("tensorboardX").SummaryWriter(
        str(place.folder / "log" / f"{place.name}-{task.name}"), purge_step=result.ran + 1
    )
    told.start(f"{place.name} {task.name}", spec.steps - result.ran)
    saved = time.monotonic()
    try:
        while result.ran < spec.steps and since < spec.patience:
            number = result.ran + 1
            started = time.monotonic()
            losses = _step(task, spec.seed, place, number)
            result.ran = number
            if number % spec.validate_every == 0 or number == spec.steps:
                values = {name: float(value) for name, value in losses.items()}
                _finite(values, task, number)
                measures = _validated(task)
                for name, value in {**values, **measures}.items():
                    log.add_scalar(name, value, number)
                since += 1
                if best is None or measures[SCORE] < result.measures[SCORE]:
                    result.measures, result.steps, best, since = measures, number, _copy(task), 0
                told.advance(1, " ".join(f"{n} {v:.3g}" for n, v in {**values, **measures}.items()))
            else:
                told.advance(1)
            result.seconds += time.monotonic() - started
            if time.monotonic() - saved > _SAVE_S:
                _write_state(state_path, key, task, result, best, since)
                saved = time.monotonic()
    finally:
        log.close()
    _write_state(state_path, key, task, result, best, since)
    if result.measures[SCORE] >= result.untrained[SCORE]:
        told.note(
            f"{place.name}: {task.name} has learned nothing that helps with held-out data. Train longer, in "
            "a new folder, or look whether the subjects are alike."
        )
    assert best is not None, "the last step is looked at"
    for name, network in task.networks.items():
        network.load_state_dict(best[name])
        network.eval()
    return result


def seed_weights(spec: TrainSpec, place: Place, task: str) -> None:
    """Have the first weights of a task's networks follow from the seed; before they are made."""
    torch.manual_seed(int(stream(spec.seed, "train", task, place.name, "weights").integers(2**63)))


def forget(place: Place, task: str) -> None:
    """Remove the state of a training whose checkpoint is written."""
    (place.folder / "state" / f"{place.name}-{task}.pt").unlink(missing_ok=True)


def _step(task: Task, seed: int, place: Place, number: int) -> Mapping[str, torch.Tensor]:
    rng = stream(seed, "train", task.name, place.name, number)
    torch.manual_seed(int(rng.integers(2**63)))  # for what a network itself draws, such as dropout
    for network in task.networks.values():
        network.train()
    return task.step(rng)


def _validated(task: Task) -> dict[str, float]:
    for network in task.networks.values():
        network.eval()
    with torch.no_grad():
        return task.validate()


def _finite(losses: dict[str, float], task: Task, number: int) -> None:
    for name, value in losses.items():
        if not math.isfinite(value):
            raise LesionsynthError(
                f"the loss {name} of {task.name} is {value} at step {number}.",
                remedy="Start again in a new folder with a smaller learning_rate.",
            )


def _copy(task: Task) -> dict[str, Any]:
    return {
        name: {key: value.detach().cpu().clone() for key, value in network.state_dict().items()}
        for name, network in task.networks.items()
    }


def _write_state(
    path: Path, key: str, task: Task, result: Trained, best: dict[str, Any] | None, since: int
) -> None:
    """Plain tensors and numbers, whole or not at all; read back without unpickling."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    torch.save(
        {
            "key": key,
            "networks": {name: network.state_dict() for name, network in task.networks.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in task.optimizers.items()},
            "result": vars(result),
            "best": best,
            "since": since,
        },
        temporary,
    )
    os.replace(temporary, path)


def _read_state(path: Path, key: str) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # damaged, or not ours: the training starts anew
        return None
    return state if isinstance(state, dict) and state.get("key") == key else None


def _restore(task: Task, state: dict[str, Any]) -> None:
    for name, network in task.networks.items():
        network.load_state_dict(state["networks"][name])
    for name, optimizer in task.optimizers.items():
        optimizer.load_state_dict(state["optimizers"][name])
