"""Write a data set of whole generated cases, image and label."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

import lesionsynth
from lesionsynth import nifti
from lesionsynth.derived import joined
from lesionsynth.digest import digest_json
from lesionsynth.domain.case import CaseFiles, Cohort, LabelTable
from lesionsynth.domain.grid import Grid
from lesionsynth.errors import InputError, LesionsynthError, OutputError
from lesionsynth.generative.checkpoint import Card, read_card
from lesionsynth.generative.codes import Sampling, draw_code
from lesionsynth.json_file import read_json
from lesionsynth.plugins.contracts import LayoutSpec
from lesionsynth.recipe.model import InputSpec
from lesionsynth.rng import stream
from lesionsynth.run.cohort import open_cohort
from lesionsynth.run.folder import check_output, claim
from lesionsynth.run.input_faults import GENERATED
from lesionsynth.run.pool import Progress
from lesionsynth.run.workspace import RECORDS, inside

if TYPE_CHECKING:
    from lesionsynth.run.formats import GeneratedRecord, GeneratedSet, ModelUsed

_TRIES = 500
"""Draws of a case of which none could be used before it is given up."""
_LAYOUT = "generated"
"""Of the cohort that layouts are given: no layout has files of it."""


@dataclass(frozen=True)
class Wish:
    """What is to be generated.

    Parameters
    ----------
    count : int
        Cases.
    sampling : str
        Where codes are drawn, see :func:`lesionsynth.generative.codes.draw_code`.
    spread : float
        Factor on the standard deviation of the draws.
    seed : int
    """

    count: int
    sampling: Sampling
    spread: float
    seed: int


def generate(
    model: Path,
    output: Path,
    wish: Wish,
    layout: LayoutSpec | Literal["same"],
    progress: Progress,
    like: Path | None = None,
) -> GeneratedSet:
    """Generate a data set; the same call goes on with what was stopped, and comes to the same voxels.

    Parameters
    ----------
    model : Path
        Checkpoint of a kind hvae.
    output : Path
    wish : Wish
    layout : LayoutSpec or "same"
        Of the output; the same is that of `like`.
    progress : Progress
    like : Path, optional
        Data set with the same channels and labels, whose layout and file ending are taken.

    Raises
    ------
    LesionsynthError
        If the model cannot be used or too little of what it gives, or `output` holds something else.
    """
    card = read_card(model, ("hvae",))
    cohort = _cohort(card, model)
    if like is not None:
        found, there = open_cohort(InputSpec(), like)[:2]
        _check_like(cohort, there)
        layout = found if layout == "same" else layout
        cohort = replace(cohort, file_ending=there.file_ending)
        check_output(like, output, marker=GENERATED)
    if model.resolve().is_relative_to(output.resolve()):
        raise OutputError(
            "the output folder holds the model.", file=output, remedy="Choose a folder elsewhere."
        )
    check_output(model, output, marker=GENERATED)
    if layout == "same":
        raise InputError(
            "the layout cannot be the same as that of a data set which is not named.",
            remedy="Name a layout, or give --input-like.",
        )
    used: ModelUsed = {
        "kind": card.kind,
        "weights": card.weights,
        "block": card.block,
        "subjects": list(card.subjects),
    }
    told: GeneratedSet = {
        "lesionsynth": lesionsynth.__version__,
        "model": used,
        "settings": {
            "layout": layout.model_dump(mode="json"),
            "file_ending": cohort.file_ending,
            **vars(wish),
        },
    }
    from lesionsynth.generative.hvae_models import open_hvae

    opened = open_hvae(model)
    claim(output, GENERATED, told)
    progress.start("generate", wish.count)
    rows = []
    for number in range(wish.count):
        files = _files(number, cohort, layout)
        path = output / RECORDS / f"{files.case}.json"
        row = _there(path)
        if row is None:
            row = _write(output, files, cohort, layout, _drawn(opened, wish, number, used, files.case))
            nifti.write_bytes(path, (json.dumps(row, indent=1) + "\n").encode())
        rows.append(row)
        progress.advance()
    named = [(row["case"], _files(k, cohort, layout)) for k, row in enumerate(rows)]
    for name, content in layout.description(cohort, named).items():
        nifti.write_bytes(inside(output, Path(name)), content)
    rejected: Counter[str] = Counter()
    for row in rows:
        rejected.update(row["rejected"])
    told["cases"] = [row["case"] for row in rows]
    told["accepted"] = round(wish.count / (wish.count + rejected.total()), 6)
    told["rejected"] = dict(sorted(rejected.items()))
    told["voxels"] = digest_json([[row["case"], row["hashes"]] for row in rows])
    nifti.write_bytes(output / GENERATED, _text(told))
    return told


@dataclass(frozen=True, eq=False)
class _Pair:
    """A generated case in memory: its images in units of the training cases, its label, its record."""

    images: NDArray[np.float32]
    label: NDArray[np.unsignedinteger]
    spacing_mm: float
    record: GeneratedRecord


def _drawn(model: Any, wish: Wish, number: int, used: ModelUsed, case: str) -> _Pair:
    """Draw codes until one can be used."""
    rejected: Counter[str] = Counter()
    for attempt in range(_TRIES):
        rng = stream(wish.seed, "generate", number, attempt)
        code, near = cast(Any, draw_code(model.codes, wish.sampling, wish.spread, rng))
        image, classes = model.pair(code)
        reason = model.refusal(classes)
        if reason is not None:
            rejected[reason] += 1
            continue
        record = {
            "case": case,
            "host": None,
            "model": used,
            "sampling": wish.sampling,
            "spread": wish.spread,
            "code": code,
            "from": [{"lesion": near.name, "case": near.case, "subject": near.subject}] if near else [],
            "rejected": dict(sorted(rejected.items())),
            "hashes": {},
            "lesionsynth": lesionsynth.__version__,
        }
        label = np.array([0, *model.values])[classes]
        return _Pair(
            np.stack([np.atleast_3d(channel) for channel in model.in_units(image)]),
            np.atleast_3d(label).astype(np.uint8 if max(model.values) < 256 else np.uint16),
            model.spacing_mm,
            cast("GeneratedRecord", record),
        )
    reasons = "; ".join(f"{count} x {reason}" for reason, count in rejected.most_common())
    raise LesionsynthError(
        f"none of {_TRIES} generated samples can be used ({reasons}).",
        case=case,
        remedy="Use --sampling neighbourhood or a smaller --spread, or train for longer.",
    )


def _write(output: Path, files: CaseFiles, cohort: Cohort, layout: LayoutSpec, pair: _Pair) -> dict[str, Any]:
    """Write the files of a case; its record."""
    shape = pair.label.shape
    affine = np.diag([*(pair.spacing_mm,) * 3, 1.0])
    affine[:3, 3] = -pair.spacing_mm * (np.array(shape) - 1) / 2
    grid = Grid((shape[0], shape[1], shape[2]), affine)
    images = [nifti.new(grid, np.asfortranarray(channel)) for channel in pair.images]
    stored = {
        path: joined([images[k] for k in channels], [images[k].slabs for k in channels])
        for path, channels in layout.image_files(files, files.case, cohort).items()
    }
    stored[layout.label_path(files, files.case, cohort)] = nifti.new(grid, pair.label).stored
    for path, content in stored.items():
        nifti.write_bytes(inside(output, path), *nifti.content(path, content))
    hashes = {path.as_posix(): content.slabs.digest for path, content in stored.items()}
    return {**pair.record, "hashes": hashes}


def _cohort(card: Card, path: Path) -> Cohort:
    """Channels and labels that a model was trained on, as a cohort without cases."""
    try:
        labels = LabelTable(dict(card.about["label_values"]), dict(card.about["label_roles"]))
        channels = tuple(str(name) for name in card.about["channel_names"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"cannot be used ({type(error).__name__}: {error}).", file=path) from None
    return Cohort(path.parent, _LAYOUT, channels, labels, ())


def _check_like(cohort: Cohort, there: Cohort) -> None:
    """Refuse a data set whose images or labels mean something else than those of the model."""
    for what, ours, theirs in (
        ("channels", cohort.channels, there.channels),
        ("labels", dict(cohort.labels.values), dict(there.labels.values)),
    ):
        if ours != theirs:
            raise InputError(
                f"has the {what} {theirs}; the model was trained on {ours}.",
                file=there.root,
                remedy="Give a data set of the same kind, or leave out --input-like.",
            )


def _files(number: int, cohort: Cohort, layout: LayoutSpec) -> CaseFiles:
    case = f"gen{number:04d}"
    empty = tuple(Path(f"{case}_{k:04d}{cohort.file_ending}") for k in range(len(cohort.channels)))
    return CaseFiles(case, case, empty, Path(f"{case}{cohort.file_ending}"))


def _there(path: Path) -> dict[str, Any] | None:
    """The record of a case that was written earlier; it is written last."""
    return cast("dict[str, Any]", read_json(path)) if path.is_file() else None


def _text(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
