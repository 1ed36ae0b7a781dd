"""Paste without any transition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from lesionsynth.plugins.contracts import BlendSpec
from lesionsynth.plugins.registry import register


@register("blends")
class Hard(BlendSpec):
    """Paste the label's voxels without any transition: the baseline, with a visible edge."""

    kind: Literal["hard"] = "hard"
    method: ClassVar[str] = "The voxels under a lesion's label were pasted without any transition."

    def alpha(
        self, label: NDArray[np.bool_], allowed: NDArray[np.bool_], spacing_mm: Sequence[float]
    ) -> NDArray[np.float32]:
        """1 on the label."""
        return label.astype(np.float32)
