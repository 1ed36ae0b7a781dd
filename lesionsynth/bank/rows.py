"""Rows of the bank's index, to and from what they stand for."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, TypedDict

import numpy as np

from lesionsynth.bank.harvest import CaseSummary
from lesionsynth.domain.grid import Grid
from lesionsynth.domain.lesion import ChannelStats, LesionInfo, Site
from lesionsynth.domain.load import LesionLoad

SCHEMA = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE cases (
    id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, subject TEXT NOT NULL, has_images INTEGER NOT NULL,
    load_ml REAL NOT NULL, count INTEGER NOT NULL, tissue_ml REAL NOT NULL, details TEXT NOT NULL);
CREATE TABLE lesions (
    id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, case_id INTEGER NOT NULL REFERENCES cases(id),
    subject TEXT NOT NULL, volume_mm3 REAL NOT NULL, classes TEXT NOT NULL, has_image INTEGER NOT NULL,
    file TEXT NOT NULL, start INTEGER NOT NULL, mask_bytes INTEGER NOT NULL, image_bytes INTEGER NOT NULL,
    details TEXT NOT NULL);
CREATE INDEX lesions_by_subject ON lesions (subject, volume_mm3);
"""


@dataclass(frozen=True)
class Entry:
    """One lesion of a harvested case: its index entry and where its voxels lie."""

    info: LesionInfo
    start: int
    mask_bytes: int
    image_bytes: int


class CaseDetails(TypedDict):
    """What a row of the table `cases` holds as JSON."""

    shape: tuple[int, ...]
    """Voxels along each axis."""
    affine: list[float]
    """4x4 matrix from voxels to millimetres (RAS+), by rows."""
    tissue_kind: str | None
    """How tissue was found: `map`, `mixture`, `organ` or `mask`; `null` for masks alone."""
    tissue_box: list[tuple[int, int]] | None
    """Bounds of the tissue in voxels, along each axis."""
    tissue_stats: list[tuple[float, float]]
    """Median and spread of the tissue, per channel."""
    quantiles: list[list[float]]
    """257 quantiles, per channel."""
    source_hashes: dict[str, str]
    """Digest of each of its files, by path in the input."""
    resampled: tuple[str, ...]
    """Channels that were resampled."""
    tissue_hash: str
    """Digest of tissue and zones; empty for masks alone."""


CASE_QUERY = "SELECT name, subject, has_images, load_ml, count, tissue_ml, details FROM cases"
LESION_QUERY = (
    "SELECT lesions.name, cases.name, lesions.subject, volume_mm3, lesions.details, lesions.id, file, start, "
    "mask_bytes, image_bytes FROM lesions JOIN cases ON cases.id = case_id"
)

Row = tuple[Any, ...]
"""A row of one of these queries; its types are those of the schema, unless the index is damaged."""


def case_row(case_id: int, summary: CaseSummary) -> tuple[object, ...]:
    """Row of the table `cases`."""
    details: CaseDetails = {
        "shape": summary.grid.shape,
        "affine": summary.grid.affine.ravel().tolist(),
        "tissue_kind": summary.tissue_kind,
        "tissue_box": summary.tissue_box and [(s.start, s.stop) for s in summary.tissue_box],
        "tissue_stats": summary.tissue_stats,
        "quantiles": summary.quantiles,
        "source_hashes": summary.source_hashes,
        "resampled": summary.resampled,
        "tissue_hash": summary.tissue_hash,
    }
    load = summary.load
    named = (summary.case, summary.subject, summary.has_images)
    return (case_id, *named, load.ml, load.count, load.tissue_ml, json.dumps(details))


def lesion_row(case_id: int, file: str, entry: Entry) -> tuple[object, ...]:
    """Row of the table `lesions` without its id, which the index gives."""
    info = entry.info
    classes = "".join(f"/{v}" for v in info.classes) + "/"
    details = {k: v for k, v in asdict(info).items() if k not in ("lesion", "case", "subject", "volume_mm3")}
    named = (info.lesion, case_id, info.subject, info.volume_mm3, classes, bool(info.channels))
    return (*named, file, entry.start, entry.mask_bytes, entry.image_bytes, json.dumps(details))


def case_of(row: Row) -> CaseSummary:
    """The case of a row of :data:`CASE_QUERY`, without its tissue."""
    name, subject, has_images, ml, count, tissue_ml, text = row
    details = json.loads(str(text))
    box = details["tissue_box"]
    return CaseSummary(
        case=str(name),
        subject=str(subject),
        grid=Grid(tuple(details["shape"]), np.reshape(details["affine"], (4, 4))),
        load=LesionLoad(float(ml), int(count), float(tissue_ml)),
        has_images=bool(has_images),
        tissue_kind=details["tissue_kind"],
        tissue=None,
        tissue_box=None if box is None else (slice(*box[0]), slice(*box[1]), slice(*box[2])),
        tissue_stats=[tuple(pair) for pair in details["tissue_stats"]],
        quantiles=details["quantiles"],
        source_hashes=details["source_hashes"],
        resampled=tuple(details["resampled"]),
        tissue_hash=details["tissue_hash"],
    )


def info_of(row: Row) -> LesionInfo:
    """The lesion of a row of :data:`LESION_QUERY`."""
    details = json.loads(str(row[4]))
    site = details["site"]
    return LesionInfo(
        lesion=str(row[0]),
        case=str(row[1]),
        subject=str(row[2]),
        classes=tuple(details["classes"]),
        volume_mm3=float(row[3]),
        centre_vox=tuple(details["centre_vox"]),
        origin_vox=tuple(details["origin_vox"]),
        shape_vox=tuple(details["shape_vox"]),
        axes_mm=tuple(details["axes_mm"]),
        channels=tuple(ChannelStats(**c) for c in details["channels"]),
        site=None if site is None else Site(**site),
        source_hash=details["source_hash"],
    )
