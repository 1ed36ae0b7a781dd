"""Who is behind each synthetic case, and where it may train: rebuilt from the input and the records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from lesionsynth.domain.case import Cohort, Split
from lesionsynth.domain.finding import Finding
from lesionsynth.qc.audit_evidence import REMAKE, BlockFit, Fold
from lesionsynth.qc.audit_scope import Evidence, HostAudit
from lesionsynth.run.finalize import SPLITS
from lesionsynth.run.fit import typical_count
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
            {mask.name: mask.subject for mask in cohort.masks},
        )

    @cached_property
    def with_images(self) -> set[str]:
        """Subjects with images."""
        return set(self.of_case.values())

    @cached_property
    def known(self) -> set[str]:
        """All subjects."""
        return self.with_images | set(self.of_mask.values())


@dataclass(frozen=True, eq=False)
class Behind:
    """Everybody who took part in a synthetic case: subject, by what.

    `own` are those of the case alone, `block` those of its block and fits: one dict for all cases
    of a block, since these can be thousands of subjects for tens of thousands of cases.
    """

    own: Mapping[str, str]
    block: Mapping[str, str]


def behind(made: Sequence[Evidence], people: People, fits: Mapping[str, BlockFit]) -> dict[str, Behind]:
    """Who is behind each synthetic case.

    Subjects of cases are the input's; what the record says of them counts too, so that nobody is missed.
    """
    blocks: dict[tuple[str, tuple[str, ...]], dict[str, str]] = {}
    found = {}
    for item in made:
        own = {subject: "learned weights" for model in item.weights for subject in model.subjects}
        for donor in item.donors:
            subject = people.of_case.get(donor.case) or people.of_mask.get(donor.case) or donor.subject
            own |= dict.fromkeys((donor.subject, subject), f"the donor {donor.lesion or donor.case}")
        own |= dict.fromkeys((item.host_subject, people.of_case[item.host]), "the host")
        key = (item.block, item.fitted_on)
        if key not in blocks:
            fit = fits.get(item.block)
            lent = dict.fromkeys(fit.subjects if fit else (), f"the bank of {item.block}")
            fitted = (*item.fitted_on, *(fit.fitted_on if fit else ()))
            blocks[key] = lent | dict.fromkeys(fitted, "loads and likelihood map")
        found[item.case] = Behind(own, blocks[key])
    return found


class _Judge:
    """Whether synthetic cases may train one fold; each block is looked at once.

    Parameters
    ----------
    guarded : set of str
        Subjects that the fold validates.
    outside : set of str
        Subjects with images that it does not train.
    """

    def __init__(self, guarded: set[str], outside: set[str]) -> None:
        self.forbidden = (guarded, outside)
        self._blocks: dict[int, list[tuple[str, str] | None]] = {}

    def __call__(self, part: Behind) -> list[tuple[str, str] | None]:
        """One subject, and by what it took part, that is validated; one that is not trained."""
        if id(part.block) not in self._blocks:
            self._blocks[id(part.block)] = self._of(part.block)
        pairs = zip(self._of(part.own), self._blocks[id(part.block)], strict=True)
        return [own or block for own, block in pairs]

    def _of(self, those: Mapping[str, str]) -> list[tuple[str, str] | None]:
        first = [min(those.keys() & forbidden, default=None) for forbidden in self.forbidden]
        return [None if subject is None else (subject, those[subject]) for subject in first]


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
    if fit is not None and set(item.fitted_on) != set(fit.fitted_on):
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
    elif fit.typical_count != (count := typical_count([count for _, count in found])):
        fault = f"typical_count is {fit.typical_count}, that of its subjects is {count}."
        yield Finding("error", fault, cure, None, name)


def audit_folds(
    folds: Sequence[Fold],
    splits: Sequence[Split],
    people: People,
    originals: Sequence[str],
    parts: Mapping[str, Behind],
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
    parts : mapping of str to Behind
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
    parts: Mapping[str, Behind],
    kept: bool,
) -> Iterator[Finding]:
    def finding(case: str, fault: str) -> Finding:
        return Finding("error", f"fold {number}: {fault}", _CURE, case, SPLITS)

    validates, trains = originals & set(split.val), originals & set(split.train)
    # Whom the file validates counts, and whom it should.
    guarded = {people.of_case[c]: c for c in sorted(validates | (originals & set(fold.val)))}
    judge = _Judge(set(guarded), people.with_images - {people.of_case[c] for c in trains})
    for part, cases in (("train", fold.train), ("val", fold.val)):
        for case in sorted(c for c, count in Counter(cases).items() if count > 1):
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
            leak, outside = judge(parts[case])
            if leak is not None:
                shared = f"{leak[0]} ({leak[1]}) with {guarded[leak[0]]}"
                yield finding(case, f"is trained, and shares the subject {shared}, which is validated.")
            elif outside is not None:
                missing = f"{outside[0]} ({outside[1]})"
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
    should = {case for case, part in parts.items() if judge(part) == [None, None]}
    for case in sorted((should | (trains if kept else set())) - set(fold.train)):
        yield finding(case, "is missing in train.")
