"""Kernels and whole cases on a GPU beside one CPU core, and how near they come to what the GPU can do.

    python benchmarks/gpu.py                      everything
    python benchmarks/gpu.py --only solve warp    kernels whose name begins so, or `case`
    python benchmarks/gpu.py --json now.json

Run by `make gpu`, on a machine with a CUDA device and CuPy; without one it says so and ends with status 1.

The limits are measured first, in the same process: memory by copying a large array (bytes read and written),
arithmetic by a product of large float32 matrices. A kernel's floor is what it cannot do without: its inputs
read once and its outputs written once at the one rate, or its operations at the other, whichever is longer.
`% limit` is floor / time. Iterated kernels read their arrays many times, so theirs is small by nature; boxes
that fit into the GPU's cache may beat its memory. Arrays lie on the GPU already; what a box costs on its way
there and back is a line of its own. Times are medians of several rounds of many calls, with one wait for the
device a round; the CPU's BLAS has one thread. `error` is the relative difference from the CPU.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from kernels import ISO, blob, textured

from lesionsynth import backend
from lesionsynth.kernels.alpha import composite, grown_edge
from lesionsynth.kernels.deform import Warp, draw_control_mm, upsample, warp_image, warp_label, world_matrix
from lesionsynth.kernels.diffusion import biharmonic_fill, harmonic_fill
from lesionsynth.kernels.distance import distance_to_mm
from lesionsynth.kernels.exemplar import clean_blocks, exemplar_fill
from lesionsynth.kernels.inpaint import fast_marching_fill
from lesionsynth.kernels.masked_poisson import hard_poisson
from lesionsynth.kernels.poisson import soft_poisson, solve_box
from lesionsynth.kernels.trend import trend_fill

_ROUND_S = 0.05
_COPY_BYTES = 2**30
_MATRIX = 8192
_NONE = float("nan")
_WIDTHS = (11, 11, 9, 10, 10, 10, 10)


@dataclass(frozen=True)
class Work:
    """A kernel and its arrays, on the host; what it must read, write and compute."""

    name: str
    kernel: Callable[..., Any]
    arrays: Sequence[np.ndarray]
    n_bytes: float
    n_operations: float = 0.0


@dataclass(frozen=True)
class Figure:
    """What was measured of a kernel; rates in GB/s and TFLOP/s are of its fewest bytes and operations."""

    name: str
    gpu_ms: float
    cpu_ms: float
    gb_per_s: float = _NONE
    tflop_per_s: float = _NONE
    of_limit: float = _NONE
    error: float = _NONE

    def as_json(self) -> dict[str, Any]:
        """The figure for the JSON file, which knows no NaN."""
        return {name: None if value != value else value for name, value in asdict(self).items()}


class Gpu:
    """The device that is measured."""

    def __init__(self) -> None:
        import cupy

        self.cupy = cupy
        self.gb_per_s = self.tflop_per_s = _NONE

    def time(self, work: Callable[[], Any], rounds: int) -> float:
        """Seconds of one call, the median of `rounds` rounds that take 50 ms or one call each."""
        work()  # compiles
        calls = max(1, int(_ROUND_S / max(self._seconds(work, 2), 1e-7)))
        return statistics.median(self._seconds(work, calls) for _ in range(rounds))

    def _seconds(self, work: Callable[[], Any], calls: int) -> float:
        device = self.cupy.cuda.Device()
        device.synchronize()
        started = time.perf_counter()
        for _ in range(calls):
            work()
        device.synchronize()
        return (time.perf_counter() - started) / calls

    def measure_limits(self, rounds: int, copy_bytes: int = _COPY_BYTES, n: int = _MATRIX) -> None:
        """Rates of a large copy and of a large product of matrices, on random numbers."""
        xp = self.cupy
        matrix = xp.asarray(np.random.default_rng(0).standard_normal((n, n), dtype=np.float32))
        product = xp.empty_like(matrix)
        seconds = self.time(lambda: xp.matmul(matrix, matrix, out=product), rounds)
        self.tflop_per_s = 2e-12 * n**3 / seconds
        flat = matrix.ravel()
        source = xp.concatenate([flat] * max(1, copy_bytes // flat.nbytes))
        target = xp.empty_like(source)

        def copy() -> None:
            target[...] = source

        self.gb_per_s = 2e-9 * source.nbytes / self.time(copy, rounds)

    def figure(self, work: Work, rounds: int) -> Figure:
        """Run a kernel here and on the CPU."""
        there = [self.cupy.asarray(array) for array in work.arrays]
        gpu_s = self.time(lambda: work.kernel(*there), rounds)
        found = self.cupy.asnumpy(work.kernel(*there)).astype(np.float64)
        cpu_s, expected = _on_cpu(work, rounds)
        gb, tflop = 1e-9 * work.n_bytes, 1e-12 * work.n_operations
        floor_s = max(gb / self.gb_per_s, tflop / self.tflop_per_s)
        return Figure(
            work.name,
            gpu_ms=1e3 * gpu_s,
            cpu_ms=1e3 * cpu_s,
            gb_per_s=gb / gpu_s,
            tflop_per_s=tflop / gpu_s if tflop else _NONE,
            of_limit=floor_s / gpu_s,
            error=float(np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-30)),
        )


def _on_cpu(work: Work, rounds: int) -> tuple[float, np.ndarray]:
    """Seconds of one call on the CPU, and its result."""
    expected = np.asarray(work.kernel(*work.arrays), dtype=np.float64)
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        work.kernel(*work.arrays)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds), expected


def solves() -> Iterator[Work]:
    """Box solves of several lesions and channels at once, the blend around one, and on a mask."""
    for n, batch in ((32, 1), (32, 64), (64, 1), (64, 32), (96, 1), (96, 16)):
        source = np.random.default_rng(n).standard_normal((batch, n, n, n), dtype=np.float32)
        # Six products of a matrix with n^2 vectors: there and back along three axes.
        operations = 12.0 * batch * n**4
        yield Work(
            f"solve box {batch} x {n}^3",
            partial(solve_box, spacing_mm=ISO),
            [source],
            2.0 * source.nbytes,
            operations,
        )
    for n, voxels in ((32, 2700), (64, 47000)):
        region, host, lesion = blob(n, voxels), textured(n, 4), textured(n, 4)[:, ::-1].copy()
        alpha = grown_edge(region, ISO, 2.0)
        arrays = [host, lesion, alpha]
        soft = partial(soft_poisson, k=0.5, spacing_mm=ISO)
        yield Work(f"soft Poisson 4 x {n}^3", soft, arrays, _bytes(*arrays, host), 12.0 * 4 * n**4)
        yield Work(f"composite 4 x {n}^3", composite, arrays, _bytes(*arrays, host))
        arrays = [host, lesion, region, ~region]
        hard = partial(hard_poisson, spacing_mm=ISO)
        yield Work(f"hard Poisson 4 channels, {voxels} voxels", hard, arrays, _bytes(*arrays, host))


def warps() -> Iterator[Work]:
    """Affine and elastic in one interpolation, 64^3: images by splines, labels by class."""
    n = 64
    image, label = textured(n, 4), blob(n, 20000).astype(np.uint16)
    control = draw_control_mm(np.random.default_rng(0), (n * 1.5,) * 3, 8.0, 1.0)
    field = np.asarray(upsample(control.astype(np.float32), (n, n, n), (8.0, 8.0, 8.0)))
    matrix = np.linalg.inv(world_matrix((True, False, False), (20.0, -10.0, 5.0), (1.1, 0.9, 1.05)))

    def warp(field: Any) -> Warp:
        return Warp(matrix, np.full(3, n / 2), (-n // 2,) * 3, (n, n, n), field)

    for order, taps in ((1, 8), (3, 64)):
        yield Work(
            f"warp 4 x {n}^3, order {order}",
            lambda image, field, order=order: warp_image(image, warp(field), order),
            [image, field],
            _bytes(image, image, field),
            2.0 * taps * image.size,
        )
    yield Work(
        f"warp label {n}^3",
        lambda label, field: warp_label(label, warp(field)),
        [label, field],
        _bytes(label, label, field),
    )
    yield Work(
        f"distances {n}^3", partial(distance_to_mm, spacing_mm=(1.0, 1.0, 3.0)), [label > 0], 5.0 * n**3
    )


def fills() -> Iterator[Work]:
    """Three channels of a region of 3,000 and one of 20,000 voxels; patch with its blocks at hand."""
    kinds: dict[str, Callable[..., Any]] = {
        "harmonic": harmonic_fill,
        "biharmonic": biharmonic_fill,
        "fast marching": fast_marching_fill,
        "trend": trend_fill,
    }
    for n, voxels in ((34, 3000), (56, 20000)):
        image, region = textured(n, 3), blob(n, voxels)
        arrays, size = [image, region, ~region], f"3 channels, {voxels} voxels"
        for name, fill in kinds.items():
            yield Work(f"fill {name} {size}", partial(fill, spacing_mm=ISO), arrays, _bytes(*arrays, image))
        found = clean_blocks(image, ~region, (slice(0, n),) * 3, ISO)
        assert found is not None
        blocks, reach = found
        patch = partial(_patch, reach=reach)
        arrays = [*arrays, blocks]
        yield Work(f"fill patch {size}", patch, arrays, _bytes(*arrays, image))


def _patch(image: Any, region: Any, source: Any, blocks: Any, reach: list[int]) -> Any:
    return exemplar_fill(image, region, source, ISO, blocks, reach)


def _bytes(*arrays: np.ndarray) -> float:
    return float(sum(array.nbytes for array in arrays))


def travel(gpu: Gpu, rounds: int) -> list[Figure]:
    """A box of four channels on its way to the GPU and back, beside a copy on the host."""
    figures = []
    for n in (32, 64, 96):
        box = textured(n, 4)
        seconds = gpu.time(lambda box=box: gpu.cupy.asnumpy(gpu.cupy.asarray(box)), rounds)
        cpu_s, _ = _on_cpu(Work("", np.copy, [box], 0), rounds)
        rate = 2e-9 * box.nbytes / seconds
        figures.append(Figure(f"box 4 x {n}^3 there and back", 1e3 * seconds, 1e3 * cpu_s, rate))
    return figures


def cases(rounds: int) -> list[Figure]:
    """Whole cases of 4 channels at 182x218x182, read, edited and written, with --device cuda and cpu."""
    import pipeline
    from volumes import make_data_set

    from lesionsynth.recipe.model import Recipe
    from lesionsynth.run.job import run_host
    from lesionsynth.run.prepare import prepare

    figures = []
    with tempfile.TemporaryDirectory() as scratch:
        root = make_data_set(Path(scratch) / "data", 4)
        emptied = Recipe.model_validate(
            {
                "steps": {"clear": {"kind": "inpaint", "lesions": "all", "inpaint": {"kind": "biharmonic"}}},
                "folds": {"strategy": "none"},
            }
        )
        prepared = prepare(emptied, root, Path(scratch) / "inpaint", pipeline.Quiet())
        host = prepared.space.cohort.cases[0]
        jobs = [job for job in prepared.jobs if job.host == host.case]
        work = {
            "case populate, 10 lesions, soft_poisson": pipeline.ready(root, Path(scratch) / "populate", 1),
            "case inpaint, all lesions, biharmonic": (prepared.space, host, jobs),
        }
        for name, (space, files, todo) in work.items():
            seconds: dict[str, list[float]] = {"cuda": [], "cpu": []}
            for number in range(rounds + 1):
                for device, values in seconds.items():
                    started = time.perf_counter()
                    run_host(replace(space, device=device), files, todo)
                    if number:
                        values.append(time.perf_counter() - started)
            gpu_s, cpu_s = (statistics.median(seconds[device]) for device in ("cuda", "cpu"))
            figures.append(Figure(name, 1e3 * gpu_s, 1e3 * cpu_s))
    return figures


def line(figure: Figure) -> str:
    """A row of the table."""

    def cell(value: float, form: str) -> str:
        return "" if value != value else format(value, form)

    cells = (
        cell(figure.gpu_ms, ".4g"),
        cell(figure.cpu_ms, ".4g"),
        cell(figure.cpu_ms / figure.gpu_ms, ".3g"),
        cell(figure.gb_per_s, ".4g"),
        cell(figure.tflop_per_s, ".3g"),
        cell(100 * figure.of_limit, ".3g"),
        cell(figure.error, ".1e"),
    )
    return f"{figure.name:42}" + "".join(
        text.rjust(width) for text, width in zip(cells, _WIDTHS, strict=True)
    )


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--only", nargs="*", default=[], metavar="NAME", help="beginnings of names, such as warp"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    about = backend.gpu_report()
    if about.startswith("none"):
        sys.exit(f"no CUDA device: {about}; nothing was measured")
    gpu = Gpu()
    gpu.measure_limits(arguments.rounds)
    limits = f"copy {gpu.gb_per_s:.4g} GB/s, float32 product {gpu.tflop_per_s:.3g} TFLOP/s"
    print(f"{about}\nlimits: {limits}\n")
    heads = zip(("GPU ms", "CPU ms", "CPU/GPU", "GB/s", "TFLOP/s", "% limit", "error"), _WIDTHS, strict=True)
    print(" " * 42 + "".join(head.rjust(width) for head, width in heads))
    figures: list[Figure] = []

    def wanted(name: str) -> bool:
        return not arguments.only or any(name.startswith(start) for start in arguments.only)

    def add(more: Sequence[Figure]) -> None:
        for figure in more:
            print(line(figure), flush=True)
        figures.extend(more)

    for group in (solves, warps, fills):
        for work in group():
            if wanted(work.name):
                add([gpu.figure(work, arguments.rounds)])
    if wanted("box"):
        add(travel(gpu, arguments.rounds))
    if wanted("case"):
        add(cases(arguments.rounds))
    if arguments.json:
        content = {
            "device": about,
            "limits": {"gb_per_s": gpu.gb_per_s, "tflop_per_s": gpu.tflop_per_s},
            "figures": [figure.as_json() for figure in figures],
        }
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
