"""Bad input: one clear message, an exit code, and no half-written output."""

from __future__ import annotations

import gzip
import json
import resource
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from lesionsynth.cli.app import app
from lesionsynth.errors import ExitCode
from tests.conftest import write_nifti
from tests.layouts.trees import nnunet

T1, LABEL = "imagesTr/case2_0001.nii.gz", "labelsTr/case2.nii.gz"


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def run(root: Path, output: Path, *more: object, recipe: object = "lesionmix") -> Result:
    return invoke("run", recipe, "-i", root, "-o", output, "-q", "-n", 1, "-s", "folds.strategy=none", *more)


def program(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lesionsynth", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload,no-any-return]


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def refused(result: Result | subprocess.CompletedProcess[str], code: ExitCode, *said: object) -> None:
    """One message on stderr that holds all of `said`, nothing on stdout."""
    given = result.exit_code if isinstance(result, Result) else result.returncode
    assert result.stdout == ""
    assert given == code, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("lesionsynth: ")
    assert "Traceback" not in line
    assert "unexpected" not in line
    for part in said:
        assert str(part) in line


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def put(path: Path, value: float, dtype: type) -> None:
    image = nib.load(path)
    data = np.asanyarray(image.dataobj).astype(dtype)
    data[2, 3, 4] = value
    write_nifti(path, data, image.affine)


def put_into_lesion(root: Path, value: float) -> None:
    image = nib.load(root / T1)
    data = np.asanyarray(image.dataobj).astype(np.float32)
    data[tuple(np.argwhere(np.asanyarray(nib.load(root / LABEL).dataobj) > 0)[0])] = value
    write_nifti(root / T1, data, image.affine)


def crop(path: Path) -> None:
    image = nib.load(path)
    write_nifti(path, np.asanyarray(image.dataobj)[:-1], image.affine)


BAD_CASES: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "truncated gzip": (lambda root: cut(root / T1), (T1, "damaged or truncated", "download the file again")),
    "no gzip": (
        lambda root: (root / T1).write_bytes(b"x" * 999) and None,
        (T1, "not a NIfTI file", "Convert"),
    ),
    "nan": (
        lambda root: put_into_lesion(root, np.nan),
        ("case2", T1, "1 voxels that are NaN or infinite, 1 of them in lesions", "Replace"),
    ),
    "wrong grid": (lambda root: crop(root / T1), ("case2", T1, "23x30x25", "24x30x25", "Resample")),
    "label on another grid": (lambda root: crop(root / LABEL), ("case2", LABEL, "23x30x25", "Resample")),
    "missing channel": (
        lambda root: (root / T1).unlink(),
        ("case2", T1, "channel T1 is missing", "Add the file"),
    ),
    "missing label": (lambda root: (root / LABEL).unlink(), ("case2", LABEL, "label map is missing", "Add")),
    "unknown label": (
        lambda root: put(root / LABEL, 9, np.uint8),
        ("case2", LABEL, "unknown value 9", "known are"),
    ),
    "label nan": (
        lambda root: put(root / LABEL, np.nan, np.float32),
        ("case2", LABEL, "NaN", "whole numbers"),
    ),
}


@pytest.mark.parametrize("name", BAD_CASES)
def test_a_bad_case_stops_before_anything_is_written(
    make_nnunet: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    plant, said = BAD_CASES[name]
    root = make_nnunet(3)
    plant(root)
    before = tree(root)
    refused(run(root, tmp_path / "out"), ExitCode.INPUT, *said)
    assert not (tmp_path / "out").exists()
    assert tree(root) == before


@pytest.mark.parametrize("name", ["truncated gzip", "missing channel", "nan"])
def test_or_is_left_out_where_the_recipe_says_so(
    make_nnunet: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    root = make_nnunet(4, splits=[{"train": ["case1", "case4"], "val": ["case2", "case3"]}])
    BAD_CASES[name][0](root)
    result = invoke(
        *("run", "lesionmix", "-i", root, "-o", tmp_path / "out", "-n", 1, "-s", "input.on_bad_case=drop"),
        *("-s", "folds.strategy=block"),
    )
    assert "case2" in result.stderr
    assert "Traceback" not in result.stderr
    assert not list((tmp_path / "out").rglob("*case2*"))
    assert list((tmp_path / "out/imagesTr").glob("case*__syn000_0000.nii.gz"))
    (fold,) = json.loads((tmp_path / "out/splits_final.json").read_text())
    assert fold["val"] == ["case3"]


class TestCohort:
    def test_empty(self, tmp_path: Path) -> None:
        root = nnunet(tmp_path / "data", [])
        (root / "labelsTr").mkdir()
        refused(run(root, tmp_path / "out"), ExitCode.INPUT, root, "no case was found", "Check the path")
        assert not (tmp_path / "out").exists()

    def test_missing(self, tmp_path: Path) -> None:
        refused(run(tmp_path / "data", tmp_path / "out"), ExitCode.INPUT, "data", "does not exist")
        assert not (tmp_path / "out").exists()

    def test_of_no_known_layout(self, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir()
        refused(
            run(tmp_path / "data", tmp_path / "out"), ExitCode.INPUT, "no known layout", "lesionsynth init"
        )
        assert not (tmp_path / "out").exists()

    def test_no_donors_left_after_the_leak_rule(
        self, make_nnunet: Callable[..., Path], tmp_path: Path
    ) -> None:
        root = make_nnunet(3)
        image = nib.load(root / LABEL)
        write_nifti(root / LABEL, np.zeros(image.shape, np.uint8), image.affine)
        splits = [
            {"train": ["case1", "case3"], "val": ["case2"]},
            {"train": ["case2"], "val": ["case1", "case3"]},
        ]
        (root / "splits_final.json").write_text(json.dumps(splits))
        result = run(root, tmp_path / "out", "-s", "folds.strategy=block")
        refused(result, ExitCode.INPUT, "case2", "no donor", "Use fewer folds")
        assert not (tmp_path / "out").exists()

    def test_alone_in_its_block_with_own_lesions_forbidden(
        self, make_nnunet: Callable[..., Path], tmp_path: Path
    ) -> None:
        root = make_nnunet(2)
        result = run(
            root, tmp_path / "out", "-s", "folds.strategy=block", "-s", "sources.donors.own_subject=forbid"
        )
        refused(result, ExitCode.INPUT, "alone in its block", "own_subject is forbid", "Use fewer folds")
        assert not (tmp_path / "out").exists()

    def test_splits_that_leak(self, make_nnunet: Callable[..., Path], tmp_path: Path) -> None:
        root = make_nnunet(2, splits=[{"train": ["case1", "case2"], "val": ["case2"]}])
        result = run(root, tmp_path / "out", "-s", "folds.strategy=block")
        refused(
            result,
            ExitCode.INPUT,
            "splits_final.json",
            "trains and validates on the subject 'case2'",
            "Correct",
        )
        assert not (tmp_path / "out").exists()

    def test_no_room_to_place(self, make_nnunet: Callable[..., Path], tmp_path: Path) -> None:
        """Every case fails by itself, with its own message; what is written is whole."""
        root = make_nnunet(2)
        result = run(root, tmp_path / "out", "-s", "steps.add.min_volume_mm3=1e9", "-s", "steps.add.load=500")
        assert result.exit_code == ExitCode.SOME_FAILED
        for case in ("case1", "case2"):
            (line,) = [line for line in result.stderr.splitlines() if f"{case}__syn000" in line]
            assert "no edit was possible" in line
            assert "Look at load, site and donors" in line
        assert "Traceback" not in result.stderr
        assert {p.parent.name for p in (tmp_path / "out").rglob("*__syn*")} == {"failures"}


class TestOutput:
    def test_inside_the_input(self, make_nnunet: Callable[..., Path]) -> None:
        root = make_nnunet(2)
        before = tree(root)
        for output in (root, root / "out", root / "labelsTr" / "deep" / "out"):
            refused(run(root, output), ExitCode.OUTPUT, output, "must not lie inside the input", "elsewhere")
        assert tree(root) == before

    def test_around_the_input(self, make_nnunet: Callable[..., Path], tmp_path: Path) -> None:
        root = make_nnunet(2)
        refused(run(root, tmp_path), ExitCode.OUTPUT, "nor the input inside it")

    def test_inside_the_input_by_a_link(self, make_nnunet: Callable[..., Path], tmp_path: Path) -> None:
        root = make_nnunet(2)
        before = tree(root)
        (tmp_path / "link").symlink_to(root)
        refused(run(root, tmp_path / "link" / "out"), ExitCode.OUTPUT, "must not lie inside the input")
        assert tree(root) == before

    def test_a_file(self, make_nnunet: Callable[..., Path], tmp_path: Path) -> None:
        (tmp_path / "out").write_text("precious")
        refused(run(make_nnunet(2), tmp_path / "out"), ExitCode.OUTPUT, "is a file; a folder was expected")
        assert (tmp_path / "out").read_text() == "precious"

    def test_a_folder_with_other_files(self, make_nnunet: Callable[..., Path], tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.txt").write_text("precious")
        refused(run(make_nnunet(2), tmp_path / "out"), ExitCode.OUTPUT, "holds other files", "Choose a new")
        assert tree(tmp_path / "out") == {"thesis.txt": b"precious"}

    def test_of_another_recipe(self, make_nnunet: Callable[..., Path], tmp_path: Path) -> None:
        root = make_nnunet(2)
        assert run(root, tmp_path / "out").exit_code == 0
        before = tree(tmp_path / "out")
        refused(
            run(root, tmp_path / "out", "--seed", 5),
            ExitCode.OUTPUT,
            "another recipe",
            "Choose another folder",
        )
        assert tree(tmp_path / "out") == before

    def test_below_a_file(self, make_nnunet: Callable[..., Path], tmp_path: Path) -> None:
        (tmp_path / "file").write_text("precious")
        refused(
            run(make_nnunet(2), tmp_path / "file" / "out"),
            ExitCode.OUTPUT,
            "cannot be written",
            "Choose another",
        )
        assert (tmp_path / "file").read_text() == "precious"

    def test_where_nobody_can_write(self, make_nnunet: Callable[..., Path]) -> None:
        """/proc refuses even root."""
        output = Path("/proc/lesionsynth-output")
        refused(run(make_nnunet(2), output), ExitCode.OUTPUT, output, "cannot be written")

    @pytest.mark.parametrize("jobs", [1, 2])
    def test_a_disk_that_is_full(self, make_nnunet: Callable[..., Path], tmp_path: Path, jobs: int) -> None:
        root, output = make_nnunet(2), tmp_path / "out"
        arguments = ("run", "lesionmix", "-i", root, "-o", output, "-n", 1, "-j", jobs, "-q")
        done = program(*arguments, "-s", "folds.strategy=none", preexec_fn=lambda: limit_files(3000))
        refused(done, ExitCode.OUTPUT, "cannot be written", "File too large", "Check free space")
        assert not output.exists()

    def test_a_disk_that_fills_up_in_the_midst(
        self, make_nnunet: Callable[..., Path], tmp_path: Path
    ) -> None:
        """The images are larger than everything before them. What is there is whole, and can be continued."""
        root, output = make_nnunet(2), tmp_path / "out"
        for path in root.glob("imagesTr/*.nii.gz"):
            image = nib.load(path)
            write_nifti(path.with_suffix(""), image.get_fdata(), image.affine)
            path.unlink()
        for path in root.glob("labelsTr/*.nii.gz"):
            path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
            path.unlink()
        (root / "dataset.json").write_text((root / "dataset.json").read_text().replace(".nii.gz", ".nii"))
        arguments = ("run", "lesionmix", "-i", root, "-o", output, "-n", 1, "-q", "-s", "folds.strategy=none")
        done = program(*arguments, preexec_fn=lambda: limit_files(140_000))
        refused(
            done, ExitCode.OUTPUT, "imagesTr", "cannot be written", "File too large", "same command again"
        )
        assert (output / "recipe.lock.yaml").is_file()
        left = [p for p in output.rglob("*") if p.is_file() and "bank" not in p.parts]
        assert not [p for p in left if p.name.startswith(".tmp") or "__syn" in p.name or p.suffix == ".nii"]
        done = program(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert len(list(output.glob("imagesTr/*__syn000_000?.nii"))) == 4


def limit_files(size: int) -> None:
    """Let no file of this process grow beyond `size`, so that writing fails as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


class TestRecipe:
    def recipe(self, folder: Path, text: str) -> Path:
        (folder / "recipe.yaml").write_text(text)
        return folder / "recipe.yaml"

    def test_unknown(self, tmp_path: Path) -> None:
        result = run(tmp_path, tmp_path / "out", recipe="lesionmx")
        refused(
            result,
            ExitCode.RECIPE,
            "no recipe called 'lesionmx'",
            "Did you mean lesionmix?",
            "Shipped recipes",
        )

    def test_unknown_key(self, tmp_path: Path) -> None:
        path = self.recipe(tmp_path, "steps:\n  add:\n    kind: populate\n    laod: high\n")
        result = run(tmp_path, tmp_path / "out", recipe=path)
        refused(result, ExitCode.RECIPE, f"{path}:4: unknown key steps.add.laod. Did you mean load?")
        assert not (tmp_path / "out").exists()

    def test_malicious(self, tmp_path: Path) -> None:
        marker = tmp_path / "marker"
        path = self.recipe(tmp_path, f"steps: !!python/object/apply:os.system ['touch {marker}']\n")
        refused(
            program("check", path, "-i", tmp_path),
            ExitCode.RECIPE,
            f"{path}:1",
            "nothing in them is evaluated",
        )
        assert not marker.exists()

    def test_wrong_override(self, tmp_path: Path) -> None:
        result = run(tmp_path, tmp_path / "out", "-s", "sed=3")
        refused(result, ExitCode.RECIPE, "--set sed=3: unknown key sed. Did you mean seed?")


class TestAsAProgram:
    """The same, seen from a shell."""

    def test_a_bad_case(self, make_nnunet: Callable[..., Path], tmp_path: Path) -> None:
        root = make_nnunet(2)
        cut(root / T1)
        done = program("run", "lesionmix", "-i", root, "-o", tmp_path / "out", "-q")
        refused(done, ExitCode.INPUT, T1, "damaged or truncated")
        assert not (tmp_path / "out").exists()

    def test_an_unknown_key(self, tmp_path: Path) -> None:
        done = program("run", "lesionmix", "-i", tmp_path, "-o", tmp_path / "out", "-s", "sed=3")
        refused(done, ExitCode.RECIPE, "Did you mean seed?")

    def test_findings(self, make_nnunet: Callable[..., Path]) -> None:
        root = make_nnunet(2)
        cut(root / T1)
        done = program("check", "lesionmix", "-i", root, "--json", "-q")
        assert done.returncode == ExitCode.FINDINGS
        assert done.stderr == ""
        (finding,) = json.loads(done.stdout)["findings"]
        assert finding["file"] == str(root / T1)
        assert program("check", "lesionmix", "-i", make_nnunet(2, name="sound")).returncode == ExitCode.OK

    def test_a_closed_pipe(self) -> None:
        done = subprocess.run(
            f"{sys.executable} -m lesionsynth schema | head -c 10",
            shell=True,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        assert len(done.stdout) == 10


class TestOtherCommands:
    def test_init_keeps_a_recipe_that_is_there(
        self, make_nnunet: Callable[..., Path], tmp_path: Path
    ) -> None:
        root, path = make_nnunet(2), tmp_path / "r.yaml"
        path.write_text("precious")
        refused(invoke("init", root, "-o", path), ExitCode.OUTPUT, path, "exists already", "--force")
        assert path.read_text() == "precious"
        assert invoke("init", root, "-o", path, "--force").exit_code == 0
        assert path.read_text() != "precious"

    def test_init_then_check(self, make_nnunet: Callable[..., Path], tmp_path: Path) -> None:
        root, path = make_nnunet(3), tmp_path / "deep" / "r.yaml"
        assert str(path) in invoke("init", root, "-o", path).stdout
        result = invoke("check", path, "-i", root)
        assert result.exit_code == 0, result.output
        assert "no findings" in result.stdout

    def test_init_of_nothing(self, tmp_path: Path) -> None:
        result = invoke("init", tmp_path / "missing", "-o", tmp_path / "r.yaml")
        refused(result, ExitCode.INPUT, "folder does not exist")
        (tmp_path / "empty").mkdir()
        result = invoke("init", tmp_path / "empty", "-o", tmp_path / "r.yaml")
        refused(result, ExitCode.INPUT, "no NIfTI file")
        assert not (tmp_path / "r.yaml").exists()

    def test_init_of_a_tree_it_does_not_know(self, tmp_path: Path) -> None:
        write_nifti(tmp_path / "in/p1/p1_t1.nii.gz", np.ones((3, 3, 3), np.uint8), np.eye(4))
        result = invoke("init", tmp_path / "in", "-o", tmp_path / "r.yaml")
        assert result.exit_code == 0
        assert "not recognised: correct the paths in it first" in result.stdout
        found = invoke("check", tmp_path / "r.yaml", "-i", tmp_path / "in")
        assert "Correct the paths under `input.layout`" in found.stdout

    def test_what_init_prints_can_be_pasted(self, make_nnunet: Callable[..., Path], tmp_path: Path) -> None:
        root = make_nnunet(2).rename(tmp_path / "two words")
        told = invoke("init", root, "-o", tmp_path / "my recipe.yaml").stdout.splitlines()
        words = [shlex.split(line) for line in told if line.startswith("  lesionsynth")]
        assert [w[1:5] for w in words] == [
            [command, str(tmp_path / "my recipe.yaml"), "--input", str(root)] for command in ("check", "run")
        ]

    def test_an_input_that_is_a_file(self, make_nnunet: Callable[..., Path]) -> None:
        file = make_nnunet(2) / "dataset.json"
        result = invoke("check", "lesionmix", "-i", file)
        refused(result, ExitCode.INPUT, "is a file", "Give the folder")

    def test_blocks_of_a_bank_are_those_of_its_run(
        self, make_nnunet: Callable[..., Path], tmp_path: Path
    ) -> None:
        root, out = make_nnunet(2), tmp_path / "out"
        assert invoke("run", "lesionmix", "-i", root, "-o", out, "--set", "output.copies=1").exit_code == 0
        result = invoke("bank", "ls", out / "bank", "--block", "block9")
        refused(result, ExitCode.INPUT, "there is no block block9; there are block0, block1.")
        shutil.copytree(out / "bank", tmp_path / "alone" / "bank")
        result = invoke("bank", "ls", tmp_path / "alone" / "bank", "--block", "block0")
        refused(result, ExitCode.INPUT, "no run's output", "--run is its output folder")

    def test_check_tells_each_finding_on_a_line(self, make_nnunet: Callable[..., Path]) -> None:
        root = make_nnunet(2)
        put(root / LABEL, 9, np.uint8)
        result = invoke("check", "lesionmix", "-i", root, "-q")
        assert result.exit_code == ExitCode.FINDINGS
        assert f"error: case case2: {root / LABEL}: the label map has the unknown value 9" in result.stdout
        assert "1 finding(s)" in result.stdout

    def test_a_plan_writes_nothing(self, make_nnunet: Callable[..., Path], tmp_path: Path) -> None:
        root = make_nnunet(2)
        before = tree(tmp_path)
        planned = invoke("plan", "lesionmix", "-i", root, "-n", 2, "-q")
        dry = run(root, tmp_path / "out", "-n", 2, "-s", "folds.strategy=block", "--dry-run")
        assert tree(tmp_path) == before
        assert planned.stdout == dry.stdout
        assert [json.loads(line)["case"] for line in planned.stdout.splitlines()] == [
            f"case{host}__syn00{copy}" for host in (1, 2) for copy in (0, 1)
        ]

    @pytest.mark.parametrize("command", [("bank", "ls"), ("bank", "show")])
    def test_no_bank(self, tmp_path: Path, command: tuple[str, ...]) -> None:
        more = ["x/0001"] if command[1] == "show" else []
        refused(invoke(*command, tmp_path, *more), ExitCode.INPUT, tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_replay_of_no_run(self, tmp_path: Path) -> None:
        result = invoke("replay", "a__syn000", "--run", tmp_path, "-o", tmp_path / "out")
        refused(result, ExitCode.INPUT, "no output of a run", "recipe.lock.yaml")
        assert not (tmp_path / "out").exists()
