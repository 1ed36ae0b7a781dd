"""Trained models that a recipe uses: which serves each block, whom it has seen, its copy in the output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesionsynth import nifti
from lesionsynth.digest import digest_bytes, file_states
from lesionsynth.domain.case import CaseFiles, Cohort, Split
from lesionsynth.errors import InputError, LeakError
from lesionsynth.generative.checkpoint import SUFFIX, Card, read_card
from lesionsynth.plugins.contracts import ModelUse, OperationSpec, SourceSpec
from lesionsynth.recipe.model import Recipe
from lesionsynth.run.cohort import people_of
from lesionsynth.run.folds import Block, may_train, sides_of
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
    """Who uses a model (a key of the recipe), its path as the recipe gives it, and what is wanted of it."""
    names = sorted({name for step in recipe.steps.values() for name in step.source_names()})
    users: dict[str, SourceSpec | OperationSpec] = {f"sources.{name}": recipe.sources[name] for name in names}
    users |= {f"steps.{name}": step for name, step in recipe.steps.items()}
    for user, part in users.items():
        for path, use in part.models_used().items():
            yield user, path, use


def beside(models: Mapping[str, Model], host: CaseFiles, root: Path) -> list[object]:
    """State of the further images of a host that its models look at."""
    patterns = [model.beside for _, model in sorted(models.items()) if model.beside is not None]
    return list(file_states(side_file(pattern, host, root) for pattern in patterns))


def model_states(
    blocks: Sequence[Block], models: Mapping[str, Mapping[str, Model]], cohort: Cohort
) -> list[object]:
    """What an output depends on of the models of these blocks: their files, and what they look at."""
    by_case = {files.case: files for files in cohort.cases}
    hosts = [(models[block.name], by_case[host]) for block in blocks for host in block.hosts]
    return [
        [sorted((path, model.file) for path, model in models[block.name].items()) for block in blocks],
        [beside(own, files, cohort.root) for own, files in hosts],
    ]


def find_models(recipe: Recipe, blocks: Sequence[Block], cohort: Cohort) -> dict[str, dict[str, Model]]:
    """Models of each block that has hosts, by the path that the recipe gives; nothing is written.

    Raises
    ------
    InputError
        If one is missing, damaged, of another kind, or of other channels or labels.
    LeakError
        If one has seen a subject that the recipe leaves out.
    """
    unseen = set(cohort.excluded.values()).difference(recipe.input.seen_by_models)
    found: dict[str, dict[str, Model]] = {block.name: {} for block in blocks}
    for user, path, use in used(recipe):
        _require(user, path, use)
        for block in blocks:
            if not block.hosts:
                continue
            file = _file_of(path, block.name)
            if not file.is_file():
                raise InputError(
                    f"{user} has no model for {block.name}.",
                    file=file,
                    remedy="Train it on the same data with the same folds (`lesionsynth train`); give its "
                    f"folder: --set {user}.{use.field}=FOLDER.",
                )
            card = read_card(file, use.kinds)
            _check(card, use, cohort, user, file)
            people = people_of(card.subjects, recipe.input, cohort)
            if leaked := people & unseen:
                raise LeakError(
                    f"the model of {user} has seen {min(leaked)}, whom input.subjects leaves out.",
                    file=file,
                    remedy=f"Train one with {_ways(use)} and the same input.subjects; or name whom it may "
                    "have seen, nobody that is tested: --set input.seen_by_models=[...].",
                )
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
    by_case = {case.case: case.subject for case in cohort.cases}
    known = set(cohort.subjects)
    sides = [sides_of(split, by_case) for split in splits]
    kept = []
    for block in blocks:
        seen = {subject for model in models[block.name].values() for subject in model.subjects}
        serves = any(may_train({*block.subjects, *seen}, known, side) for side in sides)
        if serves or not splits or not seen or not block.hosts:
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


def _ways(use: ModelUse) -> str:
    """Commands that train what is wanted."""
    return " or ".join(f"`lesionsynth train {kind}`" for kind in use.kinds)


def _require(user: str, path: str, use: ModelUse) -> None:
    if not path:
        raise InputError(
            f"{user}.{use.field} names no trained model.",
            remedy=f"Train one with {_ways(use)}, and give its folder: --set {user}.{use.field}=FOLDER.",
        )
    if not Path(path).exists():
        raise InputError(
            f"the model of {user} is not there.",
            file=Path(path),
            remedy=f"Train one with {_ways(use)}, or correct it: --set {user}.{use.field}=FOLDER.",
        )


def _check(card: Card, use: ModelUse, cohort: Cohort, user: str, file: Path) -> None:
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
            f"the model of {user} was trained on {' and '.join(faults)}.",
            file=file,
            remedy="Train one on data like these.",
        )
