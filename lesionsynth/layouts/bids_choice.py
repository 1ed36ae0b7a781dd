"""Which of the files of a BIDS case are its channels and its lesion mask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lesionsynth.domain.finding import Finding
from lesionsynth.domain.roles import guess_roles
from lesionsynth.layouts.bids_files import BidsFile
from lesionsynth.layouts.bids_names import LABEL_SUFFIXES, Selector

_SERIES = {"asl", "bold", "m0scan", "sbref"}


def is_label(file: BidsFile) -> bool:
    """Whether a file is a label map by its suffix."""
    return file.name.suffix.casefold().rpartition("-")[2] in LABEL_SUFFIXES


def _is_volume(file: BidsFile, root: Path) -> bool:
    """Whether a file can be a channel: no label map, and no series by its suffix or its gradients."""
    if is_label(file) or file.name.suffix in _SERIES:
        return False
    beside = file.path.with_name(f"{file.path.name.removesuffix(file.name.ending)}.bval")
    places = (beside, root / file.tree / "dwi.bval") if file.name.suffix == "dwi" else ()
    return not any(path.is_file() for path in places)


def says_lesion(file: BidsFile) -> bool:
    """Whether the name of a label map says lesion."""
    entities = file.name.entities
    words = (entities.get("label", ""), entities.get("desc", ""), file.name.suffix)
    return any(word and guess_roles({word: 1, "": 2}).get(word) == "lesion" for word in words)


def may_be_lesions(file: BidsFile) -> bool:
    """Whether the name of a label map says lesion, or nothing of what it is."""
    return says_lesion(file) or not {"label", "desc"} & file.name.entities.keys()


def pick(files: Sequence[BidsFile], selector: Selector, space: str | None, exact: bool) -> list[BidsFile]:
    """Files that a selector means: one, where nothing is wrong.

    Those in the space of the mask come before others, then those that are no derivatives, then with `exact`
    the one that has no other entities.
    """
    found = [file for file in files if selector.matches(file.name, file.tree)]
    found = [f for f in found if f.name.entities.get("space") == space] or found
    found = [f for f in found if not f.is_derived] or found
    plain = [f for f in found if f.name.entities.keys() == selector.entities.keys()]
    return plain if exact and plain else found


def common_channels(
    cases: Sequence[Sequence[BidsFile]], root: Path
) -> tuple[dict[str, Selector], list[Finding]]:
    """Suffixes that more than half of the cases with a mask have, and warnings of the others."""
    counts: Counter[str] = Counter()
    spelled: dict[str, str] = {}
    for files in cases:
        images = sorted({f.name.suffix for f in files if f.folder and _is_volume(f, root)})
        counts.update({suffix.casefold() for suffix in images})
        for suffix in images:
            spelled[suffix.casefold()] = min(suffix, spelled.get(suffix.casefold(), suffix))
    common = sorted(suffix for suffix, count in counts.items() if 2 * count > len(cases))
    findings = [
        Finding(
            "warning",
            f"{spelled[suffix]} is there for {counts[suffix]} of {len(cases)} cases with a mask: not used.",
            "Name it under `input.layout.channels` if it is to be.",
            file=str(root),
        )
        for suffix in sorted(counts.keys() - set(common))
    ]
    return {spelled[suffix]: Selector({}, spelled[suffix]) for suffix in common}, findings
