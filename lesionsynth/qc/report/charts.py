"""Charts as SVG for the report: the page's colours in light and dark, and words for who cannot see them.

Drawn here and not by a plotting library: one takes over a second to load, half of a small run, and its
pictures have colours of their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

_WIDTH, _HEIGHT = 340, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 12, 40
_NAMES, _ROW = 130, 24
_BINS = 20
_TICKS = 5
_MOST_POINTS = 1000


@dataclass(frozen=True)
class Series:
    """Numbers of one kind: its name, and the class that gives it a colour."""

    name: str
    css: str
    values: NDArray[np.float64]

    def finite(self, above_0: bool = False) -> Series:
        """Without what is no number, and without 0 and less where `above_0`."""
        kept = np.isfinite(self.values)
        return replace(self, values=self.values[kept & (self.values > 0) if above_0 else kept])

    def describe(self) -> str:
        """Number and quartiles in words."""
        if not self.values.size:
            return f"{self.name}: none"
        low, middle, high = (_number(v) for v in np.percentile(self.values, (25, 50, 75)))
        return f"{self.name}: n {self.values.size}, median {middle}, quartiles {low} to {high}"


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


@dataclass(frozen=True)
class _Axis:
    """From numbers to pixels, evenly or by logarithms."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        low, high, v = (math.log10(x) if self.log else x for x in (self.low, self.high, value))
        return self.start + (v - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round numbers along the axis."""
        if self.log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            if last > first:
                every = max(1, math.ceil((last - first) / _TICKS))
                return [10.0**e for e in range(first, last + 1, every)]
        span = (self.high - self.low) / _TICKS
        unit = 10.0 ** math.floor(math.log10(span))
        step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= span)
        lowest, highest = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [n * step for n in range(lowest, highest + 1)]


def histogram(title: str, unit: str, series: Sequence[Series], log: bool = False) -> Markup:
    """Shares of several series in the same bins, as steps, with their medians as marks below.

    Values that are not above 0 are left out where `log`; so are those that are no numbers.
    """
    kept = [s.finite(above_0=log) for s in series]
    values = np.concatenate([s.values for s in kept])
    if not values.size:
        return _empty(title)
    edges = _edges(values, log)
    low, high = float(edges[0]), float(edges[-1])
    shares = [np.histogram(np.clip(s.values, low, high), edges)[0] / max(1, s.values.size) for s in kept]
    top = max(float(share.max()) for share in shares)
    x = _Axis(low, high, _LEFT, _WIDTH - _RIGHT, log)
    y = _Axis(0.0, 100 * top * 1.05, _HEIGHT - _BOTTOM, _TOP)
    parts = [_frame(x, y, unit, "% of each")]
    for one, share in zip(kept, shares, strict=True):
        if one.values.size:
            steps = [f"M{x.at(low):.1f} {y.at(0):.1f}"]
            for right, part in zip(edges[1:], share, strict=True):
                steps.append(f"V{y.at(100 * float(part)):.1f}H{x.at(min(float(right), high)):.1f}")
            parts.append(f'<path class="line {one.css}" d="{"".join(steps)}V{y.at(0):.1f}"/>')
            middle = x.at(float(np.median(one.values)))
            parts.append(f'<path class="mark {one.css}" d="M{middle:.1f} {y.at(0) + 1:.1f}v6"/>')
    return _svg(title, "; ".join(s.describe() for s in kept), parts)


def _edges(values: NDArray[np.float64], log: bool) -> NDArray[np.float64]:
    """Edges of bins; of whole numbers, such as counts, each bin holds as many."""
    low, high = float(values.min()), float(values.max())
    if not log and (values == np.rint(values)).all():
        width = math.ceil((high - low + 1) / _BINS)
        return np.arange(low - 0.5, high + width, width)
    if high <= low:
        low, high = (low / 2, low * 2) if log else (low - 0.5, low + 0.5)
    return np.geomspace(low, high, _BINS + 1) if log else np.linspace(low, high, _BINS + 1)


def scatter(
    title: str, x_unit: str, y_unit: str, points: Sequence[tuple[float, float, str]], tolerance: float
) -> Markup:
    """Points around the line of equality, with a band of relative `tolerance`; each has a css class.

    Of very many an even choice is drawn.
    """
    if not points:
        return _empty(title)
    shown = points[:: math.ceil(len(points) / _MOST_POINTS)]
    most = max(max(p[0], p[1]) for p in points) * 1.05 or 1.0
    x = _Axis(0.0, most, _LEFT, _WIDTH - _RIGHT)
    y = _Axis(0.0, most, _HEIGHT - _BOTTOM, _TOP)
    end = most / (1 + tolerance)
    band = (
        f"M{x.at(0):.1f} {y.at(0):.1f}L{x.at(end):.1f} {y.at(most):.1f}"
        f"L{x.at(most):.1f} {y.at(most):.1f}L{x.at(most):.1f} {y.at(most * (1 - tolerance)):.1f}Z"
    )
    parts = [f'<path class="band" d="{band}"/>', _frame(x, y, x_unit, y_unit)]
    parts += [
        f'<circle class="dot {css}" cx="{x.at(a):.1f}" cy="{y.at(b):.1f}" r="3"/>' for a, b, css in shown
    ]
    missed = sum(css == "missed" for *_, css in points)
    return _svg(title, f"{len(points)} cases, {missed} outside the tolerance", parts)


def intervals(title: str, unit: str, rows: Sequence[tuple[str, float, float | None, float | None]]) -> Markup:
    """Values with their intervals, one below the other, beside the line of no difference.

    A row has a name, a value, and the ends of its interval or None.
    """
    if not rows:
        return _empty(title)
    ends = [0.0] + [v for _, *values in rows for v in values if v is not None]
    room = 0.08 * (max(ends) - min(ends)) or 1.0
    x = _Axis(min(ends) - room, max(ends) + room, _NAMES, _WIDTH - _RIGHT)
    bottom = _TOP + _ROW * len(rows)
    parts = [f'<path class="tick" d="M{x.at(0):.1f} {_TOP}V{bottom}"/>']
    told = []
    for number, (name, value, low, high) in enumerate(rows):
        y = _TOP + _ROW * (number + 0.5)
        parts.append(f'<text x="{_NAMES - 8}" y="{y + 4:.1f}" text-anchor="end">{_text(name)}</text>')
        if low is not None and high is not None:
            parts.append(f'<path class="line synthetic" d="M{x.at(low):.1f} {y:.1f}H{x.at(high):.1f}"/>')
            told.append(f"{name}: {value:+.3f}, {low:+.3f} to {high:+.3f}")
        else:
            told.append(f"{name}: {value:+.3f}")
        parts.append(f'<circle class="dot synthetic" cx="{x.at(value):.1f}" cy="{y:.1f}" r="4"/>')
    for tick in x.ticks():
        at = x.at(tick)
        parts.append(f'<path class="tick" d="M{at:.1f} {bottom}v3"/>')
        parts.append(f'<text x="{at:.1f}" y="{bottom + 16}" text-anchor="middle">{_number(tick)}</text>')
    middle = (x.start + x.end) / 2
    parts.append(f'<text x="{middle:.1f}" y="{bottom + 34}" text-anchor="middle">{_text(unit)}</text>')
    return _svg(title, "; ".join(told), parts, bottom + 40)


def _frame(x: _Axis, y: _Axis, x_unit: str, y_unit: str) -> str:
    parts = []
    for tick in x.ticks():
        at = x.at(tick)
        parts.append(f'<path class="tick" d="M{at:.1f} {y.start:.1f}v-3"/>')
        parts.append(f'<text x="{at:.1f}" y="{y.start + 20:.1f}" text-anchor="middle">{_number(tick)}</text>')
    for tick in y.ticks():
        at = y.at(tick)
        parts.append(f'<path class="grid" d="M{x.start:.1f} {at:.1f}H{x.end:.1f}"/>')
        parts.append(f'<text x="{x.start - 6:.1f}" y="{at + 4:.1f}" text-anchor="end">{_number(tick)}</text>')
    parts.append(f'<path class="tick" d="M{x.start:.1f} {y.start:.1f}H{x.end:.1f}"/>')
    middle = (x.start + x.end) / 2
    parts.append(f'<text x="{middle:.1f}" y="{_HEIGHT - 4}" text-anchor="middle">{_text(x_unit)}</text>')
    turned = f'transform="rotate(-90 11 {(y.start + y.end) / 2:.1f})"'
    parts.append(
        f'<text x="11" y="{(y.start + y.end) / 2:.1f}" text-anchor="middle" {turned}>{_text(y_unit)}</text>'
    )
    return "".join(parts)


def _svg(title: str, description: str, parts: Sequence[str], height: float = _HEIGHT) -> Markup:
    told = f"{_text(title)}. {_text(description)}"
    return Markup(  # noqa: S704 - every text in it is escaped
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {height:g}" role="img" aria-label="{told}">'
        f"<title>{told}</title>{''.join(parts)}</svg>"
    )


def _empty(title: str) -> Markup:
    return Markup('<p class="none">{}: nothing to show.</p>').format(title)


def _text(text: str) -> str:
    return str(Markup.escape(text))
