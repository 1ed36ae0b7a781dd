"""Levels of a case's tissue: in which units it is, and how bright its darker and its brighter tissue are."""

from __future__ import annotations

import numpy as np

from lesionsynth.domain.lesion import ChannelStats

_LOWEST = 0.02
"""Quantile of the tissue that is its least intensity: fewer voxels may be anything."""
_LEAST_TISSUE = 0.1
"""Of two tissues each is so much of a case at least; a bladder is none."""
_TWO_TISSUES = 0.75
"""Share of the variance between two parts that makes them two tissues: that of an even distribution."""
_UNLIKE = 0.2
"""Surroundings are unlike that differ by more than this share of what lies between a host's two tissues."""
_LESION_LIKE = 0.25
"""Up to so far from lesion to surroundings intensities are those of a lesion."""
_STEEPEST = 4.0
"""From lesion to surroundings intensities change no more than this many times as fast as the levels do."""

Levels = tuple[float, float] | None
"""Of the darker and the brighter tissue of a case, in a channel; None where it has one."""
Knots = tuple[tuple[float, float], tuple[float, float]]
"""Two intensities of the donor, in order, with what they become."""


def units_between(donor: list[float], host: list[float], levels: tuple[Levels, Levels]) -> float:
    """How many units of the donor's case make one of the host's: MR images and PET counts have any.

    By the level of the tissue (where there are two of the darker), which noise does not change. Values below
    0 are normalised ones, or Hounsfield units: those of all cases.
    """
    lowest = round(_LOWEST * (len(donor) - 1))
    if min(donor[lowest], host[lowest]) < 0:
        return 1.0
    own, other = levels
    if own is None or other is None:
        return ratio_within(host[len(host) // 2], donor[len(donor) // 2])
    return ratio_within(other[0], own[0])


def two_levels(quantiles: list[float]) -> Levels:
    """Medians of the darker and the brighter tissue of a case, given by its quantiles; None where it has one.

    References
    ----------
    Otsu, IEEE Transactions on Systems, Man, and Cybernetics 9(1), 1979, doi:10.1109/TSMC.1979.4310076.
    """
    values = np.array(quantiles)
    n = len(values)
    cuts = np.arange(int(np.ceil(_LEAST_TISSUE * n)), int(n - _LEAST_TISSUE * n) + 1)
    total = np.cumsum(values)
    below, above = total[cuts - 1] / cuts, (total[-1] - total[cuts - 1]) / (n - cuts)
    between = cuts * (n - cuts) * np.square(above - below) / n**2
    cut = int(cuts[np.argmax(between)])
    dark, bright = float(np.median(values[:cut])), float(np.median(values[cut:]))
    return (dark, bright) if bright > dark and between.max() > _TWO_TISSUES * values.var() else None


def by_tissues(
    donor: ChannelStats,
    host_shell: float,
    levels: tuple[Levels, Levels],
    units: float,
    limits: tuple[float, float],
) -> tuple[float, float, Knots | None] | None:
    """Scale and offset that bring the donor's darker and brighter tissue to the levels of the host's.

    Between the knots what is rather like the donor's surroundings goes over to what is around the place, or a
    rim of the one tissue would show in the other. None where the donor's surroundings are brought to what is
    around the place anyhow: the difference from that, which lies near by, tells more then.
    """
    own, other = levels
    if own is None or other is None:
        return None
    scale = ratio_within(other[1] - other[0], own[1] - own[0], units, limits)
    offset = other[0] - scale * own[0]
    around = donor.shell_median
    if abs(scale * around + offset - host_shell) <= _UNLIKE * (other[1] - other[0]):
        return None
    like_it = donor.mean + _LESION_LIKE * (around - donor.mean)
    lesion = (like_it, scale * like_it + offset)
    if abs(host_shell - lesion[1]) > _STEEPEST * scale * abs(around - like_it):
        return scale, offset, None  # too alike to be told apart by intensity
    first, second = sorted((lesion, (around, host_shell)))
    return scale, offset, (first, second)


def four_knots(
    scale: float, offset: float, knots: Knots | None, levels: list[float]
) -> tuple[list[float], list[float]]:
    """Four knots of a map, beyond all intensities of the case; without knots of its own it is a line."""
    reach = max(levels[-1] - levels[0], abs(levels[0]), abs(levels[-1]), 1e-30)
    low, high = levels[0] - reach, levels[-1] + reach
    if knots is None:
        third = (high - low) / 3
        knots = (
            (low + third, scale * (low + third) + offset),
            (high - third, scale * (high - third) + offset),
        )
    (first, to_first), (second, to_second) = knots
    low, high = min(low, first - reach), max(high, second + reach)
    return [low, first, second, high], [
        to_first - scale * (first - low),
        to_first,
        to_second,
        to_second + scale * (high - second),
    ]


def ratio_within(
    numerator: float, denominator: float, units: float = 1.0, limits: tuple[float, float] = (0.0, np.inf)
) -> float:
    """A ratio within limits times `units`, which it is where it cannot be told."""
    if denominator <= 0 or numerator <= 0:
        return units
    return units * float(np.clip(numerator / denominator / units, *limits))
