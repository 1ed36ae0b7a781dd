"""One host with its original and all its copies: files, labels, voxels, loads, digests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from lesionsynth import nifti
from lesionsynth.channels import on_one_grid, read_channels
from lesionsynth.derived import as_written
from lesionsynth.domain.case import CaseFiles, MaskFile
from lesionsynth.domain.finding import Finding
from lesionsynth.errors import LesionsynthError
from lesionsynth.host import load_case, read_label
from lesionsynth.json_file import read_json
from lesionsynth.kernels.components import components
from lesionsynth.qc.audit_copy import Copy
from lesionsynth.qc.audit_evidence import Job, Record, finding_of, part_of
from lesionsynth.qc.audit_scope import HostAudit, Scope
from lesionsynth.qc.audit_voxels import Volumes
from lesionsynth.run.workspace import RECORDS
from lesionsynth.slabs import stored_bytes
from lesionsynth.units import MM3_PER_ML

_AGAIN = "Run the same command again, which writes it anew."


def audit_mask(scope: Scope, mask: MaskFile) -> HostAudit:
    """Read a mask of a subject without images: its load takes part in the fits."""
    image = nifti.read(mask.path)
    lesion = image.values() > 0
    ml = float(np.count_nonzero(lesion)) * image.grid.voxel_volume_mm3 / MM3_PER_ML
    inputs = {scope.cohort.name_of(mask.path): image.source_hash}
    return HostAudit(mask.subject, (), (), inputs, ml, len(components(lesion)[1]))


def audit_host(
    scope: Scope, files: CaseFiles, copies: tuple[str, ...], plan: Mapping[str, Job]
) -> HostAudit | None:
    """Look at an input case, at its copy in the output, and at everything made of it.

    Parameters
    ----------
    scope : Scope
    files : CaseFiles
        The host.
    copies : tuple of str
        Synthetic cases with a record.
    plan : mapping of str to Job
        What was planned for this host.

    Returns
    -------
    HostAudit or None
        None of a case that cannot be read, where the recipe says to go on without such cases.
    """
    dropped = scope.recipe.input.on_bad_case == "drop" and not copies and not _any_file(scope, files)
    if dropped and not _loads(scope, files):
        return None
    host, inputs = _host_of(scope, files)
    findings = list(_original(scope, files, host)) if scope.recipe.output.originals != "omit" else []
    evidence = []
    lesions = host.lesion(scope.cohort.labels)
    voxel_ml = host.label_image.grid.voxel_volume_mm3 / MM3_PER_ML
    ml, count = float(np.count_nonzero(lesions)) * voxel_ml, len(components(lesions)[1])
    for case in copies:
        name = f"{RECORDS}/{case}.json"
        try:
            record = part_of(Record, read_json(scope.output / name), scope.output / name)
        except LesionsynthError as error:
            findings.append(finding_of(error, case, name))
            continue
        copy = Copy(scope, files, host, case, record)
        findings += copy.recorded(plan.get(case), inputs, ml, count)
        findings += copy.voxels()
        evidence.append(copy.evidence())
    return HostAudit(files.case, tuple(findings), tuple(evidence), inputs, ml, count)


def _any_file(scope: Scope, files: CaseFiles) -> bool:
    return any(scope.is_there(name) for name in scope.files_of(files, files.case, synthetic=False))


def _loads(scope: Scope, files: CaseFiles) -> bool:
    """Whether a case can be read at all; where not, a run goes on without it if the recipe says so."""
    try:
        load_case(files, scope.cohort, scope.recipe.tissue)
    except LesionsynthError:
        return False
    return True


def _host_of(scope: Scope, files: CaseFiles) -> tuple[Volumes, dict[str, str]]:
    """An input case on one grid, as the output's files hold it, and the digests of its files."""
    stored = read_channels(files)
    label_image, label = read_label(files.case, files.label, scope.cohort.labels)
    images = on_one_grid(files, scope.cohort, stored, label_image).images
    inputs = {
        scope.cohort.name_of(i.path): i.source_hash for i in (*stored, label_image) if i.path is not None
    }
    targets = scope.layout.image_files(files, files.case, scope.cohort)
    return Volumes(as_written(images, targets), label_image, label), inputs


def _original(scope: Scope, files: CaseFiles, host: Volumes) -> Iterator[Finding]:
    """The input's own case in the output: equal bit for bit, however it is compressed."""
    names = scope.files_of(files, files.case, synthetic=False)
    for name in dict.fromkeys(names):
        expected = [i for n, i in zip(names, (*host.images, host.label_image), strict=True) if n == name]
        found = scope.read(files.case, name, _AGAIN, len(expected))
        if isinstance(found, Finding):
            yield found
        elif [i.file_header for i in found] != [i.file_header for i in expected]:
            fault = "the header of this original differs from the input's."
            yield Finding("error", fault, _AGAIN, files.case, name)
        elif not all(
            np.array_equal(stored_bytes(one.raw), stored_bytes(other.raw))
            for one, other in zip(found, expected, strict=True)
        ):
            fault = "the voxels of this original differ from the input's."
            yield Finding("error", fault, _AGAIN, files.case, name)
