"""Thresholds of a recipe against what was found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lesionsynth.errors import RecipeError
from lesionsynth.qc.realism.distances import OF_CHANNELS, feature_names
from lesionsynth.qc.realism.two_sample import Estimate
from lesionsynth.recipe.realism import RealismSpec

if TYPE_CHECKING:
    from lesionsynth.qc.realism.compare import Realism


@dataclass(frozen=True)
class Breach:
    """A limit that is exceeded, or that nothing can be said of: then `value` is None and `note` says why."""

    limit_name: str
    limit: float
    value: float | None
    n_real: int
    n_synthetic: int
    note: str = ""

    def __str__(self) -> str:
        sizes = f"{self.n_real} real, {self.n_synthetic} synthetic"
        if self.value is None:
            return f"{self.limit_name}: cannot be judged ({self.note}; {sizes}); the limit is {self.limit:g}."
        return f"{self.limit_name}: {self.value:.3f} is more than the limit {self.limit:g} ({sizes})."


def check_names(spec: RealismSpec, channels: Sequence[str]) -> None:
    """Refuse a limit on a feature that there is not, before anything is looked at.

    Raises
    ------
    RecipeError
    """
    known = [*feature_names(channels), *OF_CHANNELS]
    for name in spec.max_ks:
        if name not in known:
            raise RecipeError(
                f"realism.max_ks names the feature {name!r}.", remedy=f"There are: {', '.join(known)}."
            )


def breaches(spec: RealismSpec, found: Realism) -> list[Breach]:
    """Every limit that is not kept, in the order of the recipe."""
    result = []
    for name, limit, estimate in (
        ("max_auc_donor", spec.max_auc_donor, found.lesions.by_donor),
        ("max_auc_host", spec.max_auc_host, found.lesions.by_host),
        ("max_auc_fill", spec.max_auc_fill, found.fills.by_place),
    ):
        if limit is not None:
            result += list(_of_estimate(name, limit, estimate))
    result += list(_of_features(spec, found))
    if spec.max_memorised is not None:
        seen, limit = found.memorised, spec.max_memorised
        sizes = (seen.n_held_out, seen.n_added)
        if seen.near_share is None or seen.near_share > limit:
            result.append(Breach("max_memorised", limit, seen.near_share, *sizes, seen.note))
        elif seen.near_share > limit * seen.coverage:
            note = f"{seen.coverage:.0%} of the real lesions were looked at; raise realism.cases"
            result.append(Breach("max_memorised", limit, None, *sizes, note))
    return result


def _of_estimate(name: str, limit: float, estimate: Estimate) -> Iterator[Breach]:
    if estimate.value is None or estimate.value > limit:
        yield Breach(name, limit, estimate.value, estimate.n_real, estimate.n_synthetic, estimate.note)


def _of_features(spec: RealismSpec, found: Realism) -> Iterator[Breach]:
    by_name = {row.feature: row for row in found.features}
    for name, limit in sorted(spec.max_ks.items()):
        members = [f"{name} {channel}" for channel in found.channels] if name in OF_CHANNELS else [name]
        for member in members:
            row = by_name.get(member)
            if row is None:
                sizes = (found.n_real.lesions, found.n_synthetic.lesions)
                yield Breach(f"max_ks: {member}", limit, None, *sizes, "no lesion of one kind has it")
            elif min(row.n_real, row.n_synthetic) < spec.min_lesions:
                note = f"fewer than {spec.min_lesions} of one kind"
                yield Breach(f"max_ks: {member}", limit, None, row.n_real, row.n_synthetic, note)
            elif row.ks > limit:
                yield Breach(f"max_ks: {member}", limit, row.ks, row.n_real, row.n_synthetic)
