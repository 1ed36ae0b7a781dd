"""No person is validated by a fold that anything of theirs has trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesionsynth.domain.case import CaseFiles, Cohort, LabelTable, MaskFile, Split
from lesionsynth.errors import LeakError
from lesionsynth.recipe.model import FoldSpec
from lesionsynth.run.folds import extended_splits, find_splits, make_blocks

LABELS = LabelTable({"background": 0, "lesion": 1}, {"background": "background", "lesion": "lesion"})


def cohort(
    subjects: dict[str, str] | Sequence[str],
    *,
    splits: Sequence[tuple[str, str]] | None = None,
    folds: dict[str, str] | None = None,
    masks: Sequence[str] = (),
) -> Cohort:
    """A cohort without files: case to subject; splits as words of cases."""
    by_case = subjects if isinstance(subjects, dict) else {s: s for s in subjects}
    return Cohort(
        root=Path("data"),
        layout="nnunet",
        channels=("T1",),
        labels=LABELS,
        cases=tuple(
            CaseFiles(case, subject, (), Path("l"), (folds or {}).get(case))
            for case, subject in sorted(by_case.items())
        ),
        masks=tuple(MaskFile(name, Path("m")) for name in masks),
        splits=None
        if splits is None
        else tuple(Split(tuple(t.split()), tuple(v.split())) for t, v in splits),
    )


TWO_SESSIONS = {"a1": "a", "a2": "a", "b": "b", "c": "c", "d1": "d", "d2": "d", "e": "e", "f": "f"}


class TestFind:
    def test_given_splits_are_taken(self) -> None:
        given_splits = cohort("abc", splits=[("a b", "c"), ("a c", "b")])
        splits, why = find_splits(given_splits, FoldSpec(), 0)
        assert splits == given_splits.splits
        assert why == "folds: 2, from the input's splits_final.json."

    @pytest.mark.parametrize(
        ("splits", "match"),
        [
            ([("a b c", "c")], "fold 0 trains and validates on the subject 'c'"),
            ([("a b", "c"), ("a", "zz")], "fold 1 names the case 'zz'"),
            ([("a zz", "c")], "fold 0 names the case 'zz'"),
        ],
    )
    def test_given_splits_that_leak_or_do_not_fit(self, splits: list[tuple[str, str]], match: str) -> None:
        with pytest.raises(LeakError, match=match) as caught:
            find_splits(cohort("abc", splits=splits), FoldSpec(), 0)
        assert caught.value.file == "data/splits_final.json"

    def test_given_splits_that_share_a_subject_between_sessions_leak(self) -> None:
        with pytest.raises(LeakError, match="trains and validates on the subject 'a'"):
            find_splits(cohort(TWO_SESSIONS, splits=[("a1 b c", "a2")]), FoldSpec(), 0)

    def test_repeated_and_overlapping_folds_are_allowed(self) -> None:
        repeated = cohort("abc", splits=[("a b", "c"), ("a b", "c"), ("a", "b c")])
        assert len(find_splits(repeated, FoldSpec(), 0)[0]) == 3

    def test_a_column_of_the_table(self) -> None:
        table = cohort("abc", folds={"a": "x", "b": "y", "c": "x"})
        splits, why = find_splits(table, FoldSpec(), 0)
        assert splits == (Split(("b",), ("a", "c")), Split(("a", "c"), ("b",)))
        assert why == "folds: 2, from the table's column."

    def test_a_column_that_parts_a_subject_keeps_it_together(self) -> None:
        folds = {"a1": "1", "a2": "2", "b": "1", "c": "2", "d1": "2", "d2": "2", "e": "1", "f": "1"}
        for split in find_splits(cohort(TWO_SESSIONS, folds=folds), FoldSpec(), 0)[0]:
            assert {"a1", "a2"} <= set(split.val)

    def test_a_column_of_one_fold(self) -> None:
        with pytest.raises(LeakError, match="every case is in the fold '0'"):
            find_splits(cohort("ab", folds={"a": "0", "b": "0"}), FoldSpec(), 0)

    def test_what_is_asked_for_must_be_there(self) -> None:
        for use, match in (("splits", "no splits_final.json"), ("table", "not every case has a fold")):
            with pytest.raises(LeakError, match=match):
                find_splits(cohort("ab", folds={"a": "0"}), FoldSpec(use=use), 0)

    def test_what_is_asked_for_is_taken(self) -> None:
        both = cohort("abcd", splits=[("a b", "c d")], folds={"a": "1", "b": "2", "c": "3", "d": "1"})
        assert [
            len(find_splits(both, FoldSpec(use=use), 0)[0]) for use in ("auto", "splits", "table", "make")
        ] == [
            1,
            1,
            3,
            2,
        ]

    def test_one_subject_makes_no_folds(self) -> None:
        splits, why = find_splits(cohort({"s0_0": "s0", "s0_1": "s0"}), FoldSpec(), 3)
        assert splits == ()
        assert "one subject" in why

    @pytest.mark.parametrize(
        ("subjects", "count", "expected"),
        [(2, "auto", 2), (3, "auto", 2), (6, "auto", 3), (30, "auto", 5), (6, 4, 4)],
    )
    def test_made_ones_are_a_partition_by_subject(
        self, subjects: int, count: int | str, expected: int
    ) -> None:
        names = {f"s{k}_{t}": f"s{k}" for k in range(subjects) for t in range(1 + k % 2)}
        spec = FoldSpec.model_validate({"count": count})
        splits, why = find_splits(cohort(names), spec, 3)
        assert len(splits) == expected
        assert f"folds: {expected}, made by subject" in why
        assert sorted(case for split in splits for case in split.val) == sorted(names)
        for split in splits:
            assert sorted(split.train + split.val) == sorted(names)
            assert not {names[c] for c in split.train} & {names[c] for c in split.val}
        sizes = [len({names[c] for c in split.val}) for split in splits]
        assert max(sizes) - min(sizes) <= 1

    def test_made_ones_depend_on_seed_and_subjects_only(self) -> None:
        one, other = cohort("abcdefgh"), cohort("hgfedcba", masks=["x"])
        assert find_splits(one, FoldSpec(), 1) == find_splits(other, FoldSpec(), 1)
        assert find_splits(one, FoldSpec(), 1) != find_splits(one, FoldSpec(), 2)

    def test_fewer_subjects_than_folds_are_told(self) -> None:
        assert "5 were asked for, there are 3 subjects" in find_splits(cohort("abc"), FoldSpec(count=5), 0)[1]

    def test_none_needs_no_splits_and_minds_no_broken_ones(self) -> None:
        leaky = cohort("ab", splits=[("a b", "b")])
        assert find_splits(leaky, FoldSpec(strategy="none"), 0)[0] == ()


class TestBlocks:
    def test_block_joins_who_is_validated_in_the_same_folds(self) -> None:
        data = cohort(
            TWO_SESSIONS,
            splits=[("c d1 d2 e", "a1 a2 b"), ("a1 a2 b e", "c d1 d2"), ("e", "b")],
            masks=["m1", "b"],
        )
        blocks = make_blocks(data, FoldSpec(), data.splits or (), 4)
        assert [(block.hosts, block.subjects) for block in blocks] == [
            (("e", "f"), ("e", "f")),
            (("a1", "a2"), ("a",)),
            (("b",), ("b",)),
            (("c", "d1", "d2"), ("c", "d")),
        ]
        assert [block.mask_subjects for block in blocks] == [("m1",)] * 4
        assert len({block.name for block in blocks}) == 4
        assert {block.first_copy for block in blocks} == {0}

    def test_per_fold_takes_each_folds_training_part_and_unique_copies(self) -> None:
        data = cohort(TWO_SESSIONS, splits=[("c d1 d2 e", "a1 a2 b"), ("a1 a2 b e", "c d1 d2")])
        one, other = make_blocks(data, FoldSpec(strategy="per_fold"), data.splits or (), 4)
        assert (one.hosts, one.subjects) == (("c", "d1", "d2", "e"), ("c", "d", "e"))
        assert (other.hosts, other.subjects) == (("a1", "a2", "b", "e"), ("a", "b", "e"))
        assert (one.first_copy, other.first_copy) == (0, 4)

    def test_none_is_one_block_of_all(self) -> None:
        data = cohort(TWO_SESSIONS, masks=["m"])
        (block,) = make_blocks(data, FoldSpec(strategy="none"), (), 4)
        assert block.hosts == tuple(TWO_SESSIONS)
        assert block.subjects == ("a", "b", "c", "d", "e", "f")
        assert block.mask_subjects == ("m",)


class TestExtended:
    def test_by_hand(self) -> None:
        data = cohort("abc", splits=[("b c", "a"), ("a c", "b"), ("a", "c")])
        made = [
            ("a__syn000", {"a"}),
            ("b__syn000", {"b", "c"}),
            ("c__syn000", {"c", "mask"}),
            ("a__syn001", {"a", "b", "c"}),
        ]
        assert extended_splits(data, data.splits or (), made, True) == [
            {"train": ["b", "c", "b__syn000", "c__syn000"], "val": ["a"]},
            {"train": ["a", "c", "a__syn000", "c__syn000"], "val": ["b"]},
            {"train": ["a", "a__syn000"], "val": ["c"]},
        ]

    def test_originals_that_are_not_there_do_not_train(self) -> None:
        data = cohort("ab", splits=[("a", "b")])
        assert extended_splits(data, data.splits or (), [("a__syn000", ["a"])], False) == [
            {"train": ["a__syn000"], "val": ["b"]}
        ]

    def test_cases_that_were_dropped_are_left_out(self) -> None:
        data = cohort("ab")
        splits = [Split(("a", "gone", "a"), ("b", "away"))]
        assert extended_splits(data, splits, [], True) == [{"train": ["a"], "val": ["b"]}]


people = st.dictionaries(
    st.sampled_from([f"c{k}" for k in range(10)]), st.sampled_from("abcdef"), min_size=1, max_size=10
)


@st.composite
def cross_validations(draw: st.DrawFn) -> Cohort:
    """Any cohort with any splits that respect subjects: overlapping, repeated, partial."""
    by_case = draw(people)
    names = sorted(set(by_case.values()))
    parts = draw(st.lists(st.lists(st.sampled_from("tvn"), min_size=6, max_size=6), min_size=1, max_size=4))
    splits = []
    for part in parts:
        role = dict(zip("abcdef", part, strict=True))
        splits.append(
            tuple(" ".join(c for c, s in sorted(by_case.items()) if role[s] == want) for want in "tv")
        )
    masks = draw(st.lists(st.sampled_from(["m1", "m2", *names]), unique=True))
    return cohort(by_case, splits=[(t, v) for t, v in splits], masks=masks)


@given(cross_validations(), st.sampled_from(["block", "per_fold", "none"]), st.data())
def test_nobody_is_validated_by_a_fold_that_they_have_trained(
    data: Cohort, strategy: str, drawn: st.DataObject
) -> None:
    """Whatever a job may draw from its block, its case trains exactly the folds that it may."""
    spec = FoldSpec.model_validate({"strategy": strategy, "use": "splits"})
    splits = find_splits(data, spec, 0)[0] or (data.splits or ())
    subject_of = {case.case: case.subject for case in data.cases}
    made: list[tuple[str, set[str]]] = []
    for block in make_blocks(data, spec, splits, 1):
        allowed = sorted({*block.subjects, *block.mask_subjects})
        for host in block.hosts:
            others = set(drawn.draw(st.lists(st.sampled_from(allowed)))) if allowed else set()
            made.append((f"{host}__syn{block.first_copy:03d}", {subject_of[host], *others}))
    assert len({case for case, _ in made}) == len(made)
    folds = extended_splits(data, splits, made, True)
    for fold, split in zip(folds, splits, strict=True):
        validated = {subject_of[case] for case in split.val}
        trained = {subject_of[case] for case in split.train}
        assert set(fold["val"]) == set(split.val)
        synthetic = set(fold["train"]) - set(split.train)
        for case, subjects in made:
            with_images = subjects & set(data.subjects)
            assert (case in synthetic) == (not subjects & validated and with_images <= trained)


@given(cross_validations())
def test_in_block_a_case_serves_every_fold_that_trains_on_its_block(data: Cohort) -> None:
    splits = data.splits or ()
    subject_of = {case.case: case.subject for case in data.cases}
    for block in make_blocks(data, FoldSpec(), splits, 1):
        made = [(f"{host}__syn000", set(block.subjects) | set(block.mask_subjects)) for host in block.hosts]
        folds = extended_splits(data, splits, made, False)
        for fold, split in zip(folds, splits, strict=True):
            trained = {subject_of[case] for case in split.train}
            wanted = {case for case, _ in made} if set(block.subjects) <= trained else set()
            assert set(fold["train"]) == wanted
