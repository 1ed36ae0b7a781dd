"""What this machine offers, and how many workers fit on it."""

from __future__ import annotations

import math
import os
import platform
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import lesionsynth
from lesionsynth import gzip_io, nifti
from lesionsynth.backend import gpu_report
from lesionsynth.domain.case import CaseFiles, Cohort
from lesionsynth.errors import ExitCode, ImageError, LesionsynthError
from lesionsynth.recipe.model import Recipe
from lesionsynth.run.models import used
from lesionsynth.run.pool import Engine, Progress

_PACKAGES = (
    *("numpy", "scipy", "numba", "nibabel", "SimpleITK", "joblib", "pydantic", "typer", "rich"),
    *("isal", "deflate", "cupy"),
)
_UNITS_MB = {"": 1.0, "M": 1.0, "MB": 1.0, "G": 1024.0, "GB": 1024.0, "T": 1024.0**2, "TB": 1024.0**2}
_BASE_MB = 240.0
"""Memory of a process before its first case: the interpreter, libraries and compiled code."""
_TORCH_MB = 1000.0
"""What torch, MONAI and the largest network, a translation of full size, take beyond that."""
_LOOKED_AT = 100
"""Cases whose headers tell how large cases are."""
_PATIENCE_S = 10
_SHARE = 0.9
"""Share of the free memory that workers may take where nobody says how much they may."""


class MachineError(LesionsynthError):
    """A number of workers or an amount of memory that cannot be."""

    exit_code = ExitCode.USAGE


def available_cores() -> int:
    """Cores this process may use: affinity, cgroup and Slurm, whichever is least."""
    import joblib

    cores: int = joblib.cpu_count()
    slurm = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return min(cores, int(slurm)) if slurm.isdigit() and int(slurm) > 0 else cores


def engine_of(n_jobs: str, mem: str | None, scheduler: str | None = None) -> Engine:
    """The engine that --n-jobs, --mem and --scheduler ask for.

    With auto (or 0) every core is used, as far as the memory of the machine or the job allows.
    """
    if n_jobs != "auto" and not (n_jobs.isdigit() and len(n_jobs) < 6):
        raise MachineError(f"--n-jobs {n_jobs}: should be a number of processes, or auto.")
    asked = 0 if n_jobs == "auto" else int(n_jobs)
    mem_mb = None if mem is None else parse_mem_mb(mem)
    if asked == 0 and mem_mb is None:
        limits = list(_memory_limits_mb())
        mem_mb = _SHARE * min(limits) if limits else None
    if scheduler is not None:
        return Engine(_dask_threads(scheduler), None, scheduler)
    return Engine(asked or available_cores(), mem_mb)


def _dask_threads(scheduler: str) -> int:
    """Threads of all workers of a Dask scheduler."""
    try:
        from distributed import Client
    except ImportError:
        raise MachineError(
            "--scheduler needs Dask.", remedy="Install it: pip install 'lesionsynth[dask]'."
        ) from None
    try:
        connect: Any = Client
        with connect(scheduler, timeout=_PATIENCE_S, set_as_default=False) as client:
            threads = sum(client.nthreads().values())
    except (OSError, ValueError, TimeoutError) as error:
        raise MachineError(
            f"--scheduler {scheduler}: no Dask scheduler answers ({error}).",
            remedy="Give the address that `dask scheduler` prints, such as tcp://10.0.0.1:8786.",
        ) from None
    if threads == 0:
        raise MachineError(f"--scheduler {scheduler}: the scheduler has no workers yet.")
    return int(threads)


def parse_mem_mb(text: str) -> float:
    """Read an amount of memory such as 16G, 500M or 4000 (megabytes)."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)\s*([MGT]B?)?", text.strip().upper())
    if match is None or float(match.group(1)) == 0:
        raise MachineError(f"--mem {text}: should be an amount such as 16G or 4000M.")
    return float(match.group(1)) * _UNITS_MB[match.group(2) or ""]


def _memory_limits_mb() -> Iterator[float]:
    """Free memory, and what Slurm and the cgroup allow."""
    free = _meminfo_gb().get("MemAvailable")
    if free is not None:
        yield 1024 * free
    for name, times in (("SLURM_MEM_PER_NODE", 1), ("SLURM_MEM_PER_CPU", available_cores())):
        slurm = os.environ.get(name, "")
        if slurm.isdigit() and int(slurm) > 0:
            yield float(slurm) * times
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(path).read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            yield int(text) / 2**20


def bounded(engine: Engine, cohort: Cohort, progress: Progress, recipe: Recipe) -> Engine:
    """`engine` with no more workers than its memory holds, by an estimate from the size of the cases."""
    if engine.mem_mb is None or engine.n_jobs == 1 or engine.scheduler is not None:
        return engine
    each = worker_mb(cohort, recipe)
    fitting = max(1, math.floor((engine.mem_mb - _BASE_MB) / each))
    if fitting >= engine.n_jobs:
        return engine
    progress.note(
        f"{fitting} worker(s) instead of {engine.n_jobs}: each takes about {each:.0f} MB, and all may take "
        f"{engine.mem_mb:.0f} MB."
    )
    return replace(engine, n_jobs=fitting)


def worker_mb(cohort: Cohort, recipe: Recipe) -> float:
    """Memory of one worker, estimated from the largest of up to a hundred cases.

    A voxel takes twice its stored size and four float32 numbers a channel, and 30 bytes for labels, tissue,
    zones, lesions and maps: measured with one to four channels, see docs/how-to/hpc.md. Steps may need more
    (`memory_vox`), and trained models need torch.
    """
    step = max(1, len(cohort.cases) // _LOOKED_AT)
    more = max(operation.memory_vox for operation in recipe.steps.values())
    torch_mb = _TORCH_MB if any(used(recipe)) else 0.0
    return _BASE_MB + torch_mb + max((_case_mb(case, more) for case in cohort.cases[::step]), default=0.0)


def _case_mb(case: CaseFiles, more: int) -> float:
    try:
        shape, dtype = nifti.peek(case.images[0])
    except ImageError:
        return 0.0  # it will be said where it is read
    bytes_per_voxel = len(case.images) * (2 * dtype.itemsize + 16 + more) + 30
    return math.prod(shape) * bytes_per_voxel / 2**20


def describe(folder: Path) -> dict[str, str]:
    """Facts by name, as text."""
    engines = gzip_io.engines()
    disk = shutil.disk_usage(folder)
    memory = _meminfo_gb()
    return {
        "lesionsynth": lesionsynth.__version__,
        "python": f"{platform.python_version()} ({platform.system()} {platform.machine()})",
        "packages": ", ".join(f"{name} {_version(name)}" for name in _PACKAGES),
        "cores": f"{available_cores()} usable of {os.cpu_count()}",
        "memory": f"{memory['MemAvailable']:.1f} GiB available of {memory['MemTotal']:.1f} GiB"
        if memory
        else "unknown",
        "gpu": gpu_report(),
        "gzip": f"reads with {engines['read']}, writes with {engines['write']}",
        "disk": f"{disk.free / 1e9:.1f} GB free of {disk.total / 1e9:.1f} GB at {folder}",
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(missing)"


def _meminfo_gb() -> dict[str, float]:
    """Gibibytes by name, as the system tells them; empty where it does not."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return {line.split(":")[0]: int(line.split()[1]) / 2**20 for line in lines if ":" in line}
    except (OSError, IndexError, ValueError):
        return {}
