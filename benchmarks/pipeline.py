"""Whole cases and whole commands against the floor of only reading and writing the same files."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from isal import igzip
from measure import Row, interleaved, medians, spoken_all
from volumes import SAMPLE, make_data_set

from lesionsynth import nifti
from lesionsynth.domain.case import CaseFiles
from lesionsynth.domain.load import LoadTarget
from lesionsynth.recipe.model import Recipe
from lesionsynth.run.job import HostJobs, Workspace, run_host
from lesionsynth.run.plan import Job
from lesionsynth.run.prepare import prepare

LESIONS = 10
SHORT, LONG = 24, 150
"""Copies of each host: a job of seconds, whose start-up counts, and one of a minute."""


class Quiet:
    """Progress that nobody sees."""

    def start(self, stage: str, total: int) -> None:
        """Nothing."""

    def advance(self, done: int = 1) -> None:
        """Nothing."""

    def note(self, message: str) -> None:
        """Nothing."""


def populate_recipe(load: float, copies: int, limit: int) -> Recipe:
    """Add lesions by soft Poisson Blending up to a load or a number of lesions."""
    step = {
        "kind": "populate",
        "load": load,
        "surplus": "keep",
        "max_lesions": limit,
        "blend": {"kind": "soft_poisson"},
    }
    return Recipe.model_validate(
        {"steps": {"add": step}, "folds": {"strategy": "none"}, "output": {"copies": copies}}
    )


def ready(
    root: Path, folder: Path, copies: int, lesions: int = LESIONS
) -> tuple[Workspace, CaseFiles, list[Job]]:
    """A data set whose bank and plan are made: what is left is the work on its first host.

    The load is the one that its first copy has with so many lesions more.
    """
    prepared = prepare(populate_recipe(10000, copies, 10000), root, folder, Quiet())
    host = prepared.space.cohort.cases[0]
    jobs = [job for job in prepared.jobs if job.host == host.case]
    own = HostJobs(prepared.space, host).host.load.count
    # The last lesion of a limited number has to make up the whole load, which none does.
    more = replace(prepared.space, recipe=populate_recipe(10000, copies, own + lesions + 1))
    record = HostJobs(more, host).make(jobs[0]).record
    load = LoadTarget(record["load_ml"]["after"], record["load_ml"]["after"], 0.01)
    space = replace(prepared.space, recipe=populate_recipe(load.ml, copies, 10000))
    return space, host, [replace(job, targets={"add": load}) for job in jobs]


def read_all(files: CaseFiles) -> list[nifti.Image]:
    """Decode every file of a case, as the floor does."""
    return [nifti.read(path) for path in (*files.images, files.label)]


def write_all(images: list[nifti.Image], folder: Path) -> None:
    """Compress every file by igzip at level 1 and write it, without anything else."""
    for number, image in enumerate(images):
        stored = image.header_bytes + image.raw.tobytes(order="F")
        (folder / f"{number}.nii.gz").write_bytes(igzip.compress(stored, 1))


def populate_rows(rounds: int) -> list[Row]:
    """T1, T2, T3: populate against the floor."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for target_id, channels, bound in (("T1", 4, 1.5), ("T2", 1, 1.8)):
            folder = Path(scratch) / target_id
            space, host, jobs = ready(make_data_set(folder / "data", channels), folder / "out", 1)

            def floor(host: CaseFiles = host, folder: Path = folder) -> None:
                write_all(read_all(host), folder)

            def ours(space: Workspace = space, host: CaseFiles = host, jobs: list[Job] = jobs) -> None:
                run_host(space, host, jobs)

            seconds = interleaved({"floor": floor, "populate": ours}, rounds)
            middle = medians(seconds)
            what = (
                f"populate, {channels} channel(s) + mask, {LESIONS} lesions / read + write of the same files"
            )
            ratio = middle["populate"] / middle["floor"]
            rows.append(Row(target_id, what, ratio, bound, detail=spoken_all(seconds)))
        rows += [_copies_row(Path(scratch), rounds, *kind) for kind in (("float32", 1.2), ("int16", 0.8))]
    return rows


def _copies_row(scratch: Path, rounds: int, dtype: str, bound: float) -> Row:
    """T3: several copies of one host, time per copy against compressing one anew."""
    copies = 5
    folder = scratch / f"T3{dtype}"
    space, host, jobs = ready(make_data_set(folder / "data", 4, dtype=dtype), folder / "out", copies)
    images = read_all(host)
    copies_s: list[float] = []

    def ours() -> None:
        done = run_host(space, host, jobs)
        copies_s.append((done.seconds["compute"] + done.seconds["write"]) / copies)

    seconds = interleaved({"write": lambda: write_all(images, folder), "run": ours}, rounds)
    per_copy = float(np.median(copies_s[1:]))
    kind = "stripped float32" if dtype == "float32" else "noisy int16"
    what = f"{copies} copies a host, {kind}: time per copy / level-1 write of it"
    detail = f"per copy {1000 * per_copy:.4g} ms; {spoken_all({'write': seconds['write']})}"
    return Row("T3", what, per_copy / medians(seconds)["write"], bound, detail=detail)


def _command(*arguments: str) -> Callable[[], None]:
    return lambda: subprocess.run(
        [sys.executable, "-m", "lesionsynth", *arguments], check=True, capture_output=True
    )


def command_rows(rounds: int) -> list[Row]:
    """T11, T12, T13: workers, start-up, the toy run."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}

    def run_toy(workers: int, copies: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "lesionsynth", "run", "lesionmix", "-i", str(SAMPLE), "-q"]
            started = time.perf_counter()
            subprocess.run(
                [*command, "-o", f"{folder}/out", "-n", str(copies), "-j", str(workers)],
                check=True,
                capture_output=True,
                env=environment,
            )
            return time.perf_counter() - started

    help_s = interleaved(
        {
            "help": _command("--help"),
            "python": lambda: subprocess.run([sys.executable, "-c", "pass"], check=True),
        },
        max(5, rounds),
    )
    toy = interleaved({"toy run": lambda: run_toy(1, 2)}, rounds)
    rows = []
    for copies, target in ((SHORT, None), (LONG, 1.7)):
        seconds = interleaved(
            {f"{n} worker(s)": lambda n=n, copies=copies: run_toy(n, copies) for n in (1, 2)}, min(3, rounds)
        )
        one, two = medians(seconds).values()
        what = f"sample_data, {8 * copies} cases: 1 worker / 2"
        rows.append(Row("T11", what, one / two, target, "higher", detail=spoken_all(seconds)))
    return [
        *rows,
        Row("T12", "lesionsynth --help", medians(help_s)["help"], 0.2, unit="s", detail=spoken_all(help_s)),
        Row(
            "T13",
            "toy run: 8 subjects, 2 copies each, whole command",
            medians(toy)["toy run"],
            3.0,
            unit="s",
            detail=spoken_all(toy),
        ),
    ]
