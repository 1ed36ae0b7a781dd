"""Time things side by side: every round runs each once, so that a busy machine disturbs all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """A figure beside its target.

    `value` is a ratio of medians unless `unit` says otherwise; `better` tells which side of `target` is good.
    """

    target_id: str
    what: str
    value: float
    target: float | None
    better: str = "lower"
    unit: str = "x"
    detail: str = ""

    @property
    def met(self) -> str:
        """Whether the target is met, as text."""
        if self.target is None:
            return ""
        good = self.value <= self.target if self.better == "lower" else self.value >= self.target
        return "yes" if good else "NO"

    def as_json(self) -> dict[str, Any]:
        """The row for the JSON file."""
        return asdict(self)


def interleaved(work: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each piece of work in each round, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds + 1):
        for name, do in work.items():
            started = time.perf_counter()
            do()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def medians(seconds: dict[str, list[float]]) -> dict[str, float]:
    """Median of each."""
    return {name: statistics.median(values) for name, values in seconds.items()}


def spoken(name: str, values: list[float]) -> str:
    """Median and range for people."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{name} {1000 * middle:.4g} ms ({1000 * low:.4g} to {1000 * high:.4g})"


def spoken_all(seconds: dict[str, list[float]]) -> str:
    """Median and range of each for people."""
    return "; ".join(spoken(name, values) for name, values in seconds.items())
