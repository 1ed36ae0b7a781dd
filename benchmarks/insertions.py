"""Can a classifier tell inserted from real lesions? Blends, contrasts and recipes compared on real images.

Every way to insert makes several copies of each host of a data set, as a run does, and writes them. What
tells them from real lesions is found as `lesionsynth realism` finds it: docs/reference/realism.md explains
the figures.
Records say no more than which lesions were inserted, and which real one each is made of.

AUC-D: no donor lesion, neither itself nor a copy of it, is in both parts. AUC-H: hosts are left out in turn.
0.5 is the floor: real against real, shared out at random, is given with its spread. Brackets hold 95 % of
bootstrap samples of donor lesions; another seed of the recipe moves a figure by up to 0.09 (3 copies). "own,
flips only" moves lesions within their own patient: the practical floor of AUC-D. With two hosts, each the
other's donor, AUC-H below 0.5 means that lesions bring along what is particular to their patient: what gives
them away in one host is how real ones look in the other, so that the rule learned turns round. PLACE is what
the surroundings, which no blend changes, give away by themselves; some of it must leak into the others.

Seam and contrast: median of the inserted over that of the real lesions, sizes weighed alike, in the channel
in which real lesions stand out most. Seam is the boundary-gradient ratio.

scikit-learn is wanted in the environment that runs this, and matplotlib for --figures.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pipeline import Quiet

from lesionsynth import nifti
from lesionsynth.domain.load import LoadTarget
from lesionsynth.errors import LesionsynthError
from lesionsynth.host import load_case
from lesionsynth.qc.audit_scope import Scope
from lesionsynth.qc.realism.copies import CopyFiles, look_at_copy
from lesionsynth.qc.realism.lesions import Seen, Way, look_at_case
from lesionsynth.qc.realism.sides import copy_files
from lesionsynth.qc.realism.two_sample import Sample, floor, limited, told_apart, weights
from lesionsynth.recipe.load import load_recipe
from lesionsynth.recipe.model import Recipe
from lesionsynth.run.cohort import open_cohort
from lesionsynth.run.job import HostJobs, write_case
from lesionsynth.run.pool import Engine, run_all
from lesionsynth.run.session import Prepared, prepare

_TILE = 12
_LEAST = 10
_SAMPLES = 200
_ALWAYS = ("folds.strategy=none", "output.originals=omit")
_MIX = ("lesionmix", "steps.add.surplus=keep")
_STIFF = ("steps.add.geometry.rotate.p=0", "steps.add.geometry.scale={p: 0, fit: [1, 1]}")
_ANY = "steps.add.check={contrast: [-1e9, 1e9], edge: [0, 1e9], detail: [0, 1e9], min_contrast: 0}"


def _blend(text: str) -> tuple[str, ...]:
    return (*_MIX, f"steps.add.blend={{{text}}}")


def _contrast(text: str) -> tuple[str, ...]:
    return (*_MIX, f"steps.add.contrast={{{text}}}")


VARIANTS: dict[str, tuple[str, ...]] = {
    "lesionmix": _MIX,
    "soft_poisson": ("soft_poisson", "steps.add.surplus=keep"),
    "soft_poisson k 0.5": _blend("kind: soft_poisson, k: [0.5, 0.5]"),
    "soft_poisson k 0.75": _blend("kind: soft_poisson, k: [0.75, 0.75]"),
    "soft_poisson k 1": _blend("kind: soft_poisson, k: [1, 1]"),
    "poisson, plain": _blend("kind: poisson"),
    "poisson, mixed": _blend("kind: poisson, gradients: mixed"),
    "rim": (*_blend("kind: rim"), _ANY),
    "hard": _blend("kind: hard"),
    "contrast shell": _contrast("kind: shell"),
    "contrast ratio": _contrast("kind: ratio"),
    "contrast zscore": _contrast("kind: zscore"),
    "contrast absolute": (*_contrast("kind: absolute"), _ANY),
    "flips only": (*_MIX, *_STIFF),
    "own, flips only": (
        "copy_paste",
        "steps.paste.pairing=intra",
        "steps.paste.geometry={rotate: {p: 0}, scale: {p: 0}, elastic: {p: 0}}",
        "steps.paste.blur.p=0",
        "steps.paste.gamma.p=0",
        "steps.paste.contrast.kind=shell",
        "steps.paste.blend={kind: alpha}",
        "steps.paste.site={inside: 0.6, like_donor: true}",
        "steps.paste.lesions=[30, 30]",
    ),
    "width 1 mm": _blend("kind: alpha, width_mm: 1"),
    "width 3 mm": _blend("kind: alpha, width_mm: 3"),
    "edge gaussian": _blend("kind: alpha, edge: gaussian"),
    "edge label": _blend("kind: alpha, edge: label"),
    "noise 0.3": _contrast("kind: host_lesions, noise: 0.3"),
    "check 0.85 to 1.18": (
        *_MIX,
        "steps.add.check={contrast: [0.85, 1.18], edge: [0.85, 1.18], detail: [0.85, 1.18]}",
    ),
    "no check": (*_MIX, _ANY),
    "lesionmix_published": ("lesionmix_published", "steps.add.surplus=keep"),
    "carve_mix": ("carve_mix",),
    "carve_mix_compatible": ("carve_mix_compatible",),
    "copy_paste": ("copy_paste", "steps.paste.lesions=[30, 30]"),
    "intensity_bump": ("intensity_bump", "steps.add.surplus=keep"),
    # Among outside masks there are large ones, which would use up the load.
    "mask_library": (
        "mask_library",
        "steps.add.surplus=keep",
        "sources.shapes.max_volume_mm3=600",
    ),
    "ellipsoid": (
        "ellipsoid",
        "steps.add.surplus=keep",
        # As small as the real ones: those of the recipe are 30 mm3 to 0.2 litres.
        "sources.shapes.sizes=[{radius_mm: 1.6}, {radius_mm: 2}, {radius_mm: 2.6}, {radius_mm: 3.4}]",
    ),
    "lesion_warp": ("lesion_warp", "steps.add.surplus=keep"),
}
"""Name of a recipe, and what is changed in it."""


@dataclass
class Data:
    """A data set, and what the copies of its hosts are made with."""

    root: Path
    copies: int
    seed: int
    extra_ml: float
    most: int
    engine: Engine
    prepared: dict[str, Prepared]

    def ready(self, recipe: Recipe, scratch: Path) -> Prepared:
        """Bank, fits and plan; shared by recipes that differ in steps and sources alone."""
        key = recipe.model_dump_json(exclude={"steps", "sources", "description"})
        if key not in self.prepared:
            self.prepared[key] = prepare(
                recipe, self.root, scratch / f"run{len(self.prepared)}", Quiet(), self.engine
            )
        prepared = self.prepared[key]
        return replace(prepared, space=replace(prepared.space, recipe=recipe))


def way_of(recipe: Recipe, cohort: Any, most: int) -> Way:
    """How cases are looked at."""
    alone = replace(cohort, cases=(), masks=(), splits=None)
    return Way(alone, recipe.tissue, recipe.bank, recipe.seed, most)


def real_lesions(data: Data) -> tuple[list[Seen], tuple[str, ...], dict[str, Any]]:
    """The data set's own lesions, its channels, and its cases by name."""
    recipe = load_recipe("lesionmix")
    _, cohort, _ = open_cohort(recipe.input, data.root)
    items = [(files.case, (way_of(recipe, cohort, 10**6), files)) for files in cohort.cases]
    found = list(run_all(look_at_case, items, stage="real", engine=data.engine, progress=Quiet()))
    rows = sorted((row for _, seen in found for row in seen), key=lambda row: (row.case, row.number))
    return rows, cohort.channels, {files.case: files for files in cohort.cases}


def inserted_lesions(
    data: Data, variant: tuple[str, ...], scratch: Path
) -> tuple[list[Seen], dict[str, CopyFiles]]:
    """Those that a recipe makes in copies of every host, and the copies, which lie in `scratch`."""
    name, *overrides = variant
    if name == "mask_library":
        overrides.append("input.masks.path=masks/{subject}.nii.gz")
    recipe = load_recipe(name, [*_ALWAYS, f"output.copies={data.copies}", f"seed={data.seed}", *overrides])
    prepared = data.ready(recipe, scratch)
    output = scratch / "copies"
    shutil.rmtree(output, ignore_errors=True)
    space = replace(prepared.space, output=output)
    alone = replace(space.cohort, cases=(), masks=(), splits=None)
    scope = Scope(output, recipe, alone, space.layout)
    labels = {files.case: files.label for files in space.cohort.cases}
    copies: dict[str, CopyFiles] = {}
    for files in space.cohort.cases:
        maker = HostJobs(space, files)
        load = LoadTarget(maker.host.load.ml + data.extra_ml, maker.host.load.ml + data.extra_ml, 0.001)
        targets = {step: load for step, spec in recipe.steps.items() if spec.target_load is not None}
        canvas = None
        for job in prepared.jobs:
            if job.host == files.case:
                try:
                    canvas, record, images = maker.make(replace(job, targets=targets), canvas)
                except LesionsynthError as error:
                    print(f"  {job.case}: {error}")
                    continue
                write_case(space, images, record)
                copies[job.case] = copy_files(scope, files, job.case, labels)
        maker.close()
    way = way_of(recipe, space.cohort, data.most)
    items = [(case, (way, copy, 0)) for case, copy in copies.items()]
    found = sorted(
        run_all(look_at_copy, items, stage="inserted", engine=data.engine, progress=Quiet()),
        key=lambda seen: seen.case,
    )
    by_host: dict[str, list[Seen]] = {}
    for seen in found:
        for row in seen.added:
            by_host.setdefault(row.host, []).append(row)
    kept = [row for host, rows in by_host.items() for row in limited(rows, data.most, recipe.seed, host)]
    return kept, copies


def lead_channel(real: list[Seen], channels: tuple[str, ...]) -> int:
    """Where real lesions stand out most."""
    return int(
        np.argmax([abs(np.median([row.look[f"{c} level"] for row in real])) for c in range(len(channels))])
    )


def ratio(real: list[Seen], made: list[Seen], feature: str) -> list[float]:
    """Median of the made over that of the real lesions, sizes weighed alike, and its interval by donor."""
    one, other = Sample.of(real), Sample.of(made)
    w_real, w_made, _ = weights(one, other)
    values = [np.array([row.look[feature] for row in rows]) for rows in (real, made)]
    names = np.unique(np.concatenate([one.group, other.group]), return_inverse=True)[1]
    groups = names[: len(real)], names[len(real) :]
    rng = np.random.default_rng(0)
    count = int(names.max()) + 1
    found = []
    for sample in range(_SAMPLES + 1):
        times = np.bincount(rng.integers(count, size=count), minlength=count) if sample else np.ones(count)
        medians = [_median(v, w * times[g]) for v, w, g in zip(values, (w_real, w_made), groups, strict=True)]
        found.append(medians[1] / medians[0])
    return [found[0], *(float(q) for q in np.percentile(found[1:], (2.5, 97.5)))]


def _median(values: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
    order = np.argsort(values)
    total = np.cumsum(weight[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)])


def compared(real: list[Seen], made: list[Seen], channels: tuple[str, ...], n_jobs: int) -> dict[str, Any]:
    """One row of the table."""
    one, other = Sample.of(real), Sample.of(made)
    lead = lead_channel(real, channels)
    return {
        "by_donor": asdict(told_apart(one, other, "group", "look", 0, _LEAST, n_jobs)),
        "by_host": asdict(told_apart(one, other, "host", "look", 0, _LEAST, n_jobs)),
        "place": asdict(told_apart(one, other, "group", "place", 0, _LEAST, n_jobs, rounds=1)),
        "seam": ratio(real, made, f"{lead} seam"),
        "contrast": ratio(real, made, f"{lead} level"),
        "all": {
            channel: {"seam": ratio(real, made, f"{c} seam"), "contrast": ratio(real, made, f"{c} level")}
            for c, channel in enumerate(channels)
        },
    }


def explained(real: list[Seen], made: list[Seen]) -> dict[str, float]:
    """The ten single features that tell most, and the area under the curve of each alone."""
    from sklearn.metrics import roc_auc_score

    one, other = Sample.of(real), Sample.of(made)
    weight = np.concatenate(weights(one, other)[:2])
    y = np.repeat([0, 1], [len(one), len(other)])
    x = np.concatenate([one.x, other.x])
    single = {
        name: float(roc_auc_score(y, x[:, c], sample_weight=weight)) for c, name in enumerate(one.names)
    }
    return dict(sorted(single.items(), key=lambda item: -abs(item[1] - 0.5))[:10])


def draw_tiles(
    real: list[Seen], made: list[Seen], name: str, path: Path, read: Callable[[Seen], NDArray[np.float32]]
) -> None:
    """A picture of real lesions above inserted ones, from small to large, all channels."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    count = 12
    shown = []
    for rows in (real, made):
        some = limited(sorted(rows, key=lambda row: row.volume_mm3)[len(rows) // 3 :], count, 1, "tiles")
        shown.append([read(row) for row in sorted(some, key=lambda row: row.volume_mm3)])
    channels = len(shown[0][0])
    figure, axes = plt.subplots(2 * channels, count, figsize=(count, 2 * channels + 0.4))
    for half, tiles in enumerate(shown):
        for c in range(channels):
            for axis, tile in zip(axes[half * channels + c], tiles, strict=False):
                axis.imshow(tile[c].T, cmap="gray", vmin=-6, vmax=8, origin="lower")
        axes[half * channels][0].set_title(("real", name)[half], loc="left", fontsize=8)
    for axis in axes.ravel():
        axis.axis("off")
    figure.tight_layout(pad=0.2)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def tile_reader(data: Data, hosts: dict[str, Any], copies: dict[str, CopyFiles]) -> Callable[[Seen], Any]:
    """Reads the slice through the middle of a lesion, in units of the spread of its host's tissue."""
    recipe = load_recipe("lesionmix")
    _, cohort, _ = open_cohort(recipe.input, data.root)
    stats = {case: load_case(files, cohort, recipe.tissue).tissue_stats for case, files in hosts.items()}

    def read(row: Seen) -> Any:
        files = copies[row.case].files if row.case in copies else hosts[row.case]
        i, j, k = row.centre_vox
        tiles = []
        for path, (level, spread) in zip(files.images, stats[row.host], strict=True):
            wide = np.pad(nifti.read(path).values()[:, :, k], _TILE, mode="edge")
            tile = wide[i : i + 2 * _TILE + 1, j : j + 2 * _TILE + 1]
            tiles.append((tile - level) / spread)
        return np.stack(tiles)

    return read


def line(name: str, row: dict[str, Any]) -> str:
    """One line of the table."""
    text = f"{name:<20}"
    for key in ("by_donor", "by_host", "place"):
        found = row[key]
        if found["value"] is None:
            text += f"  {found['note'][:18]:<18}"
        else:
            text += f"  {found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"
    for key in ("seam", "contrast"):
        middle, low, high = row[key]
        text += f"  {middle:.2f} [{low:.2f}, {high:.2f}]"
    sizes = row["by_donor"]
    return text + f"  {sizes['n_synthetic']:4d} of {sizes['n_both']:3d} donors, {sizes['n_real']} real"


def main() -> None:
    """Print one line a variant."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder; masks/ for mask_library")
    parser.add_argument("--copies", type=int, default=3, help="copies of each host")
    parser.add_argument("--seed", type=int, default=2026, help="of the recipes; the shipped ones have 2026")
    parser.add_argument("--extra-ml", type=float, default=2.4, help="lesions that are added to a copy")
    parser.add_argument("--most", type=int, default=150, help="lesions that are looked at, for each host")
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--explain", nargs="*", default=[], help="variants whose traces are listed")
    parser.add_argument("--figures", type=Path, help="folder for pictures of real above inserted lesions")
    parser.add_argument("--jobs", "-j", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    engine = Engine(n_jobs=arguments.jobs)
    data = Data(
        arguments.data, arguments.copies, arguments.seed, arguments.extra_ml, arguments.most, engine, {}
    )
    real, channels, hosts = real_lesions(data)
    lead = channels[lead_channel(real, channels)]
    print(f"{len(real)} real lesions in {len(hosts)} hosts; seam and contrast: {lead}")
    rows: dict[str, Any] = {}
    for apart, what in (("group", "AUC-D"), ("host", "AUC-H")):
        least = floor(Sample.of(real), apart, "look", 0, _LEAST // 2, arguments.jobs)
        rows[f"floor {what}"] = asdict(least)
        print(f"floor {what}: {least.value:.2f}, sd {least.high - least.value:.2f}")
    heads = ("AUC-D", "AUC-H", "PLACE", "seam", "contrast")
    print(f"{'':<20}" + "".join(f"  {head:<18}" for head in heads))
    with tempfile.TemporaryDirectory(prefix="lesionsynth-") as folder:
        for name in arguments.variants:
            made, copies = inserted_lesions(data, VARIANTS[name], Path(folder))
            if not made:
                print(f"{name:<20}  nothing inserted of the sizes compared")
                continue
            rows[name] = compared(real, made, channels, arguments.jobs)
            print(line(name, rows[name]), flush=True)
            if name in arguments.explain:
                rows[name]["features"] = explained(real, made)
                print("  " + ", ".join(f"{k} {v:.2f}" for k, v in rows[name]["features"].items()))
            if arguments.figures:
                arguments.figures.mkdir(parents=True, exist_ok=True)
                read = tile_reader(data, hosts, copies)
                draw_tiles(real, made, name, arguments.figures / f"{name}.png", read)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
