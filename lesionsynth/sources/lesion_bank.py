"""Real lesions of other subjects, from the bank."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from lesionsynth.bank.store import Candidates
from lesionsynth.domain.lesion import SIZE_EDGES_MM3, Lesion, LesionInfo
from lesionsynth.plugins.contracts import Donors, Draw, SourceSpec, Wanted
from lesionsynth.plugins.registry import register


class LesionChoice(SourceSpec):
    """Which lesion of the bank is taken; the base of every source that starts from one."""

    choice: Literal["stratified", "uniform"] = "stratified"
    """stratified: every size class is equally likely, so that large lesions are seen too; uniform: every
    lesion is."""
    own_subject: Literal["avoid", "forbid", "allow"] = "avoid"
    """Whether the host's own lesions may be donors; avoid: only where there are no others, or where all of
    the host's are gone and half of the tries have found no other that fits."""
    min_volume_mm3: float = Field(default=0.0, ge=0)
    """Smallest donor."""
    max_volume_mm3: float = Field(default=1e9, gt=0)
    """Largest donor."""
    lesion_class: int | None = None
    """Only lesions that have this label value."""

    @model_validator(mode="after")
    def _order(self) -> LesionChoice:
        if self.min_volume_mm3 > self.max_volume_mm3:
            raise ValueError("min_volume_mm3 should not be above max_volume_mm3")
        return self

    def donor_subjects(self, donors: Donors) -> frozenset[str] | None:
        """Subjects of the lesions that pass the filters."""
        return frozenset(str(subject) for subject in self._pool(donors).subject)

    def choose(self, rng: np.random.Generator, donors: Donors, wanted: Wanted) -> LesionInfo | None:
        """Choose by size class, or evenly, among the donors whose volume fits; None where there is none."""
        pool = self._pool(donors)
        own = pool.subject == wanted.host_subject
        fits = (pool.volume_mm3 >= wanted.min_mm3) & (pool.volume_mm3 <= wanted.max_mm3)
        # Judged over the whole pool: that no other fits this time is no reason yet.
        alone = own.all() or wanted.own_too
        if self.own_subject == "forbid" or (self.own_subject == "avoid" and not alone):
            fits &= ~own
        index = np.flatnonzero(fits)
        if index.size == 0:
            return None
        if self.choice == "stratified":
            classes = np.searchsorted(SIZE_EDGES_MM3, pool.volume_mm3[index], side="right")
            index = index[classes == rng.choice(np.unique(classes))]
        chosen = int(index[int(rng.integers(index.size))])
        return donors.bank.info(int(pool.ids[chosen]))

    def _pool(self, donors: Donors) -> Candidates:
        key = ("pool", self)
        if key not in donors.cache:
            donors.cache[key] = donors.bank.candidates(
                self._givers(donors),
                with_image=self._with_image,
                lesion_class=self.lesion_class,
                min_volume_mm3=self.min_volume_mm3,
                max_volume_mm3=self.max_volume_mm3,
            )
        pool: Candidates = donors.cache[key]
        return pool

    @property
    def _with_image(self) -> bool:
        """Whether a lesion that is known by its mask alone is no donor."""
        return True

    def _givers(self, donors: Donors) -> tuple[str, ...]:
        return donors.subjects


@register("sources")
class LesionBankSource(LesionChoice):
    """Real lesions harvested from the cohort."""

    kind: Literal["lesion_bank"] = "lesion_bank"
    method: ClassVar[str] = "Donors were real lesions with a rim of the tissue around them ({choice} choice)."

    def draw(self, rng: np.random.Generator, donors: Donors, wanted: Wanted) -> Draw | None:
        """Choose a lesion of the bank."""
        chosen = self.choose(rng, donors, wanted)
        return None if chosen is None else {"lesion": chosen.lesion}

    def lesion(self, draw: Draw, donors: Donors) -> Lesion:
        """Read the lesion from the bank."""
        return donors.bank.read(draw["lesion"])
