"""What a check has found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One fault of an input, and its cure.

    Parameters
    ----------
    level : str
        "error" stops a run, "warning" does not.
    case, file : str or None
        Where.
    fault, cure : str
        What was found and expected, and what to do about it.
    """

    level: Literal["error", "warning"]
    fault: str
    cure: str
    case: str | None = None
    file: str | None = None

    def as_json(self) -> dict[str, str | None]:
        """All fields by name."""
        return asdict(self)

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.case and f"case {self.case}", self.file) if part)
        return f"{where}: {self.fault} {self.cure}" if where else f"{self.fault} {self.cure}"
