"""The cells of a trial: who trains, validates and is tested in each of its networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesionsynth.domain.case import CaseFiles, Cohort, Split
from lesionsynth.errors import InputError
from lesionsynth.generative.specs import FEWEST_TO_HOLD_OUT, TrainSpec
from lesionsynth.recipe.model import InputSpec
from lesionsynth.rng import stream
from lesionsynth.run.folds import sides_of
from lesionsynth.trial.arms import Arm
from lesionsynth.trial.spec import TrialSpec


@dataclass(frozen=True)
class Cell:
    """One network that is trained and tested. All people are subjects, so that no one is on two sides.

    Parameters
    ----------
    arm : str
    fraction : float
        Share of the training subjects.
    seed, fold : int
    train, validation, test : tuple of str
        Subjects; `validation` equals `train` where none could be spared.
    """

    arm: str
    fraction: float
    seed: int
    fold: int
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of its file."""
        return cell_name(vars(self))

    @property
    def is_rehearsal(self) -> bool:
        """Whether it is tested on its validation subjects, to choose something by them."""
        return self.test == self.validation

    @property
    def group(self) -> tuple[float, int, int]:
        """What the cells that are compared with each other share."""
        return self.fraction, self.seed, self.fold


def cell_name(told: Mapping[str, Any]) -> str:
    """Name of a cell, by its fields."""
    return f"{told['arm']}-fraction{told['fraction']:.10g}-seed{told['seed']}-fold{told['fold']}"


@dataclass(frozen=True)
class Setting:
    """What all cells of a trial share.

    Parameters
    ----------
    cohort : Cohort
        The whole input.
    given : InputSpec
        By which it was read.
    spec : TrialSpec
        Of the network.
    models : mapping
        How the models are trained that a recipe needs and that are not there, by kind.
    output : Path
        Folder of the trial.
    device : str
        auto, cpu, cuda or cuda:i.
    threads : int
        Of torch on the CPU.
    prevalence : float or None
        Lesions are removed from training cases until the others are not more than this share of an image.
    """

    cohort: Cohort
    given: InputSpec
    spec: TrialSpec
    models: Mapping[str, TrainSpec]
    output: Path
    device: str = "cpu"
    threads: int = 1
    prevalence: float | None = None


def of_subjects(cohort: Cohort, subjects: Sequence[str]) -> list[CaseFiles]:
    """Cases of these subjects, in the order of the cohort."""
    return [files for files in cohort.cases if files.subject in subjects]


def make_cells(
    cohort: Cohort,
    splits: Sequence[Split],
    arms: Sequence[Arm],
    fractions: Sequence[float],
    seeds: int,
    folds: Sequence[int],
    held_out: float,
) -> list[Cell]:
    """All cells, those of one group beside each other, whole seeds first.

    In a fold its validation part is tested and nothing else. Of its training part a share of the subjects
    only validates, but never all; of the rest a fraction trains, and a smaller fraction is part of a larger
    one. Who that is depends on seed and fold alone, so all arms of a group train on the same people.

    Raises
    ------
    InputError
        If there is no such fold, or it has nobody to train on or to test.
    """
    by_case = {case.case: case.subject for case in cohort.cases}
    cells = []
    for seed in range(seeds):
        for fraction in fractions:
            for fold in folds:
                if not 0 <= fold < len(splits):
                    raise InputError(
                        f"there is no fold {fold}; the data set has {len(splits)}.",
                        file=cohort.root,
                        remedy="Give folds from 0 with --folds; folds.count in the recipe makes more.",
                    )
                test, train = (tuple(sorted(side)) for side in sides_of(splits[fold], by_case))
                if not test or not train:
                    raise InputError(
                        f"fold {fold} has {len(train)} subjects to train on and {len(test)} to test.",
                        file=cohort.root,
                        remedy="Use folds with at least one subject on each side.",
                    )
                drawn = list(train)
                stream(seed, "trial", "subjects", fold).shuffle(drawn)
                spares = held_out > 0 and len(drawn) >= FEWEST_TO_HOLD_OUT
                n_val = min(max(1, round(held_out * len(drawn))), len(drawn) - 1) if spares else 0
                rest = drawn[n_val:]
                chosen = tuple(sorted(rest[: max(1, round(fraction * len(rest)))]))
                validation = tuple(sorted(drawn[:n_val])) or chosen
                cells += [Cell(arm.name, fraction, seed, fold, chosen, validation, test) for arm in arms]
    return cells
