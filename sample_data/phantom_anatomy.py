"""Anatomy of the sample data's phantoms: implicit surfaces of a brain, folded and bent at random.

Lengths are in millimetres of a template ("tmm"): about an adult brain, x to the right, y to the front,
z up, the origin near the anterior commissure. Grids are sampled finer than voxels ("fine"), so that
averaging them leaves partial volume. Distances are negative inside a structure, depths positive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage
from scipy.interpolate import PchipInterpolator

TEMPLATE_CENTRE = (0.0, -16.0, 7.0)
TEMPLATE_EXTENT = (150.0, 190.0, 158.0)  # room for the largest warped brain
TISSUES = ("csf", "grey", "white", "striatum", "thalamus", "pallidum", "stem")

# Chains of (x, y, z, radius) in tmm; those of paired structures are for the right side.
LATERAL_VENTRICLE = (
    ((14, 35, 1, 2.5), (11, 27, 7, 4.5), (9, 16, 13, 5), (8, 2, 18, 5), (11, -16, 21, 5.5),
     (18, -31, 20, 7.5), (25, -42, 12, 8), (26, -56, 8, 5), (23, -70, 6, 2.5)),
    ((12, 24, 11, 3), (13, 8, 20, 3), (16, -12, 24, 3.5), (21, -28, 22, 4), (26, -42, 13, 6)),
    ((25, -42, 12, 8), (32, -40, -1, 5), (35, -28, -12, 3.5), (33, -14, -18, 3)),
)  # fmt: skip
CAUDATE = (((14, 22, 2, 6.5), (16, 12, 9, 6.5), (18, -4, 16, 4.5), (24, -22, 18, 3)),)
BRAINSTEM = (((0, -14, -8, 11), (0, -24, -22, 13), (0, -25, -32, 15), (0, -33, -46, 10), (0, -37, -58, 8)),)


def filtered_noise(rng, shape, response):
    """White noise shaped in the frequency domain, mean 0 and standard deviation 1.

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : tuple of int
        (i, j, k).
    response : callable
        Gain at a spatial frequency given in cycles per sample.

    Returns
    -------
    numpy.ndarray
        float32, (i, j, k).
    """
    frequencies = (fft.fftfreq(shape[0]), fft.fftfreq(shape[1]), fft.rfftfreq(shape[2]))
    radius = np.sqrt(sum(f**2 for f in np.meshgrid(*frequencies, indexing="ij", sparse=True)))
    gain = response(radius)
    gain[0, 0, 0] = 0
    field = fft.irfftn(fft.rfftn(rng.standard_normal(shape)) * gain, s=shape)
    return (field / field.std()).astype(np.float32)


def smooth_noise(rng, shape, sigma):
    """Noise smooth over about ``sigma`` samples."""
    return filtered_noise(rng, shape, lambda f: np.exp(-2 * (np.pi * sigma * f) ** 2))


def labyrinth_noise(rng, shape, wavelength):
    """Noise of about one wavelength (in samples); its zero lines on a surface wind like sulci."""
    return filtered_noise(rng, shape, lambda f: np.exp(-0.5 * ((f * wavelength - 1) / 0.2) ** 2))


def soft(distance, width=1.6):
    """Membership 0..1 from a distance, with a border ``width`` wide (in the unit of ``distance``)."""
    return np.clip(0.5 - distance / width, 0, 1)


def smooth_min(a, b, k):
    """Minimum of two distances with the corner rounded over about ``k`` tmm."""
    h = np.clip(0.5 + 0.5 * (b - a) / k, 0, 1)
    return b + h * (a - b) - k * h * (1 - h)


def ellipsoid(position, centre, radii):
    """Approximate distance to an ellipsoid; ``position`` is a tuple of three coordinate arrays."""
    offsets = [p - c for p, c in zip(position, centre, strict=True)]
    k0 = np.sqrt(sum((o / r) ** 2 for o, r in zip(offsets, radii, strict=True))) + 1e-6
    k1 = np.sqrt(sum((o / r**2) ** 2 for o, r in zip(offsets, radii, strict=True))) + 1e-6
    return k0 * (k0 - 1) / k1


def tube(position, chains, factor=1.0):
    """Distance to tubes along chains of (x, y, z, radius), the radii multiplied by ``factor``."""
    distance = np.full(position[0].shape, np.inf, np.float32)
    for chain in chains:
        curve = PchipInterpolator(np.arange(len(chain)), np.asarray(chain, float))
        for x, y, z, radius in curve(np.linspace(0, len(chain) - 1, 5 * len(chain))):
            squared = (position[0] - x) ** 2 + (position[1] - y) ** 2 + (position[2] - z) ** 2
            np.minimum(distance, np.sqrt(squared) - factor * radius, out=distance)
    return distance


def template_positions(rng, shape, step_mm, scale):
    """Template coordinates of every fine sample: centred, scaled, turned and bent.

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : tuple of int
        Fine grid (i, j, k).
    step_mm : numpy.ndarray
        Distance of the fine samples, mm, (3,).
    scale : float
        mm per tmm.

    Returns
    -------
    tuple of numpy.ndarray
        x, y, z in tmm, float32, each (i, j, k).
    """
    axes = [(np.arange(n) - (n - 1) / 2) * s / scale for n, s in zip(shape, step_mm, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)
    size = 1 + 0.025 * rng.uniform(-1, 1, 3)
    turn = np.deg2rad(rng.uniform(-3, 3, 3))
    skew = np.array([[0, -turn[2], turn[1]], [turn[2], 0, -turn[0]], [-turn[1], turn[0], 0]])
    grid = np.tensordot((np.eye(3) + skew) * size, grid, axes=1)
    grid += np.reshape(TEMPLATE_CENTRE, (3, 1, 1, 1))
    for width_tmm, amplitude in ((34, 2.2), (10, 1.3)):
        for axis in range(3):
            grid[axis] += amplitude * smooth_noise(rng, shape, width_tmm * scale / step_mm.mean())
    return tuple(grid.astype(np.float32))


def folded_depth(depth, pattern, step_tmm, sulcus_depth, half_width):
    """Depth below the folded (pial) surface of a body whose smooth hull has the given ``depth``.

    Sulci follow the zero lines of ``pattern``, read at the nearest point of the hull, so that they
    cut straight in.

    Parameters
    ----------
    depth, pattern, sulcus_depth : numpy.ndarray
        Depth below the hull (tmm), the fold pattern, and how deep sulci cut (tmm); (i, j, k).
    step_tmm : numpy.ndarray
        Distance of the samples, tmm, (3,).
    half_width : float
        Half the width of a sulcus at its mouth, tmm.

    Returns
    -------
    numpy.ndarray
        Depth in tmm, (i, j, k); negative in the sulci and outside.
    """
    slope = np.gradient(depth, *step_tmm)
    squared = np.maximum(sum(s**2 for s in slope), 0.3)
    index = np.indices(depth.shape, dtype=np.float32)
    for axis, step in enumerate(step_tmm):
        index[axis] -= depth * slope[axis] / squared / step
    surface = ndimage.map_coordinates(pattern, index, order=1, mode="nearest")
    steepness = np.sqrt(sum(g**2 for g in np.gradient(surface, *step_tmm)))
    lateral = np.abs(surface) / np.maximum(steepness, 0.35 * np.median(steepness))
    below = np.maximum(depth - sulcus_depth, 0)
    taper = 1 - 0.45 * np.clip(depth / sulcus_depth, 0, 1)
    return smooth_min(depth, np.hypot(lateral, below) - half_width * taper, 3.0)


@dataclass(frozen=True)
class Anatomy:
    """One brain on the fine grid; every array is (i, j, k).

    Attributes
    ----------
    fractions : dict of str to numpy.ndarray
        Share of a sample, 0..1, of each of ``TISSUES``; the shares add up to 1.
    eligible : numpy.ndarray
        Share of a sample, 0..1, that is white matter in which lesions may lie.
    brain, ventricle : numpy.ndarray
        Distance to the outer surface of the brain and to the lateral ventricles, tmm.
    white_depth : numpy.ndarray
        Depth below the border of cortex and white matter, tmm.
    """

    fractions: dict[str, np.ndarray]
    eligible: np.ndarray
    brain: np.ndarray
    ventricle: np.ndarray
    white_depth: np.ndarray


def make_anatomy(rng, shape, step_mm, scale, atrophy):
    """Build one brain on the fine grid.

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : tuple of int
        Fine grid (i, j, k).
    step_mm : numpy.ndarray
        Distance of the fine samples, mm, (3,).
    scale : float
        mm per tmm.
    atrophy : float
        0 (slim ventricles and sulci) to 1 (wide).

    Returns
    -------
    Anatomy
    """
    position = template_positions(rng, shape, step_mm, scale)
    x, y, z = position
    side = np.abs(x)
    paired = (side, y, z)
    step_tmm = step_mm / scale

    # Outer shape: two broad domes cut off by a floor, plus temporal lobes, cerebellum and stem.
    floor = -20 + 9 / (1 + np.exp((y + 42) / 5)) + 5 * np.exp(-((side / 18) ** 2))
    dome = smooth_min(
        ellipsoid(paired, (10, -22, 12), (57, 80, 63)), ellipsoid(paired, (10, 8, 10), (47, 60, 57)), 8
    )
    dome = -smooth_min(-dome, z - floor, 10)
    temporal = ellipsoid(paired, (43, -14, -22), (22, 44, 20))
    cerebrum = smooth_min(dome, temporal, 6)
    stem = tube(position, BRAINSTEM)
    cerebellum = smooth_min(
        ellipsoid(paired, (22, -63, -36), (29, 27, 20)), ellipsoid(position, (0, -60, -34), (14, 24, 22)), 6
    )
    cerebellum = np.maximum(cerebellum, 3.0 - cerebrum)
    brain = smooth_min(smooth_min(cerebrum, cerebellum, 16), stem, 8) - 0.6

    # Fissures: between the hemispheres, down to the corpus callosum, and above the temporal lobes.
    arch = (np.hypot((y + 6) / 41, (z - 2) / 33) - 1) * 36
    between = np.hypot(side, np.minimum(arch, 0)) - 1.0 - 0.5 * atrophy
    rise = -9 + 0.25 * np.maximum(10 - y, 0)
    beyond = np.maximum(np.maximum(y - 22, -38 - y), 0)
    sylvian = np.sqrt((z - rise) ** 2 + np.maximum(36 - side, 0) ** 2 + beyond**2) - 1.4 - 1.2 * atrophy

    depth = np.minimum(np.minimum(-cerebrum, between), sylvian)
    folds = labyrinth_noise(rng, shape, 34 * scale / step_mm.mean())
    # The hemispheres fold independently: read the pattern half a volume away for one of them.
    folds = np.where(x < 0, folds, np.roll(folds, shape[1] // 2, axis=1))
    # Neither cortex nor sulci where the fissure ends on the corpus callosum.
    cortical = np.where(side < 9, np.clip(arch / 5, 0.1, 1), 1)
    sulcus_depth = np.clip(15 + 4 * smooth_noise(rng, shape, 16 * scale / step_mm.mean()), 7, 22)
    # Shallow sulci under the basal ganglia, which they would otherwise cut.
    basal = soft(z - 8, 12) * soft(np.hypot(side, 0.8 * (y + 6)) - 30, 12)
    sulcus_depth *= cortical * (1 - 0.7 * basal)
    pial = folded_depth(depth, folds, step_tmm, sulcus_depth, 1.0 + 0.9 * atrophy)
    white_depth = pial - rng.uniform(4.0, 4.7) * cortical

    # The folds of the cerebellum fan out from its stalk.
    fan = np.arctan2(z + 34, -42 - y) / (2 * np.pi) * 20
    leaf = np.hypot(y + 42, z + 34) * np.abs(fan - np.round(fan)) * 2 * np.pi / 20
    folia = np.hypot(leaf, np.maximum(-cerebellum - 10, 0)) - 0.8
    pial_cerebellum = smooth_min(-cerebellum, folia, 2.0)

    ventricle = tube(paired, LATERAL_VENTRICLE, 0.72 + 0.55 * atrophy + rng.uniform(-0.05, 0.05))
    third = ellipsoid(position, (0, -13, 1), (1.6 + 2 * atrophy, 17, 11))
    fourth = ellipsoid(position, (0, -43, -34), (5, 3.5 + atrophy, 9))
    layers = (
        ("grey", soft(-pial)),
        ("white", soft(-white_depth)),
        ("grey", soft(-pial_cerebellum)),
        ("white", soft(3.6 - pial_cerebellum)),
        ("stem", soft(stem, 4.0)),
        ("thalamus", soft(ellipsoid(paired, (11, -19, 6), (9.5, 16, 9)), 3.0)),
        ("striatum", soft(ellipsoid(paired, (27, 2, 1), (6.5, 18, 11)))),
        ("pallidum", soft(ellipsoid(paired, (20, -3, -1), (4.5, 9, 7)), 2.5)),
        ("striatum", soft(tube(paired, CAUDATE))),
        ("csf", soft(np.minimum(np.minimum(ventricle, third), fourth))),
    )
    fractions = {name: np.zeros(shape, np.float32) for name in TISSUES}
    fractions["csf"] += 1
    for name, share in layers:
        for fraction in fractions.values():
            fraction *= 1 - share
        fractions[name] += share
    # Lesions keep out of the septum, the midline of the base and the tracts among the deep nuclei.
    central = np.minimum(
        np.maximum(np.minimum(arch + 9, z + 2), side - 9), ellipsoid(paired, (0, -8, -4), (34, 36, 17))
    )
    eligible = fractions["white"] * soft(-central, 3.0)
    return Anatomy(fractions, eligible, brain, ventricle, white_depth)
