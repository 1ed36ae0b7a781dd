"""Open the input: find its layout, its cases, its subjects, and what its labels mean."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from lesionsynth.domain.case import CaseFiles, Cohort, LabelTable, MaskFile, Role
from lesionsynth.domain.finding import Finding
from lesionsynth.errors import InputError
from lesionsynth.plugins import registry
from lesionsynth.plugins.contracts import LayoutSpec, Scan
from lesionsynth.recipe.model import InputSpec

SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_SESSION = re.compile(r"(.+?)(?:[_-](?:ses(?:sion)?|tp|timepoint|visit|scan)[-_]?\d+)$", re.IGNORECASE)


def find_layout(spec: InputSpec, root: Path) -> LayoutSpec:
    """The recipe's layout, or the one that recognises the input."""
    if isinstance(spec.layout, LayoutSpec):
        return spec.layout
    if not root.is_dir():
        raise InputError("the input folder does not exist.", file=root)
    for kind in registry.kinds("layouts").values():
        if issubclass(kind, LayoutSpec) and kind.recognises(root):
            found: LayoutSpec = kind()
            return found
    raise InputError(
        "no known layout was recognised: an nnU-Net raw data set has a dataset.json and a folder labelsTr.",
        file=root,
        remedy="Describe the files under `input.layout` with kind pattern; `lesionsynth init` writes an example.",
    )


def scan_cohort(spec: InputSpec, root: Path) -> tuple[LayoutSpec, Scan]:
    """Find all cases and masks, with everything that is wrong with them as findings.

    Raises
    ------
    InputError
        If nothing can be read at all: no folder, no layout, no description, no role for a label.
    """
    layout = find_layout(spec, root)
    if not root.is_dir():
        raise InputError("the input folder does not exist.", file=root)
    scan = layout.scan(root)
    cohort = replace(
        scan.cohort,
        labels=_with_roles(scan.cohort, spec.roles),
        cases=tuple(_with_subject(case, spec) for case in scan.cohort.cases),
        masks=_masks(spec, root),
    )
    findings = list(scan.findings)
    for case in cohort.cases:
        for what, name in (("case id", case.case), ("subject", case.subject)):
            if not SAFE_NAME.fullmatch(name):
                findings.append(
                    Finding("error", f"the {what} {name!r} cannot be a file name.",
                            "Use letters, digits, dot, plus, minus and underscore.", case.case, str(case.label))
                )  # fmt: skip
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


def too_many_faults(errors: list[Finding]) -> InputError:
    """One error for several findings."""
    first = errors[0]
    more = f" {len(errors) - 1} more fault(s): `lesionsynth check` lists all." if len(errors) > 1 else ""
    remedy = f"{first.cure}{more} `--set input.on_bad_case=drop` goes on without such cases."
    return InputError(first.fault, case=first.case, file=first.file, remedy=remedy)


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
            remedy=f"Say it in the recipe: `input: {{roles: {{{unclear[0]}: lesion}}}}` (or organ, protected, "
            "ignore, background).",
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
    session = _SESSION.fullmatch(case.subject)
    return replace(case, subject=session.group(1)) if session else case


def _masks(spec: InputSpec, root: Path) -> tuple[MaskFile, ...]:
    if spec.masks is None:
        return ()
    before, after = spec.masks.path.split("{subject}", 1)
    expression = re.compile(
        f"{re.escape(before)}(?P<s>[^/]+){re.escape(after).replace(re.escape('{subject}'), '(?P=s)')}"
    )
    base = Path(spec.masks.path.split("{", 1)[0]).parent
    folder = base if base.is_absolute() else root / base
    found = {}
    for path in sorted(folder.rglob("*.nii*")):
        name = path.as_posix() if base.is_absolute() else path.relative_to(root).as_posix()
        match = expression.fullmatch(name)
        if match is not None:
            found[match.group("s")] = MaskFile(match.group("s"), path)
    if not found:
        raise InputError(f"input.masks.path ({spec.masks.path}) finds no file.", file=root)
    return tuple(found[subject] for subject in sorted(found))
