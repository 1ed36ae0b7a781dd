"""One scan or mask under the names of two people: it would be on both sides of a fold."""

from __future__ import annotations

from lesionsynth.bank.harvest import CaseSummary
from lesionsynth.bank.store import LesionBank
from lesionsynth.domain.case import CaseFiles, Cohort
from lesionsynth.errors import LeakError


def refuse_twins(cohort: Cohort, bank: LesionBank) -> None:
    """Compare the digests of a bank: no two subjects may have the same image, or mask and label map.

    Images that are constant, as where a channel stands for one that is missing, and empty masks tell nothing.

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
        for name, digest in _telling(summary, files, cohort):
            other = images.setdefault(digest, summary)
            if other.subject != summary.subject:
                raise _twins("image", summary, other, name)
    for summary in summaries:
        for name, digest in summary.source_hashes.items() if not summary.has_images else ():
            if digest in labels:
                raise _twins("mask", summary, labels[digest], name)


def _telling(summary: CaseSummary, files: CaseFiles, cohort: Cohort) -> list[tuple[str, str]]:
    """Name and digest of each image of a case that is not constant in its tissue."""
    names = [
        cohort.name_of(path)
        for path, channels in files.image_files.items()
        if any(summary.quantiles[channel][0] < summary.quantiles[channel][-1] for channel in channels)
    ]
    return [(name, summary.source_hashes[name]) for name in names]


def _twins(what: str, one: CaseSummary, other: CaseSummary, name: str) -> LeakError:
    return LeakError(
        f"the {what} of {one.subject} is identical to one of {other.subject} (case {other.case}): counted as "
        "two people, one would leak between folds.",
        case=one.case,
        file=name,
        remedy="Remove one of the two, or say by `input.subject` that they are one person.",
    )
