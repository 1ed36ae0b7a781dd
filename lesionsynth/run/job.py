"""One host with all its copies: read once, edit, write whole, record."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

import lesionsynth
from lesionsynth import nifti
from lesionsynth.backend import open_device
from lesionsynth.bank.store import LesionBank
from lesionsynth.derived import joined
from lesionsynth.domain.case import CaseFiles
from lesionsynth.domain.likelihood import LikelihoodMap
from lesionsynth.editing.canvas import Canvas
from lesionsynth.editing.removal import NOT_REMOVED
from lesionsynth.errors import DeviceError, LeakError, LesionsynthError, NoRoomError, OutputError
from lesionsynth.host import LoadedCase, load_case
from lesionsynth.likelihood.over_host import CentreDensity
from lesionsynth.plugins.contracts import Donors, StepContext, StepReport
from lesionsynth.rng import stream
from lesionsynth.run.fit import Fit
from lesionsynth.run.ledger import read_record
from lesionsynth.run.plan import Job
from lesionsynth.run.pool import Failure, as_known
from lesionsynth.run.worker import worker_number
from lesionsynth.run.workspace import RECORDS, Workspace, inside, of_worker

if TYPE_CHECKING:
    from lesionsynth.plugins.draws import Giver
    from lesionsynth.run.formats import Record


@dataclass(frozen=True)
class Done:
    """What a worker reports of one host: records' essentials, times, memory."""

    host: str
    cases: tuple[dict[str, Any], ...]
    failures: tuple[Failure, ...]
    seconds: dict[str, float]
    peak_mb: float


class Made(NamedTuple):
    """A copy in memory: its canvas, its record, and its files by their path in the output."""

    canvas: Canvas
    record: Record
    files: dict[Path, nifti.Stored]


class HostJobs:
    """Makes copies of one host.

    Parameters
    ----------
    space : Workspace
    files : CaseFiles
        The host.
    """

    def __init__(self, space: Workspace, files: CaseFiles) -> None:
        self.space = space
        self.bank = LesionBank(space.bank)
        self.host = self._load(files)
        self.device = open_device(space.device, worker_number() or 0, space.workers)
        self._donor: LoadedCase | None = None
        self._fits: dict[str, tuple[Fit, Donors, CentreDensity]] = {}

    def close(self) -> None:
        """Let go of host and bank at once: what refers to itself stays until the garbage is collected."""
        self.bank.close()
        self._fits.clear()
        self._donor = None

    def _donor_case(self, subjects: tuple[str, ...], case: str) -> LoadedCase:
        """A whole case of one of `subjects`; the last one is kept."""
        files = self.space.cohort.case(case)
        if files.subject not in subjects:
            raise LeakError(f"{files.subject} may not be a donor here.", case=case)
        if self._donor is None or self._donor.files.case != case:
            self._donor = self._load(files)
        return self._donor

    def _load(self, files: CaseFiles) -> LoadedCase:
        """Read a case of the bank; its tissue was found when the bank was built."""
        summary = self.bank.case(files.case)
        known = self.bank.known(summary)
        case = load_case(files, self.space.cohort, self.space.recipe.tissue, known)
        if case.source_hashes != summary.source_hashes:
            raise LesionsynthError(
                "its files have changed since the lesion bank was built.",
                case=files.case,
                remedy="Run the command again, so that the bank is built anew.",
            )
        return case

    def _fitted(self, block: str) -> tuple[Fit, Donors, CentreDensity]:
        if block not in self._fits:
            fit = Fit.read(self.space.fits, block)
            donors = Donors(
                self.bank,
                fit.subjects,
                partial(self._donor_case, fit.subjects),
                mask_subjects=tuple(s for s in fit.fitted_on if s not in set(fit.subjects)),
                models={name: self.space.fits / model.file for name, model in fit.models.items()},
            )
            matrix = fit.registrations.get(self.host.files.case)
            registration = None if matrix is None else np.reshape(matrix, (4, 4))
            centres = CentreDensity(
                self.host,
                partial(_map_of, self.space.fits, block, fit.map_hash),
                self.space.recipe.likelihood.floor,
                registration,
            )
            self._fits[block] = (fit, donors, centres)
        return self._fits[block]

    def context(self, job: Job, step: str) -> StepContext:
        """What a step of a job is given."""
        fit, donors, centres = self._fitted(job.block)
        recipe = self.space.recipe
        return StepContext(
            step=step,
            target=job.targets.get(step),
            streams=lambda *name: stream(recipe.seed, job.host, job.copy_index, step, *name),
            sources=recipe.sources,
            donors=donors,
            centres=centres,
            typical_count=fit.typical_count,
        )

    def _canvas(self, used: Canvas | None = None) -> Canvas:
        self.device.free()
        self.device.notes.clear()
        if used is None:
            return Canvas(self.host, self.device, _spare)
        used.reset()
        return used

    def make(self, job: Job, used: Canvas | None = None) -> Made:
        """Make one copy in memory.

        Parameters
        ----------
        job : Job
        used : Canvas, optional
            Of an earlier copy of this host; it is made anew and returned.

        Raises
        ------
        NoRoomError
            If nothing could be changed: a copy of the host is no new case.
        """
        canvas, reports = self.edit(job, used)
        files = self.outputs(job.case, canvas)
        return Made(canvas, self._record(job, canvas, reports, files), files)

    def edit(self, job: Job, used: Canvas | None = None) -> tuple[Canvas, dict[str, StepReport]]:
        """Edit one copy, and tell what each step has done; see :meth:`make`."""
        canvas = self._canvas(used)
        reports = {
            name: operation.apply(canvas, self.context(job, name))
            for name, operation in self.space.recipe.steps.items()
        }
        if not canvas.changes():
            raise NoRoomError(
                f"no edit was possible, so there is no synthetic case to write ({_why(reports)}).",
                case=job.case,
                remedy=_LONGER if self._fitted(job.block)[0].models else _LOOK,
            )
        return canvas, reports

    def remake(self, job: Job, record: dict[str, Any]) -> Canvas:
        """Make a copy again from its record, without drawing anything."""
        canvas = self._canvas()
        for done in record["steps"]:
            operation = self.space.recipe.steps[done["step"]]
            operation.replay(canvas, self.context(job, done["step"]), done["draws"])
        return canvas

    def outputs(self, case: str, canvas: Canvas) -> dict[Path, nifti.Stored]:
        """Files of an output case, relative to the output."""
        space, files, label = self.space, self.host.files, self.host.label_image
        voxels = canvas.voxels()
        images = {
            path: joined([self.host.images[k] for k in channels], [voxels[k] for k in channels])
            for path, channels in space.layout.image_files(files, case, space.cohort).items()
        }
        images[space.layout.label_path(files, case, space.cohort)] = canvas.label_image().stored
        name = f"{case}{space.cohort.file_ending}"
        if space.recipe.output.source_map:
            images[Path("source_maps") / name] = nifti.like(label, canvas.source).stored
        if space.recipe.output.lesion_map:
            lesions = canvas.instances.astype(np.uint16 if canvas.instances.max() < 65536 else np.uint32)
            images[Path("lesion_maps") / name] = nifti.like(label, lesions).stored
        return images

    def _record(
        self,
        job: Job,
        canvas: Canvas,
        reports: dict[str, StepReport],
        files: dict[Path, nifti.Stored],
    ) -> Record:
        fit = self._fitted(job.block)[0]
        draws = [draw for report in reports.values() for draw in report.draws]
        inserted = [draw for draw in draws if draw["edit"] == "insert"]
        target = next(iter(list(job.targets.values())[::-1]), None)
        return {
            "case": job.case,
            "host": {"case": job.host, "subject": job.subject},
            "copy_index": job.copy_index,
            "donors": [donor for d in inserted for donor in _donors_of(d)],
            "own_subject_donors": sum(d["subject"] == job.subject for d in inserted),
            "fitted_on": list(fit.fitted_on),
            "weights": [
                {"file": model.file, "subjects": list(model.subjects)} for model in fit.models.values()
            ],
            "block": job.block,
            "load_ml": {
                "before": round(self.host.load.ml, 6),
                "target": None if target is None else round(target.ml, 6),
                "after": round(canvas.load_ml, 6),
            },
            "shortfall": target is not None and not target.met_by(canvas.load_ml),
            "lesions": {
                "before": self.host.load.count,
                "removed": sum(draw["edit"] == "remove" for draw in draws),
                "inserted": len(inserted),
                "after": len(canvas.boxes),
            },
            "clipped_voxels": canvas.clipped_vox,
            "resampled": list(self.host.resampled),
            "device": self.device.name,
            "warnings": [*dict.fromkeys(self.device.notes), *_left(reports)],
            "steps": [
                {
                    "step": name,
                    "kind": self.space.recipe.steps[name].kind,
                    "rejected": report.rejected,
                    "draws": cast(Any, report.draws),
                }
                for name, report in reports.items()
            ],
            "inputs": self.host.source_hashes,
            "hashes": {path.as_posix(): image.slabs.digest for path, image in files.items()},
            "job": job.as_json(),
            "lesionsynth": lesionsynth.__version__,
        }


_LOOK = "Look at load, site and donors in the recipe."
_LONGER = (
    "Where masks are empty, broken up or of another size, the trained model makes too few lesions that can "
    "be used: train it longer. Else look at load and site in the recipe."
)

_spare: list[Any] = []
"""Volumes of the canvas of this worker's last host, for the next one's."""


@lru_cache(maxsize=2)
def _map_of(fits: Path, block: str, map_hash: str) -> LikelihoodMap:
    """A block's likelihood map, which all hosts of a worker share; `map_hash` tells plans apart."""
    return Fit.read(fits, block).map(fits)


Way = tuple[Path, Path, Path, str, str, int]
"""How a worker finds its :class:`Workspace`: output, bank, fits, digest of the plan, device, workers."""


def run_share(way: Way, files: CaseFiles, jobs: Sequence[Job]) -> Done:
    """:func:`run_host` in a worker, which finds its way by the plan in the output folder."""
    return run_host(of_worker(*way), files, jobs)


def run_host(space: Workspace, files: CaseFiles, jobs: Sequence[Job]) -> Done:
    """Make and write all copies of one host. One copy that fails does not take the others with it.

    Raises
    ------
    LesionsynthError
        If the host cannot be read, the output cannot be written, or the device fails.
    """
    started = time.perf_counter()
    maker = HostJobs(space, files)
    seconds = {"read": time.perf_counter() - started, "compute": 0.0, "write": 0.0}
    done, failures = [], []
    canvas: Canvas | None = None
    with closing(maker):
        for job in jobs:
            try:
                started = time.perf_counter()
                canvas, record, images = maker.make(job, canvas)
                seconds["compute"] += time.perf_counter() - started
                started = time.perf_counter()
                write_case(space, images, record)
                seconds["write"] += time.perf_counter() - started
                done.append(summary_of(record))
            except (OutputError, DeviceError):
                raise  # of no case alone
            except Exception as error:
                failures.append(Failure(job.case, "edit", as_known(error, job.case)))
                canvas = None  # in what state it is nobody knows
    _spare[:] = [] if canvas is None else canvas.volumes
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Done(files.case, tuple(done), tuple(failures), seconds, peak_kb / 1024)


def write_case(space: Workspace, images: dict[Path, nifti.Stored], record: Mapping[str, Any]) -> None:
    """Write the files of one case, the record last: a case without a record is not there.

    Where that fails, none stays, unless another process has made the same case meanwhile.

    A file is compressed while a thread waits for the disk to take the one before it.
    """
    targets = {inside(space.output, path): image for path, image in images.items()}
    try:
        with ThreadPoolExecutor(max_workers=1) as disk:
            written = [
                disk.submit(
                    nifti.write_bytes, path, *nifti.content(path, image, space.recipe.output.compression)
                )
                for path, image in targets.items()
            ]
        for file in written:
            file.result()
        text = json.dumps(record, indent=1) + "\n"
        nifti.write_bytes(inside(space.output, Path(RECORDS) / f"{record['case']}.json"), text.encode())
    except BaseException:
        there = read_record(space.output, record["case"])
        if there is None or there.get("job") != record["job"]:
            for target in targets:
                target.unlink(missing_ok=True)
        raise


def summary_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest and the splits need of a record."""
    subjects = {record["host"]["subject"], *record["fitted_on"], *(d["subject"] for d in record["donors"])}
    subjects |= {subject for model in record.get("weights", ()) for subject in model["subjects"]}
    return {
        "case": record["case"],
        "host": record["host"]["case"],
        "subject": record["host"]["subject"],
        "copy_index": record["copy_index"],
        "block": record["block"],
        "subjects": sorted(subjects),
        "load_before_ml": record["load_ml"]["before"],
        "load_target_ml": record["load_ml"]["target"],
        "load_after_ml": record["load_ml"]["after"],
        "shortfall": record["shortfall"],
        "lesions_removed": record["lesions"]["removed"],
        "lesions_inserted": record["lesions"]["inserted"],
        "own_subject_donors": record["own_subject_donors"],
        "clipped_voxels": record["clipped_voxels"],
        "warnings": record["warnings"],
        "hashes": record["hashes"],
    }


def _donors_of(draw: dict[str, Any]) -> list[Giver]:
    """Whose lesions an inserted one is made of: shape and look may come from two, or from nobody."""
    known: list[Giver] | None = draw["donor"].get("from")
    if known is not None:
        return known
    return [{"case": draw["case"], "subject": draw["subject"], "lesion": draw["donor"].get("lesion")}]


def _left(reports: dict[str, StepReport]) -> list[str]:
    """Warnings of lesions that were to be removed and are still there."""
    left = sum(report.rejected.get(NOT_REMOVED, 0) for report in reports.values())
    return [f"{left} lesion(s) could not be removed: {NOT_REMOVED}"] if left else []


def _why(reports: dict[str, StepReport]) -> str:
    counts = [f"{count} x {reason}" for r in reports.values() for reason, count in sorted(r.rejected.items())]
    return "; ".join(counts) or "no step had anything to do"
