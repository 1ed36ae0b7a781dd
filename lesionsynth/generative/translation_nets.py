"""Generators and discriminators that translate semantic maps to images, from MONAI's networks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from monai.networks.blocks import Convolution, ResidualUnit
from monai.networks.nets import PatchDiscriminator, SPADENet
from monai.networks.nets.spade_network import SPADENetResBlock
from torch import Tensor, nn

from lesionsynth.generative.specs import TranslationSpec

_ACT = ("leakyrelu", {"negative_slope": 0.2})
_NORM = ("instance", {"affine": True})


class Unet(nn.Module):
    """U-Net without a last activation; instance norm, so that a batch may be one patch.

    MONAI's sees its input at half of the resolution at most, and grows by transposed convolutions, which were
    seen as a checkerboard in lesions: this one looks at every voxel and repeats before it convolves.

    References
    ----------
    Odena, Dumoulin, Olah, Deconvolution and Checkerboard Artifacts, Distill 2016, doi:10.23915/distill.00003.
    """

    def __init__(self, spec: TranslationSpec, channels: int, out: int) -> None:
        super().__init__()
        dims, widths = spec.spatial_dims, spec.widths

        def unit(taken: int, width: int, stride: int = 1) -> nn.Module:
            return ResidualUnit(dims, taken, width, strides=stride, subunits=1, act=_ACT, norm=_NORM)

        self.down = nn.ModuleList([unit(channels, widths[0]), *(unit(a, b, 2) for a, b in pairwise(widths))])
        self.up = nn.ModuleList([unit(a + b, a) for a, b in reversed(list(pairwise(widths)))])
        self.last = Convolution(dims, widths[0], out, kernel_size=1, conv_only=True)

    def forward(self, x: Tensor) -> Tensor:
        """From (B, channels, p, p[, p]) to (B, out, p, p[, p])."""
        kept = []
        for layer in self.down:
            x = layer(x)
            kept.append(x)
        kept.pop()
        for layer in self.up:
            x = layer(torch.cat([nn.functional.interpolate(x, scale_factor=2), kept.pop()], 1))
        return self.last(x)


class Spade(nn.Module):
    """SPADE generator: a coarse map grows to an image, and the map modulates every layer.

    MONAI's network shows the map to its layers at half of the resolution at most, and lesions may be smaller
    than that: one more block sees it at the full one.

    References
    ----------
    Park, Liu, Wang, Zhu, Semantic Image Synthesis with Spatially-Adaptive Normalization, CVPR 2019,
    arXiv:1903.07291.
    """

    def __init__(self, spec: TranslationSpec, classes: int, channels: int) -> None:
        super().__init__()
        dims, width = spec.spatial_dims, spec.widths[0]
        self.grow = SPADENet(
            dims,
            classes,
            width,
            classes,
            [spec.patch] * dims,
            channels=list(spec.widths),  # which it changes
            is_vae=False,
            spade_intermediate_channels=width,
            act=_ACT,
            last_act=None,
        )
        self.refine = SPADENetResBlock(
            dims, width, width, classes, spade_intermediate_channels=width, act=_ACT
        )
        self.last = nn.Sequential(nn.LeakyReLU(0.2), Convolution(dims, width, channels, conv_only=True))

    def forward(self, hot: Tensor) -> Tensor:
        """Image (B, C, p, p[, p]) of a one-hot map."""
        return self.last(self.refine(self.grow(hot)[0], hot))


class Altered(nn.Module):
    """An image with what a U-Net adds to it, so that a CycleGAN begins near what it is given."""

    def __init__(self, spec: TranslationSpec, channels: int) -> None:
        super().__init__()
        self.change = Unet(spec, channels, channels)

    def forward(self, image: Tensor) -> Tensor:
        """Image (B, C, p, p[, p]) of an image."""
        return image + self.change(image)


class Shown(nn.Module):
    """CycleGAN generator: a map is shown as an image, and that is altered.

    Each class is shown at its mean in the training cases. Without it, nothing but the discriminators ties a
    class to its intensities, and a short training was seen to paint bright lesions dark.
    """

    def __init__(self, spec: TranslationSpec, classes: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("means", torch.zeros(classes, channels))
        self.alter = Altered(spec, channels)

    def show(self, hot: Tensor) -> Tensor:
        """A one-hot map (B, K, p, p[, p]) as an image (B, C, p, p[, p])."""
        return torch.einsum("bk...,kc->bc...", hot, self.means)

    def forward(self, hot: Tensor) -> Tensor:
        """Image (B, C, p, p[, p]) of a one-hot map."""
        return self.alter(self.show(hot))


def generator(spec: TranslationSpec, classes: int, channels: int) -> nn.Module:
    """From a one-hot map to an image."""
    if spec.network == "spade":
        return Spade(spec, classes, channels)
    if spec.network == "cyclegan":
        return Shown(spec, classes, channels)
    return Unet(spec, classes, channels)


def discriminator(spec: TranslationSpec, channels: int) -> nn.Module:
    """Patch discriminator; its last output holds scores, 1 for real and 0 for made up."""
    return PatchDiscriminator(
        spec.spatial_dims,
        spec.discriminator_width,
        channels,
        num_layers_d=spec.discriminator_layers,
        activation=_ACT,
        norm="instance",
    )


class Pool(nn.Module):
    """Earlier translations, which a discriminator is shown half of the time instead of the newest.

    They are buffers, so that a training that goes on has them.

    References
    ----------
    Shrivastava et al., Learning from Simulated and Unsupervised Images through Adversarial Training,
    CVPR 2017, arXiv:1612.07828.
    """

    def __init__(self, size: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("kept", torch.zeros(size, *shape, dtype=torch.float16))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def swapped(self, made: Tensor, rng: np.random.Generator) -> Tensor:
        """Of each sample, it or an earlier one, whose place it then takes."""
        shown = []
        for sample in made:
            filled = int(self.count)
            if filled < len(self.kept):
                self.kept[filled] = sample
                self.count += 1
            elif rng.random() < 0.5:
                place = int(rng.integers(len(self.kept)))
                earlier = self.kept[place].to(sample.dtype)
                self.kept[place] = sample
                shown.append(earlier.clone())
                continue
            shown.append(sample)
        return torch.stack(shown)
