"""Who may meet whom. A synthetic case trains a fold only if nobody behind it is validated there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from lesionsynth.domain.case import Cohort, Split
from lesionsynth.errors import LeakError
from lesionsynth.recipe.model import FoldSpec
from lesionsynth.rng import stream


@dataclass(frozen=True)
class Block:
    """Subjects that may meet: hosts, donors, and those that loads and likelihood map are fitted on.

    Parameters
    ----------
    name : str
        Such as "block0", "fold2" or "all".
    hosts : tuple of str
        Cases that synthetic copies are made of.
    subjects : tuple of str
        Subjects with images that lesions may come from.
    mask_subjects : tuple of str
        Subjects known by masks alone that the fits may use.
    first_copy : int
        Number of the first copy, so that names stay unique over blocks.
    """

    name: str
    hosts: tuple[str, ...]
    subjects: tuple[str, ...]
    mask_subjects: tuple[str, ...]
    first_copy: int = 0

    def among(self, cohort: Cohort) -> Block:
        """The block without the cases and subjects that a cohort has no longer."""
        cases, subjects = {case.case for case in cohort.cases}, set(cohort.subjects)
        return replace(
            self,
            hosts=tuple(host for host in self.hosts if host in cases),
            subjects=tuple(subject for subject in self.subjects if subject in subjects),
        )


def find_splits(cohort: Cohort, spec: FoldSpec, seed: int) -> tuple[tuple[Split, ...], str]:
    """Cross-validation splits of the originals (none for strategy none), and where they come from.

    Raises
    ------
    LeakError
        If given splits validate a subject that they train on, or name unknown cases.
    """
    if spec.strategy == "none":
        return (), "folds: none; everything is training data."
    if spec.use == "splits" and cohort.splits is None:
        raise LeakError("folds.use is splits, but the input has no splits_final.json.", file=cohort.root)
    if spec.use in ("auto", "splits") and cohort.splits is not None:
        _check(cohort, cohort.splits)
        return cohort.splits, f"folds: {len(cohort.splits)}, from the input's splits_final.json."
    has_column = all(case.fold is not None for case in cohort.cases)
    if spec.use == "table" and not has_column:
        raise LeakError("folds.use is table, but not every case has a fold in the table.", file=cohort.root)
    if spec.use == "auto" and not has_column and any(case.fold is not None for case in cohort.cases):
        without = next(case.case for case in cohort.cases if case.fold is None)
        raise LeakError(
            "has no fold in the table, where others have one.",
            case=without,
            file=cohort.root,
            remedy="Fill the column, or choose `folds.use: make`.",
        )
    if spec.use in ("auto", "table") and has_column:
        names = sorted({str(case.fold) for case in cohort.cases})
        if len(names) < 2:
            raise LeakError(
                f"every case is in the fold {names[0]!r} of the table, so that none is left to train on.",
                file=cohort.root,
                remedy="Correct the column, choose `folds.use: make`, or `folds.strategy: none`.",
            )
        splits = _from_groups(cohort, [[c.subject for c in cohort.cases if c.fold == n] for n in names])
        _check(cohort, splits)
        return splits, f"folds: {len(names)}, from the table's column."
    subjects = list(cohort.subjects)
    if len(subjects) < 2:
        return (), "folds: none, there is one subject; everything is training data."
    wanted = max(2, min(5, len(subjects) // 2)) if spec.count == "auto" else spec.count
    count = min(wanted, len(subjects))
    stream(seed, "folds").shuffle(subjects)
    splits = _from_groups(cohort, [subjects[k::count] for k in range(count)])
    fewer = f" ({wanted} were asked for, there are {count} subjects)" if count < wanted else ""
    return splits, f"folds: {count}, made by subject{fewer}."


def make_blocks(cohort: Cohort, spec: FoldSpec, splits: Sequence[Split], copies: int) -> list[Block]:
    """Blocks of a strategy.

    block: subjects that are validated in exactly the same folds meet. Mask-only subjects join the block of
    the case they share their id with; those that are never validated may join any.
    """
    by_case = {case.case: case.subject for case in cohort.cases}
    with_images = set(cohort.subjects)
    outside = tuple(m.subject for m in cohort.masks if m.subject not in with_images)
    if spec.strategy == "none":
        return [Block("all", tuple(by_case), cohort.subjects, outside)]
    if spec.strategy == "per_fold":
        blocks = []
        for fold, split in enumerate(splits):
            subjects = {by_case[c] for c in split.train}
            hosts = tuple(sorted(c for c in by_case if c in set(split.train)))
            blocks.append(Block(f"fold{fold}", hosts, tuple(sorted(subjects)), outside, fold * copies))
        return blocks
    signatures: dict[tuple[int, ...], list[str]] = {}
    for subject in cohort.subjects:
        cases = {c for c, s in by_case.items() if s == subject}
        validated = tuple(k for k, split in enumerate(splits) if cases & set(split.val))
        signatures.setdefault(validated, []).append(subject)
    blocks = []
    for number, (_, members) in enumerate(sorted(signatures.items())):
        hosts = tuple(sorted(c for c, s in by_case.items() if s in set(members)))
        blocks.append(Block(f"block{number}", hosts, tuple(sorted(members)), outside))
    return blocks


Sides = tuple[set[str], set[str]]
"""Subjects that a fold validates, and those that it trains."""


def sides_of(split: Split, by_case: Mapping[str, str]) -> Sides:
    """Subjects on both sides of a fold; `by_case` names the subject of each case of the cohort."""
    validated, trained = ({by_case[c] for c in part if c in by_case} for part in (split.val, split.train))
    return validated, trained


def may_train(subjects: AbstractSet[str], known: AbstractSet[str], sides: Sides) -> bool:
    """Whether what these subjects are behind may train a fold: none is validated, all known are trained.

    `known` are the subjects with images; of others nobody knows in which fold they are.
    """
    validated, trained = sides
    return not subjects & validated and subjects & known <= trained


def extended_splits(
    cohort: Cohort,
    splits: Sequence[Split],
    synthetic: Iterable[tuple[str, Iterable[str]]],
    keep_originals: bool,
) -> list[dict[str, list[str]]]:
    """Splits with every synthetic case in the training part of exactly the folds that it may serve.

    Parameters
    ----------
    cohort : Cohort
    splits : sequence of Split
    synthetic : iterable of (str, iterable of str)
        Case id and all subjects that took part in it: host, donors, and who the fits were made on.
    keep_originals : bool
        False where the output does not hold the input's cases.

    Returns
    -------
    list of dict
        As nnU-Net's splits_final.json. A synthetic case trains a fold if its subjects with images are all
        in that fold's training part; it is never validated.
    """
    by_case = {case.case: case.subject for case in cohort.cases}
    known = set(cohort.subjects)
    parts = [(case, set(subjects)) for case, subjects in synthetic]
    folds = []
    for split in splits:
        sides = sides_of(split, by_case)
        added = [case for case, subjects in parts if may_train(subjects, known, sides)]
        originals = sorted(by_case.keys() & set(split.train)) if keep_originals else []
        folds.append({"train": originals + sorted(added), "val": sorted(by_case.keys() & set(split.val))})
    return folds


def _from_groups(cohort: Cohort, groups: Sequence[Sequence[str]]) -> tuple[Split, ...]:
    splits = []
    for group in groups:
        members = set(group)
        splits.append(
            Split(
                tuple(c.case for c in cohort.cases if c.subject not in members),
                tuple(c.case for c in cohort.cases if c.subject in members),
            )
        )
    return tuple(splits)


def _check(cohort: Cohort, splits: Sequence[Split]) -> None:
    by_case = {case.case: case.subject for case in cohort.cases}
    for fold, split in enumerate(splits):
        unknown = sorted(set(split.train + split.val) - set(by_case))
        if unknown:
            raise LeakError(
                f"fold {fold} names the case {unknown[0]!r}, which the data set has not.",
                file=cohort.root / "splits_final.json",
                remedy="Remove it from the splits, or choose `folds.use: make`.",
            )
        both = {by_case[c] for c in split.train} & {by_case[c] for c in split.val}
        if both:
            raise LeakError(
                f"fold {fold} trains and validates on the subject {min(both)!r}.",
                file=cohort.root / "splits_final.json",
                remedy="Correct the splits, or choose `folds.use: make`; `input.subject` says how a case id "
                "names its subject.",
            )
