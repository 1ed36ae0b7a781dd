"""Seconds and memory per synthetic case, by stage, beside the floor of only reading and writing the files.

Run by `make bench`. Rounds are interleaved and medians are printed, so that a busy machine shows.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lesionsynth import nifti
from lesionsynth.recipe.load import load_recipe
from lesionsynth.run.cohort import open_cohort


def floor_seconds(root: Path, recipe_name: str, folder: Path) -> float:
    """Read every file of the first case and write it again, per case."""
    _, cohort, _ = open_cohort(load_recipe(recipe_name).input, root)
    started = time.perf_counter()
    for number, path in enumerate((*cohort.cases[0].images, cohort.cases[0].label)):
        nifti.write(folder / f"{number}.nii.gz", nifti.read(path))
    return time.perf_counter() - started


def run_once(root: Path, recipe_name: str, output: Path, copies: int) -> dict[str, float]:
    """One whole run in a process of its own; its times by stage, per synthetic case."""
    command = [sys.executable, "-m", "lesionsynth", "run", recipe_name, "-i", str(root), "-o", str(output)]
    started = time.perf_counter()
    done = subprocess.run(
        [*command, "-n", str(copies), "-q", "--json"], capture_output=True, text=True, check=True
    )
    wall = time.perf_counter() - started
    result = json.loads(done.stdout)
    cases = max(1, result["synthetic_cases"])
    lesions = sum(row["lesions_inserted"] + row["lesions_removed"] for row in result["cases"])
    times = {f"{stage} s/case": seconds / cases for stage, seconds in result["seconds"].items()}
    return {
        "whole command s": wall,
        **times,
        "edits/case": lesions / cases,
        "compute ms/edit": 1000 * result["seconds"]["compute"] / max(1, lesions),
        "peak MB": result["peak_mb"],
    }


def main() -> None:
    """Print one line a figure: median and range over the rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--recipe", default="lesionmix")
    parser.add_argument("--copies", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    rounds: list[dict[str, float]] = []
    for number in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as folder:
            floor = floor_seconds(arguments.input, arguments.recipe, Path(folder))
            output = Path(folder) / f"output{number}"
            figures = run_once(arguments.input, arguments.recipe, output, arguments.copies)
            rounds.append({"floor: read + write s/case": floor, **figures})
    print(f"{arguments.recipe} on {arguments.input}, {arguments.copies} copies, {arguments.rounds} rounds")
    for name in rounds[0]:
        values = [figures[name] for figures in rounds]
        print(f"{name:<28} {statistics.median(values):10.3f}   ({min(values):.3f} to {max(values):.3f})")


if __name__ == "__main__":
    main()
