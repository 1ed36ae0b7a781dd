"""Kernels against the same work by other libraries, in one process, in turns."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from measure import Row, interleaved, medians, spoken_all
from scipy import fft, ndimage

from lesionsynth.kernels.deform import draw_control_mm, warp_image, warp_label, warp_onto, world_matrix
from lesionsynth.kernels.distance import distance_to_mm
from lesionsynth.kernels.masked_poisson import hard_poisson
from lesionsynth.kernels.poisson import solve_box

ISO = (1.0, 1.0, 1.0)


def blob(n: int, voxels: int) -> np.ndarray:
    """A bumpy region of about so many voxels in the middle of a cube."""
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(n, n, n)), 3)
    grid = np.indices((n, n, n)) - (n - 1) / 2
    level = np.sqrt((grid**2).sum(axis=0)) + 0.15 * n * noise / np.abs(noise).max()
    return np.asarray(level <= np.partition(level.ravel(), voxels)[voxels])


def textured(n: int, channels: int = 1) -> np.ndarray:
    """Smooth images with noise, (C, n, n, n) float32."""
    rng = np.random.default_rng(1)
    smooth = ndimage.gaussian_filter(rng.normal(size=(channels, n, n, n)), (0, 5, 5, 5))
    return (500 + 4000 * smooth + 10 * rng.normal(size=smooth.shape)).astype(np.float32)


def box_solve_rows(rounds: int) -> list[Row]:
    """T7: our sine transforms against SciPy's."""
    rows = []
    for n in (32, 64, 96):
        source = textured(n)[0]
        eigenvalues = 2 * np.cos(np.pi * np.arange(1, n + 1, dtype=np.float32) / (n + 1)) - 2
        total = eigenvalues[:, None, None] + eigenvalues[:, None] + eigenvalues

        def scipy_dst(source: np.ndarray = source, total: np.ndarray = total) -> np.ndarray:
            return fft.idstn(fft.dstn(source, type=1) / total, type=1)

        def ours(source: np.ndarray = source) -> np.ndarray:
            return solve_box(source, ISO)

        error = np.abs(scipy_dst() - ours()).max() / np.abs(scipy_dst()).max()
        seconds = interleaved({"scipy": scipy_dst, "ours": ours}, 3 * rounds)
        middle = medians(seconds)
        what = f"box solve {n}^3: scipy dstn / ours (largest difference {error:.0e} of the range)"
        ratio = middle["scipy"] / middle["ours"]
        rows.append(Row("T7", what, ratio, 1.8, "higher", detail=spoken_all(seconds)))
    return rows


def hard_solve_rows(rounds: int) -> list[Row]:
    """T9: our hard-mask solve against OpenCV's clone, slice by slice in 8 bits."""
    rows = []
    for n, voxels in ((32, 2700), (64, 47000)):
        region, host, lesion = blob(n, voxels), textured(n), textured(n)[:, ::-1].copy()
        work: dict[str, Callable[[], Any]] = {
            "ours": lambda h=host, s=lesion, r=region: hard_poisson(h, s, r, ~r, ISO)
        }
        try:
            import cv2
        except ImportError:
            rows.append(Row("T9", "hard-mask solve: OpenCV is not installed", float("nan"), None))
            continue
        low, high = min(host.min(), lesion.min()), max(host.max(), lesion.max())
        bytes_of = [
            np.repeat(np.round(255 * (image[0] - low) / (high - low)).astype(np.uint8)[..., None], 3, axis=-1)
            for image in (host, lesion)
        ]
        # OpenCV takes images of three channels only. It fails on thin masks; leaving those slices out is in
        # its favour.
        slices = [k for k in range(n) if region[:, :, k].sum() > 50]

        def opencv(
            pair: list[np.ndarray] = bytes_of, region: np.ndarray = region, slices: list[int] = slices
        ) -> None:
            for k in slices:
                mask = 255 * region[:, :, k].astype(np.uint8)
                at = [int((hit[0] + hit[-1]) // 2) for hit in map(np.unique, np.nonzero(mask))]
                host_slice, lesion_slice = (np.ascontiguousarray(image[:, :, k]) for image in pair)
                cv2.seamlessClone(lesion_slice, host_slice, mask, (at[1], at[0]), cv2.NORMAL_CLONE)

        seconds = interleaved({**work, "opencv": opencv}, rounds)
        middle = medians(seconds)
        what = (
            f"hard-mask Poisson, {int(region.sum())} voxels: seamlessClone, {len(slices)} slices of "
            f"{n} x {n} (8 bit, 3 equal channels, as it demands) / ours in 3-D, one channel"
        )
        ratio = middle["opencv"] / middle["ours"]
        rows.append(Row("T9", what, ratio, 3.0, "higher", detail=spoken_all(seconds)))
    return rows


def warp_rows(rounds: int) -> list[Row]:
    """T8: affine, flip and elastic in one interpolation of image and label, 64^3."""
    n = 64
    image, label = textured(n), blob(n, 20000).astype(np.uint16)
    world = world_matrix((True, False, False), (20.0, -10.0, 5.0), (1.1, 0.9, 1.05))
    control = draw_control_mm(np.random.default_rng(0), (n * 1.5,) * 3, 8.0, 1.0)
    body = (slice(8, n - 8),) * 3

    def ours(order: Literal[1, 3] = 3) -> None:
        warp = warp_onto(np.eye(3), np.eye(3), world, (n / 2,) * 3, body, (0, 0, 0), control, 8.0)
        warp_image(image, warp, order)
        warp_label(label, warp)

    work: dict[str, Callable[[], Any]] = {"ours": ours, "ours, linear": lambda: ours(1)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import torch
            import torchio
        except ImportError:
            return [Row("T8", "warp: TorchIO is not installed", float("nan"), None)]
        torch.set_num_threads(1)
        subject = torchio.Subject(
            image=torchio.ScalarImage(tensor=torch.from_numpy(image)),
            label=torchio.LabelMap(tensor=torch.from_numpy(label[None].astype(np.int16))),
        )
        transform = torchio.Compose(
            [
                torchio.RandomFlip(flip_probability=1.0),
                torchio.RandomAffine(image_interpolation="bspline"),
                torchio.RandomElasticDeformation(image_interpolation="bspline", max_displacement=3),
            ]
        )
        work["torchio"] = lambda: transform(subject)
        linear = torchio.Compose(
            [torchio.RandomAffine(), torchio.RandomElasticDeformation(max_displacement=3)]
        )
        work["torchio, linear"] = lambda: linear(subject)
        seconds = interleaved(work, rounds)
    middle = medians(seconds)
    what = "affine + flip + elastic of image and label, 64^3, cubic: TorchIO / ours"
    rows = [Row("T8", what, middle["torchio"] / middle["ours"], 20, "higher", detail=spoken_all(seconds))]
    linear_ratio = middle["torchio, linear"] / middle["ours, linear"]
    return [*rows, Row("T8", "the same, both linear (TorchIO's default)", linear_ratio, 20, "higher")]


def distance_rows(rounds: int) -> list[Row]:
    """Exact Euclidean distances of a lesion box against SciPy's."""
    mask = blob(64, 20000)
    seconds = interleaved(
        {
            "scipy": lambda: ndimage.distance_transform_edt(~mask, sampling=(1.0, 1.0, 3.0)),
            "ours": lambda: distance_to_mm(mask, (1.0, 1.0, 3.0)),
        },
        3 * rounds,
    )
    middle = medians(seconds)
    return [
        Row(
            "EDT",
            "exact distances, 64^3: SciPy / ours",
            middle["scipy"] / middle["ours"],
            2.7,
            "higher",
            detail=spoken_all(seconds),
        )
    ]
