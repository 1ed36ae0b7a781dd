"""The part of a recipe that says what counts as real enough. It changes no voxel."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lesionsynth.spec import Probability, Spec

Area = Annotated[float, Field(ge=0.5, le=1.0)]


class RealismSpec(Spec):
    """Limits that make `lesionsynth realism` a gate, and how much it looks at; no voxel depends on them.

    Whatever has a limit and cannot be judged, for want of lesions or of donors, is beyond it.
    """

    max_auc_donor: Area | None = None
    """Most that a classifier may tell added from real lesions which it has not seen, nor copies of them: 0.5
    is never, 1 always. 0.8 is about the least that moving real lesions can reach."""
    max_auc_host: Area | None = None
    """The same in cases that the classifier has not seen."""
    max_auc_fill: Area | None = None
    """Most that it may tell places of removed lesions from untouched tissue."""
    max_ks: dict[str, Probability] = Field(default_factory=dict)
    """Feature to the largest Kolmogorov-Smirnov distance of added from real lesions, such as
    {volume_mm3: 0.3, contrast: 0.2}. A feature of channels means each of them; {contrast FLAIR: 0.2} one."""
    max_memorised: Probability | None = None
    """Largest share of added lesions that may be as near to a lesion they could be copied from as only one in
    twenty real lesions of other subjects is."""
    min_lesions: int = Field(default=20, ge=4)
    """Fewer real or added lesions, or places, are not judged."""
    cases: int = Field(default=60, ge=1)
    """At most so many real and so many synthetic cases are looked at."""
    lesions: int = Field(default=600, ge=10)
    """At most so many real and so many added lesions, and places, are given to the classifier."""
