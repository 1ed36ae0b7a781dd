"""Lesions of a bank as crops, and who of them only validates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

import numpy as np

from lesionsynth.bank.store import LesionBank
from lesionsynth.errors import InputError
from lesionsynth.generative.crops import Crop, crop_of
from lesionsynth.generative.specs import FEWEST_TO_HOLD_OUT
from lesionsynth.rng import stream


class Sample(Protocol):
    """What a network is trained on."""

    @property
    def subject(self) -> str:
        """Whose it is."""

    @property
    def name(self) -> str:
        """Of the lesion or case that it shows."""


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

    A share of the subjects, one at least; with fewer than three, of the lesions (or cases) that samples are
    named after. Where there are fewer than three of these too, none can be spared: the training data
    validate.
    """
    for key in ("subject", "name"):
        of = [getattr(sample, key) for sample in samples]
        groups = sorted(set(of))
        if share > 0 and len(groups) >= FEWEST_TO_HOLD_OUT:
            drawn = stream(seed, "train", "held out", what).permutation(len(groups)).tolist()
            out = {groups[k] for k in drawn[: max(1, min(len(groups) - 1, round(share * len(groups))))]}
            return (
                [sample for sample, group in zip(samples, of, strict=True) if group not in out],
                [sample for sample, group in zip(samples, of, strict=True) if group in out],
            )
    return list(samples), list(samples)


def volume_range(crops: Sequence[Crop]) -> tuple[float, float]:
    """Least and largest volume seen, mm3."""
    volumes = [crop.volume_mm3 for crop in crops]
    return float(np.min(volumes)), float(np.max(volumes))
