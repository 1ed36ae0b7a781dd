"""What nnU-Net and the Medical Segmentation Decathlon have in common: dataset.json, imagesTr, labelsTr."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lesionsynth.errors import InputError
from lesionsynth.json_file import read_json
from lesionsynth.nifti import ending_of

DESCRIPTION = "dataset.json"


def read_description(root: Path) -> dict[str, Any]:
    """The description of the data set at `root`."""
    value = read_json(root / DESCRIPTION)
    if not isinstance(value, dict):
        raise InputError("should hold a JSON object.", file=root / DESCRIPTION)
    return value


def channels_of(description: dict[str, Any], root: Path) -> tuple[str, ...]:
    """Names of the channels in the order of their numbers."""
    named = description.get("channel_names", description.get("modality"))
    if not isinstance(named, dict) or not named or not all(_is_number(k) for k in named):
        raise InputError('has no "channel_names" such as {"0": "FLAIR"}.', file=root / DESCRIPTION)
    ordered = sorted((int(k), str(v)) for k, v in named.items())
    if [k for k, _ in ordered] != list(range(len(ordered))):
        raise InputError("should number its channels from 0 without gaps.", file=root / DESCRIPTION)
    return tuple(name for _, name in ordered)


def labels_of(description: dict[str, Any], root: Path) -> dict[str, int]:
    """Name to value. A region (list of values) names those values that have no name of their own."""
    labels = description.get("labels")
    if not isinstance(labels, dict) or not labels:
        raise InputError('has no "labels" such as {"background": 0, "lesion": 1}.', file=root / DESCRIPTION)
    if all(_is_number(key) for key in labels):  # nnU-Net v1 has value to name
        named = {str(name): int(value) for value, name in labels.items()}
        if len(named) != len(labels):
            raise InputError("two label values have the same name.", file=root / DESCRIPTION)
        labels = named
    values: dict[str, int] = {}
    regions: list[tuple[str, list[int]]] = []
    for name, value in labels.items():
        numbers = value if isinstance(value, list) else [value]
        if not numbers or not all(type(v) is int and 0 <= v < 65536 for v in numbers):
            raise InputError(
                f'label "{name}" should be a whole number from 0 to 65535, or a list of them; got {value!r}.',
                file=root / DESCRIPTION,
            )
        if len(numbers) == 1:
            values[str(name)] = numbers[0]
        else:
            regions.append((str(name), numbers))
    if len(set(values.values())) != len(values):
        raise InputError("two labels have the same value.", file=root / DESCRIPTION)
    for name, numbers in sorted(regions, key=lambda region: len(region[1])):
        for number in numbers:
            if number not in values.values():
                if f"{name}_{number}" in values:
                    raise InputError(
                        f'label {number} of the region "{name}" would be called as another is.',
                        file=root / DESCRIPTION,
                        remedy=f"Give the label {number} a name of its own.",
                    )
                values[f"{name}_{number}"] = number
    return values


def _is_number(key: str) -> bool:
    """Whether a key of JSON is a channel's number or a label's value."""
    return key.isdecimal() and len(key) <= len("65535")


def has_whole_images(root: Path) -> bool:
    """Whether images are named as their label maps are, as in the Decathlon, and not one for each channel."""
    labels, images = (
        {p.name for p in visible(root / folder, "*.nii*")} for folder in ("labelsTr", "imagesTr")
    )
    by_channel = {f"{name[: -len(ending_of(name))]}_0000{ending_of(name)}" for name in labels}
    return bool(images & labels) and not images & by_channel


def visible(folder: Path, pattern: str) -> list[Path]:
    """Files of a folder that `pattern` finds, without the hidden ones that macOS leaves (._name)."""
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))
