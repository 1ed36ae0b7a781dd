"""Which of the files of a BIDS case are its channels and its lesion mask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lesionsynth.domain.finding import Finding
from lesionsynth.domain.roles import guess_roles
from lesionsynth.errors import InputError
from lesionsynth.layouts.bids_files import BidsFile
from lesionsynth.layouts.bids_names import LABEL_SUFFIXES, Selector

_SERIES = {"asl", "bold", "m0scan", "sbref"}
_CONTRAST = ("ce", "part", "inv", "echo", "mt", "flip", "trc", "mod")
"""Entities by which two images of one suffix look different."""


def is_label(file: BidsFile) -> bool:
    """Whether a file is a label map by its suffix."""
    return file.name.suffix.casefold().rpartition("-")[2] in LABEL_SUFFIXES


def _is_volume(file: BidsFile, root: Path) -> bool:
    """Whether a file can be a channel: no segmentation, and no series by its suffix or its gradients."""
    if is_label(file) or "label" in file.name.entities or file.name.suffix in {*_SERIES, "probseg"}:
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
    """Suffixes that more than half of the cases with a mask have, and warnings of the others.

    Raises
    ------
    InputError
        If there is none.
    """
    counts: Counter[str] = Counter()
    spelled: dict[str, str] = {}
    for files in cases:
        volumes = [f for f in files if _is_volume(f, root)]
        # Of raw images some lie in no datatype's folder; of derivatives these are figures and the like.
        kept = [f for f in volumes if f.folder] or [f for f in volumes if not f.is_derived]
        images = sorted({f.name.suffix for f in kept})
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
    if cases and not common:
        raise InputError(
            "no kind of image is there for more than half of the cases with a mask; there are "
            f"{', '.join(f'{spelled[s]} ({n})' for s, n in sorted(counts.items())) or 'none'}.",
            file=root,
            remedy="Masks and images of a case have the same sub- and, if any, ses- in their names. Or name "
            "the channels under `input.layout.channels`.",
        )
    return {spelled[suffix]: Selector({}, spelled[suffix]) for suffix in common}, findings


def of_two_sites(groups: Mapping[str, Sequence[BidsFile]]) -> Iterator[Finding]:
    """Cases whose files lie in two trees that each have images and masks: they may be two people."""
    kinds: dict[str, set[bool]] = {}
    for files in groups.values():
        for file in files:
            if not file.is_derived:
                kinds.setdefault(file.tree, set()).add(is_label(file))
    whole = {tree for tree, found in kinds.items() if len(found) == 2}
    for case, files in groups.items():
        if len(trees := sorted({file.tree for file in files} & whole)) > 1:
            places = [tree or "the input itself" for tree in trees]
            fault = f"has files in {' and in '.join(places)}, which hold whole cases."
            cure = "Rename one, if they are two people; or put the files of one together."
            yield Finding("error", fault, cure, case, str(files[0].path))


def of_other_contrast(chosen: Mapping[str, Mapping[str, BidsFile]]) -> Iterator[Finding]:
    """Warnings of images that, by their names, look different from those of most other cases."""
    for channel in next(iter(chosen.values()), {}):
        own = {case: _contrast(files[channel]) for case, files in chosen.items()}
        usual, _ = Counter(own.values()).most_common(1)[0]
        for case, contrast in own.items():
            if contrast != usual:
                file = chosen[case][channel]
                most = "_".join([*(f"{key}-{value}" for key, value in usual), file.name.suffix])
                fault = f"the channel {channel} is {file.name.text}; of most cases it is {most}."
                cure = "Remove the case or the file, or say under `input.layout.channels` which is wanted."
                yield Finding("warning", fault, cure, case, str(file.path))


def _contrast(file: BidsFile) -> tuple[tuple[str, str], ...]:
    return tuple((key, file.name.entities[key]) for key in _CONTRAST if key in file.name.entities)
