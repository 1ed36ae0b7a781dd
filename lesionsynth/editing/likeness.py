"""What a synthetic lesion should look like, learned from real ones, and how it is put together.

Everything here is in units of the spread of the tissue: a real lesion's in the case it is of, a synthetic
one's in its host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lesionsynth.domain.grid import bounding_box, shape_of
from lesionsynth.domain.lesion import SIZE_EDGES_MM3, ChannelStats, Lesion, LesionInfo, size_class
from lesionsynth.errors import InputError
from lesionsynth.kernels.distance import voxel_scale
from lesionsynth.kernels.intensity import in_spreads
from lesionsynth.kernels.synthetic_lesion import (
    Profile,
    along_profile,
    blurred_noise,
    bump,
    profile_of,
    signed_distance_mm,
    texture_beyond,
)
from lesionsynth.plugins.contracts import Donors, Wanted
from lesionsynth.spec import Range
from lesionsynth.units import mm_to_vox

Contrast = Literal["auto"] | tuple[Range, ...]
"""Mean difference from the surroundings: a range for each channel, or as a real lesion of like size."""

_ENOUGH_OWN = 5
_RIM_MM = 2.5
_GRAIN_MM = 1.0
_BUMP_REACH = 3.0


def subjects_with_images(donors: Donors) -> frozenset[str]:
    """Subjects that have a lesion to imitate."""
    return frozenset(str(s) for s in donors.bank.candidates(donors.subjects).subject)


def lesion_to_be_like(
    rng: np.random.Generator, donors: Donors, wanted: Wanted, volume_mm3: float, own: bool = True
) -> LesionInfo | None:
    """A real lesion of like size (of its size class or the next, else the nearest) whose image is known.

    One of the host's own where `own` is set and it has five or more: contrast is a property of the patient.
    None where there is none at all.
    """
    if own and wanted.host_subject in donors.subjects:
        mine = _own_lesions(donors, wanted)
        if len(mine) >= _ENOUGH_OWN:
            return mine[_of_like_size(rng, np.array([i.volume_mm3 for i in mine]), volume_mm3)]
    key = ("lesions with images",)
    if key not in donors.cache:
        donors.cache[key] = donors.bank.candidates(donors.subjects)
    pool = donors.cache[key]
    if pool.ids.size == 0:
        return None
    return donors.bank.info(int(pool.ids[_of_like_size(rng, pool.volume_mm3, volume_mm3)]))


def _own_lesions(donors: Donors, wanted: Wanted) -> list[LesionInfo]:
    key = ("own lesions", wanted.host_case)
    if key not in donors.cache:
        donors.cache[key] = donors.bank.of_case(wanted.host_subject, wanted.host_case)
    found: list[LesionInfo] = donors.cache[key]
    return found


def _of_like_size(rng: np.random.Generator, volumes: NDArray[np.float64], volume_mm3: float) -> int:
    classes = np.searchsorted(SIZE_EDGES_MM3, volumes, side="right")
    like = np.flatnonzero(np.abs(classes - size_class(volume_mm3)) <= 1)
    if like.size == 0:
        return int(np.argmin(np.abs(np.log(volumes / volume_mm3))))
    return int(like[int(rng.integers(like.size))])


def draw_contrast_vector(
    contrast: Contrast, rng: np.random.Generator, donors: Donors, wanted: Wanted, volume_mm3: float
) -> tuple[list[float], LesionInfo | None] | None:
    """Mean contrast of each channel, and the lesion that it is taken from; None where there is none.

    Raises
    ------
    InputError
        If there is not one range for each channel.
    """
    if contrast == "auto":
        like = lesion_to_be_like(rng, donors, wanted, volume_mm3)
        if like is None:
            return None
        return contrast_of(like), like
    count = len(donors.bank.case(wanted.host_case).tissue_stats) if wanted.host_case else len(contrast)
    if len(contrast) != count:
        raise InputError(
            f"the source's contrast has {len(contrast)} ranges; the images have {count} channels.",
            remedy="Give a range for each channel, in order, or auto.",
        )
    return [float(rng.uniform(low, high)) for low, high in contrast], None


def contrast_of(info: LesionInfo) -> list[float]:
    """Mean difference of a lesion from its surroundings, per channel."""
    return [s.contrast / s.tissue_mad if s.tissue_mad > 0 else 0.0 for s in info.channels]


def named(info: LesionInfo) -> dict[str, str]:
    """How a draw names a lesion that it takes something from."""
    return {"lesion": info.lesion, "case": info.case, "subject": info.subject}


def with_margin(shape: Lesion, margin_mm: float) -> tuple[NDArray[np.uint16], LesionInfo]:
    """Label of a lesion in a crop with `margin_mm` of room (two voxels at least), and its index entry."""
    margin = [max(2, m) for m in mm_to_vox(margin_mm, shape.info.spacing_mm)]
    body = bounding_box(shape.label > 0)
    assert body is not None
    label = np.pad(shape.label[body], [(m, m) for m in margin])
    i, j, k = (o + b.start - m for o, b, m in zip(shape.info.origin_vox, body, margin, strict=True))
    size = [n + 2 * m for n, m in zip(shape_of(body), margin, strict=True)]
    info = replace(shape.info, origin_vox=(i, j, k), shape_vox=(size[0], size[1], size[2]))
    return label, info


def lesion_on_host(info: LesionInfo, label: NDArray[np.uint16], image: NDArray[np.float32]) -> Lesion:
    """A lesion that adds `image` (C, i, j, k) to its host.

    Edge and detail are those of the host it comes to, so the index entry states none, and they are not
    checked.
    """
    inside = label > 0
    means = image[:, inside].mean(axis=1, dtype=np.float64)
    channels = tuple(ChannelStats(0.0, 1.0, float(mean), 0.0, 0.0) for mean in means)
    return Lesion(
        replace(info, channels=channels), image, label, np.ones(label.shape, dtype=bool), on_host=True
    )


def bump_on_host(shape: Lesion, contrast: Sequence[float], smooth_mm: float) -> Lesion:
    """A lesion that is a smooth hill on its host, with the given mean contrast over the shape per channel."""
    label, info = with_margin(shape, _BUMP_REACH * smooth_mm)
    inside = label > 0
    hill = bump(inside, [smooth_mm / s for s in info.spacing_mm])
    hill /= hill[inside].mean()
    image = np.asarray(contrast, dtype=np.float32)[:, None, None, None] * hill
    return lesion_on_host(info, label, image)


@dataclass(frozen=True, eq=False)
class Look:
    """What a real lesion looks like, whatever its shape.

    Parameters
    ----------
    profile : tuple of ndarray
        Its mean by the distance from its edge, see :func:`lesionsynth.kernels.synthetic_lesion.profile_of`.
    mixing : ndarray, (C, C)
        What it varies beyond its tissue, see :func:`lesionsynth.kernels.synthetic_lesion.texture_beyond`.
    """

    profile: Profile
    mixing: NDArray[np.float64]


def look_of(name: str, donors: Donors) -> Look:
    """The look of a lesion of the bank, inside and up to 2.5 mm outside its edge; learned once a job."""
    key = ("look", name)
    if key not in donors.cache:
        donors.cache[key] = learn_look(donors.bank.read(name))
    look: Look = donors.cache[key]
    return look


def learn_look(lesion: Lesion) -> Look:
    """Measure the look of a lesion that has an image."""
    units = in_spreads(lesion.image, [s.surroundings for s in lesion.info.channels])
    body, spacing = lesion.label > 0, lesion.info.spacing_mm
    distance = signed_distance_mm(body, spacing)
    profile = profile_of(units, distance, lesion.rim, _RIM_MM * voxel_scale(spacing))
    return Look(profile, texture_beyond(units, along_profile(distance, profile), body))


def apply_look(
    look: Look, label: NDArray[np.uint16], spacing_mm: Sequence[float], texture: float, seed: int
) -> NDArray[np.float32]:
    """Image (C, i, j, k) of a shape with the look of a real lesion.

    The mean in each channel is carried over by the distance from the edge; what the lesion varies beyond its
    tissue, times `texture`, as smooth noise that is correlated over the channels as there.
    """
    distance = signed_distance_mm(label > 0, spacing_mm)
    image = along_profile(distance, look.profile)
    mixing = texture * look.mixing
    if mixing.any():
        rng = np.random.default_rng(seed)
        sigma_mm = _GRAIN_MM * voxel_scale(spacing_mm)
        sigma = [sigma_mm / s for s in spacing_mm]
        white = rng.standard_normal((len(image), *label.shape), dtype=np.float32)
        noise = np.stack([blurred_noise(channel, sigma) for channel in white])
        fade = np.clip(1.0 - distance / sigma_mm, 0.0, 1.0)
        image += (fade * np.tensordot(mixing, noise, axes=1)).astype(np.float32)
    return image
