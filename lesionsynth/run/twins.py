"""One scan or mask under the names of two people: it would be on both sides of a fold."""

from __future__ import annotations

from collections.abc import Iterator

from lesionsynth.bank.harvest import CaseSummary
from lesionsynth.bank.store import LesionBank
from lesionsynth.digest import digest_json
from lesionsynth.domain.case import CaseFiles, Cohort
from lesionsynth.errors import LeakError

_LEVELS = 32
"""So many different levels of the 257 do not agree by chance, to the last digit."""


def refuse_twins(cohort: Cohort, bank: LesionBank) -> None:
    """Compare what a bank knows: no two subjects may have the same image, or mask and label map.

    Images are the same where their files are, or, as of one scan that was stored anew, their intensities in
    the tissue. Constant ones, as where a channel stands for one that is missing, and empty masks tell
    nothing.

    Raises
    ------
    LeakError
        It names both cases.
    """
    by_case = {files.case: files for files in cohort.cases}
    images: dict[str, CaseSummary] = {}
    labels: dict[str, CaseSummary] = {}
    summaries = [summary for summary in bank.cases() if summary.load.count or summary.case in by_case]
    for summary in summaries:
        if (files := by_case.get(summary.case)) is None:
            continue
        labels[summary.source_hashes[cohort.name_of(files.label)]] = summary
        for name, told in _telling(summary, files, cohort):
            other = images.setdefault(told, summary)
            if other.subject != summary.subject:
                raise _twins("image", summary, other, name)
    for summary in summaries:
        for name, digest in summary.source_hashes.items() if not summary.has_images else ():
            if digest in labels:
                raise _twins("mask", summary, labels[digest], name)


def _telling(summary: CaseSummary, files: CaseFiles, cohort: Cohort) -> Iterator[tuple[str, str]]:
    """What tells an image of a case from others, with its name: digests of its file, and of its levels."""
    for path, channels in files.image_files.items():
        name = cohort.name_of(path)
        levels = [summary.quantiles[channel] for channel in channels]
        if any(own[0] < own[-1] for own in levels):
            yield name, summary.source_hashes[name]
        yield from ((name, digest_json(own)) for own in levels if len(set(own)) >= _LEVELS)


def _twins(what: str, one: CaseSummary, other: CaseSummary, name: str) -> LeakError:
    return LeakError(
        f"the {what} of {one.subject} is identical to one of {other.subject} (case {other.case}): counted as "
        "two people, one would leak between folds.",
        case=one.case,
        file=name,
        remedy="Remove one of the two, or say by `input.subject` that they are one person.",
    )
