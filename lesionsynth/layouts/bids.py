"""BIDS: raw data sets with derivatives, and the derivatives that are written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from lesionsynth.domain.case import CaseFiles, Cohort, LabelTable
from lesionsynth.domain.finding import Finding
from lesionsynth.domain.roles import guess_roles
from lesionsynth.errors import InputError
from lesionsynth.layouts.bids_choice import (
    common_channels,
    is_label,
    may_be_lesions,
    of_other_contrast,
    of_two_sites,
    pick,
    says_lesion,
)
from lesionsynth.layouts.bids_describe import about_input, describe, wrote_it
from lesionsynth.layouts.bids_files import BidsFile, find_files, looks_like_one
from lesionsynth.layouts.bids_labels import BINARY, label_values
from lesionsynth.layouts.bids_names import (
    Selector,
    case_id,
    channel_names,
    copied,
    parse,
    stem_of,
)
from lesionsynth.layouts.pattern import TABLE, Pattern
from lesionsynth.plugins.contracts import LayoutSpec, Scan
from lesionsynth.plugins.registry import register


@register("layouts")
class Bids(LayoutSpec):
    """BIDS: images under sub-*/[ses-*/], lesion masks beside them or in derivatives; a case a session."""

    kind: Literal["bids"] = "bids"
    channels: dict[str, str] = Field(default_factory=dict)
    """Channel name to a file name without its subject, such as FLAIR, acq-3d_T1w, or with a folder before it
    derivatives/prep/desc-preproc_T1w. Where empty: every suffix that most cases with a mask have, but for
    series of volumes."""
    mask: str | None = None
    """The same for the lesion masks, such as label-lesion_mask or derivatives/manual/dseg. Otherwise the one
    whose name says lesion (stroke, tumor, wmh, ...)."""
    labels: dict[str, Annotated[int, Field(ge=0, le=65535)]] = Field(default_factory=dict)
    """Label names and values. Where empty: background and lesion of a mask, those of dseg.tsv of a dseg."""
    participants: list[str] = Field(default_factory=list)
    """Only these participants, such as 01 or sub-01; all where empty."""
    sessions: list[str] = Field(default_factory=list)
    """Only these sessions."""
    skull_stripped: bool = False
    """What the sidecars of an output say of images whose own do not say it; BIDS asks for it."""

    @field_validator("channels")
    @classmethod
    def _channels_can_be_read(cls, value: dict[str, str]) -> dict[str, str]:
        for text in value.values():
            Selector.parse(text)
        return value

    @field_validator("mask")
    @classmethod
    def _mask_can_be_read(cls, value: str | None) -> str | None:
        if value is not None:
            Selector.parse(value)
        return value

    @field_validator("labels")
    @classmethod
    def _values_differ(cls, value: dict[str, int]) -> dict[str, int]:
        if len(set(value.values())) < len(value):
            raise ValueError("two labels have the same value")
        return value

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether there are images below sub-* folders whose names begin with the subject."""
        return looks_like_one(root)

    def scan(self, root: Path) -> Scan:
        """Find the cases: by the table of an output of ours, else by the names of the files."""
        about = about_input(root)
        by_table = (root / TABLE).is_file() and wrote_it(about["description"])
        if by_table and not (self.channels or self.mask):
            channels, cases, findings = self._from_table(root)
        else:
            channels, cases, findings = self._from_names(root)
        values = self.labels or label_values(cases, root)
        endings = {c.label.suffix for c in cases}
        cohort = Cohort(
            root=root,
            layout=self.kind,
            channels=channels,
            labels=LabelTable(values, guess_roles(values)),
            cases=tuple(sorted(cases, key=lambda c: c.case)),
            file_ending=".nii" if endings == {".nii"} else ".nii.gz",
            extra=about,
        )
        return Scan(cohort, tuple(findings))

    def _from_table(self, root: Path) -> tuple[tuple[str, ...], list[CaseFiles], list[Finding]]:
        scan = Pattern(table=TABLE).scan(root)
        cases = []
        there: set[str] = set()
        for case in scan.cohort.cases:
            paths = (*case.images, case.label)
            name = parse(case.label.name)
            if name is None or any(parse(p.name) is None or ".." in p.parts for p in paths):
                raise InputError(
                    "names files that are not as this layout writes them.",
                    case=case.case,
                    file=root / TABLE,
                    remedy="Remove the table: the files are found by their names then.",
                )
            there.add(name.subject)
            if self._is_wanted(name.subject, name.session):
                cases.append(case)
        self._require_participants(there, root)
        listed = {case.label for case in scan.cohort.cases}
        findings = [
            Finding(
                "error",
                f"the lesion mask is not in {TABLE}, which lists the cases.",
                f"Add it there, or remove {TABLE}: the files are found by their names then.",
                case_id(file.name),
                str(file.path),
            )
            for file in find_files(root)
            if is_label(file) and may_be_lesions(file) and file.path not in listed
        ]
        return scan.cohort.channels, cases, [*scan.findings, *findings]

    def _from_names(self, root: Path) -> tuple[tuple[str, ...], list[CaseFiles], list[Finding]]:
        groups: dict[str, list[BidsFile]] = {}
        findings = []
        for file in find_files(root):
            if not self._is_wanted(file.name.subject, file.name.session):
                continue
            groups.setdefault(case_id(file.name), []).append(file)
            if file.misplaced:
                fault = "lies in the folder of another subject or session than its name says."
                findings.append(
                    Finding("error", fault, "Move or rename it.", case_id(file.name), str(file.path))
                )
        self._require_participants({files[0].name.subject for files in groups.values()}, root)
        # Where some masks say that they are of lesions, those that say nothing are of something else.
        said = any(is_label(file) and says_lesion(file) for files in groups.values() for file in files)
        labels = {case: self._labels_of(files, said) for case, files in groups.items()}
        wanted = {name: Selector.parse(text) for name, text in self.channels.items()}
        if not wanted:
            labelled = [files for case, files in groups.items() if labels[case]]
            if groups and not labelled:
                raise _no_mask(groups.values(), root)
            wanted, more = common_channels(labelled, root)
            findings += more
        findings += of_two_sites(groups)
        chosen: dict[str, dict[str, BidsFile]] = {}
        cases = []
        for case, files in groups.items():
            space = labels[case][0].name.entities.get("space") if labels[case] else None
            found = {
                name: pick(files, selector, space, bool(self.channels)) for name, selector in wanted.items()
            }
            if not labels[case] and not any(found.values()):
                continue  # no session of interest
            faults = [*self._faults_of_mask(case, files, labels[case]), *_faults_of_channels(case, found)]
            findings += faults
            if not faults:
                chosen[case] = {name: one[0] for name, one in found.items()}
                images = tuple(one[0].path for one in found.values())
                subject = f"sub-{files[0].name.subject}"
                cases.append(CaseFiles(case, subject, images, labels[case][0].path))
        return tuple(wanted), cases, findings if self.channels else [*findings, *of_other_contrast(chosen)]

    def _is_wanted(self, subject: str, session: str) -> bool:
        subjects = {name.removeprefix("sub-") for name in self.participants}
        sessions = {name.removeprefix("ses-") for name in self.sessions}
        return (not subjects or subject in subjects) and (not sessions or session in sessions)

    def _require_participants(self, there: set[str], root: Path) -> None:
        """Refuse to go on without one who was asked for."""
        if missing := [name for name in self.participants if name.removeprefix("sub-") not in there]:
            raise InputError(
                f"there are no images of the participant {missing[0]}, who is asked for.",
                file=root,
                remedy="Correct `input.layout.participants` (--participant-label).",
            )

    def _labels_of(self, files: Sequence[BidsFile], said: bool) -> list[BidsFile]:
        """Lesion masks of a case: one, where nothing is wrong; `said`: only those whose name says lesion."""
        if self.mask is not None:
            return pick(files, Selector.parse(self.mask), None, exact=True)
        labels = [file for file in files if is_label(file)]
        return [file for file in labels if (says_lesion(file) if said else may_be_lesions(file))]

    def _faults_of_mask(
        self, case: str, files: Sequence[BidsFile], labels: Sequence[BidsFile]
    ) -> Iterator[Finding]:
        if len(labels) > 1:
            yield _several("lesion mask", case, labels, "input.layout.mask")
        if not labels:
            others = sorted({file.name.text for file in files if is_label(file)})
            there = (
                f" Name one of {', '.join(others)} under `input.layout.mask` if it is one." if others else ""
            )
            cure = f"Add the mask, an empty one for a control, or remove the case.{there}"
            yield Finding("error", "there is no lesion mask.", cure, case, str(files[0].path.parent))
        yield from _broken_links("the lesion mask", case, labels)

    def image_path(self, files: CaseFiles, case: str, channel: int, cohort: Cohort) -> Path:
        """sub-*/[ses-*/]<datatype>/, with the input's name; copies have desc-synth<number>."""
        if cohort.layout == self.kind:
            return _own_path(files.images[channel], "anat", case, files)
        datatype, text = channel_names(cohort.channels)[channel]
        return _new_path(files, datatype, text, case, cohort)

    def label_path(self, files: CaseFiles, case: str, cohort: Cohort) -> Path:
        """Beside the first channel where the input has it in no datatype's folder."""
        if cohort.layout == self.kind:
            return _own_path(files.label, _datatype_of(files.images[0]) or "anat", case, files)
        text = "label-lesion_mask" if dict(cohort.labels.values) == BINARY else "dseg"
        return _new_path(files, channel_names(cohort.channels)[0][0], text, case, cohort)

    def description(self, cohort: Cohort, cases: Sequence[tuple[str, CaseFiles]]) -> dict[str, bytes]:
        """What BIDS asks for (description, README, sidecars, tables), and a table of the cases."""
        paths = {}
        for case, files in cases:
            images = [self.image_path(files, case, k, cohort) for k in range(len(cohort.channels))]
            paths[case] = [*images, self.label_path(files, case, cohort)]
        return describe(cohort, cases, paths, self.kind, self.skull_stripped)


def _no_mask(groups: Iterable[Sequence[BidsFile]], root: Path) -> InputError:
    there = sorted({file.name.text for files in groups for file in files if is_label(file)})
    return InputError(
        f"no lesion mask was found; label maps there are: {', '.join(there[:5]) or 'none'}.",
        file=root,
        remedy="Masks lie in sub-*/ folders of the input or below derivatives/<name>. Name "
        f"them under `input.layout`: {{kind: bids, mask: {there[0] if there else 'label-lesion_mask'}}}.",
    )


def _faults_of_channels(case: str, found: dict[str, list[BidsFile]]) -> Iterator[Finding]:
    before: list[list[BidsFile]] = []
    for name, files in found.items():
        if not files:
            cure = "Add the file, remove the case, or say under `input.layout.channels` which are wanted."
            yield Finding("error", f"there is no file of the channel {name}.", cure, case)
        if len(files) > 1:
            yield _several(f"channel {name}", case, files, f"input.layout.channels.{name}")
        if files and any(one and one[0].path.name == files[0].path.name for one in before):
            fault = f"the channel {name} has the file name of another."
            cure = "Rename one, or leave it out: an output could not hold both."
            yield Finding("error", fault, cure, case, str(files[0].path))
        before.append(files)
        yield from _broken_links(f"the file of the channel {name}", case, files)


def _several(what: str, case: str, files: Sequence[BidsFile], key: str) -> Finding:
    names = ", ".join(f"{f.tree}/{f.name.text}" if f.tree else f.name.text for f in files)
    fault = f"{len(files)} files could be the {what}: {names}."
    return Finding(
        "error", fault, f"Say which under `{key}`, or remove the others.", case, str(files[0].path)
    )


def _broken_links(what: str, case: str, files: Sequence[BidsFile]) -> Iterator[Finding]:
    for file in files:
        if not file.path.is_file():
            fault, cure = f"{what} is a link to nowhere.", "Fetch its content (datalad get, git annex get)."
            yield Finding("error", fault, cure, case, str(file.path))


def _datatype_of(path: Path) -> str:
    return "" if path.parent.name.startswith(("sub-", "ses-")) else path.parent.name


def _own_path(source: Path, datatype: str, case: str, files: CaseFiles) -> Path:
    return _folder(files) / (_datatype_of(source) or datatype) / copied(source.name, case, files.case)


def _new_path(files: CaseFiles, datatype: str, text: str, case: str, cohort: Cohort) -> Path:
    folder = _folder(files)
    name = f"{'_'.join([*folder.parts, text])}{cohort.file_ending}"
    return folder / datatype / copied(name, case, files.case)


def _folder(files: CaseFiles) -> Path:
    subject, session = stem_of(files.case, files.subject)
    return Path(f"sub-{subject}") / (f"ses-{session}" if session else "")
