"""A whole run, or a shard of one, and what comes after: execute, retry, finalize, replay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lesionsynth.backend import open_device
from lesionsynth.errors import InputError, LesionsynthError, NoRoomError, OutputError
from lesionsynth.plugins.contracts import LayoutSpec
from lesionsynth.recipe.model import Recipe, resolved
from lesionsynth.run.cohort import open_cohort, require_folder
from lesionsynth.run.finalize import finalize, place_original, refuse_changed
from lesionsynth.run.folder import as_it_was_on_error, check_output
from lesionsynth.run.job import Done, HostJobs, Way, run_share, summary_of, write_case
from lesionsynth.run.ledger import failures, forget_failures, note_failure, read_record, split_by_state
from lesionsynth.run.machine import bounded
from lesionsynth.run.plan import Job
from lesionsynth.run.pool import ALONE, Engine, Failure, Progress, WorkerDiedError, run_all
from lesionsynth.run.prepare import Prepared, prepare, read_prepared
from lesionsynth.run.shard import Shard
from lesionsynth.run.stage import staged
from lesionsynth.run.workspace import (
    BANK,
    LOCK,
    RECORDS,
    Workspace,
    kept_recipe,
    no_output,
    plan_digest,
    read_lock,
)

SHARES = 8
"""Shares of the copies for each worker, where hosts have so many copies that they must be divided."""


@dataclass
class Outcome:
    """What a run has made.

    `voxels` is the digest of all synthetic voxels, empty where the run was a shard.
    """

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


def run(
    recipe: Recipe,
    root: Path,
    output: Path,
    progress: Progress,
    engine: Engine = ALONE,
    device: str = "cpu",
    update: bool = False,
    work: Path | None = None,
) -> Outcome:
    """Make the data set.

    Parameters
    ----------
    recipe : Recipe
    root, output : Path
        Input and output folders. An output of the same recipe and input is continued.
    progress : Progress
    engine : Engine
        Who works; the result does not depend on it.
    device : str
        auto, cpu, cuda or cuda:i (:func:`lesionsynth.backend.open_device`). Voxels made on a GPU equal those
        made on the CPU within the rounding of the stored dtype and a small tolerance.
    update : bool
        See :func:`lesionsynth.run.prepare.prepare`.
    work : Path, optional
        Folder of a fast disk that bank and maps are copied to (:func:`lesionsynth.run.stage.staged`).

    Raises
    ------
    LesionsynthError
        If the run cannot start; the output folder is then left as it was. Single cases that fail are
        listed in the outcome.
    """
    progress.note(f"device: {open_device(device).name}")
    prepared = plan(recipe, root, output, progress, engine, update)
    outcome = _execute(prepared, prepared.jobs, progress, engine, device, work)
    complete(prepared, outcome, progress)
    return outcome


def plan(
    recipe: Recipe,
    root: Path,
    output: Path,
    progress: Progress,
    engine: Engine = ALONE,
    update: bool = False,
) -> Prepared:
    """Everything but the synthetic cases, in the output folder: bank, maps, plan; what shards start from."""
    require_folder(root)
    # Workers and later shards may be elsewhere.
    root, output = root.absolute(), output.absolute()
    with as_it_was_on_error(output):
        check_output(root, output)
        return prepare(recipe, root, output, progress, engine, update)


def run_shard(
    recipe: Recipe,
    root: Path,
    output: Path,
    shard: Shard,
    progress: Progress,
    engine: Engine = ALONE,
    device: str = "cpu",
    work: Path | None = None,
) -> Outcome:
    """Make one shard's part of a planned run; nothing is merged.

    Raises
    ------
    OutputError
        If there is no plan, or it is that of another recipe or input folder.
    """
    progress.note(f"device: {open_device(device).name}")
    prepared = read_prepared(output.absolute())
    space = prepared.space
    if resolved(space.recipe) != resolved(recipe) or space.cohort.root.resolve() != root.resolve():
        raise OutputError(
            "was planned with another recipe or input folder.",
            file=output,
            remedy="Give the recipe, overrides and input of `lesionsynth plan`, or plan again with --update.",
        )
    mine = shard.part(prepared.jobs)
    progress.note(f"shard {shard}: {len(mine)} of {len(prepared.jobs)} cases")
    return _execute(prepared, mine, progress, engine, device, work)


def merge(output: Path, progress: Progress) -> Outcome:
    """Describe what the shards of a run have made: originals, splits, manifest, lock.

    Cases that are missing are failures of the outcome, with the reason where one was noted.
    """
    prepared = read_prepared(output.absolute())
    outcome = Outcome(output, failures=_left_out(prepared))
    done, pending = split_by_state(output, prepared.jobs)
    outcome.done = [summary_of(record) for record in done]
    noted = {str(note.get("case")): note for note in failures(output)}
    for job in pending:
        note = noted.get(job.case)
        text = str(note["error"]) if note else f"case {job.case}: was not made: no shard has got to it."
        outcome.failures.append(
            Failure(job.case, str(note["stage"]) if note else "missing", LesionsynthError(text))
        )
    complete(prepared, outcome, progress)
    return outcome


def _left_out(prepared: Prepared) -> list[Failure]:
    """Cases of the input that could not be harvested."""
    return [Failure(case, "harvest", LesionsynthError(reason)) for case, reason in prepared.left_out.items()]


def complete(prepared: Prepared, outcome: Outcome, progress: Progress) -> None:
    """Place the originals and write everything that describes the whole output."""
    space = prepared.space
    outcome.done.sort(key=lambda row: str(row["case"]))
    outcome.failures.sort(key=lambda failure: failure.name)
    if len(outcome.done) == len(prepared.jobs):  # else another shard may be writing
        for left in space.output.rglob(".tmp-*"):  # of processes that were killed
            left.unlink(missing_ok=True)
    if space.recipe.output.originals != "omit":
        refuse_changed(space)
        items = [(c.case, (space, c)) for c in space.cohort.cases]
        for result in run_all(place_original, items, stage="originals", engine=ALONE, progress=progress):
            if isinstance(result, Failure):
                raise result.error
    outcome.voxels = finalize(space, prepared.splits, outcome.done)


def _execute(
    prepared: Prepared,
    jobs: Sequence[Job],
    progress: Progress,
    engine: Engine,
    device: str,
    work: Path | None,
) -> Outcome:
    """Do all jobs that are not done; what fails is tried once more, alone, before it counts as failed."""
    space = prepared.space
    outcome = Outcome(space.output, failures=_left_out(prepared))
    engine = bounded(engine, space.cohort, progress, space.recipe)
    done, pending = split_by_state(space.output, jobs)
    outcome.done = [summary_of(record) for record in done]
    outcome.skipped = len(done)
    if done:
        progress.note(f"{len(done)} cases are there already.")
    forget_failures(space.output, [job.case for job in jobs])
    if work is not None:
        space = staged(space, work.absolute())
    way = (space.output, space.bank, space.fits, plan_digest(space.output) or "", device, engine.n_jobs)
    outcome.seconds = {"read": 0.0, "compute": 0.0, "write": 0.0}
    failed = _do(way, space, pending, outcome, progress, engine, "synthesise")
    again = [f for f in failed.values() if not isinstance(f.error, NoRoomError | WorkerDiedError)]
    if again:
        names = {failure.name for failure in again}
        alone = replace(engine, n_jobs=1)
        late = [job for job in pending if job.case in names]
        failed = {k: f for k, f in failed.items() if k not in names}
        failed |= _do(way, space, late, outcome, progress, alone, "try again")
    for failure in failed.values():
        note_failure(space.output, failure)
    outcome.failures += failed.values()
    return outcome


def _do(
    way: Way,
    space: Workspace,
    jobs: Sequence[Job],
    outcome: Outcome,
    progress: Progress,
    engine: Engine,
    stage: str,
    apart: bool = False,
) -> dict[str, Failure]:
    """Do jobs, all copies of a host together or, if `apart`, each for itself; the failures by case.

    Of a share that fails as a whole what was written counts; where its worker died, it is one copy's fault,
    and the rest is done apart.
    """
    by_case = {files.case: files for files in space.cohort.cases}
    hosts: dict[str, list[Job]] = {}
    for job in jobs:
        hosts.setdefault(job.host, []).append(job)
    # Copies of a host together, so that it is read once; several shares a worker, so that none idles long.
    share = len(jobs) if engine.n_jobs == 1 else math.ceil(len(jobs) / (SHARES * engine.n_jobs))
    share = 1 if apart else share
    shares = {
        own[start].case: own[start : start + share]
        for own in hosts.values()
        for start in range(0, len(own), share)
    }
    items = [(name, (way, by_case[part[0].host], tuple(part))) for name, part in shares.items()]
    failed: dict[str, Failure] = {}
    suspects: list[Job] = []

    def weight(result: Done) -> int:
        return len(result.cases) + len(result.failures)

    for result in run_all(
        run_share,
        items,
        stage=stage,
        engine=engine,
        progress=progress,
        weight=weight,
        total=len(jobs),
        shielded=apart,
    ):
        if isinstance(result, Failure):
            if isinstance(result.error, OutputError):
                raise result.error  # a full or read-only disk fails every case alike
            done, rest = split_by_state(space.output, shares[result.name])
            outcome.done += [summary_of(record) for record in done]
            if isinstance(result.error, WorkerDiedError) and len(rest) > 1:
                suspects += rest
            else:
                failed |= {job.case: replace(result, name=job.case) for job in rest}
            continue
        outcome.done.extend(result.cases)
        failed |= {failure.name: failure for failure in result.failures}
        for name, seconds in result.seconds.items():
            outcome.seconds[name] += seconds
        outcome.peak_mb = max(outcome.peak_mb, result.peak_mb)
    if suspects:
        failed |= _do(way, space, suspects, outcome, progress, engine, "one by one", apart=True)
    return failed


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
    lock = read_lock(output)
    if not lock or "recipe" not in lock:
        raise no_output(output)
    recipe = kept_recipe(lock["recipe"], output / LOCK)
    try:
        lock_input, key = str(lock["input"]), str(lock["key"])
    except KeyError as error:
        raise InputError(f"recipe.lock.yaml does not say its {error}.", file=output) from None
    layout, cohort, _ = open_cohort(recipe.input, root or Path(lock_input))
    if isinstance(recipe.output.layout, LayoutSpec):
        layout = recipe.output.layout
    space = Workspace(recipe, cohort, layout, output / BANK, output, target, key)
    record = read_record(output, case)
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
