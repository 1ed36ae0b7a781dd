"""Data sets of the WMH Segmentation Challenge of 2017."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from lesionsynth.domain.case import CaseFiles, Cohort, LabelTable
from lesionsynth.domain.finding import Finding
from lesionsynth.domain.roles import guess_roles
from lesionsynth.layouts.tree import Labels, cannot_hold, folders_below, require_roles
from lesionsynth.plugins.contracts import LayoutSpec, Scan
from lesionsynth.plugins.registry import register

_FOLDER, _LABEL, _ENDING = "pre", "wmh.nii.gz", ".nii.gz"

_FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]


@register("layouts")
class Wmh2017(LayoutSpec):
    """WMH Segmentation Challenge: [<site>/]<id>/pre/FLAIR.nii.gz and T1.nii.gz, [<site>/]<id>/wmh.nii.gz."""

    kind: Literal["wmh2017"] = "wmh2017"
    channels: Annotated[tuple[_FileName, ...], Field(min_length=1)] = ("FLAIR", "T1")
    """Images in the folder pre, by their names."""
    labels: Labels = Field(default_factory=lambda: {"background": 0, "WMH": 1, "other pathology": 2})
    """Label names and values. Other pathology is protected: never a donor, never overwritten."""

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether there is a wmh.nii.gz with a folder pre beside it."""
        return any(
            _LABEL in names and (folder / _FOLDER).is_dir()
            for folder, names in folders_below(root)
            if folder != root
        )

    def scan(self, root: Path) -> Scan:
        """Find the cases; the folders down to a case, sites included, are its id."""
        findings = []
        cases: dict[str, CaseFiles] = {}
        for folder in self._folders(root):
            name = "_".join(folder.relative_to(root).parts)
            images = tuple(folder / _FOLDER / f"{channel}{_ENDING}" for channel in self.channels)
            label = folder / _LABEL
            missing = [path for path in (*images, label) if not path.is_file()]
            findings += [
                Finding(
                    "error", f"{path.name} is missing.", "Add the file or remove the case.", name, str(path)
                )
                for path in missing
            ]
            if name in cases:
                findings.append(
                    Finding("error", "the id occurs twice.", "Rename one of the folders.", name, str(folder))
                )
            elif not missing:
                cases[name] = CaseFiles(name, name, images, label)
        cohort = Cohort(
            root=root,
            layout=self.kind,
            channels=self.channels,
            labels=LabelTable(self.labels, guess_roles(self.labels)),
            cases=tuple(cases[name] for name in sorted(cases)),
            file_ending=_ENDING,
        )
        return Scan(cohort, tuple(findings))

    def _folders(self, root: Path) -> list[Path]:
        """Folders of cases, whole or not."""
        images = {f"{channel}{_ENDING}" for channel in self.channels}
        found = set()
        for folder, names in folders_below(root):
            if _LABEL in names:
                found.add(folder)
            if folder.name == _FOLDER and images & set(names):
                found.add(folder.parent)
        return sorted(found - {root})

    def image_path(self, files: CaseFiles, case: str, channel: int, cohort: Cohort) -> Path:
        """<folder>/pre/<channel>; the folder is the host's, with what the case is named beyond it."""
        require_roles(self.kind, self.labels, cohort)
        if cohort.channels != self.channels:
            named = f"{', '.join(cohort.channels)}, not {', '.join(self.channels)}"
            raise cannot_hold(self.kind, cohort, f"its channels are {named}.")
        return self._folder(files, case, cohort) / _FOLDER / f"{cohort.channels[channel]}{_ENDING}"

    def label_path(self, files: CaseFiles, case: str, cohort: Cohort) -> Path:
        """<folder>/wmh.nii.gz."""
        return self._folder(files, case, cohort) / _LABEL

    def _folder(self, files: CaseFiles, case: str, cohort: Cohort) -> Path:
        if cohort.layout != self.kind:
            return Path(case)
        of_host = files.label.parent.relative_to(cohort.root)
        return of_host.with_name(f"{of_host.name}{case.removeprefix(files.case)}")

    def description(self, cohort: Cohort, cases: Sequence[tuple[str, CaseFiles]]) -> dict[str, bytes]:
        """Nothing: names say all."""
        return {}
