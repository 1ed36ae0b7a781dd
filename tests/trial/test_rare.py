"""Training cases with some of their lesions removed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from lesionsynth import nifti
from lesionsynth.domain.case import Cohort
from lesionsynth.errors import InputError
from lesionsynth.recipe.load import load_recipe
from lesionsynth.recipe.model import InputSpec
from lesionsynth.run.cohort import open_cohort
from lesionsynth.trial import nnunet
from lesionsynth.trial.arms import Arm
from lesionsynth.trial.cell import run_cell
from lesionsynth.trial.nnunet import data_sets
from lesionsynth.trial.plan import read_scan
from lesionsynth.trial.rare import thinned
from lesionsynth.trial.supply import recipe_for, synthesised
from tests.trial.test_cell import CELL, ONE, setting_of


@pytest.fixture
def cohort(make_nnunet: Callable[..., Path]) -> Cohort:
    return open_cohort(InputSpec(), make_nnunet(4))[1]


def share_of(files, cohort: Cohort) -> float:
    scan = read_scan(files, cohort)
    return float((scan.classes == 1).sum() / np.count_nonzero(scan.image.any(axis=0)))


def test_lesions_go_until_few_are_left_and_nothing_else_changes(cohort: Cohort, tmp_path: Path) -> None:
    before = {files.case: share_of(files, cohort) for files in cohort.cases}
    wanted = 0.6 * min(before.values())
    _, thin = thinned(CELL, cohort, InputSpec(), wanted, tmp_path / "t")
    assert [files.subject for files in thin.cases] == ["case1", "case2", "case3"]  # nobody of the test
    assert thin.channels == cohort.channels
    for files in thin.cases:
        assert 0 < share_of(files, thin) <= wanted
        old, new = read_scan(cohort.case(files.subject), cohort), read_scan(files, thin)
        np.testing.assert_allclose(new.grid.affine, old.grid.affine, atol=1e-5)
        assert not (new.classes & ~old.classes).any()
        changed = (old.image != new.image).any(axis=0)
        removed = (old.classes == 1) & (new.classes == 0)
        assert removed.any()
        assert changed[removed].mean() > 0.9
        assert not changed[(new.classes == 1)].any()
        assert not changed[~ndimage.binary_dilation(removed, iterations=6)].any()


def test_a_case_with_few_lesions_stays_as_it_is(cohort: Cohort, tmp_path: Path) -> None:
    _, thin = thinned(CELL, cohort, InputSpec(), 0.9, tmp_path / "t")
    for files in thin.cases:
        old, new = read_scan(cohort.case(files.subject), cohort), read_scan(files, thin)
        np.testing.assert_array_equal(old.image, new.image)
        np.testing.assert_array_equal(old.classes, new.classes)


def test_a_lesion_that_fits_stays_beside_one_that_does_not(cohort: Cohort, tmp_path: Path) -> None:
    for files in cohort.cases:
        label = nifti.read(files.label)
        values = np.zeros_like(label.values())
        values[8:10, 12:14, 10:12] = 1  # 8 and 64 voxels
        values[14:18, 14:18, 12:16] = 1
        nifti.write(files.label, nifti.new(label.grid, values))
    scans = [read_scan(files, cohort) for files in cohort.cases]
    wanted = 40 / max(np.count_nonzero(scan.image.any(axis=0)) for scan in scans)
    _, thin = thinned(CELL, cohort, InputSpec(), wanted, tmp_path / "t")
    assert [int((read_scan(files, thin).classes == 1).sum()) for files in thin.cases] == [8, 8, 8]


def test_where_nothing_is_left_it_is_refused(cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"no more than 1e-05 % of a case, none of the training cases \(case1"
    ):
        thinned(CELL, cohort, InputSpec(), 1e-7, tmp_path / "t")


def test_recipes_learn_from_what_is_left(cohort: Cohort, tmp_path: Path) -> None:
    wanted = 0.6 * min(share_of(files, cohort) for files in cohort.cases)
    setting = setting_of(cohort, tmp_path, wanted)
    given, thin = thinned(CELL, cohort, InputSpec(), wanted, tmp_path / "t")
    own = recipe_for(
        load_recipe("lesionmix", ["output.copies=1"]), CELL, given, thin, setting, tmp_path / "w"
    )
    loads = [share_of(files, thin) for files in synthesised(own, thin, tmp_path / "w")]
    assert loads
    assert max(loads) < 1.2 * wanted  # as many as the training cases have now


def test_a_stopped_cell_goes_on_with_the_files_it_had(cohort: Cohort, tmp_path: Path) -> None:
    """Files made anew would be another input to what was begun with the first."""
    wanted = 0.6 * min(share_of(files, cohort) for files in cohort.cases)
    setting = setting_of(cohort, tmp_path, wanted)
    recipe = load_recipe("lesionmix", ["output.copies=1"])
    made = []
    for _ in range(2):
        given, thin = thinned(CELL, cohort, InputSpec(), wanted, tmp_path / "t")
        own = recipe_for(recipe, CELL, given, thin, setting, tmp_path / "w")
        made.append([files.case for files in synthesised(own, thin, tmp_path / "w")])
    assert made[0] == made[1] != []


def test_test_cases_stay_as_they_are(cohort: Cohort, tmp_path: Path) -> None:
    """Seen in what nnU-Net is given, since that is written."""
    out = tmp_path / "out"
    setting = setting_of(cohort, out, 0.6 * min(share_of(files, cohort) for files in cohort.cases))
    cell = replace(CELL, arm="none")
    place = data_sets([cell], out, "nnUNetTrainer")[cell.name]
    told = nnunet.run_cell(cell, Arm("none", None), setting, "key", place)
    assert "waiting" in told

    def lesions(side: str, case: str) -> int:
        return int(nifti.read(place.raw / f"labels{side}" / f"{case}.nii.gz").values().sum())

    true = {files.case: int((read_scan(files, cohort).classes == 1).sum()) for files in cohort.cases}
    assert lesions("Ts", "case4") == true["case4"]
    assert all(lesions("Tr", f"{case}__scan0") < true[case] for case in ("case1", "case2", "case3"))


def test_a_cell_of_rare_lesions_is_trained_and_tested(cohort: Cohort, tmp_path: Path) -> None:
    setting = setting_of(cohort, tmp_path, 0.6 * min(share_of(files, cohort) for files in cohort.cases))
    told = run_cell(CELL, Arm("mix", load_recipe("lesionmix", ONE)), setting, "key")
    assert "failed" not in told
    assert [row["case"] for row in told["rows"]] == ["case4"]
    assert not (tmp_path / "work" / CELL.name).exists()
