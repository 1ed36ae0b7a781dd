"""What a trial is to compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lesionsynth.generative.specs import TrainSpec
from lesionsynth.recipe.model import Recipe
from lesionsynth.trial.arms import Arm
from lesionsynth.trial.spec import TrialSpec

READING = Recipe.model_validate({"steps": {"add": {"kind": "populate"}}})
"""A recipe by which a data set is read as by default."""


@dataclass(frozen=True)
class Wish:
    """What is to be compared.

    Parameters
    ----------
    arms : tuple of Arm
        With the one without synthetic data first.
    fractions : tuple of float
        Of the training subjects.
    seeds : int
    folds : tuple of int
    spec : TrialSpec
    models : mapping
        How the models are trained that recipes need and that are not there, by kind.
    budget_s : float or None
        No group of cells, nor of networks of a search, begins that would probably end later.
    nnunet : str or None
        nnU-Net's name of a way to train, if it is to train and not we.
    prevalence : float or None
        Lesions are removed from training cases until the others are not more than this share of an image.
    reading : Recipe
        By whose `input` and `folds` the data set is read where no arm has a recipe.
    """

    arms: tuple[Arm, ...]
    fractions: tuple[float, ...]
    seeds: int
    folds: tuple[int, ...]
    spec: TrialSpec
    models: Mapping[str, TrainSpec]
    budget_s: float | None = None
    nnunet: str | None = None
    prevalence: float | None = None
    reading: Recipe = READING
