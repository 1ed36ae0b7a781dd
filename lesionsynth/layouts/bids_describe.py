"""The files that tell what a BIDS data set is: description, README, sidecars, tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lesionsynth
from lesionsynth.domain.case import CaseFiles, Cohort
from lesionsynth.errors import InputError
from lesionsynth.json_file import read_json
from lesionsynth.layouts import bids_labels
from lesionsynth.layouts.pattern import TABLE, table_text

DESCRIPTION = "dataset_description.json"
_VERSION = "1.10.0"
_NAME = "lesionsynth"
_KEPT = (
    *("License", "Authors", "Acknowledgements", "HowToAcknowledge"),
    *("Funding", "EthicsApprovals", "ReferencesAndLinks"),
)
_IMAGES = {"T1w", "T2w", "PDw", "T2starw", "FLAIR", "inplaneT1", "inplaneT2", "PDT2", "UNIT1", "angio"}
_IMAGES |= {"T1map", "T2map", "T2starmap", "R1map", "R2map", "R2starmap", "PDmap", "MTRmap", "S0map"}
_IMAGES |= {"ADC", "FA", "trace", "expADC", "colFA"}
"""Suffixes of images that BIDS knows with nothing beside them that a volume of ours does not have."""
_LABELS = {"mask", "dseg"}
_IGNORED = (
    *("/bank", "/likelihood", "/models", "/records", "/source_maps", "/lesion_maps"),
    *("/failures", "/cohort.json", "/plan.jsonl", "/manifest.csv", "/recipe.lock.yaml"),
    *("/splits_final.json", "/report.html", "/realism.json", f"/{TABLE}"),
)
_ABOUT = "Of the input; with synth in desc a synthetic copy, in which lesions were added or removed."
_README = """\
# {name}

Written by lesionsynth {version}: cases of a data set with lesion masks, and synthetic ones made of them.

- Files with `desc-synth<number>` (`desc-<before>Synth<number>` where the input's had a desc) are synthetic:
  lesions were added or removed. They have the subject and session of the case that they are made of, and
  belong on the same side of a split. Lesions may come from other subjects too: `splits_final.json`, where it
  is there, holds splits that are safe.
- All other images and masks are those of the input.
- `cases.csv` lists all cases with their files; `records/` tells what was done to each synthetic case,
  `manifest.csv` in one line a case, `recipe.lock.yaml` recipe, versions and digests.
- `.bidsignore` names what is no part of BIDS.
"""


def about_input(root: Path) -> dict[str, Any]:
    """What an input says of itself and its output says too; read at the start, so that no run fails late.

    Returns
    -------
    dict
        `description`, `sidecars` by suffix, `participants` (rows of text) and `columns` (what they mean).

    Raises
    ------
    InputError
        If any of it cannot be read.
    """
    return {
        "description": _object(root / DESCRIPTION),
        "sidecars": {suffix: _object(root / f"{suffix}.json") for suffix in sorted(_IMAGES | _LABELS)},
        "participants": _participants(root / "participants.tsv"),
        "columns": _object(root / "participants.json"),
    }


def _object(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is no file."""
    value = read_json(path) if path.is_file() else {}
    if not isinstance(value, dict):
        raise InputError("should hold a JSON object.", file=path)
    return value


def _participants(path: Path) -> list[list[str]]:
    if not path.is_file():
        return []
    try:
        rows = [line.split("\t") for line in path.read_text(encoding="utf-8-sig").splitlines() if line]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read ({error}).", file=path) from None
    if not rows or "participant_id" not in rows[0]:
        raise InputError("has no column participant_id.", file=path, remedy="Correct or remove it.")
    width = len(rows[0])  # editors leave out the last cells of a row, or add empty ones
    return [[*row, *["n/a"] * (width - len(row))][:width] for row in rows]


def wrote_it(description: Mapping[str, Any]) -> bool:
    """Whether a data set is one of ours, by the first that its description names under GeneratedBy."""
    made_by = description.get("GeneratedBy")
    first = made_by[0] if isinstance(made_by, list) and made_by else None
    return isinstance(first, dict) and first.get("Name") == _NAME


def describe(
    cohort: Cohort,
    cases: Sequence[tuple[str, CaseFiles]],
    paths: Mapping[str, Sequence[Path]],
    kind: str,
    skull_stripped: bool,
) -> dict[str, bytes]:
    """Everything that is neither image nor label map: relative path to content.

    Parameters
    ----------
    cohort : Cohort
        The input.
    cases : sequence of (str, CaseFiles)
        Every case of the output and the input case it comes from.
    paths : mapping of str to sequence of Path
        Channels and label map of each, in the output.
    kind : str
        Of the layout, by which an input of the same is known.
    skull_stripped : bool
        What is said of images of which the input does not say it.
    """
    about: Mapping[str, Any] = cohort.extra if cohort.layout == kind else {}
    own = about.get("description", {})
    name = str(own.get("Name") or cohort.root.resolve().name)
    files: dict[str, bytes] = {
        DESCRIPTION: _json(_description(name, own, cohort)),
        "README.md": _README.format(name=name, version=lesionsynth.__version__).encode(),
        TABLE: table_text(cohort, cases, paths).encode(),
    }
    suffixes = {path.name.split(".")[0].rpartition("_")[2] for group in paths.values() for path in group}
    foreign = sorted(suffixes - _IMAGES - _LABELS)
    files[".bidsignore"] = "".join(f"{p}\n" for p in (*_IGNORED, *(f"*_{s}.*" for s in foreign))).encode()
    for suffix in sorted(suffixes & (_IMAGES | _LABELS)):
        known = about.get("sidecars", {}).get(suffix, {})
        said: dict[str, Any] = {"Description": _ABOUT}
        if suffix == "mask":
            said["Type"] = "Lesion"
        if suffix in _IMAGES:
            said["SkullStripped"] = skull_stripped
        files[f"{suffix}.json"] = _json({**said, **known})
    if "dseg" in suffixes:
        files["dseg.tsv"] = bids_labels.table_text(cohort.labels.values).encode()
    if cohort.layout == kind:
        files |= _participants_of(about, {group[0].parts[0] for group in paths.values()})
        files |= _sidecars(cases, paths)
    return files


def _description(name: str, own: Mapping[str, Any], cohort: Cohort) -> dict[str, Any]:
    before = own.get("GeneratedBy")
    source: dict[str, Any] = {"URL": cohort.root.resolve().as_uri()}
    if own.get("DatasetDOI"):
        source["DOI"] = own["DatasetDOI"]
    return {
        "Name": name,
        "BIDSVersion": _VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [
            {"Name": _NAME, "Version": lesionsynth.__version__},
            *(before if isinstance(before, list) else []),
        ],
        "SourceDatasets": [source],
        **{key: own[key] for key in _KEPT if key in own},
    }


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def _participants_of(about: Mapping[str, Any], subjects: set[str]) -> dict[str, bytes]:
    """The input's table of participants, with the lines of those in the output."""
    if not about["participants"]:
        return {}
    header, *rows = about["participants"]
    column = header.index("participant_id")
    kept = {subject: [subject if k == column else "n/a" for k in range(len(header))] for subject in subjects}
    kept |= {row[column]: row for row in rows if row[column] in subjects}
    text = "".join("\t".join(row) + "\n" for row in (header, *(kept[subject] for subject in sorted(kept))))
    files = {"participants.tsv": text.encode()}
    if about["columns"]:
        files["participants.json"] = _json(about["columns"])
    return files


def _sidecars(
    cases: Sequence[tuple[str, CaseFiles]], paths: Mapping[str, Sequence[Path]]
) -> Iterator[tuple[str, bytes]]:
    """Sidecars of the input's files, beside those that they are of.

    One that has no desc applies to the copies too, which have the same name but for their desc.
    """
    read: dict[Path, tuple[Path, bytes]] = {}
    for case, files in cases:
        for source, target in zip((*files.images, files.label), paths[case], strict=True):
            if source not in read:
                read[source] = _beside(source), _bytes(_beside(source))
            elif "_desc-" not in source.name:
                continue
            path, content = read[source]
            if content:
                has_desc = "_desc-" in source.name
                yield (_beside(target) if has_desc else target.parent / path.name).as_posix(), content


def _bytes(path: Path) -> bytes:
    """Content of a file; nothing where there is none."""
    try:
        return path.read_bytes() if path.is_file() else b""
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error}).", file=path) from None


def _beside(image: Path) -> Path:
    return image.with_name(f"{image.name.removesuffix('.gz').removesuffix('.nii')}.json")
