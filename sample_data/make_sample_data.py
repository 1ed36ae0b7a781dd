"""Make the sample data: brain-like phantoms with lesions, as an nnU-Net v2 raw data set.

Nothing here comes from a person: see phantom_anatomy.py for how the brains are built.

    python sample_data/make_sample_data.py [--output DIR] [--subjects N] [--size 48 60 50]
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
from pathlib import Path

import nibabel as nib
import numpy as np
from phantom_anatomy import TEMPLATE_CENTRE, TEMPLATE_EXTENT, make_anatomy, smooth_noise, soft
from scipy import ndimage

SEED = 20240611
SUBJECTS = 8
SHAPE = (48, 60, 50)
SPACING_MM = (2.0, 2.0, 2.0)
CHANNELS = ("FLAIR", "T1")
OVERSAMPLING = 2
DEFAULT_SCALE = 120 / 190  # mm per template mm on the default grid; lesion volumes are given for it

# Relative signal of each tissue: (FLAIR, T1).
SIGNAL = {
    "csf": (0.14, 0.25),
    "grey": (0.82, 0.68),
    "white": (0.63, 1.00),
    "striatum": (0.76, 0.74),
    "thalamus": (0.72, 0.82),
    "pallidum": (0.62, 0.90),
    "stem": (0.66, 0.94),
}


def block_mean(field):
    """Average of each voxel's fine samples: (..., fi, fj, fk) to (..., i, j, k)."""
    i, j, k = (n // OVERSAMPLING for n in field.shape[-3:])
    n = OVERSAMPLING
    return field.reshape(*field.shape[:-3], i, n, j, n, k, n).mean(axis=(-5, -3, -1))


def plan_volumes(rng, count, load, smallest, largest):
    """Volumes of ``count`` lesions (mm3), largest first, skewed as in MS, that add up to ``load``."""
    volumes = rng.lognormal(0, 1.0, count)
    for _ in range(20):
        volumes = np.clip(volumes * load / volumes.sum(), smallest, largest)
    return np.sort(volumes)[::-1]


class LesionPainter:
    """Places lesions one by one in the white matter of a fine grid.

    Parameters
    ----------
    rng : numpy.random.Generator
    white : numpy.ndarray
        Share of white matter in which lesions may lie, 0..1, (i, j, k) fine.
    ventricle : numpy.ndarray
        Distance to the lateral ventricles, mm, (i, j, k) fine.
    white_depth : numpy.ndarray
        Depth below the border of cortex and white matter, mm, (i, j, k) fine.
    step_mm : numpy.ndarray
        Distance of the fine samples, mm, (3,).

    Attributes
    ----------
    share : numpy.ndarray
        Share of lesion, 0..1, (i, j, k) fine.
    flair, t1 : numpy.ndarray
        ``share`` times the signal of the lesion, (i, j, k) fine.
    label : numpy.ndarray
        uint8, voxel grid: 1 where lesion is more than half of the voxel.
    """

    def __init__(self, rng, white, ventricle, white_depth, step_mm):
        self.rng, self.white, self.step_mm = rng, white, step_mm
        self.ventricle, self.white_depth = ventricle, white_depth
        self.rough = [smooth_noise(rng, white.shape, sigma / step_mm.mean()) for sigma in (1.3, 2.6, 4.5)]
        self.share, self.flair, self.t1 = (np.zeros(white.shape, np.float32) for _ in range(3))
        self.label = np.zeros([n // OVERSAMPLING for n in white.shape], np.uint8)
        self.blocked = self.label.astype(bool)

    def choose(self, kind, radius):
        """Centre (fine indices), long axis (unit, mm space) and length over width of one attempt."""
        core = self.white > 0.9
        if kind == "periventricular":
            # The centre lies such that the near end reaches the wall of the ventricle.
            wanted = core & (np.abs(self.ventricle - 1.15 * radius) < 1)
            field, elongation = self.ventricle, self.rng.uniform(1.4, 2.2)
        elif kind == "juxtacortical":
            wanted = core & (np.abs(self.white_depth - 0.75 * radius) < 0.6)
            field, elongation = None, self.rng.uniform(1.1, 1.7)
        else:
            wanted = core & (self.white_depth > 0.9 * radius) & (self.ventricle > radius + 3)
            field, elongation = None, self.rng.uniform(1.0, 1.6)
        places = np.flatnonzero(wanted)
        if places.size == 0:
            return None
        centre = np.array(np.unravel_index(self.rng.choice(places), core.shape))
        axis = self.rng.standard_normal(3)
        if field is not None:
            near = field[tuple(slice(c - 2, c + 3) for c in centre)]
            axis = np.array([g[2, 2, 2] for g in np.gradient(near, *self.step_mm)]) + 0.15 * axis
        return centre, axis / np.linalg.norm(axis), elongation

    def shape(self, centre, axis, elongation, radius, rough):
        """Share of one lesion on the fine samples around it, and where they are (slices)."""
        n = OVERSAMPLING
        reach = 1.6 * radius * elongation ** (2 / 3) + 2
        low = np.maximum((centre - reach / self.step_mm) // n * n, 0).astype(int)
        high = np.minimum(-((-centre - reach / self.step_mm) // n) * n, self.white.shape).astype(int)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        offsets = [
            (np.arange(a, b) - c) * s for a, b, c, s in zip(low, high, centre, self.step_mm, strict=True)
        ]
        offsets = np.stack(np.meshgrid(*offsets, indexing="ij"))
        along = np.tensordot(axis, offsets, axes=1)
        across = np.sqrt(np.maximum((offsets**2).sum(axis=0) - along**2, 0))
        stretched = np.hypot(along / elongation ** (2 / 3), across * elongation ** (1 / 3))
        distance = stretched - radius * (1 + 0.22 * np.clip(self.rough[rough][box], -2, 2))
        return soft(distance, 1.4) * self.white[box], distance, box

    def add(self, kind, volume):
        """Try to place one lesion of about ``volume`` mm3; tell whether that worked."""
        voxel_mm3 = np.prod(self.step_mm) * OVERSAMPLING**3
        target = np.cbrt(volume * 3 / (4 * np.pi))
        rough = 0 if target < 3 else 1 if target < 5 else 2
        for _ in range(40):
            chosen = self.choose(kind, target)
            if chosen is None:
                return False
            radius = target
            for _ in range(4):
                share, distance, box = self.shape(*chosen, radius, rough)
                label = block_mean(share) > 0.5
                size = label.sum() * voxel_mm3
                if abs(size - volume) <= max(0.12 * volume, voxel_mm3):
                    break
                radius *= np.clip(np.cbrt(volume / max(size, voxel_mm3)), 0.7, 1.4)
            voxels = tuple(slice(b.start // OVERSAMPLING, b.stop // OVERSAMPLING) for b in box)
            compact = ndimage.label(label)[1] == 1 and label.sum() >= 3
            if not compact or abs(size - volume) > 0.4 * volume or (label & self.blocked[voxels]).any():
                continue
            self.paint(share, distance, box, radius)
            self.label[voxels] |= label
            # Two voxels of clearance keep the lesions apart, soft edges included.
            self.blocked = ndimage.binary_dilation(self.label, np.ones((3, 3, 3)), iterations=2)
            return True
        return False

    def paint(self, share, distance, box, radius):
        """Add one lesion with its own contrast and texture."""
        rng = self.rng
        core = np.clip(-distance / radius, 0, 1)
        flair = rng.uniform(0.96, 1.22) + rng.uniform(-0.05, 0.18) * core
        t1 = rng.uniform(0.68, 0.84) - rng.uniform(0.0, 0.16) * core
        texture = self.rough[0][box]
        self.share[box] += share
        self.flair[box] += share * flair * (1 + rng.uniform(0.03, 0.08) * texture)
        self.t1[box] += share * t1 * (1 - rng.uniform(0.02, 0.06) * texture)


def bias_field(rng, shape, strength):
    """Smooth multiplicative shading around 1, (i, j, k)."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    terms = [*axes, *(a**2 for a in axes), axes[0] * axes[1], axes[1] * axes[2], axes[0] * axes[2]]
    field = sum(rng.normal() * term for term in terms)
    return np.exp(strength * (field - field.mean()) / np.abs(field - field.mean()).max())


def make_subject(index, shape=SHAPE, spacing_mm=SPACING_MM):
    """Make one phantom; the same arguments give the same voxels.

    Parameters
    ----------
    index : int
        Number of the subject, from 0; it seeds everything that varies.
    shape : tuple of int
        Voxels (i, j, k). The brain fills the grid, whatever its size, and lesions shrink with it:
        volumes in mm3 and loads in mL below hold for the default grid.
    spacing_mm : tuple of float
        Voxel size, mm, (3,).

    Returns
    -------
    images : numpy.ndarray
        int16, (2, i, j, k): FLAIR and T1, 0 outside the brain and at least 1 inside.
    label : numpy.ndarray
        uint8, (i, j, k): 1 in lesions. 6 to 20 of 24 to 1500 mm3, in all about 1 to 12 mL; fewer
        where a coarse grid has no room for all.
    affine : numpy.ndarray
        float64, (4, 4): voxel indices to mm, RAS.
    """
    rng = np.random.default_rng(np.random.SeedSequence([SEED, index]))
    spacing_mm = np.asarray(spacing_mm, float)
    scale = float(np.min(np.array(shape) * spacing_mm / TEMPLATE_EXTENT))
    fine, step_mm = tuple(n * OVERSAMPLING for n in shape), spacing_mm / OVERSAMPLING

    # Golden-ratio steps spread any number of subjects evenly over the range of loads.
    severity = (0.5 + index * 0.6180339887) % 1
    atrophy = float(np.clip(0.6 * severity + rng.uniform(0, 0.5), 0, 1))
    anatomy = make_anatomy(rng, fine, step_mm, scale, atrophy)

    unit = (scale / DEFAULT_SCALE) ** 3
    count = int(np.clip(np.rint(6 + 14 * severity + rng.uniform(-2, 2)), 6, 20))
    volumes = plan_volumes(rng, count, unit * 1100 * 10.5**severity, unit * 28, unit * 1450)
    painter = LesionPainter(
        rng, anatomy.eligible, anatomy.ventricle * scale, anatomy.white_depth * scale, step_mm
    )
    for volume in volumes:
        kind = rng.choice(["periventricular", "deep", "juxtacortical"], p=[0.55, 0.25, 0.2])
        while not painter.add(kind, volume) and volume > 3 * spacing_mm.prod():
            kind, volume = "deep", 0.8 * volume

    inside = block_mean((anatomy.brain < 0).astype(np.float32)) > 0.5
    # A brain bent far out of shape must still not touch the faces of the volume.
    inside = np.pad(inside[1:-1, 1:-1, 1:-1], 1)
    # White matter around lesions and ventricles is faintly bright on FLAIR without being lesion.
    halo = 0.10 * ndimage.gaussian_filter(painter.share, 2.5 * scale / step_mm)
    halo += 0.08 * anatomy.fractions["white"] * soft(anatomy.ventricle - 2.5, 3.0)
    images = []
    for channel, lesion in enumerate((painter.flair, painter.t1)):
        contrast = {name: signal[channel] * rng.uniform(0.97, 1.03) for name, signal in SIGNAL.items()}
        tissue = sum(anatomy.fractions[name] * contrast[name] for name in SIGNAL)
        tissue *= 1 + 0.015 * smooth_noise(rng, fine, 1.0) + 0.02 * smooth_noise(rng, fine, 4.0)
        if channel == 0:
            tissue += halo * (1 - anatomy.fractions["csf"])
        clean = block_mean(tissue * (1 - painter.share) + lesion)
        clean *= bias_field(rng, shape, strength=rng.uniform(0.06, 0.16))
        noise = rng.uniform(0.015, 0.032) * rng.standard_normal((2, *shape))
        signal = rng.uniform(320, 480) * np.hypot(clean + noise[0], noise[1])
        images.append(np.where(inside, np.maximum(np.rint(signal), 1), 0).astype(np.int16))

    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = np.array(TEMPLATE_CENTRE) * scale - spacing_mm * (np.array(shape) - 1) / 2
    return np.stack(images), painter.label * inside, affine


def save_nifti(path, voxels, affine):
    """Write one .nii.gz whose bytes depend on the voxels and the affine only."""
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code="aligned")
    image.set_qform(affine, code="aligned")
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=packed, mtime=0) as stream:
        stream.write(image.to_bytes())
    path.write_bytes(packed.getvalue())


def write_dataset(output, subjects=SUBJECTS, shape=SHAPE):
    """Write the data set into the folder ``output``: imagesTr, labelsTr and dataset.json."""
    images_folder, labels_folder = output / "imagesTr", output / "labelsTr"
    for folder in (images_folder, labels_folder):
        folder.mkdir(parents=True, exist_ok=True)
    names = [f"sub{index + 1:02d}" for index in range(subjects)]
    others = sorted({path.name.split(".")[0] for path in labels_folder.iterdir()} - set(names))
    if others:
        # They would not match numTraining, and deleting them might lose someone's work.
        raise SystemExit(f"{labels_folder} already holds other subjects: {', '.join(others)}")
    for index, name in enumerate(names):
        images, label, affine = make_subject(index, shape)
        for channel, image in enumerate(images):
            save_nifti(images_folder / f"{name}_{channel:04d}.nii.gz", image, affine)
        save_nifti(labels_folder / f"{name}.nii.gz", label, affine)
    description = {
        "channel_names": {str(channel): name for channel, name in enumerate(CHANNELS)},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": subjects,
        "file_ending": ".nii.gz",
        "name": "lesionsynth sample data",
        "description": "Synthetic brain-like phantoms with MS-like lesions, made by make_sample_data.py",
        "licence": "CC0-1.0 (made by a program; no person's data)",
    }
    (output / "dataset.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def main():
    """Read the command line and write the data set."""
    parser = argparse.ArgumentParser(description="Make the sample data: brain-like phantoms with lesions.")
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).resolve().parent, help="folder to write"
    )
    parser.add_argument("--subjects", type=int, default=SUBJECTS, help="how many subjects")
    parser.add_argument("--size", type=int, nargs=3, default=SHAPE, metavar="N", help="voxels along i, j, k")
    arguments = parser.parse_args()
    write_dataset(arguments.output, arguments.subjects, tuple(arguments.size))


if __name__ == "__main__":
    main()
