"""Damaged descriptions, splits and tables: findings that name the file, or the data set that is there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.testing import CliRunner

from lesionsynth.cli.app import app
from lesionsynth.errors import ExitCode
from lesionsynth.recipe.model import InputSpec
from lesionsynth.run.cohort import scan_cohort
from tests.conftest import write_nifti
from tests.fuzz.limits import bounded, clear, fuzzed

CASES = ("a", "b", "c")
DESCRIPTION: dict[str, Any] = {
    "channel_names": {"0": "FLAIR"},
    "labels": {"background": 0, "lesion": 1},
    "numTraining": 3,
    "file_ending": ".nii.gz",
}
LISTED = {
    name: {"images": [f"imagesTr/{name}_0000.nii.gz"], "label": f"labelsTr/{name}.nii.gz"} for name in CASES
}
SPLITS = [{"train": ["a", "b"], "val": ["c"]}, {"train": ["c"], "val": ["a", "b"]}]
ROWS = [
    ["case", "subject", "FLAIR", "label", "fold"],
    *([name, name, f"imagesTr/{name}_0000.nii.gz", f"labelsTr/{name}.nii.gz", "1"] for name in CASES),
]
ODD_TEXT = st.sampled_from(
    (
        *(
            "",
            ".",
            "..",
            "../a",
            "/etc/passwd",
            "\0",
            "a\0b",
            "\ud800",
            "é",
            "²",
            "٣",
            "1",
            "-1",
            "a\nb",
            "\x1b[31m",
        ),
        *("imagesTr/a_0000.nii.gz", "labelsTr/b.nii.gz", "a__syn000", "lesion", "background", "ignore"),
        *("lesion_1", ".nii", ".nii.gz", "imagesTr", " a", "a,b", "a" * 300, "a/" * 3000, "9" * 5000, '"'),
    )
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([65535, 65536, 2**31, 2**64, 10**400, 1.0, 1.5, 1e308, float("nan"), float("inf")])
    | ODD_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ODD_TEXT, inner, max_size=3),
    max_leaves=5,
)


def volume(seed: int) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Tissue with air at one side and two bright lesions."""
    label = np.zeros((12, 11, 9), np.uint8)
    label[3:6, 3:6, 2:5] = label[8:10, 6:9, 4:7] = 1
    image = np.random.default_rng(seed).normal(100, 5, label.shape) + 60 * label
    image[:2] = 0
    return image.astype(np.int16), label


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set without a fault."""
    root = tmp_path_factory.mktemp("original")
    for seed, name in enumerate(CASES):
        image, label = volume(seed)
        write_nifti(root / f"imagesTr/{name}_0000.nii.gz", image, np.diag([3.0, 3, 3, 1]))
        write_nifti(root / f"labelsTr/{name}.nii.gz", label, np.diag([3.0, 3, 3, 1]))
    return root


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    """A folder that shares its images with the original."""
    shutil.copytree(original, tmp_path / "data", copy_function=lambda a, b: Path(b).symlink_to(a))
    (tmp_path / "data/dataset.json").write_text(json.dumps(DESCRIPTION))
    return tmp_path / "data"


def places(node: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every key of a tree of values."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield (*where, key)
        yield from places(value, (*where, key))


@st.composite
def changed(draw: st.DrawFn, content: Any) -> bytes:
    """JSON of `content` with other values, other keys, or other bytes."""
    content = json.loads(json.dumps(content))
    for _ in range(draw(st.integers(1, 3))):
        known = list(places(content))
        if not known:
            break
        *above, key = draw(st.sampled_from(known))
        node = content
        for part in above:
            node = node[part]
        match draw(st.sampled_from(["value", "value", "remove", "rename", "add"])):
            case "value":
                node[key] = draw(VALUES)
            case "remove":
                del node[key]
            case "rename" if isinstance(node, dict):
                node[draw(ODD_TEXT)] = node.pop(key)
            case "add" if isinstance(node, dict):
                node[draw(ODD_TEXT)] = draw(VALUES)
            case "add":
                node.append(draw(VALUES))
    text = bytearray(json.dumps(content).encode())
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        place = draw(st.integers(0, max(0, len(text) - 1)))
        match draw(st.sampled_from(["byte", "cut", "insert", "front"])):
            case "byte" if text:
                text[place] = draw(st.integers(0, 255))
            case "cut":
                del text[place:]
            case "insert":
                text[place:place] = draw(
                    st.sampled_from([b"[" * 9999, b"\0", b'"', b",", b"9" * 5000, b"\xff"])
                )
            case "front":
                text[:0] = draw(st.sampled_from([b"\xef\xbb\xbf", b"\xff\xfe", b" ", b"//"]))
    return bytes(text)


def invoke(*arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command; a fault that nobody foresaw is raised."""
    with bounded(20):
        result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code in set(ExitCode) - {ExitCode.INTERNAL, ExitCode.INTERRUPTED}
    clear(result.stderr + result.stdout)
    return result.exit_code, result.stdout, result.stderr


def looked_at(root: Path, recipe: object = "lesionmix", whole: bool = True, *settings: str) -> None:
    """A check ends with findings or with one message; what it finds no fault with can be run and read again.

    What is refused leaves no output.
    """
    before = sorted(root.rglob("*"))
    options = [part for setting in settings for part in ("-s", setting)]
    code, told, said = invoke("check", recipe, "-i", root, "-q", *options)
    assert code in (ExitCode.OK, ExitCode.FINDINGS, ExitCode.INPUT, ExitCode.RECIPE)
    assert said == "" if code in (ExitCode.OK, ExitCode.FINDINGS) else said.startswith("lesionsynth: ")
    faults = [line for line in told.splitlines() if line.startswith("error: ")]
    assert (code == ExitCode.FINDINGS) == (told.splitlines()[-1:] != ["no findings"] and said == "")
    output = root.parent / "out"
    if whole or faults or said:
        run = [
            "run",
            recipe,
            "-i",
            root,
            "-o",
            output,
            "-q",
            "-n",
            1,
            "-s",
            "output.originals=omit",
            *options,
        ]
        run_code, _, _ = invoke(*run)
        if faults or said:
            assert run_code != ExitCode.OK
        if run_code == ExitCode.OK:
            labels = scan_cohort(InputSpec(), root)[1].cohort.labels.values
            assert labels.items() >= {"background": 0}.items() or 0 in labels.values()
        elif run_code != ExitCode.SOME_FAILED:
            assert not output.exists()
        shutil.rmtree(output, ignore_errors=True)
    assert sorted(root.rglob("*")) == before


@fuzzed(60)
@given(content=changed(DESCRIPTION) | changed({**DESCRIPTION, "dataset": LISTED}))
def test_descriptions(root: Path, content: bytes) -> None:
    (root / "dataset.json").write_bytes(content)
    looked_at(root, "lesionmix", False)


@fuzzed(60)
@given(content=changed(SPLITS))
def test_splits(root: Path, content: bytes) -> None:
    (root / "splits_final.json").write_bytes(content)
    looked_at(root, "lesionmix", False)


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    """A table of cases with other cells, columns or bytes."""
    rows = [list(row) for row in ROWS]
    for _ in range(draw(st.integers(1, 3))):
        row = draw(st.sampled_from(rows))
        match draw(st.sampled_from(["cell", "cell", "remove", "add", "repeat"])):
            case "cell" if row:
                row[draw(st.integers(0, len(row) - 1))] = draw(ODD_TEXT)
            case "remove" if row:
                del row[draw(st.integers(0, len(row) - 1))]
            case "add":
                row.insert(draw(st.integers(0, len(row))), draw(ODD_TEXT))
            case "repeat":
                rows.append(list(row))
    lines = [",".join(f'"{cell}"' if "," in cell else cell for cell in row) for row in rows]
    text = draw(st.sampled_from(["\n", "\r\n", "\r", "\n\n"])).join(lines).encode(errors="surrogatepass")
    return draw(st.sampled_from([b"", b"", b"", b"\xef\xbb\xbf", b"\xff\xfe", b'"'])) + text


@fuzzed(60)
@given(content=tables())
def test_tables(root: Path, content: bytes) -> None:
    (root / "cases.csv").write_bytes(content)
    looked_at(root, "lesionmix", False, "input.layout={kind: pattern, table: cases.csv}")


def refused(root: Path, *said: str, settings: tuple[str, ...] = ()) -> None:
    """Both commands say what is wrong, and nothing is written."""
    options = [part for setting in settings for part in ("-s", setting)]
    for command in (["check"], ["run", "-o", root.parent / "out", "-n", 1]):
        code, told, error = invoke(*command, "lesionmix", "-i", root, "-q", *options)
        assert code != ExitCode.OK
        for part in said:
            assert part in told + error
    assert not (root.parent / "out").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": {"9" * 5000: "x"}}, "should be a whole number from 0 to 65535"),
        ({"channel_names": {"9" * 5000: "x"}}, 'has no "channel_names"'),
        ({"labels": {"background": 0, "lesion": True}}, "got True"),
        ({"labels": {"background": 0, "lesion_2": 1, "lesion": [1, 2]}}, "would be called as another is"),
        ({"labels": {"background": 1, "lesion": 0}}, "no label is a lesion"),
        ({"labels": {"background": 0, "lesion\nerror: x": 1}}, "cannot be printed"),
        ({"labels": {"background": 0, "lesion\ud800": 1}}, "cannot be printed"),
        ({"channel_names": {"0": "\x1b[31m"}}, "cannot be printed"),
        ({"channel_names": {"0": ""}}, "is empty"),
        (
            {"dataset": {**LISTED, "a": {"images": ["x" * 300 + ".nii.gz"], "label": "a.nii.gz"}}},
            "is missing",
        ),
        ({"dataset": {**LISTED, "a": {"images": ["\ud800.nii.gz"], "label": "a.nii.gz"}}}, "\\ud800.nii.gz"),
        ({"dataset": {**LISTED, "a": LISTED["b"]}}, "belongs to case a too"),
        (
            {"dataset": {**LISTED, "a": {"images": ["labelsTr/a.nii.gz"], "label": "labelsTr/a.nii.gz"}}},
            "is a channel and the label map at once",
        ),
    ],
    ids=str,
)
def test_descriptions_that_cannot_be_meant(root: Path, change: dict[str, Any], said: str) -> None:
    (root / "dataset.json").write_text(json.dumps({**DESCRIPTION, **change}))
    refused(root, said)


def test_keys_that_occur_twice(root: Path) -> None:
    text = (root / "dataset.json").read_text()
    (root / "dataset.json").write_text(text.replace('"lesion": 1', '"lesion": 2, "lesion": 1'))
    refused(root, "dataset.json", "the key 'lesion' occurs twice")
    (root / "dataset.json").write_text(text)
    (root / "splits_final.json").write_text('[{"train": ["a"], "val": ["b"], "val": ["c"]}]')
    refused(root, "splits_final.json", "the key 'val' occurs twice")


def test_a_label_with_the_value_of_the_background(root: Path) -> None:
    (root / "dataset.json").write_text(json.dumps({**DESCRIPTION, "labels": {"nothing": 0, "lesion": 1}}))
    refused(root, "has the value 0", settings=("input.roles={nothing: organ}",))


@pytest.mark.parametrize(
    ("row", "column", "cell", "said"),
    [
        (2, 4, "1,7", "line 3 has more cells than there are columns"),
        (2, 4, "", "case b: "),
        (2, 2, "x" * 300, "the file of FLAIR is missing"),
        (2, 2, "a\0b", "the file of FLAIR is missing"),
        (2, 2, "labelsTr/b.nii.gz", "is a channel and the label map at once"),
        (2, 3, "labelsTr/a.nii.gz", "belongs to case a too"),
        (0, 2, " ", "is empty or cannot be printed"),
    ],
)
def test_tables_that_cannot_be_meant(root: Path, row: int, column: int, cell: str, said: str) -> None:
    rows = [list(cells) for cells in ROWS]
    rows[3][4] = "2"
    rows[row][column] = cell
    (root / "cases.csv").write_text("\n".join(map(",".join, rows)))
    refused(root, said, settings=("input.layout={kind: pattern, table: cases.csv}",))


def test_pipes_are_no_files(root: Path) -> None:
    """Opening one would wait for ever."""
    files = "images: {F: 'imagesTr/{case}_0000.nii.gz'}, label: 'labelsTr/{case}.nii.gz'"
    pattern = f"input.layout={{kind: pattern, {files}}}"
    for name in CASES:
        (root / f"labelsTr/{name}.nii.gz").unlink()
        os.mkfifo(root / f"labelsTr/{name}.nii.gz")
    refused(root, "no case was found", settings=(pattern,))
    refused(root, "the label map is missing")
    refused(root, "finds no file", settings=("input.masks.path=labelsTr/{subject}.nii.gz",))
