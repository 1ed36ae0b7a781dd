"""Rebuild an output from its records and image files alone, and say what does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lesionsynth import nifti
from lesionsynth.bank.store import LesionBank
from lesionsynth.domain.case import CaseFiles, Cohort
from lesionsynth.domain.finding import Finding
from lesionsynth.domain.grid import Grid
from lesionsynth.domain.likelihood import LikelihoodMap
from lesionsynth.errors import InputError, LesionsynthError
from lesionsynth.json_file import read_json
from lesionsynth.plugins.contracts import LayoutSpec
from lesionsynth.qc.audit_case import audit_host, audit_mask
from lesionsynth.qc.audit_evidence import (
    REMAKE,
    BlockFit,
    Fold,
    Job,
    Lock,
    finding_of,
    part_of,
)
from lesionsynth.qc.audit_files import (
    AGAIN,
    audit_bank,
    audit_description,
    audit_lock,
    audit_manifest,
    audit_tree,
    read_plan,
    walk,
)
from lesionsynth.qc.audit_folds import People, audit_fit, audit_folds, audit_people, behind
from lesionsynth.qc.audit_models import audit_models
from lesionsynth.qc.audit_replay import replay_host
from lesionsynth.qc.audit_scope import Evidence, HostAudit, Scope
from lesionsynth.run.cohort import open_cohort
from lesionsynth.run.finalize import MANIFEST, SPLITS
from lesionsynth.run.fit import map_digest
from lesionsynth.run.folds import find_splits
from lesionsynth.run.models import MODELS
from lesionsynth.run.plan import host_of
from lesionsynth.run.pool import Engine, Failure, Progress, run_all
from lesionsynth.run.workspace import (
    BANK,
    COHORT,
    FAILURES,
    LOCK,
    PLAN,
    REALISM,
    RECORDS,
    REPORT,
    Workspace,
    kept_recipe,
    no_output,
    read_yaml,
)

_LIKELIHOOD = "likelihood"


@dataclass(frozen=True)
class Audited:
    """Result of an audit: findings, and facts for the user."""

    findings: list[Finding]
    facts: list[str]


def audit(
    output: Path, root: Path | None, engine: Engine, progress: Progress, *, replay: bool = False
) -> Audited:
    """Check an output against its input, trusting no summary.

    Parameters
    ----------
    output : Path
        Of a run. Nothing is written to it.
    root : Path, optional
        The input, where it has moved since.
    engine : Engine
        Who works; each worker holds a host and one copy in memory.
    progress : Progress
    replay : bool
        Make every synthetic case again from its record and compare all voxels: as slow as the run.

    Raises
    ------
    LesionsynthError
        If the output has no lock, or the input cannot be found or read.
    """
    lock = part_of(Lock, _lock_of(output), output / LOCK)
    recipe = kept_recipe(lock.recipe, output / LOCK)
    layout, cohort, _ = open_cohort(recipe.input, root or Path(lock.input))
    if isinstance(recipe.output.layout, LayoutSpec):
        layout = recipe.output.layout
    alone = replace(cohort, cases=(), masks=(), splits=None)
    scope = Scope(output.absolute(), recipe, alone, layout)
    return _Audit(scope, lock, cohort).run(engine, progress, replay)


def _lock_of(output: Path) -> Any:
    if not (output / LOCK).is_file():
        raise no_output(output)
    return read_yaml(output / LOCK)


class _Audit:
    """One audit: what was found so far."""

    def __init__(self, scope: Scope, lock: Lock, cohort: Cohort) -> None:
        self.scope, self.lock, self.cohort = scope, lock, cohort
        self.output, self.recipe = scope.output, scope.recipe
        self.people = People.of(cohort)
        self.names, self.findings = walk(scope.output)
        self.seen: list[tuple[str, HostAudit]] = []
        self.evidence: list[Evidence] = []

    def run(self, engine: Engine, progress: Progress, replay: bool) -> Audited:
        """All checks."""
        plan = self._plan()
        recorded = self._recorded()
        self._cases(recorded, plan, engine, progress)
        if replay:
            self._replay(recorded, engine, progress)
        fits = self._fits()
        self._bank()
        self.findings += audit_models(self.output, self.names, self.recipe, self.cohort, self.evidence, fits)
        for item in self.evidence:
            self.findings += audit_people(item, self.people, fits.get(item.block))
        self._folds(fits)
        kept = {case: self.people.of_case[case] for case in self._originals} if self._keeps else {}
        self.findings += audit_manifest(self.output / MANIFEST, kept, self.evidence)
        seen = [item for _, item in self.seen]
        self.findings += audit_lock(self.output, self.lock, self.recipe.seed, self.evidence, seen)
        self._tree(recorded, sorted(kept))
        unmade = sorted(set(plan) - {case for cases in recorded.values() for case in cases})
        facts = [
            f"{len(self.evidence)} synthetic cases of {len(self._originals)} hosts and "
            f"{len(self.people.with_images)} subjects, {len(self.names)} files"
        ]
        if unmade:
            facts.append(f"{len(unmade)} planned case(s) were not made, such as {unmade[0]}")
        return Audited(sorted(self.findings, key=lambda f: (f.case or "", f.file or "")), facts)

    @property
    def _originals(self) -> list[str]:
        """Cases of the input that a run can have used."""
        return [item.name for _, item in self.seen if item.name in self.people.of_case]

    @property
    def _keeps(self) -> bool:
        """Whether the output holds the originals."""
        return self.recipe.output.originals != "omit"

    def _plan(self) -> dict[str, Job]:
        try:
            return read_plan(self.output)
        except LesionsynthError as error:
            self.findings.append(finding_of(error, file=PLAN))
            return {}

    def _recorded(self) -> dict[str, list[str]]:
        """Synthetic cases that have a record, by host."""
        found: dict[str, list[str]] = {}
        for name in self.names:
            path = Path(name)
            if path.parent.as_posix() != RECORDS or path.suffix != ".json":
                continue
            host = host_of(path.stem)
            if host is None or host not in self.people.of_case:
                fault = "is the record of a case whose host is not in the input."
                self.findings.append(
                    Finding("error", fault, "Give the right --input, or remove it.", path.stem, name)
                )
            else:
                found.setdefault(host, []).append(path.stem)
        return found

    def _cases(
        self, recorded: dict[str, list[str]], plan: dict[str, Job], engine: Engine, progress: Progress
    ) -> None:
        """Every host with its copies, and every mask, one at a time and in parallel."""
        planned: dict[str, dict[str, Job]] = {}
        for job in plan.values():
            planned.setdefault(job.host, {})[job.case] = job
        hosts = [
            (
                files.case,
                (self.scope, files, tuple(recorded.get(files.case, ())), planned.get(files.case, {})),
            )
            for files in self.cohort.cases
        ]
        masks = [
            (mask.subject, (self.scope, mask))
            for mask in self.cohort.masks
            if mask.subject not in self.people.with_images
        ]
        for work, items, stage in ((audit_host, hosts, "audit"), (audit_mask, masks, "audit masks")):
            for result in run_all(work, items, stage=stage, engine=engine, progress=progress):
                if isinstance(result, Failure):
                    self.findings.append(finding_of(result.error, result.name))
                    continue
                if result is None:
                    continue
                self.findings += result.findings
                self.evidence += result.evidence
                self.seen.append((self.people.of_case.get(result.name, result.name), result))
        self.evidence.sort(key=lambda item: item.case)
        self.seen.sort(key=lambda pair: pair[1].name)

    def _replay(self, recorded: dict[str, list[str]], engine: Engine, progress: Progress) -> None:
        space = Workspace(
            self.recipe,
            self.cohort,
            self.scope.layout,
            self.output / BANK,
            self.output,
            self.output,
            self.lock.key,
        )
        items: list[tuple[str, tuple[Workspace, CaseFiles, tuple[str, ...]]]] = [
            (host, (space, self.cohort.case(host), tuple(cases))) for host, cases in recorded.items()
        ]
        for result in run_all(replay_host, items, stage="replay", engine=engine, progress=progress):
            self.findings += (
                [finding_of(result.error, result.name)] if isinstance(result, Failure) else result
            )

    def _fits(self) -> dict[str, BlockFit]:
        """Fits of all blocks that a record names, checked."""
        fits = {}
        for block in sorted({item.block for item in self.evidence}):
            name = f"{_LIKELIHOOD}/{block}.json"
            if name not in self.names:
                cases = [item.case for item in self.evidence if item.block == block]
                fault = f"the fits of {block}, which the record names, are not there."
                self.findings.append(Finding("error", fault, REMAKE, cases[0], f"{RECORDS}/{cases[0]}.json"))
                continue
            try:
                fit = part_of(BlockFit, read_json(self.output / name), self.output / name)
                self.findings += audit_fit(fit, name, self.people, self.seen)
                fits[block] = fit
                self._map(fit)
            except LesionsynthError as error:
                self.findings.append(finding_of(error, file=name))
        return fits

    def _map(self, fit: BlockFit) -> None:
        """Read a likelihood map to its end; it must be a density, and the one that was fitted."""
        if not self.scope.is_there(fit.map_file) or not fit.map_file.startswith(f"{_LIKELIHOOD}/"):
            raise InputError(f"its map {fit.map_file} is not there.")
        try:
            image = nifti.read(self.output / fit.map_file)
            LikelihoodMap(image.values(), Grid(image.grid.shape, image.grid.affine), "", ())
        except ValueError as error:
            raise InputError(f"{fit.map_file}: {error}.") from None
        if map_digest(image) != fit.map_hash:
            raise InputError(f"its map {fit.map_file} is not the one that was fitted.")

    def _bank(self) -> None:
        """Subjects of the bank."""
        try:
            with LesionBank(self.output / BANK) as bank:
                cases = [(case.case, case.subject) for case in bank.cases()]
        except LesionsynthError as error:
            self.findings.append(finding_of(error, file=BANK))
            return
        self.findings += audit_bank(cases, self.cohort, BANK)

    def _folds(self, fits: dict[str, BlockFit]) -> None:
        """The output's folds against the input's and against everybody behind each case."""
        splits, _ = find_splits(self.cohort, self.recipe.folds, self.recipe.seed)
        if not splits:
            return
        try:
            value = read_json(self.output / SPLITS)
            if not isinstance(value, list):
                raise InputError("should be a list of folds.")
            folds = [part_of(Fold, fold, self.output / SPLITS) for fold in value]
        except LesionsynthError as error:
            self.findings.append(Finding("error", error.message, AGAIN, None, SPLITS))
            return
        parts = behind(self.evidence, self.people, fits)
        self.findings += audit_folds(folds, splits, self.people, self._originals, parts, self._keeps)

    def _tree(self, recorded: dict[str, list[str]], originals: Sequence[str]) -> None:
        """Files of no case, and the description of the whole."""
        described = self._described(recorded, originals)
        expected = {LOCK, COHORT, PLAN, MANIFEST, REALISM, REPORT, *described}
        if find_splits(self.cohort, self.recipe.folds, self.recipe.seed)[0]:
            expected.add(SPLITS)
        for files in self.cohort.cases:
            if self._keeps:
                expected |= set(self.scope.files_of(files, files.case, synthetic=False))
            for case in recorded.get(files.case, ()):
                expected |= {f"{RECORDS}/{case}.json", *self.scope.files_of(files, case, synthetic=True)}
        told = {finding.file for finding in self.findings}
        names = [name for name in self.names if not (name in told and name.startswith(f"{RECORDS}/"))]
        self.findings += audit_tree(names, expected, (BANK, _LIKELIHOOD, FAILURES, MODELS))
        self.findings += audit_description(self.output, described)

    def _described(self, recorded: dict[str, list[str]], originals: Sequence[str]) -> dict[str, bytes]:
        files = {case.case: case for case in self.cohort.cases}
        cases = [(case, files[host]) for host, made in recorded.items() for case in made]
        cases += [(case, files[case]) for case in originals]
        return self.scope.layout.description(self.cohort, sorted(cases, key=lambda c: c[0]))
