"""Can a classifier tell inserted from real lesions? Blends, contrasts and recipes compared on real images.

Every way to insert makes several copies of each host of a data set, as a run does. Each copy is written,
read again and looked at as a stranger would: images and label only (tissue is found anew). A random forest
then tells the lesions that were inserted from those that the hosts really have, by features of the place
(contrast, radial profile, texture, edge, by channel; see blind.py). Records say no more than which lesions
were inserted, and which real one each is made of.

AUC-D: no donor lesion, neither itself nor a copy of it, is in both parts. AUC-H: one host is left out in
turn. 0.5 is the floor: real against real, shared out at random, is given with its spread. Brackets hold 95 %
of bootstrap samples of donor lesions; another seed of the recipe moves a figure by up to 0.09 (3 copies).
"own, flips only" moves lesions within their own patient: the practical floor of AUC-D. With two hosts, each
the other's donor, AUC-H below 0.5 means that lesions bring along what is particular to their patient: what
gives them away in one host is how real ones look in the other, so that the rule learned turns round.

Lesions are weighted so that real and inserted ones are alike in size and number in every host, and nothing
that only tells the size is a feature: volume, extent, rings deeper inside than a voxel. Nor is anything
beyond 3 mm, where no blend of usual width changes a voxel: that tells the kind of place. What such features
give away by themselves is the column PLACE (by donor, too); some of it must leak into the others.

scikit-learn is wanted in the environment that runs this, and matplotlib for --figures.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import blind
import numpy as np
from numpy.typing import NDArray
from pipeline import Quiet

from lesionsynth import nifti
from lesionsynth.domain.case import CaseFiles
from lesionsynth.domain.grid import Box, grown
from lesionsynth.domain.load import LoadTarget
from lesionsynth.editing.canvas import DISPLACED, FIRST_DONOR, Canvas
from lesionsynth.errors import LesionsynthError
from lesionsynth.host import LoadedCase, load_case
from lesionsynth.kernels.components import components
from lesionsynth.kernels.tissue import is_solid
from lesionsynth.recipe.load import load_recipe
from lesionsynth.recipe.model import Recipe
from lesionsynth.run.cohort import open_cohort
from lesionsynth.run.job import HostJobs
from lesionsynth.run.session import Prepared, prepare

BINS_MM3 = (10.0, 20.0, 40.0, 80.0, 5000.0)
"""Sizes that are weighed alike; smaller lesions are specks, larger ones too few."""

_RINGS_MM = (-1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
_BEYOND = ("+3 mm", "+4 mm", "+5 mm", "alike around")
_LEAST_SHELL_VOX = 20
_TILE = 12
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
class Table:
    """Lesions as a classifier sees them: rows of features, and what they are grouped and weighed by."""

    x: NDArray[np.float64]
    host: NDArray[np.int64]
    donor: NDArray[np.str_]
    volume_mm3: NDArray[np.float64]
    tiles: NDArray[np.float32]

    @classmethod
    def of(cls, rows: list[dict[str, Any]]) -> Table:
        """From what `seen` has found."""
        return cls(
            np.array([list(row["looks"].values()) for row in rows]),
            np.array([row["host"] for row in rows]),
            np.array([row["donor"] for row in rows]),
            np.array([row["volume_mm3"] for row in rows]),
            np.array([row["tile"] for row in rows], dtype=np.float32),
        )

    @classmethod
    def kept(cls, path: Path | None, make: Callable[[], Table | None]) -> Table | None:
        """Read from `path`, or made and written there."""
        if path is not None and path.is_file():
            with np.load(path) as stored:
                return cls(**stored)
        table = make()
        if path is not None and table is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, **{name: getattr(table, name) for name in cls.__dataclass_fields__})
        return table

    def part(self, index: Any) -> Table:
        """Some of the rows."""
        return Table(*(getattr(self, name)[index] for name in self.__dataclass_fields__))

    @property
    def cell(self) -> NDArray[np.int64]:
        """Host and size class of each row."""
        return self.host * len(BINS_MM3) + np.digitize(self.volume_mm3, BINS_MM3)


@dataclass
class Data:
    """A data set, and what the copies of its hosts are made with."""

    root: Path
    channels: list[str]
    copies: int
    extra_ml: float
    most: int
    prepared: dict[str, tuple[Any, Prepared]]

    def ready(self, recipe: Recipe, scratch: Path) -> Prepared:
        """Bank, fits and plan; shared by recipes that differ in steps and sources alone."""
        key = recipe.model_dump_json(exclude={"steps", "sources", "description"})
        if key not in self.prepared:
            folder = scratch / f"run{len(self.prepared)}"
            self.prepared[key] = (recipe, prepare(recipe, self.root, folder, Quiet()))
        prepared = self.prepared[key][1]
        return replace(prepared, space=replace(prepared.space, recipe=recipe))


def seen(
    case: LoadedCase, number: int, box: Box, host: int, donor: str, channels: list[int]
) -> dict[str, Any]:
    """One lesion of a case as a stranger sees it."""
    around = grown(box, (max(blind.MARGIN, _TILE),) * 3, case.grid.shape)
    instances = case.lesions[0][around]
    mask = instances == number
    tissue = (is_solid(case.tissue[around]) & (instances == 0)) | mask
    white = case.clean_tissue[around]
    clean = white if np.count_nonzero(white) >= _LEAST_SHELL_VOX else None
    values = np.stack([case.images[c].values(around) for c in channels])
    scale = [case.tissue_stats[c][1] for c in channels]
    spacing = case.grid.spacing_mm
    level = [case.tissue_stats[c][0] for c in channels]
    return {
        "looks": blind.looks(
            values, mask, tissue, scale, spacing, inner_mm=0.0, rings_mm=_RINGS_MM, around=clean
        ),
        "host": host,
        "donor": donor,
        "volume_mm3": float(np.count_nonzero(mask)) * case.grid.voxel_volume_mm3,
        "tile": _tile(values, mask, level, scale),
    }


def _tile(
    values: NDArray[np.float32], mask: NDArray[np.bool_], level: list[float], scale: list[float]
) -> NDArray[np.float32]:
    """The slice that shows most of the lesion, about its middle, in units of the tissue's spread."""
    k = int(np.argmax(mask.sum(axis=(0, 1))))
    middle = np.rint(np.argwhere(mask[:, :, k]).mean(axis=0)).astype(int) + _TILE
    wide = np.pad(values[:, :, :, k], ((0, 0), (_TILE, _TILE), (_TILE, _TILE)), mode="edge")
    (i, j), n = middle, _TILE
    tile = wide[:, i - n : i + n + 1, j - n : j + n + 1]
    return (tile - np.array(level)[:, None, None]) / np.array(scale)[:, None, None]


def fitting(case: LoadedCase, number: int, box: Box) -> bool:
    """Whether a lesion is of a size that is compared."""
    count = np.count_nonzero(case.lesions[0][box] == number)
    return BINS_MM3[0] <= count * case.grid.voxel_volume_mm3 < BINS_MM3[-1]


def real_lesions(data: Data) -> tuple[Table, list[str]]:
    """The data set's own, and the names of their features."""
    recipe = load_recipe("lesionmix")
    _, cohort, _ = open_cohort(recipe.input, data.root)
    chosen = [cohort.channels.index(name) for name in data.channels or cohort.channels]
    data.channels = [cohort.channels[c] for c in chosen]
    rows = []
    for host, files in enumerate(cohort.cases):
        case = load_case(files, cohort, recipe.tissue)
        for number, box in enumerate(case.lesions[1], start=1):
            if fitting(case, number, box):
                rows.append(seen(case, number, box, host, f"{files.case}/{number}", chosen))
    return Table.of(rows), list(rows[0]["looks"])


def inserted_lesions(data: Data, variant: tuple[str, ...], scratch: Path) -> Table | None:
    """Those that a recipe makes in copies of every host; None where it makes none."""
    name, *overrides = variant
    if name == "mask_library":
        overrides.append("input.masks.path=masks/{subject}.nii.gz")
    recipe = load_recipe(name, [*_ALWAYS, f"output.copies={data.copies}", *overrides])
    prepared = data.ready(recipe, scratch)
    space = prepared.space
    rows: list[dict[str, Any]] = []
    for host, files in enumerate(space.cohort.cases):
        maker = HostJobs(space, files)
        load = LoadTarget(maker.host.load.ml + data.extra_ml, maker.host.load.ml + data.extra_ml, 0.001)
        targets = {step: load for step, spec in recipe.steps.items() if spec.target_load is not None}
        found: list[dict[str, Any]] = []
        canvas = None
        for job in prepared.jobs:
            if job.host == files.case:
                try:
                    made = maker.make(replace(job, targets=targets), canvas)
                except LesionsynthError as error:
                    print(f"  {job.case}: {error}")
                    continue
                canvas = made.canvas
                found += _of_copy(data, maker, canvas, made.record, host, scratch)
        keep = np.random.default_rng(0).permutation(len(found))[: data.most]
        rows += [found[k] for k in sorted(keep)]
        maker.bank.close()
    return Table.of(rows) if rows else None


def _of_copy(
    data: Data, maker: HostJobs, canvas: Canvas, record: dict[str, Any], host: int, scratch: Path
) -> list[dict[str, Any]]:
    """Inserted lesions of one copy: components of its label map that were made for the most part."""
    space = maker.space
    case = _read_again(maker, canvas, scratch)
    chosen = [space.cohort.channels.index(name) for name in data.channels]
    draws = [draw for step in record["steps"] for draw in step["draws"] if draw["edit"] == "insert"]
    labels, boxes = case.lesions
    rows = []
    for number, box in enumerate(boxes, start=1):
        mask = labels[box] == number
        source = canvas.source[box][mask]
        made = source[(source >= FIRST_DONOR) & (source != DISPLACED)]
        if made.size >= 0.5 * mask.sum() and fitting(case, number, box):
            draw = draws[int(np.bincount(made - FIRST_DONOR).argmax())]
            donor = _donor_of(maker, draw, box, mask) or f"{record['case']}/{number} is nobody's"
            rows.append(seen(case, number, box, host, donor, chosen))
    return rows


def _read_again(maker: HostJobs, canvas: Canvas, scratch: Path) -> LoadedCase:
    """The copy as its files would be read."""
    space = maker.space
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        images = canvas.images()
        paths = [Path(folder) / f"{number}.nii" for number in range(len(images) + 1)]
        for path, image in zip(paths, [*images, canvas.label_image().stored], strict=True):
            nifti.write_bytes(path, *nifti.content(path, image))
        files = CaseFiles("copy", "copy", tuple(paths[:-1]), paths[-1])
        return load_case(files, space.cohort, space.recipe.tissue)


def _donor_of(maker: HostJobs, draw: dict[str, Any], box: Box, mask: NDArray[np.bool_]) -> str | None:
    """Name of the real lesion that an inserted one looks like: case and component."""
    donor = draw["donor"]
    if "from" in donor:  # shape and look; the look comes last
        return _named(maker, donor["from"][-1]) if donor["from"] else None
    if donor.get("lesion") is not None:
        return _named(maker, {"subject": draw["subject"], "lesion": donor["lesion"]})
    files = maker.space.cohort.case(draw["case"])
    labels, _ = components(nifti.read(files.label).values() > 0)
    under = labels[box][mask]
    return f"{files.case}/{np.bincount(under[under > 0]).argmax()}" if under.any() else None


def _named(maker: HostJobs, source: dict[str, Any]) -> str | None:
    for info in maker.bank.infos([source["subject"]]):
        if info.lesion == source["lesion"]:
            return f"{info.case}/{info.component}"
    return None


def _weights(real: Table, fake: Table) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights by which both have as much of each size in each host; 0 where one has none."""
    cells = max(real.cell.max(), fake.cell.max()) + 1
    own, other = (np.bincount(t.cell, minlength=cells) for t in (real, fake))
    both = (own > 0) & (other > 0)
    share = np.where(both, own / np.maximum(other, 1), 0.0)
    return both[real.cell].astype(float), share[fake.cell]


def parts(names: list[str]) -> tuple[list[int], list[int]]:
    """Columns of a lesion's own look, and of the place around it."""
    beyond = [name.endswith(_BEYOND) for name in names]
    return [c for c, b in enumerate(beyond) if not b], [c for c, b in enumerate(beyond) if b]


def told_apart(
    real: Table, fake: Table, columns: list[int], by: str = "donor", rounds: int = 2
) -> list[float]:
    """Area under the curve by a forest that sees some columns, and its interval.

    by: donor or host, whose lesions are never in both parts.
    """
    w_real, w_fake = _weights(real, fake)
    weight = np.concatenate([w_real, w_fake])
    used = weight > 0
    x = np.concatenate([real.x, fake.x])[used][:, columns]
    y = np.repeat([0.0, 1.0], [len(real.x), len(fake.x)])[used]
    donor = np.unique(np.concatenate([real.donor, fake.donor])[used], return_inverse=True)[1]
    host = np.concatenate([real.host, fake.host])[used]
    weight = weight[used]
    apart = donor if by == "donor" else host
    if np.unique(apart).size < 2:  # a variant may find no place in some hosts
        return [float("nan")] * 3
    score = np.mean([blind.scores(x, y, apart, seed, weight) for seed in range(rounds)], axis=0)
    # Scores of forests that have seen different hosts do not compare.
    return _with_interval(y, score, weight, donor, np.zeros_like(host) if by == "donor" else host)


def compared(real: Table, fake: Table, names: list[str]) -> dict[str, Any]:
    """One row of the table."""
    look, place = parts(names)
    used_real, used_fake = (w > 0 for w in _weights(real, fake))
    return {
        "auc_h": told_apart(real, fake, look, "host"),
        "auc_d": told_apart(real, fake, look),
        "place": told_apart(real, fake, place, rounds=1),
        "inserted": int(used_fake.sum()),
        "donors": len(np.unique(fake.donor[used_fake])),
        "real": int(used_real.sum()),
    }


def _with_interval(
    y: NDArray[np.float64],
    score: NDArray[np.float64],
    weight: NDArray[np.float64],
    group: NDArray[np.int64],
    part: NDArray[np.int64],
) -> list[float]:
    """Area under the curve, mean over `part`, and where 95 % of the bootstrap samples of groups lie."""
    from sklearn.metrics import roc_auc_score

    def area(times: NDArray[np.float64]) -> float:
        found = []
        for p in np.unique(part):
            use = (part == p) & (times > 0)
            if np.unique(y[use]).size == 2:
                found.append(roc_auc_score(y[use], score[use], sample_weight=times[use]))
        return float(np.mean(found))

    rng = np.random.default_rng(0)
    count = int(group.max()) + 1
    samples = [
        area(weight * np.bincount(rng.integers(count, size=count), minlength=count)[group])
        for _ in range(200)
    ]
    return [area(weight), *(float(q) for q in np.percentile(samples, (2.5, 97.5)))]


def floor(real: Table, names: list[str], rounds: int = 10) -> dict[str, Any]:
    """Real against real: shared out at random within host and size class; mean and spread."""
    look, _ = parts(names)
    found: dict[str, list[float]] = {"auc_h": [], "auc_d": []}
    for seed in range(rounds):
        order = np.random.default_rng(seed).permutation(len(real.x))
        order = order[np.argsort(real.cell[order], kind="stable")]
        halves = real.part(order[::2]), real.part(order[1::2])
        found["auc_h"].append(told_apart(*halves, look, "host", 1)[0])
        found["auc_d"].append(told_apart(*halves, look, "donor", 1)[0])
    return {name: [float(np.mean(v)), float(np.std(v))] for name, v in found.items()}


def families(names: list[str], channels: list[str]) -> dict[str, list[int]]:
    """Features by what they are about, and by channel."""
    groups: dict[str, list[int]] = {}
    for column in parts(names)[0]:
        name = names[column]
        number, rest = name.split(" ", 1)
        kind = rest.split(" ")[0]
        groups.setdefault(kind, []).append(column)
        if len(number) == 1:
            groups.setdefault(f"all of {channels[int(number)]}", []).append(column)
    return groups


def explained(real: Table, fake: Table, names: list[str], channels: list[str]) -> dict[str, Any]:
    """What gives the inserted ones away: AUC-D of each family alone, and of the ten best single features."""
    from sklearn.metrics import roc_auc_score

    w_real, w_fake = _weights(real, fake)
    weight = np.concatenate([w_real, w_fake])
    y = np.repeat([0.0, 1.0], [len(real.x), len(fake.x)])
    x = np.concatenate([real.x, fake.x])
    single = {name: roc_auc_score(y, x[:, c], sample_weight=weight) for c, name in enumerate(names)}
    look = [names[c] for c in parts(names)[0]]
    best = sorted(look, key=lambda name: -abs(single[name] - 0.5))[:10]
    alone = {
        group: told_apart(real, fake, columns, rounds=1)[0]
        for group, columns in families(names, channels).items()
    }
    return {
        "families": alone,
        "features": {
            f"{'/'.join(channels[int(k)] for k in n.split()[0])} {n.split(' ', 1)[1]}": float(single[n])
            for n in best
        },
    }


def draw_tiles(real: Table, fake: Table, name: str, channels: list[str], path: Path) -> None:
    """A picture of real lesions above inserted ones, from small to large, all channels."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    count = 12
    figure, axes = plt.subplots(2 * len(channels), count, figsize=(count, 2 * len(channels) + 0.4))
    for half, table in enumerate((real, fake)):
        order = np.random.default_rng(1).permutation(len(table.x))[:count]
        order = order[np.argsort(table.volume_mm3[order])]
        for c in range(len(channels)):
            for axis, row in zip(axes[half * len(channels) + c], order, strict=False):
                axis.imshow(table.tiles[row, c].T, cmap="gray", vmin=-6, vmax=8, origin="lower")
        axes[half * len(channels)][0].set_title(("real", name)[half], loc="left", fontsize=8)
    for axis in axes.ravel():
        axis.axis("off")
    figure.tight_layout(pad=0.2)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def line(name: str, row: dict[str, Any]) -> str:
    """One line of the table."""
    text = f"{name:<22}"
    for key in ("auc_h", "auc_d", "place"):
        middle, low, high = row[key]
        text += f"  {middle:.2f} [{low:.2f}, {high:.2f}]"
    return text + f"  {row['inserted']:4d} of {row['donors']:3d} donors, {row['real']} real"


def main() -> None:
    """Print one line a variant."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder; masks/ for mask_library")
    parser.add_argument("--channels", nargs="*", default=[], help="names; all by default")
    parser.add_argument("--copies", type=int, default=3, help="copies of each host")
    parser.add_argument("--extra-ml", type=float, default=2.4, help="lesions that are added to a copy")
    parser.add_argument("--most", type=int, default=150, help="lesions that are looked at, for each host")
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--explain", nargs="*", default=[], help="variants whose traces are listed")
    parser.add_argument("--figures", type=Path, help="folder for pictures of real above inserted lesions")
    parser.add_argument("--tables", type=Path, help="folder that keeps what was seen, for further calls")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    data = Data(arguments.data, arguments.channels, arguments.copies, arguments.extra_ml, arguments.most, {})
    real, names = real_lesions(data)
    sizes = np.histogram(real.volume_mm3, BINS_MM3)[0].tolist()
    print(f"{len(real.x)} real lesions, by size {BINS_MM3} mm3: {sizes}; hosts: {np.bincount(real.host)}")
    rows: dict[str, Any] = {"real": floor(real, names)}
    for key, what in (("auc_h", "AUC-H"), ("auc_d", "AUC-D")):
        middle, spread = rows["real"][key]
        print(f"floor {what}: {middle:.2f}, sd {spread:.2f}")
    print(f"{'':<22}  AUC-H              AUC-D              PLACE")
    with tempfile.TemporaryDirectory(prefix="lesionsynth-") as folder:
        for name in arguments.variants:
            kept = arguments.tables / f"{name}.npz" if arguments.tables else None
            fake = Table.kept(kept, partial(inserted_lesions, data, VARIANTS[name], Path(folder)))
            if fake is None:
                print(f"{name:<22}  nothing inserted of the sizes compared")
                continue
            rows[name] = compared(real, fake, names)
            print(line(name, rows[name]), flush=True)
            if name in arguments.explain:
                rows[name] |= explained(real, fake, names, data.channels)
                for part in ("families", "features"):
                    print("  " + ", ".join(f"{k} {v:.2f}" for k, v in rows[name][part].items()))
            if arguments.figures:
                arguments.figures.mkdir(parents=True, exist_ok=True)
                draw_tiles(real, fake, name, data.channels, arguments.figures / f"{name}.png")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
