"""Every source in whole jobs: accepted, made again from the record alone, and named in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lesionsynth.errors import LeakError, NoRoomError
from lesionsynth.plugins import registry
from lesionsynth.recipe.model import Recipe
from lesionsynth.run.fit import Fit
from lesionsynth.run.job import HostJobs
from lesionsynth.run.prepare import prepare
from tests.conftest import write_nifti
from tests.test_invariants import Silent
from tests.trained_hvae import Trained

MakeData = Callable[..., Path]
MODELS = {"autoencoder", "hvae", "translation"}
"""Sources that need a trained model."""
STEP = {"kind": "populate", "source": "s", "load": [8, 20], "replace": 1, "site": {"like_donor": False}}


def recipe_of(source: dict[str, Any], **more: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "sources": {"s": source},
            "steps": {"add": {**STEP, **more}},
            "input": {"masks": {"path": "masks/{subject}.nii.gz"}},
            "output": {"copies": 1},
            "folds": {"count": 2},
        }
    )


@pytest.fixture
def root(make_nnunet: MakeData, phantoms: Any) -> Path:
    """Four phantoms with images and the lesions of two more as masks."""
    folder = make_nnunet(4)
    for number in (4, 5):
        _, label, affine = phantoms[number]
        write_nifti(folder / "masks" / f"out{number}.nii.gz", label, affine)
    return folder


@pytest.mark.parametrize("kind", sorted(registry.kinds("sources")))
def test_lesions_are_accepted_replayed_and_named(
    kind: str,
    root: Path,
    shape_models: Path,
    translations: Callable[[str], Path],
    trained_hvae: Trained,
    tmp_path: Path,
) -> None:
    source: dict[str, Any] = {"kind": kind}
    if kind in MODELS:
        folder = {"autoencoder": shape_models, "hvae": trained_hvae.folder}.get(kind) or translations(
            "pix2pix"
        )
        source["model"] = str(folder / "all.safetensors")
    recipe = recipe_of(source)
    if kind in MODELS:  # which has seen everybody
        recipe = recipe.model_copy(update={"folds": recipe.folds.model_copy(update={"strategy": "none"})})
    prepared = prepare(recipe, root, tmp_path / "out", Silent())
    inserted = 0
    for job in prepared.jobs[:2]:
        maker = HostJobs(prepared.space, prepared.space.cohort.case(job.host))
        canvas, record, _ = maker.make(job)
        again = maker.remake(job, json.loads(json.dumps(record)))
        assert np.array_equal(canvas.label, again.label)
        assert all(np.array_equal(a, b) for a, b in zip(canvas.raw, again.raw, strict=True))
        inserted += record["lesions"]["inserted"]
        assert bool(record["donors"]) == (kind not in ("autoencoder", "hvae"))
        assert bool(record["weights"]) == (kind in MODELS)
        fit = Fit.read(prepared.space.fits, job.block)
        allowed = {*fit.subjects, *fit.fitted_on}
        assert {donor["subject"] for donor in record["donors"]} <= allowed
        if kind == "mask_library":
            assert {donor["subject"] for donor in record["donors"][::2]} <= {"out4", "out5"}
        for draw in record["steps"][0]["draws"]:
            if draw["edit"] == "insert":
                assert draw["measures"]["visible"] >= 1.0
    assert inserted > 0


def test_what_cannot_be_seen_is_refused(root: Path, tmp_path: Path) -> None:
    faint = {"kind": "intensity_bump", "contrast": [[0.05, 0.1], [-0.1, 0.1]]}
    # The ratio is left open: where the place itself is unlike its surroundings, any contrast is found.
    recipe = recipe_of(faint, tries=10, check={"contrast": [-1e6, 1e6]})
    prepared = prepare(recipe, root, tmp_path / "out", Silent())
    maker = HostJobs(prepared.space, prepared.space.cohort.case(prepared.jobs[0].host))
    # The host's only lesion was to be exchanged: without another it is no case.
    with pytest.raises(NoRoomError, match="10 x visibility out of range"):
        maker.make(prepared.jobs[0])


def test_a_library_without_masks_is_refused_before_anything_is_made(
    make_nnunet: MakeData, tmp_path: Path
) -> None:
    recipe = recipe_of({"kind": "mask_library"})
    bare = recipe.model_copy(update={"input": recipe.input.model_copy(update={"masks": None})})
    with pytest.raises(LeakError, match=r"no donor for the source s \(mask_library\).*input\.masks"):
        prepare(bare, make_nnunet(2), tmp_path / "out", Silent())
