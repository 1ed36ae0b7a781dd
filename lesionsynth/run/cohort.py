"""Open the input: find its layout, its cases, its subjects, and what its labels mean."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lesionsynth.domain.case import CaseFiles, Cohort, LabelTable, MaskFile, Role, Split
from lesionsynth.domain.finding import Finding
from lesionsynth.errors import InputError
from lesionsynth.json_file import read_json
from lesionsynth.plugins import registry
from lesionsynth.plugins.contracts import LayoutSpec, Scan
from lesionsynth.recipe.model import InputSpec
from lesionsynth.run.input_faults import case_faults, mask_faults, refuse_unwritable

SPLITS = "splits_final.json"
_PERSON = re.compile(
    r"(sub-[0-9a-z]+)(?:_.*)?"  # the subject of BIDS, whatever its label and whatever follows
    r"|(.+?)[_-](?:(?:ses(?:sion)?|tp|timepoint|visit|scan)[-_]?\d+|ses(?:sion)?-[0-9a-z]+)",
    re.IGNORECASE,
)


def require_folder(root: Path) -> None:
    """Refuse what is no folder of a data set.

    Raises
    ------
    InputError
    """
    if root.is_file():
        raise InputError("is a file.", file=root, remedy="Give the folder of the data set.")
    if not root.is_dir():
        raise InputError("the input folder does not exist.", file=root, remedy="Check the path.")


def find_layout(spec: InputSpec, root: Path) -> LayoutSpec:
    """The recipe's layout, or the one that recognises the input."""
    if isinstance(spec.layout, LayoutSpec):
        return spec.layout
    require_folder(root)
    for kind, model in registry.kinds("layouts").items():
        if issubclass(model, LayoutSpec) and model.recognises(root):
            found: LayoutSpec = registry.create("layouts", kind)
            return found
    raise InputError(
        "no known layout was recognised: nnU-Net raw and the Decathlon have a dataset.json and a folder "
        "labelsTr, BIDS folders sub-* with images named sub-*, LiTS volume-N.nii and segmentation-N.nii, "
        "WMH2017 folders with pre/FLAIR.nii.gz and wmh.nii.gz.",
        file=root,
        remedy="Describe the files under `input.layout` with kind pattern; `lesionsynth init` writes an "
        "example.",
    )


def scan_cohort(spec: InputSpec, root: Path) -> tuple[LayoutSpec, Scan]:
    """Find all cases and masks, with everything that is wrong with them as findings.

    Raises
    ------
    InputError
        If nothing can be read at all: no folder, no layout, no description, no role for a label.
    """
    root = root.absolute()  # workers may be elsewhere
    layout = find_layout(spec, root)
    require_folder(root)
    scan = layout.scan(root)
    everybody = tuple(_with_subject(case, spec) for case in scan.cohort.cases)
    cases = _chosen(everybody, spec, root)
    others = _others(everybody, scan.findings, spec)
    findings = [finding for finding in scan.findings if finding.case not in others]
    refuse_unwritable(scan.cohort)
    findings += case_faults(cases, everybody, root)
    by_case = {**others, **{case.case: case.subject for case in everybody}}
    masks = tuple(m for m in _masks(spec, root, by_case) if m.subject not in others.values())
    findings += mask_faults(masks)
    faulty = {finding.case for finding in findings if finding.level == "error"}
    cohort = replace(
        scan.cohort,
        labels=_with_roles(scan.cohort, spec.roles),
        cases=cases,
        masks=masks,
        splits=_read_splits(root / SPLITS, faulty | set(others)),
        excluded=others,
        resample=spec.resample,
    )
    return layout, Scan(cohort, tuple(findings))


def _chosen(cases: Sequence[CaseFiles], spec: InputSpec, root: Path) -> tuple[CaseFiles, ...]:
    """The cases of the subjects that the recipe names; all where it names none."""
    if spec.subjects is None:
        return tuple(cases)
    unknown = sorted(set(spec.subjects) - {case.subject for case in cases})
    if unknown:
        raise InputError(
            f"input.subjects names {unknown[0]!r}, which the data set has not.",
            file=root,
            remedy="`lesionsynth check` lists the subjects.",
        )
    return tuple(case for case in cases if case.subject in spec.subjects)


def _others(cases: Sequence[CaseFiles], findings: Sequence[Finding], spec: InputSpec) -> dict[str, str]:
    """Case to subject of those that the recipe leaves out, cases that could not be found whole among them.

    Of these there is but the id: it counts where the ids of all others tell their subjects.
    """
    if spec.subjects is None:
        return {}
    found = {case.case: case.subject for case in cases}
    if all(_subject_of(case, spec) == subject for case, subject in found.items()):
        broken = {finding.case for finding in findings if finding.case is not None} - found.keys()
        found |= {case: _subject_of(case, spec) for case in broken}
    return {case: subject for case, subject in sorted(found.items()) if subject not in spec.subjects}


def open_cohort(spec: InputSpec, root: Path) -> tuple[LayoutSpec, Cohort, list[Finding]]:
    """Find all cases; faults stop here, or their cases and masks are dropped where the recipe says so.

    Returns
    -------
    layout, cohort
    dropped : list of Finding
        Why cases and masks were left out.
    """
    layout, scan = scan_cohort(spec, root)
    errors = [finding for finding in scan.findings if finding.level == "error"]
    cohort = _without_faults(scan.cohort, errors, spec)
    if not cohort.cases:
        raise InputError(
            f"no case was found (layout {cohort.layout}).",
            file=root,
            remedy="Check the path; `lesionsynth check` lists what is missing.",
        )
    return layout, cohort, errors


def _without_faults(cohort: Cohort, errors: list[Finding], spec: InputSpec) -> Cohort:
    """A cohort without what is faulty; an error where the recipe does not say that it may be dropped."""
    if errors and spec.on_bad_case == "error":
        raise too_many_faults(errors)
    bad = {finding.case for finding in errors}
    return replace(
        cohort,
        cases=tuple(c for c in cohort.cases if c.name not in bad),
        masks=tuple(m for m in cohort.masks if m.name not in bad),
    )


def masks_alone(spec: InputSpec, root: Path) -> Cohort | None:
    """A folder of lesion masks that is no data set: it has shapes to learn, and no case.

    None where the recipe names no masks, or a layout is given or recognises the folder.
    """
    if spec.masks is None or isinstance(spec.layout, LayoutSpec) or not root.is_dir():
        return None
    models = (model for model in registry.kinds("layouts").values() if issubclass(model, LayoutSpec))
    if any(model.recognises(root) for model in models):
        return None
    labels = LabelTable({"background": 0, "lesion": 1}, {"background": "background", "lesion": "lesion"})
    masks = tuple(
        replace(mask, subject=_subject_of(mask.subject, spec)) for mask in _masks(spec, root.absolute(), {})
    )
    cohort = Cohort(root.absolute(), "masks", (), labels, (), masks)
    return _without_faults(cohort, list(mask_faults(masks)), spec)


def _subject_of(name: str, spec: InputSpec) -> str:
    """The person of a mask, by the recipe's rule, or less a session."""
    by_rule = re.match(spec.subject, name) if spec.subject is not None else None
    return by_rule.group(1) if by_rule and by_rule.group(1) else _without_session(name)


def too_many_faults(errors: list[Finding]) -> InputError:
    """One error for several findings."""
    first = errors[0]
    more = f" {len(errors) - 1} more fault(s): `lesionsynth check` lists all." if len(errors) > 1 else ""
    remedy = f"{first.cure}{more} `--set input.on_bad_case=drop` goes on without such cases."
    return InputError(first.fault, case=first.case, file=first.file, remedy=remedy)


def _read_splits(path: Path, left_out: Collection[str | None]) -> tuple[Split, ...] | None:
    """Folds of the input, without the cases that have faults."""
    if not path.is_file():
        return None
    try:
        folds = [(fold["train"], fold["val"]) for fold in read_json(path)]
        if not folds or not all(isinstance(part, list) for fold in folds for part in fold):
            raise TypeError
    except (TypeError, KeyError):
        raise InputError(
            'should be a list of {"train": [...], "val": [...]}.', file=path, remedy="Correct or remove it."
        ) from None
    return tuple(
        Split(*(tuple(str(case) for case in part if str(case) not in left_out) for part in fold))
        for fold in folds
    )


def _with_roles(cohort: Cohort, given: dict[str, Role]) -> LabelTable:
    values = cohort.labels.values
    unknown = sorted(set(given) - set(values))
    if unknown:
        raise InputError(
            f"input.roles names the label {unknown[0]!r}; the data set has {', '.join(values)}.",
            file=cohort.root,
        )
    roles = {**cohort.labels.roles, **given}
    unclear = [name for name in values if name not in roles]
    if unclear:
        raise InputError(
            f"it is not clear what the label {unclear[0]!r} means.",
            file=cohort.root,
            remedy=f"Say it in the recipe: `input: {{roles: {{{unclear[0]}: lesion}}}}` (or organ, "
            "protected, ignore, background).",
        )
    wrong = [name for name, value in values.items() if value == 0 and roles[name] != "background"]
    if wrong:
        raise InputError(
            f"the label {wrong[0]!r} has the value 0, which is the background, and the role "
            f"{roles[wrong[0]]}.",
            file=cohort.root,
            remedy="Correct the labels of the data set, or `input.roles`.",
        )
    if "lesion" not in roles.values():
        raise InputError(
            f"no label is a lesion; the data set has {', '.join(values)}.",
            file=cohort.root,
            remedy="Say which is under `input.roles`.",
        )
    return LabelTable(values, roles)


def _with_subject(case: CaseFiles, spec: InputSpec) -> CaseFiles:
    if spec.subject is not None:
        match = re.fullmatch(spec.subject, case.case) or re.match(spec.subject, case.case)
        if match is None or not match.group(1):
            raise InputError(
                f"input.subject ({spec.subject}) finds no subject in the case id.",
                case=case.case,
                file=case.label,
            )
        return replace(case, subject=match.group(1))
    return replace(case, subject=_without_session(case.subject))


def people_of(names: Iterable[str], spec: InputSpec, cohort: Cohort) -> set[str]:
    """Everybody that names of another reading of the data may stand for: themselves, and by the rules here.

    A model may have been trained where case ids, or masks, were taken for subjects.
    """
    by_case = {**cohort.excluded, **{case.case: case.subject for case in cohort.cases}}
    found = set()
    for name in names:
        by_rule = re.match(spec.subject, name) if spec.subject is not None else None
        found |= {name, by_case.get(name, name), _without_session(name)}
        found |= {by_rule.group(1)} if by_rule and by_rule.group(1) else set()
    return found


def _without_session(name: str) -> str:
    person = _PERSON.fullmatch(name)
    return (person.group(1) or person.group(2)) if person else name


def _masks(spec: InputSpec, root: Path, by_case: Mapping[str, str]) -> tuple[MaskFile, ...]:
    """Masks by the recipe's pattern. One named like a case or session belongs to that case's subject.

    `by_case` is case to subject.
    """
    if spec.masks is None:
        return ()
    pattern = spec.masks.path
    before, after = pattern.split("{subject}", 1)
    expression = re.compile(
        f"{re.escape(before)}(?P<s>[^/]+){re.escape(after).replace(re.escape('{subject}'), '(?P=s)')}"
    )
    folder = root / before.rpartition("/")[0]  # an absolute path stays as it is
    subjects = set(by_case.values())
    found = []
    for path in sorted(folder.rglob("*.nii*")):
        name = path.as_posix() if Path(pattern).is_absolute() else path.relative_to(root).as_posix()
        match = expression.fullmatch(name)
        if match is None or match.group("s").startswith(".") or not path.is_file():
            continue
        named = match.group("s")
        by_rule = re.match(spec.subject, named) if spec.subject is not None else None
        candidates = (by_case.get(named), _without_session(named), by_rule and by_rule.group(1))
        found.append(MaskFile(next((c for c in candidates if c in subjects), named), path, named))
    if not found:
        raise InputError(
            f"input.masks.path ({pattern}) finds no file.",
            file=root,
            remedy="Give the pattern of your masks, relative to the input: --set input.masks.path=...",
        )
    return tuple(sorted(found, key=lambda mask: (mask.subject, str(mask.path))))
