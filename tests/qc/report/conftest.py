"""A finished output with its report, and one whose names try to be code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lesionsynth.cli.app import app
from tests.conftest import write_phantoms

EVIL = "<img src=x onerror=window.hacked=1>"


def made(root: Path, output: Path, *more: str) -> Path:
    """An output as the command line makes it."""
    with pytest.raises(SystemExit) as ended:
        app(["run", "lesionmix", "-i", str(root), "-o", str(output), "-q", *more])
    assert ended.value.code == 0
    return output


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, phantoms: Any) -> Path:
    """Four hosts with two copies each; no lesion is removed."""
    root = write_phantoms(tmp_path_factory.mktemp("in") / "data", phantoms[:4])
    more = ["-n", "2", "--set", "steps.add.surplus=keep", "--set", "steps.add.load=[15, 25]"]
    return made(root, tmp_path_factory.mktemp("out") / "expanded", *more)


@pytest.fixture(scope="session")
def evil(tmp_path_factory: pytest.TempPathFactory, phantoms: Any) -> Path:
    """An output whose folder, channel and description are such that a careless page would run them."""
    root = write_phantoms(tmp_path_factory.mktemp("in") / "data", phantoms[:3])
    description = json.loads((root / "dataset.json").read_text())
    description["channel_names"] = {"0": f"{EVIL}</script>", "1": "T1"}
    (root / "dataset.json").write_text(json.dumps(description))
    return made(root, tmp_path_factory.mktemp("out") / EVIL, "-n", "1", "--set", f"description='{EVIL}'")
