"""The folders and files of a run, and what every job needs to know of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from lesionsynth import nifti
from lesionsynth.digest import digest_bytes
from lesionsynth.domain.case import Cohort, Split
from lesionsynth.errors import InputError, LesionsynthError, OutputError
from lesionsynth.plugins.contracts import LayoutSpec
from lesionsynth.recipe.model import OutputSpec, Recipe

LOCK = "recipe.lock.yaml"
COHORT = "cohort.json"
PLAN = "plan.jsonl"
BANK = "bank"
RECORDS = "records"
FAILURES = "failures"
REPORT = "report.html"
REALISM = "realism.json"
"""Where `realism` is expected to leave its result, if it leaves it in the output."""


@dataclass(frozen=True)
class Workspace:
    """Everything a job needs to find its way: recipe, cohort, folders.

    `key` is what the output depends on: an output folder is continued only by a run with the same key.
    `device` is what ``--device`` asks for; the GPUs are shared by so many `workers`.
    """

    recipe: Recipe
    cohort: Cohort
    layout: LayoutSpec
    bank: Path
    fits: Path
    output: Path
    key: str
    device: str = "cpu"
    workers: int = 1


@dataclass(frozen=True)
class Found:
    """What a run has found of its input, written once, so that no shard has to search again.

    Parameters
    ----------
    cohort : Cohort
        Without the cases that were left out.
    layout : dict
        Of the output.
    splits : tuple of Split
        Folds of the input, or those made.
    left_out : dict
        Case to reason.
    """

    cohort: Cohort
    layout: dict[str, Any]
    splits: tuple[Split, ...]
    left_out: dict[str, str]


@cache
def _adapter() -> TypeAdapter[Found]:
    return TypeAdapter(Found)


def write_found(output: Path, found: Found) -> None:
    """Write `found` into an output folder."""
    nifti.write_bytes(output / COHORT, _adapter().dump_json(found, indent=1) + b"\n")


def read_found(output: Path) -> Found:
    """What :func:`write_found` has written."""
    return _adapter().validate_json((output / COHORT).read_bytes())


def read_lock(output: Path) -> dict[str, Any] | None:
    """The lock of an output folder; None where there is none, empty where it cannot be read."""
    path = output / LOCK
    if not path.is_file():
        return None
    try:
        value = read_yaml(path)
    except InputError:
        value = None
    return value if isinstance(value, dict) else {}


def read_yaml(path: Path) -> Any:
    """The YAML value in a file.

    Raises
    ------
    InputError
        If it cannot be read, or is no YAML.
    """
    try:
        return yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        problem = str(error).splitlines()[0]
        raise InputError(f"cannot be read as YAML ({problem}).", file=path) from None


def no_output(output: Path) -> InputError:
    """The error of a folder that no run has written."""
    return InputError(
        "this is no output of a run: it has no recipe.lock.yaml.",
        file=output,
        remedy="Give the folder that `lesionsynth run` has written.",
    )


def kept_recipe(kept: Any, path: Path) -> Recipe:
    """The recipe that a lock holds; `path` is that of the lock.

    Raises
    ------
    InputError
        If it is none of this version, with these packages.
    """
    try:
        return Recipe.model_validate(kept)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"holds a recipe that this version cannot read: {where}: {first['msg']}.",
            file=path,
            remedy="Use the version of lesionsynth that the file names, and the packages of its kinds.",
        ) from None


def plan_digest(output: Path) -> str | None:
    """Digest of plan and cohort as they lie in an output folder; None where one is missing."""
    try:
        return digest_bytes(*((output / name).read_bytes() for name in (COHORT, PLAN)))
    except OSError:
        return None


def planned(output: Path, lock: dict[str, Any] | None = None) -> tuple[Workspace, Found]:
    """The workspace of a run that is planned, by the lock in the folder or the one that is given.

    Raises
    ------
    OutputError
        If there is no plan, or it is not the one that was made.
    """
    lock = read_lock(output) if lock is None else lock
    if not lock or lock.get("plan") is None:
        raise OutputError(
            "the folder holds no finished plan." if output.is_dir() else "the folder does not exist.",
            file=output,
            remedy="Give the output folder of `lesionsynth run`; before shards it is made by "
            "`lesionsynth plan RECIPE --input DATA --output FOLDER`.",
        )
    if lock["plan"] != plan_digest(output):
        raise OutputError(
            f"{PLAN} or {COHORT} is not the one that recipe.lock.yaml names.",
            file=output,
            remedy="Plan the run again with `lesionsynth plan ... --update`, or choose another folder.",
        )
    try:
        recipe, found = Recipe.model_validate(lock["recipe"]), read_found(output)
        layout = OutputSpec.model_validate({"layout": found.layout}).layout
    except (ValidationError, KeyError, ValueError) as error:
        raise OutputError(f"the plan cannot be read ({error}).", file=output) from None
    assert isinstance(layout, LayoutSpec)
    space = Workspace(recipe, found.cohort, layout, output / BANK, output, output, str(lock["key"]))
    return space, found


@lru_cache(maxsize=1)
def of_worker(output: Path, bank: Path, fits: Path, plan: str, device: str, workers: int) -> Workspace:
    """The workspace as a worker keeps it: a cohort of ten thousand cases is not sent with every job."""
    space = replace(planned(output)[0], bank=bank, fits=fits, device=device, workers=workers)
    if plan_digest(output) != plan:
        raise OutputError("the plan was changed while the run went on.", file=output)
    return space


def inside(folder: Path, path: Path) -> Path:
    """`folder`/`path`, which must not lead out of the folder."""
    target = folder / path
    if path.is_absolute() or ".." in path.parts or not target.resolve().is_relative_to(folder.resolve()):
        raise LesionsynthError(f"the path {path} would leave the output folder.", file=folder)
    return target
