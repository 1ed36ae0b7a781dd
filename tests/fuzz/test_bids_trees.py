"""Trees that look like BIDS: findings that name the file, or the cases that are there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesionsynth.errors import ExitCode
from tests.fuzz.limits import fuzzed
from tests.fuzz.test_data_sets import ODD_TEXT, changed, invoke, original

__all__ = ["original"]

MASK = "derivatives/manual/sub-{0}/anat/sub-{0}_label-lesion_mask.nii.gz"
IMAGE = "sub-{0}/anat/sub-{0}_FLAIR.nii.gz"
BESIDE = {
    "dataset_description.json": {"Name": "x", "BIDSVersion": "1.10.0", "DatasetType": "raw"},
    "FLAIR.json": {"SkullStripped": True},
    "participants.json": {"age": {"Description": "years"}},
}
PARTS = st.lists(
    st.sampled_from(
        ["sub-", "sub-a", "sub-b", "sub-0", "ses-1", "ses-", "acq-x", "space-MNI", "label-lesion"]
    )
    | st.sampled_from(
        ["desc-synth001", "run-1", "FLAIR", "T1w", "mask", "dseg", "roi", "-", "label-", "sub-é"]
    ),
    max_size=4,
).map("_".join)
PATHS = st.builds(
    lambda folders, name, ending: "/".join([*folders, name + ending]),
    st.lists(
        st.sampled_from(["sub-a", "sub-b", "ses-1", "anat", "dwi", "derivatives", "rawdata", "x"]), max_size=4
    ),
    PARTS,
    st.sampled_from([".nii.gz", ".nii", ".NII.GZ", ".json", ".nii.gz.nii", ""]),
)
TABLES = st.lists(
    st.lists(ODD_TEXT | st.sampled_from(["participant_id", "sub-a", "index", "name", "1"]), max_size=3)
)


@fuzzed(25)
@given(
    moves=st.lists(st.tuples(st.sampled_from([IMAGE, MASK]), st.sampled_from("ab"), PATHS), max_size=3),
    links=st.lists(PATHS, max_size=2),
    beside=st.none()
    | st.sampled_from(sorted(BESIDE)).flatmap(lambda n: st.tuples(st.just(n), changed(BESIDE[n]))),
    table=st.none() | st.tuples(st.sampled_from(["participants.tsv", "dseg.tsv", "cases.csv"]), TABLES),
)
def test_trees(
    original: Path,
    tmp_path_factory: pytest.TempPathFactory,
    moves: list[tuple[str, str, str]],
    links: list[str],
    beside: tuple[str, bytes] | None,
    table: tuple[str, list[list[str]]] | None,
) -> None:
    root = tmp_path_factory.mktemp("bids") / "data"
    for name in "abc":
        for source, target in ((f"imagesTr/{name}_0000.nii.gz", IMAGE), (f"labelsTr/{name}.nii.gz", MASK)):
            path = root / target.format(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(original / source)
    (root / "dataset_description.json").write_text(json.dumps(BESIDE["dataset_description.json"]))
    for template, name, new in moves:
        path, target = root / template.format(name), root / new
        if path.is_symlink() and not target.exists() and not any(p.is_symlink() for p in target.parents):
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
    for link in links:
        path = root / link
        if not path.is_symlink() and not path.exists() and not any(p.is_symlink() for p in path.parents):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(root.parent)
    if beside is not None:
        (root / beside[0]).write_bytes(beside[1])
    if table is not None:
        text = "\n".join("\t".join(cells) for cells in table[1])
        (root / table[0]).write_bytes(text.encode(errors="surrogatepass"))
    before = sorted(root.rglob("*"))
    code, told, said = invoke("check", "lesionmix", "-i", root, "-q", "-s", "input.layout=bids")
    assert code in (ExitCode.OK, ExitCode.FINDINGS, ExitCode.INPUT)
    assert said == "" if code != ExitCode.INPUT else said.startswith("lesionsynth: ")
    if not moves and not links and beside is None and table is None:
        assert code == ExitCode.OK, told
    assert sorted(root.rglob("*")) == before
    shutil.rmtree(root.parent)
