"""Plots of time against the size and the number of lesions."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from kernels import ISO, blob, textured
from measure import interleaved, medians
from pipeline import ready
from volumes import make_data_set

from lesionsynth.plugins import registry
from lesionsynth.run.job import run_host

SIDES = (12, 16, 24, 32, 48, 64)
COUNTS = (1, 5, 10, 20, 40)


def draw(folder: Path) -> None:
    """Write kernels.png (time per lesion against its size) and cases.png (time per case against lesions)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.5), constrained_layout=True)
    voxels = [side**3 // 8 for side in SIDES]
    for kind, times in _times("blends").items():
        left.loglog(voxels, 1000 * np.array(times), "o-", label=kind)
    for kind, times in _times("fills").items():
        right.loglog(voxels, 1000 * np.array(times), "o-", label=kind)
    for axes, title in ((left, "blend of 4 channels"), (right, "fill of 4 channels, without texture")):
        axes.set(xlabel="voxels of the lesion", ylabel="ms", title=title)
        axes.legend()
        axes.grid(alpha=0.3)
    figure.savefig(folder / "kernels.png", dpi=120)
    figure, axes = pyplot.subplots(figsize=(5.5, 4.5), constrained_layout=True)
    axes.plot(COUNTS, _case_seconds(), "o-")
    axes.set(
        xlabel="lesions added",
        ylabel="s",
        title="one case of 182x218x182, 4 channels:\nread, add, write",
        ylim=(0, None),
    )
    axes.grid(alpha=0.3)
    figure.savefig(folder / "cases.png", dpi=120)


def _times(group: str) -> dict[str, list[float]]:
    """Median seconds of every kind of a group for each size."""
    found: dict[str, list[float]] = {}
    for side in SIDES:
        region, host = blob(side, side**3 // 8), textured(side, 4)
        lesion = host[:, ::-1].copy()
        work = {}
        for kind in registry.kinds(group):
            spec = registry.create(group, kind)
            if group == "fills":
                work[kind] = lambda s=spec, h=host, r=region: s.fill(h, r, ~r, ISO)
            else:
                drawn = spec.draw(np.random.default_rng(0))
                work[kind] = lambda s=spec, h=host, m=lesion, r=region, d=drawn: s.compose(
                    h, m, s.alpha(r, np.ones_like(r), ISO), np.ones_like(r), d, ISO
                )
        for kind, seconds in medians(interleaved(work, 3)).items():
            found.setdefault(kind, []).append(seconds)
    return found


def _case_seconds() -> list[float]:
    """Median seconds of a case for each number of lesions."""
    with tempfile.TemporaryDirectory() as scratch:
        data = make_data_set(Path(scratch) / "data", 4)
        work = {}
        for count in COUNTS:
            made = ready(data, Path(scratch) / str(count), 1, count)
            work[str(count)] = lambda made=made: run_host(*made)
        middle = medians(interleaved(work, 3))
        return [middle[str(count)] for count in COUNTS]
