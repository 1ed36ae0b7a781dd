"""Checkpoints: trained weights with all that is needed to use them, in one safetensors file.

Nothing in it is unpickled: the file holds plain arrays and one JSON text, the card, which is checked field
by field. Written and read without torch, so that the leak rule and the audit can ask who a model has seen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lesionsynth import nifti
from lesionsynth.digest import digest_bytes
from lesionsynth.errors import InputError, LesionsynthError

Kind = Literal["lesion-autoencoder", "mask-gan", "hvae", "translation"]
OF_SHAPES: tuple[Kind, ...] = ("lesion-autoencoder", "mask-gan")
"""Kinds that make shapes of single lesions; they learn from lesion masks without images too."""
SUFFIX = ".safetensors"
_KEY = "lesionsynth"
_REMEDY = "Give a checkpoint that `lesionsynth train` has written."


class TrainedOn(BaseModel):
    """A lesion or case that the model was trained on, and whose it is."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    name: str
    case: str
    subject: str


class Card(BaseModel):
    """What a checkpoint says of itself.

    Parameters
    ----------
    kind : str
        What `lesionsynth train` was asked for.
    config : dict
        The training settings, with all defaults.
    about : dict
        What else its user has to know: sizes, classes, channels, ranges seen in training.
    subjects : tuple of str
        Everybody who took part in the training, validation included; sorted.
    block : str
        Block of the folds that they are of, such as `block0`.
    steps : int
        Training steps after which these weights were taken.
    measures : dict of str to float
        What was measured of these weights on held-out data.
    weights : str
        Digest of all arrays.
    lesionsynth : str
        Version.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    format: Literal[1] = 1
    kind: Kind
    config: dict[str, Any]
    about: dict[str, Any]
    subjects: tuple[str, ...] = Field(min_length=1, strict=False)
    block: str
    steps: int = Field(ge=0)
    measures: dict[str, float]
    weights: str
    lesionsynth: str


def write_checkpoint(path: Path, card: Card, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a checkpoint; it appears whole or not at all. The card's `weights` are set here."""
    from safetensors.numpy import save

    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    card = card.model_copy(update={"weights": _digest(whole)})
    nifti.write_bytes(path, save(whole, metadata={_KEY: card.model_dump_json()}))


def read_card(path: Path, kinds: tuple[str, ...] = ()) -> Card:
    """What a checkpoint says of itself, without its weights.

    Parameters
    ----------
    path : Path
    kinds : tuple of str
        Kinds of models that will do; any where empty.

    Raises
    ------
    InputError
        If it is no checkpoint, is damaged, or is of another kind.
    """
    return _read(path, kinds, weights=False)[0]


def read_checkpoint(path: Path, kinds: tuple[str, ...] = ()) -> tuple[Card, dict[str, NDArray[Any]]]:
    """Card and weights of a checkpoint.

    Raises
    ------
    InputError
        As :func:`read_card`, and if the weights are not those that the card names.
    """
    card, arrays = _read(path, kinds, weights=True)
    if _digest(arrays) != card.weights:
        raise InputError("the weights are not those of its card: it is damaged.", file=path, remedy=_REMEDY)
    return card, arrays


def _read(path: Path, kinds: tuple[str, ...], weights: bool) -> tuple[Card, dict[str, NDArray[Any]]]:
    safetensors = needed("safetensors")
    if not path.is_file():
        raise InputError("there is no such checkpoint.", file=path, remedy=_REMEDY)
    arrays: dict[str, NDArray[Any]] = {}
    try:
        with safetensors.safe_open(path, framework="numpy") as opened:
            text = (opened.metadata() or {})[_KEY]
            if weights:
                arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        card = Card.model_validate(json.loads(text))
    except (
        OSError,
        LookupError,
        TypeError,
        ValueError,
        RecursionError,
        safetensors.SafetensorError,
    ) as error:
        reason = _first(error) if isinstance(error, ValidationError) else f"{type(error).__name__}: {error}"
        raise InputError(f"is no checkpoint of this version ({reason}).", file=path, remedy=_REMEDY) from None
    if kinds and card.kind not in kinds:
        raise InputError(f"is a {card.kind}; {' or '.join(kinds)} was expected.", file=path, remedy=_REMEDY)
    return card, arrays


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def _digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    parts: list[bytes | memoryview] = []
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        parts += [f"{name}:{array.dtype.str}:{array.shape};".encode(), array.tobytes()]
    return digest_bytes(*parts)


AnyModel = TypeVar("AnyModel")


def opened_once(make: Callable[[Path], AnyModel]) -> Callable[[Path], AnyModel]:
    """Opens checkpoints by `make`, each once in a process as long as it does not change.

    What `make` cannot use becomes an :class:`InputError`.
    """

    @lru_cache(maxsize=4)
    def opened(path: Path, changed_ns: int) -> AnyModel:
        try:
            return make(path)
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise InputError(f"cannot be used ({reason}).", file=path, remedy=_REMEDY) from None

    def open_model(path: Path) -> AnyModel:
        if not path.is_file():
            raise InputError("there is no such checkpoint.", file=path, remedy=_REMEDY)
        return opened(path, path.stat().st_mtime_ns)

    return open_model


def checkpoints_at(path: str) -> list[Path]:
    """The checkpoints in a folder, or the one that is named."""
    return sorted(Path(path).glob(f"*{SUFFIX}")) if Path(path).is_dir() else [Path(path)]


def needed(name: str) -> Any:
    """A package of the extra `generative`.

    Raises
    ------
    LesionsynthError
        If it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise LesionsynthError(
            f"learned models need the package {name.partition('.')[0]} ({error}).",
            remedy="Install it: pip install 'lesionsynth[generative]'.",
        ) from None
