"""lesionsynth trial, as it is typed."""

from __future__ import annotations

import csv
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from lesionsynth import nifti
from lesionsynth.cli.app import app
from lesionsynth.cli.trial import _tell
from lesionsynth.errors import ExitCode
from lesionsynth.recipe.load import load_recipe
from lesionsynth.trial.compare import Row, compare
from lesionsynth.trial.run import Outcome
from tests.pages import ROOT

FEW = [
    "--preset", "tiny", "-t", "steps=3", "-t", "validate_every=3", "-t", "widths=[4, 4, 4]",
    "-t", "most_patch=16", "-t", "validation_patches=2", "--device", "cpu",
    "--set", "output.copies=1", "--set", "steps.add.load=[2, 8]",
]  # fmt: skip


def trial(*words: object):
    return CliRunner().invoke(app, ["trial", *map(str, words)])


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_real_trial_learns_and_its_arithmetic_is_right(tmp_path: Path) -> None:
    """Two arms on the sample data, trained for real; the table is computed again from the single results."""
    out = tmp_path / "out"
    words = [
        "-i", ROOT / "sample_data", "-o", out, "--recipes", "none,lesionmix", "--seeds", 2,
        "--preset", "tiny", "-t", "steps=60", "-t", "validate_every=30", "--set", "output.copies=1",
        "--device", "cpu",
    ]  # fmt: skip
    done = trial(*words)
    assert done.exit_code == 0, done.output
    rows = table(out / "results.csv")
    assert len(rows) == 2 * 2 * 2  # arms, seeds, test cases
    assert all(not {row["subject"]} & set(row["train"].split()) for row in rows)
    values = {(r["recipe"], int(r["seed"]), r["subject"]): float(r["dice_at_val"]) for r in rows}
    # Both have learned something: lesions are 1 % of the volume.
    for arm in ("none", "lesionmix"):
        assert statistics.mean(v for (recipe, *_), v in values.items() if recipe == arm) > 0.25
    arms = {(c["recipe"], c["measure"]): c for c in table(out / "comparison.csv")}
    compared = arms["lesionmix", "dice_at_val"]
    differences = {
        (seed, subject): value - values["none", seed, subject]
        for (recipe, seed, subject), value in values.items()
        if recipe == "lesionmix"
    }
    assert int(compared["pairs"]) == 4
    mean = statistics.mean(differences.values())
    assert float(compared["difference"]) == pytest.approx(mean, abs=2e-6)
    assert float(compared["mean"]) == pytest.approx(
        statistics.mean(v for (recipe, *_), v in values.items() if recipe == "lesionmix"), abs=2e-6
    )
    # Crossed random effects of two seeds and two subjects, by sums of squares.
    subjects = sorted({subject for _, subject in differences})
    by_seed = [statistics.mean(differences[seed, s] for s in subjects) for seed in (0, 1)]
    by_subject = [statistics.mean(differences[seed, s] for seed in (0, 1)) for s in subjects]
    total = sum((d - mean) ** 2 for d in differences.values())
    seed_ms = 2 * sum((m - mean) ** 2 for m in by_seed)
    subject_ms = 2 * sum((m - mean) ** 2 for m in by_subject)
    rest_ms = total - seed_ms - subject_ms
    variance = max(seed_ms + subject_ms - rest_ms, rest_ms)
    freedom = max(1.0, variance**2 / (seed_ms**2 + subject_ms**2 + rest_ms**2))
    half = stats.t.ppf(0.975, freedom) * (variance / 4) ** 0.5
    assert float(compared["high"]) - float(compared["difference"]) == pytest.approx(half, rel=1e-3, abs=1e-5)
    assert float(compared["difference"]) - float(compared["low"]) == pytest.approx(half, rel=1e-3, abs=1e-5)
    page = (out / "trial.html").read_text()
    assert "What synthetic data changed" in page
    assert f"{mean:+.3f}" in page
    assert f"{mean:+.3f}" in done.output
    assert not list(out.rglob("*.nii.gz"))
    # Again: nothing is left to do.
    before = {path: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}
    assert trial(*words).exit_code == 0
    assert before == {path: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}


def test_seeds_and_arms_can_be_added_but_no_other_network(
    make_nnunet: Callable[..., Path], tmp_path: Path
) -> None:
    root, out = make_nnunet(4), tmp_path / "out"
    first = trial("-i", root, "-o", out, "--recipes", "lesionmix", "--seeds", 1, *FEW, "-q")
    assert first.exit_code == 0, first.output
    before = {path.name: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}
    assert sorted(before) == [f"{arm}-fraction1-seed0-fold0.json" for arm in ("lesionmix", "none")]
    more = trial(
        "-i", root, "-o", out, "--recipes", "lesionmix,lesion_warp", "--seeds", 2, "--json", *FEW, "-q"
    )
    assert more.exit_code == 0, more.output
    found = json.loads(more.output)
    assert {one["recipe"] for one in found} == {"none", "lesionmix", "lesion_warp"}
    after = {path.name: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}
    assert len(after) == 6
    assert all(after[name] == time for name, time in before.items())
    other = trial("-i", root, "-o", out, "--recipes", "lesionmix", *FEW, "-t", "steps=5")
    assert other.exit_code == ExitCode.OUTPUT
    assert "made for something else: network.steps differ" in " ".join(other.output.split())


def test_recipes_do_not_say_who_is_tested(make_nnunet: Callable[..., Path], tmp_path: Path) -> None:
    """Whatever seeds they have and which comes first: a recipe can be added to what was done without."""
    root, out = make_nnunet(5), tmp_path / "out"
    assert trial("-i", root, "-o", out, "--recipes", "none", "--seeds", 1, *FEW[:-2]).exit_code == 0
    (before,) = (out / "cells").glob("*.json")
    told = before.read_bytes()
    done = trial("-i", root, "-o", out, "--recipes", "lesionmix", "--seeds", 1, *FEW, "--set", "seed=7")
    assert done.exit_code == 0, done.output
    assert before.read_bytes() == told
    tests = {row["recipe"]: set() for row in table(out / "results.csv")}
    for row in table(out / "results.csv"):
        tests[row["recipe"]].add((row["train"], row["case"]))
    assert tests["lesionmix"] == tests["none"]


@pytest.mark.parametrize("seeds", [1, 2])
def test_one_network_an_arm_is_told_below_the_table(
    seeds: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        Row(arm, 1.0, seed, 0, ("t",), who, who, {"dice_at_val": (1 + (arm == "mix") * (k + seed)) / 10})
        for seed in range(seeds)
        for k, who in enumerate("abc")
        for arm in ("none", "mix")
    ]
    _tell(Outcome(rows, compare(rows, ["dice_at_val"]), {}, 0, []), tmp_path, None)
    assert ("they hold for these very networks" in capsys.readouterr().out) == (seeds == 1)


def test_a_budget_ends_it_and_says_what_is_left(make_nnunet: Callable[..., Path], tmp_path: Path) -> None:
    done = trial(
        *("-i", make_nnunet(4), "-o", tmp_path / "out", "--recipes", "lesionmix", "--seeds", 2, *FEW),
        *("--budget", 0),
    )
    assert done.exit_code == 0, done.output
    assert "the budget ends here" in done.output
    assert "4 cell(s) are still to be done" in done.output


def test_an_arm_that_cannot_be_made_is_told(make_nnunet: Callable[..., Path], tmp_path: Path) -> None:
    words = ["--fractions", 0.1, "--seeds", 1, *FEW[:-4], "--set", "output.copies=1"]
    done = trial("-i", make_nnunet(4), "-o", tmp_path / "out", "--recipes", "carve_mix", *words)
    assert done.exit_code == 0, done.output
    assert "not made: carve_mix-fraction0.1-seed0-fold0" in done.output
    assert "What could not be made" in (tmp_path / "out" / "trial.html").read_text()


def test_draws_without_a_lesion_are_told_and_the_others_trained(
    make_nnunet: Callable[..., Path], tmp_path: Path
) -> None:
    split = {"train": ["case1", "case2"], "val": ["case3"]}
    root, out = make_nnunet(3, splits=[split]), tmp_path / "out"

    def empty(case: str) -> None:
        label = nifti.read(root / "labelsTr" / f"{case}.nii.gz")
        nifti.write(
            root / "labelsTr" / f"{case}.nii.gz", nifti.new(label.grid, np.zeros_like(label.values()))
        )

    empty("case1")
    words = ["-i", root, "-o", out, "--recipes", "none", "--fractions", 0.1, "--seeds", 4, *FEW[:-4]]
    done = trial(*words)
    assert done.exit_code == 0, done.output
    told = [json.loads(path.read_text()) for path in sorted((out / "cells").iterdir())]
    assert {cell["train"][0]: "failed" in cell for cell in told} == {"case1": True, "case2": False}
    assert "none of the training cases (case1) has a lesion" in " ".join(done.output.split())
    assert "none of the training cases (case1) has a lesion" in (out / "trial.html").read_text()
    # Where nobody has one there is nothing to compare with.
    empty("case2")
    done = trial(*words)
    assert done.exit_code == ExitCode.INPUT
    said = " ".join(done.output.replace("│", " ").split())
    assert "no network of none could be trained, the first because: none of the training cases" in said
    # Nor where nothing can be found: said before anything is trained.
    empty("case3")
    done = trial(*words[:3], tmp_path / "other", *words[4:])
    assert done.exit_code == ExitCode.INPUT
    assert "none of the 1 test cases of fold 0 has a lesion" in " ".join(done.output.split())
    assert not (tmp_path / "other" / "cells").exists()


def test_lesions_that_are_all_too_large_are_told(make_nnunet: Callable[..., Path], tmp_path: Path) -> None:
    words = ["--recipes", "none", "--seeds", 1, "--rare", "1e-9", *FEW[:-4]]
    done = trial("-i", make_nnunet(2), "-o", tmp_path / "out", *words)
    assert done.exit_code == ExitCode.INPUT, done.output
    assert "give a larger share with --rare" in " ".join(done.output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--folds", "7"], ExitCode.INPUT, "there is no fold 7"),
        (["--set", "folds.strategy=none"], ExitCode.INPUT, "without folds there is nobody to test on"),
        (["--fractions", "0"], 2, "numbers above 0 and up to 1"),
        (["--fractions", "a"], 2, "numbers between commas"),
        (["--folds", "0.5"], 2, "whole numbers from 0"),
        (["--preset", "huge"], 2, "no preset 'huge'"),
        (["-t", "stepz=3"], ExitCode.RECIPE, "Did you mean steps?"),
        (["-t", "seed=7"], 2, "--seeds says how many"),
        (["--recipes", "none", "--set", "nonsense=1"], ExitCode.RECIPE, "nonsense"),
        (["--recipes", "none", "--set", "folds.count=4", "--folds", "2"], ExitCode.INPUT, "has 2."),
        (["--train-model", "hvae.stepz=3"], ExitCode.RECIPE, "hvae: stepz=3: unknown key stepz"),
        (["--train-model", "gan.steps=3"], 2, "should be one of lesion-autoencoder, mask-gan, hvae"),
        (["--train-model", "hvae"], 2, "a point and KEY=VALUE"),
        (["--recipes", "lesionmix,lesionmix"], ExitCode.RECIPE, "two arms are called lesionmix"),
        (["--recipes", "nowhere"], ExitCode.RECIPE, "nowhere"),
        (["--trainer", "nnunet:rm -rf"], 2, "nnunet: and one of its classes"),
        (["--trainer", "nnunet", "--controls", "longer"], ExitCode.RECIPE, "Leave out --controls"),
        (["--trainer", "nnunet", "--search", "3"], ExitCode.RECIPE, "Leave out --controls"),
        (["--rare", "1"], 2, "a share above 0 and below 1"),
        (
            ["--rare", "0.1", "--set", "input.masks.path=m/{subject}.nii"],
            ExitCode.RECIPE,
            "as they are by input.masks",
        ),
        (["--on-the-fly", "0"], 2, "numbers above 0"),
        (["--controls", "more"], 2, "should be some of longer, lesions"),
    ],
)
def test_bad_words(
    words: list[str], code: int, said: str, make_nnunet: Callable[..., Path], tmp_path: Path
) -> None:
    given = ["--recipes", "lesionmix", *FEW, *words]
    done = trial("-i", make_nnunet(2), "-o", tmp_path / "out", *given)
    assert done.exit_code == code, done.output
    assert said in " ".join(done.output.replace("│", " ").split())
    assert not (tmp_path / "out" / "cells").exists()


def test_one_subject_has_no_folds(make_nnunet: Callable[..., Path], tmp_path: Path) -> None:
    done = trial("-i", make_nnunet(1), "-o", tmp_path / "out", "--recipes", "lesionmix", *FEW)
    assert done.exit_code == ExitCode.INPUT
    assert "at least two subjects" in " ".join(done.output.split())


def test_without_optuna_it_says_what_to_install(
    make_nnunet: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    words = ["--recipes", "lesionmix", *FEW, "--search", 2]
    done = trial("-i", make_nnunet(2), "-o", tmp_path / "out", *words)
    assert done.exit_code != 0
    assert "need the package optuna" in " ".join(done.output.split())
    assert not (tmp_path / "out").exists()


def test_without_torch_it_says_what_to_install(
    make_nnunet: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    done = trial("-i", make_nnunet(2), "-o", tmp_path / "out", "--recipes", "lesionmix", *FEW)
    assert done.exit_code != 0
    assert "generative" in done.output
    assert not (tmp_path / "out").exists()


def test_what_is_asked_for_are_arms_of_their_own(make_nnunet: Callable[..., Path], tmp_path: Path) -> None:
    more = "--shares 0.25,1 --prototype direct --controls longer,lesions --on-the-fly 2 --search 2"
    done = trial(
        *("-i", make_nnunet(3), "-o", tmp_path / "out", "--recipes", "lesionmix", "--seeds", 1, *FEW, "-q"),
        *(*more.split(), "-t", "steps=12", "-t", "learning_rate=0.02"),
    )
    assert done.exit_code == 0, done.output
    arms = {row["recipe"]: row for row in table(tmp_path / "out" / "results.csv")}
    assert arms.keys() == {
        "none", "none+longer", "none+lesions", "lesionmix", "lesionmix+direct", "lesionmix@0.25",
        "lesionmix@1", "lesionmix+fly2", "lesionmix+searched",
    }  # fmt: skip
    others = [row["auprc"] for name, row in arms.items() if name != "lesionmix+searched"]
    assert len(set(others)) == 8  # eight networks; the search may have found nothing better
    page = (tmp_path / "out" / "trial.html").read_text()
    assert "25 % or 50 % or 100 % <small>of a batch, in arms with any; searched ones as found" in page
    assert '<tr><td>lesionmix</td><td class="number">1</td><td class="number">1</td>' in page  # one copy
    found = tmp_path / "out" / "searched" / "lesionmix+searched-fraction1-seed0-fold0"
    assert len(table(found.with_suffix(".csv"))) == 2
    assert load_recipe(str(found.with_suffix(".yaml"))).steps.keys() == {"add"}


def test_nnunet_is_given_all_cells_and_waited_for(make_nnunet: Callable[..., Path], tmp_path: Path) -> None:
    root, out = make_nnunet(4), tmp_path / "out"
    words = ["-i", root, "-o", out, "--recipes", "lesionmix", "--trainer", "nnunet:nnUNetTrainer_5epochs"]
    words += ["--seeds", 1, "--set", "output.copies=1", "--rare", 0.01]
    done = trial(*words)
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "2 cell(s) are still to be done; run the scripts in" in said
    assert len(list((out / "nnunet" / "commands").iterdir())) == 2
    for name in ("Dataset001_none", "Dataset002_lesionmix"):
        name += "-fraction1-seed0-fold0"
        raw = out / "nnunet" / "raw" / name
        plans = "nnUNetPlans" if "none" in name else "nnUNetPlansOfNone"
        model = f"nnUNetTrainer_5epochs__{plans}__3d_fullres"
        validated = out / "nnunet" / "results" / name / model / "fold_0" / "validation"
        (split,) = json.loads((raw / "splits_final.json").read_text())
        tested = [path.name[:-7] for path in (raw / "labelsTs").iterdir()]
        for folder, cases, side in (
            (validated, split["val"], "Tr"),
            (out / "nnunet" / "predicted" / name, tested, "Ts"),
        ):
            folder.mkdir(parents=True)
            for case in cases:
                truth = nifti.read(raw / f"labels{side}" / f"{case}.nii.gz").values().T.astype(np.float32)
                np.savez(folder / f"{case}.npz", probabilities=np.stack([1 - truth, truth]))
    done = trial(*words)
    assert done.exit_code == 0, done.output
    assert "still to be done" not in done.output
    assert {row["dice"] for row in table(out / "results.csv")} == {"1"}
    page = (out / "trial.html").read_text()
    assert "nnUNetTrainer_5epochs" in page
    assert "no more than 1 % of an image" in page
    assert "What it cost" not in page


def test_recipes_that_read_the_data_in_different_ways_are_refused(
    make_nnunet: Callable[..., Path], tmp_path: Path
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("input: {roles: {lesion: organ}}\nsteps: {add: {kind: populate}}\n")
    done = trial("-i", make_nnunet(4), "-o", tmp_path / "out", "--recipes", f"lesionmix,{other}", *FEW)
    assert done.exit_code == ExitCode.RECIPE
    assert "other has another `input` or `folds`" in " ".join(done.output.split())
    assert not (tmp_path / "out" / "cells").exists()
