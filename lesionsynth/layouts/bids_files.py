"""Find the images of a BIDS tree, without looking at more folders than can hold them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lesionsynth.errors import InputError
from lesionsynth.layouts.bids_names import BidsName, parse

_TREE_DEPTH = 3
"""Folders between the input and its sub-* folders, as in derivatives/<pipeline>/<site>/."""
_NO_TREES = {"sourcedata", "code", "stimuli", "phenotype"}
_NO_IMAGES = {"func", "fmap", "meg", "eeg", "ieeg", "beh", "nirs", "motion", "figures", "log", "xfm"}
_NO_IMAGES |= {"surf", "mri", "label", "stats", "scripts", "touch", "tmp", "trash"}


@dataclass(frozen=True)
class BidsFile:
    """An image of a subject.

    Parameters
    ----------
    path : Path
    tree : str
        Folder that holds the sub-* folders, relative to the input; empty for the input itself.
    folder : str
        Datatype, such as anat; empty where the file lies in none.
    name : BidsName
    misplaced : bool
        Whether it lies in the folder of another subject or session.
    """

    path: Path
    tree: str
    folder: str
    name: BidsName
    misplaced: bool

    @property
    def is_derived(self) -> bool:
        """Whether it lies in a tree of derivatives."""
        return "derivatives" in self.tree.split("/")


def find_files(root: Path) -> Iterator[BidsFile]:
    """All images of subjects below `root`, whose names are of BIDS, by tree and name."""
    for tree in _trees(root, "", 0):
        for subject in _folders(root / tree, "sub-"):
            yield from _of_subject(root / tree, tree, subject)


def _of_subject(root: Path, tree: str, subject: str) -> Iterator[BidsFile]:
    yield from _of_session(root / subject, tree, subject, "")
    for session in _folders(root / subject, "ses-"):
        yield from _of_session(root / subject / session, tree, subject, session)


def _of_session(root: Path, tree: str, subject: str, session: str) -> Iterator[BidsFile]:
    datatypes = [name for name in _folders(root) if name not in _NO_IMAGES and not name.startswith("ses-")]
    for folder in ("", *datatypes):
        for file_name in _names(root / folder):
            name = parse(file_name)
            if name is None:
                continue
            misplaced = f"sub-{name.subject}" != subject
            if session and name.session and f"ses-{name.session}" != session:
                misplaced = True
            if session and not name.session:
                name = BidsName(name.subject, session[4:], name.copy, name.entities, name.suffix, name.ending)
            yield BidsFile(root / folder / file_name, tree, folder, name, misplaced)


def _trees(root: Path, tree: str, depth: int) -> Iterator[str]:
    folders = _folders(root / tree)
    if any(name.startswith("sub-") for name in folders):
        yield tree
    if depth < _TREE_DEPTH:
        for name in folders:
            if not name.startswith(("sub-", "ses-")) and name not in _NO_TREES:
                yield from _trees(root, f"{tree}/{name}" if tree else name, depth + 1)


def looks_like_one(root: Path) -> bool:
    """Whether there are subjects with images whose names are of BIDS, at most one folder down."""
    near = ("", *_folders(root)) if root.is_dir() else ()
    return any(
        True
        for tree in near
        if not tree.startswith(("sub-", "ses-")) and tree not in _NO_TREES
        for subject in _folders(root / tree, "sub-")
        for _ in _of_subject(root / tree, tree, subject)
    )


def _folders(root: Path, start: str = "") -> list[str]:
    return _listed(root, lambda entry: entry.name.startswith(start) and entry.is_dir())


def _names(root: Path) -> list[str]:
    return _listed(root, lambda entry: entry.name.startswith("sub-"))


def _listed(root: Path, wanted: Callable[[os.DirEntry[str]], bool]) -> list[str]:
    """Names in a folder, sorted, without the hidden ones."""
    try:
        with os.scandir(root) as entries:
            return sorted(e.name for e in entries if not e.name.startswith(".") and wanted(e))
    except OSError as error:
        raise InputError(
            f"the folder cannot be read ({error.strerror or error}).",
            file=root,
            remedy="Correct its permissions.",
        ) from None
