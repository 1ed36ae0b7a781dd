"""What is done of a plan: one record a case, one note a failure, no other state.

A case is there if its record is, names the files, and was made by the very job of the plan.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesionsynth import nifti
from lesionsynth.errors import LesionsynthError
from lesionsynth.run.plan import Job
from lesionsynth.run.pool import Failure
from lesionsynth.run.workspace import FAILURES, RECORDS, Workspace, inside

if TYPE_CHECKING:
    from lesionsynth.run.formats import FailureNote


def record_path(output: Path, case: str) -> Path:
    """Where the record of a case lies."""
    return inside(output, Path(RECORDS) / f"{case}.json")


def read_record(output: Path, case: str) -> dict[str, Any] | None:
    """The record of a case, or None where there is none that can be read."""
    return _read_json(record_path(output, case))


def draws_of(record: Mapping[str, Any], edit: str) -> list[dict[str, Any]]:
    """The edits of one kind, "insert" or "remove", of all steps of a record."""
    return [draw for step in record["steps"] for draw in step["draws"] if draw["edit"] == edit]


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def is_done(output: Path, job: Job) -> dict[str, Any] | None:
    """The record of a job whose case is there, files and all."""
    record = read_record(output, job.case)
    if record is None or record.get("job") != job.as_json() or not record.get("hashes"):
        return None
    return record if all(inside(output, Path(path)).is_file() for path in record["hashes"]) else None


def split_by_state(output: Path, jobs: Iterable[Job]) -> tuple[list[dict[str, Any]], list[Job]]:
    """Records of the jobs that are done, and the jobs that are not."""
    done, pending = [], []
    for job in jobs:
        record = is_done(output, job)
        if record is None:
            pending.append(job)
        else:
            done.append(record)
    return done, pending


def discard(output: Path, jobs: Sequence[Job], earlier: Sequence[Path]) -> list[str]:
    """Take every case that is no longer what the plan wants out of an output folder.

    Parameters
    ----------
    output : Path
    jobs : sequence of Job
        The plan.
    earlier : sequence of Path
        Files, relative to the output, that an earlier plan could have left without a record.

    Returns
    -------
    list of str
        Cases that were taken out.
    """
    wanted = {job.case: job.as_json() for job in jobs}
    gone = []
    for path in sorted((output / RECORDS).glob("*.json")):
        record = _read_json(path) or {}
        if path.stem in wanted and record.get("job") == wanted[path.stem]:
            continue
        path.unlink()  # first: files without a record are no case
        for name in record.get("hashes", {}):
            inside(output, Path(name)).unlink(missing_ok=True)
        gone.append(path.stem)
    for name in earlier:
        inside(output, name).unlink(missing_ok=True)
    for path in (output / FAILURES).glob("*.json"):
        path.unlink()
    return gone


def note_failure(output: Path, failure: Failure) -> None:
    """Write failures/<case>.json."""
    error = failure.error
    about: FailureNote = {
        "case": failure.name,
        "stage": failure.stage,
        "error": str(error),
        "kind": type(error).__name__,
    }
    path = inside(output, Path(FAILURES) / f"{failure.name}.json")
    nifti.write_bytes(path, (json.dumps(about, indent=1) + "\n").encode())


def forget_failures(output: Path, cases: Iterable[str]) -> None:
    """Remove the notes of cases that are tried again."""
    for case in cases:
        inside(output, Path(FAILURES) / f"{case}.json").unlink(missing_ok=True)


def failures(output: Path) -> Iterator[dict[str, Any]]:
    """The notes of what has failed, by name; without what no run has written."""
    for path in sorted((output / FAILURES).glob("*.json")):
        note = _read_json(path)
        if note is not None and all(isinstance(note.get(key), str) for key in ("case", "stage", "error")):
            yield note


@dataclass(frozen=True)
class Status:
    """How far a run is.

    Parameters
    ----------
    planned, done : int
        Synthetic cases.
    failed : list of dict
        Notes of those that have failed.
    missing : list of str
        Cases neither done nor failed.
    last_s : float or None
        Seconds since the last case was written.
    per_minute : float or None
        Cases a minute in the last hour of the run.
    """

    planned: int
    done: int
    failed: list[dict[str, Any]]
    missing: list[str]
    last_s: float | None
    per_minute: float | None


def status_of(space: Workspace, jobs: Sequence[Job]) -> Status:
    """How far a run is, by its records."""
    done, pending = split_by_state(space.output, jobs)
    times = sorted(record_path(space.output, record["case"]).stat().st_mtime for record in done)
    recent = [t for t in times if t > times[-1] - 3600] if times else []
    span_min = (recent[-1] - recent[0]) / 60 if len(recent) > 1 else 0.0
    failed = [note for note in failures(space.output) if note.get("case") in {job.case for job in pending}]
    unknown = {str(note["case"]) for note in failed}
    return Status(
        planned=len(jobs),
        done=len(done),
        failed=failed,
        missing=[job.case for job in pending if job.case not in unknown],
        last_s=time.time() - times[-1] if times else None,
        per_minute=(len(recent) - 1) / span_min if span_min > 0 else None,
    )


def read_jobs(path: Path) -> list[Job]:
    """The plan in a file.

    Raises
    ------
    LesionsynthError
        If a line of it is no job.
    """
    try:
        return [Job.from_json(json.loads(line)) for line in path.read_text().splitlines()]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise LesionsynthError(f"the plan cannot be read ({error}).", file=path) from None
