"""Training cases with fewer lesions than they have, to see what helps where lesions are rare."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lesionsynth.api import Sample, Synthesis
from lesionsynth.domain.case import CaseFiles, Cohort
from lesionsynth.domain.grid import Grid
from lesionsynth.errors import NoLesionError
from lesionsynth.layouts.dataset_json import DESCRIPTION
from lesionsynth.recipe.model import InputSpec, Recipe
from lesionsynth.run.cohort import open_cohort
from lesionsynth.trial.cells import Cell, of_subjects
from lesionsynth.trial.plan import read_scan
from lesionsynth.trial.raw import write_case, write_description
from lesionsynth.units import MM3_PER_ML, voxel_volume_mm3

_TOLERANCE = 0.05


def thinned(
    cell: Cell, cohort: Cohort, given: InputSpec, prevalence: float, folder: Path
) -> tuple[InputSpec, Cohort]:
    """Training and validation cases of a cell with some of their lesions removed, as a data set of its own.

    Lesions are taken out of each case, and their places filled, until the others are not more than this share
    of what is not 0 in its image: first those that are more of it alone, then in random order. Other voxels,
    and test cases, stay as they are.

    Parameters
    ----------
    cell : Cell
    cohort : Cohort
    given : InputSpec
        By which it was read.
    prevalence : float
        Share, such as 0.005.
    folder : Path
        Where the data set goes.

    Returns
    -------
    (InputSpec, Cohort)
        How it is read, and itself: subjects, channels and labels are as before.

    Raises
    ------
    NoLesionError
        If no training case, or no validation case, has a lesion left.
    """
    data = folder / "data"
    if not (data / DESCRIPTION).is_file():  # written last; a stopped cell goes on with the very files it had
        _write(cell, cohort, given, prevalence, folder / "work", data)
    spec = InputSpec(subject=r"(.*)__scan\d+", roles=dict(cohort.labels.roles))
    _, thin, _ = open_cohort(spec, data)
    for side, who in (("training", cell.train), ("validation", cell.validation)):
        if not any((read_scan(files, thin).classes == 1).any() for files in of_subjects(thin, who)):
            raise NoLesionError(
                f"with lesions in no more than {100 * prevalence:g} % of a case, none of the {side} cases "
                f"({', '.join(who[:3])}{', ...' if len(who) > 3 else ''}) has one.",
                file=cohort.root,
                remedy="Their smallest lesions are larger: give a larger share with --rare.",
            )
    return spec, thin


def _write(cell: Cell, cohort: Cohort, given: InputSpec, prevalence: float, work: Path, data: Path) -> None:
    count = 0
    for subject in sorted({*cell.train, *cell.validation}):
        for number, files in enumerate(of_subjects(cohort, [subject])):
            sample = _thinned(files, cohort, given, prevalence, work / files.case)
            i, j, k = sample.label.shape
            grid = Grid((i, j, k), sample.affine)
            write_case(data, "Tr", f"{subject}__scan{number}", sample.image, sample.label, grid)
            count += 1
    write_description(data, cohort.channels, cohort.labels.values, count)


def _thinned(files: CaseFiles, cohort: Cohort, given: InputSpec, prevalence: float, work: Path) -> Sample:
    scan = read_scan(files, cohort)
    volume_ml = np.count_nonzero(scan.image.any(axis=0)) * voxel_volume_mm3(scan.grid.spacing_mm) / MM3_PER_ML
    load = {"kind": "fixed", "ml": prevalence * volume_ml / (1 + _TOLERANCE), "tolerance": _TOLERANCE}
    step = {"kind": "inpaint", "load": load}
    recipe = Recipe.model_validate({"input": given.model_dump(), "steps": {"thin": step}})
    return Synthesis(recipe, cohort.root, work, subjects=[files.subject]).copy(files.case, 0)
