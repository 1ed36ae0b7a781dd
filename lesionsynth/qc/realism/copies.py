"""What a run has changed in a copy: lesions that were added, and places where lesions were removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionsynth import nifti
from lesionsynth.domain.case import CaseFiles
from lesionsynth.domain.grid import Box, grown, origin_of
from lesionsynth.editing.canvas import FIRST_DONOR, inserted
from lesionsynth.host import LoadedCase, load_case, read_label
from lesionsynth.json_file import read_json
from lesionsynth.kernels.components import components, dilated
from lesionsynth.kernels.distance import voxel_scale
from lesionsynth.kernels.tissue import WHITE, is_solid
from lesionsynth.qc.realism import features
from lesionsynth.qc.realism.lesions import (
    Seen,
    Way,
    chosen,
    fitting_lesions,
    in_crop,
    lesion_seen,
    name_of,
    place_look,
)
from lesionsynth.rng import stream
from lesionsynth.run.ledger import draws_of

_ADDED_FROM = 0.5
"""A component is an added lesion if at least so much of it was no lesion in the host, or one that is gone."""
_FAR_MM = 10.0
"""An added lesion whose centre lies farther from every recorded one is nobody's."""
_LEAST_WHITE = 0.75
_TRIES = 2000
_ALIKE_MM = 10.0
"""Places that lie deeper than this are alike."""


@dataclass(frozen=True)
class CopyFiles:
    """A synthetic case on the disk.

    Parameters
    ----------
    case : str
    host : CaseFiles
        In the real data set.
    files : CaseFiles
        The copy's own images and label map. Case and subject are the host's: a tissue map or brain mask is
        found by them.
    record : Path
    donors : mapping of str to Path
        Label maps of cases that lesions may be carved from.
    source_map : Path or None
    """

    case: str
    host: CaseFiles
    files: CaseFiles
    record: Path
    donors: Mapping[str, Path]
    source_map: Path | None = None


@dataclass(frozen=True)
class CopySeen:
    """Added lesions of a copy, places that were filled, and untouched places like them."""

    case: str
    n_added: int
    n_filled: int
    added: list[Seen]
    filled: list[Seen]
    clean: list[Seen]


def look_at_copy(way: Way, copy: CopyFiles, rim_vox: int) -> CopySeen:
    """Look at one copy; `rim_vox` is by how much its fills were grown."""
    case = load_case(copy.files, way.cohort, way.tissue)
    _, host_label = read_label(copy.host.case, copy.host.label, way.cohort.labels)
    before = np.isin(host_label, way.cohort.labels.lesion)
    record = read_json(copy.record)
    draws = draws_of(record, "insert")
    # An added lesion may lie where one was removed.
    removals = draws_of(record, "remove")
    removed = [draw["lesion"] for draw in removals]
    stayed = before & ~np.isin(components(before)[0], removed) if removed else before
    labels, boxes = case.lesions
    fitting = [
        number
        for number in fitting_lesions(case, way.bank)
        if (~stayed[boxes[number - 1]][labels[boxes[number - 1]] == number]).mean() >= _ADDED_FROM
    ]
    known = _Donors(copy, case, draws)
    added = []
    for number in chosen(fitting, way.most, way.seed, copy.case, "lesions"):
        group = known.of(number) or f"{copy.case}/{number} is nobody's"
        behind = tuple(record["fitted_on"])
        added.append(lesion_seen(case, number, copy.host.case, group, copy.case, behind))
    halo = max((width for draw in removals for width in draw.get("halo", ())), default=0)
    places = _Places(way, copy, case, before, rim_vox, rim_vox + halo)
    return CopySeen(copy.case, len(fitting), len(places.gone), added, *places.pairs())


class _Donors:
    """Finds the real lesion that an added one looks like."""

    def __init__(self, copy: CopyFiles, case: LoadedCase, draws: Sequence[dict[str, Any]]) -> None:
        self.copy, self.case, self.draws = copy, case, draws
        self.source = None if copy.source_map is None else np.asarray(nifti.read(copy.source_map).raw)
        self._carved: dict[str, NDArray[np.integer]] = {}

    def of(self, number: int) -> str | None:
        """Name of the donor lesion, or None where none is known."""
        labels, boxes = self.case.lesions
        box = boxes[number - 1]
        mask = labels[box] == number
        draw = self._draw(mask, box)
        if draw is None:
            return None
        donor = draw.get("donor", {})
        if "from" in donor:  # shape and look; the look comes last
            return str(donor["from"][-1]["lesion"]) if donor["from"] else None
        if donor.get("lesion") is not None:
            return str(donor["lesion"])
        return self._carved_from(str(draw["case"]), mask, box)[1]

    def _draw(self, mask: NDArray[np.bool_], box: Box) -> dict[str, Any] | None:
        """The edit that made a component: by source map, else by the nearest centre or what was carved."""
        if self.source is not None:
            source = self.source[box][mask]
            made = source[inserted(source)].astype(np.int64) - FIRST_DONOR
            made = made[made < len(self.draws)]
            return self.draws[int(np.bincount(made).argmax())] if made.size else None
        spacing = np.asarray(self.case.grid.spacing_mm)
        places = (np.argwhere(mask) + np.array(origin_of(box))) * spacing
        nearest: tuple[float, dict[str, Any]] | None = None
        for draw in self.draws:
            if "centre_vox" in draw:
                away = places - np.asarray(draw["centre_vox"]) * spacing
                distance = float(np.sqrt((away**2).sum(axis=1).min()))
                # Of two lesions that have grown together it is the one nearer to the middle of the whole.
                distance += 1e-3 * float(np.linalg.norm(away.mean(axis=0)))
                if distance <= _FAR_MM and (nearest is None or distance < nearest[0]):
                    nearest = (distance, draw)
        if nearest is not None:
            return nearest[1]
        return self._carving(mask, box)

    def _carving(self, mask: NDArray[np.bool_], box: Box) -> dict[str, Any] | None:
        """The draw that has carved a component: of the donor lesion that lies under it, if that is drawn."""
        carved = [draw for draw in self.draws if "centre_vox" not in draw]
        cases = sorted({str(draw["case"]) for draw in carved} & set(self.copy.donors))
        found = [(*self._carved_from(case, mask, box), case) for case in cases]
        count, name, of_case = max(found, key=lambda item: item[0], default=(0, None, ""))
        if not count:
            return None
        own = [draw for draw in carved if draw["case"] == of_case]
        return next((draw for draw in own if draw["donor"].get("lesion") in (name, None)), None)

    def _carved_from(self, case: str, mask: NDArray[np.bool_], box: Box) -> tuple[int, str | None]:
        """Voxels that a component shares with a donor's lesions in place, and the lesion it shares most."""
        if case not in self._carved:
            stored = nifti.read(self.copy.donors[case]).values()
            self._carved[case] = components(np.isin(stored, self.case.labels.lesion))[0]
        labels = self._carved[case]
        if labels.shape != self.case.grid.shape:
            return 0, None
        under = labels[box][mask]
        under = under[under > 0]
        if not under.size:
            return 0, None
        return int(under.size), name_of(case, int(np.bincount(under).argmax()))


class _Places:
    """Places of removed lesions, and for each an untouched one of the same shape in the same image."""

    def __init__(
        self,
        way: Way,
        copy: CopyFiles,
        case: LoadedCase,
        before: NDArray[np.bool_],
        rim_vox: int,
        reach_vox: int,
    ) -> None:
        self.way, self.copy, self.case, self.rim_vox = way, copy, case, rim_vox
        labels, boxes = components(before)
        self.labels, self.boxes = labels, boxes
        now = case.lesion_mask
        least = max(way.bank.min_voxels, way.bank.min_volume_mm3 / case.grid.voxel_volume_mm3)
        self.gone = []
        for number, box in enumerate(boxes, start=1):
            own = labels[box] == number
            if np.count_nonzero(own) >= least and not now[box][own].any():
                self.gone.append(number)
        self.near = dilated(before | now, reach_vox + 1) if self.gone else before
        self.free = is_solid(case.tissue) & ~case.untouchable & ~self.near

    def pairs(self) -> tuple[list[Seen], list[Seen]]:
        """Filled and untouched places, one of each for every place that has its like."""
        filled, clean = [], []
        for number in chosen(self.gone, self.way.most, self.way.seed, self.copy.case, "places"):
            mask = self.labels[self.boxes[number - 1]] == number
            origin = np.array(origin_of(self.boxes[number - 1]))
            if (other := self._like(number, mask, origin)) is not None:
                filled.append(self._seen(number, mask, origin))
                clean.append(self._seen(number, mask, other))
        return filled, clean

    def _like(self, number: int, mask: NDArray[np.bool_], origin: NDArray[Any]) -> NDArray[Any] | None:
        """Where it fits into clean tissue, as deep in it and as far from the ventricles as can be."""
        case, margin = self.case, self.rim_vox
        wide = dilated(np.pad(mask, margin), margin)
        whole, own = np.argwhere(wide) - margin, np.argwhere(mask)
        few = whole[:: max(1, len(whole) // 64)]  # most places that do not fit are found out by a few voxels
        centre = np.rint(own.mean(axis=0)).astype(int)
        places = np.flatnonzero(case.clean_tissue & self.free)
        if not places.size:
            return None
        rng = stream(self.way.seed, "realism", "place", self.copy.host.case, number)
        tries = rng.choice(places, min(_TRIES, places.size), replace=False)
        depth = self._depth_mm(own + origin)
        best: tuple[float, NDArray[Any]] | None = None
        for at in np.stack(np.unravel_index(tries, case.grid.shape), axis=1) - centre:
            low, high = whole.min(axis=0) + at, whole.max(axis=0) + at
            if (low < 0).any() or (high >= case.grid.shape).any():
                continue
            at_whole = tuple((whole + at).T)
            if not self.free[tuple((few + at).T)].all():
                continue
            if not self.free[at_whole].all() or (case.tissue[at_whole] == WHITE).mean() < _LEAST_WHITE:
                continue
            unlike = float(np.abs(self._depth_mm(own + at) - depth).sum())
            if best is None or unlike < best[0]:
                best = (unlike, at)
        return None if best is None else best[1]

    def _depth_mm(self, places: NDArray[Any]) -> NDArray[np.float64]:
        """Distance from the tissue's edge and, where they are known, from the ventricles."""
        at = tuple(places.T)
        maps = [distance for distance in self.case.site_distances_mm if distance is not None]
        return np.array([min(float(distance[at].min()), _ALIKE_MM) for distance in maps])

    def _seen(self, number: int, mask: NDArray[np.bool_], origin: NDArray[Any]) -> Seen:
        case = self.case
        i, j, k = (slice(int(o), int(o) + n) for o, n in zip(origin, mask.shape, strict=True))
        box: Box = (i, j, k)
        spacing = case.grid.spacing_mm
        rim_mm = self.rim_vox * min(spacing) / voxel_scale(spacing)
        around = grown(box, features.margin_vox(spacing), case.grid.shape)
        a, b, c = (int(v) for v in np.rint(np.argwhere(mask).mean(axis=0) + origin))
        return Seen(
            self.copy.case,
            self.copy.host.case,
            self.copy.host.subject,
            name_of(self.copy.host.case, number),
            number,
            float(np.count_nonzero(mask)) * case.grid.voxel_volume_mm3,
            (a, b, c),
            place_look(case, in_crop(mask, box, around), around, rim_mm),
        )
