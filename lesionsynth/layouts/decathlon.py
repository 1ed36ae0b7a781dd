"""Data sets of the Medical Segmentation Decathlon."""

from __future__ import annotations

import json
import os.path
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from lesionsynth.domain.case import CaseFiles, Cohort, LabelTable
from lesionsynth.domain.finding import Finding
from lesionsynth.domain.roles import guess_roles
from lesionsynth.errors import InputError
from lesionsynth.layouts.dataset_json import (
    DESCRIPTION,
    channels_of,
    has_whole_images,
    labels_of,
    read_description,
    visible,
)
from lesionsynth.nifti import FILE_ENDINGS, ending_of
from lesionsynth.plugins.contracts import LayoutSpec, Scan
from lesionsynth.plugins.registry import register


@register("layouts")
class Decathlon(LayoutSpec):
    """Medical Segmentation Decathlon: imagesTr/<case>.nii.gz, 4-D with several channels, and labelsTr."""

    kind: Literal["decathlon"] = "decathlon"

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether there are a dataset.json and images that have the names of their label maps."""
        return (root / DESCRIPTION).is_file() and has_whole_images(root)

    def scan(self, root: Path) -> Scan:
        """Find the training cases, by the list of dataset.json where it has one."""
        description = read_description(root)
        channels, values = channels_of(description, root), labels_of(description, root)
        listed = "training" in description
        pairs = _listed(description["training"], root) if listed else _found(root)
        findings = _unlisted(root, pairs) if listed else []
        cases: dict[str, CaseFiles] = {}
        for image, label in pairs:
            name = _case_of(image)
            missing = [
                (what, path)
                for what, path in (("image", image), ("label map", label))
                if not os.path.isfile(path)
            ]
            findings += [
                Finding(
                    "error", f"the {what} is missing.", "Add the file or remove the case.", name, str(path)
                )
                for what, path in missing
            ]
            if name in cases:
                findings.append(
                    Finding("error", "the id occurs twice.", "Remove one of the two.", name, str(image))
                )
            elif not missing:
                cases[name] = CaseFiles(name, name, (image,) * len(channels), label)
        endings = {ending_of(case.label) for case in cases.values()}
        cohort = Cohort(
            root=root,
            layout=self.kind,
            channels=channels,
            labels=LabelTable(values, guess_roles(values)),
            cases=tuple(cases[name] for name in sorted(cases)),
            file_ending=".nii" if endings == {".nii"} else ".nii.gz",
            extra=description,
        )
        return Scan(cohort, tuple(findings))

    def image_path(self, files: CaseFiles, case: str, channel: int, cohort: Cohort) -> Path:
        """imagesTr/<case>, for all channels."""
        return Path("imagesTr") / f"{case}{self._ending(files.images[0], cohort)}"

    def label_path(self, files: CaseFiles, case: str, cohort: Cohort) -> Path:
        """labelsTr/<case>."""
        return Path("labelsTr") / f"{case}{self._ending(files.label, cohort)}"

    def _ending(self, path: Path, cohort: Cohort) -> str:
        return ending_of(path) if cohort.layout == self.kind else cohort.file_ending

    def description(self, cohort: Cohort, cases: Sequence[tuple[str, CaseFiles]]) -> dict[str, bytes]:
        """dataset.json, with whatever else the input's said. Images without labels are not in the output."""
        own = dict(cohort.extra) if cohort.layout == self.kind else {}
        described: dict[str, Any] = {
            **own,
            "tensorImageSize": "3D" if len(cohort.channels) == 1 else "4D",
            "modality": {str(k): name for k, name in enumerate(cohort.channels)},
            "labels": {str(v): n for n, v in sorted(cohort.labels.values.items(), key=lambda item: item[1])},
            "numTraining": len(cases),
            "numTest": 0,
            "training": [
                {
                    "image": f"./{self.image_path(files, case, 0, cohort).as_posix()}",
                    "label": f"./{self.label_path(files, case, cohort).as_posix()}",
                }
                for case, files in cases
            ],
            "test": [],
        }
        return {DESCRIPTION: (json.dumps(described, indent=2) + "\n").encode()}


def _case_of(path: Path) -> str:
    return path.name[: -len(ending_of(path))]


def _listed(entries: object, root: Path) -> list[tuple[Path, Path]]:
    """Image and label map of each entry of "training"; they must lie below the data set."""
    pairs = []
    for number, entry in enumerate(entries if isinstance(entries, list) else [entries]):
        image, label = (entry.get(key) if isinstance(entry, dict) else None for key in ("image", "label"))
        if not (isinstance(image, str) and isinstance(label, str) and _is_below(image) and _is_below(label)):
            raise InputError(
                f'"training" entry {number} should be like {{"image": "./imagesTr/a.nii.gz", "label": '
                f'"./labelsTr/a.nii.gz"}}, files below the data set; got {str(entry)[:200]!r}.',
                file=root / DESCRIPTION,
            )
        pairs.append((root / image, root / label))
    return pairs


def _is_below(text: str) -> bool:
    path = PurePosixPath(text)
    return (
        not path.is_absolute() and ".." not in path.parts and "\0" not in text and text.endswith(FILE_ENDINGS)
    )


def _present(root: Path) -> list[Path]:
    """Files of imagesTr and labelsTr."""
    return [
        path
        for folder in ("imagesTr", "labelsTr")
        for ending in FILE_ENDINGS
        for path in visible(root / folder, f"*{ending}")
    ]


def _found(root: Path) -> list[tuple[Path, Path]]:
    """Images and label maps of the same name, whether both are there or not."""
    names = sorted({path.name for path in _present(root)})
    return [(root / "imagesTr" / name, root / "labelsTr" / name) for name in names]


def _unlisted(root: Path, pairs: Sequence[tuple[Path, Path]]) -> list[Finding]:
    """Files that are there and that the description does not list: they would not be in the output."""
    listed = {path for pair in pairs for path in pair}
    return [
        Finding(
            "warning",
            f'the "training" list of {DESCRIPTION} does not name this file; it is not used.',
            "Name it there, or remove the file.",
            _case_of(path),
            str(path),
        )
        for path in _present(root)
        if path not in listed
    ]
