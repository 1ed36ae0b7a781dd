"""Checkpoints: what is written comes back, and nothing else passes for one."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lesionsynth.errors import InputError
from lesionsynth.generative.checkpoint import Card, read_card, read_checkpoint, write_checkpoint

CARD = Card(
    kind="mask-gan",
    config={"steps": 3},
    about={"labels": [1]},
    subjects=("A", "B"),
    block="block0",
    steps=3,
    measures={"dice": 0.5},
    weights="",
    lesionsynth="0",
)
ARRAYS = {"a/b": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array([7], np.int64)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "m.safetensors", CARD, ARRAYS)
    return tmp_path / "m.safetensors"


def test_what_is_written_comes_back(path: Path) -> None:
    card, arrays = read_checkpoint(path)
    assert card.model_copy(update={"weights": ""}) == CARD
    assert read_card(path) == card
    assert set(arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype


def test_weights_are_those_of_the_card(path: Path) -> None:
    card = read_card(path)
    changed = load_file(path)
    changed["a/b"][0, 0] += 1
    save_file(changed, path, metadata={"lesionsynth": card.model_dump_json()})
    assert read_card(path) == card
    with pytest.raises(InputError, match="damaged"):
        read_checkpoint(path)


def test_another_kind_is_refused(path: Path) -> None:
    with pytest.raises(InputError, match=r"is a mask-gan; hvae was expected"):
        read_card(path, ("hvae",))


def test_a_file_that_is_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError, match="is no checkpoint"):
        read_card(path)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "touched",))

    path = tmp_path / "m.safetensors"
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError, match="is no checkpoint"):
        read_card(path)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "other"},
        {"subjects": []},
        {"subjects": "A"},
        {"measures": {"dice": float("nan")}},
        {"measures": None},
        {"format": 2},
        {"steps": -1},
        {"extra": 1},
        {"about": []},
    ],
)
def test_a_card_is_checked_field_by_field(path: Path, change: dict[str, object]) -> None:
    card = json.loads(read_card(path).model_dump_json()) | change
    save_file(ARRAYS, path, metadata={"lesionsynth": json.dumps(card)})
    with pytest.raises(InputError, match=f"is no checkpoint of this version .*{next(iter(change))}"):
        read_card(path)


def test_a_file_of_arrays_alone(tmp_path: Path) -> None:
    save_file(ARRAYS, tmp_path / "m.safetensors")
    with pytest.raises(InputError, match="is no checkpoint"):
        read_card(tmp_path / "m.safetensors")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such checkpoint"):
        read_card(tmp_path / "m.safetensors")
