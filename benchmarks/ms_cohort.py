"""A semi-synthetic multiple sclerosis cohort: real lesion masks in brains whose every voxel is known.

Each subject is the tissue maps of a template, bent and scaled in a way of its own together with one real
mask, turned into FLAIR and T1 by a model of the contrasts, and spoiled as a scanner does.

    python benchmarks/ms_cohort.py OUTPUT --masks open_ms/masks --template mni152 [--spacing 1.5]

`--template` is a folder with `gm.nii.gz` and `wm.nii.gz` (0 to 255, as nilearn packages ICBM 152), in whose
space the masks lie. The cohort is nnU-Net raw. What varies, so that lesions cannot be told by a threshold:

- anatomy: a smooth displacement (spread 3 mm, smooth over 20 mm), turns of up to 5 degrees, sizes (3 %),
  a thickness of the cortex and ventricles that follow from both;
- tissue: means of grey and white matter and fluid (3 %), texture of two scales (3 %);
- lesions: contrast in FLAIR by subject (30 to 65 % of white matter) and by lesion (a quarter of it), more
  inside than at the rim; in T1 a part of them is dark (black holes);
- what looks like lesions and is none: bright bands along the ventricles (up to 50 %), diffusely bright white
  matter (up to 10 %), bright vessels in the cortex;
- scanner: point spread, partial volume, bias field (8 %), Rician noise (3 to 6 % of white matter), gain.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from lesionsynth import nifti
from lesionsynth.domain.grid import Grid

Volume = NDArray[np.float32]
TISSUES = ("wm", "gm", "csf")
MEANS = {"FLAIR": (100.0, 118.0, 25.0), "T1": (100.0, 72.0, 28.0)}
DIRTY_MM = 2.5
"""Fall-off of the bright bands along the ventricles."""


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> Volume:
    """Noise of mean 0 and spread 1, smooth over `sigma` voxels; drawn coarsely where it is very smooth."""
    step = max(1, int(sigma / 3))
    small = [n // step + 4 for n in shape]
    noise = ndimage.gaussian_filter(rng.normal(size=small), sigma / step)
    where = np.meshgrid(*(np.arange(n) / step + 1.5 for n in shape), indexing="ij")
    noise = ndimage.map_coordinates(noise, where, order=1) if step > 1 else noise[tuple(map(slice, shape))]
    return ((noise - noise.mean()) / noise.std()).astype(np.float32)


class Template:
    """Tissue maps and the grid that subjects are made on."""

    def __init__(self, folder: Path, spacing_mm: float) -> None:
        maps = {name: nifti.read(folder / f"{name}.nii.gz") for name in ("wm", "gm")}
        self.affine = maps["wm"].grid.affine
        wm, gm = (maps[name].values() / 255 for name in ("wm", "gm"))
        solid = ndimage.binary_closing(wm + gm > 0.3, iterations=4)
        brain = ndimage.binary_fill_holes(ndimage.binary_opening(solid, iterations=2))
        self.tissue = {"wm": wm * brain, "gm": gm * brain, "csf": np.clip(brain - wm - gm, 0, 1) * brain}
        deep = ndimage.distance_transform_edt(brain) > 20  # fluid so deep lies in a ventricle
        self.tissue["ventricle"] = self.tissue["csf"] * deep
        box = ndimage.find_objects(brain.astype(np.int8))[0]
        corner = self.affine @ [*(s.start - 8 for s in box), 1]
        shape = tuple(int((s.stop - s.start + 16) / spacing_mm) for s in box)
        affine = np.diag([spacing_mm] * 3 + [1.0])
        affine[:3, 3] = corner[:3]
        self.grid = Grid((shape[0], shape[1], shape[2]), affine)


class Anatomy:
    """How one subject's world maps to the template's."""

    def __init__(self, template: Template, rng: np.random.Generator) -> None:
        grid = template.grid
        self.spacing_mm = grid.spacing_mm[0]
        index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij")).astype(np.float64)
        world = np.tensordot(grid.affine[:3, :3], index, 1) + grid.affine[:3, 3, None, None, None]
        turn = Rotation.from_euler("xyz", rng.uniform(-5, 5, 3), degrees=True).as_matrix()
        self._world = np.tensordot(turn * rng.normal(1, 0.03, 3), world, 1)
        for axis in range(3):
            self._world[axis] += 3 * smooth_noise(rng, grid.shape, 20 / self.spacing_mm)

    def sample(self, volume: Volume, affine: NDArray[np.float64]) -> Volume:
        """A volume of the template's space on the subject's grid, blurred to its voxels first."""
        inverse = np.linalg.inv(affine)
        where = np.tensordot(inverse[:3, :3], self._world, 1) + inverse[:3, 3, None, None, None]
        edges = np.sqrt((affine[:3, :3] ** 2).sum(0))
        soft = ndimage.gaussian_filter(volume.astype(np.float32), 0.4 * self.spacing_mm / edges)
        return ndimage.map_coordinates(soft, where, order=1, output=np.float32)


def made(template: Template, mask: Volume, affine: NDArray[np.float64], seed: int) -> tuple[Volume, Volume]:
    """Channels (2, i, j, k) float32 and label (i, j, k) uint8 of one subject."""
    rng = np.random.default_rng(seed)
    anatomy = Anatomy(template, rng)
    tissue = {name: anatomy.sample(volume, template.affine) for name, volume in template.tissue.items()}
    shape, edge = template.grid.shape, anatomy.spacing_mm
    brain = sum(tissue[name] for name in TISSUES) > 0.5
    part = anatomy.sample(mask, affine) * brain * np.clip(1.5 - 1.5 * tissue["csf"], 0, 1)
    label = part >= 0.5
    ventricle = tissue["ventricle"] > 0.5
    from_ventricle = ndimage.distance_transform_edt(~ventricle) * edge
    bands = (
        rng.uniform(0.05, 0.25)
        * np.exp(-from_ventricle / DIRTY_MM)
        * np.clip(smooth_noise(rng, shape, 6 / edge) + 1, 0, 2)
    )
    diffuse = rng.uniform(0, 0.1) * np.clip(smooth_noise(rng, shape, 8 / edge), 0, 2) * (from_ventricle < 15)
    lesions, count = ndimage.label(label, np.ones((3, 3, 3)))
    strength = rng.uniform(0.3, 0.65) * np.clip(rng.normal(1, 0.25, count + 1), 0.4, None)
    holes = rng.uniform(0.05, 0.2) + rng.uniform(0, 0.25, count + 1) * (rng.random(count + 1) < 0.4)
    nearest = ndimage.distance_transform_edt(~label, return_distances=False, return_indices=True)
    own = lesions[tuple(nearest)]
    depth = ndimage.distance_transform_edt(label) * edge
    profile = 0.75 + 0.25 * np.clip(depth / 3, 0, 1)
    shine = {"FLAIR": strength[own] * profile, "T1": -holes[own] * profile}
    channels = []
    for name, means in MEANS.items():
        image = sum(tissue[t] * mean * rng.normal(1, 0.03) for t, mean in zip(TISSUES, means, strict=True))
        texture = smooth_noise(rng, shape, 1 / edge) + smooth_noise(rng, shape, 4 / edge)
        image = image * (1 + 0.02 * texture)
        if name == "FLAIR":
            image += means[0] * tissue["wm"] * (bands + diffuse)
            vessels = np.clip(smooth_noise(rng, shape, 1 / edge) - 2.8, 0, 1) * (tissue["gm"] > 0.4)
            image += means[0] * 0.6 * vessels
        # A lesion is as bright on grey as on white matter: its level takes the tissue's place.
        image = (1 - part) * image + part * means[0] * (1 + shine[name]) * (1 + 0.03 * texture)
        image = ndimage.gaussian_filter(image * brain, 0.4)
        image *= np.exp(0.08 * smooth_noise(rng, shape, 40 / edge))
        noise = rng.uniform(0.03, 0.06) * means[0]
        image = np.hypot(image + rng.normal(0, noise, shape), rng.normal(0, noise, shape))
        channels.append(np.where(brain, image * rng.uniform(3, 8), 0))
    return np.stack(channels).astype(np.float32), label.astype(np.uint8)


def make_cohort(output: Path, masks: Path, template: Path, spacing_mm: float, seed: int) -> None:
    frame = Template(template, spacing_mm)
    files = sorted(masks.glob("*.nii.gz"))
    for number, path in enumerate(files):
        mask = nifti.read(path)
        image, label = made(frame, (mask.values() > 0).astype(np.float32), mask.grid.affine, seed + number)
        case = f"sim{number:02d}"
        for channel, values in enumerate(image):
            stored = nifti.new(frame.grid, np.asfortranarray(np.round(values).astype(np.int16)))
            nifti.write(output / "imagesTr" / f"{case}_{channel:04d}.nii.gz", stored)
        nifti.write(output / "labelsTr" / f"{case}.nii.gz", nifti.new(frame.grid, np.asfortranarray(label)))
        print(f"{case}: {path.name}, {label.sum() * spacing_mm**3 / 1000:.2f} mL", flush=True)
    about = {
        "channel_names": dict(enumerate(MEANS)),
        "labels": {"background": 0, "lesion": 1},
        "numTraining": len(files),
        "file_ending": ".nii.gz",
    }
    (output / "dataset.json").write_text(json.dumps(about, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--masks", type=Path, required=True)
    parser.add_argument("--template", type=Path, required=True)
    parser.add_argument("--spacing", type=float, default=1.5)
    parser.add_argument("--seed", type=int, default=2026)
    given = parser.parse_args()
    make_cohort(given.output, given.masks, given.template, given.spacing, given.seed)
