"""What an output says of itself, read with care: every field is checked before anything relies on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lesionsynth.domain.finding import Finding
from lesionsynth.errors import InputError, LesionsynthError

REMAKE = "Remove the case's record and files, then run the same command again."
"""What helps where one synthetic case is wrong."""


class Part(BaseModel):
    """A part of a file; fields that no check needs are passed over."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)


class Donor(Part):
    """Whose lesion was added."""

    case: str
    subject: str
    lesion: str | None = None


class Choice(Part):
    """What a source has drawn: one lesion, or those that it joins."""

    lesion: str | None = None
    joined: list[Donor] | None = Field(default=None, alias="from")


class Push(Part):
    """A mass effect."""

    strength: float
    reach_mm: float


class Draw(Part):
    """One edit."""

    edit: Literal["insert", "remove", "translate"]
    case: str = ""
    subject: str = ""
    donor: Choice = Choice()
    lesion: int | None = None
    lambda_mm: float | None = None
    blend: dict[str, Any] = Field(default_factory=dict)
    mass_effect: Push | None = None
    volume_mm3: float = Field(default=0.0, ge=0)

    @property
    def donors(self) -> list[Donor]:
        """Everybody whose lesion it is made of."""
        if self.edit != "insert":
            return []
        if self.donor.joined is not None:
            return self.donor.joined
        return [Donor(case=self.case, subject=self.subject, lesion=self.donor.lesion)]


class Step(Part):
    """The edits of one step."""

    step: str
    kind: str
    draws: list[Draw]


class Host(Part):
    """Whom a copy is made of."""

    case: str
    subject: str


class Load(Part):
    """Loads in mL."""

    before: float
    target: float | None
    after: float


class Lesions(Part):
    """Numbers of lesions."""

    before: int
    removed: int
    inserted: int
    after: int


class Target(Part):
    """Load that a step was to reach."""

    ml: float
    tolerance: float


class Job(Part):
    """A line of the plan."""

    case: str
    host: str
    subject: str
    copy_index: int
    block: str
    targets: dict[str, Target]


class Weights(Part):
    """A model that took part, and whom it was trained on."""

    file: str
    subjects: tuple[str, ...] = Field(strict=False)


class Record(Part):
    """``records/<case>.json``."""

    case: str
    host: Host
    copy_index: int
    donors: list[Donor]
    own_subject_donors: int
    fitted_on: list[str]
    block: str
    load_ml: Load
    shortfall: bool
    lesions: Lesions
    clipped_voxels: int
    device: str
    steps: list[Step]
    inputs: dict[str, str]
    hashes: dict[str, str]
    job: Job
    weights: list[Weights] = Field(default_factory=list)

    @property
    def draws(self) -> Iterator[Draw]:
        """Every edit in order."""
        return (draw for step in self.steps for draw in step.draws)


class FittedLoad(Part):
    """Load of one case or mask that a block was fitted on."""

    ml: float
    count: int


class BlockFit(Part):
    """``likelihood/<block>.json``."""

    block: str
    subjects: list[str]
    fitted_on: list[str]
    loads: list[FittedLoad]
    map_file: str
    map_hash: str
    typical_count: int
    models: dict[str, Weights] = Field(default_factory=dict)


class Lock(Part):
    """``recipe.lock.yaml``."""

    seed: int
    key: str
    plan: str | None = None
    voxels: str | None
    input: str
    recipe: dict[str, Any]
    input_hashes: dict[str, str]


class Fold(Part):
    """A fold of ``splits_final.json``."""

    train: list[str]
    val: list[str]


AnyPart = TypeVar("AnyPart", bound=Part)


def part_of(model: type[AnyPart], value: object, path: Path) -> AnyPart:
    """`value`, which was read from `path`, as what it should be.

    Raises
    ------
    InputError
        If a field is missing or is not of its type.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"is not as it was written: {field + ': ' if field else ''}{first['msg'].lower()}.",
            file=path,
            remedy=REMAKE,
        ) from None


def finding_of(error: LesionsynthError, case: str | None = None, file: str | None = None) -> Finding:
    """An error as a finding."""
    return Finding("error", error.message, error.remedy or REMAKE, error.case or case, file or error.file)
