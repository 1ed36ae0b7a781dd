"""The two sides of a comparison: a real data set, and what is said to look like it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lesionsynth.domain.case import CaseFiles, Cohort
from lesionsynth.errors import InputError
from lesionsynth.json_file import read_json
from lesionsynth.plugins.contracts import FillSpec, LayoutSpec
from lesionsynth.qc.audit_evidence import Record, part_of
from lesionsynth.qc.audit_scope import SOURCE_MAPS, Scope
from lesionsynth.qc.realism.copies import CopyFiles
from lesionsynth.qc.realism.lesions import Way
from lesionsynth.recipe.load import load_recipe, recipe_of
from lesionsynth.recipe.model import Recipe
from lesionsynth.rng import stream
from lesionsynth.run.cohort import open_cohort
from lesionsynth.run.plan import host_of
from lesionsynth.run.workspace import LOCK, RECORDS, read_lock

_DEFAULT = "lesionmix"
_ANOTHER = "Give the data set that the output was made of."


@dataclass(frozen=True)
class Sides:
    """What is compared.

    Parameters
    ----------
    recipe : Recipe
    cohort : Cohort
        The real data set, without cases.
    synthetic : Path
    real : list of CaseFiles
        Cases that are looked at, at most `realism.cases`.
    copies : list of CopyFiles or None
        Synthetic cases of a run's output that are looked at; None of a plain data set.
    plain : list of CaseFiles
        Cases of a plain data set that are looked at.
    plain_cohort : Cohort or None
    n_real, n_synthetic : int
        Cases that there are.
    rim_vox : int
        By how much fills were grown.
    notes : list of str
    """

    recipe: Recipe
    cohort: Cohort
    synthetic: Path
    real: list[CaseFiles]
    copies: list[CopyFiles] | None
    plain: list[CaseFiles]
    plain_cohort: Cohort | None
    n_real: int
    n_synthetic: int
    rim_vox: int
    notes: list[str]

    def way(self, n_cases: int, synthetic: bool = False) -> Way:
        """How cases of one side are read, and how many lesions of each."""
        recipe = self.recipe
        cohort = self.plain_cohort if synthetic and self.plain_cohort is not None else self.cohort
        # More than the classifier is given, since cases differ in how many they have.
        most = max(10, 3 * recipe.realism.lesions // max(1, n_cases))
        return Way(cohort, recipe.tissue, recipe.bank, recipe.seed, most)


def open_sides(real: Path, synthetic: Path, recipe: Recipe | None, overrides: Sequence[str] = ()) -> Sides:
    """Find the cases of both sides, and choose those that are looked at.

    Parameters
    ----------
    real, synthetic : Path
    recipe : Recipe, optional
        By default the one in the lock of `synthetic`; of a plain data set, `lesionmix`.
    overrides : sequence of str
        For the recipe of the lock.

    Raises
    ------
    InputError
        If one of the two is no data set, or they do not belong together.
    """
    if not synthetic.is_dir():
        raise InputError("the synthetic data set's folder does not exist.", file=synthetic)
    lock, notes = read_lock(synthetic), []
    if recipe is None:
        recipe = _recipe_of(lock, synthetic, overrides)
    layout, cohort, dropped = open_cohort(recipe.input, real)
    notes += [f"left out: {finding}" for finding in dropped]
    alone = replace(cohort, cases=(), masks=(), splits=None)
    order = [cohort.cases[k] for k in stream(recipe.seed, "realism", "cases").permutation(len(cohort.cases))]
    chosen = order[: recipe.realism.cases]
    if lock is None:
        return _plain(recipe, alone, synthetic, chosen, len(cohort.cases), notes)
    if isinstance(recipe.output.layout, LayoutSpec):
        layout = recipe.output.layout
    scope = Scope(synthetic.absolute(), recipe, alone, layout)
    recorded = _recorded(scope, cohort)
    labels = {files.case: files.label for files in cohort.cases}
    copies: list[CopyFiles] = []
    for host in order:
        for case in recorded.get(host.case, ()):
            if len(copies) < recipe.realism.cases:
                copies.append(copy_files(scope, host, case, labels))
    chosen.sort(key=lambda files: files.case)
    copies.sort(key=lambda copy: copy.case)
    total = sum(map(len, recorded.values()))
    rim = rim_vox(recipe)
    return Sides(recipe, alone, synthetic, chosen, copies, [], None, len(cohort.cases), total, rim, notes)


def _recipe_of(lock: dict[str, Any] | None, synthetic: Path, overrides: Sequence[str]) -> Recipe:
    if lock is None:
        return load_recipe(_DEFAULT, overrides)
    if not isinstance(lock.get("recipe"), dict):
        raise InputError(
            "the lock holds no recipe: the run was not planned to its end.",
            file=synthetic / LOCK,
            remedy="Run the same command again, or give --recipe.",
        )
    return recipe_of(lock["recipe"], synthetic / LOCK, overrides)


def _plain(
    recipe: Recipe, alone: Cohort, synthetic: Path, chosen: list[CaseFiles], n_real: int, notes: list[str]
) -> Sides:
    """A data set that no run has made: every lesion of it counts as synthetic."""
    _, cohort, dropped = open_cohort(recipe.input, synthetic)
    if cohort.channels != alone.channels:
        raise InputError(
            f"the synthetic data set has the channels {', '.join(cohort.channels)}; the real one has "
            f"{', '.join(alone.channels)}.",
            file=synthetic,
            remedy="Give two data sets with the same channels in the same order.",
        )
    order = stream(recipe.seed, "realism", "cases").permutation(len(cohort.cases))[: recipe.realism.cases]
    notes = [*notes, *(f"left out: {finding}" for finding in dropped)]
    notes.append(
        "no output of a run: every lesion counts as synthetic, and hosts, donors and fills are unknown"
    )
    other = replace(cohort, cases=(), masks=(), splits=None)
    plain = sorted((cohort.cases[k] for k in order), key=lambda files: files.case)
    chosen.sort(key=lambda files: files.case)
    return Sides(recipe, alone, synthetic, chosen, None, plain, other, n_real, len(cohort.cases), 0, notes)


def _recorded(scope: Scope, cohort: Cohort) -> dict[str, list[str]]:
    """Synthetic cases that have a record, by host."""
    known = {files.case for files in cohort.cases}
    found: dict[str, list[str]] = {}
    for path in sorted((scope.output / RECORDS).glob("*.json")):
        host = host_of(path.stem)
        if host is None or host not in known:
            raise InputError(
                "is the record of a case whose host is not in the real data set.",
                case=path.stem,
                file=path,
                remedy=_ANOTHER,
            )
        found.setdefault(host, []).append(path.stem)
    if not found:
        raise InputError(
            "the output holds no synthetic case.",
            file=scope.output / RECORDS,
            remedy="Run the command that makes them first.",
        )
    return found


def copy_files(scope: Scope, host: CaseFiles, case: str, labels: Mapping[str, Path]) -> CopyFiles:
    """Where a synthetic case lies.

    Parameters
    ----------
    scope : Scope
    host : CaseFiles
    case : str
        It has a record.
    labels : mapping of str to Path
        Label map of every real case.

    Raises
    ------
    InputError
        If its record cannot be read or is another case's.
    """
    paths = [scope.output / name for name in scope.files_of(host, case, synthetic=True)]
    n = len(scope.cohort.channels)
    files = CaseFiles(host.case, host.subject, tuple(paths[:n]), paths[n])
    source = scope.output / SOURCE_MAPS / f"{case}{scope.cohort.file_ending}"
    record = scope.output / RECORDS / f"{case}.json"
    content = part_of(Record, read_json(record), record)
    if content.host.case != host.case:
        raise InputError(
            f"names the host {content.host.case}, not {host.case}.", case=case, file=record, remedy=_ANOTHER
        )
    cases = {donor.case for donor in content.donors}
    donors = {name: labels[name] for name in sorted(cases) if name in labels}
    return CopyFiles(case, host, files, record, donors, source if source.is_file() else None)


def rim_vox(recipe: Recipe) -> int:
    """By how much the recipe's fills grow a lesion; 0 where nothing is filled."""
    parts = [getattr(step, name) for step in recipe.steps.values() for name in type(step).model_fields]
    return max((part.grow_vox for part in parts if isinstance(part, FillSpec)), default=0)
