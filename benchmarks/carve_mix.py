"""Our `carve_mix` in its compatible mode against the authors' script: time, memory, equality of the output.

Wants the folder of the script (`Simple_CarveMix.py`, github.com/ZhangxinruBIT/CarveMix), which is run as it
is, in a process of its own. Each round takes the script's pair and limit. The script's time is that of a
case from reading four files to having written two; ours is that of a copy in a run of `--copies`, which
reads host and donor once. Rounds are interleaved and medians are printed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from lesionsynth.recipe.load import load_recipe
from lesionsynth.run.job import HostJobs, write_case
from lesionsynth.run.prepare import prepare

CASES = ("host", "donor")


class Quiet:
    """Progress that says nothing."""

    def start(self, stage: str, total: int) -> None: ...

    def advance(self, done: int = 1) -> None: ...

    def note(self, message: str) -> None: ...


def make_input(root: Path, cases: list[str], channel: int, folder: Path) -> None:
    """A data set of one channel and two cases, linked from an nnU-Net raw data set."""
    about = json.loads((root / "dataset.json").read_text())
    about["channel_names"] = {"0": about["channel_names"][str(channel)]}
    about["numTraining"] = 2
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps(about))
    for name, case in zip(CASES, cases, strict=True):
        image = root / "imagesTr" / f"{case}_{channel:04d}.nii.gz"
        (folder / "imagesTr" / f"{name}_0000.nii.gz").symlink_to(image.resolve())
        (folder / "labelsTr" / f"{name}.nii.gz").symlink_to((root / "labelsTr" / f"{case}.nii.gz").resolve())


def script(folder: Path, data: Path, output: Path, seed: int) -> dict[str, float]:
    """One case by the authors' script."""
    if importlib.util.find_spec("tqdm") is None:  # it is imported for the progress bar only
        sys.modules["tqdm"] = types.ModuleType("tqdm")
        sys.modules["tqdm"].tqdm = iter  # type: ignore[attr-defined]
    spec = importlib.util.spec_from_file_location("official", folder / "Simple_CarveMix.py")
    assert spec is not None and spec.loader is not None
    official: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(official)
    np.random.seed(seed)
    started = time.perf_counter()
    images = [str(data / "imagesTr" / f"{case}_0000.nii.gz") for case in CASES]
    labels = [str(data / "labelsTr" / f"{case}.nii.gz") for case in CASES]
    image, label, _, limit = official.generate_new_sample(*images, *labels)
    official.sitk.WriteImage(image, str(output / "image.nii.gz"))
    official.sitk.WriteImage(label, str(output / "label.nii.gz"))
    return {"seconds": time.perf_counter() - started, "limit": float(limit), "peak_mb": peak_mb()}


def ours(data: Path, output: Path, limit: float, copies: int) -> dict[str, float]:
    """The same case from its record, as `lesionsynth replay` makes it, `copies` times.

    The bank is there already.
    """
    recipe = load_recipe("carve_mix_compatible", ["output.copies=1", "folds.strategy=none"])
    prepared = prepare(recipe, data, output, Quiet())
    job = next(job for job in prepared.jobs if job.host == "host")
    (step,) = recipe.steps
    draw = {"edit": "insert", "case": "donor", "subject": "donor", "donor": {"lesion": None}}
    record = {"case": job.case, "steps": [{"step": step, "draws": [{**draw, "lambda_mm": limit}]}]}
    started = time.perf_counter()
    maker = HostJobs(prepared.space, prepared.space.cohort.case("host"))
    for _ in range(copies):
        canvas = maker.remake(job, record)
        write_case(prepared.space, maker.outputs(job.case, canvas), record)
        del canvas
    return {"seconds": (time.perf_counter() - started) / copies, "peak_mb": peak_mb()}


def peak_mb() -> float:
    """Greatest memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def differing_voxels(output: Path) -> int:
    """Voxels of image and label in which the two outputs differ."""
    pairs = (
        ("image.nii.gz", "imagesTr/host__syn000_0000.nii.gz"),
        ("label.nii.gz", "labelsTr/host__syn000.nii.gz"),
    )
    read = [[np.asarray(nib.load(output / name).dataobj) for name in pair] for pair in pairs]
    return sum(int(np.count_nonzero(theirs != mine)) for theirs, mine in read)


def in_process(arguments: list[str]) -> dict[str, float]:
    """What one side says of one case."""
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    said: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return said


def main() -> None:
    """Print medians, ratios and whether all outputs were equal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", type=Path, required=True, help="nnU-Net raw data set")
    parser.add_argument("--script", type=Path, required=True, help="folder of Simple_CarveMix.py")
    parser.add_argument("--cases", nargs=2, required=True, metavar=("HOST", "DONOR"))
    parser.add_argument("--channel", type=int, default=0)
    parser.add_argument("--copies", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        data, output = Path(folder) / "data", Path(folder) / "output"
        make_input(arguments.input, arguments.cases, arguments.channel, data)
        output.mkdir()
        in_process(["--one", "ours", str(data), str(output), "0.0", "1"])  # builds the bank, compiles kernels
        for seed in range(arguments.rounds):
            theirs = in_process(
                ["--one", "script", str(arguments.script.resolve()), str(data), str(output), str(seed)]
            )
            limit, copies = repr(theirs["limit"]), str(arguments.copies)
            mine = in_process(["--one", "ours", str(data), str(output), limit, copies])
            rounds.append(
                {
                    "limit mm": theirs["limit"],
                    "script s": theirs["seconds"],
                    "ours s": mine["seconds"],
                    "time ratio (T4)": theirs["seconds"] / mine["seconds"],
                    "script peak MB": theirs["peak_mb"],
                    "ours peak MB": mine["peak_mb"],
                    "memory ratio (T6)": theirs["peak_mb"] / mine["peak_mb"],
                    "differing voxels": differing_voxels(output),
                }
            )
    for name in rounds[0]:
        values = [figures[name] for figures in rounds]
        print(f"{name:<20} {statistics.median(values):10.3f}   ({min(values):.3f} to {max(values):.3f})")
    if arguments.json:
        arguments.json.write_text(json.dumps(rounds, indent=1))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        side, *given = sys.argv[2:]
        if side == "script":
            result = script(Path(given[0]), Path(given[1]), Path(given[2]), int(given[3]))
        else:
            result = ours(Path(given[0]), Path(given[1]), float(given[2]), int(given[3]))
        print(json.dumps(result))
    else:
        main()
