"""One synthetic case: its record against plan, host and draws, its files against its record and its host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lesionsynth import nifti
from lesionsynth.derived import joined
from lesionsynth.domain.case import CaseFiles
from lesionsynth.domain.finding import Finding
from lesionsynth.domain.load import LoadTarget
from lesionsynth.errors import LesionsynthError
from lesionsynth.host import read_label
from lesionsynth.qc.audit_evidence import REMAKE, Job, Record
from lesionsynth.qc.audit_reach import keeps_count
from lesionsynth.qc.audit_scope import LESION_MAPS, SOURCE_MAPS, Evidence, Scope
from lesionsynth.qc.audit_voxels import Volumes, compare
from lesionsynth.run.workspace import RECORDS
from lesionsynth.units import MM3_PER_ML

_ROUNDED_ML = 1e-6
"""Loads are recorded with six decimals."""


class Copy:
    """One synthetic case under audit."""

    def __init__(self, scope: Scope, files: CaseFiles, host: Volumes, case: str, record: Record) -> None:
        self.scope, self.files, self.host, self.case, self.record = scope, files, host, case, record
        self.names = scope.files_of(files, case, synthetic=True)

    def _fault(self, fault: str, name: str | None = None) -> Finding:
        return Finding("error", fault, REMAKE, self.case, name or f"{RECORDS}/{self.case}.json")

    def recorded(
        self, job: Job | None, inputs: Mapping[str, str], ml: float, count: int
    ) -> Iterator[Finding]:
        """What the record says against itself, the plan and the input."""
        record, case = self.record, self.case
        named = f"{self.files.case}__syn{record.copy_index:03d}"
        if (record.case, record.host.case, named) != (case, self.files.case, case):
            yield self._fault(
                f"the record names the case {record.case}, copy {record.copy_index} of {record.host.case}; "
                f"{case} was expected."
            )
        if record.job != job:
            planned = (
                "plan.jsonl has no such case" if job is None else "plan.jsonl has another for the same case"
            )
            yield self._fault(f"the record's job is not as planned: {planned}.")
        if (record.job.host, record.job.block, record.job.subject) != (
            record.host.case,
            record.block,
            record.host.subject,
        ):
            yield self._fault("host, subject and block are not those of the record's own job.")
        for step in record.steps:
            operation = self.scope.recipe.steps.get(step.step)
            if operation is None or operation.kind != step.kind:
                yield self._fault(
                    f"the step {step.step} of kind {step.kind} is not in the recipe of the lock."
                )
        if record.inputs != inputs:
            other = sorted(set(record.inputs.items()) ^ set(inputs.items()))[0][0]
            yield self._fault(
                f"the host's file {other} is not the one that the copy was made of (its digest differs)."
            )
        yield from self._counts(ml, count)

    def _counts(self, ml: float, count: int) -> Iterator[Finding]:
        """Numbers that follow from the draws and the host."""
        record = self.record
        drawn = [draw for draw in record.draws if draw.edit == "insert"]
        removed = sum(draw.edit == "remove" for draw in record.draws)
        own = sum(draw.subject == record.host.subject for draw in drawn)
        found = {
            "lesions.before": (record.lesions.before, count),
            "lesions.removed": (record.lesions.removed, removed),
            "lesions.inserted": (record.lesions.inserted, len(drawn)),
            "own_subject_donors": (record.own_subject_donors, own),
        }
        for field, (said, counted) in found.items():
            if said != counted:
                yield self._fault(f"{field} is {said}, counted again it is {counted}.")
        after = record.lesions.before - record.lesions.removed + record.lesions.inserted
        if keeps_count(self.scope.recipe, record) and record.lesions.after != after:
            yield self._fault(f"lesions.after is {record.lesions.after}, counted again it is {after}.")
        if record.donors != [donor for draw in drawn for donor in draw.donors]:
            yield self._fault("the donors are not those of the draws.")
        if abs(record.load_ml.before - ml) > _ROUNDED_ML:
            yield self._fault(
                f"load_ml.before is {record.load_ml.before:g}, the host's label map holds {ml:g} mL."
            )

    def voxels(self) -> Iterator[Finding]:
        """What the files hold, against the host and the record."""
        record, host, labels = self.record, self.host, self.scope.cohort.labels
        if set(record.hashes) != set(self.names):
            other = sorted(set(record.hashes) ^ set(self.names))[0]
            yield self._fault(f"the record's files are not those of the case: {other} is on one side only.")
        files: dict[str, tuple[nifti.Image, ...]] = {}
        for name in dict.fromkeys(self.names):
            found = self.scope.read(self.case, name, REMAKE, self.names.count(name))
            if isinstance(found, Finding):
                yield found
                continue
            files[name] = found
            digest = joined(found, [image.slabs for image in found]).slabs.digest
            if record.hashes.get(name, digest) != digest:
                yield self._fault(
                    "the voxels are not those that were written (their digest is not the record's).", name
                )
        if len(files) < len(set(self.names)):
            return
        channels, (label_name, *maps) = self.names[: len(host.images)], self.names[len(host.images) :]
        images = [files[name][channels[:k].count(name)] for k, name in enumerate(channels)]
        faults = list(self._headers(images, channels, files[label_name][0], label_name))
        yield from faults
        try:
            label_image, label = read_label(self.case, self.scope.output / label_name, labels)
        except LesionsynthError as error:
            yield self._fault(error.message, label_name)
            return
        if faults or label.shape != host.label.shape:
            return
        copy = Volumes(images, label_image, label, self.names)
        source = next((files[n][0].raw for n in maps if n.startswith(SOURCE_MAPS)), None)
        for name in maps:
            if not files[name][0].grid.same_as(label_image.grid):
                yield self._fault("the map is not on the grid of its case.", name)
                return
        yield from compare(host, copy, record, self.scope.recipe, labels, source)
        lesion = copy.lesion(labels)
        yield from self._load(lesion, label_image)
        for name in maps:
            if name.startswith(LESION_MAPS):
                yield from self._numbered(files[name][0].raw, lesion, name)

    def _headers(
        self, images: Sequence[nifti.Image], channels: Sequence[str], found: nifti.Image, label: str
    ) -> Iterator[Finding]:
        """Header, dtype and grid of channels and label map are the host's."""
        for name, image, expected in zip(channels, images, self.host.images, strict=True):
            if image.file_header != expected.file_header:
                yield self._fault(f"the header is not the host's ({_difference(image, expected)}).", name)
        if found.raw.dtype.kind not in "ui" or (found.slope, found.inter) != (1.0, 0.0):
            scaled = "" if (found.slope, found.inter) == (1.0, 0.0) else " with scaling"
            yield self._fault(
                f"the label map is stored as {found.raw.dtype}{scaled}; an integer type was expected.", label
            )
            return
        if found.raw.shape != self.host.label.shape:
            yield self._fault(
                f"the label map is {found.grid.describe()}, its host "
                f"{self.host.label_image.grid.describe()}.",
                label,
            )
            return
        image = nifti.as_label(self.host.label_image, np.asarray(found.raw))
        if found.header_bytes != image.header_bytes:
            yield self._fault(f"the header is not the host's ({_difference(found, image)}).", label)

    def _load(self, lesion: NDArray[np.bool_], label_image: nifti.Image) -> Iterator[Finding]:
        """Load and target, by the label map."""
        record = self.record
        ml = float(np.count_nonzero(lesion)) * label_image.grid.voxel_volume_mm3 / MM3_PER_ML
        if abs(record.load_ml.after - ml) > _ROUNDED_ML:
            yield self._fault(f"load_ml.after is {record.load_ml.after:g}, the label map holds {ml:g} mL.")
        target = next(iter([*record.job.targets.values()][::-1]), None)
        if (target is None) != (record.load_ml.target is None) or (
            target is not None
            and record.load_ml.target is not None
            and abs(target.ml - record.load_ml.target) > _ROUNDED_ML
        ):
            yield self._fault("load_ml.target is not that of the plan.")
        missed = target is not None and not LoadTarget(target.ml, target.ml, target.tolerance).met_by(ml)
        if missed != record.shortfall:
            yield self._fault(
                f"shortfall is {str(record.shortfall).lower()}, but the load of the label map "
                f"{'misses' if missed else 'meets'} the target."
            )

    def _numbered(
        self, numbers: NDArray[np.generic], lesion: NDArray[np.bool_], name: str
    ) -> Iterator[Finding]:
        """The lesion map numbers the lesions of the label, all of them and nothing else."""
        count = len(np.unique(numbers[lesion]))
        if not np.array_equal(numbers != 0, lesion):
            yield self._fault("the lesion map does not cover the lesions of the label map.", name)
        elif count != self.record.lesions.after:
            yield self._fault(
                f"lesions.after is {self.record.lesions.after}, the lesion map numbers {count}."
            )

    def evidence(self) -> Evidence:
        """What the whole output is judged by."""
        record = self.record
        row = {
            "case": self.case,
            "kind": "synthetic",
            "subject": record.host.subject,
            "host": record.host.case,
            "copy_index": record.copy_index,
            "block": record.block,
            "load_before_ml": record.load_ml.before,
            "load_target_ml": record.load_ml.target,
            "load_after_ml": record.load_ml.after,
            "shortfall": record.shortfall,
            "lesions_removed": record.lesions.removed,
            "lesions_inserted": record.lesions.inserted,
            "own_subject_donors": record.own_subject_donors,
            "clipped_voxels": record.clipped_voxels,
        }
        donors = {donor: None for draw in record.draws for donor in draw.donors} | dict.fromkeys(
            record.donors
        )
        return Evidence(
            case=self.case,
            host=self.files.case,
            block=record.block,
            host_subject=record.host.subject,
            donors=tuple(donors),
            fitted_on=tuple(record.fitted_on),
            weights=tuple(record.weights),
            hashes=dict(record.hashes),
            row=row,
        )


def _difference(found: nifti.Image, expected: nifti.Image) -> str:
    """The first way in which two headers differ."""
    if found.raw.shape != expected.raw.shape:
        return f"{found.grid.describe()}, expected {expected.grid.describe()}"
    if found.raw.dtype != expected.raw.dtype:
        return f"type {found.raw.dtype}, expected {expected.raw.dtype}"
    if (found.slope, found.inter) != (expected.slope, expected.inter):
        return f"scaling {found.slope:g}, {found.inter:g}, expected {expected.slope:g}, {expected.inter:g}"
    if not np.array_equal(found.grid.affine, expected.grid.affine):
        return "another affine"
    return "other bytes"
