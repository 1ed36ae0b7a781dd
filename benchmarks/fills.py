"""Fills on lesion-free tissue under real masks, where the truth is known, against OpenCV and scikit-image.

Lesion masks of other patients are laid on clean white and grey matter of real cases and removed as lesions
are. For every registered kind and texture: PSNR and SSIM against what was there, texture (spread and fine
detail, relative to what was there), time, and a blind check: the area under the curve of a random forest that
tells filled from untouched places (0.5: it cannot), once with places kept apart and once with hosts. Texture
lowers the PSNR of any fill; the blind check is what a default is chosen by.

Peers and scikit-learn are wanted in the environment that runs this; what is missing is left out and said.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import importlib.util
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from measure import Row
from numpy.typing import NDArray
from pydantic import PrivateAttr
from scipy import ndimage

from lesionsynth import nifti
from lesionsynth.domain.grid import Box, bounding_box, grown
from lesionsynth.editing.canvas import INPAINTED, Canvas
from lesionsynth.editing.removal import remove_lesion
from lesionsynth.host import LoadedCase, load_case
from lesionsynth.kernels.components import components, dilated
from lesionsynth.kernels.intensity import robust_spread
from lesionsynth.kernels.tissue import GREY, WHITE
from lesionsynth.plugins import registry
from lesionsynth.plugins.contracts import FillSpec
from lesionsynth.qc.realism import features
from lesionsynth.qc.realism.lesions import Seen
from lesionsynth.qc.realism.two_sample import Sample, floor, told_apart
from lesionsynth.recipe.load import load_recipe
from lesionsynth.run.cohort import open_cohort

TEXTURES = ("none", "noise", "spectrum", "clone")
CHANNELS = ("FLAIR", "T1", "T2")
_APART_VOX = 6
_GROWN_VOX = 2
# Share of white matter that a place has as a filled one, as most places of lesions do.
_LEAST_WHITE = 0.75
_SIZES_VOX = (15, 40, 120, 350, 1000, 5000)
# 2-D and 3-D biharmonic inpainting of scikit-image take minutes above.
_MOST_FOR_DIRECT = 2500


class Watched(FillSpec):
    """Another fill that notes what it was asked."""

    kind: str = "watched"
    inner: Any
    _calls: list[Any] = PrivateAttr(default_factory=list)

    def fill(self, image: Any, region: Any, source: Any, spacing_mm: Any, around: Any = None) -> Any:
        filled = self.inner.fill(image, region, source, spacing_mm, around)
        self._calls.append((image, region, source, around))
        return filled


@dataclass
class Host:
    """A case with false lesions on clean tissue."""

    case: LoadedCase
    places: list[tuple[int, Box]]
    scale: list[float]
    tissue: NDArray[np.bool_]
    truth: NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        self.truth = self.case.all_values


def open_hosts(data: Path, strokes: Path, n_places: int) -> list[Host]:
    """The cases of an nnU-Net folder with masks of other patients laid on them."""
    recipe = load_recipe("lesionmix")
    _, cohort, _ = open_cohort(recipe.input, data)
    keep = [cohort.channels.index(name) for name in CHANNELS]
    hosts = []
    for files in cohort.cases:
        case = load_case(files, cohort, recipe.tissue)
        case = replace(case, images=tuple(case.images[c] for c in keep))
        own = [path for path in sorted((data / "masks").glob("*.nii.gz")) if path.name[:-7] != files.case]
        hosts.append(_with_places(case, own, sorted(strokes.glob("*.nii.gz")), n_places))
    return hosts


def _with_places(case: LoadedCase, lesions: list[Path], strokes: list[Path], n_places: int) -> Host:
    """Lay components of the masks on the case where they meet clean tissue only, of all sizes alike."""
    rng = np.random.default_rng(0)
    tissue = np.isin(case.tissue, (GREY, WHITE)) & ~case.untouchable
    free = tissue & ~dilated(case.lesion_mask, _APART_VOX)
    label = case.label.copy()
    value = case.labels.lesion[0]

    def lay(mask: NDArray[np.bool_], box: Box, least_clean: float) -> bool:
        usable = mask & free[box]
        if usable.sum() < max(least_clean * mask.sum(), _SIZES_VOX[0]):
            return False
        pieces, _ = components(usable)
        part = pieces == np.argmax(np.bincount(pieces.ravel())[1:]) + 1
        around = grown(box, (_GROWN_VOX,) * 3, free.shape)
        filled = np.pad(
            part, [(b.start - a.start, a.stop - b.stop) for a, b in zip(around, box, strict=True)]
        )
        filled = dilated(filled, _GROWN_VOX) & tissue[around]
        if (
            part.sum() < least_clean * mask.sum()
            or (case.tissue[around][filled] == WHITE).mean() < _LEAST_WHITE
        ):
            return False
        label[box][part] = value
        around = grown(box, (_APART_VOX + 1,) * 3, free.shape)
        free[around] &= ~dilated((label[around] > 0) & ~case.lesion_mask[around], _APART_VOX)
        return True

    sizes = list(pairwise(_SIZES_VOX))
    laid = dict.fromkeys(sizes, 0)
    n_strokes = 0
    for path in rng.permutation(np.array(strokes, dtype=object)):
        stored = nifti.read(path).values() > 0
        mask = np.zeros(free.shape, dtype=bool)
        common = tuple(slice(0, min(a, b)) for a, b in zip(stored.shape, mask.shape, strict=True))
        mask[common] = stored[common]
        box = bounding_box(mask)
        if box is not None and mask.sum() < 20_000 and n_strokes < max(1, n_places // 20):
            n_strokes += lay(mask[box], box, 0.1)
    for path in rng.permutation(np.array(lesions, dtype=object)):
        labels, boxes = components(nifti.read(path).values() > 0)
        for number, box in enumerate(boxes, start=1):
            mask = labels[box] == number
            for size in sizes:
                if size[0] <= mask.sum() < size[1] and laid[size] < n_places / len(sizes):
                    laid[size] += lay(mask, box, 0.95)
    false = replace(case, label=label)
    instances, boxes = false.lesions
    places = [
        (n, box)
        for n, box in enumerate(boxes, start=1)
        if not case.lesion_mask[box][instances[box] == n].any()
    ]
    scale = [robust_spread(channel[case.clean_tissue]) for channel in case.all_values]
    return Host(false, places, scale, tissue & ~case.lesion_mask)


@dataclass
class Filled:
    """What one way of filling made of one place."""

    truth: NDArray[np.float32]
    result: NDArray[np.float32]
    region: NDArray[np.bool_]
    seconds: float


def by_fill(host: Host, fill: FillSpec) -> tuple[NDArray[np.float32], list[Filled], list[Any]]:
    """Remove every false lesion of a host; the image, each place, and what the fill was asked."""
    largest = max(host.places, key=lambda place: int((host.case.lesions[0][place[1]] == place[0]).sum()))
    remove_lesion(Canvas(host.case), largest[0], fill, 1)  # compiles what is not compiled yet
    canvas = Canvas(host.case)
    places, asked = [], []
    for number, box in host.places:
        watched = Watched(inner=fill, grow_vox=fill.grow_vox, texture=fill.texture)
        before = canvas.source.copy()
        started = time.perf_counter()
        draw = remove_lesion(canvas, number, watched, 1)
        seconds = time.perf_counter() - started
        if draw is None:
            raise SystemExit(f"{host.case.files.case}: lesion {number} could not be filled by {fill.kind}")
        larger = grown(box, (12,) * 3, canvas.grid.shape)
        region = (canvas.source[larger] == INPAINTED) & (before[larger] != INPAINTED)
        truth = host.truth[(slice(None), *larger)]
        places.append(Filled(truth, canvas.values(larger), region, seconds))
        asked.append(watched._calls[0])
    whole = (slice(0, canvas.grid.shape[0]), slice(0, canvas.grid.shape[1]), slice(0, canvas.grid.shape[2]))
    return canvas.values(whole), places, asked


def peers() -> dict[str, Callable[[NDArray[np.float32], NDArray[np.bool_]], NDArray[np.float32]]]:
    """Fills of other packages for one channel of a crop; by slices where they know no volumes."""
    found: dict[str, Any] = {}

    def by_slices(do: Any) -> Any:
        def fill(channel: NDArray[np.float32], region: NDArray[np.bool_]) -> NDArray[np.float32]:
            result = channel.copy()
            for k in np.flatnonzero(region.any(axis=(0, 1))):
                result[:, :, k] = do(*(np.ascontiguousarray(a[:, :, k]) for a in (channel, region)))
            return result

        return fill

    if importlib.util.find_spec("cv2"):
        import cv2

        cv2.setNumThreads(1)
        for name, flag in (("Telea", cv2.INPAINT_TELEA), ("NS", cv2.INPAINT_NS)):
            found[f"OpenCV {name} by slices"] = by_slices(
                lambda image, region, flag=flag: cv2.inpaint(image, region.astype(np.uint8), 3, flag)
            )
    else:
        print("OpenCV: not installed")
    if importlib.util.find_spec("skimage"):
        from skimage.restoration import inpaint_biharmonic

        found["scikit-image biharmonic 2-D"] = by_slices(inpaint_biharmonic)
        found["scikit-image biharmonic 3-D"] = inpaint_biharmonic
    else:
        print("scikit-image: not installed")
    return found


def ranges_of(hosts: list[Host]) -> list[list[float]]:
    """Range of each channel in white and grey matter, which PSNR and SSIM refer to."""
    return [[float(np.ptp(np.percentile(c[h.tissue], (0.5, 99.5)))) for c in h.truth] for h in hosts]


def figures(
    places: Sequence[Filled], hosts: Sequence[int], ranges: Sequence[Sequence[float]]
) -> dict[str, Any]:
    """PSNR, SSIM and texture over places; the median of each, by channel where it matters."""
    psnr: list[list[float]] = [[] for _ in CHANNELS]
    ssim, spread, detail = [], [], []
    for place, host in zip(places, hosts, strict=True):
        region = place.region
        deep = ndimage.binary_erosion(region)
        for c in range(len(CHANNELS)):
            truth, result = place.truth[c].astype(np.float64), place.result[c].astype(np.float64)
            mean_square = ((truth - result)[region] ** 2).mean()
            psnr[c].append(10 * np.log10(ranges[host][c] ** 2 / max(mean_square, 1e-12)))
            ssim.append(_ssim(truth, result, ranges[host][c])[region].mean())
            spread.append(result[region].std() / truth[region].std())
            if deep.any():
                fine = [np.mean(ndimage.laplace(image)[deep] ** 2) for image in (result, truth)]
                detail.append(fine[0] / fine[1])
    milliseconds = [1000 * place.seconds for place in places]
    return {
        "psnr_db": {name: float(np.mean(values)) for name, values in zip(CHANNELS, psnr, strict=True)},
        "ssim": float(np.mean(ssim)),
        "sd_ratio": float(np.median(spread)),
        "detail_ratio": float(np.median(detail)),
        "ms": [statistics.median(milliseconds), min(milliseconds), max(milliseconds)],
        "places": len(places),
    }


def _ssim(a: NDArray[np.float64], b: NDArray[np.float64], span: float) -> NDArray[np.float64]:
    """Structural similarity by a Gaussian window of 1.5 voxels (Wang 2004, doi:10.1109/TIP.2003.819861)."""

    def blur(image: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(ndimage.gaussian_filter(image, 1.5))

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b, both = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2, blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    top = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    return np.asarray(top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)))


def looks(host: Host, number: int, image: NDArray[np.float32]) -> list[Seen]:
    """What every place of a host looks like in an image of it."""
    rows = []
    for place, box in host.places:
        spacing = host.case.grid.spacing_mm
        larger = grown(box, features.margin_vox(spacing), image.shape[1:])
        mask = host.case.lesions[0][larger] == place
        values = image[(slice(None), *larger)]
        look = features.looks(values, mask, host.tissue[larger], host.scale, spacing)
        size = float(mask.sum()) * host.case.grid.voxel_volume_mm3
        rows.append(Seen("", str(number), str(number), f"{number}/{place}", place, size, (0, 0, 0), look))
    return rows


def blind_check(real: list[Seen], fake: list[Seen]) -> dict[str, Any]:
    """Areas under the curve with places kept apart and with hosts kept apart, and their intervals."""
    one, other = Sample.of(real), Sample.of(fake)
    found = {
        "auc_places": told_apart(one, other, "group", "look", 0, 4),
        "auc_hosts": told_apart(one, other, "host", "look", 0, 4),
    }
    return {name: [area.value, area.low, area.high] for name, area in found.items() if area.value is not None}


def line(name: str, row: dict[str, Any]) -> str:
    """One line of the table."""
    text = f"{name:<30}" + "".join(f"{row['psnr_db'][c]:7.2f}" for c in CHANNELS)
    low, middle, high = row["ms"][1], row["ms"][0], row["ms"][2]
    text += f"{row['ssim']:7.3f}{row['sd_ratio']:7.2f}{row['detail_ratio']:8.2f}"
    text += f"{middle:9.1f} ({low:.1f} to {high:.0f})"
    for key in ("auc_places", "auc_hosts"):
        if key in row:
            text += "  {} {:.2f} [{:.2f}, {:.2f}]".format(key[4:], *row[key])
    return text


def measure_kernels(hosts: list[Host], ranges: Any, rows: dict[str, Any], rounds: int) -> None:
    """Peers and our own fills without texture, on the same crops and regions, all channels, interleaved."""
    harmonic = _made("harmonic", "none")
    others = peers()
    results: dict[str, list[Filled]] = {}
    of: dict[str, list[int]] = {}
    for number, host in enumerate(hosts):
        for call in by_fill(host, harmonic)[2]:
            image, region, source = (np.ascontiguousarray(array) for array in call[:3])
            work = _ways(image, region, source, host.case.grid.spacing_mm, call[3], others)
            seconds: dict[str, list[float]] = {name: [] for name in work}
            filled: dict[str, NDArray[np.float32]] = {}
            for _ in range(rounds):
                for name, do in work.items():
                    started = time.perf_counter()
                    filled[name] = do()
                    seconds[name].append(time.perf_counter() - started)
            for name, result in filled.items():
                place = Filled(image, result, region, statistics.median(seconds[name]))
                results.setdefault(name, []).append(place)
                of.setdefault(name, []).append(number)
    for name, places in results.items():
        rows[name] = figures(places, of[name], ranges)
        print(line(name, rows[name]), flush=True)
    for target in target_rows(rows):
        print(f"{target.target_id} {target.value:6.2f} {target.unit:<3} {target.met:<4} {target.what}")


def _ways(
    image: NDArray[np.float32],
    region: NDArray[np.bool_],
    source: NDArray[np.bool_],
    spacing_mm: Sequence[float],
    around: Any,
    others: dict[str, Any],
) -> dict[str, Callable[[], NDArray[np.float32]]]:
    """Every way to fill one region."""
    work: dict[str, Callable[[], NDArray[np.float32]]] = {}
    for kind in sorted(registry.kinds("fills")):
        fill = _made(kind, "none")
        work[f"ours: {kind}"] = lambda fill=fill: fill.fill(image, region, source, spacing_mm, around)
    for name, other in others.items():
        if "scikit" not in name or region.sum() <= _MOST_FOR_DIRECT:
            work[name] = lambda other=other: np.stack([other(channel, region) for channel in image])
    return work


def target_rows(rows: dict[str, Any]) -> list[Row]:
    """T10 from the rows of `measure_kernels`: PSNR on T1 above OpenCV Telea by slices, and the time."""
    peer = rows.get("OpenCV Telea by slices")
    if peer is None:
        return [Row("T10", "fills: OpenCV is not installed", float("nan"), None)]
    found = []
    for name, row in rows.items():
        if name.startswith("ours: "):
            gain = row["psnr_db"]["T1"] - peer["psnr_db"]["T1"]
            what = f"{name[6:]} / OpenCV Telea by slices"
            found.append(Row("T10", f"PSNR on T1: {what}", gain, 4, "higher", "dB"))
            found.append(Row("T10", f"time: {what}", row["ms"][0] / peer["ms"][0], 3))
    return found


def _made(kind: str, texture: str) -> FillSpec:
    fill: FillSpec = registry.kinds("fills")[kind](texture=texture)
    return fill


def main() -> None:
    """Print one line a way of filling."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="nnU-Net raw folder with FLAIR, T1, T2 and masks/"
    )
    parser.add_argument(
        "--strokes", type=Path, required=True, help="folder of further masks on the same grid"
    )
    parser.add_argument("--places", type=int, default=60, help="false lesions a host")
    parser.add_argument("--kinds", nargs="*", default=sorted(registry.kinds("fills")))
    parser.add_argument("--textures", nargs="*", default=["none", "clone"], choices=TEXTURES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    hosts = open_hosts(arguments.data, arguments.strokes, arguments.places)
    ranges = ranges_of(hosts)
    for host in hosts:
        sizes = [int((host.case.lesions[0][box] == n).sum()) for n, box in host.places]
        print(f"{host.case.files.case}: {len(sizes)} places of {min(sizes)} to {max(sizes)} voxels")
    print(f"{'':<30}" + "".join(f"{c:>7}" for c in CHANNELS) + "   SSIM     sd  detail       ms a place")
    rows: dict[str, Any] = {}
    if not arguments.no_peers:
        measure_kernels(hosts, ranges, rows, arguments.rounds)
    seeing = importlib.util.find_spec("sklearn") is not None
    real = [row for number, host in enumerate(hosts) for row in looks(host, number, host.truth)]
    if seeing:
        least = floor(Sample.of(real), "group", "look", 0, 4)
        rows["untouched"] = {"auc_places": [least.value, least.low, least.high]}
        print(f"blind check, untouched against untouched: {least.value:.2f}")
    else:
        print("scikit-learn: not installed, no blind check")
    for kind in arguments.kinds:
        for texture in arguments.textures:
            done = [by_fill(host, _made(kind, texture)) for host in hosts]
            of = [n for n, (_, places, _) in enumerate(done) for _ in places]
            name = f"{kind}, {texture}"
            rows[name] = figures([place for _, places, _ in done for place in places], of, ranges)
            if seeing:
                fake = [
                    row
                    for number, (host, (image, _, _)) in enumerate(zip(hosts, done, strict=True))
                    for row in looks(host, number, image)
                ]
                rows[name] |= blind_check(real, fake)
            print(line(name, rows[name]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
