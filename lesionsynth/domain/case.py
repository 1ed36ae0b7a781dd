"""Cases, subjects, labels, cohorts: the input as a layout has found it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Resampling = Literal["none", "linear", "cubic"]
Role = Literal["background", "lesion", "organ", "protected", "ignore"]


@dataclass(frozen=True)
class LabelTable:
    """Label values, their names and what they mean to lesionsynth.

    Parameters
    ----------
    values : mapping of str to int
        Name to value, background included.
    roles : mapping of str to Role
        Name to role.
    """

    values: Mapping[str, int]
    roles: Mapping[str, Role]

    def of_role(self, *roles: Role) -> tuple[int, ...]:
        """Values that have one of `roles`, sorted."""
        return tuple(sorted(v for name, v in self.values.items() if self.roles[name] in roles))

    @property
    def lesion(self) -> tuple[int, ...]:
        """Values that are lesion."""
        return self.of_role("lesion")

    @property
    def organ(self) -> tuple[int, ...]:
        """Values of organs, which lie under lesions."""
        return self.of_role("organ")

    @property
    def untouchable(self) -> tuple[int, ...]:
        """Values that are never a donor and never overwritten."""
        return self.of_role("protected", "ignore")


@dataclass(frozen=True)
class CaseFiles:
    """Where the channels and the label map of one case lie.

    Parameters
    ----------
    case : str
        Identifier, unique in the cohort.
    subject : str
        The person; leaks are judged by it.
    images : tuple of Path
        File of each channel, in the order of the cohort's channels. A 4-D file is there once for each of its
        volumes, in their order.
    label : Path
        Label map.
    fold : str or None
        Fold named by the layout's table, where it has one.
    """

    case: str
    subject: str
    images: tuple[Path, ...]
    label: Path
    fold: str | None = None

    @property
    def name(self) -> str:
        """What it is called in the bank."""
        return self.case

    @property
    def image_files(self) -> dict[Path, tuple[int, ...]]:
        """Numbers of the channels that each image file holds."""
        return channels_by_file(self.images)


def channels_by_file(images: Sequence[Path]) -> dict[Path, tuple[int, ...]]:
    """Numbers of the channels that each file holds, from the file of each channel."""
    found: dict[Path, tuple[int, ...]] = {}
    for number, path in enumerate(images):
        found[path] = (*found.get(path, ()), number)
    return found


@dataclass(frozen=True)
class MaskFile:
    """A subject known by a lesion mask alone.

    Parameters
    ----------
    subject : str
        The person.
    path : Path
        The mask.
    named : str
        What the recipe's pattern finds in the path, such as a session of the subject; else the subject.
    """

    subject: str
    path: Path
    named: str = ""

    @property
    def name(self) -> str:
        """What it is called in the bank, unlike any other."""
        return f"{self.named or self.subject}/mask"


@dataclass(frozen=True)
class Split:
    """Cases of one fold of a cross-validation.

    Parameters
    ----------
    train : tuple of str
        Cases that train.
    val : tuple of str
        Cases that are validated.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]


def is_ct(channel: str) -> bool:
    """Whether a channel, by its name, is in Hounsfield units; others are in any units."""
    return channel.upper() == "CT"


@dataclass(frozen=True)
class Cohort:
    """All cases of one input, sorted by id.

    Parameters
    ----------
    root : Path
        Folder of the input.
    layout : str
        Kind of the layout.
    channels : tuple of str
        Names of the channels, in order.
    labels : LabelTable
        Label values and what they mean.
    cases : tuple of CaseFiles
        Cases with their files.
    masks : tuple of MaskFile
        Subjects known by masks alone.
    splits : tuple of Split or None
        Folds of the input, where it has any.
    file_ending : str
        Of the images.
    extra : mapping
        What else the layout needs to describe an output.
    excluded : mapping of str to str
        Case to subject of those that the recipe leaves out.
    resample : str
        How channels on another grid than the label map are read: `none`, `linear` or `cubic`.
    """

    root: Path
    layout: str
    channels: tuple[str, ...]
    labels: LabelTable
    cases: tuple[CaseFiles, ...]
    masks: tuple[MaskFile, ...] = ()
    splits: tuple[Split, ...] | None = None
    file_ending: str = ".nii.gz"
    extra: Mapping[str, object] = field(default_factory=dict)
    excluded: Mapping[str, str] = field(default_factory=dict)
    resample: Resampling = "none"

    def name_of(self, path: Path) -> str:
        """A file of the input by its path in it, with slashes; the whole path where it lies elsewhere."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    def case(self, name: str) -> CaseFiles:
        """The case called `name`; KeyError where there is none."""
        return {c.case: c for c in self.cases}[name]

    @property
    def subjects(self) -> tuple[str, ...]:
        """Subjects with images, sorted."""
        return tuple(sorted({c.subject for c in self.cases}))
