"""How near generated images are to real ones, by measures whose networks are trained here.

None of them says whether a segmentation gets better: they compare images, and copies of the training images
would be best in all of them. Give them beside those of real images against other real ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.metrics import MMDMetric, SSIMMetric
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from lesionsynth.generative.nets import decoder, encoder
from lesionsynth.rng import stream

_WIDTHS = (8, 16)
_BATCH = 16
_WINDOW = 7


@dataclass(frozen=True)
class Nearest:
    """Means over images of what each has in common with the real image nearest to it."""

    psnr: float
    ssim: float


def nearest(images: NDArray[np.float32], real: NDArray[np.float32], same: bool = False) -> Nearest:
    """PSNR in dB and SSIM of images with the nearest (by squared error) of the real ones.

    Parameters
    ----------
    images, real : ndarray, (n, C, i, j[, k]), float32
        In the same units. Both measures are relative to the range of `real`, all channels together.
    same : bool
        Whether they are the same images in the same order: none is compared with itself.

    References
    ----------
    Wang et al., Image quality assessment, IEEE TIP 2004, doi:10.1109/TIP.2003.819861.
    """
    peak = float(real.max() - real.min())
    ssim = SSIMMetric(real.ndim - 2, data_range=peak, win_size=min(_WINDOW, *_odd(real.shape[2:])))
    psnrs, ssims = [], []
    flat = real.reshape(len(real), -1)
    for number, image in enumerate(images):
        errors = np.square(flat - image.ravel(), dtype=np.float64).mean(axis=1)
        if same:
            errors[number] = np.inf
        best = int(errors.argmin())
        psnrs.append(10 * np.log10(peak**2 / max(float(errors[best]), 1e-12 * peak**2)))
        ssims.append(float(ssim(torch.from_numpy(image[None]), torch.from_numpy(real[best][None]))))
    return Nearest(float(np.mean(psnrs)), float(np.mean(ssims)))


def _odd(shape: Sequence[int]) -> list[int]:
    return [n if n % 2 else n - 1 for n in shape]


class Features:
    """Codes of a small autoencoder of real images, by which sets of images are compared.

    Parameters
    ----------
    real : ndarray, (n, C, s, s[, s]), float32
        It is trained on these; s is a multiple of 4.
    count : int
        Numbers of a code; well below the number of images compared, or their covariance says nothing.
    steps : int
        Updates.
    seed : int
    """

    def __init__(self, real: NDArray[np.float32], count: int = 8, steps: int = 300, seed: int = 0) -> None:
        axes = (0, *range(2, real.ndim))
        self._mean = real.mean(axis=axes, keepdims=True)
        self._spread = real.std(axis=axes, keepdims=True).clip(min=1e-6)
        torch.manual_seed(int(stream(seed, "evaluate", "weights").integers(2**63)))
        shape = real.shape[1:]
        self._encoder = encoder(shape, count, _WIDTHS)
        decode = decoder(count, shape, _WIDTHS)
        self._train(nn.Sequential(self._encoder, decode), self._tensor(real), steps, seed)
        self._encoder.eval()
        # Every number of a code counts alike.
        codes = self._codes(real)
        self._shift, self._scale = codes.mean(0), codes.std(0).clamp(min=1e-6)

    @staticmethod
    def _train(network: nn.Module, real: Tensor, steps: int, seed: int) -> None:
        optimizer = torch.optim.Adam(network.parameters(), 2e-3)
        for number in range(steps):
            chosen = stream(seed, "evaluate", number).integers(len(real), size=_BATCH)
            batch = real[torch.from_numpy(chosen)]
            optimizer.zero_grad(set_to_none=True)
            functional.mse_loss(network(batch), batch).backward()
            optimizer.step()

    def _tensor(self, images: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(((images - self._mean) / self._spread).astype(np.float32))

    def _codes(self, images: NDArray[np.float32]) -> Tensor:
        with torch.inference_mode():
            return torch.cat([self._encoder(part) for part in self._tensor(images).split(_BATCH)]).double()

    def of(self, images: NDArray[np.float32]) -> Tensor:
        """Features (n, count), of mean 0 and spread 1 over the images that it was trained on."""
        return (self._codes(images) - self._shift) / self._scale


def frechet(features: Tensor, real: Tensor) -> float:
    """Fréchet distance of two sets of features (n, d) and (m, d), taken as Gaussians; 0 where they are equal.

    References
    ----------
    Heusel et al., GANs trained by a two time-scale update rule, NeurIPS 2017, arXiv:1706.08500.
    """
    # MONAI's takes a general matrix root by an argument that SciPy 1.18 drops, and fails on few images.
    one, other = torch.cov(features.T), torch.cov(real.T)
    values, vectors = torch.linalg.eigh(one)
    root = vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T
    shared = torch.linalg.eigvalsh(root @ other @ root).clamp(min=0).sqrt().sum()
    apart = (features.mean(0) - real.mean(0)).square().sum()
    return float(apart + one.trace() + other.trace() - 2 * shared)


def discrepancy(features: Tensor, real: Tensor) -> float:
    """Squared distance of the means of two sets of features (n, d), without bias: below 0 by chance.

    It is the maximum mean discrepancy with a linear kernel. Of the larger set the first ones are taken.

    References
    ----------
    Gretton et al., A kernel two-sample test, JMLR 2012, 13:723-773.
    """
    count = min(len(features), len(real))
    return float(MMDMetric()(real[:count], features[:count]))
