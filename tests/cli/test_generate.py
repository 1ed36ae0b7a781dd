"""Generated data sets: read back, labelled with who was seen, and the same on every call."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from record_fields import misfits
from typer.testing import CliRunner

from lesionsynth import nifti
from lesionsynth.cli.app import app
from lesionsynth.generative.hvae_models import open_hvae
from lesionsynth.recipe.model import InputSpec
from lesionsynth.run.cohort import open_cohort
from lesionsynth.run.formats import GeneratedRecord, GeneratedSet
from tests.trained_hvae import train_hvae


def call(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output + str(result.exception)
    return result


def voxels_of(folder: Path):
    return {p.name: np.asarray(nib.load(p).dataobj) for p in sorted(folder.rglob("*.nii.gz"))}


@pytest.fixture(scope="module")
def made(trained_hvae, tmp_path_factory):
    output = tmp_path_factory.mktemp("generated") / "out"
    told = json.loads(
        call("generate", "hvae", trained_hvae.path, "-o", output, "-n", 3, "--json", "-q").stdout
    )
    return output, told


def test_it_can_be_read_back(made, trained_hvae):
    output, _ = made
    layout, cohort, _ = open_cohort(InputSpec(), output)
    assert layout.kind == "nnunet"
    assert [c.case for c in cohort.cases] == ["gen0000", "gen0001", "gen0002"]
    assert cohort.channels == ("FLAIR", "T1")
    assert dict(cohort.labels.values) == {"background": 0, "lesion": 1}
    model = open_hvae(trained_hvae.path)
    for case in cohort.cases:
        image, label = nib.load(case.images[0]), nib.load(case.label)
        assert (image.get_data_dtype(), label.get_data_dtype()) == (np.float32, np.uint8)
        assert image.shape == label.shape == (12, 12, 12)
        assert image.header.get_zooms() == pytest.approx([model.spacing_mm] * 3)
        np.testing.assert_allclose(image.affine, label.affine)
        assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
        values, lesion = image.get_fdata(), np.asarray(label.dataobj) > 0
        assert lesion.any()
        assert values.min() >= 0
        assert values[lesion].mean() > 230  # tissue is at 200, lesions at 320


def test_it_says_who_was_seen(made, trained_hvae):
    output, told = made
    card = trained_hvae.card
    assert told["cases"] == ["gen0000", "gen0001", "gen0002"]
    assert told == json.loads((output / "generated.json").read_text())
    drawn = 3 + sum(told["rejected"].values())
    assert told["accepted"] == pytest.approx(3 / drawn, abs=1e-6)
    for name in told["cases"]:
        record = json.loads((output / "records" / f"{name}.json").read_text())
        assert record["host"] is None
        assert record["model"] == told["model"]
        assert record["model"]["subjects"] == [f"case{k}" for k in range(1, 6)]
        assert record["model"]["block"] == card.block == "all"
        for path, digest in record["hashes"].items():
            assert nifti.read(output / path).slabs.digest == digest
        assert not misfits(record, GeneratedRecord, "record", set())
    assert not misfits(told, GeneratedSet, "set", set())


def test_the_same_command_gives_the_same_voxels(made, trained_hvae, tmp_path):
    output, told = made
    again = tmp_path / "again"
    call("generate", "hvae", trained_hvae.path, "-o", again, "-n", 3, "-q")
    one, other = voxels_of(output), voxels_of(again)
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)
    # Once more into the same folder: what is missing is made again.
    (again / "records" / "gen0001.json").unlink()
    (again / "labelsTr" / "gen0001.nii.gz").unlink()
    call("generate", "hvae", trained_hvae.path, "-o", again, "-n", 3, "-q")
    assert json.loads((again / "generated.json").read_text())["voxels"] == told["voxels"]
    assert np.array_equal(voxels_of(again)["gen0001.nii.gz"], one["gen0001.nii.gz"])
    call("generate", "hvae", trained_hvae.path, "-o", tmp_path / "else", "-n", 3, "--seed", 5, "-q")
    assert not np.array_equal(voxels_of(tmp_path / "else")["gen0001.nii.gz"], one["gen0001.nii.gz"])


def test_neighbours_are_named(trained_hvae, tmp_path):
    out = tmp_path / "o"
    call("generate", "hvae", trained_hvae.path, "-o", out, "-n", 2, "--sampling", "neighbourhood", "-q")
    record = json.loads((out / "records" / "gen0001.json").read_text())
    (near,) = record["from"]
    assert near["subject"] in record["model"]["subjects"]
    assert near["lesion"].startswith(near["case"])


def test_other_layouts_and_that_of_a_data_set(trained_hvae, tmp_path):
    out = tmp_path / "bids"
    call("generate", "hvae", trained_hvae.path, "-o", out, "-n", 1, "--layout", "bids", "-q")
    layout, cohort, _ = open_cohort(InputSpec(), out)
    assert layout.kind == "bids"
    assert len(cohort.cases) == 1
    like = tmp_path / "like"
    call("generate", "hvae", trained_hvae.path, "-o", like, "-n", 1, "--input-like", trained_hvae.root, "-q")
    assert open_cohort(InputSpec(), like)[0].kind == "nnunet"


def test_slices_become_volumes_of_one_slice(trained_hvae, tmp_path):
    settings = {
        "sample": "slices",
        "size": 16,
        "steps": 80,
        "validate_every": 80,
        "samples": 60,
        "lesion_share": 1.0,
    }
    (path,) = train_hvae(trained_hvae.root, tmp_path / "m", settings)
    out = tmp_path / "o"
    call("generate", "hvae", path, "-o", out, "-n", 1, "--sampling", "neighbourhood", "--spread", 0.1, "-q")
    assert {array.shape for array in voxels_of(out).values()} == {(16, 16, 1)}


class TestRefusals:
    def test_a_folder_of_something_else(self, made, trained_hvae, tmp_path):
        output, _ = made
        found = call("generate", "hvae", trained_hvae.path, "-o", output, "-n", 4, "-q", code=5)
        assert "another model, other settings" in found.stderr
        (tmp_path / "file").write_text("x")
        assert (
            "holds other files"
            in call("generate", "hvae", trained_hvae.path, "-o", tmp_path, "-n", 1, "-q", code=5).stderr
        )

    def test_a_sampling_that_is_not_known(self, trained_hvae, tmp_path):
        found = call(
            "generate", "hvae", trained_hvae.path, "-o", tmp_path / "o", "-n", 1, "--sampling", "grid", code=2
        )
        assert "'grid' is none of prior" in " ".join(found.stderr.split())

    def test_no_model(self, tmp_path):
        (tmp_path / "x").write_text("x")
        found = call("generate", "hvae", tmp_path / "x", "-o", tmp_path / "o", "-n", 1, code=4)
        assert "is no checkpoint" in found.stderr

    def test_a_data_set_of_another_kind(self, trained_hvae, make_nnunet, tmp_path):
        root = make_nnunet(2)
        text = json.loads((root / "dataset.json").read_text())
        text["channel_names"] = {"0": "T2", "1": "T1"}
        (root / "dataset.json").write_text(json.dumps(text))
        found = call(
            "generate", "hvae", trained_hvae.path, "-o", tmp_path / "o", "-n", 1, "--input-like", root, code=4
        )
        assert "has the channels ('T2', 'T1')" in found.stderr
