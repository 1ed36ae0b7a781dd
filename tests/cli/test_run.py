"""What `run` tells the shell: exit codes, JSON on stdout, plan, notes on stderr."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from lesionsynth.cli.app import app
from lesionsynth.errors import ExitCode

MakeData = Callable[..., Path]


def run(root: Path, output: Path, *more: str, recipe: str = "lesionmix"):
    return CliRunner().invoke(app, ["run", recipe, "-i", str(root), "-o", str(output), "-n", "1", *more])


@pytest.mark.parametrize(("strict", "code"), [(False, ExitCode.OK), (True, ExitCode.SHORTFALL)])
def test_a_shortfall_is_said_and_fails_only_when_strict(
    make_nnunet: MakeData, tmp_path: Path, strict: bool, code: ExitCode
) -> None:
    more = ["--set", "steps.add.load=500", "--set", "steps.add.tries=2", *(["--strict"] if strict else [])]
    result = run(make_nnunet(3), tmp_path / "out", *more)
    assert result.exit_code == code
    assert "did not meet their load target" in result.stdout
    assert result.stdout.count("not met") == 3


def test_failed_cases_are_listed_and_give_their_exit_code(make_nnunet: MakeData, tmp_path: Path) -> None:
    root = make_nnunet(3)
    path = root / "labelsTr" / "case1.nii.gz"
    image = nib.load(path)
    nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine).to_filename(path)
    result = run(root, tmp_path / "out", recipe="pseudo_healthy")
    assert result.exit_code == ExitCode.SOME_FAILED
    assert "case case1__syn000: no edit was possible" in result.stderr
    assert "2 synthetic cases" in result.stdout


def test_json_alone_on_stdout(make_nnunet: MakeData, tmp_path: Path) -> None:
    result = run(make_nnunet(3), tmp_path / "out", "--json")
    assert result.exit_code == ExitCode.OK
    value = json.loads(result.stdout)
    assert value["synthetic_cases"] == len(value["cases"]) == 3
    assert set(value["seconds"]) == {"read", "compute", "write"}
    assert "synthesise: 3/3" in result.stderr


def test_quiet_is_quiet(make_nnunet: MakeData, tmp_path: Path) -> None:
    result = run(make_nnunet(3), tmp_path / "out", "-q")
    assert (result.exit_code, result.stdout, result.stderr) == (ExitCode.OK, "", "")


def test_dry_run_is_the_plan_and_writes_nothing(make_nnunet: MakeData, tmp_path: Path) -> None:
    root = make_nnunet(3)
    dry = run(root, tmp_path / "out", "--dry-run", "-q")
    plan = CliRunner().invoke(app, ["plan", "lesionmix", "-i", str(root), "-n", "1", "-q"])
    assert dry.stdout == plan.stdout
    assert [json.loads(line)["case"] for line in dry.stdout.splitlines()] == [
        f"case{k}__syn000" for k in (1, 2, 3)
    ]
    assert not (tmp_path / "out").exists()
