"""A bank of lesions that can be checked by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from lesionsynth.bank.store import LesionBank
from lesionsynth.domain.lesion import ChannelStats, Lesion, LesionInfo
from tests.bank.making import make_bank, make_summary


def cube(
    name: str, subject: str, side: int, contrast: tuple[float, ...] = (), *, margin: int = 4, value: int = 1
) -> Lesion:
    """A cube on flat tissue of median 100 and spread 10, its contrast in that spread; 1 mm voxels."""
    n = side + 2 * margin
    label = np.zeros((n, n, n), np.uint16)
    label[(slice(margin, margin + side),) * 3] = value
    image = np.full((len(contrast), n, n, n), 100.0, np.float32)
    for channel, difference in zip(image, contrast, strict=True):
        channel[label > 0] += 10 * difference
    info = LesionInfo(
        lesion=name,
        case=name.rsplit("/", 1)[0],
        subject=subject,
        classes=(value,),
        volume_mm3=float(side**3),
        centre_vox=(20 + side // 2,) * 3,
        origin_vox=(20 - margin,) * 3,
        shape_vox=(n, n, n),
        axes_mm=tuple(float(v) for v in np.eye(3).ravel()),
        channels=tuple(ChannelStats(100.0, 10.0, 100.0 + 10 * c, 5.0, 1.0) for c in contrast),
        site=None,
        source_hash="",
    )
    return Lesion(info, image, label, np.ones(label.shape, bool))


@pytest.fixture(scope="module")
def cubes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LesionBank]:
    """A: five lesions of contrast (2, -1) and 27 mm3; B: a small one of (4, 0), a large one of (8, 3).

    M, N: masks, stored without any margin, as they are harvested; N's is of class 3.
    """
    a = [cube(f"a/{n:04d}", "A", 3, (2.0, -1.0)) for n in range(1, 6)]
    b = [cube("b/0001", "B", 3, (4.0, 0.0)), cube("b/0002", "B", 12, (8.0, 3.0))]
    m = [cube("M/mask/0001", "M", 3, margin=0), cube("M/mask/0002", "M", 10, margin=0)]
    cases = [
        (replace(make_summary("a", "A"), tissue_stats=[(100.0, 10.0)] * 2), a),
        (replace(make_summary("b", "B"), tissue_stats=[(100.0, 10.0)] * 2), b),
        (make_summary("M/mask", "M", has_images=False), m),
        (make_summary("N/mask", "N", has_images=False), [cube("N/mask/0001", "N", 4, margin=0, value=3)]),
    ]
    with make_bank(tmp_path_factory.mktemp("bank"), cases) as opened:
        yield opened
