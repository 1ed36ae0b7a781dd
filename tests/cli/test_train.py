"""lesionsynth train, as it is typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lesionsynth.cli.app import app
from lesionsynth.errors import ExitCode
from lesionsynth.generative.checkpoint import read_card
from tests.generative.models import MASKS

MakeData = Callable[..., Path]
FEW = ["--preset", "tiny", "-t", "steps=2", "-t", "validate_every=1", "-t", "batch=2"]


def train(*words: object, kind: str = "lesion-autoencoder"):
    return CliRunner().invoke(app, ["train", kind, *map(str, words)])


@pytest.mark.parametrize("kind", ["lesion-autoencoder", "mask-gan"])
def test_a_model_for_each_block(kind: str, masks_of_phantoms: Path, tmp_path: Path) -> None:
    words = ["-i", masks_of_phantoms, "-o", tmp_path / "m", *FEW, "--set", MASKS, "--set", "folds.count=2"]
    done = train(*words, kind=kind)
    assert done.exit_code == 0, done.output
    cards = {n: read_card(tmp_path / "m" / f"block{n}.safetensors") for n in (0, 1)}
    both = [set(card.subjects) for card in cards.values()]
    assert both[0] & both[1] == {"out4", "out5"}
    assert both[0] | both[1] == {"case1", "case2", "case3", "case4", "out4", "out5"}
    assert {card.kind for card in cards.values()} == {kind}
    assert not list((tmp_path / "m" / "state").iterdir())
    # Again: nothing is left to do.
    before = {n: (tmp_path / "m" / f"block{n}.safetensors").stat().st_mtime_ns for n in (0, 1)}
    again = train(*words, kind=kind)
    assert "is trained already" in again.output
    assert before == {n: (tmp_path / "m" / f"block{n}.safetensors").stat().st_mtime_ns for n in (0, 1)}


def test_one_block_as_json(masks_of_phantoms: Path, tmp_path: Path) -> None:
    done = train(
        *("-i", masks_of_phantoms, "-o", tmp_path / "m", *FEW, "--set", "folds.count=2"),
        *("--block", "block1", "--json", "--quiet"),
    )
    assert done.exit_code == 0, done.output
    ((path, card),) = json.loads(done.stdout).items()
    assert path.endswith("block1.safetensors")
    assert card["block"] == "block1"
    assert card["steps"] <= 2


def test_masks_alone(masks_of_phantoms: Path, tmp_path: Path) -> None:
    done = train(
        *("-i", masks_of_phantoms / "masks", "-o", tmp_path / "m", *FEW),
        *("--set", 'input.masks.path="{subject}.nii.gz"'),
    )
    assert done.exit_code == 0, done.output
    card = read_card(tmp_path / "m" / "all.safetensors")
    assert card.subjects == ("out4", "out5")
    assert card.about["channels"] == 0


@pytest.mark.parametrize(
    ("words", "code", "match"),
    [
        (["-t", "stepz=3"], ExitCode.RECIPE, r"--train stepz=3: unknown key stepz. Did you mean steps\?"),
        (["-t", "size=9"], ExitCode.RECIPE, "should be a multiple of 4"),
        (["--preset", "huge"], ExitCode.USAGE, "there is no preset 'huge'"),
        (["--block", "block7"], ExitCode.INPUT, "there is no block 'block7'; the folds have block0"),
        (["--device", "cuda:9"], ExitCode.USAGE, "there is no cuda:9"),
        (["--set", "input.masks.path=no/{subject}.nii"], ExitCode.INPUT, "finds no file"),
    ],
)
def test_what_is_wrong_is_said(
    masks_of_phantoms: Path, tmp_path: Path, words: list[str], code: int, match: str
) -> None:
    import re

    done = train("-i", masks_of_phantoms, "-o", tmp_path / "m", *FEW, *words)
    assert done.exit_code == code, done.output
    assert re.search(match, " ".join(done.output.split())), done.output


def test_other_settings_go_to_another_folder(masks_of_phantoms: Path, tmp_path: Path) -> None:
    words = ["-i", masks_of_phantoms, "-o", tmp_path / "m", *FEW, "--block", "block0"]
    assert train(*words).exit_code == 0
    done = train(*words, "-t", "seed=5")
    assert done.exit_code == ExitCode.OUTPUT
    assert "made for something else: config.seed differ" in " ".join(done.output.split())


def test_a_folder_of_other_files_is_not_touched(masks_of_phantoms: Path, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "thesis.txt").write_text("")
    assert train("-i", masks_of_phantoms, "-o", tmp_path / "m", *FEW).exit_code == ExitCode.OUTPUT
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["thesis.txt"]
