"""Who is behind each synthetic case, and where it may train: rebuilt from the input and the records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lesionsynth.domain.case import Cohort, Split
from lesionsynth.domain.finding import Finding
from lesionsynth.qc.audit_evidence import REMAKE, BlockFit, Fold
from lesionsynth.qc.audit_scope import Evidence, HostAudit
from lesionsynth.run.finalize import SPLITS
from lesionsynth.run.workspace import RECORDS

_CURE = "Do not train with these folds. Run the same command again, which writes the file anew."
_LOAD_TOLERANCE = 1e-9


@dataclass(frozen=True)
class People:
    """Subjects as the input has them."""

    of_case: Mapping[str, str]
    of_mask: Mapping[str, str]

    @classmethod
    def of(cls, cohort: Cohort) -> People:
        """Those of a cohort. A mask goes by its subject's name, and `mask` after a slash."""
        return cls(
            {case.case: case.subject for case in cohort.cases},
            {f"{mask.subject}/mask": mask.subject for mask in cohort.masks},
        )

    @property
    def with_images(self) -> set[str]:
        """Subjects with images."""
        return set(self.of_case.values())

    @property
    def known(self) -> set[str]:
        """All subjects."""
        return self.with_images | set(self.of_mask.values())


def behind(item: Evidence, people: People, fit: BlockFit | None) -> dict[str, str]:
    """Everybody who took part in a synthetic case: subject, by what.

    Subjects of cases are the input's; what the record says of them counts too, so that nobody is missed.
    """
    parts: dict[str, str] = {}
    for subject in item.weights:
        parts[subject] = "learned weights"
    for subject in fit.subjects if fit else ():
        parts[subject] = f"the bank of {item.block}"
    for subject in {*item.fitted_on, *(fit.fitted_on if fit else ())}:
        parts[subject] = "loads and likelihood map"
    for donor in item.donors:
        found = people.of_case.get(donor.case) or people.of_mask.get(donor.case)
        for subject in {donor.subject, found or donor.subject}:
            parts[subject] = f"the donor {donor.lesion or donor.case}"
    for subject in {item.host_subject, people.of_case[item.host]}:
        parts[subject] = "the host"
    return parts


def audit_people(item: Evidence, people: People, fit: BlockFit | None) -> Iterator[Finding]:
    """Names in a record that are not those of the input, and donors and fits from outside its block."""
    name = f"{RECORDS}/{item.case}.json"
    if item.host_subject != people.of_case[item.host]:
        fault = f"the host's subject is {item.host_subject}; by the input it is {people.of_case[item.host]}."
        yield Finding("error", fault, REMAKE, item.case, name)
    lenders = {*fit.subjects, *fit.fitted_on} if fit else people.known
    for donor in item.donors:
        subject = people.of_case.get(donor.case) or people.of_mask.get(donor.case)
        if subject is None:
            yield Finding(
                "error", f"the donor case {donor.case} is not in the input.", REMAKE, item.case, name
            )
        elif subject != donor.subject:
            fault = f"the donor {donor.case} is said to be of {donor.subject}; by the input it is {subject}."
            yield Finding("error", fault, REMAKE, item.case, name)
        elif subject not in lenders:
            fault = f"the donor {donor.lesion or donor.case} is of {subject}, who is not in {item.block}."
            yield Finding("error", fault, REMAKE, item.case, name)
    unknown = sorted(set(item.fitted_on) - people.known)
    if unknown:
        fault = f"fitted_on names the subject {unknown[0]}, who is not in the input."
        yield Finding("error", fault, REMAKE, item.case, name)
    if fit is not None and sorted(item.fitted_on) != sorted(fit.fitted_on):
        fault = f"fitted_on is not that of likelihood/{item.block}.json."
        yield Finding("error", fault, REMAKE, item.case, name)


def audit_fit(
    fit: BlockFit, name: str, people: People, seen: Sequence[tuple[str, HostAudit]]
) -> Iterator[Finding]:
    """A block's fit: its loads must be those of the label maps of its subjects, and of nobody else's.

    Parameters
    ----------
    fit : BlockFit
    name : str
        Its file.
    people : People
    seen : sequence of (str, HostAudit)
        Subject, and load as measured anew, of every case and mask that was harvested.
    """
    cure = "Remove the output and run the command again."
    unknown = sorted({*fit.subjects, *fit.fitted_on} - people.known)
    if unknown:
        yield Finding("error", f"names the subject {unknown[0]}, who is not in the input.", cure, None, name)
    found = sorted((item.ml, item.count) for subject, item in seen if subject in set(fit.fitted_on))
    said = sorted((load.ml, load.count) for load in fit.loads)
    same = len(found) == len(said) and all(
        abs(a - b) <= _LOAD_TOLERANCE * max(1.0, b) and n == m
        for (a, n), (b, m) in zip(said, found, strict=True)
    )
    if not same:
        fault = (
            f"was fitted on {len(said)} loads of {sum(ml for ml, _ in said):g} mL in all; those of its "
            f"subjects are {len(found)} of {sum(ml for ml, _ in found):g} mL."
        )
        yield Finding("error", fault, cure, None, name)


def audit_folds(
    folds: Sequence[Fold],
    splits: Sequence[Split],
    people: People,
    originals: Sequence[str],
    parts: Mapping[str, Mapping[str, str]],
    kept: bool,
) -> Iterator[Finding]:
    """Compare the folds of an output with what they may and should be.

    Parameters
    ----------
    folds : sequence of Fold
        Of the output.
    splits : sequence of Split
        Of the input's cases.
    people : People
    originals : sequence of str
        Cases of the input that could be read.
    parts : mapping of str to mapping
        From :func:`behind`, by synthetic case.
    kept : bool
        Whether the output holds the originals.
    """
    if len(folds) != len(splits):
        yield Finding("error", f"has {len(folds)} folds, the input has {len(splits)}.", _CURE, None, SPLITS)
    for number, (fold, split) in enumerate(zip(folds, splits, strict=False)):
        yield from _audit_fold(number, fold, split, people, set(originals), parts, kept)


def _audit_fold(
    number: int,
    fold: Fold,
    split: Split,
    people: People,
    originals: set[str],
    parts: Mapping[str, Mapping[str, str]],
    kept: bool,
) -> Iterator[Finding]:
    def finding(case: str, fault: str) -> Finding:
        return Finding("error", f"fold {number}: {fault}", _CURE, case, SPLITS)

    validates, trains = originals & set(split.val), originals & set(split.train)
    # Whom the file validates counts, and whom it should.
    guarded = {people.of_case[c]: c for c in sorted(validates | (originals & set(fold.val)))}
    trained = {people.of_case[c] for c in trains}
    for part, cases in (("train", fold.train), ("val", fold.val)):
        for case in sorted({c for c in cases if cases.count(c) > 1} if len(cases) > len(set(cases)) else ()):
            yield finding(case, f"is listed more than once in {part}.")
    for case in sorted(set(fold.val) - validates):
        if case in parts:
            yield finding(case, "a synthetic case is validated.")
        elif case in originals:
            yield finding(case, "is validated, which the input's folds do not do.")
        else:
            yield finding(case, "val names a case that is not in the input.")
    for case in sorted(validates - set(fold.val)):
        yield finding(case, "is not validated, which the input's folds do.")
    for case in sorted(set(fold.train)):
        if case in parts:
            those = parts[case]
            leaks = sorted(set(those) & set(guarded))
            outside = sorted((set(those) & people.with_images) - trained)
            if leaks:
                shared = f"{leaks[0]} ({those[leaks[0]]}) with {guarded[leaks[0]]}"
                yield finding(case, f"is trained, and shares the subject {shared}, which is validated.")
            elif outside:
                missing = f"{outside[0]} ({those[outside[0]]})"
                yield finding(case, f"is trained, though {missing} is not in the training part.")
        elif case not in originals:
            yield finding(case, "train names a case that is not in the output.")
        elif people.of_case[case] in guarded:
            other = guarded[people.of_case[case]]
            yield finding(case, f"is trained, and is of the same subject as {other}, which is validated.")
        elif not kept:
            yield finding(case, "is trained, but the output holds no originals.")
        elif case not in trains:
            yield finding(case, "is trained, which the input's folds do not do.")
    should = {
        case
        for case, those in parts.items()
        if not set(those) & set(guarded) and set(those) & people.with_images <= trained
    }
    for case in sorted((should | (trains if kept else set())) - set(fold.train)):
        yield finding(case, "is missing in train.")
