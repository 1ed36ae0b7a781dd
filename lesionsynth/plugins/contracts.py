"""What an operation, a source, a blend, a fill and a layout have to do."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lesionsynth.bank.store import LesionBank
from lesionsynth.domain.case import CaseFiles, Cohort, channels_by_file
from lesionsynth.domain.finding import Finding
from lesionsynth.domain.grid import Box
from lesionsynth.domain.lesion import Lesion
from lesionsynth.domain.load import LoadTarget
from lesionsynth.errors import InputError
from lesionsynth.host import LoadedCase
from lesionsynth.kernels.alpha import composite
from lesionsynth.likelihood.over_host import CentreDensity
from lesionsynth.plugins.load import LoadSpec
from lesionsynth.spec import Spec

if TYPE_CHECKING:
    from lesionsynth.editing.canvas import Canvas

Draw = dict[str, Any]
"""Everything random in one edit, as JSON."""


class BlendSpec(Spec):
    """Joins a lesion to its host.

    `alpha` and `compose` take and return arrays of one library, NumPy or CuPy
    (:func:`lesionsynth.backend.modules_of`).
    """

    kind: str
    spreads: ClassVar[bool] = False
    """Whether the composite differs from the host where alpha is 0, within the reach along each axis."""

    def draw(self, rng: np.random.Generator) -> Draw:
        """Draw what is random in this blend; nothing by default."""
        return {}

    def reach_mm(self, spacing_mm: Sequence[float]) -> float:
        """How far outside the label the blend changes anything; nothing by default."""
        return 0.0

    @abstractmethod
    def alpha(
        self, label: NDArray[np.bool_], allowed: NDArray[np.bool_], spacing_mm: Sequence[float]
    ) -> NDArray[np.float32]:
        """Weight of the lesion image.

        Parameters
        ----------
        label : ndarray, (i, j, k), bool
            The lesion as its label will be written.
        allowed : ndarray, (i, j, k), bool
            Where anything may change; contains `label`.
        spacing_mm : sequence of float

        Returns
        -------
        ndarray, (i, j, k), float32
            In [0, 1]; 0 outside `allowed`, at least one half on `label`.
        """

    def compose(
        self,
        host: NDArray[np.float32],
        lesion: NDArray[np.float32],
        alpha: NDArray[np.float32],
        allowed: NDArray[np.bool_],
        draw: Draw,
        spacing_mm: Sequence[float],
    ) -> NDArray[np.float32]:
        """Join host and lesion image by the weight of :meth:`alpha`; by default their weighted mean.

        Parameters
        ----------
        host, lesion : ndarray, (C, i, j, k), float32
            What the lesion image is outside `allowed` is not to be relied on: its own tissue ends there.
        alpha : ndarray, (i, j, k), float32
        allowed : ndarray, (i, j, k), bool
            As given to :meth:`alpha`.
        draw : dict
            From :meth:`draw`.
        spacing_mm : sequence of float

        Returns
        -------
        ndarray, (C, i, j, k), float32
            Exactly the host where alpha is 0, unless the blend `spreads`.
        """
        return composite(host, lesion, alpha)


@dataclass(frozen=True, eq=False)
class Surroundings:
    """The whole case around a crop that is to be filled; NumPy arrays.

    Parameters
    ----------
    image : ndarray, (C, i, j, k), float32
        Intensities of the case. What they are in the region is not read.
    clean : ndarray, (i, j, k), bool
        Tissue to imitate, free of lesions and of the region.
    box : Box
        Where the crop lies.
    mirror : callable
        Gives the 4x4 matrix from voxels to the voxels of the contralateral place, or None where the
        anatomy has no known mid-plane.
    used : dict of str to int
        Voxels by the way in which they were filled, for the record. A fill with several ways adds to it.
    """

    image: NDArray[np.float32]
    clean: NDArray[np.bool_]
    box: Box
    mirror: Callable[[], NDArray[np.float64] | None]
    used: dict[str, int] = field(default_factory=dict)


Texture = Literal["auto", "clone", "spectrum", "noise", "none"]
_TEXTURES: dict[str, str] = {
    "auto": "They got the texture of a clean patch of the same image, or noise where tissues were not told "
    "apart.",
    "clone": "They got the texture of a clean patch of the same image.",
    "spectrum": "They got random-phase noise with the spectrum of clean tissue [@galerne2011].",
    "noise": "They got Gaussian noise of the strength and smoothness of clean tissue.",
    "none": "",
}
"""What the methods section says of each."""


class FillSpec(Spec):
    """Fills the place of a removed lesion from what surrounds it.

    `fill` takes and returns arrays of one library, NumPy or CuPy (:func:`lesionsynth.backend.modules_of`).
    """

    kind: str
    grow_vox: int = Field(default=2, ge=0, le=6)
    """Voxels by which the place is grown first: annotations leave out the partial-volume rim. Along longer
    edges as far in mm, by one voxel at least. Where tissues are not told apart, it grows on in a channel that
    is blurred (PET) to where the lesion has faded."""
    texture: Texture = "auto"
    """clone: give the fill the texture of a clean patch of the same image; spectrum: noise of the spectrum of
    clean tissue; noise: noise of its strength and smoothness; none: leave the fill as it is; auto: clone, or
    noise where tissues are not told apart and what is cloned would be other anatomy."""

    def methods(self) -> Iterator[str]:
        """The fill, and the texture that it got."""
        yield from super().methods()
        if told := _TEXTURES[self.texture]:
            yield told

    @abstractmethod
    def fill(
        self,
        image: NDArray[np.float32],
        region: NDArray[np.bool_],
        source: NDArray[np.bool_],
        spacing_mm: Sequence[float],
        around: Surroundings | None = None,
    ) -> NDArray[np.float32]:
        """Fill `region` of `image` (C, i, j, k) from the voxels of `source`; the rest is unchanged.

        All of the region is within reach of a source (:func:`lesionsynth.kernels.inpaint.reachable`).
        `around` is for fills that look further than the crop; it is None where a patch is filled to find
        its texture.
        """


@dataclass(frozen=True)
class Wanted:
    """What a lesion has to be to fit.

    Parameters
    ----------
    min_mm3, max_mm3 : float
        Volume before any augmentation.
    host_subject, host_case : str
        The person and the case it is meant for.
    own_too : bool
        Whether the host's own may be taken where others are preferred: those that there are did not fit.
    """

    min_mm3: float
    max_mm3: float
    host_subject: str
    host_case: str = ""
    own_too: bool = False


@dataclass(frozen=True, eq=False)
class Placed:
    """A lesion at its place on a host, before its intensities are there.

    Parameters
    ----------
    canvas : Canvas
        Is not to be changed.
    box : Box
        Where it lies, with what the blend may change around it.
    label : ndarray, of the shape of the box, uint16
        Its label as it will be written.
    """

    canvas: Canvas
    box: Box
    label: NDArray[np.uint16]


Painter = Callable[[Placed], NDArray[np.float32]]
"""Gives what a lesion adds to its host (C, i, j, k) in its box, in units of the host tissue's spread."""


@dataclass(frozen=True, eq=False)
class Donors:
    """Where lesions may be taken from in one job: a bank and the subjects that the leak rule leaves.

    `load` reads a whole case of these subjects, for operations that need more of a donor than its lesions.
    `mask_subjects` are known by lesion masks alone: they have shapes to give. `models` are checkpoints of
    trained models by what `models_used` of sources and operations calls them.
    """

    bank: LesionBank
    subjects: tuple[str, ...]
    load: Callable[[str], LoadedCase] | None = None
    cache: dict[Any, Any] = field(default_factory=dict)
    mask_subjects: tuple[str, ...] = ()
    models: Mapping[str, Path] = field(default_factory=dict)

    def model_file(self, name: str, kind: str) -> Path:
        """Checkpoint of the model that a recipe calls `name`; `kind` is what trains one.

        Raises
        ------
        InputError
            If the recipe names none, or it was not prepared.
        """
        if name in self.models:
            return self.models[name]
        raise InputError(
            f"the model {name} was not prepared." if name else "no trained model is named.",
            remedy=f"Train one with `lesionsynth train {kind}`, and name its folder in the recipe.",
        )


class ModelUse(NamedTuple):
    """What a source or an operation wants of a trained model.

    One of some kinds; whether it must make intensities; settings that it must have been trained with; the
    field that names it.
    """

    kinds: tuple[str, ...]
    images: bool = False
    config: tuple[tuple[str, str], ...] = ()
    field: str = "model"

    @classmethod
    def translation(cls, network: str | None) -> ModelUse:
        """An image translation; any, or one of this network."""
        return cls(("translation",), images=True, config=() if network is None else (("network", network),))


class SourceSpec(Spec):
    """Yields lesions."""

    kind: str

    @property
    def own_geometry(self) -> Any:
        """GeometrySpec (:mod:`lesionsynth.editing.geometry`) for its lesions; None for that of the step."""
        return None

    def donor_subjects(self, donors: Donors) -> frozenset[str] | None:
        """Subjects whose lesions it may give or imitate; None for a source that needs nobody's."""
        return None

    def models_used(self) -> dict[str, ModelUse]:
        """Trained models it needs, by their paths as the recipe gives them."""
        return {}

    @abstractmethod
    def draw(self, rng: np.random.Generator, donors: Donors, wanted: Wanted) -> Draw | str | None:
        """Choose a lesion; None where there is none that fits, or the reason why what was drawn is none.

        A draw that joins several lesions, or none, lists them under "from": `lesion`, `case`, `subject`.
        """

    @abstractmethod
    def lesion(self, draw: Draw, donors: Donors) -> Lesion:
        """The lesion of a draw, without any randomness; without channels where it is painted."""

    def painter(self, draw: Draw, donors: Donors) -> Painter | None:
        """Paints the lesion of a draw where it has come to lie, without any randomness.

        None for a source whose lesions have their image before a place is found for them.
        """
        return None


class Streams(Protocol):
    """Random generators of one step, by name."""

    def __call__(self, *name: str | int) -> np.random.Generator:
        """Return the generator called `name`."""
        ...


@dataclass(frozen=True, eq=False)
class StepContext:
    """What a step is given besides the canvas.

    Parameters
    ----------
    step : str
        The step's id in the recipe.
    target : LoadTarget or None
        Load to reach, drawn in the plan.
    streams : Streams
        Generators addressed by name within this step, case and copy.
    sources : mapping of str to SourceSpec
        Sources of the recipe by name.
    donors : Donors
    centres : CentreDensity
        The likelihood map over the host.
    typical_count : int
        Median number of lesions in the training cases.
    """

    step: str
    target: LoadTarget | None
    streams: Streams
    sources: dict[str, SourceSpec]
    donors: Donors
    centres: CentreDensity
    typical_count: int


@dataclass(frozen=True)
class StepReport:
    """What a step has done.

    Parameters
    ----------
    draws : list of dict
        Every edit in order, as JSON: enough to make it again.
    rejected : dict of str to int
        How often something drawn was refused, by reason.
    """

    draws: list[Draw]
    rejected: dict[str, int]


class OperationSpec(Spec):
    """A step of a recipe: edits a canvas."""

    kind: str
    uses_map: ClassVar[bool] = False
    """Whether places are drawn from the likelihood map."""
    memory_vox: ClassVar[int] = 0
    """Bytes of memory for each voxel and channel that a worker needs beyond what every step does."""
    edits_lesions: ClassVar[bool] = True
    """Whether lesions come or go; a step that leaves them as they are has to follow those that do not."""

    @property
    def target_load(self) -> LoadSpec | None:
        """Distribution that the plan draws this step's target from; None for a step without one."""
        return None

    def source_names(self) -> tuple[str, ...]:
        """Names of the sources this step uses; the recipe must declare them."""
        return ()

    def models_used(self) -> dict[str, ModelUse]:
        """Trained models that the step itself needs, by their paths as the recipe gives them."""
        return {}

    @abstractmethod
    def apply(self, canvas: Canvas, context: StepContext) -> StepReport:
        """Draw and make the edits of this step."""

    @abstractmethod
    def replay(self, canvas: Canvas, context: StepContext, draws: list[Draw]) -> None:
        """Make recorded edits again, without any random stream."""


@dataclass(frozen=True)
class Scan:
    """A cohort as a layout has found it, and what is wrong with it."""

    cohort: Cohort
    findings: tuple[Finding, ...] = ()


class LayoutSpec(Spec):
    """Knows where the files of a data set lie, to read and to write."""

    kind: str

    @classmethod
    @abstractmethod
    def recognises(cls, root: Path) -> bool:
        """Whether `root` looks like this layout."""

    @abstractmethod
    def scan(self, root: Path) -> Scan:
        """Find the cases under `root`. Roles of labels may still be unset."""

    @abstractmethod
    def image_path(self, files: CaseFiles, case: str, channel: int, cohort: Cohort) -> Path:
        """Where a channel of the output case `case`, made from `files`, goes; relative to the output.

        Channels with the same path are volumes of one 4-D file, in their order.
        """

    def image_files(self, files: CaseFiles, case: str, cohort: Cohort) -> dict[Path, tuple[int, ...]]:
        """Numbers of the channels that each image file of an output case holds."""
        return channels_by_file(
            [self.image_path(files, case, number, cohort) for number in range(len(cohort.channels))]
        )

    @abstractmethod
    def label_path(self, files: CaseFiles, case: str, cohort: Cohort) -> Path:
        """Where the label map of an output case goes, relative to the output."""

    @abstractmethod
    def description(self, cohort: Cohort, cases: Sequence[tuple[str, CaseFiles]]) -> dict[str, bytes]:
        """Files that describe the whole output (such as dataset.json): relative path to content.

        Parameters
        ----------
        cohort : Cohort
            The input.
        cases : sequence of (str, CaseFiles)
            Every case of the output and the input case it comes from, sorted.
        """
