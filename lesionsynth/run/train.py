"""Train a model for each block of the folds, on the subjects of that block alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import lesionsynth
from lesionsynth.bank.store import LesionBank
from lesionsynth.digest import digest_json, file_states
from lesionsynth.domain.case import Cohort
from lesionsynth.errors import InputError, LesionsynthError
from lesionsynth.generative.checkpoint import (
    OF_SHAPES,
    SUFFIX,
    Card,
    Kind,
    needed,
    read_card,
    write_checkpoint,
)
from lesionsynth.generative.specs import TrainSpec
from lesionsynth.recipe.model import Recipe
from lesionsynth.run.cohort import masks_alone, open_cohort
from lesionsynth.run.fit import build_bank, case_keys
from lesionsynth.run.folder import check_output, claim, refuse_other
from lesionsynth.run.folds import Block, find_splits, make_blocks
from lesionsynth.run.pool import ALONE, Engine, Progress
from lesionsynth.run.twins import Seen, refuse_twins
from lesionsynth.run.workspace import BANK
from lesionsynth.tissue import side_file

NOTE = "training.json"
"""What a folder of models is trained for; the file by which it is known."""


_FEW = 0.1
"""A run tries a lesion so often that a smaller share leaves it without."""


class Trainer(Protocol):
    """Trains one model: the part of it that differs by kind."""

    def __call__(self, given: Given, spec: Any, place: Any, told: Any, key: str) -> Any:
        """What its checkpoint holds, as :class:`lesionsynth.generative.training.Learned`."""


@dataclass(frozen=True, eq=False)
class Given:
    """What a training may look at.

    Parameters
    ----------
    bank : LesionBank
    cohort : Cohort
        Cases of the block alone.
    recipe : Recipe
    subjects : tuple of str
        Of the block, those known by masks alone included.
    """

    bank: LesionBank
    cohort: Cohort
    recipe: Recipe
    subjects: tuple[str, ...]


def train_models(
    kind: Kind,
    spec: TrainSpec,
    recipe: Recipe,
    root: Path,
    output: Path,
    progress: Progress,
    engine: Engine = ALONE,
    device: str = "auto",
    threads: int = 1,
    only: Sequence[str] = (),
) -> dict[Path, Card]:
    """Train a model of each block of the recipe's folds into `output`/<block>.safetensors.

    The same call goes on with what was stopped, and leaves alone what is done.

    Parameters
    ----------
    kind : str
        A key of :data:`TRAINERS`.
    spec : TrainSpec
        Of that kind.
    recipe : Recipe
        Its input, tissue, bank and folds count.
    root, output : Path
    progress : Progress
    engine : Engine
        Who harvests.
    device : str
        auto, cpu, cuda or cuda:i.
    threads : int
        Of torch on the CPU.
    only : sequence of str
        Blocks to train; all by default.

    Raises
    ------
    LesionsynthError
        If the input cannot be used, there is no such block, or `output` holds other models.
    """
    for package in ("torch", "monai", "tensorboardX", "sklearn"):
        needed(package)
    from lesionsynth.generative.training import Place, forget, open_torch_device

    root, output = root.absolute(), output.absolute()
    about = {"kind": kind, "config": spec.model_dump(mode="json"), "lesionsynth": lesionsynth.__version__}
    check_output(root, output, marker=NOTE)
    refuse_other(output, NOTE, about)
    cohort, blocks = _blocks(kind, recipe, root, progress)
    where = open_torch_device(device, threads)
    progress.note(f"device: {where}, {threads} thread(s)" if where.type == "cpu" else f"device: {where}")
    unknown = sorted(set(only) - {block.name for block in blocks})
    if unknown:
        names = ", ".join(block.name for block in blocks)
        raise InputError(f"there is no block {unknown[0]!r}; the folds have {names}.", file=root)
    claim(output, NOTE, about)
    bank, failures = build_bank(cohort, recipe, output / BANK, engine, progress)
    for failure in failures:
        progress.note(f"left out: {failure.error}")
    keys = case_keys(cohort, recipe)
    made = {}
    with bank:
        refuse_twins(cohort, map(Seen.of, bank.cases()))
        for block in blocks:
            if only and block.name not in only:
                continue
            path = output / f"{block.name}{SUFFIX}"
            given = _given(kind, bank, cohort, recipe, block)
            of = {case.case: case.subject for case in bank.cases()}
            key = digest_json(
                [kind, spec.model_dump(mode="json"), lesionsynth.__version__, cohort.channels]
                + [[name, keys[name]] for name, subject in sorted(of.items()) if subject in given.subjects]
                + file_states(side_file(p, case, root) for p in spec.beside for case in given.cohort.cases)
            )
            card = _finished(path, key)
            if card is None:
                place = Place(output, where, block.name)
                learned = TRAINERS[kind]()(given, spec, place, progress, key)
                card = Card(
                    kind=kind,
                    config=spec.model_dump(mode="json"),
                    about={**learned.about, "key": key, "channel_names": list(cohort.channels)},
                    subjects=tuple(sorted(given.subjects)),
                    block=block.name,
                    steps=learned.steps,
                    measures={k: round(v, 6) for k, v in learned.measures.items()},
                    weights="",
                    lesionsynth=lesionsynth.__version__,
                )
                write_checkpoint(path, card, learned.arrays)
                for task in learned.tasks:
                    forget(place, task)
                if (few := _few(card.measures)) is not None:
                    progress.note(f"{block.name}: {few}")
            else:
                progress.note(f"{block.name}: {path} is trained already.")
            made[path] = card
    return made


def _few(measures: Mapping[str, float]) -> str | None:
    """A warning where hardly anything that a model makes can be used."""
    accepted = {
        "of its samples": measures.get("mixture_accepted"),
        "of its shapes": None if "shape_refused" not in measures else 1 - measures["shape_refused"],
    }
    for what, share in accepted.items():
        if share is not None and share < _FEW:
            return f"{100 * share:.0f} % {what} can be used. Train longer, in a new folder."
    return None


def _blocks(kind: Kind, recipe: Recipe, root: Path, progress: Progress) -> tuple[Cohort, list[Block]]:
    """The cohort and the blocks of its folds; shapes can be learned from a folder of masks too."""
    alone = masks_alone(recipe.input, root)
    if alone is not None and kind in OF_SHAPES:
        progress.note(f"{len(alone.masks)} masks without images: shapes alone are learned.")
        return alone, [Block("all", (), (), tuple(dict.fromkeys(mask.subject for mask in alone.masks)))]
    _, cohort, dropped = open_cohort(recipe.input, root)
    for finding in dropped:
        progress.note(f"left out: {finding}")
    splits, why = find_splits(cohort, recipe.folds, recipe.seed)
    progress.note(why)
    return cohort, make_blocks(cohort, recipe.folds, splits, 1)


def _given(kind: Kind, bank: LesionBank, cohort: Cohort, recipe: Recipe, block: Block) -> Given:
    members = set(block.subjects)
    there = {case.case for case in bank.cases()}
    cases = tuple(c for c in cohort.cases if c.subject in members and c.case in there)
    masks = block.mask_subjects if kind in OF_SHAPES else ()
    return Given(bank, replace(cohort, cases=cases), recipe, (*block.subjects, *masks))


def _finished(path: Path, key: str) -> Card | None:
    """The card of a model of the same data and settings; None where there is none."""
    if not path.is_file():
        return None
    try:
        card = read_card(path)
    except LesionsynthError:
        return None
    return card if card.about.get("key") == key else None


def _lesion_autoencoder() -> Trainer:
    from lesionsynth.generative.lesion_models import train_autoencoder

    def train(given: Given, spec: Any, place: Any, told: Any, key: str) -> Any:
        values = given.cohort.labels.lesion
        return train_autoencoder(_crops(given, spec), values, spec, place, told, key)

    return train


def _mask_gan() -> Trainer:
    from lesionsynth.generative.lesion_models import train_mask_gan

    def train(given: Given, spec: Any, place: Any, told: Any, key: str) -> Any:
        return train_mask_gan(_crops(given, spec), given.cohort.labels.lesion, spec, place, told, key)

    return train


def _crops(given: Given, spec: Any) -> Any:
    """The lesions of a block, as models of single lesions see them."""
    from lesionsynth.generative.lesion_data import crops_of

    values = given.cohort.labels.lesion
    return crops_of(given.bank, given.subjects, values, spec.size, spec.most_lesions, spec.seed)


def _hvae() -> Trainer:
    from lesionsynth.generative.hvae_models import train_hvae
    from lesionsynth.generative.samples import samples_of

    def train(given: Given, spec: Any, place: Any, told: Any, key: str) -> Any:
        samples = samples_of(given.bank, given.cohort, given.recipe.tissue, spec, told)
        return train_hvae(samples, given.cohort.labels, spec, place, told, key)

    return train


def _translation() -> Trainer:
    from lesionsynth.generative.tissue_map import Semantics
    from lesionsynth.generative.translation import train_translation
    from lesionsynth.generative.translation_data import chosen_cases, load_scans, working_spacing_mm

    def train(given: Given, spec: Any, place: Any, told: Any, key: str) -> Any:
        cases = chosen_cases(given.cohort, spec)
        semantics = Semantics.of(given.cohort, cases, spec.map, spec.classes)
        told.note(f"{place.name}: semantic maps of the {semantics.words}.")
        spacing_mm = working_spacing_mm(given.cohort, given.bank, spec)
        scans = load_scans(cases, given.cohort, given.bank, given.recipe.tissue, spec, semantics, spacing_mm)
        return train_translation(scans, semantics, spacing_mm, spec, place, told, key)

    return train


TRAINERS: dict[Kind, Callable[[], Trainer]] = {
    "lesion-autoencoder": _lesion_autoencoder,
    "mask-gan": _mask_gan,
    "hvae": _hvae,
    "translation": _translation,
}
"""What trains each kind; called before the first step, so that nothing is imported that is not needed."""
