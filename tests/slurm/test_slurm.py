"""The shipped scripts on a real Slurm: plan, array, merge, as a user submits them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lesionsynth.run import session
from lesionsynth.run.workspace import read_lock
from tests.run.test_faults import assert_whole
from tests.run.test_shards import files
from tests.test_invariants import Silent, recipe_of

SUBMIT = Path(__file__).parents[2] / "docs" / "how-to" / "hpc" / "submit.sh"
OPTIONS = ["-n", "2", "--set", "steps.add.load=[2, 8]"]


def no_slurm() -> str:
    """Why there is no Slurm to submit to, or nothing."""
    if shutil.which("sbatch") is None:
        return "Slurm is not installed (make slurm-test installs one)"
    found = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True, timeout=30)
    return "" if re.search("idle|mixed|alloc", found.stdout) else f"Slurm has no node: {found.stderr.strip()}"


pytestmark = pytest.mark.skipif(bool(no_slurm()), reason=no_slurm() or "-")


def state_of(job: str) -> str:
    shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True).stdout
    states = re.findall(r"JobState=(\w+)", shown)
    return "COMPLETED" if states and set(states) == {"COMPLETED"} else ",".join(states)


def test_plan_array_and_merge(make_nnunet: Callable[..., Path], tmp_path: Path) -> None:
    root, output = make_nnunet(5), tmp_path / "out"
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SHARDS": "3",
        # A small node: the scripts ask for what a cluster has.
        "SBATCH_MEM_PER_NODE": "1G",
    }
    small = tmp_path / "array.sbatch"
    text = (SUBMIT.parent / "array.sbatch").read_text()
    small.write_text(text.replace("--cpus-per-task=8", "--cpus-per-task=1").replace("--mem=16G", "--mem=1G"))
    submit = tmp_path / "submit.sh"
    submit.write_text(re.sub(r"--cpus-per-task=8 --mem=16G|--mem=8G", "--mem=1G", SUBMIT.read_text()))
    done = subprocess.run(
        ["bash", str(submit), "lesionmix", str(root), str(output), *OPTIONS],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**environment, "ARRAY": str(small)},
    )
    assert done.returncode == 0, done.stderr
    plan, shards, merge = re.findall(r"(?:plan|shards|finalize) (\d+)", done.stdout)
    deadline = time.monotonic() + 500
    while state_of(merge) not in ("COMPLETED", "FAILED") and time.monotonic() < deadline:
        time.sleep(1)
    logs = "\n".join(f"--- {p.name}\n{p.read_text()}" for p in sorted(tmp_path.glob("*.log")))
    logs += "\n".join(f"--- {p.name}\n{p.read_text()}" for p in sorted(tmp_path.glob("slurm-*.out")))
    for job in (plan, shards, merge):
        assert state_of(job) == "COMPLETED", logs
    assert len(list(tmp_path.glob("lesionsynth-*_*.log"))) == 3
    assert "shard 2/3: 4 of 10 cases" in logs
    assert len(assert_whole(output)) == 10
    whole = session.run(recipe_of(), root, tmp_path / "one", Silent())
    lock = read_lock(output)
    assert lock is not None
    assert lock["voxels"] == whole.voxels
    assert files(output) == files(tmp_path / "one")
    audit = subprocess.run(
        [sys.executable, "-m", "lesionsynth", "audit", str(output)], capture_output=True, text=True
    )
    assert audit.returncode == 0, audit.stdout
    print(logs)
