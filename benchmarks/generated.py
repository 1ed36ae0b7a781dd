"""How near are images that a trained model generates to real ones? By sampling kind, beside the real floor.

The real images are those that the model was trained on or held out from, cut as for the training, in two
halves of other subjects where there are enough. Features are codes of a small autoencoder that is trained
here on the one half; the other half against it is the floor. Nothing is downloaded.

FID: Fréchet distance of the features; MMD: squared distance of their means, without bias (below 0 by chance).
PSNR and SSIM: with the nearest real image of the first half. High values of both say that images are copies,
and blurred images get a higher PSNR than sharp ones: read them beside the floor, not as quality.
Usable: share of the draws whose mask is not refused; only these are compared.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
from pathlib import Path

import numpy as np
from pipeline import Quiet

from lesionsynth.bank.store import LesionBank
from lesionsynth.generative.codes import SAMPLINGS, draw_code
from lesionsynth.generative.evaluate import Features, discrepancy, frechet, nearest
from lesionsynth.generative.hvae_models import open_hvae
from lesionsynth.generative.samples import samples_of
from lesionsynth.recipe.load import load_recipe
from lesionsynth.rng import stream
from lesionsynth.run.cohort import open_cohort

_MOST_DRAWS = 20


def halves(folder: Path, root: Path, spec, recipe, seed: int):
    """Images with lesions of two halves of the subjects; of the images, where there is one subject."""
    cohort = open_cohort(recipe.input, root)[1]
    with LesionBank(folder / "bank") as bank:
        parts = samples_of(bank, cohort, recipe.tissue, spec, Quiet()).parts
    parts = [part for part in parts if (part.classes > 0).any()]
    rng = stream(seed, "generated", "halves")
    subjects = sorted({part.subject for part in parts})
    if len(subjects) > 1:
        first = {subjects[k] for k in rng.permutation(len(subjects))[: (len(subjects) + 1) // 2]}
        inside = np.array([part.subject in first for part in parts])
    else:
        inside = rng.permutation(len(parts)) < (len(parts) + 1) // 2
    images = np.stack([part.image for part in parts])
    return images[inside], images[~inside]


def usable(model, sampling: str, count: int, seed: int):
    """Images whose mask is not refused, and the share of the draws that they are."""
    found, drawn = [], 0
    while len(found) < count and drawn < _MOST_DRAWS * count:
        code, _ = draw_code(model.codes, sampling, 1.0, stream(seed, "generated", sampling, drawn))
        drawn += 1
        image, classes = model.pair(code)
        if model.refusal(classes) is None:
            found.append(image)
    return np.array(found), len(found) / drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder that `lesionsynth train hvae` has written")
    parser.add_argument("dataset", type=Path, help="data set that it was trained on")
    parser.add_argument("--block", default="all", help="block of the folds")
    parser.add_argument("--recipe", default="lesionmix", help="recipe of the training")
    parser.add_argument("--count", type=int, default=200, help="images of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()

    model = open_hvae(options.folder / f"{options.block}.safetensors")
    spec = model.spec.model_copy(update={"samples": 3 * options.count})
    first, second = halves(options.folder, options.dataset, spec, load_recipe(options.recipe), options.seed)
    first, second = first[: options.count], second[: options.count]
    features = Features(first, seed=options.seed)
    reference = features.of(first)
    rows = {}
    sets = {"real, other subjects": (second, 1.0)}
    sets |= {sampling: usable(model, sampling, options.count, options.seed) for sampling in SAMPLINGS}
    for name, (images, share) in sets.items():
        if len(images) < 2:
            print(f"{name}: {len(images)} usable images are too few")
            continue
        found, like = features.of(images), nearest(images, first)
        rows[name] = {
            "images": len(images),
            "usable": share,
            "fid": frechet(found, reference),
            "mmd": discrepancy(found, reference),
            "psnr": like.psnr,
            "ssim": like.ssim,
        }
    print(f"{'':<22}{'images':>8}{'usable':>8}{'FID':>9}{'MMD':>9}{'PSNR':>8}{'SSIM':>8}")
    for name, row in rows.items():
        print(
            f"{name:<22}{row['images']:>8}{row['usable']:>8.2f}{row['fid']:>9.3f}{row['mmd']:>9.3f}"
            f"{row['psnr']:>8.2f}{row['ssim']:>8.3f}"
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
