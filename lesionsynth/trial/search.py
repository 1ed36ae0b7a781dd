"""Values of a recipe that are best on validation subjects, found by training many networks (Optuna's TPE).

References
----------
Akiba et al., Optuna, KDD 2019, doi:10.1145/3292500.3330701. Bergstra et al., Algorithms for hyper-parameter
optimization, NeurIPS 2011 (the tree-structured Parzen estimator).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import yaml

from lesionsynth import nifti
from lesionsynth.generative.checkpoint import needed
from lesionsynth.recipe.model import Recipe, resolved
from lesionsynth.rng import stream
from lesionsynth.trial.arms import Arm
from lesionsynth.trial.cells import Cell
from lesionsynth.trial.runner import Runner

_AT_ONCE = 4
"""Networks that are trained between two looks at what they have come to, however many workers there are."""


@dataclass(frozen=True)
class Knob:
    """A value of a recipe.

    Parameters
    ----------
    values : tuple
        Names to choose from, or the lowest and highest of a number.
    keys : tuple of str
        Where it is: in each step that has these keys, or in the recipe if the first of them is "training".
    written : callable
        What the recipe says for a value, where that is not the value.
    """

    values: tuple[Any, ...]
    keys: tuple[str, ...]
    written: Callable[[Any], Any] = lambda value: value

    def turn(self, raw: dict[str, Any], value: Any) -> None:
        """Set it in a recipe's JSON, wherever the recipe has it."""
        *path, last = self.keys
        for place in [raw] if path == ["training"] else raw["steps"].values():
            for key in path:
                place = place.get(key) if isinstance(place, dict) else None
            if isinstance(place, dict) and place.get(last) is not None:
                place[last] = self.written(value)

    def drawn(self, name: str, trial: Any) -> Any:
        """A value as Optuna suggests it; numbers to two digits, so that a recipe stays short."""
        if isinstance(self.values[0], str):
            return trial.suggest_categorical(name, self.values)
        return round(trial.suggest_float(name, *self.values), 2)


KNOBS: Mapping[str, Knob] = {
    "load": Knob(("low", "medium", "high", "uniform", "real"), ("load",)),
    "replace": Knob((0.0, 1.0), ("replace",)),
    "elastic_mm": Knob((0.0, 4.0), ("geometry", "elastic"), lambda mm: {"p": 0.5, "magnitude_mm": [0, mm]}),
    "contrast": Knob(("shell", "ratio", "host_lesions", "absolute"), ("contrast", "kind")),
    "brightness": Knob((0.0, 0.4), ("contrast", "brightness"), lambda part: [1 - part, 1 + part]),
    "k": Knob((0.2, 1.0), ("blend", "k"), lambda low: [low, 1.0]),
    "width_mm": Knob((0.5, 4.0), ("blend", "width_mm")),
    "share": Knob((0.2, 0.8), ("training", "share")),
}
"""What is searched: target load, share of the host's lesions that is removed first, size of the elastic
deformation, kind and spread of the contrast, k of soft Poisson blending, width of the seam, share of the
synthetic patches in a batch."""


def knobs_of(recipe: Recipe) -> dict[str, Knob]:
    """Those that change something in a recipe."""
    return {
        name: knob
        for name, knob in KNOBS.items()
        if any(turned(recipe, {name: v}) != recipe for v in knob.values)
    }


def turned(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """The recipe with some values of :data:`KNOBS`, by name."""
    raw = resolved(recipe)
    for name, value in values.items():
        KNOBS[name].turn(raw, value)
    return Recipe.model_validate(raw)


def searched(arm: Arm, cell: Cell, runner: Runner) -> Recipe | None:
    """The recipe of an arm, with the values that are best in a cell's validation cases.

    The recipe as it is is one of those tried, and stays where nothing is better. Test cases are not looked
    at. What was tried is written to `searched`/<cell>.csv, the best to <cell>.yaml beside it.

    Parameters
    ----------
    arm : Arm
        `searched` says how many networks are trained.
    cell : Cell
        Of a group; the seed of the recipe and the fold decide what is tried.
    runner : Runner

    Returns
    -------
    Recipe or None
        None where the time was over first.
    """
    optuna = needed("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    recipe = arm.recipe
    assert recipe is not None
    knobs = knobs_of(recipe)
    seed = int(stream(recipe.seed, "trial", "search", cell.fold).integers(2**31))
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(_AT_ONCE, arm.searched // 3))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    tried: list[tuple[dict[str, Any], Recipe, float | None]] = []
    while len(tried) < arm.searched:
        batch: list[tuple[Any, dict[str, Any], Recipe]] = [] if tried else [(None, {}, recipe)]
        while len(batch) < min(_AT_ONCE, arm.searched - len(tried)):
            trial = study.ask()
            values = {name: knob.drawn(name, trial) for name, knob in knobs.items()}
            batch.append((trial, values, turned(recipe, values)))
        pairs = [
            (
                replace(cell, arm=f"{arm.name}-try{len(tried) + number}", test=cell.validation),
                replace(arm, recipe=other),
            )
            for number, (_, _, other) in enumerate(batch)
        ]
        if not runner.do(pairs, f"{arm.name} fraction {cell.fraction:g} fold {cell.fold}: search"):
            return None
        for (trial, values, other), (own, way) in zip(batch, pairs, strict=True):
            score = _score(runner.told(own, way))
            tried.append((values, other, score))
            if trial is not None and score is None:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            elif trial is not None:
                study.tell(trial, score)
        if all(score is None for _, _, score in tried):
            runner.progress.note(
                f"{arm.name}, fraction {cell.fraction:g}, fold {cell.fold}: nothing to search by: no copies "
                "could be made, or training or validation cases have no lesion. The recipe stays as it is."
            )
            return recipe
    best = max(tried, key=lambda one: -1.0 if one[2] is None else one[2])[1]
    place = runner.setting.output / "searched"
    nifti.write_bytes(place / f"{cell.name}.csv", _table(knobs, tried).encode())
    nifti.write_bytes(place / f"{cell.name}.yaml", yaml.safe_dump(resolved(best), sort_keys=False).encode())
    return best


def _score(told: dict[str, Any] | None) -> float | None:
    """Mean area under precision over recall in the cases of a cell: no threshold, so that load is no gain."""
    values = [row["values"]["auprc"] for row in (told or {"rows": []})["rows"]]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _table(knobs: Mapping[str, Knob], tried: list[tuple[dict[str, Any], Recipe, float | None]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["try", "auprc", *knobs])
    for number, (values, _, score) in enumerate(tried):
        shown = "" if score is None else f"{score:.6g}"
        writer.writerow([number, shown, *(values.get(name, "") for name in knobs)])
    return text.getvalue()
