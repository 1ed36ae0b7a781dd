"""Does the cells of a trial that are not done yet, and reads those that are."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

import lesionsynth
from lesionsynth.digest import digest_json, file_states
from lesionsynth.errors import LesionsynthError
from lesionsynth.generative.checkpoint import checkpoints_at
from lesionsynth.json_file import read_json
from lesionsynth.recipe.model import Recipe, deciding
from lesionsynth.run.cohort import open_cohort
from lesionsynth.run.fit import case_keys
from lesionsynth.run.models import used
from lesionsynth.run.pool import Engine, Failure, Progress, run_all
from lesionsynth.trial import nnunet
from lesionsynth.trial.arms import Arm
from lesionsynth.trial.cell import run_cell
from lesionsynth.trial.cells import Cell, Setting
from lesionsynth.trial.wish import READING

Pair = tuple[Cell, Arm]
"""A cell, and the way its network is trained."""


class Runner:
    """Runs cells once.

    Parameters
    ----------
    setting : Setting
    progress : Progress
    engine : Engine
    trainer : str or None
        nnU-Net's name of a way to train, if it is to train and not we.
    until : float or None
        Time, by :func:`time.monotonic`, after which nothing should go on.
    """

    def __init__(
        self,
        setting: Setting,
        progress: Progress,
        engine: Engine,
        trainer: str | None,
        until: float | None,
    ) -> None:
        self.setting, self.progress = setting, progress
        self._engine, self._trainer, self._until = engine, trainer, until
        self._states: dict[str, dict[str, str]] = {}
        self._longest = 0.0

    def key(self, cell: Cell, arm: Arm) -> str:
        """Digest of all that the cell depends on."""
        setting, recipe = self.setting, arm.recipe
        uses = [] if recipe is None else [(path, use) for _, path, use in used(recipe)]
        files = [file for path, _ in uses if path for file in checkpoints_at(path)]
        ways = [setting.models[use.kinds[0]].model_dump(mode="json") for _, use in uses]
        network = None if self._trainer else [arm.network(setting.spec).model_dump(mode="json"), *self._torch]
        people = {*cell.train, *cell.validation, *cell.test}
        subjects = {files.case: files.subject for files in setting.cohort.cases}
        return digest_json(
            [
                [lesionsynth.__version__, self._trainer, setting.prevalence, list(setting.cohort.channels)],
                [network, arm.prototype, arm.share, arm.renewed],
                None if recipe is None else deciding(recipe),
                [ways, list(file_states(files))] if uses else None,
                asdict(cell),
                # Of masks, which have no subject here, all count.
                [i for i in sorted(self._state(recipe).items()) if subjects.get(i[0]) in {None, *people}],
            ]
        )

    @cached_property
    def _torch(self) -> tuple[str, str, str]:
        """Kind of device and versions of what trains, which arms that are compared share; not for nnU-Net."""
        import monai
        import torch

        from lesionsynth.generative.training import open_torch_device

        kind = open_torch_device(self.setting.device, self.setting.threads).type
        return kind, torch.__version__, monai.__version__

    def _state(self, recipe: Recipe | None) -> dict[str, str]:
        """Digest of the files of every case, and of every mask, that a recipe (or none) reads."""
        setting = self.setting
        own = recipe or READING.model_copy(update={"input": setting.given.model_copy(update={"masks": None})})
        name = digest_json([deciding(own)[part] for part in ("input", "tissue", "bank")])
        if name not in self._states:
            _, cohort, _ = open_cohort(own.input, setting.cohort.root)
            self._states[name] = case_keys(cohort, own)
        return self._states[name]

    def told(self, cell: Cell, arm: Arm) -> dict[str, Any] | None:
        """What a cell has come to, if it is done."""
        path = self.setting.output / "cells" / f"{cell.name}.json"
        if not path.is_file():
            return None
        try:
            told = read_json(path)
        except LesionsynthError:
            return None
        return told if isinstance(told, dict) and told.get("key") == self.key(cell, arm) else None

    def do(self, pairs: Sequence[Pair], stage: str) -> bool:
        """Do the cells that are not done; whether there was time for it.

        Nothing begins of which the longest call so far says that it would end too late.

        Raises
        ------
        LesionsynthError
            Of the first cell that fails.
        """
        waiting = [(cell, arm) for cell, arm in pairs if self.told(cell, arm) is None]
        if not waiting:
            return True
        began = time.monotonic()
        if self._until is not None and began + self._longest > self._until:
            return False
        run_one: Callable[..., dict[str, Any]] = run_cell
        places: dict[str, nnunet.DataSet] = {}
        if self._trainer:
            run_one = nnunet.run_cell
            places = nnunet.data_sets([cell for cell, _ in pairs], self.setting.output, self._trainer)
        items = [
            (cell.name, (cell, arm, self.setting, self.key(cell, arm), *_of(places, cell)))
            for cell, arm in waiting
        ]
        for result in run_all(run_one, items, stage=stage, engine=self._engine, progress=self.progress):
            if isinstance(result, Failure):
                raise result.error
            self.progress.note(_words_of(result))
        self._longest = max(self._longest, time.monotonic() - began)
        return True


def _of(places: Mapping[str, nnunet.DataSet], cell: Cell) -> tuple[nnunet.DataSet, ...]:
    return (places[cell.name],) if places else ()


def _words_of(told: dict[str, Any]) -> str:
    """One cell in a line."""
    who = f"{told['arm']}, fraction {told['fraction']:g}, seed {told['seed']}, fold {told['fold']}"
    if "failed" in told:
        return f"{who}: {told['failed']}"
    if "waiting" in told:
        return f"{who}: to be trained by {told['waiting']}"
    dice = [row["values"]["dice_at_val"] for row in told["rows"]]
    seconds = sum(told["seconds"].values())
    return f"{who}: Dice {sum(dice) / len(dice):.3f} in {len(dice)} case(s), {seconds:.0f} s"
