"""What an output holds, in numbers: loads, lesions real and added, failures, disk and time."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionsynth.bank.harvest import CaseSummary
from lesionsynth.bank.store import LesionBank
from lesionsynth.errors import InputError
from lesionsynth.likelihood.fit import box_coordinates
from lesionsynth.run.ledger import draws_of, failures, is_done, record_path
from lesionsynth.run.prepare import Prepared
from lesionsynth.run.workspace import BANK, PLAN, REPORT

_PAUSE_S = 1800.0
"""A case that is written so long after the one before was made by another session."""
MOST_LESION_CASES = 1000
"""Cases of either kind whose lesions are looked at one by one; of more, an even choice."""


@dataclass(frozen=True)
class Copy:
    """What the report needs of every synthetic case."""

    case: str
    host: str
    before_ml: float
    target_ml: float | None
    after_ml: float
    shortfall: bool
    inserted: int
    removed: int
    after: int
    refused: int
    least_contrast_kept: float
    """Of its added lesions, in their lead channels; infinite where nothing is known of any."""
    clipped_vox: int
    warnings: tuple[str, ...]


@dataclass
class Lesions:
    """Lesions of one kind, a list entry each.

    `contrast` is in units of the spread of the tissue, a list for each channel; `position` the place of the
    centre in the box of the tissue, 0 to 1 from left to right, back to front and down to up.
    """

    volume_mm3: list[float] = field(default_factory=list)
    contrast: list[list[float]] = field(default_factory=list)
    position: list[tuple[float, float, float]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Facts:
    """All of an output that the report tells in numbers.

    `real_loads` are (mL, number of lesions) of the input's cases and masks; `refused` counts what was drawn
    in vain, by step and reason; `bytes` by top folder of the output; `minutes` see :func:`worked_minutes`.
    """

    planned: int
    copies: tuple[Copy, ...]
    originals: int
    subjects: int
    masks: int
    real_loads: tuple[tuple[float, int], ...]
    real: Lesions
    added: Lesions
    looked_at: tuple[int, int]
    refused: Counter[tuple[str, str]]
    failed: tuple[dict[str, Any], ...]
    missing: int
    left_out: dict[str, str]
    tissues: tuple[str, ...]
    bytes: dict[str, int]
    minutes: float | None


def gather(output: Path, prepared: Prepared) -> Facts:
    """Read all records, and the bank, of an output.

    Raises
    ------
    InputError
        If the bank or a record is damaged.
    """
    space = prepared.space
    channels = len(space.cohort.channels)
    added = Lesions(contrast=[[] for _ in range(channels)])
    refused: Counter[tuple[str, str]] = Counter()
    copies: list[Copy] = []
    pending: set[str] = set()
    shown = 0
    times: list[float] = []
    with LesionBank(output / BANK) as bank:
        cases = bank.cases()
        summaries = {case.case: case for case in cases}
        step = -(-len(prepared.jobs) // MOST_LESION_CASES) or 1
        for number, job in enumerate(prepared.jobs):
            record = is_done(output, job)
            if record is None:
                pending.add(job.case)
                continue
            path = record_path(output, job.case)
            times.append(path.stat().st_mtime)
            try:
                copies.append(_copy(record))
                for done in record["steps"]:
                    refused.update({(done["step"], why): count for why, count in done["rejected"].items()})
                if number % step == 0:
                    shown += 1
                    _take_added(added, record, summaries[job.host])
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                raise InputError(
                    f"the record is not as a run writes it ({type(error).__name__}: {error}).",
                    case=job.case,
                    file=path,
                    remedy="Remove it and run the same command again, so that the case is made anew.",
                ) from None
        real, seen = _real_lesions(bank, cases, channels)
    noted = [note for note in failures(output) if note.get("case") in pending]
    with_images = [case for case in cases if case.has_images]
    return Facts(
        planned=len(prepared.jobs),
        copies=tuple(copies),
        originals=len(with_images),
        subjects=len({case.subject for case in with_images}),
        masks=len(cases) - len(with_images),
        real_loads=tuple((case.load.ml, case.load.count) for case in cases),
        real=real,
        added=added,
        looked_at=(seen, shown),
        refused=refused,
        failed=tuple(noted),
        missing=len(pending) - len(noted),
        left_out=prepared.left_out,
        tissues=tuple(sorted({case.tissue_kind for case in with_images if case.tissue_kind})),
        bytes=_sizes(output),
        minutes=worked_minutes([(output / PLAN).stat().st_mtime, *times]),
    )


def worked_minutes(times: Sequence[float]) -> float | None:
    """Time from the first to the last of the times in s at which files were written, pauses left out.

    None where there is no telling: one file, or all written at once, as when an output is copied.
    """
    steps = np.diff(np.sort(np.asarray(times)))
    seconds = float(steps[steps < _PAUSE_S].sum())
    return seconds / 60 if seconds >= 0.5 else None


def _copy(record: dict[str, Any]) -> Copy:
    load, lesions = record["load_ml"], record["lesions"]
    painted = bool(draws_of(record, "translate"))  # what a blend has kept is painted over
    kept = [
        measures["contrast_kept"][measures["lead_channel"]]
        for measures in (draw.get("measures") for draw in draws_of(record, "insert") if not painted)
        if measures is not None and measures["contrast_kept"][measures["lead_channel"]] is not None
    ]
    return Copy(
        case=record["case"],
        host=record["host"]["case"],
        before_ml=load["before"],
        target_ml=load["target"],
        after_ml=load["after"],
        shortfall=record["shortfall"],
        inserted=lesions["inserted"],
        removed=lesions["removed"],
        after=lesions["after"],
        refused=sum(count for step in record["steps"] for count in step["rejected"].values()),
        least_contrast_kept=min(kept, default=float("inf")),
        clipped_vox=record["clipped_voxels"],
        warnings=tuple(record["warnings"]),
    )


def _take_added(added: Lesions, record: dict[str, Any], host: CaseSummary) -> None:
    """Note what a record says of each added lesion; carved ones have neither place nor measures.

    The contrasts of an image that was painted anew are those of its painting.
    """
    inserted, painted = draws_of(record, "insert"), draws_of(record, "translate")
    for draw in inserted:
        added.volume_mm3.append(draw["volume_mm3"])
        if "centre_vox" in draw:
            added.position.append(_position(draw["centre_vox"], host))
    if painted:
        before = record["lesions"]["before"]
        contrasts = [c for number, c in painted[-1]["contrast"].items() if int(number) > before]
    else:
        contrasts = [m["contrast_achieved"] for d in inserted if (m := d.get("measures"))]
    for contrast in contrasts:
        for values, achieved, (_, spread) in zip(added.contrast, contrast, host.tissue_stats, strict=True):
            values.append(achieved / spread if achieved is not None and spread > 0 else np.nan)


def _real_lesions(bank: LesionBank, cases: Sequence[CaseSummary], channels: int) -> tuple[Lesions, int]:
    """Lesions of the input's cases, specks left out, and the number of cases they are of.

    Of a mask alone only volumes are known.
    """
    real = Lesions(contrast=[[] for _ in range(channels)])
    chosen = cases[:: -(-len(cases) // MOST_LESION_CASES) or 1]
    by_name = {case.case: case for case in chosen}
    for info in bank.infos({case.subject for case in chosen}):
        if info.case not in by_name:
            continue
        real.volume_mm3.append(info.volume_mm3)
        if info.channels:
            real.position.append(_position(info.centre_vox, by_name[info.case]))
            for values, stats in zip(real.contrast, info.channels, strict=True):
                values.append(stats.contrast / stats.tissue_mad if stats.tissue_mad > 0 else np.nan)
    return real, len(chosen)


def _position(voxel: Iterable[int], case: CaseSummary) -> tuple[float, float, float]:
    if case.tissue_box is None:
        return (np.nan, np.nan, np.nan)
    at: NDArray[Any] = np.array([list(voxel)])
    x, y, z = box_coordinates(at, case.grid, case.tissue_box)[0]
    return float(x), float(y), float(z)


def _sizes(output: Path) -> dict[str, int]:
    """Bytes of the files of an output by its top folders; loose files together, without the report."""
    sizes: Counter[str] = Counter()
    for folder, _, names in os.walk(output):
        top = Path(folder).relative_to(output).parts[:1]
        for name in names:
            if not top and name == REPORT:
                continue  # or it would tell its predecessor's size
            sizes[top[0] if top else "other files"] += os.lstat(Path(folder) / name).st_size
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def shown_first(copies: Sequence[Copy]) -> list[tuple[Copy, str]]:
    """Copies in the order in which they are worth looking at, with why: those that stand out, then others.

    The others are spread evenly over all.
    """
    reasons: dict[str, str] = {}

    def note(found: Iterable[Copy], why: str, most: int = 2) -> None:
        for copy in list(found)[:most]:
            reasons.setdefault(copy.case, why)

    note((c for c in copies if c.warnings), "has a warning")
    note((c for c in copies if c.shortfall), "missed its target")
    note((c for c in copies if c.clipped_vox), "was clipped")
    faint = sorted((c for c in copies if np.isfinite(c.least_contrast_kept)), key=_faintness)
    note(faint, "has the faintest lesion, by contrast kept", 1)
    note(sorted(copies, key=lambda c: (-c.after_ml, c.case)), "has the highest load", 1)
    by_case = {copy.case: copy for copy in copies}
    first = [(by_case[case], why) for case, why in reasons.items()]
    rest = [copy for copy in copies if copy.case not in reasons]
    # Even choices of 1, 2, 4, ... so that any number of them is spread over all.
    order = np.argsort([_bit_reversed(n) for n in range(len(rest))], kind="stable")
    return first + [(rest[int(n)], "") for n in order]


def _faintness(copy: Copy) -> tuple[float, str]:
    return copy.least_contrast_kept, copy.case


def _bit_reversed(number: int) -> float:
    """The van der Corput sequence: 0, 1/2, 1/4, 3/4, 1/8, ..."""
    share, unit = 0.0, 0.5
    while number:
        share += unit * (number & 1)
        number >>= 1
        unit /= 2
    return share
