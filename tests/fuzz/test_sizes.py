"""Numbers of a recipe at their limits: refused, or a run that ends in time and memory."""

from __future__ import annotations

import json
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lesionsynth.errors import ExitCode
from lesionsynth.recipe.load import load_recipe, shipped
from lesionsynth.recipe.model import resolved
from tests.conftest import write_nifti
from tests.fuzz.limits import fuzzed
from tests.fuzz.test_data_sets import CASES, DESCRIPTION, invoke, volume
from tests.fuzz.test_recipes import places

LIMITS = (0, 1e-300, 1e-9, 1e-3, 1, 7, 200, 1e3, 1e6, 1e12, 1e300, 2**31, 2**53, 2**62, -1, -1e9)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set."""
    root = tmp_path_factory.mktemp("data")
    for seed, name in enumerate(CASES[:2]):
        image, label = volume(seed)
        write_nifti(root / f"imagesTr/{name}_0000.nii.gz", image, np.diag([3.0, 3, 3, 1]))
        write_nifti(root / f"labelsTr/{name}.nii.gz", label, np.diag([3.0, 3, 3, 1]))
    (root / "dataset.json").write_text(json.dumps(DESCRIPTION))
    return root


def with_number(name: str, where: int, value: float) -> tuple[dict[str, Any], str]:
    """A shipped recipe with another value in the place of its n-th number, and the name of that."""
    content = resolved(load_recipe(name))
    content["folds"]["strategy"] = "none"
    content["output"].update(copies=1, originals="omit")
    found = [p for p in places(content) if p[0] not in ("version", "output")]
    numbers = [p for p in found if type(reduce(lambda node, key: node[key], p, content)) in (int, float)]
    path = numbers[where % len(numbers)]
    node = reduce(lambda node, key: node[key], path[:-1], content)
    node[path[-1]] = int(value) if isinstance(node[path[-1]], int) and abs(value) < 1e18 else value
    if isinstance(node, list):
        node.sort()
    return content, ".".join(map(str, path))


@fuzzed(25)
@given(st.sampled_from(sorted(shipped())), st.integers(0, 200), st.sampled_from(LIMITS))
def test_every_number_at_its_limits(
    root: Path, tmp_path_factory: pytest.TempPathFactory, name: str, where: int, value: float
) -> None:
    content, _ = with_number(name, where, value)
    folder = tmp_path_factory.mktemp("run")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))
    code, _, _ = invoke("run", folder / "recipe.yaml", "-i", root, "-o", folder / "out", "-q")
    assert (folder / "out").exists() == (code in (ExitCode.OK, ExitCode.SOME_FAILED))


@pytest.mark.parametrize(
    "setting",
    [
        "likelihood.smoothing_mm=1e9",
        "bank.margin_mm=201",
        "steps.add.blend.width_mm=1e-300",
        "steps.add.blend.width_mm=1e6",
        "steps.add.geometry.scale.factor=[1, 1e300]",
        "steps.add.geometry.scale.factor=[0, 1]",
        "steps.add.geometry.scale.fit=[-1, 1]",
        "steps.add.geometry.elastic={p: 1, spacing_mm: 1e-9}",
        "steps.add.geometry.elastic.magnitude_mm=[1, 1e9]",
    ],
)
def test_sizes_that_no_body_has(root: Path, tmp_path: Path, setting: str) -> None:
    code, _, said = invoke("run", "lesionmix", "-i", root, "-o", tmp_path / "out", "-q", "-s", setting)
    assert code == ExitCode.RECIPE
    assert f"--set {setting}: {setting.partition('=')[0].partition('{')[0]}" in said
    assert not (tmp_path / "out").exists()
