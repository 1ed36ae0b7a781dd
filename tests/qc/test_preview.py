"""What a preview shows is what a run would write."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from lesionsynth import nifti
from lesionsynth.cli.app import app
from lesionsynth.cli.preview import _values
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
    impossible = ["steps.add.min_volume_mm3=1e6", "steps.add.tries=2", "steps.add.surplus=keep"]
    wishes = [Wish("can", recipe_of(), 0), Wish("cannot", recipe_of(*impossible), 0)]
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
    with pytest.raises(OutputError, match="new folder"):
        made([Wish("x", recipe_of("seed=3"), 0)], root, tmp_path / "run")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


def test_a_plan_that_shards_wait_for_is_left_alone(make_nnunet: MakeData, tmp_path: Path) -> None:
    root = make_nnunet(4)
    session.plan(recipe_of(), root, tmp_path / "planned", Silent())
    before = (tmp_path / "planned" / "plan.jsonl").read_bytes()
    with pytest.raises(OutputError, match="new folder"):
        made([Wish("x", recipe_of("seed=3"), 0)], root, tmp_path / "planned")
    assert (tmp_path / "planned" / "plan.jsonl").read_bytes() == before


def test_what_is_kept_serves_again(make_nnunet: MakeData, tmp_path: Path) -> None:
    root, notes = make_nnunet(4), Silent()
    for seed in (1, 2):
        wishes = [Wish("", recipe_of(f"seed={seed}"), 0)]
        list(variants(wishes, root, tmp_path / "kept", None, None, notes, Engine(), "cpu"))
    assert [note for note in notes.notes if "is up to date" in note]


@pytest.mark.parametrize("strategy", ["per_fold", "none"])
def test_copies_are_those_of_a_run_whatever_the_folds(
    make_nnunet: MakeData, tmp_path: Path, strategy: str
) -> None:
    """With per_fold the numbers of a host's copies depend on how many there are."""
    root, run = make_nnunet(4), tmp_path / "run"
    options = [f"folds.strategy={strategy}", "output.copies=2", "steps.add.load=[2, 8]"]
    arguments = ["-i", str(root), *(word for option in options for word in ("--set", option))]
    assert CliRunner().invoke(app, ["run", "lesionmix", "-o", str(run), *arguments]).exit_code == 0
    more = ["--case", "case3", "--montage", "2", "-o", str(tmp_path / "x.png")]
    result = CliRunner().invoke(app, ["preview", "lesionmix", *arguments, *more])
    written = sorted(path.stem for path in (run / "records").glob("case3__*.json"))[:2]
    for line, case in zip(result.stdout.splitlines()[:-1], written, strict=True):
        load = json.loads((run / "records" / f"{case}.json").read_text())["load_ml"]
        assert line.startswith(f"{case}: {load['before']:.2f} -> {load['after']:.2f} mL")


def test_without_a_case_the_first_that_can_be_edited_is_shown(make_nnunet: MakeData, tmp_path: Path) -> None:
    root = make_nnunet(4)
    path = root / "labelsTr" / "case1.nii.gz"
    image = nib.load(path)
    nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine).to_filename(path)
    healthy = load_recipe("pseudo_healthy", ["output.copies=1"])
    (variant,) = made([Wish("", healthy, 0)], root, tmp_path / "kept")
    assert variant.title == "case2__syn000"
    with pytest.raises(NoRoomError, match="case1"):
        made([Wish("", healthy, 0)], root, tmp_path / "kept", case="case1")


def test_a_host_without_lesions_is_shown_where_its_new_ones_stand_out(
    make_nnunet: MakeData, tmp_path: Path
) -> None:
    """On T1 there are no lesions, but anatomy differs most where those of the copy lie."""
    root = make_nnunet(4)
    for number in (1, 2, 3, 4):
        path = root / "imagesTr" / f"case{number}_0001.nii.gz"
        image = nib.load(path)
        smooth = np.where(np.asanyarray(image.dataobj) > 0, 500, 0).astype(np.int16)
        nib.Nifti1Image(smooth, image.affine).to_filename(path)
    path = root / "labelsTr" / "case2.nii.gz"
    label = nib.load(path)
    nib.Nifti1Image(np.zeros(label.shape, np.uint8), label.affine).to_filename(path)
    recipe = recipe_of("folds.strategy=none", "tissue.kind=mask", "steps.add.load=[5, 8]")
    (variant,) = made([Wish("", recipe, 0)], root, tmp_path / "kept", case="case2")
    assert variant.about == "case2, FLAIR"


@pytest.mark.parametrize(
    ("more", "said"),
    [({"case": "case9"}, "case1, case2, case3"), ({"channel": "T9"}, "the channels are FLAIR, T1")],
)
def test_wrong_names_are_told_with_the_right_ones(
    make_nnunet: MakeData, tmp_path: Path, more: dict[str, str], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        made([Wish("x", recipe_of(), 0)], make_nnunet(3), tmp_path / "kept", **more)
    assert not (tmp_path / "kept").exists(), "before anything is harvested"


class TestCommand:
    @pytest.mark.parametrize(
        ("more", "titles"),
        [
            ([], ["case1__syn000"]),
            (["--montage", "3", "--channel", "t1"], [f"case1__syn00{k}" for k in range(3)]),
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
            ["-o", "picture.jpg"],
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

    def test_commas_in_brackets_and_quotes_belong_to_a_value(self) -> None:
        assert _values("a.b=[1,2],{x: 3, y: 4}, 'u,v' ,5") == [
            *("a.b=[1,2]", "a.b={x: 3, y: 4}", "a.b='u,v'", "a.b=5")
        ]

    @pytest.mark.parametrize(
        ("columns", "variables", "rows"),
        [
            ("100", {}, [2]),
            ("36", {}, [1, 1]),  # below each other
            ("35", {}, []),  # no room for one
            ("100", {"NO_COLOR": "1"}, []),
            ("100", {"TERM": "dumb"}, []),
        ],
    )
    def test_a_terminal_gets_a_small_picture(
        self, make_nnunet: MakeData, tmp_path: Path, columns: str, variables: dict[str, str], rows: list[int]
    ) -> None:
        shown = self.in_terminal(make_nnunet(3), tmp_path, {"COLUMNS": columns, **variables})
        drawn = [line for line in shown.splitlines() if "▀" in line]
        assert [line.count("▀") // 36 for line in drawn] == [n for count in rows for n in [count] * 18]
        assert shown.count("case1__syn000") == (2 if rows else 1)  # over its picture, and in what is said
        if rows:
            assert len(set(re.findall(r"38;2;(\d+;\d+;\d+)", drawn[9]))) > 5
            assert "host" in shown

    def in_terminal(self, root: Path, tmp_path: Path, variables: dict[str, str]) -> str:
        program = Path(sys.executable).with_name("lesionsynth")
        arguments = [program, "preview", "lesionmix", "-i", root, "-o", tmp_path / "x.png"]
        ours, theirs = pty.openpty()
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", **variables}
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
        return shown.decode()
