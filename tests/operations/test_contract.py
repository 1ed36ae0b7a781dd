"""What every operation has to keep, on whole jobs, run over the registry: registered means tested."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lesionsynth.editing.canvas import Canvas
from lesionsynth.plugins import registry
from lesionsynth.recipe.model import Recipe
from lesionsynth.run.job import HostJobs
from lesionsynth.run.prepare import Prepared, prepare
from tests.test_invariants import Silent

STEPS: dict[str, dict[str, Any]] = {
    "populate": {"kind": "populate", "load": [2, 8]},
    "inpaint": {"kind": "inpaint", "lesions": "random"},
    "carve_mix": {"kind": "carve_mix", "donors": 2},
    "copy_paste": {"kind": "copy_paste", "lesions": [1, 3]},
    "self_mix": {"kind": "self_mix", "lesions": [1, 3]},
    "translate": {"kind": "translate", "model": "of a session"},
}
"""One step of every kind: a new operation has to be added here."""

MODES: dict[str, dict[str, Any]] = {
    "carve_mix as published": {"kind": "carve_mix", "mode": "compatible"},
}
"""Further steps, of kinds that work in more than one way."""


def test_every_operation_is_in_this_suite() -> None:
    assert set(STEPS) == set(registry.kinds("operations"))


@pytest.fixture(params=sorted({**STEPS, **MODES}))
def prepared(request: pytest.FixtureRequest, make_nnunet: Callable[..., Path], tmp_path: Path) -> Prepared:
    step = {**STEPS, **MODES}[request.param]
    steps, strategy = {"step": step}, "block"
    if "model" in step:
        model = request.getfixturevalue("translations")("pix2pix") / "all.safetensors"
        steps, strategy = {"before": STEPS["inpaint"], "step": {**step, "model": str(model)}}, "none"
    recipe = Recipe.model_validate({"steps": steps, "output": {"copies": 1}, "folds": {"strategy": strategy}})
    return prepare(recipe, make_nnunet(4), tmp_path / "out", Silent())


def test_draws_are_json_and_replay_to_the_same_voxels(prepared: Prepared) -> None:
    for job in prepared.jobs:
        maker = HostJobs(prepared.space, prepared.space.cohort.case(job.host))
        canvas, record, _ = maker.make(job)
        again = maker.remake(job, json.loads(json.dumps(record)))
        assert np.array_equal(canvas.label, again.label)
        assert np.array_equal(canvas.source, again.source)
        assert all(np.array_equal(a, b) for a, b in zip(canvas.raw, again.raw, strict=True))


def test_account_label_and_source_map_agree(prepared: Prepared) -> None:
    for job in prepared.jobs:
        maker = HostJobs(prepared.space, prepared.space.cohort.case(job.host))
        canvas, record, _ = maker.make(job)
        host = maker.host
        voxel_ml = canvas.grid.voxel_volume_mm3 / 1000
        lesion = np.isin(canvas.label, host.labels.lesion)
        assert record["load_ml"]["after"] == pytest.approx(lesion.sum() * voxel_ml, abs=1e-5)
        assert np.array_equal(lesion, canvas.instances > 0)
        assert set(np.unique(canvas.instances)) - {0} == set(canvas.boxes)
        assert not (canvas.label != host.label)[canvas.source == 0].any()
        for raw, image in zip(canvas.raw, host.images, strict=True):
            assert np.array_equal(raw[canvas.source == 0], image.raw[canvas.source == 0])
        edits = [draw["edit"] for step in record["steps"] for draw in step["draws"]]
        assert record["lesions"]["inserted"] == edits.count("insert")
        assert record["lesions"]["removed"] == edits.count("remove")


def test_a_host_without_lesions_or_a_target_that_is_met_does_no_harm(prepared: Prepared) -> None:
    job = prepared.jobs[0]
    maker = HostJobs(prepared.space, prepared.space.cohort.case(job.host))
    canvas = Canvas(maker.host)
    for name, step in prepared.space.recipe.steps.items():
        for instance in list(canvas.boxes):
            canvas.label[canvas.instances == instance] = 0
            canvas.instances[canvas.instances == instance] = 0
            del canvas.boxes[instance]
        report = step.apply(canvas, maker.context(job, name))
        assert isinstance(report.draws, list)
        assert all(count > 0 for count in report.rejected.values())


def test_a_canvas_that_is_used_again_is_the_host_again(prepared: Prepared) -> None:
    job = prepared.jobs[0]
    maker = HostJobs(prepared.space, prepared.space.cohort.case(job.host))
    canvas, *_ = maker.make(job)
    canvas.reset()
    fresh = Canvas(maker.host)
    for used, new in ((canvas.label, fresh.label), (canvas.source, fresh.source)):
        assert np.array_equal(used, new)
    assert np.array_equal(canvas.instances, fresh.instances)
    assert all(np.array_equal(a, b) for a, b in zip(canvas.raw, fresh.raw, strict=True))
    state = [{k: v for k, v in vars(c).items() if isinstance(v, int | dict)} for c in (canvas, fresh)]
    assert state[0] == state[1]
    assert not canvas.changes()
