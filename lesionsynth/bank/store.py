"""The bank on disk: one data file a case, one SQLite index.

The index is written once, by one writer, and opened read-only afterwards (also from network file
systems). Voxels are read one lesion at a time, so the size of the bank does not matter. Nothing in it
is ever unpickled: arrays are raw bytes whose sizes the index states and the reader checks.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lesionsynth import gzip_io, nifti
from lesionsynth.bank.harvest import CaseSummary
from lesionsynth.domain.grid import Grid
from lesionsynth.domain.lesion import ChannelStats, Lesion, LesionInfo, Site
from lesionsynth.domain.load import LesionLoad
from lesionsynth.errors import InputError

FORMAT = 1
INDEX = "index.sqlite"

_SCHEMA = """
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


@dataclass(frozen=True, eq=False)
class Harvested:
    """What a worker hands back of one case: no voxels."""

    summary: CaseSummary
    entries: tuple[Entry, ...]
    file: str


@dataclass(frozen=True, eq=False)
class Candidates:
    """Compact columns of the lesions that may be drawn, in the order of their names."""

    ids: NDArray[np.int64]
    volume_mm3: NDArray[np.float64]
    subject: NDArray[np.object_]


def write_case(folder: Path, summary: CaseSummary, lesions: Sequence[Lesion]) -> Harvested:
    """Write the voxels of one case's lesions, and its tissue map; safe to run in parallel."""
    name = summary.case.replace("/", ".")
    blob = bytearray()
    entries = []
    for lesion in lesions:
        mask = gzip_io.compress(lesion.label.tobytes() + lesion.rim.tobytes())
        image = gzip_io.compress(lesion.image.tobytes()) if lesion.info.channels else b""
        entries.append(Entry(lesion.info, len(blob), len(mask), len(image)))
        blob += mask + image
    file = f"lesions/{name}.bin"
    nifti.write_bytes(folder / file, bytes(blob), sync=False)
    if summary.tissue is not None:
        nifti.write(_tissue_path(folder, summary.case), nifti.new(summary.grid, summary.tissue), sync=False)
    return Harvested(_without_tissue(summary), tuple(entries), file)


def _without_tissue(summary: CaseSummary) -> CaseSummary:
    return CaseSummary(**{**vars(summary), "tissue": None})


def _tissue_path(folder: Path, case: str) -> Path:
    return folder / "tissue" / f"{case}.nii.gz"


def write_index(folder: Path, harvested: Iterable[Harvested], about: dict[str, object]) -> None:
    """Write the index, sorted by case; it appears whole or not at all."""
    temporary = folder / f".tmp-{os.getpid()}-{INDEX}"
    temporary.unlink(missing_ok=True)
    connection = sqlite3.connect(temporary)
    try:
        connection.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;" + _SCHEMA)
        for key, value in {"format": FORMAT, **about}.items():
            connection.execute("INSERT INTO about VALUES (?, ?)", (key, json.dumps(value)))
        for case_id, item in enumerate(sorted(harvested, key=lambda h: h.summary.case), start=1):
            connection.execute("INSERT INTO cases VALUES (?,?,?,?,?,?,?,?)", _case_row(case_id, item.summary))
            connection.executemany(
                "INSERT INTO lesions VALUES (NULL,?,?,?,?,?,?,?,?,?,?,?)",
                (_lesion_row(case_id, item.file, entry) for entry in item.entries),
            )
        connection.commit()
    finally:
        connection.close()
    os.replace(temporary, folder / INDEX)


def _case_row(case_id: int, summary: CaseSummary) -> tuple[object, ...]:
    details = {
        "shape": summary.grid.shape,
        "affine": summary.grid.affine.ravel().tolist(),
        "tissue_kind": summary.tissue_kind,
        "tissue_box": summary.tissue_box and [(s.start, s.stop) for s in summary.tissue_box],
        "tissue_stats": summary.tissue_stats,
        "quantiles": summary.quantiles,
        "source_hashes": summary.source_hashes,
    }
    load = summary.load
    return (case_id, summary.case, summary.subject, summary.has_images, load.ml, load.count, load.tissue_ml, json.dumps(details))  # fmt: skip


def _lesion_row(case_id: int, file: str, entry: Entry) -> tuple[object, ...]:
    info = entry.info
    classes = "".join(f"/{v}" for v in info.classes) + "/"
    details = {k: v for k, v in asdict(info).items() if k not in ("lesion", "case", "subject", "volume_mm3")}
    return (info.lesion, case_id, info.subject, info.volume_mm3, classes, bool(info.channels), file,
            entry.start, entry.mask_bytes, entry.image_bytes, json.dumps(details))  # fmt: skip


class LesionBank:
    """A bank opened for reading.

    Parameters
    ----------
    folder : Path
        Where :func:`write_index` has written.

    Raises
    ------
    InputError
        If there is no bank, or one of another format.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / INDEX
        if not path.is_file():
            raise InputError(
                "there is no lesion bank here.", file=folder, remedy="Make one with `lesionsynth bank build`."
            )
        try:
            # immutable: no locks, which network file systems often lack, and no writing by accident
            self._db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
            rows = self._db.execute("SELECT key, value FROM about").fetchall()
            self.about: dict[str, object] = {key: json.loads(value) for key, value in rows}
        except (sqlite3.DatabaseError, ValueError) as error:
            raise self._damaged(error) from None
        if self.about.get("format") != FORMAT:
            raise InputError(
                f"the lesion bank has format {self.about.get('format')}, {FORMAT} was expected.",
                file=path,
                remedy="Build it again with this version.",
            )

    def close(self) -> None:
        """Close the index."""
        self._db.close()

    def __enter__(self) -> LesionBank:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _damaged(self, why: object) -> InputError:
        return InputError(f"the lesion bank is damaged ({why}).", file=self.folder, remedy="Build it again.")

    def cases(self) -> list[CaseSummary]:
        """All cases and mask-only subjects, sorted by name, without their tissue."""
        return [_case_of(row) for row in self._db.execute(f"{_CASE_QUERY} ORDER BY id")]

    def case(self, name: str) -> CaseSummary:
        """One case, without its tissue.

        Raises
        ------
        InputError
            If the bank has no such case.
        """
        row = self._db.execute(f"{_CASE_QUERY} WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise InputError(f"the lesion bank has no case {name}.", file=self.folder)
        return _case_of(row)

    def tissue(self, case: str) -> NDArray[np.uint8]:
        """Tissue codes of a case, as found when the bank was built."""
        return np.asarray(nifti.read(_tissue_path(self.folder, case)).raw, dtype=np.uint8)

    def candidates(
        self,
        subjects: Iterable[str],
        *,
        with_image: bool = True,
        lesion_class: int | None = None,
        min_volume_mm3: float = 0.0,
        max_volume_mm3: float = float("inf"),
    ) -> Candidates:
        """Lesions of `subjects` that pass the filters, by name."""
        wanted = "%" if lesion_class is None else f"%/{lesion_class}/%"
        rows: list[tuple[int, float, str]] = []
        for subject in sorted(set(subjects)):
            rows += self._db.execute(
                "SELECT id, volume_mm3, subject FROM lesions WHERE subject = ? AND volume_mm3 BETWEEN ? AND ? "
                "AND has_image >= ? AND classes LIKE ?",
                (subject, min_volume_mm3, max_volume_mm3, int(with_image), wanted),
            ).fetchall()
        rows.sort()
        return Candidates(
            np.array([r[0] for r in rows], dtype=np.int64),
            np.array([r[1] for r in rows], dtype=np.float64),
            np.array([r[2] for r in rows], dtype=object),
        )

    def infos(self, subjects: Iterable[str] | None = None) -> Iterator[LesionInfo]:
        """Index entries in the order of the cases, of some subjects or all."""
        for row in self._rows(subjects):
            yield _info_of(row)

    def shapes(self, subjects: Iterable[str]) -> Iterator[tuple[LesionInfo, NDArray[np.uint16]]]:
        """Index entry and label crop of every lesion of `subjects`, one at a time."""
        for row in self._rows(subjects):
            info = _info_of(row)
            yield info, self._mask(info, row)[0]

    def _rows(self, subjects: Iterable[str] | None) -> Iterator[tuple[object, ...]]:
        wanted = None if subjects is None else set(subjects)
        for row in self._db.execute(f"{_LESION_QUERY} ORDER BY lesions.id"):
            if wanted is None or row[2] in wanted:
                yield row

    def _row(self, column: str, key: int | str) -> tuple[object, ...]:
        row: tuple[object, ...] | None = self._db.execute(
            f"{_LESION_QUERY} WHERE lesions.{column} = ?", (key,)
        ).fetchone()
        if row is None:
            raise InputError(f"the lesion bank has no lesion {key}.", file=self.folder)
        return row

    def info(self, number: int) -> LesionInfo:
        """Index entry of a lesion by its id in :class:`Candidates`."""
        return _info_of(self._row("id", number))

    def read(self, name: str) -> Lesion:
        """A lesion with its voxels, by its name.

        Raises
        ------
        InputError
            If the bank has no such lesion, or its voxels are damaged.
        """
        row = self._row("name", name)
        info = _info_of(row)
        label, rim = self._mask(info, row)
        image = np.empty((0, *info.shape_vox), dtype=np.float32)
        if info.channels:
            shape = (len(info.channels), *info.shape_vox)
            data = self._bytes(str(row[6]), int(row[7]) + int(row[8]), int(row[9]), 4 * int(np.prod(shape)))
            image = np.frombuffer(data, dtype=np.float32).reshape(shape)
        return Lesion(info, image, label, rim)

    def _mask(
        self, info: LesionInfo, row: tuple[object, ...]
    ) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
        n_vox = int(np.prod(info.shape_vox))
        data = self._bytes(str(row[6]), int(row[7]), int(row[8]), 3 * n_vox)  # type: ignore[call-overload]
        label = np.frombuffer(data, dtype=np.uint16, count=n_vox).reshape(info.shape_vox)
        rim = np.frombuffer(data, dtype=np.uint8, offset=2 * n_vox, count=n_vox).reshape(info.shape_vox)
        return label, rim != 0

    def _bytes(self, file: str, start: int, size: int, expected: int) -> bytes | memoryview:
        path = self.folder / file
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise self._damaged(f"{file} lies outside it")
        try:
            with path.open("rb") as stream:
                stream.seek(start)
                data = gzip_io.decompress(stream.read(size), expected)
        except (OSError, gzip_io.GzipError) as error:
            raise self._damaged(f"{file}: {error}") from None
        if len(data) != expected:
            raise self._damaged(f"{file}: a lesion has {len(data)} bytes, {expected} were expected")
        return data


_CASE_QUERY = "SELECT name, subject, has_images, load_ml, count, tissue_ml, details FROM cases"
_LESION_QUERY = (
    "SELECT lesions.name, cases.name, lesions.subject, volume_mm3, lesions.details, lesions.id, file, start, "
    "mask_bytes, image_bytes FROM lesions JOIN cases ON cases.id = case_id"
)


def _case_of(row: tuple[object, ...]) -> CaseSummary:
    name, subject, has_images, ml, count, tissue_ml, text = row
    details = json.loads(str(text))
    box = details["tissue_box"]
    return CaseSummary(
        case=str(name),
        subject=str(subject),
        grid=Grid(tuple(details["shape"]), np.reshape(details["affine"], (4, 4))),
        load=LesionLoad(float(ml), int(count), float(tissue_ml)),  # type: ignore[arg-type, call-overload]
        has_images=bool(has_images),
        tissue_kind=details["tissue_kind"],
        tissue=None,
        tissue_box=None if box is None else (slice(*box[0]), slice(*box[1]), slice(*box[2])),
        tissue_stats=[tuple(pair) for pair in details["tissue_stats"]],
        quantiles=details["quantiles"],
        source_hashes=details["source_hashes"],
    )


def _info_of(row: tuple[object, ...]) -> LesionInfo:
    details = json.loads(str(row[4]))
    site = details["site"]
    return LesionInfo(
        lesion=str(row[0]),
        case=str(row[1]),
        subject=str(row[2]),
        classes=tuple(details["classes"]),
        volume_mm3=float(row[3]),  # type: ignore[arg-type]
        centre_vox=tuple(details["centre_vox"]),
        origin_vox=tuple(details["origin_vox"]),
        shape_vox=tuple(details["shape_vox"]),
        axes_mm=tuple(details["axes_mm"]),
        channels=tuple(ChannelStats(**c) for c in details["channels"]),
        site=None if site is None else Site(**site),
        source_hash=details["source_hash"],
    )
