"""A whole run, and its parts: prepare, plan, execute, replay."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

import lesionsynth
from lesionsynth import nifti
from lesionsynth.backend import open_device
from lesionsynth.bank.store import LesionBank
from lesionsynth.digest import digest_json
from lesionsynth.domain.case import Cohort, Split
from lesionsynth.errors import InputError, LeakError, LesionsynthError, OutputError
from lesionsynth.plugins.contracts import Donors, LayoutSpec
from lesionsynth.recipe.model import Recipe, resolved
from lesionsynth.run.cohort import open_cohort
from lesionsynth.run.finalize import LOCK, finalize, lock_text, place_original
from lesionsynth.run.fit import Fit, bank_key, build_bank, fit_blocks
from lesionsynth.run.folds import Block, find_splits, make_blocks
from lesionsynth.run.job import RECORDS, Done, HostJobs, Workspace, run_host, summary_of, write_case
from lesionsynth.run.plan import Job, make_plan, plan_lines
from lesionsynth.run.pool import Failure, Progress, run_all

PLAN = "plan.jsonl"
BANK = "bank"


@dataclass(frozen=True)
class Prepared:
    """A run before its first job."""

    space: Workspace
    splits: tuple[Split, ...]
    blocks: list[Block]
    fits: dict[str, Fit]
    jobs: list[Job]
    failures: list[Failure]


SHARES = 8
"""Shares of the copies for each worker, where hosts have so many copies that they must be divided."""


@dataclass
class Outcome:
    """What a run has made."""

    output: Path
    done: list[dict[str, Any]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    skipped: int = 0
    voxels: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    peak_mb: float = 0.0

    @property
    def shortfalls(self) -> list[dict[str, Any]]:
        """Cases whose load target was not met."""
        return [row for row in self.done if row["shortfall"]]


def prepare(recipe: Recipe, root: Path, output: Path, n_jobs: int, progress: Progress) -> Prepared:
    """Read the cohort, build the bank, fit the blocks and make the plan, all under `output`.

    Raises
    ------
    OutputError
        If `output` was made by another run; nothing in it is touched then.
    """
    layout, cohort, dropped = open_cohort(recipe.input, root)
    _check_classes(recipe, cohort)
    key = digest_json([bank_key(cohort, recipe), resolved(recipe), lesionsynth.__version__])
    previous = _read_lock(output)
    if previous is not None and previous.get("key") != key:
        raise OutputError(
            "the output folder was made with another recipe, input or version.",
            file=output,
            remedy="Choose another folder, or remove this one.",
        )
    for finding in dropped:
        progress.note(f"left out: {finding}")
    if isinstance(recipe.output.layout, LayoutSpec):
        layout = recipe.output.layout
    splits, why = find_splits(cohort, recipe.folds, recipe.seed)
    if recipe.folds.strategy == "none":
        why = "folds: none; everything is training data."
    progress.note(f"{len(cohort.cases)} cases of {len(cohort.subjects)} subjects; {why}")
    bank, failures = build_bank(cohort, recipe, output / BANK, n_jobs, progress)
    with bank:
        bad = {failure.name for failure in failures}
        for failure in failures:
            progress.note(f"left out: {failure.error}")
        cohort = replace(cohort, cases=tuple(c for c in cohort.cases if c.case not in bad))
        blocks = [
            replace(b, hosts=tuple(h for h in b.hosts if h not in bad))
            for b in make_blocks(cohort, recipe.folds, splits, recipe.output.copies)
        ]
        space = Workspace(recipe, cohort, layout, output / BANK, output, output, key)
        _check_donors(space, blocks, bank, progress)
        fits = fit_blocks(blocks, bank, cohort, recipe, output, n_jobs, progress)
        jobs = make_plan(recipe, cohort, blocks, fits, bank)
    return Prepared(space, splits, blocks, fits, jobs, failures)


def _check_classes(recipe: Recipe, cohort: Cohort) -> None:
    """Refuse sources of a label value that no lesion of the cohort can have: it would be written as one."""
    for name, source in recipe.sources.items():
        value = getattr(source, "lesion_class", None)
        if value is not None and value not in cohort.labels.lesion:
            raise InputError(
                f"lesion_class of the source {name} is {value}; the label values of lesions are "
                f"{', '.join(str(v) for v in cohort.labels.lesion)}.",
                file=cohort.root,
                remedy="Correct it in the recipe, or give the label the role lesion under `input.roles`.",
            )


def _check_donors(space: Workspace, blocks: list[Block], bank: LesionBank, progress: Progress) -> None:
    """Refuse a plan that the leak rule leaves without donors, before any voxel is written."""
    names = sorted({name for step in space.recipe.steps.values() for name in step.source_names()})
    used = [space.recipe.sources[name] for name in names]
    alone = []
    for block in blocks:
        donors = Donors(bank, block.subjects, mask_subjects=block.mask_subjects)
        for name, source in zip(names, used, strict=True):
            givers = source.donor_subjects(donors)
            if block.hosts and givers is not None and not givers:
                raise LeakError(
                    f"{block.name} ({len(block.subjects)} subjects, such as {block.subjects[0]}) holds no "
                    f"donor for the source {name} ({source.kind}).",
                    file=space.cohort.root,
                    remedy="Use fewer folds (folds.count), or folds.strategy per_fold or none; shapes of "
                    "subjects without images come from input.masks.",
                )
            if givers == frozenset(block.subjects[:1]) and len(block.subjects) == 1:
                alone.append(block.subjects[0])
    if alone:
        policies = [getattr(source, "own_subject", "allow") for source in used]
        if "forbid" in policies:
            raise LeakError(
                f"{alone[0]} is alone in its block, and own_subject is forbid: no donors are left.",
                remedy="Use fewer folds (folds.count), or folds.strategy per_fold or none.",
            )
        progress.note(
            f"{len(alone)} block(s) hold one subject only, such as {alone[0]}: its own lesions are its "
            "donors. Fewer folds, or folds.strategy per_fold or none, give others."
        )


def plan_only(recipe: Recipe, root: Path, n_jobs: int, progress: Progress) -> list[Job]:
    """The plan of a run; nothing is left on disk."""
    with tempfile.TemporaryDirectory(prefix="lesionsynth-") as folder:
        return prepare(recipe, root, Path(folder), n_jobs, progress).jobs


def check_output(root: Path, output: Path, marker: str = LOCK) -> None:
    """Refuse outputs inside the input, inputs inside the output, and folders that cannot be written.

    A folder that is not empty must hold `marker`, the file by which our own output is known.
    """
    inner, outer = output.resolve(), root.resolve()
    if inner == outer or inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise OutputError(
            "the output folder must not lie inside the input, nor the input inside it.",
            file=output,
            remedy="Choose a folder elsewhere.",
        )
    if output.exists() and not output.is_dir():
        raise OutputError("the output is a file; a folder was expected.", file=output)
    if output.is_dir() and any(output.iterdir()) and not (output / marker).is_file():
        raise OutputError(
            "the output folder holds other files.", file=output, remedy="Choose a new or an empty folder."
        )
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise OutputError(
            f"the output folder cannot be written ({error.strerror or error}).",
            file=output,
            remedy="Choose another folder or correct its permissions.",
        ) from None


@contextmanager
def _as_it_was_on_error(output: Path) -> Iterator[None]:
    """A run that cannot start leaves no new folder and no half-made output behind."""
    if output.is_dir() and any(output.iterdir()):
        yield
        return
    new = [folder for folder in (output, *output.parents) if not folder.exists()]
    try:
        yield
    except BaseException:
        for path in [new[-1]] if new else output.iterdir() if output.is_dir() else ():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.exists():
                path.unlink()
        raise


def run(
    recipe: Recipe, root: Path, output: Path, n_jobs: int, progress: Progress, device: str = "cpu"
) -> Outcome:
    """Make the data set.

    Parameters
    ----------
    recipe : Recipe
    root, output : Path
        Input and output folders. An output of the same recipe and input is continued.
    n_jobs : int
        Worker processes; the result does not depend on it.
    progress : Progress
    device : str
        auto, cpu, cuda or cuda:i (:func:`lesionsynth.backend.open_device`). Voxels made on a GPU equal those
        made on the CPU within the rounding of the stored dtype and a small tolerance.

    Raises
    ------
    LesionsynthError
        If the run cannot start; the output folder is then left as it was. Single cases that fail are
        listed in the outcome.
    """
    if not root.is_dir():
        raise InputError("the input folder does not exist.", file=root)
    progress.note(f"device: {open_device(device).name}")
    with _as_it_was_on_error(output):
        check_output(root, output)
        prepared = prepare(recipe, root, output, n_jobs, progress)
        space = replace(prepared.space, device=device, workers=n_jobs)
        prepared = replace(prepared, space=space)
        nifti.write_bytes(output / LOCK, lock_text(space, None))
        nifti.write_bytes(output / PLAN, plan_lines(prepared.jobs))
    outcome = Outcome(output, failures=list(prepared.failures))
    _execute(prepared, outcome, n_jobs, progress)
    if recipe.output.originals != "omit":
        items = [(c.case, (space, c)) for c in space.cohort.cases]
        for result in run_all(place_original, items, stage="originals", n_jobs=1, progress=progress):
            if isinstance(result, Failure):
                raise result.error
    outcome.voxels = finalize(space, prepared.splits, outcome.done)
    return outcome


def _read_lock(output: Path) -> dict[str, Any] | None:
    path = output / LOCK
    if not path.is_file():
        return None
    try:
        value = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError):
        value = None
    return value if isinstance(value, dict) else {}


def _execute(prepared: Prepared, outcome: Outcome, n_jobs: int, progress: Progress) -> None:
    """Run every job that has no record yet, all copies of a host together."""
    space = prepared.space
    pending: dict[str, list[Job]] = {}
    for job in prepared.jobs:
        record = _read_record(space, job.case)
        if record is not None and all((space.output / path).is_file() for path in record["hashes"]):
            outcome.done.append(summary_of(record))
            outcome.skipped += 1
        else:
            pending.setdefault(job.host, []).append(job)
    if outcome.skipped:
        progress.note(f"{outcome.skipped} cases are there already.")
    total = sum(len(jobs) for jobs in pending.values())
    # Copies of a host together, so that it is read once; several shares a worker, so that none idles long.
    share = total if n_jobs == 1 else max(1, math.ceil(total / (SHARES * n_jobs)))
    items = [
        (host, (space, space.cohort.case(host), tuple(jobs[start : start + share])))
        for host, jobs in pending.items()
        for start in range(0, len(jobs), share)
    ]
    totals = {"read": 0.0, "compute": 0.0, "write": 0.0}
    for result in run_all(
        run_host, items, stage="synthesise", n_jobs=n_jobs, progress=progress, weight=_cases_of, total=total
    ):
        if isinstance(result, Failure):
            if isinstance(result.error, OutputError):
                raise result.error  # a full or read-only disk fails every case alike
            outcome.failures.append(result)
            continue
        outcome.done.extend(result.cases)
        outcome.failures.extend(result.failures)
        totals = {stage: totals[stage] + result.seconds[stage] for stage in totals}
        outcome.peak_mb = max(outcome.peak_mb, result.peak_mb)
    outcome.seconds = totals
    outcome.done.sort(key=lambda row: str(row["case"]))
    outcome.failures.sort(key=lambda failure: failure.name)


def _cases_of(result: Done) -> int:
    return len(result.cases) + len(result.failures)


def _read_record(space: Workspace, case: str) -> dict[str, Any] | None:
    path = space.output / RECORDS / f"{case}.json"
    try:
        record: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return record


def replay(output: Path, case: str, target: Path, root: Path | None = None) -> list[Path]:
    """Make one output case again from its record.

    Parameters
    ----------
    output : Path
        Of an earlier run: its lock, bank, fits and record are used.
    case : str
        Synthetic case.
    target : Path
        Folder that the remade files go to.
    root : Path, optional
        The input, where it has moved.

    Returns
    -------
    list of Path
        The files, whose voxels equal those of the record.

    Raises
    ------
    LesionsynthError
        If anything needed is missing or the voxels differ.
    """
    lock = _read_lock(output)
    if not lock or "recipe" not in lock:
        raise InputError("this is no output of a run: it has no recipe.lock.yaml.", file=output)
    recipe = Recipe.model_validate(lock["recipe"])
    layout, cohort, _ = open_cohort(recipe.input, root or Path(str(lock["input"])))
    if isinstance(recipe.output.layout, LayoutSpec):
        layout = recipe.output.layout
    space = Workspace(recipe, cohort, layout, output / BANK, output, target, str(lock["key"]))
    record = _read_record(replace(space, output=output), case)
    if record is None:
        raise InputError(
            "there is no record of this case.",
            case=case,
            file=output / RECORDS,
            remedy="See manifest.csv for the cases.",
        )
    # Voxels are equal on one kind of device.
    space = replace(space, device=str(record.get("device", "cpu")).partition(":")[0])
    job = Job.from_json(record["job"])
    maker = HostJobs(space, cohort.case(job.host))
    if maker.host.source_hashes != record["inputs"]:
        raise InputError("its host's files have changed since.", case=case, file=cohort.root)
    files = maker.outputs(case, maker.remake(job, record))
    found = {path.as_posix(): image.slabs.digest for path, image in files.items()}
    if found != record["hashes"]:
        raise LesionsynthError(
            "the remade voxels differ from the record's.",
            case=case,
            file=output,
            remedy="Compare the versions in recipe.lock.yaml with those installed.",
        )
    write_case(space, files, record)
    return [target / path for path in files]
