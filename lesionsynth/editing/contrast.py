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
from lesionsynth.domain.case import is_ct
from lesionsynth.domain.lesion import ChannelStats, LesionInfo
from lesionsynth.editing.levels import by_tissues, four_knots, ratio_within, two_levels, units_between
from lesionsynth.spec import Range, Spec, words_of

_LEAST_CONTRAST = 0.5
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
    channels: Sequence[str],
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
    channels : sequence of str
        Their names; CT is in units that all cases share.
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
    for c, (stats, donor_levels, levels) in enumerate(zip(donor, *quantiles, strict=True)):
        shell = host_shell[c]
        own_levels = levels if is_ct(channels[c]) else donor_levels
        tissues = (two_levels(own_levels), two_levels(levels)) if one_tissue else (None, None)
        units = units_between(own_levels, levels, tissues)
        by_spread = ratio_within(host_spread[c], stats.tissue_mad, units, limits)
        scale, offset, knots = by_spread, shell - by_spread * stats.shell_median, None
        if kind == "shell" and one_tissue:
            other = by_tissues(stats, shell, tissues, units, limits)
            scale, offset, knots = other or (scale, offset, knots)
        elif kind == "ratio" and stats.shell_median > 0 and shell > 0:
            scale = ratio_within(shell, stats.shell_median, units, limits)
            offset = shell - scale * stats.shell_median
        elif kind == "host_lesions":
            wanted, own = draw["like"][c], stats.contrast
            if wanted * own > 0 and abs(own) > _LEAST_CONTRAST * stats.tissue_mad:
                scale = float(np.clip(wanted / own, by_spread * limits[0], by_spread * limits[1]))
            offset = shell - scale * stats.shell_median
        elif kind == "zscore":
            (m0, s0), (m1, s1) = _moments(donor_levels), _moments(levels)
            scale = s1 / s0 if s0 > 0 else 1.0
            offset = m1 - scale * m0
        elif kind == "absolute":
            scale, offset = 1.0, 0.0
        maps.append((scale, offset, knots))
    factor = draw["brightness"]
    if all(knots is None for _, _, knots in maps):
        return [
            {"scale": [scale * factor], "offset": [shell * (1 - factor) + factor * offset]}
            for (scale, offset, _), shell in zip(maps, host_shell, strict=True)
        ]
    # All channels by knots, since they are mapped together.
    knotted = [four_knots(*how, levels) for how, levels in zip(maps, quantiles[0], strict=True)]
    return [
        {"from": known, "to": [shell * (1 - factor) + factor * value for value in wanted]}
        for (known, wanted), shell in zip(knotted, host_shell, strict=True)
    ]


def intended_contrast(
    draw: dict[str, Any], how: dict[str, list[float]], donor: ChannelStats, host_shell: float
) -> float:
    """Contrast that a lesion should have at its place: by whole images, the donor's own."""
    if draw["kind"] in ("zscore", "histogram", "absolute"):
        return slope_of(how, donor.mean) * donor.contrast
    if "scale" in how:
        return how["scale"][0] * donor.mean + how["offset"][0] - host_shell
    return float(np.interp(donor.mean, how["from"], how["to"])) - host_shell


def table_of(maps: Sequence[dict[str, list[float]]]) -> NDArray[np.float64]:
    """Maps as one array, (C, 2, n): scale and offset (n = 1), or the knots of piecewise linear maps."""
    return np.array([list(how.values()) for how in maps])


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


def _moments(quantiles: list[float]) -> tuple[float, float]:
    values = np.array(quantiles)
    return float(values.mean()), float(values.std())
