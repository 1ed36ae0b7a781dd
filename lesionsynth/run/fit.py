"""Build the bank, and fit on each block's subjects what its jobs draw from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lesionsynth import nifti
from lesionsynth.bank.harvest import BankSpec, CaseSummary, harvest, harvest_mask, summarise
from lesionsynth.bank.store import (
    LesionBank,
    forget_case,
    keep_only,
    note_case,
    noted_case,
    write_case,
    write_index,
)
from lesionsynth.channels import read_channels, resampled_text
from lesionsynth.digest import digest_json, file_states
from lesionsynth.domain.case import CaseFiles, Cohort, MaskFile
from lesionsynth.domain.grid import Grid
from lesionsynth.domain.likelihood import LikelihoodMap
from lesionsynth.domain.load import LesionLoad
from lesionsynth.errors import InputError, LeakError, LesionsynthError
from lesionsynth.host import load_case
from lesionsynth.likelihood.affine import register
from lesionsynth.likelihood.fit import chosen_kind, fit_map
from lesionsynth.likelihood.spec import LikelihoodSpec
from lesionsynth.recipe.model import Recipe
from lesionsynth.run.folds import Block
from lesionsynth.run.models import Model
from lesionsynth.run.pool import Engine, Failure, Progress, run_all
from lesionsynth.tissue import TissueSpec, side_file


def build_bank(
    cohort: Cohort, recipe: Recipe, folder: Path, engine: Engine, progress: Progress
) -> tuple[LesionBank, list[Failure]]:
    """Harvest every case and mask of a cohort into `folder`; failures are returned, not raised.

    A bank that is there already is used if it was made from the same files with the same settings; what it
    lacks of them is tried again.
    """
    folder = folder.absolute()  # workers may be elsewhere
    keys = case_keys(cohort, recipe)
    about: dict[str, object] = {"key": bank_key(keys)}
    with_images = set(cohort.subjects)
    found: list[CaseFiles | MaskFile] = [
        *cohort.cases,
        *(mask for mask in cohort.masks if mask.subject not in with_images),
    ]
    names = [item.name for item in found]
    with suppress(InputError):  # there is none, or it is damaged
        bank = LesionBank(folder)
        if bank.about.get("key") == about["key"] and {case.case for case in bank.cases()}.issuperset(names):
            progress.note(f"lesion bank: {folder} is up to date.")
            return bank, []
        bank.close()
    there = {name for name in names if noted_case(folder, name, keys[name]) is not None}
    if there:
        progress.note(f"lesion bank: {len(there)} of {len(found)} cases are there already.")
    alone = replace(cohort, cases=(), masks=())  # a worker needs the labels, not ten thousand cases
    items: list[tuple[str, tuple[Any, ...]]] = [
        (item.name, (item, alone, recipe.tissue, recipe.bank, folder, keys[item.name]))
        for item in found
        if item.name not in there
    ]
    failures: list[Failure] = []
    for result in run_all(_harvest, items, stage="harvest", engine=engine, progress=progress):
        if isinstance(result, Failure):
            failures.append(result)
        else:
            there.add(result)
    wanted = {c.case for c in cohort.cases} or set(names)
    if failures and (recipe.input.on_bad_case == "error" or not there & wanted):
        raise min(failures, key=lambda f: f.name).error
    # One after the other: what is known of ten thousand cases would fill the memory.
    noted = (noted_case(folder, name, keys[name]) for name in sorted(there))
    write_index(folder, (harvested for harvested in noted if harvested is not None), about)
    keep_only(folder, there)
    return LesionBank(folder), failures


def case_key(item: CaseFiles | MaskFile, cohort: Cohort, recipe: Recipe) -> str:
    """What a harvest depends on: files of the case (by size and time), names, tissue and crop settings."""
    if isinstance(item, MaskFile):
        paths = [item.path]
    else:
        beside = [side_file(p, item, cohort.root) for p in (recipe.tissue.map, recipe.tissue.brain_mask) if p]
        paths = [*item.images, item.label, *beside]
    return digest_json(
        [
            file_states(paths),
            (item.name, item.subject),
            cohort.channels,  # their names decide how tissue is found
            dict(cohort.labels.values),
            dict(cohort.labels.roles),
            cohort.resample,
            recipe.tissue.model_dump(mode="json"),
            recipe.bank.model_dump(mode="json"),
        ]
    )


def case_keys(cohort: Cohort, recipe: Recipe) -> dict[str, str]:
    """:func:`case_key` of every case and mask by its name in the bank."""
    found: list[CaseFiles | MaskFile] = [*cohort.cases, *cohort.masks]
    return {item.name: case_key(item, cohort, recipe) for item in found}


def bank_key(keys: Mapping[str, str]) -> str:
    """What a bank depends on: the keys of its cases."""
    return digest_json(dict(keys))


def _harvest(
    item: CaseFiles | MaskFile, cohort: Cohort, tissue: TissueSpec, spec: BankSpec, folder: Path, key: str
) -> str:
    forget_case(folder, item.name)
    if isinstance(item, MaskFile):
        summary, lesions = harvest_mask(item, cohort.labels.lesion[0], spec)
        digests = {cohort.name_of(item.path): digest for digest in summary.source_hashes.values()}
        made = write_case(folder, replace(summary, source_hashes=digests), lesions)
    else:
        case = load_case(item, cohort, tissue)
        made = write_case(folder, summarise(case), harvest(case, spec))
    note_case(folder, made, key)
    return made.summary.case


@dataclass(frozen=True)
class Fit:
    """What the jobs of one block draw from. JSON on disk, beside the block's likelihood map.

    Parameters
    ----------
    block : str
        Its name.
    subjects : tuple of str
        Subjects that donors may come from.
    fitted_on : tuple of str
        Subjects that loads and likelihood map were fitted on.
    loads : tuple of LesionLoad
        One entry per case or mask of these.
    typical_count : int
        Median of the numbers of lesions of those that have some, a half rounded up.
    map_file : str
        The likelihood map, relative to the output.
    map_kind : str
        Kind of the map: `grid`, `organ`, `affine` or `map`.
    map_hash : str
        Digest of its voxels and of where they lie.
    registrations : dict
        For `affine`: case to the 4x4 matrix, by rows, from reference to case millimetres (RAS+).
    models : dict of str to Model
        Trained models that the block's lesions come from, by the path in the recipe.
    """

    block: str
    subjects: tuple[str, ...]
    fitted_on: tuple[str, ...]
    loads: tuple[LesionLoad, ...]
    typical_count: int
    map_file: str
    map_kind: str
    map_hash: str
    registrations: dict[str, list[float]]
    models: dict[str, Model]

    @property
    def digest(self) -> str:
        """Digest of all that jobs draw from, but for where each host lies on the map."""
        about = {k: v for k, v in asdict(self).items() if k not in ("block", "map_file", "registrations")}
        about["models"] = sorted((model["file"], model["kind"]) for model in about["models"].values())
        return digest_json(about)

    def write(self, folder: Path) -> None:
        """Write likelihood/<block>.json under `folder`."""
        text = json.dumps(asdict(self), indent=1)
        nifti.write_bytes(folder / "likelihood" / f"{self.block}.json", text.encode())

    @classmethod
    def read(cls, folder: Path, block: str) -> Fit:
        """Read what :meth:`write` has written."""
        value = json.loads((folder / "likelihood" / f"{block}.json").read_text())
        loads = tuple(LesionLoad(**load) for load in value.pop("loads"))
        lists: dict[str, Any] = {k: tuple(value.pop(k)) for k in ("subjects", "fitted_on")}
        models = {
            name: Model(model["file"], model["kind"], tuple(model["subjects"]), model["beside"])
            for name, model in value.pop("models", {}).items()
        }
        return cls(**value, **lists, loads=loads, models=models)

    def map(self, folder: Path) -> LikelihoodMap:
        """The likelihood map as it was written."""
        image = nifti.read(folder / self.map_file)
        return LikelihoodMap(image.values(), image.grid, self.map_kind, self.fitted_on)


def fit_blocks(
    blocks: Sequence[Block],
    bank: LesionBank,
    cohort: Cohort,
    recipe: Recipe,
    folder: Path,
    engine: Engine,
    progress: Progress,
    models: Mapping[str, dict[str, Model]],
) -> dict[str, Fit]:
    """Fit loads and likelihood map of every block and write them under `folder`/likelihood."""
    cases = [case for case in bank.cases() if case.has_images]
    kind, why = chosen_kind(recipe.likelihood, cases)
    progress.note(why)
    kinds = Counter(case.tissue_kind for case in cases)
    if len(kinds) > 1:
        found = ", ".join(f"{count} by {kind}" for kind, count in sorted(kinds.items(), key=str))
        progress.note(
            f"tissue was found in different ways ({found} cases): places of lesions are not compared between "
            "them. `tissue.kind: mask` takes all alike."
        )
    if told := resampled_text(cohort.resample, [case.resampled for case in cases]):
        progress.note(told)
    fits = {}
    progress.start("likelihood", len(blocks))
    for block in blocks:
        fit = _fit_block(block, bank, cohort, recipe.likelihood, kind, folder, engine, progress)
        fits[block.name] = replace(fit, models=models.get(block.name, {}))
        fits[block.name].write(folder)
        progress.advance()
    for path in (folder / "likelihood").iterdir():
        if path.name.partition(".")[0] not in fits:  # of an earlier plan
            path.unlink()
    return fits


def _fit_block(
    block: Block,
    bank: LesionBank,
    cohort: Cohort,
    spec: LikelihoodSpec,
    kind: str,
    folder: Path,
    engine: Engine,
    progress: Progress,
) -> Fit:
    chosen = set(block.subjects) | set(block.mask_subjects)
    cases = [case for case in bank.cases() if case.subject in chosen]
    if not cases:
        raise LeakError(
            f"no subject is left in {block.name} after the leak rule.",
            remedy="Use fewer folds, or folds.strategy per_fold or none.",
        )
    registrations: dict[str, Any] = {}
    reference: Grid | None = None
    if kind == "affine":
        reference, registrations = _register(block, cases, cohort, spec, engine, progress)
    likelihood, notes = fit_map(
        bank, chosen, kind, spec, root=cohort.root, reference=reference, registrations=registrations
    )
    for note in notes:
        progress.note(f"{block.name}: {note}")
    map_file = f"likelihood/{block.name}.nii.gz"
    image = nifti.new(likelihood.grid, likelihood.density)
    nifti.write(folder / map_file, image)
    return Fit(
        block=block.name,
        subjects=block.subjects,
        fitted_on=tuple(sorted({case.subject for case in cases})),
        loads=tuple(case.load for case in cases),
        typical_count=typical_count([case.load.count for case in cases]),
        map_file=map_file,
        map_kind=likelihood.kind,
        map_hash=map_digest(image),
        registrations={case: np.asarray(matrix).ravel().tolist() for case, matrix in registrations.items()},
        models={},
    )


def typical_count(counts: Sequence[int]) -> int:
    """Lesions that a case with lesions typically has, a half rounded up; controls say nothing of it."""
    some = [count for count in counts if count]
    return int(np.ceil(np.median(some))) if some else 0


def map_digest(image: nifti.Image) -> str:
    """Digest of a likelihood map: its voxels and where they lie."""
    return digest_json([image.voxel_hash, image.grid.affine.tolist()])


def _register(
    block: Block,
    cases: Sequence[CaseSummary],
    cohort: Cohort,
    spec: LikelihoodSpec,
    engine: Engine,
    progress: Progress,
) -> tuple[Grid, dict[str, Any]]:
    """Register the block's cases onto the reference: the recipe's, or the block's first case."""
    channel = 0
    if spec.channel is not None:
        if spec.channel not in cohort.channels:
            raise LesionsynthError(
                f"likelihood.channel is {spec.channel!r}; the channels are {', '.join(cohort.channels)}."
            )
        channel = cohort.channels.index(spec.channel)
    names = sorted({case.case for case in cases if case.has_images} | set(block.hosts))
    reference = cohort.root / spec.reference if spec.reference else cohort.case(names[0])
    items = [(name, (name, cohort.case(name), reference, channel)) for name in names]
    found: dict[str, Any] = {}
    for result in run_all(
        _register_one, items, stage=f"register {block.name}", engine=engine, progress=progress
    ):
        if isinstance(result, Failure):
            raise result.error
        found[result[0]] = result[1]
    return _scan(reference, channel).grid, found


def _register_one(name: str, moving: CaseFiles, reference: CaseFiles | Path, channel: int) -> tuple[str, Any]:
    return name, register(_scan(moving, channel), _scan(reference, channel))


def _scan(where: CaseFiles | Path, channel: int) -> nifti.Image:
    """An image, or a channel of a case."""
    return nifti.read(where) if isinstance(where, Path) else read_channels(where)[channel]
