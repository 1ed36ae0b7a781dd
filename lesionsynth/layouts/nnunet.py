"""nnU-Net v2 raw data sets (and v1, to read)."""

from __future__ import annotations

import json
import os.path
from collections.abc import Sequence
from pathlib import Path
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
from lesionsynth.nifti import FILE_ENDINGS
from lesionsynth.plugins.contracts import LayoutSpec, Scan
from lesionsynth.plugins.registry import register

_CHANNEL = "_[0-9][0-9][0-9][0-9]"


@register("layouts")
class NnUNet(LayoutSpec):
    """nnU-Net v2 raw: imagesTr/<case>_0000.nii.gz, labelsTr/<case>.nii.gz, dataset.json."""

    kind: Literal["nnunet"] = "nnunet"

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether there are a dataset.json and a folder labelsTr, and images are not the Decathlon's."""
        return (root / DESCRIPTION).is_file() and (root / "labelsTr").is_dir() and not has_whole_images(root)

    def scan(self, root: Path) -> Scan:
        """Find the training cases. The subject of a case is the case, until a recipe says otherwise."""
        description = read_description(root)
        channels, values = channels_of(description, root), labels_of(description, root)
        ending = description.get("file_ending", ".nii.gz")
        if ending not in FILE_ENDINGS:
            raise InputError(
                f"has file_ending {ending!r}; {' and '.join(FILE_ENDINGS)} are supported.",
                file=root / DESCRIPTION,
                remedy="Convert the images to NIfTI.",
            )
        findings: list[Finding] = []
        cases = []
        for name, images, label in _case_paths(root, description, ending, len(channels)):
            missing = [path for path in (*images, label) if not os.path.isfile(path)]
            for path in missing:
                what = "label map" if path == label else f"channel {channels[images.index(path)]}"
                findings.append(
                    Finding(
                        "error",
                        f"the {what} is missing.",
                        "Add the file or remove the case.",
                        name,
                        str(path),
                    )
                )
            if not missing:
                cases.append(CaseFiles(name, name, tuple(images), label))
        used = {path for case in cases for path in (*case.images, case.label)}
        findings += _of_other_endings(root, ending, used) + _unnamed_channels(root, channels, ending)
        cohort = Cohort(
            root=root,
            layout=self.kind,
            channels=channels,
            labels=LabelTable(values, guess_roles(values)),
            cases=tuple(sorted(cases, key=lambda c: c.case)),
            file_ending=ending,
            extra=description,
        )
        return Scan(cohort, tuple(findings))

    def image_path(self, files: CaseFiles, case: str, channel: int, cohort: Cohort) -> Path:
        """imagesTr/<case>_<channel>."""
        return Path("imagesTr") / f"{case}_{channel:04d}{cohort.file_ending}"

    def label_path(self, files: CaseFiles, case: str, cohort: Cohort) -> Path:
        """labelsTr/<case>."""
        return Path("labelsTr") / f"{case}{cohort.file_ending}"

    def description(self, cohort: Cohort, cases: Sequence[tuple[str, CaseFiles]]) -> dict[str, bytes]:
        """dataset.json, with whatever else the input's said."""
        own = dict(cohort.extra) if cohort.layout == self.kind else {}
        for key in ("numTraining", "numTest", "training", "test", "dataset", "modality", "labels"):
            own.pop(key, None)
        labels: Any = dict(sorted(cohort.labels.values.items(), key=lambda item: item[1]))
        if cohort.layout == self.kind and "channel_names" in cohort.extra:
            labels = cohort.extra["labels"]  # as it was: regions are lists of values
        described = {
            **own,
            "channel_names": {str(k): name for k, name in enumerate(cohort.channels)},
            "labels": labels,
            "numTraining": len(cases),
            "file_ending": cohort.file_ending,
        }
        return {DESCRIPTION: (json.dumps(described, indent=2) + "\n").encode()}


def _case_paths(
    root: Path, description: dict[str, Any], ending: str, n_channels: int
) -> list[tuple[str, list[Path], Path]]:
    listed = description.get("dataset")
    if isinstance(listed, dict):
        rows = []
        for name, entry in sorted(listed.items()):
            paths = [*_listed(entry, "images"), *_listed(entry, "label")]
            if len(paths) != n_channels + 1 or not all(str(path).endswith(ending) for path in paths):
                raise InputError(
                    f'"dataset" entry {name!r} should have {n_channels} "images" and a "label", paths that '
                    f"end in {ending}.",
                    file=root / DESCRIPTION,
                )
            rows.append((str(name), [root / path for path in paths[:-1]], root / paths[-1]))
        return rows
    names = {path.name[: -len(ending)] for path in visible(root / "labelsTr", f"*{ending}")}
    names |= {_case_of(path, ending) for path in visible(root / "imagesTr", f"*{_CHANNEL}{ending}")}
    return [
        (
            name,
            [root / "imagesTr" / f"{name}_{k:04d}{ending}" for k in range(n_channels)],
            root / "labelsTr" / f"{name}{ending}",
        )
        for name in sorted(names)
    ]


def _listed(entry: object, key: str) -> list[str]:
    """Paths under `key` of an entry of "dataset"; none where they are not given as text."""
    value = entry.get(key) if isinstance(entry, dict) else None
    paths: list[object] = value if isinstance(value, list) else [value]
    texts = [path for path in paths if isinstance(path, str)]
    return texts if len(texts) == len(paths) else []


def _case_of(image: Path, ending: str) -> str:
    return image.name[: -len(ending) - len("_0000")]


def _of_other_endings(root: Path, ending: str, used: set[Path]) -> list[Finding]:
    """Images whose ending is another than that of the data set: nobody would read them."""
    findings = []
    for folder in ("imagesTr", "labelsTr"):
        for path in visible(root / folder, "*"):
            other = next((e for e in FILE_ENDINGS if path.name.casefold().endswith(e)), None)
            if other is None or path.name.endswith(ending) or path in used:
                continue
            stem = path.name[: -len(other)]
            twin = path.with_name(f"{stem}{ending}").is_file()
            fault = f"ends in {path.name[len(stem) :]}; {DESCRIPTION} says {ending}."
            findings.append(
                Finding(
                    "error",
                    f"the file is there as {ending} and as {other}." if twin else fault,
                    "Remove one of the two." if twin else "Convert and rename it, or remove it.",
                    stem if folder == "labelsTr" else _case_of(path, other),
                    str(path),
                )
            )
    return findings


def _unnamed_channels(root: Path, channels: tuple[str, ...], ending: str) -> list[Finding]:
    """Images of channels that the description does not name: they would not be in the output."""
    return [
        Finding(
            "warning",
            f"{DESCRIPTION} names {len(channels)} channels; this file is of another and is not used.",
            "Name the channel, or remove the file.",
            _case_of(path, ending),
            str(path),
        )
        for path in visible(root / "imagesTr", f"*{_CHANNEL}{ending}")
        if int(path.name[: -len(ending)][-4:]) >= len(channels)
    ]
