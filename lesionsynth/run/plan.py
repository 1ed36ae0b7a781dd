"""The plan: one line a job, everything that is decided before any voxel is touched."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lesionsynth.bank.store import LesionBank
from lesionsynth.domain.case import Cohort
from lesionsynth.domain.load import LoadTarget
from lesionsynth.recipe.model import Recipe
from lesionsynth.rng import stream
from lesionsynth.run.fit import Fit
from lesionsynth.run.folds import Block

SYNTHETIC = "__syn"


@dataclass(frozen=True)
class Job:
    """One synthetic case to be made.

    Parameters
    ----------
    case : str
        Its id: <host>__syn<copy_index>.
    host, subject : str
        Case it is made of, and its person.
    copy_index : int
        Number of the copy.
    block : str
        Block whose fits it draws from.
    targets : dict of str to LoadTarget
        Load to reach, by step.
    """

    case: str
    host: str
    subject: str
    copy_index: int
    block: str
    targets: dict[str, LoadTarget]

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
    loads = {case.case: case.load for case in bank.cases()}
    by_case = {case.case: case for case in cohort.cases}
    jobs = []
    for block in blocks:
        for host in block.hosts:
            if host not in loads:
                continue  # dropped as unreadable
            for copy in range(block.first_copy, block.first_copy + recipe.output.copies):
                targets = {
                    name: step.target_load.draw(
                        fits[block.name].loads, loads[host], stream(recipe.seed, host, copy, name, "load")
                    )
                    for name, step in recipe.steps.items()
                    if step.target_load is not None
                }
                case = f"{host}{SYNTHETIC}{copy:03d}"
                jobs.append(Job(case, host, by_case[host].subject, copy, block.name, targets))
    return sorted(jobs, key=lambda job: job.case)


def plan_lines(jobs: Iterable[Job]) -> bytes:
    """The plan as JSONL."""
    return "".join(json.dumps(job.as_json()) + "\n" for job in jobs).encode()
