"""Whole methods as other tools do them."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from measure import Row, interleaved, medians, spoken_all
from pipeline import LESIONS, ready
from volumes import make_data_set

from lesionsynth.run.job import run_host

CARVEMIX = "CARVEMIX_FOLDER"
"""Environment variable that names the folder of the official CarveMix script."""

FILL_DATA, FILL_STROKES = "FILL_DATA", "FILL_STROKES"
"""Those that name an nnU-Net raw data set with T1, and a folder of lesion masks of other subjects."""


def lesionmix_rows(rounds: int) -> list[Row]:
    """T5: add lesions as a plain loop over TorchIO transforms and nibabel files would."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import torch
            import torchio
        except ImportError:
            return [Row("T5", "LesionMix-like loop: TorchIO is not installed", float("nan"), None)]
        torch.set_num_threads(1)
        transform = torchio.Compose(
            [
                torchio.RandomFlip(axes=(0, 1, 2)),
                torchio.RandomAffine(scales=(0.5, 1.8), degrees=89, isotropic=True),
                torchio.RandomElasticDeformation(),
            ]
        )
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            space, host, jobs = ready(make_data_set(folder / "data", 4), folder / "out", 1)
            donor = space.cohort.cases[-1]

            def loop() -> None:
                rng = np.random.default_rng(0)
                files = [nib.load(path) for path in (*host.images, host.label)]
                volumes = [np.array(file.dataobj) for file in files]
                theirs = [np.asarray(nib.load(path).dataobj) for path in (*donor.images, donor.label)]
                places = np.argwhere(theirs[-1] > 0)
                targets = np.argwhere(volumes[0] > 0)
                for _ in range(LESIONS):
                    corner = np.clip(places[rng.integers(len(places))] - 32, 0, np.array(files[0].shape) - 64)
                    crop = tuple(slice(c, c + 64) for c in corner)
                    subject = torchio.Subject(
                        image=torchio.ScalarImage(tensor=np.stack([v[crop] for v in theirs[:-1]])),
                        label=torchio.LabelMap(tensor=theirs[-1][crop][None].astype(np.int16)),
                    )
                    moved = transform(subject)
                    mask = moved["label"].numpy()[0] > 0
                    corner = np.clip(
                        targets[rng.integers(len(targets))] - 32, 0, np.array(files[0].shape) - 64
                    )
                    crop = tuple(slice(c, c + 64) for c in corner)
                    for volume, image in zip(volumes, moved["image"].numpy(), strict=False):
                        volume[crop][mask] = image[mask]
                    volumes[-1][crop][mask] = 1
                for number, (file, volume) in enumerate(zip(files, volumes, strict=True)):
                    nib.Nifti1Image(volume, file.affine, file.header).to_filename(folder / f"{number}.nii.gz")

            seconds = interleaved({"loop": loop, "ours": lambda: run_host(space, host, jobs)}, rounds)
    middle = medians(seconds)
    what = f"{LESIONS} lesions, 4 channels + mask: plain loop on TorchIO and nibabel / ours"
    return [Row("T5", what, middle["loop"] / middle["ours"], 10, "higher", detail=spoken_all(seconds))]


def carve_mix_rows(rounds: int) -> list[Row]:
    """T4, T6: the official CarveMix script, where its folder is given."""
    script = os.environ.get(CARVEMIX)
    if script is None:
        return [Row("T4", f"CarveMix: {CARVEMIX} does not name the script's folder", float("nan"), None)]
    with tempfile.TemporaryDirectory() as scratch:
        data, found = make_data_set(Path(scratch) / "data", 1), Path(scratch) / "found.json"
        command = [sys.executable, str(Path(__file__).parent / "carve_mix.py"), "--script", script]
        given = [
            "--input",
            str(data),
            "--cases",
            "big0",
            "big1",
            "--rounds",
            str(rounds),
            "--json",
            str(found),
        ]
        subprocess.run([*command, *given], check=True, capture_output=True)
        figures = json.loads(found.read_text())
    middle = {name: statistics.median(one[name] for one in figures) for name in figures[0]}
    differing = sum(one["differing voxels"] for one in figures)
    detail = "; ".join(f"{name} {middle[name]:.4g}" for name in middle if "ratio" not in name)
    what = f"official CarveMix script / ours, {differing:g} voxels differ"
    return [
        Row("T4", what, middle["time ratio (T4)"], 12, "higher", detail=detail),
        Row("T6", "peak memory: official CarveMix / ours", middle["memory ratio (T6)"], 3, "higher"),
    ]


def fill_rows(rounds: int) -> list[Row]:
    """T10: fills on lesion-free tissue under real masks, where data are given; fills.py has all figures."""
    data, strokes = (os.environ.get(name) for name in (FILL_DATA, FILL_STROKES))
    if data is None or strokes is None:
        what = f"fills: {FILL_DATA} and {FILL_STROKES} do not name a data set and a folder of masks"
        return [Row("T10", what, float("nan"), None)]
    import fills

    hosts = fills.open_hosts(Path(data), Path(strokes), 40)
    rows: dict[str, Any] = {}
    fills.measure_kernels(hosts, fills.ranges_of(hosts), rows, rounds)
    return fills.target_rows(rows)
