"""Single cases made in memory, to be looked at before anything is written."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from lesionsynth import nifti
from lesionsynth.domain.case import Cohort
from lesionsynth.errors import InputError, NoRoomError, OutputError
from lesionsynth.host import LoadedCase
from lesionsynth.qc.pictures.mosaic import mosaic
from lesionsynth.qc.pictures.pair import Edits, Pair, Place, channel_number, lead_channel, pair_of, places
from lesionsynth.qc.pictures.panels import KINDS, Panels, Rgb, context, shared_width_mm
from lesionsynth.qc.pictures.slices import PLANES, Cut, cut_around, cut_of_box
from lesionsynth.recipe.model import Recipe
from lesionsynth.run import session
from lesionsynth.run.cohort import open_cohort
from lesionsynth.run.job import HostJobs, Made
from lesionsynth.run.plan import Job
from lesionsynth.run.pool import Engine, Progress
from lesionsynth.run.prepare import Prepared
from lesionsynth.run.workspace import Workspace

if TYPE_CHECKING:
    from lesionsynth.run.formats import Record

PLACES = 2
"""Lesions of a single variant that are shown."""
_MARK = "preview.txt"
"""By this file a folder of ours is known."""
_HOSTS = 20
"""Hosts that are tried for one that an edit is possible in, where none is named."""
_TILE_PX = 264
_SMALL_PX = 220
_THUMB_PX = 36
_LINE_LETTERS = 32


@dataclass(frozen=True)
class Wish:
    """A variant that is asked for: a recipe, and which copy; without a title it has the copy's name."""

    title: str
    recipe: Recipe
    number: int


@dataclass(frozen=True)
class Variant:
    """A variant that was made, and drawn.

    Parameters
    ----------
    title : str
        What tells it from the others.
    about : str
        Host and channel.
    facts : str
        Loads and counts, or why it could not be made.
    shown : tuple of (str, dict)
        Places of edited lesions, each with pictures by plane and kind; empty where nothing was made.
    record : Record or None
        As it would be written.
    thumbs : tuple of ndarray, or None
        Host and copy, small enough for a terminal.
    """

    title: str
    about: str
    facts: str
    shown: tuple[tuple[str, dict[tuple[str, str], Rgb]], ...]
    record: Record | None
    thumbs: tuple[Rgb, Rgb] | None


def variants(
    wishes: Sequence[Wish],
    root: Path,
    folder: Path,
    case: str | None,
    channel: str | None,
    progress: Progress,
    engine: Engine,
    device: str,
) -> Iterator[Variant]:
    """Make every variant of one case, as a run would write it, and draw it.

    Parameters
    ----------
    wishes : sequence of Wish
    root : Path
        The input.
    folder : Path
        Where bank, maps and plans go; what fits is used again.
    case : str, optional
        Host; where not given, the first of the plan that an edit is possible in.
    channel : str, optional
        The one that is shown; where not given, the one in which lesions stand out most.
    progress : Progress
    engine : Engine
        Who harvests.
    device : str
        As in :func:`lesionsynth.run.session.run`.

    Raises
    ------
    LesionsynthError
        If the run could not start, there is no such case or channel, or no variant could be made. One of
        several that has no room for any edit says so in its facts.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _MARK).is_file():
        raise OutputError(
            "holds other files than those of earlier previews, which this one would change.",
            file=folder,
            remedy="Give a new folder.",
        )
    _, cohort, _ = open_cohort(wishes[0].recipe.input, root)  # names are told before anything is harvested
    asked = None if channel is None else _channel(cohort, channel)
    names = [files.case for files in cohort.cases]
    if case is not None and case not in names:
        raise _no_case(case, names, root)
    at: tuple[Place, ...] = ()
    shown: tuple[int, tuple[float, float]] | None = None
    refused: list[NoRoomError] = []
    planned: tuple[Recipe, Prepared] | None = None
    for wish in wishes:
        if planned is None or planned[0] is not wish.recipe:
            planned = wish.recipe, session.plan(wish.recipe, root, folder, progress, engine, update=True)
            nifti.write_bytes(folder / _MARK, b"Bank and maps of `lesionsynth preview`; may be removed.\n")
        space = replace(planned[1].space, device=device)
        chosen = shown[0] if shown else asked
        progress.start("copy", 1)
        try:
            host, made, job = _made(space, planned[1].jobs, case, wish.number, choose=not shown)
        except NoRoomError as error:
            refused.append(error)
            yield Variant(wish.title or str(error.case), str(case), str(error), (), None, None)
            continue
        progress.advance()
        case = job.host
        edits = Edits.of(host, made.canvas.label, made.record, made.canvas.source)
        raw = made.canvas.raw
        number = lead_channel(host, edits, raw) if chosen is None else chosen
        pair = pair_of(host, edits, number, space.cohort.channels[number], raw[number])
        # Equal greys mean equal intensities in all variants.
        shown = shown or (number, pair.window)
        pair = replace(pair, window=shown[1])
        found = places(edits, PLACES if len(wishes) == 1 else 1)
        # The same place in all variants, where they have a lesion there, compares best.
        at = at if len(wishes) > 1 and at and _edited_at(pair, at[0]) else tuple(found)
        yield _drawn(wish.title or job.case, pair, at, made.record, single=len(wishes) == 1)
    if len(refused) == len(wishes):
        raise refused[0]


def _made(
    space: Workspace, jobs: Sequence[Job], case: str | None, number: int, choose: bool
) -> tuple[LoadedCase, Made, Job]:
    """A copy of a case; where none is named and `choose`, of the first one that an edit is possible in."""
    hosts = list(dict.fromkeys(job.host for job in jobs))
    if case is not None and case not in hosts:
        raise _no_case(case, hosts, space.cohort.root)
    tried = [case] if case is not None else hosts[: _HOSTS if choose else 1]
    for name in tried:
        job = [job for job in jobs if job.host == name][number]
        with closing(HostJobs(space, space.cohort.case(job.host))) as maker:
            try:
                return maker.host, maker.make(job), job
            except NoRoomError:
                if name == tried[-1]:
                    raise
    raise InputError("there is no case that copies could be made of.", file=space.cohort.root)


def _no_case(case: str, hosts: Sequence[str], root: Path) -> InputError:
    shown = ", ".join(hosts[:5]) + (f" and {len(hosts) - 5} more" if len(hosts) > 5 else "")
    return InputError(
        f"there is no case {case} that copies could be made of; there are {shown or 'none'}.",
        file=root,
        remedy="Give one of these with --case.",
    )


def _channel(cohort: Cohort, wanted: str) -> int:
    """Number of the channel that is asked for."""
    number = channel_number(cohort.channels, wanted)
    if number is None:
        raise InputError(
            f"there is no channel {wanted}; the channels are {', '.join(cohort.channels)}.",
            file=cohort.root,
            remedy="Give one of these with --channel.",
        )
    return number


def _edited_at(pair: Pair, place: Place) -> bool:
    at = place.centre_vox
    return bool(pair.edits.added[at] or pair.edits.removed[at])


def _drawn(title: str, pair: Pair, at: Sequence[Place], record: Record, single: bool) -> Variant:
    panels = Panels(pair, _TILE_PX if single else _SMALL_PX)
    shown = []
    for place in at:
        width = shared_width_mm(pair.grid, place.extent_mm)
        pictures: dict[tuple[str, str], Rgb] = {}
        for plane in PLANES:
            part = cut_around(pair.grid, place.centre_vox, plane, width)
            whole = cut_of_box(pair.grid, place.centre_vox, plane, pair.edits.body)
            pictures[plane, "where"] = context(pair, whole, part, _TILE_PX if single else _SMALL_PX)
            pictures |= {(plane, kind): draw(panels, part) for kind, draw in KINDS.items()}
        shown.append((f"{place.edit}: {place.volume_mm3:.0f} mm3", pictures))
    about = f"{record['host']['case']}, {pair.channel}"
    thumbs = _thumbs(pair, at[0]) if at else None
    return Variant(title, about, _facts(record), tuple(shown), record, thumbs)


def _thumbs(pair: Pair, place: Place) -> tuple[Rgb, Rgb]:
    """Host and copy, small enough for a terminal."""
    small = Panels(pair, _THUMB_PX)
    cut: Cut = cut_around(pair.grid, place.centre_vox, "axial", shared_width_mm(pair.grid, place.extent_mm))
    return small.host(cut), small.outlined(cut)


def _facts(record: Record) -> str:
    load, lesions = record["load_ml"], record["lesions"]
    target = "" if load["target"] is None else f" (target {load['target']:.2f})"
    return (
        f"{load['before']:.2f} -> {load['after']:.2f} mL{target}\n"
        f"{lesions['inserted']} added, {lesions['removed']} removed"
    )


def picture(made: Sequence[Variant], caption: str) -> Image.Image:
    """All variants as one picture: places and planes of a single one, or several side by side."""
    caption = f"{caption}: {made[0].about}"
    rows: list[tuple[str, list[Rgb | None]]]
    if len(made) == 1:
        (variant,) = made
        kinds = ("where", *KINDS)
        rows = [
            (f"{name}, {plane}", [pictures[plane, kind] for kind in kinds])
            for name, pictures in variant.shown
            for plane in PLANES
        ]
        return mosaic(kinds, rows, [caption, f"{variant.title}: {variant.facts}".replace("\n", "; ")])
    wanted = [("axial", kind) for kind in ("where", *KINDS)]
    wanted += [(plane, "synthetic") for plane in PLANES[1:]]
    rows = [
        (f"{kind}, {plane}", [v.shown[0][1][plane, kind] if v.shown else None for v in made])
        for plane, kind in wanted
    ]
    return mosaic([_heading(variant) for variant in made], rows, [caption])


def _heading(variant: Variant) -> str:
    lines = f"{variant.title}\n{variant.facts}".split("\n")
    return "\n".join(part for line in lines for part in textwrap.wrap(line, _LINE_LETTERS))
