"""The bank on disk: one data file a case, one SQLite index.

The index is written once, by one writer, and opened read-only afterwards (also from network file
systems). Voxels are read one lesion at a time, so the size of the bank does not matter. Nothing in it
is ever unpickled: arrays are raw bytes whose sizes the index states and the reader checks.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from lesionsynth import gzip_io, nifti
from lesionsynth.bank.harvest import CaseSummary
from lesionsynth.bank.rows import (
    CASE_QUERY,
    LESION_QUERY,
    SCHEMA,
    Entry,
    Row,
    case_of,
    case_row,
    info_of,
    lesion_row,
)
from lesionsynth.domain.lesion import Lesion, LesionInfo
from lesionsynth.errors import InputError, OutputError
from lesionsynth.host import Known

FORMAT = 4
INDEX = "index.sqlite"
_KEPT_BYTES = 1 << 27
"""Voxels of lesions that an open bank keeps: a few donors are drawn again and again."""


@dataclass(frozen=True, eq=False)
class Harvested:
    """What a worker hands back of one case: no voxels."""

    summary: CaseSummary
    entries: tuple[Entry, ...]
    file: str


@dataclass(frozen=True, eq=False)
class Candidates:
    """Compact columns of the lesions that may be drawn, by case and component."""

    ids: NDArray[np.int64]
    volume_mm3: NDArray[np.float64]
    subject: NDArray[np.object_]


def _bytes_of(lesion: Lesion) -> int:
    """Memory of its voxels."""
    return lesion.image.nbytes + lesion.label.nbytes + lesion.rim.nbytes


def write_case(folder: Path, summary: CaseSummary, lesions: Sequence[Lesion]) -> Harvested:
    """Write the voxels of one case's lesions, its tissue map and its zones; safe to run in parallel."""
    blob = bytearray()
    entries = []
    for lesion in lesions:
        mask = gzip_io.compress(lesion.label.tobytes() + lesion.rim.tobytes())
        image = gzip_io.compress(lesion.image.tobytes()) if lesion.info.channels else b""
        entries.append(Entry(lesion.info, len(blob), len(mask), len(image)))
        blob += mask + image
    file = f"lesions/{_file_name(summary.case)}.bin"
    nifti.write_bytes(folder / file, bytes(blob))
    if summary.tissue is not None:
        nifti.write(_tissue_path(folder, summary.case), nifti.new(summary.grid, summary.tissue))
    if summary.zones is not None:
        nifti.write(_zones_path(folder, summary.case), nifti.new(summary.grid, summary.zones))
    return Harvested(replace(summary, tissue=None, zones=None), tuple(entries), file)


def note_case(folder: Path, harvested: Harvested, key: str) -> None:
    """Note that a case is harvested, so that a build that was stopped, or comes again, need not do it anew.

    `key` tells what it was made of.
    """
    noted = {
        "format": FORMAT,
        "key": key,
        "file": harvested.file,
        "case": case_row(0, harvested.summary)[1:],
        "lesions": [
            [*lesion_row(0, harvested.file, entry), harvested.summary.case] for entry in harvested.entries
        ],
    }
    path = _note_path(folder, harvested.summary.case)
    nifti.write_bytes(path, (json.dumps(noted) + "\n").encode())


def forget_case(folder: Path, case: str) -> None:
    """Have a case no longer noted: its files are about to change, and an index that names them is none."""
    _note_path(folder, case).unlink(missing_ok=True)
    (folder / INDEX).unlink(missing_ok=True)


def keep_only(folder: Path, cases: Iterable[str]) -> None:
    """Remove the lesions and maps of all other cases: they may be of people who have withdrawn."""
    names = {_file_name(case) for case in cases}
    endings = {"cases": ".json", "lesions": ".bin", "tissue": ".nii.gz", "zones": ".nii.gz"}
    for part, ending in endings.items():
        for path in (folder / part).glob(f"*{ending}"):
            if path.name.removesuffix(ending) not in names:
                path.unlink()


def noted_case(folder: Path, case: str, key: str) -> Harvested | None:
    """What :func:`note_case` has noted under this key, if the files are still there."""
    try:
        noted = json.loads(_note_path(folder, case).read_text())
        if (noted["format"], noted["key"]) != (FORMAT, key):
            return None
        entries = []
        for row in noted["lesions"]:
            name, _, subject, volume, _, _, _, start, mask_bytes, image_bytes, details, of_case = row
            info = info_of((name, of_case, subject, volume, details))
            entries.append(Entry(info, start, mask_bytes, image_bytes))
        summary, file = case_of(tuple(noted["case"])), str(noted["file"])
        size = sum(entry.mask_bytes + entry.image_bytes for entry in entries)
        there = (folder / file).stat().st_size == size and (
            not summary.has_images
            or (_tissue_path(folder, case).is_file() and _zones_path(folder, case).is_file())
        )
    except (OSError, ValueError, TypeError, LookupError):
        return None
    return Harvested(summary, tuple(entries), file) if there and summary.case == case else None


def _note_path(folder: Path, case: str) -> Path:
    return folder / "cases" / f"{_file_name(case)}.json"


def _file_name(case: str) -> str:
    """A file name for each case, another for every other; its own name where that can be one."""
    return quote(case, safe=" ")


def _tissue_path(folder: Path, case: str) -> Path:
    return folder / "tissue" / f"{_file_name(case)}.nii.gz"


def _zones_path(folder: Path, case: str) -> Path:
    return folder / "zones" / f"{_file_name(case)}.nii.gz"


def write_index(folder: Path, harvested: Iterable[Harvested], about: Mapping[str, object]) -> None:
    """Write the index of cases in the order of their names; it appears whole or not at all.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    temporary = folder / f".tmp-{os.getpid()}-{INDEX}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        with closing(sqlite3.connect(temporary)) as connection:
            _fill_index(connection, harvested, about)
        os.replace(temporary, folder / INDEX)
    except (sqlite3.OperationalError, OSError) as error:
        with suppress(OSError):
            temporary.unlink()
        raise OutputError(
            f"the lesion bank's index cannot be written ({error}).",
            file=folder / INDEX,
            remedy="Check free space and permissions, then run the same command again.",
        ) from None


def _fill_index(
    connection: sqlite3.Connection, harvested: Iterable[Harvested], about: Mapping[str, object]
) -> None:
    connection.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;" + SCHEMA)
    for key, value in {"format": FORMAT, **about}.items():
        connection.execute("INSERT INTO about VALUES (?, ?)", (key, json.dumps(value)))
    for case_id, item in enumerate(harvested, start=1):
        connection.execute("INSERT INTO cases VALUES (?,?,?,?,?,?,?,?)", case_row(case_id, item.summary))
        connection.executemany(
            "INSERT INTO lesions VALUES (NULL,?,?,?,?,?,?,?,?,?,?,?)",
            (lesion_row(case_id, item.file, entry) for entry in item.entries),
        )
    connection.commit()


class LesionBank:
    """A bank opened for reading.

    Parameters
    ----------
    folder : Path
        Where :func:`write_index` has written.

    Raises
    ------
    InputError
        If there is no bank, or one of another format. Every method raises it where the bank is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._kept: dict[str, Lesion] = {}
        self._kept_bytes = 0
        path = folder / INDEX
        if not path.is_file():
            raise InputError(
                "there is no lesion bank here.", file=folder, remedy="Make one with `lesionsynth bank build`."
            )
        with self._reading(INDEX):
            # immutable: no locks, which network file systems often lack, and no writing by accident
            self._db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
        self.about: dict[str, object] = {}
        try:
            with self._reading(INDEX):
                ((size,),) = self._db.execute(
                    "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
                )
                if size != path.stat().st_size:
                    raise ValueError(f"it has {path.stat().st_size} bytes, {size} were expected")
                for key, value in self._db.execute("SELECT key, value FROM about"):
                    self.about[key] = json.loads(value)
        except InputError:
            self.close()
            raise
        if self.about.get("format") != FORMAT:
            self.close()
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

    @contextmanager
    def _reading(self, what: object) -> Iterator[None]:
        """Turn whatever a damaged bank can cause into one error."""
        try:
            yield
        except (sqlite3.Error, OSError, ValueError, TypeError, LookupError, ArithmeticError) as error:
            raise InputError(
                f"the lesion bank is damaged: {error}.",
                file=self.folder / str(what),
                remedy="Remove the folder of the bank and run the same command again.",
            ) from None

    def cases(self) -> list[CaseSummary]:
        """All cases and mask-only subjects, sorted by name, without their tissue."""
        with self._reading(INDEX):
            return [case_of(row) for row in self._db.execute(f"{CASE_QUERY} ORDER BY id")]

    def case(self, name: str) -> CaseSummary:
        """One case, without its tissue.

        Raises
        ------
        InputError
            If the bank has no such case.
        """
        with self._reading(INDEX):
            row = self._db.execute(f"{CASE_QUERY} WHERE name = ?", (name,)).fetchone()
            if row is not None:
                return case_of(row)
        raise InputError(f"the lesion bank has no case {name}.", file=self.folder)

    def tissue(self, case: str) -> NDArray[np.uint8]:
        """Tissue codes of a case, as found when the bank was built."""
        return np.asarray(nifti.read(_tissue_path(self.folder, case)).raw, dtype=np.uint8)

    def known(self, summary: CaseSummary) -> Known:
        """What was found of a case with images when the bank was built, its maps included."""
        kind: Any = summary.tissue_kind
        path = _zones_path(self.folder, summary.case)
        return Known(
            self.tissue(summary.case),
            kind,
            lambda: np.asarray(nifti.read(path).raw, dtype=np.uint8),
            summary.tissue_stats,
            summary.load,
        )

    def candidates(
        self,
        subjects: Iterable[str],
        *,
        with_image: bool = True,
        lesion_class: int | None = None,
        min_volume_mm3: float = 0.0,
        max_volume_mm3: float = float("inf"),
    ) -> Candidates:
        """Lesions of `subjects` that pass the filters."""
        wanted = "%" if lesion_class is None else f"%/{lesion_class}/%"
        columns: dict[str, NDArray[Any]] = {}
        for subject in sorted(set(subjects)):
            with self._reading(INDEX):
                found = self._db.execute(
                    "SELECT id, volume_mm3 FROM lesions WHERE subject = ? AND volume_mm3 BETWEEN ? AND ? "
                    "AND has_image >= ? AND classes LIKE ?",
                    (subject, min_volume_mm3, max_volume_mm3, int(with_image), wanted),
                )
                columns[subject] = np.fromiter(found, dtype=[("id", np.int64), ("mm3", np.float64)])
        rows = np.concatenate([np.empty(0, [("id", np.int64), ("mm3", np.float64)]), *columns.values()])
        names = np.repeat(np.array([*columns], dtype=object), [len(found) for found in columns.values()])
        order = np.argsort(rows["id"])
        return Candidates(rows["id"][order], rows["mm3"][order], names[order])

    def infos(self, subjects: Iterable[str] | None = None) -> Iterator[LesionInfo]:
        """Index entries in the order of the cases, of some subjects or all."""
        for row in self._rows(subjects):
            yield self._info_of(row)

    def of_case(self, subject: str, case: str) -> list[LesionInfo]:
        """Index entries of the lesions of one case of a subject, those whose image is known."""
        return [info for info in self.infos([subject]) if info.case == case and info.channels]

    def shapes(self, subjects: Iterable[str]) -> Iterator[tuple[LesionInfo, NDArray[np.uint16]]]:
        """Index entry and label crop of every lesion of `subjects`, one at a time."""
        for row in self._rows(subjects):
            info = self._info_of(row)
            yield info, self._mask(info, row)[0]

    def _rows(self, subjects: Iterable[str] | None) -> Iterator[Row]:
        only = "" if subjects is None else " WHERE lesions.subject IN (SELECT value FROM json_each(?))"
        values = [] if subjects is None else [json.dumps(sorted(set(subjects)))]
        with self._reading(INDEX):
            found = self._db.execute(f"{LESION_QUERY}{only} ORDER BY lesions.id", values)
        while True:
            with self._reading(INDEX):
                row = found.fetchone()
            if row is None:
                return
            yield row

    def _row(self, column: str, key: int | str) -> Row:
        with self._reading(INDEX):
            row: Row | None = self._db.execute(
                f"{LESION_QUERY} WHERE lesions.{column} = ?", (key,)
            ).fetchone()
        if row is None:
            raise InputError(f"the lesion bank has no lesion {key}.", file=self.folder)
        return row

    def info(self, number: int) -> LesionInfo:
        """Index entry of a lesion by its id in :class:`Candidates`."""
        return self._info_of(self._row("id", number))

    def read(self, name: str) -> Lesion:
        """A lesion with its voxels, by its name; those read last are kept, and none may be changed.

        Raises
        ------
        InputError
            If the bank has no such lesion, or its voxels are damaged.
        """
        if name not in self._kept:
            lesion = self._read(name)
            self._kept[name] = lesion
            self._kept_bytes += _bytes_of(lesion)
            while self._kept_bytes > _KEPT_BYTES:
                self._kept_bytes -= _bytes_of(self._kept.pop(next(iter(self._kept))))
            return lesion
        return self._kept[name]

    def _read(self, name: str) -> Lesion:
        row = self._row("name", name)
        info = self._info_of(row)
        label, rim = self._mask(info, row)
        shape = (len(info.channels), *info.shape_vox)
        if not info.channels:
            return Lesion(info, np.empty(shape, dtype=np.float32), label, rim)
        file, start, mask_bytes, image_bytes = row[6:]
        with self._reading(file):
            data = self._bytes(file, start + mask_bytes, image_bytes, 4 * int(np.prod(shape)))
            image = np.frombuffer(data, dtype=np.float32).reshape(shape)
        return Lesion(info, image, label, rim)

    def _info_of(self, row: Row) -> LesionInfo:
        with self._reading(INDEX):
            return info_of(row)

    def _mask(self, info: LesionInfo, row: Row) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
        file, start, mask_bytes, _ = row[6:]
        with self._reading(file):
            n_vox = int(np.prod(info.shape_vox))
            data = self._bytes(file, start, mask_bytes, 3 * n_vox)
            label = np.frombuffer(data, dtype=np.uint16, count=n_vox).reshape(info.shape_vox)
            rim = np.frombuffer(data, dtype=np.uint8, offset=2 * n_vox).reshape(info.shape_vox)
        return label, rim != 0

    def _bytes(self, file: str, start: int, size: int, expected: int) -> bytes | memoryview:
        path = self.folder / file
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise ValueError("it lies outside the bank")
        with path.open("rb") as stream:
            stream.seek(start)
            data = gzip_io.decompress(stream.read(max(0, size)), expected)
        if len(data) != expected:
            raise ValueError(f"a lesion has {len(data)} bytes, {expected} were expected")
        return data
