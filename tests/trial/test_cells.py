from __future__ import annotations

from pathlib import Path

import pytest

from lesionsynth.domain.case import CaseFiles, Cohort, LabelTable, Split
from lesionsynth.errors import InputError
from lesionsynth.trial.arms import Arm
from lesionsynth.trial.cells import make_cells

ARMS = [Arm("none", None), Arm("mix", None)]
LABELS = LabelTable({"background": 0, "lesion": 1}, {"background": "background", "lesion": "lesion"})


def cohort_of(n: int, scans: int = 1) -> Cohort:
    names = [(f"s{k:02d}", scan) for k in range(n) for scan in range(scans)]
    cases = [CaseFiles(f"{who}_{scan}", who, (), Path(f"{who}_{scan}")) for who, scan in names]
    return Cohort(Path("x"), "nnunet", ("T1",), LABELS, tuple(cases))


def splits_of(cohort: Cohort, n_test: int) -> list[Split]:
    names = [case.case for case in cohort.cases]
    tested = [c for c in names if int(c[1:3]) < n_test]
    return [Split(tuple(c for c in names if c not in tested), tuple(tested))]


def cells_of(n: int, n_test: int, fractions=(0.1, 0.5, 1.0), seeds=3, scans=1, held_out=0.2):
    cohort = cohort_of(n, scans)
    return make_cells(cohort, splits_of(cohort, n_test), ARMS, fractions, seeds, [0], held_out)


def test_nobody_is_on_two_sides_and_the_test_is_always_the_same():
    for cell in cells_of(25, 5, scans=2):
        assert set(cell.test) == {f"s{k:02d}" for k in range(5)}
        assert not set(cell.train) & {*cell.test, *cell.validation}
        assert not set(cell.validation) & set(cell.test)
        assert len(cell.validation) == 4


def test_arms_of_a_group_train_on_the_same_people_and_fractions_are_nested():
    cells = cells_of(25, 5)
    assert len(cells) == 3 * 3 * 2
    people = {(c.seed, c.fraction): set() for c in cells}
    for cell in cells:
        people[cell.seed, cell.fraction].add((cell.train, cell.validation))
    assert all(len(found) == 1 for found in people.values())
    trained = {key: set(next(iter(found))[0]) for key, found in people.items()}
    for seed in range(3):
        assert trained[seed, 0.1] < trained[seed, 0.5] < trained[seed, 1.0]
        assert [len(trained[seed, f]) for f in (0.1, 0.5, 1.0)] == [2, 8, 16]
    assert trained[0, 0.5] != trained[1, 0.5]


def test_the_cells_of_a_group_lie_beside_each_other():
    groups = [cell.group for cell in cells_of(10, 2)]
    assert all(a == b for a, b in zip(groups[::2], groups[1::2], strict=True))


@pytest.mark.parametrize(("n", "held_out"), [(2, 0.2), (3, 0.2), (9, 0.0)])
def test_where_none_can_be_spared_the_training_cases_validate(n, held_out):
    for cell in cells_of(n, 1, fractions=(1.0,), held_out=held_out):
        assert cell.validation == cell.train
        assert len(cell.train) == n - 1


@pytest.mark.parametrize("held_out", [0.9, 1.0])
def test_one_is_always_left_to_train(held_out):
    for cell in cells_of(5, 1, fractions=(0.1, 1.0), held_out=held_out):
        assert (len(cell.train), len(cell.validation)) == (1, 3)
        assert not set(cell.train) & set(cell.validation)


def test_one_validates_at_least_where_three_can_train():
    (cell, _) = cells_of(4, 1, fractions=(0.01,), seeds=1)
    assert (len(cell.train), len(cell.validation)) == (1, 1)
    assert cell.train != cell.validation


def test_folds_that_are_not_there_or_empty_are_refused():
    cohort = cohort_of(4)
    with pytest.raises(InputError, match="no fold 1; the data set has 1"):
        make_cells(cohort, splits_of(cohort, 1), ARMS, [1.0], 1, [1], 0.2)
    with pytest.raises(InputError, match="0 subjects to train on and 4 to test"):
        make_cells(cohort, splits_of(cohort, 4), ARMS, [1.0], 1, [0], 0.2)
