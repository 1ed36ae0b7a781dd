"""One cell of a trial: synthesise from its training subjects, train, segment the test cases, measure."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionsynth import nifti
from lesionsynth.errors import DeviceError, LesionsynthError, NoLesionError, OutputError
from lesionsynth.json_file import read_json
from lesionsynth.run.pool import Unheard
from lesionsynth.trial.arms import Arm
from lesionsynth.trial.cells import Cell, Setting, of_subjects
from lesionsynth.trial.measures import auprc, best_threshold, segmentation_measures
from lesionsynth.trial.plan import (
    IGNORED,
    Plan,
    Scan,
    SegmentationCase,
    make_plan,
    on_own_grid,
    prepared,
    read_scan,
)
from lesionsynth.trial.supply import Renewed, recipe_for, renewed, synthesised, train_on_of

Found = tuple[Scan, NDArray[np.float32]]
"""A case, and the probability of a lesion in each of its voxels."""


def run_cell(cell: Cell, arm: Arm, setting: Setting, key: str) -> dict[str, Any]:
    """Train and test one network; what came out is written to the folder `cells`, whole or not at all.

    Parameters
    ----------
    cell : Cell
    arm : Arm
    setting : Setting
    key : str
        Of all that the cell depends on.

    Returns
    -------
    dict
        As written; with `failed` where these subjects have no lesion, the recipe could make nothing of them,
        or the network's loss was no number.
    """
    from lesionsynth.generative.training import Place, forget, open_torch_device, seed_weights, train
    from lesionsynth.trial.segment import SegmentationTask

    cohort, output = setting.cohort, setting.output
    folder = work_of(output, cell)
    _clear_other(folder, key)
    clock = _Clock(folder / "seconds.json")
    told: dict[str, Any] = {"key": key, **asdict(cell), "synthetic": 0, "rows": []}
    try:
        given, train_on = train_on_of(cell, setting, folder)
        real = [read_scan(files, train_on) for files in of_subjects(train_on, cell.train)]
        plan = make_plan(real, cohort.channels, setting.spec)
    except NoLesionError as error:  # other draws of training subjects may have one
        return written(told | {"failed": str(error)}, output, cell)
    validation = [read_scan(files, train_on) for files in of_subjects(train_on, cell.validation)]
    clock.stop("reading")
    own = arm.network(setting.spec).model_copy(update={"seed": cell.seed})
    place = Place(folder, open_torch_device(setting.device, setting.threads), "cell")
    try:
        synthetic: Sequence[SegmentationCase] | Renewed = ()
        if arm.recipe is not None:
            recipe = recipe_for(arm.recipe, cell, given, train_on, setting, folder)
            if arm.renewed:
                synthetic = renewed(recipe, train_on, plan, folder, arm.renewed)
            else:
                made = synthesised(recipe, train_on, folder)
                synthetic = [prepared(read_scan(files, train_on), plan) for files in made]
            clock.stop("synthesis")
        seed_weights(own, place, SegmentationTask.name)
        task = SegmentationTask(
            own,
            plan,
            [prepared(scan, plan) for scan in real],
            synthetic,
            [prepared(scan, plan) for scan in validation],
            arm.share,
            place.device,
            arm.prototype,
            setting.spec.lesion_share,
        )
        trained = train(task, own, place, Unheard(), key)
    except (OutputError, DeviceError):
        raise  # of no recipe alone
    except LesionsynthError as error:
        return written(told | {"failed": str(error)}, output, cell)
    clock.told("training", trained.seconds)
    test_on = train_on if cell.is_rehearsal else cohort
    tested = (read_scan(files, test_on) for files in of_subjects(test_on, cell.test))
    told |= outcome_of(
        ((scan, _segmented(task, plan, scan)) for scan in validation),
        ((scan, _segmented(task, plan, scan)) for scan in tested),
    )
    clock.stop("testing")
    told |= {
        "synthetic": task.synthetic_cases,
        "best_update": trained.steps,
        "validation_auprc": trained.measures.get("auprc"),
        "patch": list(plan.patch),
        "spacing_mm": list(plan.spacing_mm),
        "seconds": clock.seconds,
    }
    forget(place, task.name)
    return written(told, output, cell)


class _Clock:
    """What took how long, in seconds, with what it took before a stop.

    Parameters
    ----------
    note : Path
        Where that is noted down.
    """

    def __init__(self, note: Path) -> None:
        self._note = note
        self.seconds: dict[str, float] = read_json(note) if note.is_file() else {}
        self._since = time.perf_counter()

    def stop(self, name: str) -> None:
        """What went on until now, under a name."""
        self.told(name, self.seconds.get(name, 0.0) + time.perf_counter() - self._since)

    def told(self, name: str, seconds: float) -> None:
        """What took so long in all, by another clock; what comes next begins now."""
        self.seconds[name] = round(seconds, 3)
        nifti.write_bytes(self._note, json.dumps(self.seconds).encode())
        self._since = time.perf_counter()


def outcome_of(validation: Iterable[Found], test: Iterable[Found]) -> dict[str, Any]:
    """The threshold that is best on validation cases, and the measures of test cases by it and by one half.

    Parameters
    ----------
    validation, test : iterable of (Scan, ndarray (i, j, k) float32)
        Cases and the probability of a lesion in each voxel.
    """
    threshold = best_threshold([_counted(scan, probability) for scan, probability in validation])
    return {"threshold": threshold, "rows": [_row(*found, threshold) for found in test]}


def _row(scan: Scan, probability: NDArray[np.float32], threshold: float) -> dict[str, Any]:
    values: dict[str, float | None] = {"auprc": auprc(*_counted(scan, probability))}
    for suffix, limit in (("", 0.5), ("_at_val", threshold)):
        found = (probability >= limit) & (scan.classes != IGNORED)
        measures = segmentation_measures(found, scan.classes == 1, scan.grid.spacing_mm)
        values |= {f"{name}{suffix}": value for name, value in measures.items()}
    return {"case": scan.files.case, "subject": scan.files.subject, "values": values}


def _counted(scan: Scan, probability: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Probability and truth of the voxels that count."""
    counted = scan.classes != IGNORED
    return probability[counted], (scan.classes == 1)[counted]


def written(told: dict[str, Any], output: Path, cell: Cell) -> dict[str, Any]:
    """What came out of a cell, once it is on the disk; what it has worked with is removed."""
    nifti.write_bytes(output / "cells" / f"{cell.name}.json", (json.dumps(told, indent=1) + "\n").encode())
    shutil.rmtree(work_of(output, cell), ignore_errors=True)
    return told


def work_of(output: Path, cell: Cell) -> Path:
    """Where a cell works."""
    return output / "work" / cell.name


def _clear_other(folder: Path, key: str) -> None:
    """Remove what a cell with another key has left when it was stopped; one with this key goes on."""
    note = folder / "key"
    if not note.is_file() or note.read_text() != key:
        shutil.rmtree(folder, ignore_errors=True)
        nifti.write_bytes(note, key.encode())


def _segmented(task: Any, plan: Plan, scan: Scan) -> NDArray[np.float32]:
    """Probability on the case's own grid."""
    case = prepared(scan, plan)
    i, j, k = scan.classes.shape
    return on_own_grid(task.probability(case), case, (i, j, k))
