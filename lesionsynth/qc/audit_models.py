"""Trained models behind an output: whom each has seen is asked of the checkpoint, not of the records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lesionsynth.digest import digest_bytes
from lesionsynth.domain.case import Cohort
from lesionsynth.domain.finding import Finding
from lesionsynth.errors import LesionsynthError
from lesionsynth.generative.checkpoint import SUFFIX, Card, read_checkpoint
from lesionsynth.qc.audit_evidence import REMAKE, BlockFit, Weights
from lesionsynth.qc.audit_scope import Evidence
from lesionsynth.recipe.model import Recipe
from lesionsynth.run.cohort import people_of
from lesionsynth.run.models import MODELS, used
from lesionsynth.run.workspace import RECORDS

_CURE = "Remove the output and run the command again."


def audit_models(
    output: Path,
    names: Sequence[str],
    recipe: Recipe,
    cohort: Cohort,
    made: Sequence[Evidence],
    fits: Mapping[str, BlockFit],
) -> Iterator[Finding]:
    """Compare what records and fits say of models with the checkpoints themselves.

    Parameters
    ----------
    output : Path
    names : sequence of str
        All files of the output.
    recipe : Recipe
    cohort : Cohort
        The input, whose rules tell whom the names in a checkpoint stand for.
    made : sequence of Evidence
    fits : mapping of str to BlockFit
    """
    wanted = {path for _, path, _ in used(recipe)}
    said = {(model.file, model.subjects) for fit in fits.values() for model in fit.models.values()}
    said |= {(model.file, model.subjects) for item in made for model in item.weights}
    people: dict[str, set[str]] = {}
    for file in sorted({file for file, _ in said}):
        card = _card(output, names, file)
        if isinstance(card, Finding):
            yield card
        else:
            people[file] = people_of(card.subjects, recipe.input, cohort)
    for block, fit in sorted(fits.items()):
        name = f"likelihood/{block}.json"
        if set(fit.models) != wanted:
            fault = f"names the models {sorted(fit.models)}; the recipe uses {sorted(wanted)}."
            yield Finding("error", fault, _CURE, None, name)
        for model in fit.models.values():
            yield from _seen(people, model, None, name, _CURE)
    for item in made:
        name = f"{RECORDS}/{item.case}.json"
        for model in item.weights:
            yield from _seen(people, model, item.case, name, REMAKE)
        own = fits.get(item.block)
        if own is not None and {m.file for m in item.weights} != {m.file for m in own.models.values()}:
            yield Finding(
                "error", f"the models are not those of likelihood/{item.block}.json.", REMAKE, item.case, name
            )


def _seen(
    people: Mapping[str, set[str]], model: Weights, case: str | None, name: str, cure: str
) -> Iterator[Finding]:
    other = people.get(model.file, set(model.subjects)) ^ set(model.subjects)
    if other:
        fault = (
            f"the subjects that {model.file} was trained on are not those that it names: {min(other)} is on "
            "one side."
        )
        yield Finding("error", fault, cure, case, name)


def _card(output: Path, names: Sequence[str], file: str) -> Card | Finding:
    """What a checkpoint of the output says of itself, or what is wrong with it."""
    if file not in names or not file.startswith(f"{MODELS}/"):
        return Finding("error", "a model that lesions came from is missing.", _CURE, None, file)
    try:
        if digest_bytes((output / file).read_bytes()) != Path(file).name.removesuffix(SUFFIX):
            return Finding("error", "the model is not the one that its name says.", _CURE, None, file)
        return read_checkpoint(output / file)[0]
    except OSError as error:
        return Finding("error", f"cannot be read ({error.strerror}).", _CURE, None, file)
    except LesionsynthError as error:
        return Finding("error", error.message, _CURE, None, file)
