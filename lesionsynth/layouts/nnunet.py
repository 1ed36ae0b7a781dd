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
from lesionsynth.json_file import read_json
from lesionsynth.nifti import FILE_ENDINGS
from lesionsynth.plugins.contracts import LayoutSpec, Scan
from lesionsynth.plugins.registry import register

_DESCRIPTION = "dataset.json"
_CHANNEL = "_[0-9][0-9][0-9][0-9]"


@register("layouts")
class NnUNet(LayoutSpec):
    """nnU-Net v2 raw: imagesTr/<case>_0000.nii.gz, labelsTr/<case>.nii.gz, dataset.json."""

    kind: Literal["nnunet"] = "nnunet"

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether there are a dataset.json and a folder labelsTr."""
        return (root / _DESCRIPTION).is_file() and (root / "labelsTr").is_dir()

    def scan(self, root: Path) -> Scan:
        """Find the training cases. The subject of a case is the case, until a recipe says otherwise."""
        description = read_json(root / _DESCRIPTION)
        if not isinstance(description, dict):
            raise InputError("should hold a JSON object.", file=root / _DESCRIPTION)
        channels, values = _channels(description, root), _labels(description, root)
        ending = description.get("file_ending", ".nii.gz")
        if ending not in FILE_ENDINGS:
            raise InputError(
                f"has file_ending {ending!r}; {' and '.join(FILE_ENDINGS)} are supported.",
                file=root / _DESCRIPTION,
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
        findings += _duplicates(root, ending) + _unnamed_channels(root, channels, ending)
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
        return {_DESCRIPTION: (json.dumps(described, indent=2) + "\n").encode()}


def _channels(description: dict[str, Any], root: Path) -> tuple[str, ...]:
    named = description.get("channel_names", description.get("modality"))
    if not isinstance(named, dict) or not named or not all(_is_number(k) for k in named):
        raise InputError('has no "channel_names" such as {"0": "FLAIR"}.', file=root / _DESCRIPTION)
    ordered = sorted((int(k), str(v)) for k, v in named.items())
    if [k for k, _ in ordered] != list(range(len(ordered))):
        raise InputError("should number its channels from 0 without gaps.", file=root / _DESCRIPTION)
    return tuple(name for _, name in ordered)


def _labels(description: dict[str, Any], root: Path) -> dict[str, int]:
    """Name to value. A region (list of values) names those values that have no name of their own."""
    labels = description.get("labels")
    if not isinstance(labels, dict) or not labels:
        raise InputError('has no "labels" such as {"background": 0, "lesion": 1}.', file=root / _DESCRIPTION)
    if all(_is_number(key) for key in labels):  # nnU-Net v1 has value to name
        named = {str(name): int(value) for value, name in labels.items()}
        if len(named) != len(labels):
            raise InputError("two label values have the same name.", file=root / _DESCRIPTION)
        labels = named
    values: dict[str, int] = {}
    regions: list[tuple[str, list[int]]] = []
    for name, value in labels.items():
        numbers = value if isinstance(value, list) else [value]
        if not numbers or not all(type(v) is int and 0 <= v < 65536 for v in numbers):
            raise InputError(
                f'label "{name}" should be a whole number from 0 to 65535, or a list of them; got {value!r}.',
                file=root / _DESCRIPTION,
            )
        if len(numbers) == 1:
            values[str(name)] = numbers[0]
        else:
            regions.append((str(name), numbers))
    if len(set(values.values())) != len(values):
        raise InputError("two labels have the same value.", file=root / _DESCRIPTION)
    for name, numbers in sorted(regions, key=lambda region: len(region[1])):
        for number in numbers:
            if number not in values.values():
                if f"{name}_{number}" in values:
                    raise InputError(
                        f'label {number} of the region "{name}" would be called as another is.',
                        file=root / _DESCRIPTION,
                        remedy=f"Give the label {number} a name of its own.",
                    )
                values[f"{name}_{number}"] = number
    return values


def _is_number(key: str) -> bool:
    """Whether a key of JSON is a channel's number or a label's value."""
    return key.isdecimal() and len(key) <= len("65535")


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
                    file=root / _DESCRIPTION,
                )
            rows.append((str(name), [root / path for path in paths[:-1]], root / paths[-1]))
        return rows
    names = {path.name[: -len(ending)] for path in _visible(root / "labelsTr", f"*{ending}")}
    names |= {_case_of(path, ending) for path in _visible(root / "imagesTr", f"*{_CHANNEL}{ending}")}
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


def _visible(folder: Path, pattern: str) -> list[Path]:
    """Files of a folder that `pattern` finds, without the hidden ones that macOS leaves (._name)."""
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))


def _case_of(image: Path, ending: str) -> str:
    return image.name[: -len(ending) - len("_0000")]


def _duplicates(root: Path, ending: str) -> list[Finding]:
    other = next(e for e in FILE_ENDINGS if e != ending)
    return [
        Finding(
            "error",
            f"the file is there as {ending} and as {other}.",
            "Remove one of the two.",
            path.name[: -len(other)] if folder == "labelsTr" else _case_of(path, other),
            str(path),
        )
        for folder, pattern in (("imagesTr", f"*{_CHANNEL}{other}"), ("labelsTr", f"*{other}"))
        for path in _visible(root / folder, pattern)
        if path.with_name(f"{path.name[: -len(other)]}{ending}").is_file()
    ]


def _unnamed_channels(root: Path, channels: tuple[str, ...], ending: str) -> list[Finding]:
    """Images of channels that the description does not name: they would not be in the output."""
    return [
        Finding(
            "warning",
            f"{_DESCRIPTION} names {len(channels)} channels; this file is of another and is not used.",
            "Name the channel, or remove the file.",
            _case_of(path, ending),
            str(path),
        )
        for path in _visible(root / "imagesTr", f"*{_CHANNEL}{ending}")
        if int(path.name[: -len(ending)][-4:]) >= len(channels)
    ]
