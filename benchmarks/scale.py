"""A job of many cases, disturbed on purpose: shards, kills, a disk that fills; then the same undisturbed.

    python benchmarks/scale.py --cases 200 --shards 4 --folder /tmp/scale

Copies of the sample cohort stand for a large one. Prints what happened, whether the voxels are equal, the
memory of a process over all its cases, and time and disk per case, from which larger jobs can be reckoned.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import yaml
from volumes import SAMPLE

RECIPE = ["lesionmix", "-n", "1"]


def make_input(root: Path, n_cases: int) -> None:
    """The sample cohort again and again, each copy under a name of its own."""
    description = json.loads((SAMPLE / "dataset.json").read_text())
    names = sorted(path.name.removesuffix(".nii.gz") for path in (SAMPLE / "labelsTr").glob("*.nii.gz"))
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    for number in range(n_cases):
        old, new = names[number % len(names)], f"case{number:04d}"
        for folder in ("imagesTr", "labelsTr"):
            for path in (SAMPLE / folder).glob(f"{old}*"):
                shutil.copyfile(path, root / folder / path.name.replace(old, new))
    (root / "dataset.json").write_text(json.dumps({**description, "numTraining": n_cases}))


def lesionsynth(*arguments: str, limit: int | None = None) -> subprocess.Popen[str]:
    """Start the command; with `limit`, no file of it may become larger."""

    def small() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-m", "lesionsynth", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=small
    )


def finished(process: subprocess.Popen[str], what: str) -> str:
    """Wait, say how it ended, and return what it printed."""
    started = time.monotonic()
    out, err = process.communicate()
    last = [line for line in err.splitlines() if line.startswith("lesionsynth:")][:1]
    seconds = time.monotonic() - started
    print(f"{what}: exit {process.returncode} after {seconds:.1f} s {' '.join(last)[:150]}", flush=True)
    return out


def n_records(output: Path) -> int:
    """Cases that are done."""
    return len(list((output / "records").glob("*.json")))


def killed_after(process: subprocess.Popen[str], output: Path, more: int) -> None:
    """SIGKILL after so many more cases."""
    wanted = n_records(output) + more
    while n_records(output) < wanted and process.poll() is None:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    print(f"killed; {n_records(output)} cases are done")


def memory_curve(process: subprocess.Popen[str], output: Path) -> list[tuple[int, float]]:
    """Cases done and memory of the process in MB, as long as it runs."""
    curve = []
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        rss = [line for line in status.splitlines() if line.startswith("VmRSS")]
        done = n_records(output)
        if rss and done and (not curve or done > curve[-1][0]):
            curve.append((done, int(rss[0].split()[1]) / 1024))
        time.sleep(0.01)
    return curve


def main(given: Sequence[str] | None = None) -> None:
    """Run both jobs and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args(given)
    root, output, plain = (arguments.folder / name for name in ("input", "disturbed", "undisturbed"))
    shutil.rmtree(arguments.folder, ignore_errors=True)
    make_input(root, arguments.cases)
    where = [*RECIPE, "-i", str(root)]

    finished(lesionsynth("plan", *where, "-o", str(output)), "plan")
    for number in range(1, arguments.shards + 1):
        shard = ["run", *where, "-o", str(output), "--shard", f"{number}/{arguments.shards}"]
        if number in (1, 2):
            killed_after(lesionsynth(*shard, *(["-j", "2"] if number == 2 else [])), output, 10)
        if number == 3:
            image = min(path.stat().st_size for path in (root / "imagesTr").glob("*"))
            finished(lesionsynth(*shard, limit=image // 2), f"shard {number} with a disk that takes no more")
        finished(lesionsynth(*shard), f"shard {number}")
        if number == 2:
            print(finished(lesionsynth("status", str(output)), "status"), end="")
    merged = json.loads(finished(lesionsynth("finalize", str(output), "--json"), "finalize"))

    started = time.monotonic()
    process = lesionsynth("run", *where, "-o", str(plain), "-q")
    curve = memory_curve(process, plain)
    finished(process, "undisturbed")
    seconds = time.monotonic() - started
    whole = yaml.safe_load((plain / "recipe.lock.yaml").read_text())
    equal = "EQUAL" if merged["voxels"] == whole["voxels"] else "DIFFERENT"
    print(f"voxels {merged['voxels']} and {whole['voxels']}: {equal}")
    finished(lesionsynth("audit", str(output)), "audit")
    tenth = max(1, len(curve) // 10)
    print("memory by cases done: " + ", ".join(f"{done}: {mb:.0f} MB" for done, mb in curve[::tenth]))
    size = sum(path.stat().st_size for path in plain.rglob("*") if path.is_file())
    print(f"{seconds / arguments.cases:.3f} s and {size / arguments.cases / 1e6:.2f} MB a case")


if __name__ == "__main__":
    main()
