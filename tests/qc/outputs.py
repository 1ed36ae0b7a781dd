"""A finished output on the disk, to be spoilt in one way at a time."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import yaml

from lesionsynth import nifti
from lesionsynth.digest import digest_json
from lesionsynth.domain.finding import Finding
from lesionsynth.qc.audit import Audited, audit
from lesionsynth.recipe.load import load_recipe
from lesionsynth.run import session
from lesionsynth.run.pool import Engine
from tests.test_invariants import Silent

ROLES = "input.roles={other: protected}"


def make(root: Path, output: Path, *overrides: str, name: str = "lesionmix") -> Path:
    """Run a recipe with one copy a host."""
    recipe = load_recipe(name, ["output.copies=1", ROLES, *overrides])
    outcome = session.run(recipe, root, output, Silent())
    assert not outcome.failures, [str(f.error) for f in outcome.failures]
    return output


def look(output: Path, **more: Any) -> Audited:
    return audit(output, None, Engine(), Silent(), **more)


class Output:
    """Ways to spoil an output."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.root = folder, root

    def findings(self, **more: Any) -> list[Finding]:
        return look(self.folder, **more).findings

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())

    def edit(self, name: str, change: Callable[[Any], None]) -> None:
        """Change a JSON file in place."""
        value = self.json(name)
        change(value)
        (self.folder / name).write_text(json.dumps(value))

    def records(self) -> list[Any]:
        return [json.loads(path.read_text()) for path in sorted((self.folder / "records").glob("*.json"))]

    def record(self, case: str, change: Callable[[Any], None]) -> None:
        self.edit(f"records/{case}.json", change)

    def raw(self, name: str) -> np.ndarray:
        return np.array(nifti.read(self.folder / name).raw)

    def voxels(self, name: str, raw: np.ndarray) -> None:
        """Put voxels into an image, header and all else as it was."""
        path = self.folder / name
        path.unlink()  # it may be a hard link to the input
        nifti.write(path, nifti.read(self.root / host_name(name)).with_raw(np.asfortranarray(raw)))

    def reconcile(self) -> None:
        """Write the digests and loads of the files as they are now into records, manifest and lock."""
        for path in sorted((self.folder / "records").glob("*.json")):
            record = json.loads(path.read_text())
            for name in record["hashes"]:
                record["hashes"][name] = nifti.read(self.folder / name).voxel_hash
            label = nib.load(self.folder / f"labelsTr/{record['case']}.nii.gz")
            voxel_ml = abs(np.linalg.det(label.affine[:3, :3])) / 1000
            after = round(float((np.asanyarray(label.dataobj) == 1).sum() * voxel_ml), 6)
            record["load_ml"]["after"] = after
            for target in record["job"]["targets"].values():
                low, high = (target["ml"] * (1 + sign * target["tolerance"]) for sign in (-1, 1))
                record["shortfall"] = not low <= after <= high
            path.write_text(json.dumps(record))
        self.reconcile_manifest()

    def reconcile_manifest(self) -> None:
        """Write what the records say into manifest and lock."""
        made, rows = [], self.rows()
        by_case = {row["case"]: row for row in rows}
        for path in sorted((self.folder / "records").glob("*.json")):
            record = json.loads(path.read_text())
            load = {f"load_{name}_ml": str(value) for name, value in record["load_ml"].items()}
            counts = {f"lesions_{name}": str(record["lesions"][name]) for name in ("removed", "inserted")}
            plain = ("copy_index", "block", "shortfall", "own_subject_donors")
            row = {name: str(record[name]) for name in plain} | load | counts
            by_case[path.stem].update(row, voxel_hash=digest_json(record["hashes"]))
            made.append([path.stem, record["hashes"]])
        self.manifest(rows)
        self.lock(lambda lock: lock.update(voxels=digest_json(made)))

    def rows(self) -> list[dict[str, str]]:
        return list(csv.DictReader((self.folder / "manifest.csv").read_text().splitlines()))

    def manifest(self, rows: list[dict[str, str]]) -> None:
        with (self.folder / "manifest.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    def lock(self, change: Callable[[Any], None]) -> None:
        path = self.folder / "recipe.lock.yaml"
        value = yaml.safe_load(path.read_text())
        change(value)
        path.write_text(yaml.safe_dump(value))


def host_name(name: str) -> str:
    """The input's file for a file of a copy."""
    case, _, rest = name.partition("__syn000")
    return case + rest
