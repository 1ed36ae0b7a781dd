"""Open the input: find its layout, its cases, its subjects, and what its labels mean."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from lesionsynth.domain.case import CaseFiles, Cohort, LabelTable, MaskFile, Role, Split
from lesionsynth.domain.finding import Finding
from lesionsynth.errors import InputError
from lesionsynth.json_file import read_json
from lesionsynth.plugins import registry
from lesionsynth.plugins.contracts import LayoutSpec, Scan
from lesionsynth.recipe.model import InputSpec

SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
SPLITS = "splits_final.json"
_SYNTHETIC = re.compile(r"__syn\d+$")
_SESSION = re.compile(
    r"(?!sub-[0-9a-z]+$)"  # the subject of BIDS, whatever its label
    r"(.+?)(?:[_-](?:ses(?:sion)?|tp|timepoint|visit|scan)[-_]?\d+)$",
    re.IGNORECASE,
)


def find_layout(spec: InputSpec, root: Path) -> LayoutSpec:
    """The recipe's layout, or the one that recognises the input."""
    if isinstance(spec.layout, LayoutSpec):
        return spec.layout
    if not root.is_dir():
        raise InputError("the input folder does not exist.", file=root)
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
    if not root.is_dir():
        raise InputError("the input folder does not exist.", file=root)
    scan = layout.scan(root)
    cases = tuple(_with_subject(case, spec) for case in scan.cohort.cases)
    findings = list(scan.findings)
    _check_words(scan.cohort)
    for case in cases:
        findings += _check_names(case)
    findings += _shared_files(cases)
    faulty = {finding.case for finding in findings if finding.level == "error"}
    cohort = replace(
        scan.cohort,
        labels=_with_roles(scan.cohort, spec.roles),
        cases=cases,
        masks=_masks(spec, root, cases),
        splits=_read_splits(root / SPLITS, faulty),
        resample=spec.resample,
    )
    return layout, Scan(cohort, tuple(findings))


def open_cohort(spec: InputSpec, root: Path) -> tuple[LayoutSpec, Cohort, list[Finding]]:
    """Find all cases; faults stop here, or their cases are dropped where the recipe says so.

    Returns
    -------
    layout, cohort
    dropped : list of Finding
        Why cases were left out.
    """
    layout, scan = scan_cohort(spec, root)
    errors = [finding for finding in scan.findings if finding.level == "error"]
    if errors and spec.on_bad_case == "error":
        raise too_many_faults(errors)
    bad = {finding.case for finding in errors}
    cohort = replace(scan.cohort, cases=tuple(c for c in scan.cohort.cases if c.case not in bad))
    if not cohort.cases:
        raise InputError(
            f"no case was found (layout {cohort.layout}).",
            file=root,
            remedy="Check the path; `lesionsynth check` lists what is missing.",
        )
    return layout, cohort, errors


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
    return Cohort(root.absolute(), "masks", (), labels, (), _masks(spec, root.absolute(), ()))


def too_many_faults(errors: list[Finding]) -> InputError:
    """One error for several findings."""
    first = errors[0]
    more = f" {len(errors) - 1} more fault(s): `lesionsynth check` lists all." if len(errors) > 1 else ""
    remedy = f"{first.cure}{more} `--set input.on_bad_case=drop` goes on without such cases."
    return InputError(first.fault, case=first.case, file=first.file, remedy=remedy)


def _check_words(cohort: Cohort) -> None:
    """Refuse names of channels and labels that would break a line of a message or of a table."""
    for what, names in (("channel", cohort.channels), ("label", cohort.labels.values)):
        for name in names:
            if not name.strip() or not name.isprintable():
                raise InputError(
                    f"the name {name!r} of a {what} is empty or cannot be printed.",
                    file=cohort.root,
                    remedy="Correct it where it is given: dataset.json, the table or the recipe.",
                )


def _shared_files(cases: Sequence[CaseFiles]) -> Iterator[Finding]:
    """Files that stand for two things: a label map that is an image too, an image of two cases."""
    owner: dict[Path, str] = {}
    for case in cases:
        for path in dict.fromkeys((*case.images, case.label)):
            other = owner.setdefault(path, case.case)
            if other != case.case:
                fault = f"belongs to case {other} too: one scan under two names leaks between folds."
                yield Finding("error", fault, "Remove one of the two.", case.case, str(path))
        if case.label in case.images:
            fault = "is a channel and the label map at once."
            yield Finding("error", fault, "Correct one of the two.", case.case, str(case.label))


def _check_names(case: CaseFiles) -> Iterator[Finding]:
    """What is wrong with the names that output files and folds are made of."""
    for what, name in (("case id", case.case), ("subject", case.subject)):
        if not SAFE_NAME.fullmatch(name):
            yield Finding(
                "error",
                f"the {what} {name!r} cannot be a file name.",
                "Use letters, digits, dot, plus, minus and underscore.",
                case.case,
                str(case.label),
            )
    if _SYNTHETIC.search(case.case):
        yield Finding(
            "error",
            "is a synthetic case of an earlier run: who took part in it is not known here, so it could leak.",
            "Start from the original cases.",
            case.case,
            str(case.label),
        )


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


def _without_session(name: str) -> str:
    session = _SESSION.fullmatch(name)
    return session.group(1) if session else name


def _masks(spec: InputSpec, root: Path, cases: Sequence[CaseFiles]) -> tuple[MaskFile, ...]:
    """Masks by the recipe's pattern. One named like a case or session belongs to that case's subject."""
    if spec.masks is None:
        return ()
    pattern = spec.masks.path
    before, after = pattern.split("{subject}", 1)
    expression = re.compile(
        f"{re.escape(before)}(?P<s>[^/]+){re.escape(after).replace(re.escape('{subject}'), '(?P=s)')}"
    )
    folder = root / before.rpartition("/")[0]  # an absolute path stays as it is
    subjects = {case.subject for case in cases}
    by_case = {case.case: case.subject for case in cases}
    found = []
    for path in sorted(folder.rglob("*.nii*")):
        name = path.as_posix() if Path(pattern).is_absolute() else path.relative_to(root).as_posix()
        match = expression.fullmatch(name)
        if match is None or match.group("s").startswith(".") or not path.is_file():
            continue
        named = match.group("s")
        by_rule = re.match(spec.subject, named) if spec.subject is not None else None
        candidates = (by_case.get(named), _without_session(named), by_rule and by_rule.group(1))
        found.append(MaskFile(next((c for c in candidates if c in subjects), named), path))
    if not found:
        raise InputError(
            f"input.masks.path ({pattern}) finds no file.",
            file=root,
            remedy="Give the pattern of your masks, relative to the input: --set input.masks.path=...",
        )
    return tuple(sorted(found, key=lambda mask: (mask.subject, str(mask.path))))
