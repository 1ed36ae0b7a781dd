"""The folder itself: every file belongs to something, and what describes the whole agrees with the cases."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from lesionsynth.digest import digest_json
from lesionsynth.domain.case import Cohort
from lesionsynth.domain.finding import Finding
from lesionsynth.errors import LesionsynthError
from lesionsynth.qc.audit_evidence import Job, Lock, part_of
from lesionsynth.qc.audit_scope import Evidence, HostAudit
from lesionsynth.run.finalize import MANIFEST
from lesionsynth.run.workspace import COHORT, LOCK, PLAN, plan_digest

AGAIN = "Run the same command again, which writes it anew."
_UNPLANNED = "Plan the run again (lesionsynth plan ... --update), then run it."
_OTHER_INPUT = "Give the input that the output was made of (--input)."
_TEMPORARY = ".tmp-"


def walk(output: Path) -> tuple[list[str], list[Finding]]:
    """Files of a folder by their path in it, sorted; links and what is no file are findings and left out."""
    names, findings = [], []
    for folder, folders, files in os.walk(output, followlinks=False):
        for entry in (*folders, *files):
            path = Path(folder) / entry
            name = path.relative_to(output).as_posix()
            if path.is_symlink():
                fault = f"is a symbolic link to {os.readlink(path)}; an output holds files of its own."
                findings.append(Finding("error", fault, "Replace it by the file itself.", None, name))
            elif entry.startswith(_TEMPORARY):
                cure = "Remove it; nothing reads it."
                findings.append(
                    Finding("error", "is left over from a write that was broken off.", cure, None, name)
                )
            elif path.is_file():
                names.append(name)
            elif not path.is_dir():
                findings.append(Finding("error", "is no file.", "Remove it.", None, name))
    return sorted(names), sorted(findings, key=lambda f: str(f.file))


def audit_tree(names: Sequence[str], expected: set[str], folders: Sequence[str]) -> Iterator[Finding]:
    """Files that belong to no case and describe nothing.

    Parameters
    ----------
    names : sequence of str
        All files.
    expected : set of str
        Those that should, or may, be there.
    folders : sequence of str
        Folders of a run's own, in which anything may lie.
    """
    for name in names:
        if name not in expected and not name.startswith(tuple(f"{folder}/" for folder in folders)):
            cure = "Remove it, or put it elsewhere: whoever reads the data set may take it for a case."
            yield Finding("error", "belongs to no case that has a record.", cure, None, name)


def read_plan(output: Path) -> dict[str, Job]:
    """The plan, by case.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    path = output / PLAN
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        jobs = [part_of(Job, json.loads(line), path) for line in lines]
    except (OSError, ValueError, RecursionError) as error:
        raise LesionsynthError(f"cannot be read ({error}).", file=path, remedy=AGAIN) from None
    return {job.case: job for job in jobs}


def audit_manifest(path: Path, originals: Mapping[str, str], made: Sequence[Evidence]) -> Iterator[Finding]:
    """Every line of the manifest against the record of its case.

    Parameters
    ----------
    path : Path
    originals : mapping of str to str
        Case to subject; empty where the output holds none.
    made : sequence of Evidence
        All synthetic cases.
    """
    wanted: dict[str, dict[str, object]] = {
        case: {"case": case, "kind": "original", "subject": subject} for case, subject in originals.items()
    }
    wanted |= {item.case: {**item.row, "voxel_hash": digest_json(dict(item.hashes))} for item in made}
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream, strict=True))
    except (OSError, ValueError, csv.Error) as error:
        yield Finding("error", f"cannot be read ({error}).", AGAIN, None, MANIFEST)
        return
    seen: set[str] = set()
    for row in rows:
        case = row.get("case") or ""
        if case in seen:
            yield Finding("error", "has two lines for this case.", AGAIN, case, MANIFEST)
        elif case not in wanted:
            yield Finding("error", "has a line for a case that is not in the output.", AGAIN, case, MANIFEST)
        else:
            for column, value in wanted[case].items():
                expected = "" if value is None else str(value)
                if row.get(column) != expected:
                    fault = f"{column} is {row.get(column)!r}, by record and files it is {expected!r}."
                    yield Finding("error", fault, AGAIN, case, MANIFEST)
        seen.add(case)
    for case in sorted(set(wanted) - seen):
        yield Finding("error", "has no line for this case.", AGAIN, case, MANIFEST)


def audit_lock(
    output: Path, lock: Lock, seed: int, made: Sequence[Evidence], seen: Sequence[HostAudit]
) -> Iterator[Finding]:
    """Digests of the lock against plan, records and input.

    Parameters
    ----------
    output : Path
    lock : Lock
    seed : int
        Of the recipe.
    made : sequence of Evidence
        All synthetic cases, sorted.
    seen : sequence of HostAudit
        All cases and masks of the input.
    """
    planned, again = plan_digest(output), digest_json([[item.case, dict(item.hashes)] for item in made])
    if lock.plan != planned:
        fault = f"plan is {lock.plan}; over {COHORT} and {PLAN} it is {planned}."
        yield Finding("error", fault, _UNPLANNED, None, LOCK)
    if lock.voxels is None:
        fault = "the run is not through: the lock has no digest of the voxels."
        yield Finding("error", fault, AGAIN, None, LOCK)
    elif lock.voxels != again:
        fault = f"voxels is {lock.voxels}; over all records it is {again}."
        yield Finding("error", fault, AGAIN, None, LOCK)
    if lock.seed != seed:
        yield Finding("error", f"seed is {lock.seed}, that of its recipe {seed}.", AGAIN, None, LOCK)
    named: dict[str, dict[str, str]] = {}
    for item in seen:
        for name, digest in item.inputs.items():
            # Masks go by their bare names, which several may share.
            key = name if name in lock.input_hashes else PurePosixPath(name).name
            named.setdefault(key, {})[digest] = item.name
    for name, digests in sorted(named.items()):
        if lock.input_hashes.get(name) not in digests:
            fault = f"the input's file {name} is not the one that the run has read (its digest differs)."
            yield Finding("error", fault, _OTHER_INPUT, min(digests.values()), LOCK)
    for name in sorted(set(lock.input_hashes) - set(named)):
        yield Finding(
            "error", f"names the input's file {name}, which is not there.", _OTHER_INPUT, None, LOCK
        )


def audit_description(output: Path, described: Mapping[str, bytes]) -> Iterator[Finding]:
    """Files that describe the whole, such as dataset.json, against what the cases give."""
    for name, content in described.items():
        try:
            found = (output / name).read_bytes()
        except OSError as error:
            yield Finding("error", f"cannot be read ({error.strerror or error}).", AGAIN, None, name)
            continue
        if found != content:
            yield Finding("error", "does not describe the cases that are there.", AGAIN, None, name)


def audit_bank(cases: Sequence[tuple[str, str]], cohort: Cohort, name: str) -> Iterator[Finding]:
    """Subjects of the lesion bank, by which donors are chosen, against those of the input.

    Parameters
    ----------
    cases : sequence of (str, str)
        Case and subject of the bank.
    cohort : Cohort
    name : str
        Of the bank.
    """
    subjects = {case.case: case.subject for case in cohort.cases}
    subjects |= {mask.name: mask.subject for mask in cohort.masks}
    for case, subject in cases:
        if subjects.get(case) != subject:
            fault = f"has the subject {subject}; by the input it is {subjects.get(case, 'of no case')}."
            yield Finding("error", fault, "Remove the output and run the command again.", case, name)
