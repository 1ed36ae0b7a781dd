"""Encoders, decoders and critics that several models share, put together from MONAI's networks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from monai.networks.blocks import Convolution
from monai.networks.layers import Reshape
from monai.networks.nets import FullyConnectedNet, Regressor
from torch import Tensor, nn

# One group over all features: unlike instance norm it keeps how features differ from each other, and with
# it what a constant channel (the size of a lesion) tells.
NORM = ("group", {"num_groups": 1})
ACT = ("leakyrelu", {"negative_slope": 0.2, "inplace": True})


def encoder(shape: Sequence[int], out: int, widths: Sequence[int], res_units: int = 1) -> nn.Module:
    """From (C, n, n[, n]) to `out` numbers, halving the image once a width."""
    return Regressor(shape, (out,), widths, [2] * len(widths), num_res_units=res_units, act=ACT, norm=NORM)


def decoder(latent: int, shape: Sequence[int], widths: Sequence[int]) -> nn.Module:
    """From `latent` numbers to (C, n, n[, n]), doubling the image once a width.

    By interpolation and convolutions: transposed ones print a checkerboard on images.

    References
    ----------
    Odena, Dumoulin, Olah, Deconvolution and checkerboard artifacts, Distill 2016, doi:10.23915/distill.00003.
    """
    dims = len(shape) - 1
    start = [n // 2 ** len(widths) for n in shape[1:]]
    layers: list[nn.Module] = [nn.Linear(latent, widths[-1] * math.prod(start)), Reshape(widths[-1], *start)]
    width = widths[-1]
    for after in [*reversed(widths[:-1]), widths[0]]:
        layers += [nn.Upsample(scale_factor=2), Convolution(dims, width, after, act=ACT, norm=NORM)]
        width = after
    return nn.Sequential(*layers, Convolution(dims, width, shape[0], conv_only=True))


def critic(shape: Sequence[int], widths: Sequence[int]) -> nn.Module:
    """One score for (C, n, n[, n]); for a Wasserstein GAN, so that nothing in it looks at a whole batch."""
    return Regressor(shape, (1,), widths, [2] * len(widths), num_res_units=0, act=ACT, norm=NORM)


class SizedDecoder(nn.Module):
    """Class logits of a shape and its size (standardised logarithm of the voxel edge), from one code."""

    def __init__(self, latent: int, classes: int, size: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.shape = decoder(latent, (classes, size, size, size), widths)
        self.size = FullyConnectedNet(latent, 1, (64,))

    def forward(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, K, n, n, n) and sizes (B,)."""
        return self.shape(code), self.size(code)[:, 0]


def latent_critic(latent: int) -> nn.Module:
    """Tells codes from draws of the prior: one logit."""
    return FullyConnectedNet(latent, 1, (128, 128), act=ACT)


def constant(values: Tensor, size: int, dims: int = 3) -> Tensor:
    """One channel that holds each sample's number everywhere, (B, 1, n, ...)."""
    return values.reshape(-1, 1, *[1] * dims).expand(-1, 1, *[size] * dims)


def one_hot(classes: Tensor, count: int) -> Tensor:
    """Classes (B, n, ...) as float channels (B, count, n, ...)."""
    return nn.functional.one_hot(classes.long(), count).movedim(-1, 1).float()


def features_last(network: nn.Module) -> nn.Module:
    """A network on the CPU with its weights laid out for convolutions: 1.3 to 2.8 times as fast there."""
    dims = max((p.dim() for p in network.parameters()), default=0)
    layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(dims)
    return network if layout is None else network.to(memory_format=layout)


@contextmanager
def decoding() -> Iterator[None]:
    """In which a trained network gives the same for the same, at once: no gradients, and one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(threads)


def arrays_of(networks: dict[str, Any]) -> dict[str, Any]:
    """Weights of some networks as arrays, by `network/parameter`."""
    return {
        f"{name}/{key}": value.detach().cpu().contiguous().numpy().copy()
        for name, network in networks.items()
        for key, value in network.state_dict().items()
    }


def load_arrays(networks: dict[str, Any], arrays: dict[str, Any]) -> None:
    """Give networks the weights of :func:`arrays_of`.

    Raises
    ------
    RuntimeError
        If they are not those of these networks.
    """
    for name, network in networks.items():
        own = {k.partition("/")[2]: v for k, v in arrays.items() if k.partition("/")[0] == name}
        network.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in own.items()})
        features_last(network)
