"""How many workers: cores, memory, Slurm; and Dask's, which are processes elsewhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import pytest

from lesionsynth.errors import ExitCode
from lesionsynth.recipe.load import load_recipe
from lesionsynth.run.cohort import open_cohort
from lesionsynth.run.machine import MachineError, available_cores, bounded, engine_of, parse_mem_mb, worker_mb
from lesionsynth.run.pool import Engine
from tests.conftest import write_nifti
from tests.run.test_faults import MANY, assert_whole, command, undisturbed, wait_for
from tests.test_invariants import Silent, recipe_of

MakeData = Callable[..., Path]


def test_cores_are_those_of_affinity_and_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    assert available_cores() == joblib.cpu_count() <= len(os.sched_getaffinity(0))
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert available_cores() == 1
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "100000")
    assert available_cores() == joblib.cpu_count()
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(own)})
    try:
        assert available_cores() == 1
        assert engine_of("auto", "64G").n_jobs == 1
    finally:
        os.sched_setaffinity(0, own)


def test_what_the_options_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine_of("3", None) == Engine(3)
    assert engine_of("3", "2G") == Engine(3, 2048.0)
    assert engine_of("0", "500M") == engine_of("auto", "500") == Engine(available_cores(), 500.0)
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "1000")
    assert engine_of("auto", None).mem_mb == pytest.approx(900)
    monkeypatch.delenv("SLURM_MEM_PER_NODE")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "700")
    assert engine_of("auto", None).mem_mb == pytest.approx(630)
    for wrong in ("-1", "many", "1.5", "1000000"):
        with pytest.raises(MachineError, match="--n-jobs"):
            engine_of(wrong, None)


@pytest.mark.parametrize(
    ("text", "mb"), [("16G", 16384), ("16GB", 16384), ("500m", 500), ("4000", 4000), ("1.5T", 1572864)]
)
def test_amounts_of_memory(text: str, mb: float) -> None:
    assert parse_mem_mb(text) == mb


@pytest.mark.parametrize("text", ["", "0", "G", "-1G", "1K", "1e9", "nan"])
def test_wrong_amounts_of_memory(text: str) -> None:
    with pytest.raises(MachineError, match="should be an amount such as 16G"):
        parse_mem_mb(text)


def test_memory_bounds_the_workers_by_the_largest_case(make_nnunet: MakeData) -> None:
    root, recipe = make_nnunet(3), recipe_of()
    small = open_cohort(recipe.input, root)[1]
    each = worker_mb(small, recipe)
    assert 240 < each < 260
    shape = (100, 120, 90)
    for name in ("imagesTr/case2_0000", "imagesTr/case2_0001"):
        write_nifti(root / f"{name}.nii.gz", np.zeros(shape, np.float32), np.eye(4))
    large = worker_mb(small, recipe)
    assert large == pytest.approx(240 + np.prod(shape) * (2 * (2 * 4 + 16) + 30) / 2**20)
    progress = Silent()
    four = Engine(4, 240 + 2.5 * large)
    assert bounded(four, small, progress, recipe) == replace(four, n_jobs=2)
    assert progress.notes == [
        f"2 worker(s) instead of 4: each takes about {large:.0f} MB, and all may take {four.mem_mb:.0f} MB."
    ]
    assert bounded(replace(four, mem_mb=10.0), small, progress, recipe).n_jobs == 1  # one is always tried
    painting = worker_mb(small, load_recipe("translation_image"))
    assert painting == pytest.approx(large + 1000 + np.prod(shape) * 2 * 30 / 2**20)
    assert bounded(replace(four, mem_mb=None), small, progress, recipe).n_jobs == 4


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, list[int]]]:
    """A scheduler and two workers, each a process of its own, and the workers' process ids."""
    code = """
import sys
from distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as c:
        print(c.scheduler_address, *[w.pid for w in c.workers.values()], flush=True)
        sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    address, *pids = process.stdout.readline().split()
    yield address, [int(pid) for pid in pids]
    process.communicate("", timeout=60)


def test_dask_makes_the_same_also_if_a_worker_is_killed(
    make_nnunet: MakeData, tmp_path: Path, cluster: tuple[str, list[int]]
) -> None:
    address, pids = cluster
    root, output = make_nnunet(4), tmp_path / "out"
    process = subprocess.Popen(
        [*command(root, output, *MANY), "--scheduler", address, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(output, 3, process)
    os.kill(pids[0], signal.SIGKILL)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert len(assert_whole(output)) == 24
    assert json.loads(out)["voxels"] == undisturbed(root, tmp_path / "fresh")


def test_a_scheduler_that_is_not_there(make_nnunet: MakeData, tmp_path: Path) -> None:
    started = time.monotonic()
    done = subprocess.run(
        [*command(make_nnunet(2), tmp_path / "out", *MANY), "--scheduler", "tcp://127.0.0.1:9"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == ExitCode.USAGE
    assert "no Dask scheduler answers" in done.stderr
    assert "Traceback" not in done.stderr
    assert time.monotonic() - started < 60
    assert not (tmp_path / "out").exists()
