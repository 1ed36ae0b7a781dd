"""Make a data set of the cases: originals, description, splits, manifest, lock."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

import lesionsynth
from lesionsynth import nifti
from lesionsynth.bank.store import LesionBank, noted_case
from lesionsynth.channels import made_anew
from lesionsynth.digest import digest_json
from lesionsynth.domain.case import CaseFiles, Cohort, Split
from lesionsynth.errors import InputError, OutputError
from lesionsynth.plugins.contracts import LayoutSpec
from lesionsynth.recipe.model import resolved
from lesionsynth.run.fit import case_key
from lesionsynth.run.folds import extended_splits
from lesionsynth.run.workspace import BANK, LOCK, Workspace, inside, plan_digest

if TYPE_CHECKING:
    from lesionsynth.run.formats import Lock

MANIFEST = "manifest.csv"
SPLITS = "splits_final.json"
_PACKAGES = ("numpy", "scipy", "nibabel", "SimpleITK", "numba", "pydantic", "isal", "deflate")
_COLUMNS = (
    *("case", "kind", "subject", "host", "copy_index", "block"),
    *("load_before_ml", "load_target_ml", "load_after_ml", "shortfall"),
    *("lesions_removed", "lesions_inserted", "own_subject_donors", "clipped_voxels", "voxel_hash"),
)


def original_files(space: Workspace, files: CaseFiles) -> dict[Path, Path]:
    """Files of a case of the input in the output, and the file of the input that each is made of."""
    images = space.layout.image_files(files, files.case, space.cohort)
    found = {path: files.images[channels[0]] for path, channels in images.items()}
    return {**found, space.layout.label_path(files, files.case, space.cohort): files.label}


def refuse_equal_paths(cohort: Cohort, layout: LayoutSpec) -> None:
    """Refuse a layout of the output in which two cases would be the same file.

    Raises
    ------
    InputError
        It names both.
    """
    seen: dict[Path, str] = {}
    for files in cohort.cases:
        paths = [layout.image_path(files, files.case, k, cohort) for k in range(len(files.images))]
        for path in (*paths, layout.label_path(files, files.case, cohort)):
            other = seen.setdefault(path, files.case)
            if other != files.case:
                raise InputError(
                    f"would have the same file as {other}, {path}, in the layout {layout.kind}.",
                    case=files.case,
                    file=cohort.root,
                    remedy="Rename one of the two, or choose another layout for the output.",
                )


def case_files(space: Workspace, files: CaseFiles, case: str) -> list[Path]:
    """Files of a synthetic case, relative to the output."""
    found = list(space.layout.image_files(files, case, space.cohort))
    found.append(space.layout.label_path(files, case, space.cohort))
    name, output = f"{case}{space.cohort.file_ending}", space.recipe.output
    found += [Path("source_maps") / name] if output.source_map else []
    return found + ([Path("lesion_maps") / name] if output.lesion_map else [])


def refuse_changed(space: Workspace) -> None:
    """Refuse originals that are no longer those that the bank was made of, and the copies with it.

    Raises
    ------
    InputError
        It names the first.
    """
    with LesionBank(space.bank) as bank:
        for files in space.cohort.cases:
            if noted_case(space.bank, files.case, case_key(files, space.cohort, space.recipe)) is not None:
                continue  # by size and time nothing of it has changed
            known = bank.case(files.case).source_hashes
            for path in (*files.image_files, files.label):
                if nifti.read(path).source_hash != known.get(space.cohort.name_of(path)):
                    raise InputError(
                        "has changed since the output was planned: the copies are of what it was.",
                        case=files.case,
                        file=path,
                        remedy="Put it back, or run (or plan) with --update, which makes again what depends "
                        "on it.",
                    )


def place_original(space: Workspace, files: CaseFiles) -> str:
    """Copy or hard-link one case of the input into the output, byte for byte unless compression differs.

    A file that is there already, of the same size and time, stays. Resampled channels are written so, and the
    volumes of a 4-D file as the layout has them.
    """
    anew = made_anew(files, space.cohort, space.layout.image_files(files, files.case, space.cohort))
    for path, stored in anew.items():
        nifti.write_bytes(inside(space.output, path), *nifti.content(path, stored))
    for path, source in original_files(space, files).items():
        if path in anew:
            continue
        target = inside(space.output, path)
        try:
            about = source.stat()
            if target.is_file() and _is_as_asked(about, target.stat(), space.recipe.output.originals):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".tmp-{os.getpid()}-{target.name}")
            temporary.unlink(missing_ok=True)
            if source.name.endswith(".gz") != target.name.endswith(".gz"):
                nifti.write(target, nifti.read(source))
                continue
            if space.recipe.output.originals != "link" or not _linked(source, temporary):
                shutil.copyfile(source, temporary)
                os.utime(temporary, ns=(about.st_atime_ns, about.st_mtime_ns))
            os.replace(temporary, target)
        except OSError as error:
            raise OutputError(
                f"cannot be written ({error.strerror or error}).",
                case=files.case,
                file=target,
                remedy="Check free space and permissions, then run the same command again.",
            ) from None
    return files.case


def _is_as_asked(source: os.stat_result, target: os.stat_result, originals: str) -> bool:
    """Whether a file is the copy that is wanted; a link to the input is none, whoever edits it edits both."""
    same = (source.st_size, source.st_mtime_ns) == (target.st_size, target.st_mtime_ns)
    return same and not (originals == "copy" and os.path.samestat(source, target))


def _linked(source: Path, target: Path) -> bool:
    """Hard-link, where the file system can and the two lie on the same one."""
    try:
        os.link(source.resolve(), target)  # of a symbolic link a second one might lead nowhere
    except OSError:
        return False
    return True


def finalize(space: Workspace, splits: Sequence[Split], done: Sequence[dict[str, Any]]) -> str:
    """Write everything that describes the whole output; return the digest of all its synthetic voxels."""
    cohort, recipe = space.cohort, space.recipe
    synthetic = sorted(done, key=lambda row: str(row["case"]))
    originals = recipe.output.originals != "omit"
    for name, content in descriptions(space, [(row["case"], row["host"]) for row in synthetic]).items():
        nifti.write_bytes(inside(space.output, name), content)
    if splits and recipe.folds.strategy != "none":
        pairs = [(row["case"], row["subjects"]) for row in synthetic]
        folds = extended_splits(cohort, splits, pairs, originals)
        nifti.write_bytes(space.output / SPLITS, (json.dumps(folds, indent=2) + "\n").encode())
    nifti.write_bytes(space.output / MANIFEST, _manifest(space, synthetic, originals))
    digest = digest_json([[row["case"], row["hashes"]] for row in synthetic])
    nifti.write_bytes(space.output / LOCK, lock_text(space, digest))
    return digest


def descriptions(space: Workspace, synthetic: Sequence[tuple[str, str]]) -> dict[Path, bytes]:
    """Files by which the layout describes synthetic cases, given with their hosts, and originals."""
    by_case = {files.case: files for files in space.cohort.cases}
    cases = [(case, by_case[host]) for case, host in synthetic]
    if space.recipe.output.originals != "omit":
        cases += by_case.items()
    found = space.layout.description(space.cohort, sorted(cases, key=lambda case: case[0]))
    return {Path(name): content for name, content in found.items()}


def _manifest(space: Workspace, synthetic: Sequence[dict[str, Any]], originals: bool) -> bytes:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, _COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    if originals:
        for files in space.cohort.cases:
            writer.writerow({"case": files.case, "kind": "original", "subject": files.subject})
    for row in synthetic:
        writer.writerow({**row, "kind": "synthetic", "voxel_hash": digest_json(row["hashes"])})
    return buffer.getvalue().encode()


def lock_text(space: Workspace, digest: str | None) -> bytes:
    """The lock: what was run, on what, with which versions."""
    with LesionBank(space.output / BANK) as bank:
        inputs = {name: value for case in bank.cases() for name, value in case.source_hashes.items()}
    value: Lock = {
        "lesionsynth": lesionsynth.__version__,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES if _installed(name)},
        "seed": space.recipe.seed,
        "key": space.key,
        "plan": plan_digest(space.output),
        "voxels": digest,
        "input": str(space.cohort.root.resolve()),
        "recipe": resolved(space.recipe),
        "input_hashes": dict(sorted(inputs.items())),
    }
    return yaml.safe_dump(value, sort_keys=False, width=110).encode()


def _installed(name: str) -> bool:
    try:
        version(name)
    except ModuleNotFoundError:
        return False
    return True
