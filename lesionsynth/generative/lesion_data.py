"""Lesions of a bank as crops, and who of them only validates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

import numpy as np

from lesionsynth.bank.store import LesionBank
from lesionsynth.errors import InputError
from lesionsynth.generative.crops import Crop, crop_of
from lesionsynth.rng import stream


class _Owned(Protocol):
    @property
    def subject(self) -> str: ...


_Part = TypeVar("_Part", bound=_Owned)


def crops_of(
    bank: LesionBank, subjects: Iterable[str], values: Sequence[int], size: int, most: int, seed: int
) -> list[Crop]:
    """Lesions of `subjects` as cubes of `size` voxels, in the order of the bank.

    Where lesions have several label values, those known by a mask alone are passed over: what parts they
    have is not known. Where there are more than `most`, so many are drawn.

    Raises
    ------
    InputError
        If none is left.
    """
    infos = [info for info in bank.infos(subjects) if info.channels or len(values) == 1]
    if len(infos) > most:
        chosen = stream(seed, "train", "lesions").choice(len(infos), most, replace=False)
        infos = [infos[k] for k in sorted(chosen.tolist())]
    found = (crop_of(bank.read(info.lesion), size, values) for info in infos)
    crops = [crop for crop in found if crop is not None]
    if not crops:
        raise InputError(
            f"none of the {len(infos)} lesions of these subjects can be learned from.",
            file=bank.folder,
            remedy="Use fewer folds, or folds.strategy per_fold or none; masks of more subjects come from "
            "input.masks.",
        )
    return crops


def held_out(crops: Sequence[_Part], share: float, seed: int, what: str) -> tuple[list[_Part], list[_Part]]:
    """Crops, or other parts of cases, that train, and those that only validate.

    A share of the subjects, one at least; of the crops where there is one subject. Where nothing can be held
    out, the training data validate too.
    """
    rng = stream(seed, "train", "held out", what)
    subjects = sorted({crop.subject for crop in crops})
    if share == 0 or len(crops) == 1:
        return list(crops), list(crops)
    if len(subjects) > 1:
        count = min(len(subjects) - 1, max(1, round(share * len(subjects))))
        kept = {subjects[k] for k in rng.permutation(len(subjects))[:count].tolist()}
        held = [crop.subject in kept for crop in crops]
    else:
        count = min(len(crops) - 1, max(1, round(share * len(crops))))
        index = set(rng.permutation(len(crops))[:count].tolist())
        held = [k in index for k in range(len(crops))]
    train = [crop for crop, out in zip(crops, held, strict=True) if not out]
    return train, [crop for crop, out in zip(crops, held, strict=True) if out]


def volume_range(crops: Sequence[Crop]) -> tuple[float, float]:
    """Least and largest volume seen, mm3."""
    volumes = [crop.volume_mm3 for crop in crops]
    return float(np.min(volumes)), float(np.max(volumes))
