"""Some cases of an output in pictures: three planes through an edited lesion, some slice by slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesionsynth.bank.store import LesionBank
from lesionsynth.domain.case import CaseFiles, Cohort
from lesionsynth.errors import InputError, LesionsynthError
from lesionsynth.host import LoadedCase, load_case
from lesionsynth.likelihood.over_host import density_over
from lesionsynth.qc.pictures.pair import Edits, Pair, Place, lead_channel, pair_of, places
from lesionsynth.qc.pictures.panels import grey, picture_size
from lesionsynth.qc.pictures.slices import PLANES, Cut, Orientation, cut_of, cut_of_box
from lesionsynth.qc.report.gather import Copy
from lesionsynth.qc.report.layers import Layers, data_uri, layers_of
from lesionsynth.run.fit import Fit
from lesionsynth.run.ledger import read_record
from lesionsynth.run.plan import Job
from lesionsynth.run.workspace import BANK, Workspace

if TYPE_CHECKING:
    from lesionsynth.run.formats import Record

MOST_CHANNELS = 4
MOST_SLICES = 64
"""Slices of a case that is shown slice by slice; of more, an even choice."""
MOST_BLOCKS = 3
_MAP_PX = 260
_LIKELY = 0.5
"""Share of the highest density from which on a voxel may be one that the planes of a map go through."""
_WARM = np.array((230, 159, 0))


@dataclass(frozen=True)
class Shown:
    """A case in pictures.

    Parameters
    ----------
    copy : Copy
    why : str
        Why it was chosen; empty where it is one of many.
    place : Place or None
        What the three planes go through.
    channels : tuple of (str, tuple of (str, Layers))
        Planes by channel, the one in which lesions stand out most first.
    stack : Layers or None
        Axial slices.
    fault : str
        Why there are no pictures; empty where there are.
    """

    copy: Copy
    why: str
    place: Place | None = None
    channels: tuple[tuple[str, tuple[tuple[str, Layers], ...]], ...] = ()
    stack: Layers | None = None
    fault: str = ""


class Pictures:
    """Draws cases of an output.

    Parameters
    ----------
    space : Workspace
    cohort : Cohort
        Of the input as it is now, for hosts that the output does not hold.
    bank : LesionBank
    """

    def __init__(self, space: Workspace, cohort: Cohort, bank: LesionBank) -> None:
        self.space, self.cohort, self.bank = space, cohort, bank

    def shown(self, copy: Copy, why: str, job: Job, with_stack: bool) -> Shown:
        """One copy; a fault where its files, or its host's, cannot be read."""
        try:
            host = self._load(job.host, job.host)
            edited = self._load(job.host, job.case)
        except LesionsynthError as error:
            return Shown(copy, why, fault=str(error))
        edits = Edits.of(host, edited.label, self._record(job.case))
        lead = lead_channel(host, edits, [image.raw for image in edited.images])
        order = [lead, *(k for k in range(len(host.images)) if k != lead)][:MOST_CHANNELS]
        pairs = [self._pair(host, edits, channel, edited) for channel in order]
        found = places(edits, 1)
        if not found:
            return Shown(copy, why, fault="no lesion was added or removed, as far as the label maps tell.")
        channels = tuple(
            (pair.channel, tuple((plane, _plane(pair, found[0], plane)) for plane in PLANES))
            for pair in pairs
        )
        stack = _stack(pairs[0], found[0]) if with_stack else None
        return Shown(copy, why, found[0], channels, stack)

    def _record(self, case: str) -> Record | None:
        record: Any = read_record(self.space.output, case)
        return record

    def _pair(self, host: LoadedCase, edits: Edits, channel: int, edited: LoadedCase) -> Pair:
        name = self.space.cohort.channels[channel]
        return pair_of(host, edits, channel, name, edited.images[channel].raw)

    def _load(self, host: str, case: str) -> LoadedCase:
        """A case from the output, or a host from the input where the output does not hold it.

        Raises
        ------
        InputError
            If a file cannot be read, or the input's are not those that the run has read.
        """
        planned = self.space.cohort.case(host)
        inside = _in_output(self.space, planned, case)
        summary = self.bank.case(host)
        known = self.bank.known(summary)
        if case != host or inside.label.is_file():
            return load_case(inside, self.space.cohort, self.space.recipe.tissue, known)
        cohort = self.cohort
        files = next((files for files in cohort.cases if files.case == host), None)
        if files is None or cohort.channels != self.space.cohort.channels:
            raise InputError("is not in the input, or with other channels.", case=host, file=cohort.root)
        loaded = load_case(files, cohort, self.space.recipe.tissue, known)
        if loaded.source_hashes != summary.source_hashes:
            raise InputError("its files are not those that the run has read.", case=host, file=cohort.root)
        return loaded

    def map_over(self, job: Job, fit: Fit) -> list[tuple[str, str]]:
        """The likelihood map of a job's block over its host: planes, and pictures as data URIs."""
        host = self._load(job.host, job.host)
        matrix = fit.registrations.get(job.host)
        registration = None if matrix is None else np.reshape(matrix, (4, 4))
        floor = self.space.recipe.likelihood.floor
        voxels, cumulated = density_over(host, fit.map(self.space.fits), floor, registration)
        flat = np.zeros(host.label.size, np.float32)
        flat[voxels] = np.diff(cumulated, prepend=0.0)
        density = flat.reshape(host.label.shape, order="F")
        edits, stored = Edits.of(host, host.label, None), [image.raw for image in host.images]
        pair = self._pair(host, edits, lead_channel(host, edits, stored), host)
        cuts = [cut_of_box(pair.grid, _fullest(density), plane, pair.edits.body) for plane in PLANES]
        return [(cut.plane, _map_picture(pair, density, cut)) for cut in cuts]


def _in_output(space: Workspace, files: CaseFiles, case: str) -> CaseFiles:
    """A case made of `files`, or these themselves, in the output."""
    count = range(len(files.images))
    images = tuple(space.output / space.layout.image_path(files, case, k, space.cohort) for k in count)
    label = space.output / space.layout.label_path(files, case, space.cohort)
    return replace(files, case=case, images=images, label=label)


def _plane(pair: Pair, place: Place, plane: str) -> Layers:
    return layers_of(pair, [cut_of_box(pair.grid, place.centre_vox, plane, pair.edits.body)])


def _stack(pair: Pair, place: Place) -> Layers:
    """Axial slices that hold an edited lesion, with a margin."""
    turned = Orientation.of(pair.grid).turned(pair.edits.added | pair.edits.removed)
    edited = np.flatnonzero(turned.any(axis=(0, 1)))
    low, high = max(0, int(edited[0]) - 3), min(turned.shape[2], int(edited[-1]) + 4)
    middle = cut_of_box(pair.grid, place.centre_vox, "axial", pair.edits.body)
    step = -(-(high - low) // MOST_SLICES)
    first = low + (middle.at - low) % step  # so that the place itself is among them
    chosen = range(first, high, step)
    return layers_of(pair, [replace(middle, at=at) for at in chosen], chosen.index(middle.at))


def _fullest(density: NDArray[np.float32]) -> tuple[int, int, int]:
    """A voxel of high density whose three planes hold much of the whole."""
    likely = np.argwhere(density >= _LIKELY * density.max())
    held = [density.sum(axis=tuple({0, 1, 2} - {axis}), dtype=np.float64) for axis in range(3)]
    i, j, k = likely[np.argmax(sum(held[axis][likely[:, axis]] for axis in range(3)))]
    return int(i), int(j), int(k)


def _map_picture(pair: Pair, density: NDArray[np.float32], cut: Cut) -> str:
    orientation = Orientation.of(pair.grid)
    values = pair.image.scaled(cut_of(pair.image.raw, orientation, cut))
    ground = grey(values, pair.window)[..., None]
    share = cut_of(density, orientation, cut) / max(float(density.max()), 1e-30)
    weight = 0.85 * np.sqrt(np.clip(share, 0, 1))[..., None]
    picture = Image.fromarray((ground * (1 - weight) + _WARM * weight).astype(np.uint8))
    rows, columns = picture_size(cut, _MAP_PX)
    return data_uri(picture.resize((columns, rows), Image.Resampling.NEAREST))


def draw_cases(
    space: Workspace, cohort: Cohort, chosen: Sequence[tuple[Copy, str, Job]], stacks: int
) -> list[Shown]:
    """Pictures of the chosen copies, the first of them slice by slice too.

    `cohort` is where hosts are read that the output does not hold.
    """
    with LesionBank(space.output / BANK) as bank:
        pictures = Pictures(space, cohort, bank)
        return [
            pictures.shown(copy, why, job, with_stack=number < stacks)
            for number, (copy, why, job) in enumerate(chosen)
        ]


@dataclass(frozen=True)
class MapShown:
    """The likelihood map of a block: how it was fitted, over which host it is shown, or why it is not."""

    block: str
    kind: str
    fitted_on: int
    host: str
    pictures: tuple[tuple[str, str], ...] = ()
    fault: str = ""


def draw_maps(space: Workspace, cohort: Cohort, jobs: Sequence[Job]) -> list[MapShown]:
    """Likelihood maps of the first blocks of `jobs`."""
    first = {job.block: job for job in reversed(jobs)}
    drawn = []
    with LesionBank(space.output / BANK) as bank:
        pictures = Pictures(space, cohort, bank)
        for block in sorted(first)[:MOST_BLOCKS]:
            job = first[block]
            try:
                fit = Fit.read(space.fits, block)
                shown = tuple(pictures.map_over(job, fit))
                drawn.append(MapShown(block, fit.map_kind, len(fit.fitted_on), job.host, shown))
            except LesionsynthError as error:
                drawn.append(MapShown(block, "", 0, job.host, fault=str(error)))
            except (OSError, ValueError, TypeError, LookupError) as error:
                fault = f"likelihood/{block}.json or its map cannot be read ({error})."
                drawn.append(MapShown(block, "", 0, job.host, fault=fault))
    return drawn
