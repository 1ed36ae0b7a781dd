"""What a preview shows is what a run would write."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from lesionsynth import nifti
from lesionsynth.cli.app import app
from lesionsynth.errors import ExitCode, InputError, NoRoomError, OutputError
from lesionsynth.qc.preview import Variant, Wish, variants
from lesionsynth.recipe.load import load_recipe
from lesionsynth.recipe.model import Recipe
from lesionsynth.run import session
from lesionsynth.run.pool import Engine
from tests.test_invariants import Silent

MakeData = Callable[..., Path]


def recipe_of(*overrides: str, name: str = "lesionmix") -> Recipe:
    return load_recipe(name, ["output.copies=2", "steps.add.load=[2, 8]", *overrides])


def made(wishes: list[Wish], root: Path, folder: Path, **more: str) -> list[Variant]:
    case, channel = more.get("case"), more.get("channel")
    return list(variants(wishes, root, folder, case, channel, Silent(), Engine(), "cpu"))


def test_copies_are_those_of_a_run(make_nnunet: MakeData, tmp_path: Path) -> None:
    root, recipe = make_nnunet(4), recipe_of("output.source_map=true")
    session.run(recipe, root, tmp_path / "run", Silent())
    wishes = [Wish(str(number), recipe, number) for number in (0, 1)]
    for number, variant in enumerate(made(wishes, root, tmp_path / "kept", case="case2")):
        assert variant.record is not None
        assert variant.record["case"] == f"case2__syn{number:03d}"
        assert variant.about.startswith("case2, ")
        for path, digest in variant.record["hashes"].items():
            assert nifti.read(tmp_path / "run" / path).voxel_hash == digest
        load = variant.record["load_ml"]
        assert f"{load['before']:.2f} -> {load['after']:.2f} mL" in variant.facts
    assert not list((tmp_path / "kept").rglob("*__syn*"))


def test_variants_of_a_sweep_differ_where_the_key_says(make_nnunet: MakeData, tmp_path: Path) -> None:
    said = ["steps.add.blend.k=0.9", "steps.add.blend.k=1"]
    wishes = [Wish(text, recipe_of(text, name="soft_poisson"), 0) for text in said]
    first, second = made(wishes, make_nnunet(4), tmp_path / "kept")
    assert first.record is not None
    assert second.record is not None
    draws = [v.record["steps"][0]["draws"][0] for v in (first, second)]  # type: ignore[index]
    assert [draw["blend"]["k"] for draw in draws] == [0.9, 1]
    pictures = [v.shown[0][1] for v in (first, second)]
    assert np.array_equal(pictures[0]["axial", "host"], pictures[1]["axial", "host"])
    assert not np.array_equal(pictures[0]["axial", "synthetic"], pictures[1]["axial", "synthetic"])


def test_a_variant_that_cannot_be_made_says_so_among_others(make_nnunet: MakeData, tmp_path: Path) -> None:
    impossible = "steps.add.min_volume_mm3=1e6"
    wishes = [Wish("can", recipe_of(), 0), Wish("cannot", recipe_of(impossible, "steps.add.tries=2"), 0)]
    root = make_nnunet(4)
    can, cannot = made(wishes, root, tmp_path / "kept")
    assert can.shown
    assert (cannot.shown, cannot.record, cannot.thumbs) == ((), None, None)
    assert "no edit was possible" in cannot.facts
    with pytest.raises(NoRoomError):
        made(wishes[1:], root, tmp_path / "kept")


def test_the_output_of_a_run_is_left_alone(make_nnunet: MakeData, tmp_path: Path) -> None:
    root = make_nnunet(4)
    session.run(recipe_of(), root, tmp_path / "run", Silent())
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    with pytest.raises(OutputError, match="folder of its own"):
        made([Wish("x", recipe_of("seed=3"), 0)], root, tmp_path / "run")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


@pytest.mark.parametrize(
    ("more", "said"),
    [({"case": "case9"}, "case1, case2, case3"), ({"channel": "T9"}, "the channels are FLAIR, T1")],
)
def test_wrong_names_are_told_with_the_right_ones(
    make_nnunet: MakeData, tmp_path: Path, more: dict[str, str], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        made([Wish("x", recipe_of(), 0)], make_nnunet(3), tmp_path / "kept", **more)


class TestCommand:
    @pytest.mark.parametrize(
        ("more", "titles"),
        [
            ([], ["copy 0"]),
            (["--montage", "3", "--channel", "t1"], ["copy 0", "copy 1", "copy 2"]),
            (
                ["--sweep", "steps.add.contrast={kind: shell, noise: 0},{kind: ratio, noise: 0.5}"],
                [
                    "steps.add.contrast={kind: shell, noise: 0}",
                    "steps.add.contrast={kind: ratio, noise: 0.5}",
                ],
            ),
        ],
    )
    def test_writes_a_picture_and_says_what_is_on_it(
        self, make_nnunet: MakeData, tmp_path: Path, more: list[str], titles: list[str]
    ) -> None:
        path = tmp_path / "seen.png"
        arguments = ["preview", "lesionmix", "-i", str(make_nnunet(4)), "-o", str(path), *more]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert result.stdout.splitlines()[-1] == f"{path}: {image.width} x {image.height} pixels"
            assert np.asarray(image).std() > 20
        assert [line.partition(": ")[0] for line in result.stdout.splitlines()[:-1]] == [
            title.partition(": ")[0] for title in titles
        ]
        assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "seen.png"]

    @pytest.mark.parametrize(
        "more",
        [
            ["--sweep", "steps.add.load"],
            ["--sweep", "=1"],
            ["--sweep", "seed=1,,2"],
            ["--sweep", "seed=" + ",".join("123456789" * 2)],
            ["--sweep", "seed=1,2", "--montage", "2"],
            ["--montage", "17"],
        ],
    )
    def test_wrong_usage(self, make_nnunet: MakeData, tmp_path: Path, more: list[str]) -> None:
        arguments = ["preview", "lesionmix", "-i", str(tmp_path), "-o", str(tmp_path / "x.png"), *more]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == ExitCode.USAGE
        assert not (tmp_path / "x.png").exists()

    def test_a_wrong_value_of_a_sweep_is_told_before_anything_is_read(self, tmp_path: Path) -> None:
        arguments = [
            "preview",
            "lesionmix",
            "-i",
            str(tmp_path),
            "--sweep",
            "steps.add.blend.kind=alpha,soft",
        ]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == ExitCode.RECIPE
        assert "--set steps.add.blend.kind=soft" in result.stderr

    def test_a_terminal_gets_a_small_picture(self, make_nnunet: MakeData, tmp_path: Path) -> None:
        program = Path(sys.executable).with_name("lesionsynth")
        arguments = [program, "preview", "lesionmix", "-i", make_nnunet(3), "-o", tmp_path / "x.png"]
        ours, theirs = pty.openpty()
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "COLUMNS": "100"}
        running = subprocess.Popen(
            arguments, stdout=theirs, stderr=subprocess.DEVNULL, env=environment, close_fds=True
        )
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 65536):
                shown += part
        except OSError:  # how Linux says that the other end is closed
            pass
        os.close(ours)
        assert running.wait() == 0
        rows = [line for line in shown.decode().splitlines() if "▀" in line]
        assert len(rows) == 18
        assert {row.count("▀") for row in rows} == {72}
        assert len(set(re.findall(r"38;2;(\d+;\d+;\d+)", rows[9]))) > 5
