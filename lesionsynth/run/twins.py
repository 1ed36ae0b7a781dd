"""One scan or mask under the names of two people: it would be on both sides of a fold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lesionsynth import nifti
from lesionsynth.bank.harvest import QUANTILES, CaseSummary
from lesionsynth.channels import read_channels
from lesionsynth.digest import digest_json
from lesionsynth.domain.case import CaseFiles, Cohort, MaskFile
from lesionsynth.errors import LeakError
from lesionsynth.host import read_label

_LEVELS = 32
"""So many different levels of the 257 do not agree by chance, to the last digit."""


@dataclass(frozen=True)
class Levels:
    """Quantiles of a channel, as far as they tell it from others.

    Parameters
    ----------
    vary : bool
    digest : str or None
        None where they are too few to tell anything.
    """

    vary: bool
    digest: str | None

    @classmethod
    def of(cls, quantiles: Sequence[float]) -> Levels:
        """By the quantiles themselves, which ten thousand cases would fill a memory with."""
        digest = digest_json(list(quantiles)) if len(set(quantiles)) >= _LEVELS else None
        return cls(quantiles[0] < quantiles[-1], digest)


@dataclass(frozen=True)
class Seen:
    """What tells a case, or a mask alone, from those of other people.

    Parameters
    ----------
    case, subject : str
    hashes : mapping of str to str
        Digests of its files, by their names.
    levels : tuple of Levels
        What tells the intensities of each channel; none for a mask alone.
    has_lesions : bool
    """

    case: str
    subject: str
    hashes: Mapping[str, str]
    levels: tuple[Levels, ...]
    has_lesions: bool

    @classmethod
    def of(cls, summary: CaseSummary) -> Seen:
        """What a bank knows of it."""
        levels = tuple(map(Levels.of, summary.quantiles)) if summary.has_images else ()
        return cls(summary.case, summary.subject, summary.source_hashes, levels, summary.load.count > 0)


def look_at(item: CaseFiles | MaskFile, cohort: Cohort) -> Seen:
    """Read a case, or a mask alone, where there is no bank: levels are those of all that is not 0.

    Raises
    ------
    LesionsynthError
        If it cannot be read.
    """
    if isinstance(item, MaskFile):
        mask = nifti.read(item.path)
        has_lesions = bool((mask.values() > 0).any())
        return Seen(item.name, item.subject, {cohort.name_of(item.path): mask.source_hash}, (), has_lesions)
    images = read_channels(item)
    label_image, label = read_label(item.case, item.label, cohort.labels)
    levels = []
    for image in images:
        values = image.values()
        values = values[np.isfinite(values) & (values != 0)]
        quantiles = np.quantile(values, QUANTILES).astype(float).tolist() if values.size else [0.0]
        levels.append(Levels.of(quantiles))
    hashes = {cohort.name_of(image.path): image.source_hash for image in (*images, label_image) if image.path}
    has_lesions = bool(np.isin(label, cohort.labels.lesion).any())
    return Seen(item.case, item.subject, hashes, tuple(levels), has_lesions)


def refuse_twins(cohort: Cohort, everyone: Iterable[Seen]) -> None:
    """No two subjects may have the same image, or mask and label map.

    Images are the same where their files are, or, as of one scan that was stored anew, their intensities (of
    a bank those in the tissue). Constant ones, as where a channel stands for one that is missing, and empty
    masks tell nothing.

    Raises
    ------
    LeakError
        It names both cases.
    """
    by_case = {files.case: files for files in cohort.cases}
    images: dict[str, Seen] = {}
    labels: dict[str, Seen] = {}
    masks = []
    for seen in everyone:
        if (files := by_case.get(seen.case)) is None:
            if seen.has_lesions and not seen.levels:
                masks.append(seen)
            continue
        labels[seen.hashes[cohort.name_of(files.label)]] = seen
        for name, told in _telling(seen, files, cohort):
            other = images.setdefault(told, seen)
            if other.subject != seen.subject:
                raise _twins("image", seen, other, name)
    for seen in masks:
        for name, digest in seen.hashes.items():
            if digest in labels and labels[digest].subject != seen.subject:  # they may lie with the others
                raise _twins("mask", seen, labels[digest], name)


def _telling(seen: Seen, files: CaseFiles, cohort: Cohort) -> Iterator[tuple[str, str]]:
    """What tells an image of a case from others, with its name: digests of its file, and of its levels."""
    for path, channels in files.image_files.items():
        name = cohort.name_of(path)
        levels = [seen.levels[channel] for channel in channels]
        if any(own.vary for own in levels):
            yield name, seen.hashes[name]
        yield from ((name, own.digest) for own in levels if own.digest is not None)


def _twins(what: str, one: Seen, other: Seen, name: str) -> LeakError:
    return LeakError(
        f"the {what} of {one.subject} is identical to one of {other.subject} (case {other.case}): counted as "
        "two people, one would leak between folds.",
        case=one.case,
        file=name,
        remedy="Remove one of the two, or say by `input.subject` that they are one person.",
    )
