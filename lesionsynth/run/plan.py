"""The plan: one line a job, everything that is decided before any voxel is touched."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import lesionsynth
from lesionsynth.bank.harvest import CaseSummary
from lesionsynth.bank.store import LesionBank
from lesionsynth.digest import digest_json
from lesionsynth.domain.case import CaseFiles, Cohort
from lesionsynth.domain.load import LesionLoad, LoadTarget
from lesionsynth.recipe.model import Recipe, deciding
from lesionsynth.rng import stream
from lesionsynth.run.fit import Fit
from lesionsynth.run.folds import Block
from lesionsynth.run.models import beside

SYNTHETIC = "__syn"
_COPY = re.compile(rf"(.+){SYNTHETIC}\d+")


def host_of(case: str) -> str | None:
    """Id of the host by that of a synthetic case; None for the id of any other case."""
    match = _COPY.fullmatch(case)
    return None if match is None else match.group(1)


@dataclass(frozen=True)
class Job:
    """One synthetic case to be made.

    Parameters
    ----------
    case : str
        Its id: `<host>__syn<copy_index>`.
    host : str
        Case it is made of.
    subject : str
        The host's person.
    copy_index : int
        Number of the copy.
    block : str
        Block whose fits it draws from.
    targets : dict of str to LoadTarget
        Load to reach, by step.
    key : str
        Digest of all else that the case depends on: version, what the recipe says of voxels, what the input
        calls them, host, donors, loads and map of the block. A case made by a job with another key is made
        again.
    """

    case: str
    host: str
    subject: str
    copy_index: int
    block: str
    targets: dict[str, LoadTarget]
    key: str

    def as_json(self) -> dict[str, Any]:
        """All fields by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Job:
        """The reverse of :meth:`as_json`."""
        targets = {step: LoadTarget(**target) for step, target in value["targets"].items()}
        return cls(**{**value, "targets": targets})


def make_plan(
    recipe: Recipe, cohort: Cohort, blocks: Sequence[Block], fits: dict[str, Fit], bank: LesionBank
) -> list[Job]:
    """Every job of a run, sorted by case id. Each draws from streams of its own name."""
    harvested = {case.case: case for case in bank.cases()}
    by_case = {case.case: case for case in cohort.cases}
    recipe_part = digest_json([lesionsynth.__version__, voxels_part(recipe), _names_part(cohort)])
    jobs = []
    for block in blocks:
        fit = fits[block.name]
        members = {*block.subjects, *block.mask_subjects}
        donors = {c.case: [c.subject, *_found(c)] for c in harvested.values() if c.subject in members}
        block_part = digest_json([recipe_part, fit.digest, donors])
        for host in block.hosts:
            if host not in harvested:
                continue  # dropped as unreadable
            about: list[object] = [
                *(block_part, _found(harvested[host]), fit.registrations.get(host)),
                *beside(fit.models, by_case[host], cohort.root),
            ]
            for copy in range(block.first_copy, block.first_copy + recipe.output.copies):
                summary, files = harvested[host], by_case[host]
                jobs.append(job_of(recipe, fit, summary.load, files, copy, block.name, digest_json(about)))
    return sorted(jobs, key=lambda job: job.case)


def _found(case: CaseSummary) -> list[object]:
    """What a job depends on of a case: its files, and its tissue, which may be found by a map beside them."""
    return [case.source_hashes, case.tissue_hash]


def job_of(
    recipe: Recipe, fit: Fit, load: LesionLoad, host: CaseFiles, copy_index: int, block: str, key: str = ""
) -> Job:
    """One job; `load` is the host's own."""
    targets = {
        name: step.target_load.draw(fit.loads, load, stream(recipe.seed, host.case, copy_index, name, "load"))
        for name, step in recipe.steps.items()
        if step.target_load is not None
    }
    case = f"{host.case}{SYNTHETIC}{copy_index:03d}"
    return Job(case, host.case, host.subject, copy_index, block, targets, key)


def voxels_part(recipe: Recipe) -> dict[str, Any]:
    """The part of a recipe that what is written of one case depends on."""
    part = deciding(recipe)
    used = {name for step in recipe.steps.values() for name in step.source_names()}
    for name in ("description", "folds"):
        del part[name]
    part["sources"] = {name: spec for name, spec in part["sources"].items() if name in used}
    part["output"] = {k: v for k, v in part["output"].items() if k not in ("copies", "originals")}
    who = ("on_bad_case", "masks", "subjects", "seen_by_models")
    part["input"] = {k: v for k, v in part["input"].items() if k not in who}
    return part


def _names_part(cohort: Cohort) -> list[object]:
    """What the input calls its channels, files and label values, as far as a case depends on it."""
    roles = sorted((value, cohort.labels.roles[name]) for name, value in cohort.labels.values.items())
    return [cohort.layout, cohort.channels, cohort.file_ending, roles]


def plan_lines(jobs: Iterable[Job]) -> bytes:
    """The plan as JSONL."""
    return "".join(json.dumps(job.as_json()) + "\n" for job in jobs).encode()
