"""Data sets of the Liver Tumor Segmentation challenge."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from lesionsynth.domain.case import CaseFiles, Cohort, LabelTable
from lesionsynth.domain.finding import Finding
from lesionsynth.domain.roles import guess_roles
from lesionsynth.layouts.tree import Labels, cannot_hold, folders_below, require_roles
from lesionsynth.nifti import ending_of
from lesionsynth.plugins.contracts import LayoutSpec, Scan
from lesionsynth.plugins.registry import register

_NAME = re.compile(r"(volume|segmentation)-([A-Za-z0-9][A-Za-z0-9._+-]*?)\.nii(?:\.gz)?")
_Found = dict[str, list[Path]]


@register("layouts")
class Lits(LayoutSpec):
    """LiTS: volume-<case>.nii and segmentation-<case>.nii, in one folder or in several, however deep."""

    kind: Literal["lits"] = "lits"
    channel: str = "CT"
    """Name of the one channel."""
    labels: Labels = Field(default_factory=lambda: {"background": 0, "liver": 1, "tumour": 2})
    """Label names and values. Where a tumour is removed, the liver comes back."""

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether there is a volume with its segmentation."""
        volumes, segmentations = _find(root)
        return bool(volumes.keys() & segmentations.keys())

    def scan(self, root: Path) -> Scan:
        """Pair volumes and segmentations by what follows in their names; it is the case."""
        volumes, segmentations = _find(root)
        findings, cases = [], []
        for name in sorted({*volumes, *segmentations}):
            faults = [*_faults(name, "volume", volumes), *_faults(name, "segmentation", segmentations)]
            findings += faults
            if not faults:
                cases.append(CaseFiles(name, name, (volumes[name][0],), segmentations[name][0]))
        endings = {ending_of(case.label) for case in cases}
        cohort = Cohort(
            root=root,
            layout=self.kind,
            channels=(self.channel,),
            labels=LabelTable(self.labels, guess_roles(self.labels)),
            cases=tuple(cases),
            file_ending=".nii" if endings == {".nii"} else ".nii.gz",
        )
        return Scan(cohort, tuple(findings))

    def image_path(self, files: CaseFiles, case: str, channel: int, cohort: Cohort) -> Path:
        """volume-<case> in the folder of the host's."""
        require_roles(self.kind, self.labels, cohort)
        if cohort.channels != (self.channel,):
            named = f"{', '.join(cohort.channels)}, not {self.channel}"
            raise cannot_hold(self.kind, cohort, f"its channels are {named}.")
        return self._path("volume", files.images[0], case, cohort)

    def label_path(self, files: CaseFiles, case: str, cohort: Cohort) -> Path:
        """segmentation-<case> in the folder of the host's."""
        return self._path("segmentation", files.label, case, cohort)

    def _path(self, what: str, of_host: Path, case: str, cohort: Cohort) -> Path:
        if cohort.layout != self.kind:
            return Path(f"{what}-{case}{cohort.file_ending}")
        return of_host.parent.relative_to(cohort.root) / f"{what}-{case}{ending_of(of_host)}"

    def description(self, cohort: Cohort, cases: Sequence[tuple[str, CaseFiles]]) -> dict[str, bytes]:
        """Nothing: names say all."""
        return {}


def _find(root: Path) -> tuple[_Found, _Found]:
    """Volumes and segmentations by what follows in their names."""
    found: dict[str, _Found] = {"volume": {}, "segmentation": {}}
    for folder, names in folders_below(root):
        for name in names:
            if match := _NAME.fullmatch(name):
                found[match.group(1)].setdefault(match.group(2), []).append(folder / name)
    return found["volume"], found["segmentation"]


def _faults(name: str, what: str, found: _Found) -> list[Finding]:
    paths = found.get(name, [])
    if not paths:
        return [Finding("error", f"the {what} is missing.", f"Add {what}-{name}, or remove the case.", name)]
    return [
        Finding(
            "error",
            f"the {what} is there again, as {paths[0]} too.",
            "Remove one of the two.",
            name,
            str(path),
        )
        for path in paths[1:]
    ]
