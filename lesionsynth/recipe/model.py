"""A recipe: everything that decides what a run makes, besides the input."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from lesionsynth.bank.harvest import BankSpec
from lesionsynth.domain.case import Resampling, Role
from lesionsynth.likelihood.spec import LikelihoodSpec
from lesionsynth.plugins import registry
from lesionsynth.plugins.contracts import LayoutSpec, OperationSpec, SourceSpec
from lesionsynth.recipe.realism import RealismSpec
from lesionsynth.spec import Probability, Spec
from lesionsynth.tissue import TissueSpec

if TYPE_CHECKING:
    AnyLayout = LayoutSpec
    AnySource = SourceSpec
    AnyOperation = OperationSpec
else:
    AnyLayout = registry.union("layouts")
    AnySource = registry.union("sources")
    AnyOperation = registry.union("operations")

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]


class MasksSpec(Spec):
    """Lesion masks of subjects without images: for likelihood map and loads."""

    path: str
    """Pattern with {subject}, such as masks/{subject}.nii.gz, relative to the input."""

    @field_validator("path")
    @classmethod
    def _has_subject(cls, value: str) -> str:
        if "{subject}" not in value:
            raise ValueError(f"should hold {{subject}}, got {value!r}")
        return value


def _kind_alone(value: Any) -> Any:
    """Let ``layout: nnunet`` stand for ``layout: {kind: nnunet}``."""
    return {"kind": value} if isinstance(value, str) and value not in ("auto", "same") else value


class InputSpec(Spec):
    """What the input is and what its labels mean."""

    layout: Annotated[AnyLayout | Literal["auto"], BeforeValidator(_kind_alone)] = "auto"
    """How files are found; auto recognises every kind but pattern."""
    subject: str | None = None
    """Regular expression with one group that finds the subject in a case id, such as (sub\\d+)_ses.*; leaks
    are judged by subject. Without it the layout's subject: sub-07 of sub-07_left, else less an ending like
    _ses-2, _ses-pre, _tp1 or _visit3."""
    subjects: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Subjects to use; all of the data set without it. The others are as if they were not there, their masks
    too, and a trained model that has seen one of them is refused: they may be those who are tested."""
    seen_by_models: tuple[str, ...] = ()
    """Subjects beside `subjects` that trained models may have seen, such as the rest of a training part."""
    roles: dict[str, Role] = Field(default_factory=dict)
    """Label name to role: lesion, organ, protected, ignore, background. Guessed from the names otherwise."""
    masks: MasksSpec | None = None
    """Subjects known by lesion masks alone."""
    resample: Resampling = "none"
    """Channels on another grid than the label map: none refuses them; linear and cubic (B-splines) resample
    them to it, originals in the output too. At least one channel must have the grid of the label map."""
    on_bad_case: Literal["error", "drop"] = "error"
    """Stop at a case that cannot be read, or go on without it."""

    @field_validator("subject")
    @classmethod
    def _is_expression(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                groups = re.compile(value).groups
            except (re.error, OverflowError, RecursionError) as error:
                raise ValueError(f"is not a regular expression ({error})") from None
            if groups != 1:
                raise ValueError(f"should have exactly one group, got {groups}")
        return value


class OutputSpec(Spec):
    """What is written."""

    copies: int = Field(default=4, ge=1, le=9999)
    """Synthetic cases per host (and per fold with folds.strategy per_fold)."""
    originals: Literal["copy", "link", "omit"] = "copy"
    """The input's own cases: copied, hard-linked where the disk allows it, or left out."""
    layout: Annotated[AnyLayout | Literal["same"], BeforeValidator(_kind_alone)] = "same"
    """How the output is laid out."""
    compression: int = Field(default=1, ge=1, le=3)
    """Level at which .nii.gz files are written: 1 is fastest, 2 or 3 smallest (it depends on the data). The
    voxels are the same at every level; .nii files are not compressed."""
    source_map: bool = False
    """Write a volume that tells where each voxel comes from: 0 host, 1 inpainted, k + 1 the k-th
    donor, 65535 pushed aside, 65534 painted by translate."""
    lesion_map: bool = False
    """Write a volume that numbers the lesions."""


class FoldSpec(Spec):
    """Which subjects may meet in one synthetic case, so that no validation fold leaks into training."""

    strategy: Literal["block", "per_fold", "none"] = "block"
    """block: host, donors, loads and likelihood map come from one validation fold, so that a synthetic case
    serves all other folds; per_fold: a set for each fold from all of its training subjects; none:
    everything is training data and no cross-validation is planned."""
    count: Annotated[int, Field(ge=2, le=100)] | Literal["auto"] = "auto"
    """Number of folds where they are made here; auto: 5, or fewer where a block would hold one subject."""
    use: Literal["auto", "splits", "table", "make"] = "auto"
    """splits: the input's splits_final.json; table: the column fold; make: by subject; auto: the first of
    these that there is."""

    def methods(self) -> Iterator[str]:
        """Who met whom."""
        yield {
            "block": "All that a copy was made of (its host, donors, and what was learned from others) "
            "came from subjects of one validation fold, and the copy serves for training all other folds "
            "only.",
            "per_fold": "For each fold, all that a copy was made of (its host, donors, and what was "
            "learned from others) came from its training subjects only.",
            "none": "All data are training data; no folds were kept apart.",
        }[self.strategy]


class TrainingSpec(Spec):
    """How a training is to use the copies; no voxel depends on it."""

    share: Probability = 0.5
    """Share of the patches of each batch that are synthetic, in `lesionsynth trial`."""


BESIDE = ("realism", "training")
"""Parts of a recipe that no output depends on."""


class Recipe(Spec):
    """A lesionsynth recipe."""

    version: Literal[1] = 1
    """Version of the recipe format."""
    description: str = ""
    """What the recipe is for."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """All randomness follows from it, from the ids of the cases, and from the names of the steps."""
    input: InputSpec = InputSpec()
    output: OutputSpec = OutputSpec()
    folds: FoldSpec = FoldSpec()
    tissue: TissueSpec = TissueSpec()
    bank: BankSpec = BankSpec()
    likelihood: LikelihoodSpec = LikelihoodSpec()
    sources: dict[Name, AnySource] = Field(
        default_factory=lambda: {"donors": registry.create("sources", "lesion_bank")}
    )
    """Sources of lesions by name."""
    steps: dict[Name, AnyOperation]
    """Steps by name, in order."""
    realism: RealismSpec = RealismSpec()
    training: TrainingSpec = TrainingSpec()

    @model_validator(mode="after")
    def _sources_exist(self) -> Recipe:
        if not self.steps:
            raise ValueError("steps: at least one step is needed")
        kept = ""
        for name, step in self.steps.items():
            if not step.edits_lesions:
                kept = name
            elif kept:
                raise ValueError(
                    f"steps.{kept} has to come after steps.{name}, which adds or removes lesions"
                )
            for source in step.source_names():
                if source not in self.sources:
                    raise ValueError(
                        f"steps.{name}.source names {source!r}, which `sources` does not declare; "
                        f"declared are {', '.join(sorted(self.sources)) or 'none'}"
                    )
        if not any(step.edits_lesions for step in self.steps.values()):
            raise ValueError(
                f"steps: none adds or removes lesions, so that a copy would have its host's labels; {kept} "
                "has to follow a step that does"
            )
        return self


def resolved(recipe: Recipe) -> dict[str, Any]:
    """The recipe with all defaults, as JSON."""
    return recipe.model_dump(mode="json")


def deciding(recipe: Recipe) -> dict[str, Any]:
    """The part of a recipe that decides what an output holds; the rest judges it, or says how to use it."""
    return {name: value for name, value in resolved(recipe).items() if name not in BESIDE}
