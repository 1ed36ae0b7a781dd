"""An audit finds nothing in what a run has made, and every single thing that is not as it was made."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from lesionsynth import nifti
from lesionsynth.cli.app import app
from lesionsynth.domain.finding import Finding
from lesionsynth.errors import ExitCode, InputError
from lesionsynth.recipe.load import load_recipe
from lesionsynth.run import session
from tests.conftest import write_nifti, write_phantoms
from tests.qc.outputs import ROLES, Output, look, make
from tests.test_invariants import Silent

SPLITS, LOCK, MANIFEST = "splits_final.json", "recipe.lock.yaml", "manifest.csv"
FAR = (slice(2, 4), slice(2, 4), slice(2, 4))
"""A corner of the volume, far from any tissue."""
FOLDS = [
    {"train": ["case3", "case4"], "val": ["case1", "case2"]},
    {"train": ["case1", "case2"], "val": ["case3", "case4"]},
]
CASE = "case1__syn000"
RECORD = f"records/{CASE}.json"
IMAGE, LABEL = f"imagesTr/{CASE}_0000.nii.gz", f"labelsTr/{CASE}.nii.gz"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, phantoms: Any) -> Path:
    """Four cases in two folds; a label that is protected lies in the corner of each."""
    folder = write_phantoms(tmp_path_factory.mktemp("in") / "data", phantoms[:4])
    for path in (folder / "labelsTr").iterdir():
        image = nib.load(path)
        label = np.asanyarray(image.dataobj).copy()
        label[2:4, 2:4, 20:22] = 2
        write_nifti(path, label, image.affine)
    description = json.loads((folder / "dataset.json").read_text())
    description["labels"]["other"] = 2
    (folder / "dataset.json").write_text(json.dumps(description))
    (folder / SPLITS).write_text(json.dumps(FOLDS))
    return folder


@pytest.fixture(scope="module")
def plain(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(root, tmp_path_factory.mktemp("out") / "plain", "steps.add.load=[2, 8]")


@pytest.fixture(scope="module")
def mapped(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    more = ["steps.add.load=[2, 8]", "folds.strategy=per_fold", "output.originals=link"]
    maps = ["output.source_map=true", "output.lesion_map=true"]
    return make(root, tmp_path_factory.mktemp("out") / "mapped", *more, *maps)


@pytest.fixture
def output(plain: Path, root: Path, tmp_path: Path) -> Output:
    return Output(Path(shutil.copytree(plain, tmp_path / "out")), root)


@pytest.fixture
def with_maps(mapped: Path, root: Path, tmp_path: Path) -> Output:
    return Output(Path(shutil.copytree(mapped, tmp_path / "out")), root)


def expect(findings: list[Finding], *wanted: tuple[str | None, str | None, str]) -> None:
    """Every finding is one of those wanted (case, file, pattern of the fault), and each of these is there."""
    found = [(f.case, f.file, f.fault) for f in findings]

    def same(one: tuple[str | None, str | None, str], want: tuple[str | None, str | None, str]) -> bool:
        return one[:2] == want[:2] and re.search(want[2], one[2]) is not None

    assert all(any(same(one, want) for want in wanted) for one in found), found
    assert all(any(same(one, want) for one in found) for want in wanted), found
    assert all(f.level == "error" and f.cure for f in findings)


def test_what_a_run_has_made_has_no_findings(root: Path, plain: Path, mapped: Path, tmp_path: Path) -> None:
    none = make(
        root, tmp_path / "none", "folds.strategy=none", "output.originals=omit", name="pseudo_healthy"
    )
    for output, made in ((plain, 4), (mapped, 4), (none, 4)):
        result = look(output, replay=True)
        assert result.findings == []
        assert result.facts[0].startswith(f"{made} synthetic cases of 4 hosts")


def test_a_case_that_a_run_went_on_without(root: Path, tmp_path: Path) -> None:
    """Neither it nor its load is missed; but it is if it can be read."""
    data, output = Path(shutil.copytree(root, tmp_path / "data")), tmp_path / "out"
    label = data / "labelsTr" / "case2.nii.gz"
    whole = label.read_bytes()
    label.write_bytes(whole[:60])
    shared = ["input.subject=(case[13]|case)", "folds.strategy=none"]  # cases 2 and 4 are of one subject
    recipe = load_recipe("lesionmix", ["output.copies=1", ROLES, "input.on_bad_case=drop", *shared])
    assert len(session.run(recipe, data, output, Silent()).failures) == 1
    assert look(output).findings == []
    label.write_bytes(whole)
    findings = look(output).findings
    assert {f.case for f in findings if f.fault == "the file is missing."} == {"case2"}


def test_a_lesion_that_was_added_and_removed_again(root: Path, tmp_path: Path) -> None:
    """Nothing of it is left in the label, so that its place is known by the source map alone."""
    more = [
        "steps.add.load=[6, 8]",
        "steps.less={kind: inpaint, share: [0.5, 0.5]}",
        "steps.add.surplus=keep",
    ]
    output = Output(make(root, tmp_path / "out", *more), root)
    record = next(
        r for r in output.records() if any(d["lesion"] > r["lesions"]["before"] for d in removed(r))
    )
    assert output.findings() == []
    name = f"imagesTr/{record['case']}_0000.nii.gz"
    raw = output.raw(name)
    raw[1, 1, 1] += 1
    output.voxels(name, raw)
    expect(output.findings(), (record["case"], name, "their digest is not the record's"))


def removed(record: Any) -> list[Any]:
    return [d for step in record["steps"] for d in step["draws"] if d["edit"] == "remove"]


# Folds: who trains and who is validated.


def test_an_original_moved_into_training(output: Output) -> None:
    def swap(folds: Any) -> None:
        folds[0]["val"].remove("case1")
        folds[0]["train"].append("case1")

    output.edit(SPLITS, swap)
    expect(
        output.findings(),
        ("case1", SPLITS, "fold 0: is trained, and is of the same subject as case1, which is validated"),
        ("case1", SPLITS, "fold 0: is not validated"),
    )


@pytest.mark.parametrize(
    ("part", "case", "fault"),
    [
        ("val", "case3__syn000", "a synthetic case is validated"),
        ("val", "case3", "is validated, which the input's folds do not do"),
        ("val", "other", "val names a case that is not in the input"),
        ("train", CASE, r"shares the subject case\d \(.*\) with case\d, which is validated"),
        ("train", "other", "train names a case that is not in the output"),
        ("train", "case3", "is listed more than once in train"),
    ],
)
def test_a_case_where_it_should_not_be(output: Output, part: str, case: str, fault: str) -> None:
    output.edit(SPLITS, lambda folds: folds[0][part].append(case))
    findings = [
        f for f in output.findings() if f.case == case and not f.fault.endswith("the bank of block0)")
    ]
    assert any(re.search(fault, f.fault) and f.file == SPLITS for f in findings), findings
    if (part, case) != ("val", "case3"):  # whom it validates no one may train
        expect(output.findings(), (case, SPLITS, fault))


@pytest.mark.parametrize(("part", "case"), [("train", "case3"), ("train", "case3__syn000"), ("val", "case1")])
def test_a_case_that_is_left_out(output: Output, part: str, case: str) -> None:
    output.edit(SPLITS, lambda folds: folds[0][part].remove(case))
    expect(
        output.findings(), (case, SPLITS, "is missing in train" if part == "train" else "is not validated")
    )


@pytest.mark.parametrize("content", ["[]", "{}", "[", '[{"train": 1, "val": []}]', None])
def test_folds_that_are_none(output: Output, content: str | None) -> None:
    if content is None:
        (output.folder / SPLITS).unlink()
    else:
        (output.folder / SPLITS).write_text(content)
    expect(output.findings(), (None, SPLITS, "has 0 folds|list|JSON|as it was written"))


def test_a_donor_of_a_validated_subject(output: Output) -> None:
    def exchange(record: Any) -> None:
        draw = next(d for d in record["steps"][0]["draws"] if d["edit"] == "insert")
        draw.update(case="case3", subject="case3", donor={"lesion": "case3/0001"})
        record["donors"][0] = {"case": "case3", "subject": "case3", "lesion": "case3/0001"}

    output.record(CASE, exchange)
    expect(
        output.findings(),
        (CASE, RECORD, "the donor case3/0001 is of case3, who is not in block0"),
        (
            CASE,
            SPLITS,
            r"fold 1: is trained, and shares the subject case3 \(the donor case3/0001\) with case3",
        ),
    )


def test_a_donor_that_only_the_draws_name(output: Output) -> None:
    def exchange(record: Any) -> None:
        draw = next(d for d in record["steps"][0]["draws"] if d["edit"] == "insert")
        draw.update(case="case4", subject="case2", donor={"lesion": "case4/0001"})

    output.record(CASE, exchange)
    expect(
        output.findings(),
        (CASE, RECORD, "the donors are not those of the draws"),
        (CASE, RECORD, "the donor case4 is said to be of case2; by the input it is case4"),
        (CASE, SPLITS, r"shares the subject case4 \(the donor case4/0001\)"),
    )


def test_a_subject_that_the_input_does_not_have(output: Output) -> None:
    def rename(record: Any) -> None:
        record["fitted_on"].append("stranger")
        record["host"]["subject"] = record["job"]["subject"] = "case2"

    output.record(CASE, rename)
    expect(
        output.findings(),
        (CASE, RECORD, "the host's subject is case2; by the input it is case1"),
        (CASE, RECORD, "fitted_on names the subject stranger"),
        (CASE, RECORD, "fitted_on is not that of likelihood/block0.json"),
        (CASE, RECORD, "the record's job is not as planned"),
        (CASE, RECORD, "own_subject_donors is 0"),
        (CASE, MANIFEST, "subject is 'case1'"),
    )


def test_fits_on_a_validated_subject(output: Output) -> None:
    output.record(CASE, lambda record: record["fitted_on"].append("case3"))
    expect(
        output.findings(),
        (CASE, RECORD, "fitted_on is not that of"),
        (CASE, SPLITS, r"shares the subject case3 \(loads and likelihood map\)"),
    )


def test_weights_learned_from_a_validated_subject(output: Output) -> None:
    learned = [{"file": "shape.pt", "subjects": ["elsewhere", "case4"]}]
    output.record(CASE, lambda record: record.update(weights=learned))
    expect(
        output.findings(),
        (None, "shape.pt", "a model that lesions came from is missing"),
        (CASE, RECORD, "the models are not those of"),
        (CASE, SPLITS, r"shares the subject case4 \(learned weights\)"),
    )


def test_a_block_with_a_validated_subject(output: Output) -> None:
    output.edit("likelihood/block0.json", lambda fit: fit["subjects"].append("case3"))
    expect(
        output.findings(),
        *((f"case{k}__syn000", SPLITS, r"shares the subject case3 \(the bank of block0\)") for k in (1, 2)),
    )


def test_fits_on_loads_of_others(output: Output) -> None:
    output.edit("likelihood/block0.json", lambda fit: fit["loads"][0].update(ml=99.0))
    expect(output.findings(), (None, "likelihood/block0.json", "was fitted on 2 loads of .* mL in all"))


def test_a_map_of_another_block(output: Output) -> None:
    """It stands for people who validate this block."""
    one, other = (output.folder / f"likelihood/block{k}.nii.gz" for k in (0, 1))
    spare = one.read_bytes()
    one.unlink()  # it may be a hard link
    one.write_bytes(other.read_bytes())
    expect(output.findings(), (None, "likelihood/block0.json", "is not the one that was fitted"))
    one.write_bytes(spare)
    output.edit("likelihood/block0.json", lambda fit: fit.update(typical_count=99))
    expect(output.findings(), (None, "likelihood/block0.json", "typical_count is 99, that of its subjects"))


# Labels.


def test_an_unknown_label(output: Output) -> None:
    raw = output.raw(LABEL)
    raw[FAR] = 7
    output.voxels(LABEL, raw)
    output.reconcile()
    expect(output.findings(), (CASE, LABEL, "unknown value 7"))


def test_a_label_that_is_no_integer(output: Output) -> None:
    path = output.folder / LABEL
    nifti.write(path, nifti.like(nifti.read(path), output.raw(LABEL).astype(np.float32)))
    output.reconcile()
    expect(output.findings(), (CASE, LABEL, "stored as float32; an integer type was expected"))


def test_a_label_on_another_grid(output: Output) -> None:
    path = output.folder / LABEL
    image = nib.load(path)
    write_nifti(path, np.asanyarray(image.dataobj).copy()[:-1], image.affine)
    output.reconcile()
    expect(output.findings(), (CASE, LABEL, "the label map is 23x30x25 at 4x4x4 mm, its host 24x30x25"))


def test_protected_voxels(output: Output) -> None:
    raw, image = output.raw(LABEL), output.raw(IMAGE)
    raw[2:4, 2:4, 20:22] = 0
    image[3, 3, 20] += 5
    output.voxels(LABEL, raw)
    output.voxels(IMAGE, image)
    output.reconcile()
    expect(
        output.findings(),
        (CASE, LABEL, "8 labels of protected or ignored voxels differ"),
        (CASE, IMAGE, r"1 intensities of protected or ignored voxels differ .* \(3, 3, 20\)"),
    )


# Lesions that are there, and nothing else that changed.


def test_a_label_without_a_lesion(output: Output) -> None:
    raw = output.raw(LABEL)
    raw[FAR] = 1
    output.voxels(LABEL, raw)
    output.reconcile()
    expect(
        output.findings(),
        (CASE, LABEL, r"1 new lesion.* show in no channel, such as 8 voxels at \(2, 2, 2\)"),
    )


def test_a_lesion_that_lost_its_label_only(output: Output, root: Path) -> None:
    host = np.asanyarray(nib.load(root / "labelsTr" / "case1.nii.gz").dataobj).copy() == 1
    channels = [output.raw(f"imagesTr/{CASE}_000{k}.nii.gz") for k in (0, 1)]
    old = [np.asanyarray(nib.load(root / f"imagesTr/case1_000{k}.nii.gz").dataobj).copy() for k in (0, 1)]
    same = host & (output.raw(LABEL) == 1) & (channels[0] == old[0]) & (channels[1] == old[1])
    raw = output.raw(LABEL)
    raw[same] = 0
    output.voxels(LABEL, raw)
    output.reconcile()
    assert same.any()
    expect(output.findings(), (CASE, LABEL, "removed lesion.* show in no channel"))


def test_a_copy_that_is_its_host(output: Output, root: Path) -> None:
    for name in (f"imagesTr/{CASE}_0000.nii.gz", f"imagesTr/{CASE}_0001.nii.gz", LABEL):
        shutil.copyfile(root / name.replace("__syn000", ""), output.folder / name)
    output.reconcile()
    expect(
        output.findings(),
        (CASE, IMAGE, "no channel differs from the host case1"),
        (CASE, LABEL, "the label map equals that of the host case1"),
    )


def test_a_voxel_far_from_every_edit(output: Output) -> None:
    raw = output.raw(IMAGE)
    raw[3, 2, 1] += 1
    output.voxels(IMAGE, raw)
    expect(
        output.findings(),
        (CASE, IMAGE, r"1 voxel\(s\) differ from the host's more than .* the first is \(3, 2, 1\)"),
        (CASE, IMAGE, "their digest is not the record's"),
    )
    output.reconcile()
    expect(output.findings(), (CASE, IMAGE, "more than . x . x . voxels from every edited lesion"))


def test_a_voxel_that_the_source_map_does_not_know(with_maps: Output) -> None:
    case = "case3__syn000"
    label, name = f"labelsTr/{case}.nii.gz", f"imagesTr/{case}_0000.nii.gz"
    source = with_maps.raw(f"source_maps/{case}.nii.gz")
    near = np.zeros(source.shape, bool)
    edited = np.argwhere(source > 0)[0]
    near[tuple(slice(max(0, v - 1), v + 2) for v in edited)] = True
    i, j, k = np.argwhere(near & (source == 0) & (with_maps.raw(label) == 0))[0]
    raw = with_maps.raw(name)
    raw[i, j, k] += 1
    with_maps.voxels(name, raw)
    with_maps.reconcile()
    expect(with_maps.findings(), (case, name, "where the source map says that it is the host's"))


def test_a_lesion_map_that_lies_elsewhere(with_maps: Output) -> None:
    """Mirrored left to right, as by a tool that drops orientations."""
    case = with_maps.records()[0]["case"]
    path = with_maps.folder / f"lesion_maps/{case}.nii.gz"
    image = nib.load(path)
    affine = np.diag([-1.0, 1.0, 1.0, 1.0]) @ image.affine
    write_nifti(path, np.asanyarray(image.dataobj).copy(), affine)
    expect(with_maps.findings(), (case, f"lesion_maps/{case}.nii.gz", "not on the grid of its case"))


def test_a_lesion_map_of_other_lesions(with_maps: Output) -> None:
    case = "case3__syn000"
    name = f"lesion_maps/{case}.nii.gz"
    raw = with_maps.raw(name)
    raw[raw == raw.max()] = 0
    path = with_maps.folder / name
    nifti.write(path, nifti.read(path).with_raw(raw))
    with_maps.reconcile()
    expect(with_maps.findings(), (case, name, "does not cover the lesions"))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda h: h.__setitem__("descrip", b"another"), "other bytes"),
        (lambda h: h.__setitem__("scl_slope", 2.0), "scaling 2, 0, expected 1, 0"),
        (lambda h: h["srow_x"].__setitem__(3, 1.5), "another affine"),
    ],
)
def test_a_header_that_is_not_the_hosts(output: Output, change: Callable[[Any], None], fault: str) -> None:
    path = output.folder / IMAGE
    image = nifti.read(path)
    header = nib.Nifti1Header(image.header_bytes[:348], check=False)
    change(header)
    nifti.write_bytes(path, header.binaryblock + image.header_bytes[348:] + image.raw.tobytes(order="F"))
    expect(output.findings(), (CASE, IMAGE, f"the header is not the host's .{fault}"))


def test_a_channel_of_another_type(output: Output) -> None:
    path = output.folder / IMAGE
    nifti.write(path, nifti.like(nifti.read(path), output.raw(IMAGE).astype(np.float32)))
    output.reconcile()
    expect(output.findings(), (CASE, IMAGE, "type float32, expected int16"))


# Records, manifest and lock against the files.


def test_a_digest_that_was_edited(output: Output) -> None:
    output.record(CASE, lambda record: record["hashes"].update({LABEL: "0" * 32}))
    expect(
        output.findings(),
        (CASE, LABEL, "their digest is not the record's"),
        (CASE, MANIFEST, "voxel_hash is"),
        (None, LOCK, "voxels is"),
    )


def test_files_of_a_record_that_lead_elsewhere(output: Output) -> None:
    output.record(CASE, lambda record: record["hashes"].update({"../../secret.nii.gz": "0" * 32}))
    output.reconcile_manifest()
    expect(output.findings(), (CASE, RECORD, "the record's files are not those of the case: ../../secret"))


def test_an_input_that_is_another(output: Output, root: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(root, tmp_path / "other"))
    name = "imagesTr/case1_0001.nii.gz"
    image = nifti.read(other / name)
    raw = np.array(image.raw)
    raw[FAR] += 1
    nifti.write(other / name, image.with_raw(raw))
    copy = f"imagesTr/{CASE}_0000.nii.gz"
    expect(
        look_at(output.folder, other),
        ("case1", LOCK, f"the input's file {name} is not the one that the run has read"),
        ("case1", name, "the voxels of this original differ"),
        (CASE, RECORD, f"the host's file {name} is not the one"),
        (CASE, copy, "voxels from every edited lesion"),
    )


def look_at(folder: Path, root: Path) -> list[Finding]:
    from lesionsynth.qc.audit import audit
    from lesionsynth.run.pool import Engine

    return audit(folder, root, Engine(n_jobs=2), Silent()).findings


def test_an_original_that_was_replaced(output: Output) -> None:
    (output.folder / "labelsTr" / "case3.nii.gz").write_bytes(
        (output.folder / "labelsTr" / "case4.nii.gz").read_bytes()
    )
    expect(output.findings(), ("case3", "labelsTr/case3.nii.gz", "the voxels of this original differ"))


@pytest.mark.parametrize(
    ("change", "case", "fault"),
    [
        (lambda rows: rows[-1].update(load_after_ml="1.0"), "case4__syn000", "load_after_ml is '1.0'"),
        (lambda rows: rows[0].update(subject="case2"), "case1", "subject is 'case2'"),
        (lambda rows: rows.pop(0), "case1", "has no line for this case"),
        (lambda rows: rows.append(rows[0]), "case1", "has two lines for this case"),
        (
            lambda rows: rows.append({**rows[0], "case": "x"}),
            "x",
            "a line for a case that is not in the output",
        ),
    ],
)
def test_a_manifest_that_was_edited(
    output: Output, change: Callable[[Any], None], case: str, fault: str
) -> None:
    rows = output.rows()
    change(rows)
    output.manifest(rows)
    expect(output.findings(), (case, MANIFEST, fault))


@pytest.mark.parametrize(
    ("change", "case", "fault"),
    [
        ({"voxels": "0" * 32}, None, "voxels is 0"),
        ({"voxels": None}, None, "the run is not through"),
        ({"seed": 7}, None, "seed is 7"),
        ({"plan": "0" * 32}, None, "plan is 0"),
    ],
)
def test_a_lock_that_was_edited(output: Output, change: dict[str, Any], case: str | None, fault: str) -> None:
    output.lock(lambda lock: lock.update(change))
    expect(output.findings(), (case, LOCK, fault))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda record: record["load_ml"].update(after=1.0), "load_ml.after is 1, the label map holds"),
        (
            lambda record: record["load_ml"].update(before=1.0),
            "load_ml.before is 1, the host's label map holds",
        ),
        (lambda record: record["load_ml"].update(target=1.0), "load_ml.target is not that of the plan"),
        (lambda record: record.update(shortfall=not record["shortfall"]), "shortfall is .* the target"),
        (
            lambda record: record["lesions"].update(before=99, after=99),
            "lesions.(before|after) is 99",
        ),
        (lambda record: record["lesions"].update(inserted=99), "lesions.(inserted|after) is"),
        (lambda record: record["lesions"].update(removed=99), "lesions.(removed|after) is"),
        (lambda record: record.update(own_subject_donors=99), "own_subject_donors is 99"),
        (
            lambda record: record["steps"][0].update(kind="inpaint"),
            "the step add of kind inpaint is not in the recipe",
        ),
        (
            lambda record: record["job"].update(block="block1"),
            "the record's job is not as planned|of the record's own job",
        ),
        (lambda record: record.update(copy_index=3), "the record names the case .* copy 3 of case1"),
    ],
)
def test_a_record_that_was_edited(output: Output, change: Callable[[Any], None], fault: str) -> None:
    output.record(CASE, change)
    output.reconcile_manifest()
    expect(output.findings(), (CASE, RECORD, fault))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_text("{"),
        lambda path: path.write_text("[" * 100_000),
        lambda path: path.write_bytes(b"\xff\xfe"),
        lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), "donors": "nobody"})),
        lambda path: path.write_text(path.read_text().replace('"after": ', '"after": NaN, "x": ', 1)),
    ],
)
def test_a_record_that_cannot_be_read(output: Output, spoil: Callable[[Path], object]) -> None:
    spoil(output.folder / RECORD)
    findings = output.findings()
    first = [f for f in findings if (f.case, f.file) == (CASE, RECORD)]
    assert len(first) == 1, findings
    assert re.search("cannot be read as JSON|is not as it was written", first[0].fault)
    assert {f.file for f in findings} == {RECORD, SPLITS, MANIFEST, LOCK}


# The folder.


def test_a_file_that_is_missing(output: Output) -> None:
    (output.folder / IMAGE).unlink()
    expect(output.findings(), (CASE, IMAGE, "the file is missing"))


def test_a_file_that_is_cut_short(output: Output) -> None:
    path = output.folder / "imagesTr" / "case2_0000.nii.gz"
    path.write_bytes(path.read_bytes()[:-100])
    expect(output.findings(), ("case2", "imagesTr/case2_0000.nii.gz", "damaged or truncated"))


def test_files_without_a_record(output: Output) -> None:
    (output.folder / RECORD).unlink()
    findings = output.findings()
    stray = {f.file for f in findings if f.fault == "belongs to no case that has a record."}
    assert stray == {LABEL, *(f"imagesTr/{CASE}_000{k}.nii.gz" for k in (0, 1))}
    assert {f.file for f in findings} == {*stray, SPLITS, MANIFEST, LOCK, "dataset.json"}


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("imagesTr/case9_0000.nii.gz", "belongs to no case"),
        ("notes.txt", "belongs to no case"),
        ("labelsTr/.tmp-abc", "is left over from a write"),
        ("bank/lesions/.tmp-abc", "is left over from a write"),
        ("records/readme.txt", "belongs to no case"),
    ],
)
def test_a_file_that_belongs_to_nothing(output: Output, name: str, fault: str) -> None:
    (output.folder / name).write_text("x")
    expect(output.findings(), (None, name, fault))


def test_a_record_of_an_unknown_host(output: Output) -> None:
    shutil.copyfile(output.folder / RECORD, output.folder / "records" / "other__syn000.json")
    expect(
        output.findings(), ("other__syn000", "records/other__syn000.json", "whose host is not in the input")
    )


def test_a_link_out_of_the_folder(output: Output, root: Path) -> None:
    path = output.folder / "imagesTr" / "case2_0000.nii.gz"
    path.unlink()
    path.symlink_to(root / "imagesTr" / "case2_0000.nii.gz")
    expect(
        output.findings(),
        (None, "imagesTr/case2_0000.nii.gz", "is a symbolic link to"),
        ("case2", "imagesTr/case2_0000.nii.gz", "the file is missing"),
    )


def test_a_description_of_other_cases(output: Output) -> None:
    output.edit("dataset.json", lambda value: value.update(numTraining=4))
    expect(output.findings(), (None, "dataset.json", "does not describe the cases that are there"))


def test_a_likelihood_map_that_is_none(output: Output) -> None:
    path = output.folder / "likelihood" / "block1.nii.gz"
    image = nifti.read(path)
    nifti.write(path, image.with_raw(np.asarray(image.raw) * 2))
    expect(output.findings(), (None, "likelihood/block1.json", "sums to 1, this one sums to 2"))


def test_a_bank_that_is_broken(output: Output) -> None:
    path = output.folder / "bank" / "index.sqlite"
    path.write_bytes(path.read_bytes()[:-4096])
    expect(output.findings(), (None, "bank", "the lesion bank is damaged"))


# The deep check, and the command.


def test_a_draw_that_does_not_give_these_voxels(output: Output) -> None:
    def move(record: Any) -> None:
        draw = next(d for d in record["steps"][0]["draws"] if d["edit"] == "insert")
        draw["centre_vox"][0] += 1

    output.record(CASE, move)
    assert output.findings() == []
    expect(output.findings(replay=True), (CASE, RECORD, "remade from the record, .* has other voxels"))


def test_the_command_tells_all_and_exits_with_findings(output: Output) -> None:
    command = ["audit", str(output.folder), "-q"]
    clean = CliRunner().invoke(app, command)
    assert (clean.exit_code, clean.stdout.splitlines()[-1]) == (ExitCode.OK, "no findings")
    (output.folder / "notes.txt").write_text("x")
    told = CliRunner().invoke(app, command)
    assert told.exit_code == ExitCode.FINDINGS
    assert "notes.txt" in told.stdout
    assert told.stdout.splitlines()[-1] == "1 finding(s)"
    value = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert [f["file"] for f in value["findings"]] == ["notes.txt"]


def test_what_is_no_output_is_refused(tmp_path: Path, output: Output) -> None:
    done = CliRunner().invoke(app, ["audit", str(tmp_path)])
    assert done.exit_code == ExitCode.INPUT
    assert "has no recipe.lock.yaml" in done.stderr
    output.lock(lambda lock: lock["recipe"].update(steps={}))
    with pytest.raises(InputError, match="holds a recipe that this version cannot read"):
        output.findings()
    (output.folder / LOCK).write_text("a: [")
    with pytest.raises(InputError, match="cannot be read as YAML"):
        output.findings()
