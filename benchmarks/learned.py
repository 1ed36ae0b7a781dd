"""Are generated shapes of lesions like real ones that the model has not seen? And how long does one take?

For a folder of models that `lesionsynth train lesion-autoencoder` or `mask-gan` has written. Samples of each
kind are compared with the held-out lesions of the same training, feature by feature: KS is the largest
difference of the two cumulative distributions, W the mean distance by which values must be moved, in robust
spreads of the held-out ones (of volumes, by their logarithms). The floor is training lesions against held-out
ones: people differ, so that it is not 0. Shapes are compared in the cube that the model sees, real ones too.

    python benchmarks/learned.py MODELS [--block block0] [--figure shapes.png]
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import ks_2samp, wasserstein_distance

from lesionsynth.bank.store import LesionBank
from lesionsynth.domain.lesion import Lesion
from lesionsynth.generative.codes import draw_code
from lesionsynth.generative.crops import Crop
from lesionsynth.generative.lesion_data import crops_of, held_out
from lesionsynth.generative.lesion_models import ShapeModel, open_shapes
from lesionsynth.qc.realism.features import shape
from lesionsynth.run.workspace import BANK

FEATURES = ("volume_mm3", "sphericity", "elongation", "flatness")
Form = dict[str, NDArray[np.float64]]


def forms(shapes: Sequence[tuple[NDArray[np.bool_], float]]) -> Form:
    """Features of shapes, each a column."""
    found = [shape(mask, (edge,) * 3) for mask, edge in shapes]
    return {name: np.array([one[name] for one in found]) for name in FEATURES}


def of_crops(crops: Sequence[Crop]) -> Form:
    return forms([(crop.classes > 0, crop.edge_mm) for crop in crops])


def distances(real: Form, other: Form) -> dict[str, tuple[float, float, float]]:
    """Median of the other, KS and W, by feature."""
    found = {}
    for name in FEATURES:
        a, b = real[name], other[name]
        if name == "volume_mm3":
            a, b = np.log(a), np.log(b)
        spread = max(1.4826 * float(np.median(np.abs(a - np.median(a)))), 1e-9)
        ks, w = float(ks_2samp(a, b).statistic), float(wasserstein_distance(a, b)) / spread
        found[name] = (float(np.median(other[name])), ks, w)
    return found


def sample(model: ShapeModel, sampling: Any, n: int) -> tuple[list[Lesion], Counter[str]]:
    """Lesions of n draws; reasons of those that are none."""
    rng, made, refused = np.random.default_rng(0), [], Counter[str]()
    low, high = model.volumes_mm3
    for _ in range(n):
        drawn = draw_code(model.codes, sampling, 1.0, rng)
        if drawn is None:
            break
        lesion = model.lesion(drawn[0])
        if isinstance(lesion, str):
            refused[lesion] += 1
        elif not low <= lesion.info.volume_mm3 <= high:
            refused["volume never seen"] += 1
        else:
            made.append(lesion)
    return made, refused


def times_ms(model: ShapeModel, n: int) -> dict[str, float]:
    """Median milliseconds of a shape, and of its intensities, one thread."""
    rng = np.random.default_rng(1)
    shapes, images = [], []
    for _ in range(n):
        code = draw_code(model.codes, "mixture", 1.0, rng)
        assert code is not None
        started = time.perf_counter()
        lesion = model.lesion(code[0])
        shapes.append(time.perf_counter() - started)
        if model.channels and not isinstance(lesion, str):
            drawn = draw_code(model.image_codes, "mixture", 1.0, rng)
            assert drawn is not None
            started = time.perf_counter()
            model.image(drawn[0], code[0])
            images.append(time.perf_counter() - started)
    found = {"shape": 1e3 * float(np.median(shapes))}
    return found | ({"intensities": 1e3 * float(np.median(images))} if images else {})


def picture(rows: dict[str, list[NDArray[np.bool_]]], path: Path) -> None:
    """Middle slices of shapes, a row each kind."""
    tiles = []
    for shapes in rows.values():
        row = [mask[:, :, mask.shape[2] // 2] for mask in shapes[:24]]
        row += [np.zeros_like(row[0])] * (24 - len(row))
        tiles.append(np.concatenate([np.pad(tile, 1, constant_values=False) for tile in row]))
    image = Image.fromarray((255 * np.concatenate(tiles, axis=1).T).astype(np.uint8))
    image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", type=Path, help="folder that `lesionsynth train` has written")
    parser.add_argument("--block", default="all")
    parser.add_argument("-n", type=int, default=400, help="draws of each kind")
    parser.add_argument("--figure", type=Path, help="PNG of shapes")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    model = open_shapes(options.models / f"{options.block}.safetensors")
    spec = model.spec
    with LesionBank(options.models / BANK) as bank:
        crops = crops_of(bank, model.card.subjects, model.values, spec.size, spec.most_lesions, spec.seed)
    train, held = held_out(crops, spec.held_out, spec.seed, "shape")
    print(f"{len(train)} lesions trained, {len(held)} held out; {model.card.kind}, {model.card.steps} steps")
    print(", ".join(f"{name} {value:.3g}" for name, value in sorted(model.card.measures.items())))
    real = of_crops(held)
    rows: dict[str, Any] = {
        "held out": (0, {name: (float(np.median(real[name])), 0, 0) for name in FEATURES})
    }
    rows["trained (floor)"] = (0, distances(real, of_crops(train)))
    shown = {"held out": [crop.classes > 0 for crop in held]}
    for sampling in ("prior", "mixture", "neighbourhood"):
        made, refused = sample(model, sampling, options.n)
        if not made:
            continue
        accepted = len(made) / (len(made) + sum(refused.values()))
        masks = [(lesion.label > 0, lesion.info.spacing_mm[0]) for lesion in made]
        rows[sampling] = (accepted, distances(real, forms(masks)))
        shown[sampling] = [mask for mask, _ in masks]
        print(f"{sampling}: accepted {100 * accepted:.0f} %; {dict(refused)}")
    print(f"{'':18}" + "".join(f"{name + ' (median KS W)':>30}" for name in FEATURES))
    for name, (_, found) in rows.items():
        cells = (f"{m:.4g} {ks:.2f} {w:.2f}" for m, ks, w in found.values())
        print(f"{name:18}" + "".join(f"{cell:>30}" for cell in cells))
    spent = times_ms(model, 50)
    print(", ".join(f"{name}: {value:.2f} ms" for name, value in spent.items()))
    if options.figure:
        picture(shown, options.figure)
    if options.json:
        options.json.write_text(json.dumps({"rows": rows, "ms": spent, "measures": model.card.measures}))


if __name__ == "__main__":
    main()
