"""Lesions of a bank as crops, and who of them only validates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

import numpy as np

from lesionsynth.bank.store import LesionBank
from lesionsynth.errors import InputError
from lesionsynth.generative.crops import Crop, crop_of
from lesionsynth.rng import stream


class Sample(Protocol):
    """What a network is trained on."""

    @property
    def subject(self) -> str:
        """Whose it is."""


AnySample = TypeVar("AnySample", bound=Sample)


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


def held_out(
    samples: Sequence[AnySample], share: float, seed: int, what: str
) -> tuple[list[AnySample], list[AnySample]]:
    """Samples that train, and those that only validate.

    A share of the subjects, one at least; of the samples where there is one subject. Where nothing can be
    held out, the training data validate too.
    """
    rng = stream(seed, "train", "held out", what)
    subjects = sorted({sample.subject for sample in samples})
    if share == 0 or len(samples) == 1:
        return list(samples), list(samples)
    if len(subjects) > 1:
        count = min(len(subjects) - 1, max(1, round(share * len(subjects))))
        kept = {subjects[k] for k in rng.permutation(len(subjects))[:count].tolist()}
        held = [sample.subject in kept for sample in samples]
    else:
        count = min(len(samples) - 1, max(1, round(share * len(samples))))
        index = set(rng.permutation(len(samples))[:count].tolist())
        held = [k in index for k in range(len(samples))]
    train = [sample for sample, out in zip(samples, held, strict=True) if not out]
    return train, [sample for sample, out in zip(samples, held, strict=True) if out]


def volume_range(crops: Sequence[Crop]) -> tuple[float, float]:
    """Least and largest volume seen, mm3."""
    volumes = [crop.volume_mm3 for crop in crops]
    return float(np.min(volumes)), float(np.max(volumes))
