"""Trained models that a recipe uses: which serves each block, whom it has seen, its copy in the output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesionsynth import nifti
from lesionsynth.digest import digest_bytes
from lesionsynth.domain.case import CaseFiles, Cohort, Split
from lesionsynth.errors import InputError, LeakError
from lesionsynth.generative.checkpoint import SUFFIX, Card, read_card
from lesionsynth.plugins.contracts import ModelUse
from lesionsynth.recipe.model import Recipe
from lesionsynth.run.cohort import people_of
from lesionsynth.run.folds import Block
from lesionsynth.run.pool import Progress
from lesionsynth.tissue import side_file

MODELS = "models"
"""Folder of an output for the models that it was made with."""


@dataclass(frozen=True)
class Model:
    """A trained model of a block.

    Parameters
    ----------
    file : str
        Its copy, relative to the output; named by the digest of its bytes.
    kind : str
        Kind of the checkpoint.
    subjects : tuple of str
        Everybody it was trained on.
    beside : str or None
        Path of a further image of each host that it looks at, with {case} and {subject}.
    """

    file: str
    kind: str
    subjects: tuple[str, ...]
    beside: str | None = None


def used(recipe: Recipe) -> Iterator[tuple[str, str, ModelUse]]:
    """Source, path of the model as the recipe gives it, and what is wanted of it, of every model in use."""
    for name in sorted({name for step in recipe.steps.values() for name in step.source_names()}):
        for path, use in recipe.sources[name].models_used().items():
            yield name, path, use


def digests(recipe: Recipe, cohort: Cohort) -> dict[str, object]:
    """What every file says that a recipe's models may be taken from, by its path: digest, images beside."""
    found: dict[str, object] = {}
    for source, path, use in used(recipe):
        place = _folder(source, path, use.field)
        for file in sorted(place.glob(f"*{SUFFIX}")) if place.is_dir() else [place]:
            pattern = read_card(file).about.get("map")
            images = [_state(pattern, case, cohort.root) for case in cohort.cases] if pattern else []
            found[str(file)] = [digest_bytes(file.read_bytes()), images]
    return found


def beside(models: Mapping[str, Model], host: CaseFiles, root: Path) -> list[object]:
    """State (size and time) of the images of a host that its models look at."""
    return [_state(m.beside, host, root) for _, m in sorted(models.items()) if m.beside is not None]


def _state(pattern: object, files: CaseFiles, root: Path) -> object:
    path = side_file(str(pattern), files, root)
    about = path.stat() if path.is_file() else None
    return None if about is None else [about.st_size, about.st_mtime_ns]


def find_models(recipe: Recipe, blocks: Sequence[Block], cohort: Cohort) -> dict[str, dict[str, Model]]:
    """Models of each block that has hosts, by the path that the recipe gives; nothing is written.

    Raises
    ------
    InputError
        If one is missing, damaged, of another kind, or of other channels or labels.
    """
    found: dict[str, dict[str, Model]] = {block.name: {} for block in blocks}
    for source, path, use in used(recipe):
        for block in blocks:
            if not block.hosts:
                continue
            file = _file_of(path, block.name)
            if not file.is_file():
                raise InputError(
                    f"the source {source} has no model for {block.name}.",
                    file=file,
                    remedy="Train it on the same data with the same folds (`lesionsynth train`); give its "
                    f"folder: --set sources.{source}.{use.field}=FOLDER.",
                )
            card = read_card(file, use.kinds)
            _check(card, use, cohort, source, file)
            people = people_of(card.subjects, recipe.input, cohort)
            name = f"{MODELS}/{digest_bytes(file.read_bytes())}{SUFFIX}"
            found[block.name][path] = Model(name, card.kind, tuple(sorted(people)), card.about.get("map"))
    return found


def copy_models(models: Mapping[str, Mapping[str, Model]], output: Path) -> None:
    """Copy models into an output, those that are not there as they were.

    Raises
    ------
    InputError
        If one is no longer what it was when it was found.
    """
    for block, by_path in models.items():
        for path, model in by_path.items():
            target = output / model.file
            wanted = target.name.removesuffix(SUFFIX)
            if target.is_file() and digest_bytes(target.read_bytes()) == wanted:
                continue
            file = _file_of(path, block)
            content = file.read_bytes() if file.is_file() else b""
            if digest_bytes(content) != wanted:
                raise InputError(
                    "is not the model that the output was made with, which is missing there.",
                    file=file,
                    remedy="Give it back its place, or run with --update.",
                )
            nifti.write_bytes(target, content)


def _file_of(path: str, block: str) -> Path:
    """Checkpoint of a block, by the path that the recipe gives."""
    return Path(path) / f"{block}{SUFFIX}" if Path(path).is_dir() else Path(path)


def serving(
    blocks: Sequence[Block],
    models: Mapping[str, Mapping[str, Model]],
    splits: Sequence[Split],
    cohort: Cohort,
    progress: Progress,
) -> list[Block]:
    """The blocks whose copies can train at least one fold; the rest lose their hosts, and it is said.

    Raises
    ------
    LeakError
        If none is left: all that would be made were of no use to anybody.
    """
    of = {case.case: case.subject for case in cohort.cases}
    known = set(cohort.subjects)
    kept = []
    for block in blocks:
        seen = {subject for model in models[block.name].values() for subject in model.subjects}
        everybody = {*block.subjects, *seen}
        folds = [
            number
            for number, split in enumerate(splits)
            if not everybody & {of[c] for c in split.val if c in of}
            and everybody & known <= {of[c] for c in split.train if c in of}
        ]
        if folds or not splits or not seen or not block.hosts:
            kept.append(block)
            continue
        outside = sorted(seen & known - set(block.subjects))
        progress.note(
            f"{block.name}: its {len(block.hosts)} hosts are left out. Its model has seen {len(outside)} "
            f"subjects of other blocks, such as {outside[0]}, so that its copies could train no fold."
        )
    if not any(block.hosts for block in kept):
        raise LeakError(
            "every model has seen subjects that are validated in every fold its copies could train.",
            file=cohort.root,
            remedy="Train one model a block (`lesionsynth train` does so by default), or choose "
            "folds.strategy none where there is no cross-validation.",
        )
    return kept


def _folder(source: str, path: str, field: str) -> Path:
    if not path:
        raise InputError(
            f"the source {source} names no trained model.",
            remedy="Train one with `lesionsynth train`, and give its folder: "
            f"--set sources.{source}.{field}=FOLDER.",
        )
    if not Path(path).exists():
        raise InputError(
            f"the model of the source {source} is not there.",
            file=Path(path),
            remedy="Train one with `lesionsynth train`, or correct it: "
            f"--set sources.{source}.{field}=FOLDER.",
        )
    return Path(path)


def _check(card: Card, use: ModelUse, cohort: Cohort, source: str, file: Path) -> None:
    """A model must know the labels of lesions, and, where it makes intensities, the channels."""
    about: dict[str, Any] = card.about
    faults = []
    if about.get("labels") != list(cohort.labels.lesion):
        faults.append(f"label values of lesions {about.get('labels')}, not {list(cohort.labels.lesion)}")
    if about.get("channels") and about.get("channel_names") != list(cohort.channels):
        faults.append(f"the channels {about.get('channel_names')}, not {list(cohort.channels)}")
    if use.images and not about.get("channels"):
        faults.append("shapes alone, where intensities are asked of it")
    faults += [
        f"{key}: {card.config.get(key)}, where {value} is needed"
        for key, value in use.config
        if card.config.get(key) != value
    ]
    if faults:
        raise InputError(
            f"the model of the source {source} was trained on {' and '.join(faults)}.",
            file=file,
            remedy="Train one on data like these.",
        )
