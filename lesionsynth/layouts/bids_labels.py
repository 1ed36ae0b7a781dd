"""Names and values of the labels of BIDS masks and segmentations."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from lesionsynth.domain.case import CaseFiles
from lesionsynth.errors import InputError
from lesionsynth.layouts.bids_names import parse

BINARY = {"background": 0, "lesion": 1}
"""Labels of a mask."""


def label_values(cases: Sequence[CaseFiles], root: Path) -> dict[str, int]:
    """Names and values of the labels, the same for every case: those of a mask, or of tables dseg.tsv.

    Raises
    ------
    InputError
        If there are masks and segmentations, a table is missing or faulty, or two differ.
    """
    segmentations = [case for case in cases if _is_segmentation(case)]
    if not segmentations:
        return dict(BINARY)
    if len(segmentations) < len(cases):
        other = next(case for case in cases if not _is_segmentation(case))
        raise InputError(
            "is a mask, those of other cases are segmentations (dseg).",
            case=other.case,
            file=other.label,
            remedy="Say which are meant under `input.layout.mask`.",
        )
    tables: dict[Path, dict[str, int]] = {}
    for case in segmentations:
        path = _table_of(case, root)
        if path not in tables:
            tables[path] = _read_table(path)
            if tables[path] != next(iter(tables.values())):
                raise InputError(
                    f"names other labels than {next(iter(tables))}.",
                    case=case.case,
                    file=path,
                    remedy="Give one table for all, or `input.layout.labels`.",
                )
    return next(iter(tables.values()))


def table_text(values: Mapping[str, int]) -> str:
    """A dseg.tsv."""
    rows = sorted((value, " ".join(name.split())) for name, value in values.items())
    return "".join(["index\tname\n", *(f"{value}\t{name}\n" for value, name in rows)])


def _is_segmentation(case: CaseFiles) -> bool:
    name = parse(case.label.name)
    return name is not None and name.suffix == "dseg"


def _table_of(case: CaseFiles, root: Path) -> Path:
    """The table that applies to a segmentation: beside it or further up, the nearest."""
    name = parse(case.label.name)
    folder = case.label.parent
    while name is not None and folder.is_relative_to(root):
        for path in sorted(folder.glob("*dseg.tsv")):
            *parts, suffix = path.name.removesuffix(".tsv").split("_")
            pairs = [part.partition("-")[::2] for part in parts]
            known = {"sub": name.subject, "ses": name.session, **name.entities}
            if suffix == "dseg" and all(known.get(key) == value for key, value in pairs):
                return path
        folder = folder.parent
    raise InputError(
        "there is no table of its labels (dseg.tsv with the columns index and name).",
        case=case.case,
        file=case.label,
        remedy="Add it, or name the labels under `input.layout.labels`, such as {background: 0, lesion: 1}.",
    )


def _read_table(path: Path) -> dict[str, int]:
    """Label names and values of a dseg.tsv."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
            values = {str.strip(row["name"]): int(row["index"]) for row in rows}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"cannot be read ({error}).",
            file=path,
            remedy="It should have the columns index (whole numbers) and name, parted by tabs.",
        ) from None
    if len(values) < len(rows) or len(set(values.values())) < len(rows):
        raise InputError("names a label twice.", file=path)
    if bad := [name for name, value in values.items() if not 0 <= value < 65536]:
        raise InputError(f'label "{bad[0]}" should have an index from 0 to 65535.', file=path)
    if 0 not in values.values():
        values = {"background": 0, **values}
    return values
