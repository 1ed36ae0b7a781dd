"""Part of a plan for one of several processes that share nothing but the file system."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lesionsynth.errors import ExitCode, LesionsynthError
from lesionsynth.run.plan import Job


class ShardError(LesionsynthError):
    """A shard that cannot be."""

    exit_code = ExitCode.USAGE


@dataclass(frozen=True)
class Shard:
    """Number `index` (from 0) of `count` shards."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index + 1}/{self.count}"

    def part(self, jobs: Sequence[Job]) -> list[Job]:
        """Its jobs: all copies of every `count`-th host, or single copies where there are fewer hosts."""
        hosts = sorted({job.host for job in jobs})
        if len(hosts) < self.count:
            return list(jobs[self.index :: self.count])
        mine = set(hosts[self.index :: self.count])
        return [job for job in jobs if job.host in mine]


def parse_shard(text: str) -> Shard:
    """Read "i/n", with i from 1 to n."""
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    if match is None or not 1 <= int(match.group(1)) <= int(match.group(2)):
        raise ShardError(f"--shard {text}: should be i/n with i from 1 to n, such as 3/10.")
    return Shard(int(match.group(1)) - 1, int(match.group(2)))


def shard_of_array(environment: Mapping[str, str]) -> Shard | None:
    """The shard of a Slurm array task, whose numbers may begin anywhere; None outside an array.

    Raises
    ------
    ShardError
        If the array has gaps or steps: some shards would never run.
    """
    names = ("ID", "MIN", "MAX", "COUNT")
    values = [environment.get(f"SLURM_ARRAY_TASK_{name}") for name in names]
    if values[0] is None:
        return None
    if not all(value is not None and value.isdigit() for value in values):
        raise ShardError("SLURM_ARRAY_TASK_ID is set, but not _MIN, _MAX and _COUNT: give --shard i/n.")
    task, least, most, count = (int(str(value)) for value in values)
    if most - least + 1 != count:
        raise ShardError(
            f"the Slurm array has {count} tasks from {least} to {most}, so with gaps: give --shard i/n, or "
            "use an array such as 0-9."
        )
    return Shard(task - least, count)
