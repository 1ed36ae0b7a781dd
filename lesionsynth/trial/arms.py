"""The arms of a trial: ways to train that are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lesionsynth.errors import RecipeError
from lesionsynth.recipe.model import Recipe, TrainingSpec
from lesionsynth.trial.ablate import ablated
from lesionsynth.trial.compare import NONE
from lesionsynth.trial.spec import TrialSpec

Form = Literal["none", "cross", "direct"]
"""Of prototype consistency."""
CONTROLS: Mapping[str, Callable[[TrialSpec], dict[str, Any]]] = {
    "longer": lambda spec: {"steps": 2 * spec.steps},
    "lesions": lambda spec: {"lesion_share": (1 + spec.lesion_share) / 2},
}
"""What is changed in the training of an arm without synthetic data, by what it is called: where one of them
gains as much as a recipe, it was not the lesions that helped."""
_LONGEST = 80
"""Characters of a recipe's name, which is part of names of files."""


@dataclass(frozen=True)
class Arm:
    """A way to train.

    Parameters
    ----------
    name : str
        Of the recipe, or "none".
    recipe : Recipe or None
        What synthetic cases are made by; None where there are none.
    prototype : str
        Form of prototype consistency: none, cross or direct.
    control : str or None
        Of :data:`CONTROLS`.
    renewed : float
        Copies are made while the network trains, so many times those of the recipe; 0: before it trains.
    searched : int
        So many networks are trained to find better values for the recipe.
    """

    name: str
    recipe: Recipe | None
    prototype: Form = "none"
    control: str | None = None
    renewed: float = 0.0
    searched: int = 0

    @property
    def is_ours(self) -> bool:
        """Whether it needs our own network."""
        return self.prototype != "none" or self.control is not None or self.renewed > 0 or self.searched > 0

    @property
    def share(self) -> float:
        """Share of the synthetic patches in a batch."""
        return 0.0 if self.recipe is None else self.recipe.training.share

    def network(self, spec: TrialSpec) -> TrialSpec:
        """How its network is trained where others are trained as `spec` says."""
        return spec if self.control is None else spec.model_copy(update=CONTROLS[self.control](spec))


def arms_of(
    names: Sequence[str],
    load: Callable[[str], Recipe],
    *,
    prototype: Form = "none",
    ablate: bool = False,
    shares: Sequence[float] = (),
    on_the_fly: Sequence[float] = (),
    controls: Sequence[str] = (),
    search: int = 0,
) -> tuple[Arm, ...]:
    """Arms by the names of their recipes, the one without synthetic data first.

    Each recipe is there once as it is, and once more for each of what is asked for.

    Parameters
    ----------
    names : sequence of str
    load : callable
        Opens a recipe.
    prototype : str
        Also with this form of prototype consistency.
    ablate : bool
        Also with each of its parts off.
    shares : sequence of float
        Also with these shares of synthetic patches in a batch.
    on_the_fly : sequence of float
        Also with copies that are made while the network trains, so many times as many as the recipe says.
    controls : sequence of str
        Which of :data:`CONTROLS` there are too.
    search : int
        Also with the values that so many networks find best on validation subjects.

    Raises
    ------
    RecipeError
        If a name comes twice or is very long.
    """
    arms = [Arm(NONE, None), *(Arm(f"{NONE}+{control}", None, control=control) for control in controls)]
    for name in names:
        if name == NONE:
            continue
        label, recipe = Path(name).stem, load(name)
        if len(label) > _LONGEST:
            raise RecipeError(
                f"the name of the recipe {label[:20]}... is too long for an arm: {len(label)} characters.",
                remedy=f"Give its file a name of up to {_LONGEST}.",
            )
        arm = Arm(label, recipe)
        arms.append(arm)
        if prototype != "none":
            arms.append(replace(arm, name=f"{label}+{prototype}", prototype=prototype))
        if ablate:
            arms += [Arm(f"{label}-{part}", changed) for part, changed in ablated(recipe)]
        for share in shares:
            other = recipe.model_copy(update={"training": TrainingSpec(share=share)})
            arms.append(Arm(f"{label}@{share:g}", other))
        arms += [replace(arm, name=f"{label}+fly{times:g}", renewed=times) for times in on_the_fly]
        if search:
            arms.append(replace(arm, name=f"{label}+searched", searched=search))
    labels = [arm.name for arm in arms]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise RecipeError(
            f"two arms are called {twice}.", remedy="Give each recipe once, by a name of its own."
        )
    return tuple(arms)
