"""Put the report of an output together and write it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

import lesionsynth
from lesionsynth import nifti
from lesionsynth.qc.report.cases import draw_cases, draw_maps
from lesionsynth.qc.report.charts import Series, histogram, scatter
from lesionsynth.qc.report.gather import Facts, gather, shown_first
from lesionsynth.qc.report.methods import Run, methods_of
from lesionsynth.qc.report.realism import read_realism
from lesionsynth.recipe.model import Recipe
from lesionsynth.run.cohort import open_cohort
from lesionsynth.run.prepare import Prepared, read_prepared
from lesionsynth.run.workspace import REPORT, read_lock

STACKS = 2
"""Cases that are shown slice by slice."""
_MOST_ROWS = 50
_MOST_LOCK = 40_000
_SIDES = ("left to right", "back to front", "down to up")
Chart = tuple[str, Markup, str]


def write_report(output: Path, target: Path | None = None, cases: int = 12, root: Path | None = None) -> Path:
    """Write one HTML file that tells what an output holds; it needs nothing but itself.

    Parameters
    ----------
    output : Path
        Of a run, finished or not.
    target : Path, optional
        The file; ``report.html`` in the output where not given.
    cases : int
        Synthetic cases that are shown in pictures, at most. Each takes about 0.1 MB a channel, those that are
        shown slice by slice 1 to 3 MB.
    root : Path, optional
        The input, where it has moved; it is read for hosts that the output does not hold.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    LesionsynthError
        If there is no finished plan, bank or records are damaged, or the file cannot be written.
    """
    output = output.absolute()
    prepared = read_prepared(output)
    space, recipe = prepared.space, prepared.space.recipe
    cohort = space.cohort if root is None else open_cohort(recipe.input, root)[1]
    facts = gather(output, prepared)
    jobs = {job.case: job for job in prepared.jobs}
    uses_map = any(step.uses_map for step in recipe.steps.values())
    chosen = [(copy, why, jobs[copy.case]) for copy, why in shown_first(facts.copies)[:cases]]
    page = {
        "name": output.name,
        "version": lesionsynth.__version__,
        "description": recipe.description.rstrip("."),
        "seed": recipe.seed,
        "channels": space.cohort.channels,
        "facts": facts,
        "made": facts.copies,
        "targets": [copy for copy in facts.copies if copy.target_ml is not None],
        "missed": [copy for copy in facts.copies if copy.shortfall],
        "most_rows": _MOST_ROWS,
        "disk": [(folder, _bytes(size)) for folder, size in facts.bytes.items()],
        "disk_total": _bytes(sum(facts.bytes.values())),
        "time": _time(facts.minutes),
        "load_charts": _load_charts(facts, recipe),
        "lesion_charts": _lesion_charts(facts, space.cohort.channels),
        "realism": read_realism(output),
        "maps": draw_maps(space, cohort, [jobs[copy.case] for copy in facts.copies]) if uses_map else [],
        "blocks": len({job.block for job in prepared.jobs}),
        "shown": draw_cases(space, cohort, chosen, STACKS),
        "refused": [(step, why, count) for (step, why), count in facts.refused.most_common()],
        "methods": methods_of(_run_of(prepared, facts)),
        **_lock_parts(output),
    }
    path = output / REPORT if target is None else target
    nifti.write_bytes(path, render(page).encode())
    return path


def _run_of(prepared: Prepared, facts: Facts) -> Run:
    hosts = {copy.host for copy in facts.copies}
    subjects = {job.subject for job in prepared.jobs if job.host in hosts}
    has_folds = bool(prepared.splits)
    recipe = prepared.space.recipe
    return Run(recipe, len(facts.copies), len(hosts), len(subjects), facts.tissues, has_folds)


def render(page: dict[str, Any]) -> str:
    """The HTML of a page; every text in it is escaped."""
    folder = resources.files("lesionsynth.qc.report")
    files = {name: (folder / f"page.{name}").read_text("utf-8") for name in ("html", "css", "js")}
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    sections = [
        ("summary", "Summary"),
        ("load", "Load"),
        ("lesions", "Lesions"),
        *([("realism", "Realism")] if page["realism"] else []),
        *([("likelihood", "Likelihood")] if page["maps"] else []),
        ("cases", "Cases"),
        ("troubles", "Failures"),
        ("disk", "Disk"),
        ("methods", "Methods"),
        ("recipe", "Recipe"),
    ]
    ours = {"css": Markup(files["css"]), "script": Markup(files["js"])}  # noqa: S704 - files of this package
    return environment.from_string(files["html"]).render(page, sections=sections, number=_number, **ours)


def _load_charts(facts: Facts, recipe: Recipe) -> list[Chart]:
    tolerances = [step.target_load.tolerance for step in recipe.steps.values() if step.target_load]
    tolerance = tolerances[-1] if tolerances else 0.0
    points = [
        (copy.target_ml, copy.after_ml, "missed" if copy.shortfall else "met")
        for copy in facts.copies
        if copy.target_ml is not None
    ]
    real_ml, real_count = np.array(facts.real_loads, dtype=float).reshape(-1, 2).T
    made_ml = np.array([copy.after_ml for copy in facts.copies])
    made_count = np.array([copy.after for copy in facts.copies], dtype=float)
    charts: list[Chart] = []
    if points:
        title = "Target and achieved load"
        note = f"The band is the tolerance of {100 * tolerance:g} %."
        charts.append((title, scatter(title, "target, mL", "achieved, mL", points, tolerance), note))
    charts.append(_compared("Load of a case", "mL", real_ml, made_ml))
    charts.append(_compared("Lesions of a case", "number", real_count, made_count))
    return charts


def _lesion_charts(facts: Facts, channels: Sequence[str]) -> list[Chart]:
    real, added = facts.real, facts.added
    charts = [_compared("Volume", "mm3", np.array(real.volume_mm3), np.array(added.volume_mm3), log=True)]
    for name, one, other in zip(channels, real.contrast, added.contrast, strict=True):
        title = f"Contrast in {name}"
        charts.append(_compared(title, "spreads of the tissue", np.array(one), np.array(other)))
    for axis, side in enumerate(_SIDES):
        one, other = ([place[axis] for place in lesions.position] for lesions in (real, added))
        charts.append(_compared(f"Position, {side}", "share of the box", np.array(one), np.array(other)))
    return charts


def _compared(title: str, unit: str, real: Any, made: Any, log: bool = False) -> Chart:
    series = [Series("real", "real", real), Series("synthetic", "synthetic", made)]
    told = "; ".join(one.finite().describe() for one in series)
    return title, histogram(title, unit, series, log), told


def _lock_parts(output: Path) -> dict[str, str]:
    """Recipe and lock as text; of a long list of input files only the beginning."""
    lock = read_lock(output) or {}
    recipe = yaml.safe_dump(lock.pop("recipe", {}), sort_keys=False, width=100)
    rest = yaml.safe_dump(lock, sort_keys=False, width=100)
    if len(rest) > _MOST_LOCK:
        rest = rest[:_MOST_LOCK] + "\n... the rest is in recipe.lock.yaml"
    return {"recipe": recipe, "lock": rest}


def _number(value: float | None) -> str:
    """Three digits; a dash where there is no number."""
    return "-" if value is None else f"{value:.2f}" if abs(value) < 10 else f"{value:,.0f}"


def _bytes(count: int) -> str:
    """A size for people."""
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _time(minutes: float | None) -> str:
    if minutes is None:
        return ""
    if minutes < 2:
        return f"{60 * max(minutes, 0):.0f} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
