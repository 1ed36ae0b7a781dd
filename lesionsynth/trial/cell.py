"""One cell of a trial: synthesise from its training subjects, train, segment the test cases, measure."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionsynth import nifti
from lesionsynth.domain.case import CaseFiles, Cohort
from lesionsynth.errors import DeviceError, InputError, LeakError, LesionsynthError, OutputError
from lesionsynth.generative.checkpoint import SUFFIX, read_card
from lesionsynth.generative.specs import SPECS
from lesionsynth.host import read_label
from lesionsynth.recipe.model import FoldSpec, Recipe, resolved
from lesionsynth.rng import stream
from lesionsynth.run import session
from lesionsynth.run.cohort import people_of
from lesionsynth.run.models import used
from lesionsynth.run.pool import Unheard
from lesionsynth.run.prepare import read_prepared
from lesionsynth.run.train import train_models
from lesionsynth.trial.cells import Arm, Cell
from lesionsynth.trial.measures import auprc, best_threshold, segmentation_measures
from lesionsynth.trial.plan import IGNORED, Plan, Scan, make_plan, on_own_grid, prepared, read_scan
from lesionsynth.trial.spec import TrialSpec


def run_cell(
    cell: Cell,
    arm: Arm,
    cohort: Cohort,
    spec: TrialSpec,
    preset: str,
    output: Path,
    key: str,
    device: str,
    threads: int,
) -> dict[str, Any]:
    """Train and test one network; what came out is written to `output`/cells, whole or not at all.

    Parameters
    ----------
    cell : Cell
    arm : Arm
    cohort : Cohort
        The whole input.
    spec : TrialSpec
    preset : str
        Of the models that the recipe needs and that are not there.
    output : Path
    key : str
        Of all that the cell depends on.
    device : str
        auto, cpu, cuda or cuda:i.
    threads : int

    Returns
    -------
    dict
        As written; with `failed` where the recipe could make nothing of these subjects.
    """
    from lesionsynth.generative.training import Place, forget, open_torch_device, seed_weights, train
    from lesionsynth.trial.segment import SegmentationTask

    _require_lesions(cell, cohort)
    folder = output / "work" / cell.name
    _clear_other(folder, key)
    seconds = {}
    started = time.perf_counter()
    told: dict[str, Any] = {"key": key, **asdict(cell), "synthetic": 0, "rows": []}
    synthetic: list[CaseFiles] = []
    if arm.recipe is not None:
        try:
            synthetic = synthesised(arm.recipe, cell, cohort, folder, preset, device, threads)
        except (OutputError, DeviceError):
            raise  # of no recipe alone
        except LesionsynthError as error:
            told["failed"] = str(error)
            return _written(told, output, cell, folder)
        seconds["synthesis"] = time.perf_counter() - started
    started = time.perf_counter()
    real = [read_scan(files, cohort) for files in of_subjects(cohort, cell.train)]
    plan = make_plan(real, cohort.channels, spec)
    validation = [read_scan(files, cohort) for files in of_subjects(cohort, cell.validation)]
    own = spec.model_copy(update={"seed": cell.seed})
    place = Place(folder, open_torch_device(device, threads), "cell")
    seed_weights(own, place, SegmentationTask.name)
    task = SegmentationTask(
        own,
        plan,
        [prepared(scan, plan) for scan in real],
        [prepared(read_scan(files, cohort), plan) for files in synthetic],
        [prepared(scan, plan) for scan in validation],
        arm.share,
        place.device,
        arm.prototype,
    )
    trained = train(task, own, place, Unheard(), key)
    seconds["training"] = time.perf_counter() - started
    started = time.perf_counter()
    known = [_segmented(task, plan, scan) for scan in validation]
    threshold = best_threshold(known)
    told["rows"] = [
        _tested(task, plan, read_scan(files, cohort), threshold) for files in of_subjects(cohort, cell.test)
    ]
    seconds["testing"] = time.perf_counter() - started
    told |= {
        "synthetic": len(synthetic),
        "threshold": threshold,
        "best_update": trained.steps,
        "validation_dice": round(trained.measures["dice"], 6),
        "patch": list(plan.patch),
        "spacing_mm": list(plan.spacing_mm),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }
    forget(place, task.name)
    return _written(told, output, cell, folder)


def _tested(task: Any, plan: Plan, scan: Scan, threshold: float) -> dict[str, Any]:
    """A test case and its measures, at one half and at the validation threshold."""
    probability, truth = _segmented(task, plan, scan, flat=False)
    values: dict[str, float | None] = {"auprc": auprc(*_flat(probability, truth, scan))}
    for suffix, limit in (("", 0.5), ("_at_val", threshold)):
        found = (probability >= limit) & (scan.classes != IGNORED)
        measures = segmentation_measures(found, truth, scan.grid.spacing_mm)
        values |= {f"{name}{suffix}": value for name, value in measures.items()}
    return {"case": scan.files.case, "subject": scan.files.subject, "values": values}


def _written(told: dict[str, Any], output: Path, cell: Cell, folder: Path) -> dict[str, Any]:
    nifti.write_bytes(output / "cells" / f"{cell.name}.json", (json.dumps(told, indent=1) + "\n").encode())
    shutil.rmtree(folder, ignore_errors=True)
    return told


def _clear_other(folder: Path, key: str) -> None:
    """Remove what a cell with another key has left when it was stopped; one with this key goes on."""
    note = folder / "key"
    if not note.is_file() or note.read_text() != key:
        shutil.rmtree(folder, ignore_errors=True)
        nifti.write_bytes(note, key.encode())


def _require_lesions(cell: Cell, cohort: Cohort) -> None:
    """Refuse a test in which there is nothing to find.

    Raises
    ------
    InputError
    """
    cases = of_subjects(cohort, cell.test)
    if not any(
        np.isin(read_label(files.case, files.label, cohort.labels)[1], cohort.labels.lesion).any()
        for files in cases
    ):
        raise InputError(
            f"none of the {len(cases)} test cases of fold {cell.fold} has a lesion.",
            file=cohort.root,
            remedy="Test on other folds (--folds), or make others (folds.count, a splits_final.json).",
        )


def of_subjects(cohort: Cohort, subjects: Sequence[str]) -> list[CaseFiles]:
    """Cases of these subjects, in the order of the cohort."""
    return [files for files in cohort.cases if files.subject in subjects]


def _segmented(
    task: Any, plan: Plan, scan: Scan, flat: bool = True
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Probability and truth on the case's own grid; `flat`: of the voxels that count."""
    case = prepared(scan, plan)
    i, j, k = scan.classes.shape
    probability = on_own_grid(task.probability(case), case, (i, j, k))
    truth = scan.classes == 1
    return _flat(probability, truth, scan) if flat else (probability, truth)


def _flat(
    probability: NDArray[np.float32], truth: NDArray[np.bool_], scan: Scan
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    counted = scan.classes != IGNORED
    return probability[counted], truth[counted]


def synthesised(
    recipe: Recipe, cell: Cell, cohort: Cohort, folder: Path, preset: str, device: str, threads: int
) -> list[CaseFiles]:
    """Synthetic cases of the cell's training subjects, as if there were nobody else in the data set.

    Bank, likelihood map, loads and models are fitted on them alone.

    Raises
    ------
    LesionsynthError
        If the recipe can make nothing of them.
    """
    own = recipe.model_copy(
        update={
            "seed": int(stream(recipe.seed, "trial", cell.seed, cell.fold).integers(2**31)),
            "input": recipe.input.model_copy(update={"subjects": cell.train}),
            "folds": FoldSpec(strategy="none"),
            "output": recipe.output.model_copy(update={"originals": "omit"}),
        }
    )
    own = _with_models(own, cell, cohort, folder, preset, device, threads)
    outcome = session.run(own, cohort.root, folder / "synthetic", Unheard())
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


def _with_models(
    recipe: Recipe, cell: Cell, cohort: Cohort, folder: Path, preset: str, device: str, threads: int
) -> Recipe:
    """The recipe with models that have seen nobody of validation and test; trained here if there are none.

    Raises
    ------
    LeakError
        If a model that is given has seen one of them.
    """
    raw = resolved(recipe)
    for user, path, use in used(recipe):
        if path and Path(path).exists():
            files = sorted(Path(path).glob(f"*{SUFFIX}")) if Path(path).is_dir() else [Path(path)]
            for file in files:
                seen = people_of(read_card(file, use.kinds).subjects, recipe.input, cohort)
                leaked = sorted(seen & {*cell.test, *cell.validation} - set(cell.train))
                if leaked:
                    raise LeakError(
                        f"the model of {user} has seen {leaked[0]}, who is tested or validates here.",
                        file=file,
                        remedy="Remove it from the recipe's path: the trial then trains one for each cell.",
                    )
            continue
        kind = use.kinds[0]
        models = folder / "models" / user
        spec = SPECS[kind].model_validate({**SPECS[kind].presets[preset], **dict(use.config)})  # type: ignore[index]
        train_models(kind, spec, recipe, cohort.root, models, Unheard(), device=device, threads=threads)  # type: ignore[arg-type]
        group, name = user.split(".")
        raw[group][name][use.field] = str(models)
    return Recipe.model_validate(raw)
