"""Where the synthetic cases of a cell come from: written before the training, or made while it goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lesionsynth.api import Synthesis
from lesionsynth.domain.case import CaseFiles, Cohort
from lesionsynth.domain.grid import Grid
from lesionsynth.errors import DeviceError, LeakError, LesionsynthError, NoRoomError, OutputError
from lesionsynth.generative.checkpoint import checkpoints_at, read_card
from lesionsynth.recipe.model import FoldSpec, InputSpec, Recipe, resolved
from lesionsynth.rng import stream
from lesionsynth.run import session
from lesionsynth.run.cohort import people_of
from lesionsynth.run.models import used
from lesionsynth.run.pool import Unheard
from lesionsynth.run.prepare import read_prepared
from lesionsynth.run.train import train_models
from lesionsynth.trial.cells import Cell, Setting
from lesionsynth.trial.plan import Plan, Scan, SegmentationCase, classes_of, prepared
from lesionsynth.trial.rare import thinned

_OPEN = 8
"""Hosts that stay open while copies of them are made in turn."""


class Renewed:
    """A copy of each host, made when it is asked for; after a stretch of the training others follow.

    Copies of the stretch `n` are those with the number `n`, which a run with as many copies writes too. Where
    one cannot be made the next host's stands for it, and where none can, the first that was made. Nothing
    depends on what was asked for before, which a training that was stopped and goes on does not know.

    Parameters
    ----------
    synthesis : Synthesis
        Of the training subjects.
    cohort : Cohort
    plan : Plan
    stretches : int
        Of equal length.

    Raises
    ------
    NoRoomError
        If no host can be edited in the first stretch.
    """

    def __init__(self, synthesis: Synthesis, cohort: Cohort, plan: Plan, stretches: int) -> None:
        self.synthesis, self.cohort, self.plan, self.stretches = synthesis, cohort, plan, stretches
        self.made: set[tuple[int, int]] = set()
        """Copies that were made so far: stretch and host of each."""
        self._stretch = 0
        self._present: dict[int, SegmentationCase | None] = {}
        found = next((case for case in map(self._copy, range(len(self))) if case is not None), None)
        if found is None:
            raise NoRoomError(
                "no copy could be edited.",
                remedy="Look at load, site and donors of the recipe: lesionsynth run.",
            )
        self._first = found

    def at(self, done: float) -> None:
        """Say what part of the training is done."""
        stretch = min(int(done * self.stretches), self.stretches - 1)
        if stretch != self._stretch:
            self._stretch = stretch
            self._present.clear()

    def __len__(self) -> int:
        """Number of hosts."""
        return len(self.synthesis.hosts)

    def __getitem__(self, number: int) -> SegmentationCase:
        """The present copy of a host."""
        for other in range(number, number + len(self)):
            if (case := self._copy(other % len(self))) is not None:
                return case
        return self._first

    def _copy(self, number: int) -> SegmentationCase | None:
        """The copy of a host in this stretch, or None where it cannot be made."""
        if number not in self._present:
            self._present[number] = self._make(self.synthesis.hosts[number])
            if self._present[number] is not None:
                self.made.add((self._stretch, number))
        return self._present[number]

    def _make(self, host: str) -> SegmentationCase | None:
        try:
            sample = self.synthesis.copy(host, self._stretch)
        except (OutputError, DeviceError):
            raise  # of no copy alone
        except LesionsynthError:
            return None  # a run goes on without it too
        if not sample.synthetic:
            return None
        files = replace(self.cohort.case(host), case=sample.case)
        classes = classes_of(sample.label, self.cohort.labels)
        i, j, k = classes.shape
        return prepared(Scan(files, sample.image, classes, Grid((i, j, k), sample.affine)), self.plan)


def renewed(recipe: Recipe, cohort: Cohort, plan: Plan, folder: Path, times: float) -> Renewed:
    """Cases of a recipe of :func:`recipe_for` that are made while the network trains.

    There are `times` as many as the recipe's copies.

    Raises
    ------
    LesionsynthError
        If the recipe can make nothing.
    """
    synthesis = Synthesis(recipe, cohort.root, folder / "synthetic", hosts_in_memory=_OPEN)
    return Renewed(synthesis, cohort, plan, max(1, round(times * recipe.output.copies)))


def train_on_of(cell: Cell, setting: Setting, folder: Path) -> tuple[InputSpec, Cohort]:
    """What a cell trains and validates on, and how it is read: the input, or a thinned part of it.

    Raises
    ------
    NoLesionError
        If no lesion is left.
    """
    if setting.prevalence is None:
        return setting.given, setting.cohort
    return thinned(cell, setting.cohort, setting.given, setting.prevalence, folder / "rare")


def recipe_for(
    recipe: Recipe, cell: Cell, given: InputSpec, train_on: Cohort, setting: Setting, folder: Path
) -> Recipe:
    """The recipe for the cell's training subjects, as if there were nobody else in the data set.

    Bank, likelihood map, loads and models are fitted on them alone; models that are not there are trained.

    Raises
    ------
    LesionsynthError
        If the recipe cannot be used for them.
    """
    unseen = {*cell.test, *cell.validation} - set(cell.train)
    seen = sorted({*recipe.input.seen_by_models, *setting.cohort.subjects} - unseen)
    own = recipe.model_copy(
        update={
            "seed": int(stream(recipe.seed, "trial", cell.seed, cell.fold).integers(2**31)),
            "input": (recipe.input if train_on is setting.cohort else given).model_copy(
                update={"subjects": cell.train, "seen_by_models": tuple(seen)}
            ),
            "folds": FoldSpec(strategy="none"),
            "output": recipe.output.model_copy(update={"originals": "omit"}),
        }
    )
    return _with_models(own, cell, train_on, setting, folder)


def synthesised(recipe: Recipe, cohort: Cohort, folder: Path) -> list[CaseFiles]:
    """Synthetic cases of a recipe of :func:`recipe_for`, written.

    Raises
    ------
    LesionsynthError
        If the recipe can make nothing.
    """
    outcome = session.run(recipe, cohort.root, folder / "synthetic", Unheard())
    if not outcome.done:
        raise outcome.failures[0].error
    space = read_prepared(outcome.output).space
    made = []
    for row in outcome.done:
        files, case = space.cohort.case(row["host"]), row["case"]
        images = (space.layout.image_path(files, case, k, space.cohort) for k in range(len(cohort.channels)))
        label = space.layout.label_path(files, case, space.cohort)
        made.append(
            replace(
                files,
                case=case,
                images=tuple(outcome.output / path for path in images),
                label=outcome.output / label,
            )
        )
    return made


def _with_models(recipe: Recipe, cell: Cell, train_on: Cohort, setting: Setting, folder: Path) -> Recipe:
    """The recipe with models that have seen nobody of validation and test; trained here if there are none.

    Raises
    ------
    LeakError
        If a model that is given has seen one of them.
    """
    raw = resolved(recipe)
    for user, path, use in used(recipe):
        if path and Path(path).exists():
            for file in checkpoints_at(path):
                seen = people_of(read_card(file, use.kinds).subjects, setting.given, setting.cohort)
                leaked = sorted(seen & {*cell.test, *cell.validation} - set(cell.train))
                if leaked:
                    raise LeakError(
                        f"the model of {user} has seen {leaked[0]}, who is tested or validates here.",
                        file=file,
                        remedy="Remove it from the recipe's path: the trial then trains one for each cell.",
                    )
            continue
        kind = use.kinds[0]
        models = folder / "models" / f"{user}.{use.field}"
        spec = setting.models[kind]
        seed = int(stream(spec.seed, "trial", cell.seed, cell.fold).integers(2**31))
        train_models(
            kind,  # type: ignore[arg-type]
            type(spec).model_validate({**spec.model_dump(), **dict(use.config), "seed": seed}),
            recipe,
            train_on.root,
            models,
            Unheard(),
            device=setting.device,
            threads=setting.threads,
        )
        group, name = user.split(".")
        raw[group][name][use.field] = str(models)
    return Recipe.model_validate(raw)
