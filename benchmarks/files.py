"""Reading and writing of files beside their floor and beside nibabel.

    python benchmarks/files.py                                volumes made from the sample cohort
    python benchmarks/files.py --input scan.nii.gz --json now.json

The floor is libdeflate's decompression and one call of igzip at level 1. Copies of a host differ from it in
ten boxes of 10 mm each; the host's slabs are packed anew in every round. Nobody waits for the disk.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import deflate
import nibabel as nib
import numpy as np
from isal import igzip
from measure import Row, interleaved, medians, spoken_all
from volumes import make_data_set

from lesionsynth import nifti

COPIES = 5
_EDITS, _EDGE_VOX = 10, 10
KINDS = {"float32": ("stripped float32", 1.2), "int16": ("noisy int16", 0.8)}


def edited(host: nifti.Image, seed: int) -> nifti.Image:
    """A copy of the host with boxes of another intensity where it is not background."""
    rng = np.random.default_rng(seed)
    raw = host.raw.copy(order="F")
    inside = np.argwhere(raw > np.median(raw))
    for corner in inside[rng.integers(len(inside), size=_EDITS)]:
        box = tuple(slice(c, c + _EDGE_VOX) for c in corner)
        raw[box] = (raw[box] * 1.25).astype(raw.dtype)
    return host.with_raw(raw)


def file_rows(rounds: int) -> list[Row]:
    """Read, write, and write several copies of a host, with and without noise in the background."""
    rows = []
    for dtype, (kind, bound) in KINDS.items():
        with tempfile.TemporaryDirectory() as folder:
            root = make_data_set(Path(folder) / "data", 1, subjects=1, dtype=dtype)
            rows += rows_of(next((root / "imagesTr").iterdir()), kind, bound, rounds)
    return rows


def rows_of(source: Path, kind: str, bound: float | None, rounds: int) -> list[Row]:
    """The rows of one image."""
    host, loaded = nifti.read(source), nib.load(source)
    stored = host.header_bytes + host.raw.tobytes(order="F")
    loaded = nib.Nifti1Image(np.asarray(loaded.dataobj), loaded.affine, loaded.header)
    changed = [edited(host, seed).raw for seed in range(COPIES)]
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "a.nii.gz"

        def write_alone() -> None:
            nifti.write(target, replace(host, raw=changed[0]), sync=False)

        def write_copies() -> None:
            fresh = replace(host)
            for raw in changed:
                nifti.write(target, fresh.with_raw(raw), sync=False)

        work: dict[str, Callable[[], object]] = {
            "read floor": lambda: deflate.gzip_decompress(source.read_bytes()),
            "read": lambda: nifti.read(source),
            "read nibabel": lambda: np.asarray(nib.load(source).dataobj),
            "write floor": lambda: target.write_bytes(igzip.compress(stored, 1)),
            "write": write_alone,
            "write nibabel": lambda: nib.save(loaded, target),
            f"{COPIES} copies": write_copies,
        }
        seconds = interleaved(work, rounds)
    middle, times = medians(seconds), spoken_all(seconds)
    floor = middle["write floor"]
    per_copy = middle[f"{COPIES} copies"] / COPIES / floor
    found = (
        (f"read, {kind}: ours / libdeflate", middle["read"] / middle["read floor"], "lower"),
        (f"read, {kind}: nibabel / ours", middle["read nibabel"] / middle["read"], "higher"),
        (f"write, {kind}: ours / igzip", middle["write"] / floor, "lower"),
        (f"write, {kind}: nibabel / ours", middle["write nibabel"] / middle["write"], "higher"),
    )
    copies = f"{COPIES} copies a host, {kind}: writing one / igzip"
    return [
        *(Row("I/O", what, ratio, None, better) for what, ratio, better in found),
        Row("I/O", copies, per_copy, bound, detail=times),
    ]


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--input", type=Path, nargs="*", default=[], help="images of your own")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    if arguments.input:
        rows = [row for path in arguments.input for row in rows_of(path, path.name, None, arguments.rounds)]
    else:
        rows = file_rows(arguments.rounds)
    for row in rows:
        bound = "" if row.target is None else f"   target {row.target:g}: {row.met}"
        print(f"{row.what:<64}{row.value:8.2f}{bound}")
        if row.detail:
            print(f"    {row.detail}")
    if arguments.json:
        arguments.json.write_text(json.dumps([row.as_json() for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
