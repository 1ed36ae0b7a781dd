"""A trial with nnU-Net v2, which runs by itself: data sets and commands for it, and what it has found.

Under `nnunet` in the output lie `raw`, a data set for each cell, `commands`, a script for each, and what
these make: `preprocessed`, `results`, `predicted`. Label maps have the classes of :data:`CLASSES`, images are
float32 on the grid of the label map, so that whatever lesionsynth reads can be trained on.
"""

from __future__ import annotations

import json
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lesionsynth import nifti
from lesionsynth.domain.case import CaseFiles, Cohort
from lesionsynth.errors import (
    DeviceError,
    InputError,
    LesionsynthError,
    NoLesionError,
    OutputError,
    RecipeError,
)
from lesionsynth.json_file import read_json
from lesionsynth.layouts.nnunet import NnUNet
from lesionsynth.run.cohort import SPLITS
from lesionsynth.trial.arms import Arm
from lesionsynth.trial.cell import Found, outcome_of, work_of, written
from lesionsynth.trial.cells import Cell, Setting, of_subjects
from lesionsynth.trial.compare import NONE
from lesionsynth.trial.plan import IGNORED, Scan, make_plan, read_scan
from lesionsynth.trial.raw import write_case, write_description
from lesionsynth.trial.supply import recipe_for, synthesised, train_on_of

CLASSES = {"background": 0, "lesion": 1, "ignore": IGNORED}
TRAINERS = re.compile(r"nnUNetTrainer\w*")
"""Names of its ways to train, such as nnUNetTrainer_250epochs."""
_CONFIGURATION = "3d_fullres"
_HOME = "nnunet"
_MOST_SETS = 999
_MOST_REPEATS = 100
_MOST_LISTED = 100_000
"""Names in the list of a split."""
_MOST_OFF = 0.01
"""So far a share may be from what was asked for."""
_DAMAGED = (
    OSError, ValueError, KeyError, IndexError, TypeError, EOFError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
_PLANS, _SHARED = "nnUNetPlans", "nnUNetPlansOfNone"
_SCRIPT_START = """\
#!/usr/bin/env bash
# {name}. Needs nnU-Net 2.6 or later; DEVICE=cpu where there is no GPU.
# All arms of a group follow the plan of the one without synthetic data: run that one first.
set -euo pipefail
here="$(cd "$(dirname "${{BASH_SOURCE[0]}}")/.." && pwd)"
export nnUNet_raw="$here/raw"
export nnUNet_preprocessed="$here/preprocessed"
export nnUNet_results="$here/results"
device="${{DEVICE:-cuda}}"
"""
_OWN_PLAN = """\
nnUNetv2_plan_and_preprocess -d {number} -c {configuration} --verify_dataset_integrity
"""
_PLAN_OF_NONE = """\
nnUNetv2_extract_fingerprint -d {number} --verify_dataset_integrity
nnUNetv2_move_plans_between_datasets -s {none} -t {number} -sp {own} -tp {plans}
cp "$nnUNet_raw/{name}/dataset.json" "$nnUNet_preprocessed/{name}/"
nnUNetv2_preprocess -d {number} -c {configuration} -plans_name {plans}
"""
_SCRIPT_END = """\
cp "$nnUNet_raw/{name}/splits_final.json" "$nnUNet_preprocessed/{name}/"
nnUNetv2_train {number} {configuration} 0 -tr {trainer} -p {plans} --npz -device "$device"
nnUNetv2_predict -d {number} -c {configuration} -f 0 -tr {trainer} -p {plans} --save_probabilities \\
  -device "$device" -i "$nnUNet_raw/{name}/imagesTs" -o "$here/predicted/{name}"
"""


@dataclass(frozen=True)
class DataSet:
    """Where nnU-Net finds a cell and leaves what comes of it.

    Parameters
    ----------
    home : Path
        Folder of all of them.
    cell : str
        Name of the cell.
    number, of_none : int
        Its number, and that of the arm without synthetic data of its group, whose plan all arms share.
    trainer : str
        nnU-Net's name of a way to train.
    """

    home: Path
    cell: str
    number: int
    of_none: int
    trainer: str

    @property
    def name(self) -> str:
        """As nnU-Net calls it."""
        return f"Dataset{self.number:03d}_{re.sub('[^A-Za-z0-9.-]', '_', self.cell)}"

    @property
    def plans(self) -> str:
        """Name of the plan it is trained by."""
        return _PLANS if self.number == self.of_none else _SHARED

    @property
    def raw(self) -> Path:
        """Its images and labels."""
        return self.home / "raw" / self.name

    @property
    def script(self) -> Path:
        """The commands."""
        return self.home / "commands" / f"{self.cell}.sh"

    @property
    def validated(self) -> Path:
        """Where the training leaves the probabilities of validation cases."""
        model = f"{self.trainer}__{self.plans}__{_CONFIGURATION}"
        return self.home / "results" / self.name / model / "fold_0" / "validation"

    @property
    def predicted(self) -> Path:
        """Where the probabilities of test cases go."""
        return self.home / "predicted" / self.name

    def note(self) -> dict[str, Any]:
        """Key, number of synthetic cases and validation cases of what is written; nothing if not whole."""
        path = self.raw / "cell.json"
        try:
            note = read_json(path) if path.is_file() else {}
        except LesionsynthError:
            return {}
        return note if isinstance(note, dict) and note.keys() == {"key", "synthetic", "validation"} else {}

    def note_down(self, note: dict[str, Any]) -> None:
        """Write the note, last of all."""
        nifti.write_bytes(self.raw / "cell.json", json.dumps(note).encode())

    def clear(self) -> None:
        """Make room for a data set of other cases or another recipe.

        Raises
        ------
        OutputError
            If nnU-Net has been trained on the one that is there.
        """
        for folder in (self.home / "results" / self.name, self.predicted):
            if folder.exists():
                raise OutputError(
                    "nnU-Net was trained for this cell on other data or by another recipe than now.",
                    file=folder,
                    remedy="Give another folder for this trial, or remove this one to train the cell again.",
                )
        for name in ("raw", "preprocessed"):
            shutil.rmtree(self.home / name / self.name, ignore_errors=True)


def data_sets(cells: Sequence[Cell], output: Path, trainer: str) -> dict[str, DataSet]:
    """A data set for each cell; those of an earlier call keep their numbers.

    Raises
    ------
    InputError
        If there are more cells than nnU-Net has numbers.
    """
    home = output / _HOME
    file = home / "numbers.json"
    numbers = read_json(file) if file.is_file() else {}
    if not isinstance(numbers, dict) or not all(isinstance(n, int) for n in numbers.values()):
        raise InputError(
            "does not say which cell has which number.",
            file=file,
            remedy="Begin in a new folder, or make it good again: names of cells, and numbers of data sets.",
        )
    for cell in cells:
        numbers.setdefault(cell.name, max(numbers.values(), default=0) + 1)
    if max(numbers.values()) > _MOST_SETS:
        raise InputError(
            f"these are {max(numbers.values())} networks; nnU-Net has numbers for {_MOST_SETS} data sets.",
            file=output,
            remedy="Use fewer arms, fractions, seeds or folds, or several folders.",
        )
    nifti.write_bytes(file, (json.dumps(numbers, indent=1) + "\n").encode())
    of_none = {cell.group: numbers[cell.name] for cell in cells if cell.arm == NONE}
    return {
        cell.name: DataSet(home, cell.name, numbers[cell.name], of_none[cell.group], trainer)
        for cell in cells
    }


def run_cell(cell: Cell, arm: Arm, setting: Setting, key: str, place: DataSet) -> dict[str, Any]:
    """Write what nnU-Net needs for a cell, or read what it has found, as :func:`trial.cell.run_cell` does.

    Returns
    -------
    dict
        What came out; with `waiting`, the script to run, where nnU-Net has not done all of it.
    """
    cohort, output = setting.cohort, setting.output
    told: dict[str, Any] = {"key": key, **asdict(cell), "synthetic": 0, "rows": []}
    note = place.note()
    if note.get("key") != key:
        place.clear()
        work = work_of(output, cell)
        shutil.rmtree(work, ignore_errors=True)
        try:
            given, train_on = train_on_of(cell, setting, work)
            real = [read_scan(files, train_on) for files in of_subjects(train_on, cell.train)]
            make_plan(real, train_on.channels, setting.spec)  # refuses what the built-in network does
            _require_volumes(real, cohort)
        except NoLesionError as error:
            return written(told | {"failed": str(error)}, output, cell)
        made = []
        try:
            if arm.recipe is not None:
                own = recipe_for(arm.recipe, cell, given, train_on, setting, work)
                made = synthesised(own, train_on, work)
            times = repeats(len(real), len(made), arm.share)
        except (OutputError, DeviceError):
            raise  # of no recipe alone
        except LesionsynthError as error:
            return written(told | {"failed": str(error)}, output, cell)
        validation = _write(cell, made, times, train_on, setting, place)
        note = {"key": key, "synthetic": len(made), "validation": validation}
        place.note_down(note)
        shutil.rmtree(work, ignore_errors=True)
    ours = NnUNet().scan(place.raw).cohort
    checked = [files for files in ours.cases if files.case in note["validation"]]
    tested = of_subjects(cohort, cell.test)
    if not all(_npz(place.predicted, files).is_file() for files in tested) or not all(
        _npz(place.validated, files).is_file() for files in checked
    ):
        return told | {"waiting": str(place.script)}
    told |= {"synthetic": note["synthetic"], "seconds": {}, "trainer": place.trainer}
    told |= outcome_of(_found(checked, ours, place.validated), _found(tested, cohort, place.predicted))
    return written(told, output, cell)


def _require_volumes(scans: Sequence[Scan], cohort: Cohort) -> None:
    """Refuse single slices, for which nnU-Net plans nothing in three dimensions.

    Raises
    ------
    InputError
    """
    if all(1 in scan.classes.shape for scan in scans):
        raise InputError(
            f"the training cases are single slices, for which nnU-Net has no {_CONFIGURATION}.",
            file=cohort.root,
            remedy="Leave out --trainer: the built-in network is trained on slices too.",
        )


def _npz(folder: Path, files: CaseFiles) -> Path:
    return folder / f"{files.case}.npz"


def _found(cases: Sequence[CaseFiles], cohort: Cohort, folder: Path) -> Iterator[Found]:
    """Cases and nnU-Net's probability of a lesion, whose axes are (class, k, j, i).

    Raises
    ------
    InputError
        If a file cannot be read, or is of another grid.
    """
    for files in cases:
        scan, path = read_scan(files, cohort), _npz(folder, files)
        try:
            with np.load(path, allow_pickle=False) as stored:
                found = np.asarray(stored["probabilities"])[CLASSES["lesion"]].T
        except _DAMAGED:
            found = np.empty(0)
        if found.shape != scan.classes.shape or not np.isfinite(found).all():
            raise InputError(
                "is not nnU-Net's file of probabilities for this case.",
                case=files.case,
                file=path,
                remedy="Remove it and predict again, with the last command of the cell's script.",
            )
        yield scan, np.ascontiguousarray(found, dtype=np.float32)


def _write(
    cell: Cell,
    made: Sequence[CaseFiles],
    times: tuple[int, int],
    train_on: Cohort,
    setting: Setting,
    place: DataSet,
) -> list[str]:
    """Images, labels, description, split and script of a cell; its validation cases.

    `times` is how often each real and each synthetic case is listed, see :func:`repeats`.
    """
    train, validation = (of_subjects(train_on, side) for side in (cell.train, cell.validation))
    others = [*made, *(files for files in validation if files not in train)]
    for files in (*train, *others):
        scan = read_scan(files, train_on)
        write_case(place.raw, "Tr", files.case, scan.image, scan.classes, scan.grid)
    for files in of_subjects(setting.cohort, cell.test):
        scan = read_scan(files, setting.cohort)
        write_case(place.raw, "Ts", files.case, scan.image, scan.classes, scan.grid)
    labels = {k: v for k, v in CLASSES.items() if k != "ignore" or train_on.labels.of_role("ignore")}
    write_description(place.raw, train_on.channels, labels, len(train) + len(others))
    split = {
        "train": [files.case for files in train] * times[0] + [files.case for files in made] * times[1],
        "val": [files.case for files in validation],
    }
    nifti.write_bytes(place.raw / SPLITS, json.dumps([split], indent=1).encode())
    nifti.write_bytes(place.script, commands(place).encode())
    place.script.chmod(0o755)
    return split["val"]


def repeats(real: int, synthetic: int, share: float) -> tuple[int, int]:
    """How often each real and each synthetic case is listed for `share` of the draws to be synthetic.

    nnU-Net draws from the list of a split, a case named twice twice as often (2.6 and later).

    Raises
    ------
    RecipeError
        If no list of up to 100 000 names comes within 0.01 of the share.
    """
    if not synthetic or share == 0:
        return 1, 0
    if share == 1:
        return 0, 1
    wanted = share / (1 - share) * real / synthetic  # synthetic repeats for one real
    counts = range(1, _MOST_REPEATS + 1)
    pairs = {(a, round(a * wanted)) for a in counts} | {(round(b / wanted), b) for b in counts}

    def off(pair: tuple[int, int]) -> float:
        return abs(pair[1] * synthetic / (pair[1] * synthetic + pair[0] * real) - share)

    listed = [p for p in pairs if min(p) > 0 and p[0] * real + p[1] * synthetic <= _MOST_LISTED]
    best = min(listed, key=lambda p: (round(off(p), 3), sum(p), p), default=(1, 1))
    if off(best) > _MOST_OFF:
        raise RecipeError(
            f"nnU-Net cannot be given {synthetic} synthetic cases beside {real} real ones with a share of "
            f"{share:g}.",
            remedy="Take a share that is nearer to their numbers: training.share, --shares.",
        )
    return best


def commands(place: DataSet) -> str:
    """The script that trains and predicts a cell."""
    planned = _OWN_PLAN if place.number == place.of_none else _PLAN_OF_NONE
    return (_SCRIPT_START + planned + _SCRIPT_END).format(
        name=place.name,
        number=place.number,
        none=place.of_none,
        trainer=place.trainer,
        plans=place.plans,
        own=_PLANS,
        configuration=_CONFIGURATION,
    )
