"""The deep check: make the copies of a host again from their records, and compare all voxels."""

from __future__ import annotations

from dataclasses import replace

from lesionsynth.domain.case import CaseFiles
from lesionsynth.domain.finding import Finding
from lesionsynth.json_file import read_json
from lesionsynth.qc.audit_evidence import REMAKE, Record, part_of
from lesionsynth.run.job import HostJobs
from lesionsynth.run.plan import Job
from lesionsynth.run.workspace import RECORDS, Workspace


def replay_host(space: Workspace, files: CaseFiles, cases: tuple[str, ...]) -> list[Finding]:
    """Remake copies of one host on the kind of device that made them; nothing is written.

    The record's digests are those of the remade voxels, or there is a finding. That the files agree with the
    digests is checked with the files.
    """
    findings = []
    makers: dict[str, HostJobs] = {}
    for case in cases:
        path = space.output / RECORDS / f"{case}.json"
        value = read_json(path)
        device = part_of(Record, value, path).device.partition(":")[
            0
        ]  # voxels are equal on one kind of device
        if device not in makers:
            makers[device] = HostJobs(replace(space, device=device), files)
        maker = makers[device]
        made = maker.outputs(case, maker.remake(Job.from_json(value["job"]), value))
        found = {name.as_posix(): image.slabs.digest for name, image in made.items()}
        other = sorted(set(found.items()) ^ set(value["hashes"].items()))
        if other:
            fault = f"remade from the record, {other[0][0]} has other voxels than the record says."
            findings.append(Finding("error", fault, REMAKE, case, f"{RECORDS}/{case}.json"))
    return findings
