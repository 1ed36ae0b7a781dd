"""What a run writes beside images: every field of its files, with its text in the reference under it.

Nothing here is needed to run: mypy holds the code against it, a test what the code has written, and the
reference is generated from it. What is written as a dataclass, such as :class:`lesionsynth.run.plan.Job`, is
described there.
"""

from __future__ import annotations

from typing import Any, TypedDict

from lesionsynth.plugins.draws import Giver, Insertion, Removal


class HostOfCopy(TypedDict):
    """Whom a copy is made of."""

    case: str
    """The case."""
    subject: str
    """Its person."""


class Loads(TypedDict):
    """Loads in mL."""

    before: float
    """Of the host."""
    target: float | None
    """To be reached; `null` where no step has one, the last step's where several have."""
    after: float
    """Of the copy."""


class Counts(TypedDict):
    """Numbers of lesions."""

    before: int
    """Of the host."""
    removed: int
    """Taken out, over all steps."""
    inserted: int
    """Added, over all steps."""
    after: int
    """Of the copy."""


class StepDone(TypedDict):
    """An entry of `steps`."""

    step: str
    """Name in the recipe."""
    kind: str
    """Kind of operation."""
    rejected: dict[str, int]
    """How often something drawn was refused, by reason, such as `no fitting site` or `contrast out of
    range`."""
    draws: list[Insertion | Removal]
    """The edits in order."""


class WeightsUsed(TypedDict):
    """An entry of `weights`."""

    file: str
    """The checkpoint, relative to the output; its name is the digest of its bytes."""
    subjects: list[str]
    """Everybody that it was trained on, those that only validated included."""


class Record(TypedDict):
    """``records/<case>.json``."""

    case: str
    """Id, `<host>__syn<copy_index>`."""
    host: HostOfCopy
    """Whom the copy is made of."""
    copy_index: int
    """Number of the copy, from 0; with `per_fold` counted on over the folds."""
    donors: list[Giver]
    """Whose lesions were added, in order; two entries for a lesion with one's shape and another's look, none
    for one that is nobody's."""
    own_subject_donors: int
    """How many added lesions have the shape of one of the host's own subject."""
    fitted_on: list[str]
    """Subjects that loads and likelihood map were fitted on, mask-only ones included."""
    weights: list[WeightsUsed]
    """Trained models that lesions came from; none where no source has one."""
    block: str
    """Block whose fits were used: `block0`, `fold2` or `all`."""
    load_ml: Loads
    """Loads in mL."""
    shortfall: bool
    """Whether `after` misses the target by more than the tolerance."""
    lesions: Counts
    """Numbers of lesions."""
    clipped_voxels: int
    """Voxels that were cut to the range of the stored dtype."""
    resampled: list[str]
    """Channels that were brought onto the grid of the label map (`input.resample`)."""
    device: str
    """`cpu`, or `cuda:i`: what the kernels ran on; `replay` takes the same kind."""
    warnings: list[str]
    """What should be known of the case, such as that the GPU ran out of memory."""
    steps: list[StepDone]
    """One entry per step, see [below](#steps)."""
    inputs: dict[str, str]
    """Digest of each file of the host, by path in the input."""
    hashes: dict[str, str]
    """Digest of the voxels of each file written, by path."""
    job: dict[str, Any]
    """The line of `plan.jsonl`."""
    lesionsynth: str
    """Version."""


class FailureNote(TypedDict):
    """``failures/<case>.json``."""

    case: str
    """Which."""
    stage: str
    """At what: `synthesise`, `edit` or `try again`."""
    error: str
    """What the command has printed."""
    kind: str
    """The class of the error."""


class Lock(TypedDict):
    """``recipe.lock.yaml``."""

    lesionsynth: str
    """Version."""
    python: str
    """Version."""
    packages: dict[str, str]
    """Versions of the packages that voxels may depend on."""
    seed: int
    """Of the recipe."""
    key: str
    """Digest of input files (by path, size and time), labels, subjects, resolved recipe and version; an
    output folder is continued only by a run with the same key, or brought to another by `--update`."""
    plan: str | None
    """Digest of `cohort.json` and `plan.jsonl`; missing as long as the plan is being made, when the lock has
    only `lesionsynth` and `key`."""
    voxels: str | None
    """Digest over the `hashes` of all synthetic cases; `null` until the run is through."""
    input: str
    """Folder of the input."""
    recipe: dict[str, Any]
    """The recipe with overrides and all defaults."""
    input_hashes: dict[str, str]
    """Digest of each input file, by path in the input."""


class ManifestRow(TypedDict, total=False):
    """A line of ``manifest.csv``."""

    case: str
    """Id."""
    kind: str
    """`original` or `synthetic`."""
    subject: str
    """The host's subject."""
    host: str
    """Case that the copy is made of."""
    copy_index: int
    """As in the record."""
    block: str
    """As in the record."""
    load_before_ml: float
    """`load_ml.before` of the record."""
    load_target_ml: float
    """`load_ml.target` of the record."""
    load_after_ml: float
    """`load_ml.after` of the record."""
    shortfall: bool
    """As in the record."""
    lesions_removed: int
    """`lesions.removed` of the record."""
    lesions_inserted: int
    """`lesions.inserted` of the record."""
    own_subject_donors: int
    """As in the record."""
    clipped_voxels: int
    """As in the record."""
    voxel_hash: str
    """Digest of the record's `hashes`."""


class Fold(TypedDict):
    """An entry of ``splits_final.json``."""

    train: list[str]
    """Cases that train: originals, and the synthetic ones that may serve the fold."""
    val: list[str]
    """Cases that are validated: originals only."""
