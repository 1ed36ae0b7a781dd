"""What `lesionsynth realism` has left in an output, for the report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from lesionsynth.run.workspace import REALISM

if TYPE_CHECKING:
    from lesionsynth.qc.realism.compare import Realism
    from lesionsynth.qc.realism.two_sample import Estimate


@dataclass(frozen=True)
class Shown:
    """A result and its lines of the classifier's table: what, area, that of real halves; or a fault."""

    found: Realism | None
    areas: tuple[tuple[str, Estimate, Estimate | None], ...] = ()
    fault: str = ""


def read_realism(output: Path) -> Shown | None:
    """What is there, or why it cannot be read; None where there is nothing."""
    path = output / REALISM
    if not path.is_file():
        return None
    from lesionsynth.qc.realism.compare import Realism  # takes a third of a second

    try:
        found = TypeAdapter(Realism).validate_json(path.read_bytes())
    except (OSError, ValidationError, RecursionError):
        return Shown(None, fault=f"{REALISM} is not as `lesionsynth realism` writes it.")
    lesions, fills = found.lesions, found.fills
    return Shown(
        found,
        (
            ("added lesions, by donor", lesions.by_donor, lesions.floor_by_donor),
            ("added lesions, by host", lesions.by_host, lesions.floor_by_host),
            ("their surroundings alone", lesions.place, None),
            ("filled places, by place", fills.by_place, fills.floor),
            ("filled places, by host", fills.by_host, None),
            ("their surroundings alone", fills.place, None),
        ),
    )
