"""Bring a donor's intensities to the host: per channel, ``host value = scale * donor value + offset``.

A lesion is bright or dark against its own surroundings, so by default its difference from the tissue
around it is carried over, and not its absolute intensity. The units of two cases may differ by any factor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lesionsynth.backend import modules_of
from lesionsynth.domain.lesion import ChannelStats, LesionInfo
from lesionsynth.spec import Range, Spec, words_of

_LEAST_CONTRAST = 0.5
_SCALE_LEVELS = (0.1, 0.9)
"""Quantiles of the tissue that say in which units a case is."""
_TWO_TISSUES = 0.75
"""Share of the variance between two parts that makes them two tissues: that of an even distribution."""
_UNLIKE = 0.2
"""Surroundings are unlike that differ by more than this share of what lies between a host's two tissues."""
_LESION_LIKE = 0.25
"""Up to so far from lesion to surroundings intensities are those of a lesion."""
_STEEPEST = 4.0
"""From lesion to surroundings intensities change no more than this many times as fast as the levels do."""
_FAR = 1e9
"""Beyond any intensity."""
CONTRAST_METHODS = {
    "shell": "Intensities were scaled by the spread of the tissue, so that the difference from the tissue "
    "around the lesion was kept.",
    "ratio": "Intensities were scaled so that the ratio to the tissue around the lesion was kept.",
    "host_lesions": "Intensities were scaled, in all channels together, to the contrast of a lesion of "
    "like size of the host itself, or of the donor where the host had too few.",
    "zscore": "Intensities were matched by mean and standard deviation of the whole images.",
    "histogram": "Intensities were matched by histogram matching of the whole images [@nyul2000].",
    "absolute": "Intensities were left as they were.",
}
"""What the methods section says of each kind."""


class ContrastSpec(Spec):
    """How a donor's intensities are brought to the host."""

    kind: Literal["shell", "ratio", "host_lesions", "zscore", "histogram", "absolute"] = "shell"
    """shell: difference from the tissue around the lesion, scaled by the spread of that tissue (where tissues
    are not told apart and those around donor and place are unlike, by the levels of darker and brighter
    tissue); ratio: ratio to it; host_lesions: as strong, in all channels together, as a lesion of like size
    of the host itself; zscore, histogram: whole-image normalisation; absolute: unchanged."""
    factor_limits: Range = (0.5, 1.8)
    """Bounds of the scale factor for shell, ratio and host_lesions, beyond the ratio of the cases' units."""
    min_host_lesions: int = Field(default=5, ge=1)
    """host_lesions falls back to shell in hosts with fewer lesions."""
    brightness: Range = (1.0, 1.0)
    """Factor on the contrast, drawn for each lesion."""
    noise: float = Field(default=0.0, ge=0, le=100)
    """Standard deviation of added Gaussian noise, in units of the host tissue's own spread."""

    def methods(self) -> Iterator[str]:
        """By kind."""
        yield CONTRAST_METHODS[self.kind]
        if self.brightness != (1.0, 1.0):
            yield f"The contrast was multiplied by {words_of(self.brightness)}."
        if self.noise > 0:
            yield f"Gaussian noise was added ({self.noise:g} times the spread of the host's tissue)."


def draw_contrast(
    spec: ContrastSpec,
    donor: LesionInfo,
    host_lesions: Sequence[LesionInfo],
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Draw what is random in the contrast: a lesion of the host to be like, brightness, noise seed."""
    draw: dict[str, Any] = {"kind": spec.kind, "brightness": float(rng.uniform(*spec.brightness))}
    if spec.kind == "host_lesions":
        like = [h for h in host_lesions if abs(h.size_class - donor.size_class) <= 1]
        if len(host_lesions) >= spec.min_host_lesions and like:
            draw["like"] = [c.contrast for c in like[int(rng.integers(len(like)))].channels]
        else:
            draw["kind"] = "shell"
    if spec.noise > 0:
        draw["noise"] = spec.noise
    return draw


def intensity_map(
    draw: dict[str, Any],
    limits: tuple[float, float],
    donor: Sequence[ChannelStats],
    host_shell: Sequence[float],
    host_spread: Sequence[float],
    quantiles: tuple[list[list[float]], list[list[float]]],
    one_tissue: bool,
) -> list[dict[str, list[float]]]:
    """Maps from donor to host intensities, one a channel, as JSON.

    Parameters
    ----------
    draw : dict
        From :func:`draw_contrast`.
    limits : tuple of float
        Bounds of the scale factor.
    donor : sequence of ChannelStats
    host_shell, host_spread : sequence of float
        Median of the tissue around the new place, and spread of that tissue in the host.
    quantiles : tuple of list
        Intensity quantiles of the donor's and the host's whole tissue, per channel.
    one_tissue : bool
        Whether tissues are not told apart, so that a lesion may come from fat to muscle.

    Returns
    -------
    list of dict
        ``{"scale": [a], "offset": [b]}``, or ``{"from": [...], "to": [...]}`` for piecewise linear ones.
    """
    kind = draw["kind"]
    if kind == "histogram":
        return [
            {"from": own, "to": matched_quantiles(own, other)} for own, other in zip(*quantiles, strict=True)
        ]
    maps = []
    for c, (stats, own_levels, levels) in enumerate(zip(donor, *quantiles, strict=True)):
        shell, units = host_shell[c], _units(own_levels, levels)
        by_spread = _ratio(host_spread[c], stats.tissue_mad, units, limits)
        scale, offset = by_spread, shell - by_spread * stats.shell_median
        knots = _by_tissues(stats, shell, own_levels, levels) if kind == "shell" and one_tissue else None
        if kind == "ratio" and stats.shell_median > 0 and shell > 0:
            scale = _ratio(shell, stats.shell_median, units, limits)
            offset = shell - scale * stats.shell_median
        elif kind == "host_lesions":
            wanted, own = draw["like"][c], stats.contrast
            if wanted * own > 0 and abs(own) > _LEAST_CONTRAST * stats.tissue_mad:
                scale = float(np.clip(wanted / own, by_spread * limits[0], by_spread * limits[1]))
            offset = shell - scale * stats.shell_median
        elif kind == "zscore":
            (m0, s0), (m1, s1) = _moments(own_levels), _moments(levels)
            scale = s1 / s0 if s0 > 0 else 1.0
            offset = m1 - scale * m0
        elif kind == "absolute":
            scale, offset = 1.0, 0.0
        factor = draw["brightness"]
        if knots is not None:
            known, wanted = knots
            maps.append({"from": known, "to": [shell * (1 - factor) + factor * value for value in wanted]})
        else:
            maps.append({"scale": [scale * factor], "offset": [shell * (1 - factor) + factor * offset]})
    return maps


def intended_contrast(
    draw: dict[str, Any], how: dict[str, list[float]], donor: ChannelStats, host_shell: float
) -> float:
    """Contrast that a lesion should have at its place: by whole images, the donor's own."""
    if draw["kind"] in ("zscore", "histogram", "absolute"):
        return slope_of(how, donor.mean) * donor.contrast
    mapped = apply_map(np.full((1, 1, 1, 1), donor.mean, dtype=np.float64), table_of([how]))
    return float(mapped.item()) - host_shell


def _by_tissues(
    donor: ChannelStats, host_shell: float, donor_levels: list[float], host_levels: list[float]
) -> tuple[list[float], list[float]] | None:
    """Knots of a map that brings the donor's darker and brighter tissue to the levels of the host's.

    What is rather like the donor's surroundings goes over to what is around the place, or a rim of the one
    tissue would show in the other. None where the donor's surroundings are brought to what
    is around the place anyhow: the difference from that, which lies near by, tells more then.
    """
    own, other = two_levels(donor_levels), two_levels(host_levels)
    if own is None or other is None:
        return None
    (dark, bright), (host_dark, host_bright) = own, other
    scale = (host_bright - host_dark) / (bright - dark)

    def brought(value: float) -> float:
        return host_dark + scale * (value - dark)

    around = donor.shell_median
    if abs(brought(around) - host_shell) <= _UNLIKE * (host_bright - host_dark):
        return None
    between = donor.mean + _LESION_LIKE * (around - donor.mean)
    if abs(host_shell - brought(between)) > _STEEPEST * scale * abs(around - between):
        return [-_FAR, _FAR], [brought(-_FAR), brought(_FAR)]  # too alike to be told apart by intensity
    knots = [
        (between, brought(between)),
        (around, host_shell),
        (np.copysign(_FAR, donor.mean - around), brought(np.copysign(_FAR, donor.mean - around))),
        (np.copysign(_FAR, around - donor.mean), host_shell + scale * np.copysign(_FAR, around - donor.mean)),
    ]
    known, wanted = (list(map(float, part)) for part in zip(*sorted(knots), strict=True))
    return known, wanted


def two_levels(quantiles: list[float]) -> tuple[float, float] | None:
    """Medians of the darker and the brighter tissue of a case, given by its quantiles; None where it has one.

    References
    ----------
    Otsu, IEEE Transactions on Systems, Man, and Cybernetics 9(1), 1979, doi:10.1109/TSMC.1979.4310076.
    """
    values = np.array(quantiles)
    below, total = np.arange(1, len(values)), np.cumsum(values)
    above = len(values) - below
    apart = total[:-1] / below - (total[-1] - total[:-1]) / above
    between = below * above * np.square(apart) / len(values) ** 2
    if between.max() <= _TWO_TISSUES * values.var():
        return None
    cut = int(np.argmax(between)) + 1
    return float(np.median(values[:cut])), float(np.median(values[cut:]))


def table_of(maps: Sequence[dict[str, list[float]]]) -> NDArray[np.float64]:
    """Maps as one array, (C, 2, n): scale and offset (n = 1), or the knots of piecewise linear maps."""
    most = max(len(next(iter(how.values()))) for how in maps)
    return np.array([list(how.values()) if most == 1 else _knots(how, most) for how in maps])


def _knots(how: dict[str, list[float]], count: int) -> NDArray[np.float64]:
    """Any map as so many knots."""
    if "scale" in how:
        known = np.linspace(-_FAR, _FAR, count)
        return np.stack([known, how["scale"][0] * known + how["offset"][0]])
    padding = [(0, 0), (0, count - len(how["from"]))]
    return np.pad(np.array(list(how.values())), padding, mode="edge")


def apply_map(image: NDArray[np.float32], table: NDArray[np.float64]) -> NDArray[np.float32]:
    """Apply the maps of :func:`table_of` to channels (C, i, j, k), on any device."""
    xp, _ = modules_of(image, table)
    if table.shape[2] == 1:
        scale, offset = (table[:, part, :, None, None] for part in (0, 1))
        return (image.astype(xp.float64) * scale + offset).astype(xp.float32)
    # CuPy's interp takes contiguous arrays only, and this may be a part of one.
    image = xp.ascontiguousarray(image)
    mapped = [xp.interp(channel, knots[0], knots[1]) for channel, knots in zip(image, table, strict=True)]
    stacked: NDArray[np.float32] = xp.stack(mapped).astype(xp.float32)
    return stacked


def slope_of(how: dict[str, list[float]], at: float) -> float:
    """Local slope of a map at intensity `at`: what a contrast is multiplied by."""
    if "scale" in how:
        return how["scale"][0]
    x, y = np.array(how["from"]), np.array(how["to"])
    k = int(np.clip(np.searchsorted(x, at), 1, len(x) - 1))
    return float((y[k] - y[k - 1]) / max(x[k] - x[k - 1], 1e-12))


def matched_quantiles(source: list[float], reference: list[float]) -> list[float]:
    """Quantiles of `source` after histogram matching to `reference` (SimpleITK's filter).

    References
    ----------
    Nyul, Udupa, Zhang, IEEE TMI 2000, doi:10.1109/42.836373.
    """
    import SimpleITK as sitk

    def line(values: list[float]) -> Any:
        return sitk.GetImageFromArray(np.array(values, dtype=np.float64)[None, None])

    matched = sitk.HistogramMatching(
        line(source),
        line(reference),
        numberOfHistogramLevels=256,
        numberOfMatchPoints=15,
        thresholdAtMeanIntensity=False,
    )
    flat = sitk.GetArrayFromImage(matched).ravel()
    return [float(v) for v in np.maximum.accumulate(flat)]


def _ratio(
    numerator: float, denominator: float, units: float = 1.0, limits: tuple[float, float] = (0.0, np.inf)
) -> float:
    """A ratio within limits times `units`, which it is where it cannot be told."""
    if denominator <= 0 or numerator <= 0:
        return units
    return units * float(np.clip(numerator / denominator / units, *limits))


def _units(donor: list[float], host: list[float]) -> float:
    """How many units of the donor's case make one of the host's: MR images and PET counts have any.

    By the level of the tissue, which noise does not change, and by its range where values may be below 0.
    """
    (low, high), (host_low, host_high) = (
        [values[round(level * (len(values) - 1))] for level in _SCALE_LEVELS] for values in (donor, host)
    )
    if min(low, host_low) > 0:
        return _ratio(host_low + host_high, low + high)
    return _ratio(host_high - host_low, high - low)


def _moments(quantiles: list[float]) -> tuple[float, float]:
    values = np.array(quantiles)
    return float(values.mean()), float(values.std())
