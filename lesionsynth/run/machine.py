"""What this machine offers."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import lesionsynth
from lesionsynth import gzip_io
from lesionsynth.backend import gpu_report
from lesionsynth.run.pool import available_cores

_PACKAGES = (
    *("numpy", "scipy", "numba", "nibabel", "SimpleITK", "joblib", "pydantic", "typer", "rich"),
    *("isal", "deflate", "cupy"),
)


def describe(folder: Path) -> dict[str, str]:
    """Facts by name, as text."""
    engines = gzip_io.engines()
    disk = shutil.disk_usage(folder)
    return {
        "lesionsynth": lesionsynth.__version__,
        "python": f"{platform.python_version()} ({platform.system()} {platform.machine()})",
        "packages": ", ".join(f"{name} {_version(name)}" for name in _PACKAGES),
        "cores": f"{available_cores()} usable of {os.cpu_count()}",
        "memory": _memory(),
        "gpu": gpu_report(),
        "gzip": f"reads with {engines['read']}, writes with {engines['write']}",
        "disk": f"{disk.free / 1e9:.1f} GB free of {disk.total / 1e9:.1f} GB at {folder}",
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(missing)"


def _memory() -> str:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found = {line.split(":")[0]: int(line.split()[1]) / 2**20 for line in lines if ":" in line}
        return f"{found['MemAvailable']:.1f} GiB available of {found['MemTotal']:.1f} GiB"
    except (OSError, KeyError, ValueError):
        return "unknown"
