"""Noise as strong and smooth as clean tissue, or of its spectrum; correlated between channels as there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from lesionsynth.domain.grid import Box, bounding_box, grown, origin_of, shifted
from lesionsynth.kernels.intensity import robust_spread

# How far around the region clean tissue is looked for, and the fewest voxels of it that say what it is like.
_NEARBY_VOX = (8, 16, 32)
_FEWEST_VOX = 500
# Texture is what this Gaussian leaves out, and is taken as uncorrelated farther apart than the lag.
_SMOOTH_VOX = 5.0
_LAG_VOX = 10
# Differences of neighbours beyond this many of their spreads are edges.
_EDGE_SPREADS = 2.0
# Noise smoother than by this would be anatomy.
_MOST_SMOOTH_VOX = 1.5
_ROOM_VOX = 6


def gaussian_noise(
    image: NDArray[np.float32],
    region: NDArray[np.bool_],
    clean: NDArray[np.bool_],
    rng: np.random.Generator,
    box: Box,
    *,
    white: bool = False,
) -> NDArray[np.float32] | None:
    """Noise whose neighbours, and next neighbours, differ as much as those of clean tissue nearby.

    It is white noise smoothed by a Gaussian along each axis: by the one with which the squared differences of
    next neighbours are as many times those of neighbours as in the tissue. Noise of PET is smooth.

    Parameters
    ----------
    image : ndarray of float32, shape (C, i, j, k)
        The whole volume.
    region : ndarray of bool, shape of `box`
        Where noise is wanted.
    clean : ndarray of bool, shape (i, j, k)
        Tissue to be like.
    rng : numpy.random.Generator
    box : tuple of 3 slice
        Where `region` lies in the volume.
    white : bool
        Do not smooth it: only neighbours differ as much.

    Returns
    -------
    ndarray of float32, shape (C, n), or None
        For the voxels of the region; None where all the volume has too little clean tissue.
    """
    tight = bounding_box(region)
    if tight is None:
        return np.zeros((len(image), 0), dtype=np.float32)
    room = tuple(slice(_ROOM_VOX, _ROOM_VOX + n) for n in region[tight].shape)
    for values, mask in _nearby(image, region, clean, box):
        steps = [_steps(values, mask, axis, 1) for axis in range(3)]
        counts = np.array([step.shape[1] for step in steps])
        if counts.sum() < _FEWEST_VOX:
            continue
        squares = _squares(steps)
        ratio = np.ones_like(squares)
        if not white:
            next_squares = _squares([_steps(values, mask, axis, 2) for axis in range(3)])
            np.divide(next_squares, squares, out=ratio, where=squares > 0)
        widths, correlations, ratios = _smoothings()
        variance = (squares / (1.0 - np.interp(ratio, ratios, correlations))) @ counts / (2.0 * counts.sum())
        # Drawn with room around the place: near its faces the noise is as elsewhere.
        drawn = rng.standard_normal(
            (len(image), *(n + 2 * _ROOM_VOX for n in region[tight].shape)), dtype=np.float32
        )
        mixing = _root(_correlation(np.concatenate(steps, axis=1))).astype(np.float32)
        noise = np.tensordot(mixing, drawn, axes=1)
        for channel, width, part in zip(noise, np.interp(ratio, ratios, widths), variance, strict=True):
            if not white:
                channel[...] = ndimage.gaussian_filter(channel, width, mode="wrap") / _norm(width)
            channel *= np.sqrt(part)
        return np.asarray(noise[(slice(None), *room)][:, region[tight]], dtype=np.float32)
    return None


def _steps(values: NDArray[np.float32], mask: NDArray[np.bool_], axis: int, lag: int) -> NDArray[np.float64]:
    """Differences (C, n) of true voxels so far apart; where two tissues meet they are anatomy, and cut."""
    both, whole = np.moveaxis(mask, axis, 0), np.moveaxis(values, axis + 1, 1)
    pair = both[:-lag] & both[lag:]
    step = (whole[:, lag:][:, pair] - whole[:, :-lag][:, pair]).astype(np.float64)
    most = np.array([_EDGE_SPREADS * robust_spread(channel) or np.inf for channel in step])[:, None]
    return np.asarray(np.clip(step, -most, most))


def _squares(steps: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Mean squares (C, 3) of the steps along each axis; 0 where there are none."""
    return np.stack([np.square(step).sum(axis=1) / max(1, step.shape[1]) for step in steps], axis=1)


def _correlation(step: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the channels' steps (C, C)."""
    size = np.linalg.norm(step, axis=1, keepdims=True)
    unit = np.divide(step, size, out=np.zeros_like(step), where=size > 0)
    return np.asarray(unit @ unit.T)


@cache
def _smoothings() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Widths in voxels; correlation of neighbours in white noise smoothed so, and ratio of squared steps."""
    told = []
    for width in np.linspace(0.1, _MOST_SMOOTH_VOX, 29):  # by a tenth nothing is smoothed
        kernel = _kernel(width)
        none, one, two = (float(kernel @ np.roll(kernel, lag)) for lag in range(3))
        told.append((width, one / none, (none - two) / (none - one)))
    widths, correlations, ratios = np.array(told).T
    return widths, correlations, ratios


def _kernel(width: float) -> NDArray[np.float64]:
    return np.asarray(ndimage.gaussian_filter1d(np.eye(1, 41, 20)[0], width))


def _norm(widths: NDArray[np.float64]) -> float:
    """What smoothing along three axes leaves of the spread of white noise."""
    return float(np.prod([np.linalg.norm(_kernel(width)) for width in widths]))


def spectrum_noise(
    image: NDArray[np.float32],
    region: NDArray[np.bool_],
    clean: NDArray[np.bool_],
    rng: np.random.Generator,
    box: Box,
) -> NDArray[np.float32] | None:
    """Random-phase noise with the power spectrum and the cross spectra of clean tissue nearby.

    Parameters and returned value are those of :func:`gaussian_noise`. Of the tissue, what a Gaussian of five
    voxels over it leaves out is looked at, up to a distance of ten voxels.

    References
    ----------
    Galerne B, Gousseau Y, Morel JM, Random phase textures: theory and synthesis, IEEE Transactions on Image
    Processing 20(1), 2011, doi:10.1109/TIP.2010.2052822.
    """
    tight = bounding_box(region)
    if tight is None:
        return np.zeros((len(image), 0), dtype=np.float32)
    for values, mask in _nearby(image, region, clean, box):
        if np.count_nonzero(mask) >= _FEWEST_VOX:
            return _filtered(_spectral_root(_detail(values, mask), mask), region[tight], rng)
    return None


def _nearby(
    image: NDArray[np.float32], region: NDArray[np.bool_], clean: NDArray[np.bool_], box: Box
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """Image and clean voxels ever farther around the region."""
    tight = bounding_box(region)
    if tight is None:
        return
    place = shifted(tight, origin_of(box))
    for reach in (*_NEARBY_VOX, max(clean.shape)):
        larger = grown(place, (reach,) * 3, clean.shape)
        # Without the outermost layer: partial volume is no texture.
        yield image[(slice(None), *larger)], ndimage.binary_erosion(clean[larger], border_value=1)


def _detail(values: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """What a Gaussian over the true voxels leaves out of them; zero elsewhere."""
    weight = ndimage.gaussian_filter(mask.astype(np.float32), _SMOOTH_VOX, mode="constant")
    detail = np.zeros_like(values)
    for out, channel in zip(detail, values, strict=True):
        smooth = ndimage.gaussian_filter(np.where(mask, channel, np.float32(0)), _SMOOTH_VOX, mode="constant")
        out[mask] = channel[mask] - smooth[mask] / weight[mask]
        out[mask] -= out[mask].mean()
    return detail


def _spectral_root(detail: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.complex128]:
    """Root (lags, C, C) of the cross spectra, from the covariance at every lag in the mask."""
    lag = np.minimum(_LAG_VOX, np.array(mask.shape) - 1)
    size = [fft.next_fast_len(int(n + m), real=True) for n, m in zip(mask.shape, lag, strict=True)]
    window = np.ix_(*[np.arange(-m, m + 1) for m in lag])
    transformed = fft.rfftn(detail, size, axes=(1, 2, 3))
    masked = fft.rfftn(mask.astype(np.float32), size)
    pairs = fft.irfftn(np.abs(masked) ** 2, size)[window]
    # The covariance falls to zero at the largest lag, or the spectrum would ripple.
    taper = np.ones(())
    for m in lag:
        taper = np.multiply.outer(taper, np.cos(np.linspace(-np.pi / 2, np.pi / 2, 2 * m + 3)[1:-1]) ** 2)
    count = len(detail)
    spectrum = np.empty((*pairs.shape, count, count), dtype=np.complex128)
    for a in range(count):
        for b in range(a + 1):
            products = fft.irfftn(transformed[a] * np.conj(transformed[b]), size)[window]
            covariance = taper * products / np.maximum(pairs, 1.0)
            spectrum[..., a, b] = fft.fftn(fft.ifftshift(covariance))
            spectrum[..., b, a] = np.conj(spectrum[..., a, b])
    return _root(spectrum)


def _root(matrix: NDArray[Any]) -> NDArray[Any]:
    """Root of hermitian matrices; negative eigenvalues, which are errors of estimation, become zero."""
    values, vectors = np.linalg.eigh(matrix)
    root = np.sqrt(np.maximum(values, 0.0))[..., None, :] * vectors
    return np.asarray(root @ np.conj(np.swapaxes(vectors, -1, -2)))


def _filtered(
    root: NDArray[np.complex128], region: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.float32]:
    """White noise of all channels through the filters `root`, at the true voxels (C, n)."""
    lags, count = root.shape[:3], root.shape[-1]
    size = [fft.next_fast_len(n + m, real=True) for n, m in zip(region.shape, lags, strict=True)]
    white = fft.rfftn(rng.standard_normal((count, *size), dtype=np.float32), axes=(1, 2, 3))
    kernels = fft.fftshift(fft.ifftn(root, axes=(0, 1, 2)).real, axes=(0, 1, 2)).astype(np.float32)
    inside = tuple(slice(0, n) for n in region.shape)
    noise = np.empty((count, int(region.sum())), dtype=np.float32)
    for a in range(count):
        total = sum(fft.rfftn(kernels[..., a, b], size) * white[b] for b in range(count))
        noise[a] = fft.irfftn(total, size)[inside][region]
    return noise
