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
from typing import Any

import yaml

import lesionsynth
from lesionsynth import nifti
from lesionsynth.bank.store import LesionBank
from lesionsynth.channels import resampled_channels
from lesionsynth.digest import digest_json
from lesionsynth.domain.case import CaseFiles, Split
from lesionsynth.errors import OutputError
from lesionsynth.recipe.model import resolved
from lesionsynth.run.folds import extended_splits
from lesionsynth.run.job import Workspace, inside

LOCK = "recipe.lock.yaml"
MANIFEST = "manifest.csv"
SPLITS = "splits_final.json"
_PACKAGES = ("numpy", "scipy", "nibabel", "SimpleITK", "numba", "pydantic", "isal", "deflate")
_COLUMNS = (
    *("case", "kind", "subject", "host", "copy_index", "block"),
    *("load_before_ml", "load_target_ml", "load_after_ml", "shortfall"),
    *("lesions_removed", "lesions_inserted", "own_subject_donors", "clipped_voxels", "voxel_hash"),
)


def place_original(space: Workspace, files: CaseFiles) -> str:
    """Copy or hard-link one case of the input into the output, byte for byte unless compression differs.

    Channels that are resampled for the copies are so in the original too: a data set has one grid a case.
    """
    resampled = resampled_channels(files, space.cohort)
    made = {files.images[k]: image for k, image in resampled.items()}
    pairs = [
        (path, space.layout.image_path(files, files.case, k, space.cohort))
        for k, path in enumerate(files.images)
    ]
    pairs.append((files.label, space.layout.label_path(files, files.case, space.cohort)))
    for source, path in pairs:
        target = inside(space.output, path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".tmp-{os.getpid()}-{target.name}")
            temporary.unlink(missing_ok=True)
            if source in made or source.name.endswith(".gz") != target.name.endswith(".gz"):
                nifti.write(target, made.get(source) or nifti.read(source))
                continue
            if space.recipe.output.originals != "link" or not _linked(source, temporary):
                shutil.copyfile(source, temporary)
            os.replace(temporary, target)
        except OSError as error:
            raise OutputError(
                f"cannot be written ({error.strerror or error}).",
                case=files.case,
                file=target,
                remedy="Check free space and permissions, then run the same command again.",
            ) from None
    return files.case


def _linked(source: Path, target: Path) -> bool:
    """Hard-link, where the file system can and the two lie on the same one."""
    try:
        os.link(source, target)
    except OSError:
        return False
    return True


def finalize(space: Workspace, splits: Sequence[Split], done: Sequence[dict[str, Any]]) -> str:
    """Write everything that describes the whole output; return the digest of all its synthetic voxels."""
    cohort, recipe = space.cohort, space.recipe
    synthetic = sorted(done, key=lambda row: str(row["case"]))
    originals = recipe.output.originals != "omit"
    cases = [(row["case"], cohort.case(row["host"])) for row in synthetic]
    cases += [(files.case, files) for files in cohort.cases] if originals else []
    for name, content in space.layout.description(cohort, sorted(cases, key=lambda c: c[0])).items():
        nifti.write_bytes(inside(space.output, Path(name)), content)
    if splits and recipe.folds.strategy != "none":
        pairs = [(row["case"], row["subjects"]) for row in synthetic]
        folds = extended_splits(cohort, splits, pairs, originals)
        nifti.write_bytes(space.output / SPLITS, (json.dumps(folds, indent=2) + "\n").encode())
    nifti.write_bytes(space.output / MANIFEST, _manifest(space, synthetic, originals))
    digest = digest_json([[row["case"], row["hashes"]] for row in synthetic])
    nifti.write_bytes(space.output / LOCK, lock_text(space, digest))
    return digest


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
    with LesionBank(space.bank) as bank:
        inputs = {name: value for case in bank.cases() for name, value in case.source_hashes.items()}
    value = {
        "lesionsynth": lesionsynth.__version__,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES if _installed(name)},
        "seed": space.recipe.seed,
        "key": space.key,
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
