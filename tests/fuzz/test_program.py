"""The worst of it, given to the program as a user would: one message, its exit code, and no output."""

from __future__ import annotations

import gzip
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lesionsynth.errors import ExitCode
from tests.conftest import write_nifti
from tests.fuzz.test_data_sets import CASES, DESCRIPTION, invoke, volume
from tests.nifti_bytes import save

SECONDS = 60
MEGABYTES = 4096  # of addresses: libraries map far more than they use
LIKE = np.diag([3.0, 3, 3, 1])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small data set without a fault."""
    root = tmp_path / "data"
    for seed, name in enumerate(CASES):
        image, label = volume(seed)
        write_nifti(root / f"imagesTr/{name}_0000.nii.gz", image, LIKE)
        write_nifti(root / f"labelsTr/{name}.nii.gz", label, LIKE)
    (root / "dataset.json").write_text(json.dumps(DESCRIPTION))
    return root


def program(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the program in bounded memory and time."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MEGABYTES << 20, MEGABYTES << 20))

    command = [sys.executable, "-m", "lesionsynth", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=SECONDS, preexec_fn=limit
    )


def bomb(root: Path) -> None:
    """A gigabyte of zeros behind an image of a few bytes."""
    path = save(root / "bomb.nii", np.zeros((5, 4, 3), np.int16))
    part = gzip.compress(bytes(1 << 24))
    (root / "imagesTr/b_0000.nii.gz").write_bytes(gzip.compress(path.read_bytes()) + part * 64)
    path.unlink()


def huge(root: Path) -> None:
    """A header that announces 70 terabytes."""
    path = save(root / "huge.nii", np.zeros((5, 4, 3), np.int16), dim=[3, 32767, 32767, 32767, 1, 1, 1, 1])
    (root / "labelsTr/b.nii.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()


def turned(root: Path) -> None:
    """A code of an affine that no tool knows."""
    image, _ = volume(1)
    save(root / "imagesTr/b_0000.nii.gz", image, LIKE, qform_code=99)


def infinite(root: Path) -> None:
    """Integers that are infinite in 32-bit floats."""
    image, _ = volume(1)
    save(root / "imagesTr/b_0000.nii.gz", image, LIKE, scaling=(3e38, 0.0), codes=(1, 1))


def endless(root: Path) -> None:
    """A label value of more digits than Python reads."""
    (root / "dataset.json").write_text(json.dumps({**DESCRIPTION, "labels": {"9" * 5000: "x"}}))


def deep(root: Path) -> None:
    """Splits of a hundred thousand lists in each other."""
    (root / "splits_final.json").write_text("[" * 100_000)


def negative(root: Path) -> None:
    """A label below 0, which must not become another one."""
    label = volume(1)[1].astype(np.int8)
    label[label == 1] = -1
    write_nifti(root / "labelsTr/b.nii.gz", label, LIKE)


@pytest.mark.parametrize(
    ("plant", "named"),
    [
        (bomb, "imagesTr/b_0000.nii.gz"),
        (huge, "labelsTr/b.nii.gz"),
        (turned, "imagesTr/b_0000.nii.gz"),
        (infinite, "imagesTr/b_0000.nii.gz"),
        (endless, "dataset.json"),
        (deep, "splits_final.json"),
        (negative, "labelsTr/b.nii.gz"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_data_sets(root: Path, tmp_path: Path, plant: Callable[[Path], None], named: str) -> None:
    plant(root)
    before = sorted(tmp_path.rglob("*"))
    command = ("run", "lesionmix", "-i", root, "-o", tmp_path / "out", "-q", "-s", "folds.strategy=none")
    if plant is bomb:  # in its own process, whose memory is limited
        done = program(*command)
        code, told, said = done.returncode, done.stdout, done.stderr
    else:
        code, told, said = invoke(*command)
    assert (code, told) == (ExitCode.INPUT, "")
    (line,) = said.splitlines()
    assert line.startswith("lesionsynth: ")
    assert named in line
    assert sorted(tmp_path.rglob("*")) == before


def test_check_lists_them_all_and_goes_on(root: Path, tmp_path: Path) -> None:
    for plant in (bomb, huge):
        plant(root)
    path = root / "imagesTr/a_0000.nii.gz"
    path.write_bytes(path.read_bytes()[:-9])
    before = sorted(tmp_path.rglob("*"))
    done = program("check", "lesionmix", "-i", root, "-q")
    assert (done.returncode, done.stderr) == (ExitCode.FINDINGS, "")
    faults = [line for line in done.stdout.splitlines() if line.startswith("error: ")]
    for named in ("imagesTr/a_0000.nii.gz", "imagesTr/b_0000.nii.gz", "labelsTr/b.nii.gz"):
        assert sum(named in fault for fault in faults) == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "text",
    [
        b"steps: !!python/object/apply:os.system ['touch marker']\n",
        b"a: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(b"b%d: [*a, *a]\n" % k for k in range(9999)),
        b"steps:\n  add: {kind: populate, load: " + b"[" * 3000,
        b"seed: 0x" + b"f" * 99_999 + b"\nsteps: {add: {kind: populate}}\n",
        b"steps: {add: {kind: populate}}\nlikelihood: {smoothing_mm: 1e300}\n",
        b"\x1f\x8b\x08\0" + bytes(range(256)),
        b"\xff\xfe" + "steps: {add: {kind: populate}}\n".encode("utf-16-le"),
    ],
    ids=["tag", "laughs", "nesting", "number", "size", "gzip", "utf-16"],
)
def test_recipes(root: Path, tmp_path: Path, text: bytes) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_bytes(text)
    before = sorted(tmp_path.rglob("*"))
    code, told, said = invoke("run", recipe, "-i", root, "-o", tmp_path / "out", "-q")
    assert (code, told) == (ExitCode.RECIPE, "")
    assert said.startswith(f"lesionsynth: {recipe}")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_whose_names_are_in_another_encoding(root: Path, tmp_path: Path) -> None:
    for name in ("imagesTr/b_0000.nii.gz", "labelsTr/b.nii.gz"):
        os.rename(root / name, os.fsencode(root / name.replace("/b", "/b\udce9")))
    done = program("check", "lesionmix", "-i", root, "-q")
    assert (done.returncode, done.stderr) == (ExitCode.FINDINGS, "")
    assert "case b\\udce9: " in done.stdout
