"""All targets in one table: ours beside a peer or beside the floor, in turns, medians of several rounds.

    python benchmarks/run.py                      everything that is installed
    python benchmarks/run.py --only T7 T8         some targets
    python benchmarks/run.py --json now.json --compare before.json --plots folder

Run by `make bench`, which installs the peers into an environment of their own.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # the work is parallel over cases, never inside a kernel

import argparse
import compileall
import json
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path

import files
import kernels
import peers
import pipeline
from measure import Row

import lesionsynth

IN_MEMORY = Path("/dev/shm")

GROUPS: dict[tuple[str, ...], Callable[[int], list[Row]]] = {
    ("T1", "T2", "T3"): pipeline.populate_rows,
    ("T4", "T6"): peers.carve_mix_rows,
    ("T5",): peers.lesionmix_rows,
    ("T7",): kernels.box_solve_rows,
    ("T8",): kernels.warp_rows,
    ("T9",): kernels.hard_solve_rows,
    ("T10",): peers.fill_rows,
    ("EDT",): kernels.distance_rows,
    ("I/O",): files.file_rows,
    ("T11", "T12", "T13"): pipeline.command_rows,
}


def main() -> None:
    """Run the groups that are asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], metavar="ID", help="targets, such as T7")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--compare", type=Path, help="figures of an earlier run")
    parser.add_argument("--plots", type=Path, help="folder for plots of time against size and count")
    arguments = parser.parse_args()
    compileall.compile_dir(Path(lesionsynth.__file__).parent, quiet=1)  # as an installation does
    if IN_MEMORY.is_dir() and os.access(IN_MEMORY, os.W_OK):
        tempfile.tempdir = str(IN_MEMORY)  # a disk's moods are nobody's merit
    rows: list[Row] = []
    for ids, group in GROUPS.items():
        if not arguments.only or set(ids) & set(arguments.only):
            rows += group(arguments.rounds)
            print(f"{', '.join(ids)} done", flush=True)
    earlier = (
        {row["what"]: row for row in json.loads(arguments.compare.read_text())["rows"]}
        if (arguments.compare)
        else {}
    )
    print(f"\n{machine()}; medians of {arguments.rounds} rounds\n")
    for row in rows:
        before = earlier.get(row.what)
        print(line(row, None if before is None else before["value"]))
        if row.detail:
            print(f"     {row.detail}")
    if arguments.json:
        about = {"machine": machine(), "rounds": arguments.rounds, "rows": [row.as_json() for row in rows]}
        arguments.json.write_text(json.dumps(about, indent=1) + "\n")
    if arguments.plots:
        import plots

        plots.draw(arguments.plots)


def machine() -> str:
    """What the figures were taken on."""
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def line(row: Row, before: float | None) -> str:
    """A row as text."""
    bound = "" if row.target is None else f"{'<=' if row.better == 'lower' else '>='} {row.target:g}"
    was = "" if before is None else f"  (was {before:.3g})"
    return f"{row.target_id:<4} {row.value:8.3g} {row.unit:<3} {bound:<8} {row.met:<4} {row.what}{was}"


if __name__ == "__main__":
    main()
