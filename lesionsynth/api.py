"""Synthesis inside a training: the copies that a run would write, made in memory when they are asked for.

    from lesionsynth.api import Synthesis, SyntheticDataset

    synthesis = Synthesis("lesionmix", "sample_data", "work", subjects=["sub01", "sub02", "sub03"])
    dataset = SyntheticDataset(synthesis, transform=...)    # for torch.utils.data.DataLoader
    for epoch in range(100):
        dataset.set_epoch(epoch)
        ...

Copy number `k` of a case is voxel for voxel the one that ``lesionsynth run`` writes as ``<case>__syn<k>``
with the same recipe, subjects and ``folds.strategy: none``; an epoch asks for the copy of its number. Nothing
here needs torch.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from multiprocessing import RawValue
from multiprocessing.context import get_spawning_popen
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionsynth.editing.canvas import Canvas
from lesionsynth.errors import InputError, NoRoomError
from lesionsynth.recipe.load import load_recipe
from lesionsynth.recipe.model import FoldSpec, Recipe
from lesionsynth.rng import stream
from lesionsynth.run import session
from lesionsynth.run.fit import Fit
from lesionsynth.run.job import HostJobs
from lesionsynth.run.plan import job_of
from lesionsynth.run.pool import ALONE, Engine, Progress, Unheard

_WHOLE = (slice(None), slice(None), slice(None))


@dataclass(frozen=True, eq=False)
class Sample:
    """A case in memory.

    Parameters
    ----------
    case : str
        Its id, `<host>__syn<copy>`; the host's where no edit was possible.
    host, subject : str
        Whom it is made of.
    image : ndarray, (C, i, j, k), float32
        In the image's own units, in the order of the cohort's channels.
    label : ndarray, (i, j, k), uint8 or uint16
        Label map.
    affine : ndarray, (4, 4), float64
        Voxels to world millimetres (RAS+).
    draws : list of dict
        Every edit, as in a record; empty where none was possible.
    """

    case: str
    host: str
    subject: str
    image: NDArray[np.float32]
    label: NDArray[np.unsignedinteger]
    affine: NDArray[np.float64]
    draws: list[dict[str, Any]]

    @property
    def synthetic(self) -> bool:
        """Whether anything was edited."""
        return bool(self.draws)


class Synthesis:
    """Copies of the cases of a data set, by a recipe.

    Parameters
    ----------
    recipe : str, Path or Recipe
        Name of a shipped recipe, a file, or a recipe.
    root : str or Path
        The data set.
    folder : str or Path
        Where bank, likelihood map and fits go; they are used again by the same recipe and subjects, and
        refused for others: each split needs a folder of its own.
    subjects : sequence of str, optional
        Those that take part. **Name the training subjects of your split**: hosts, donors and all that is
        fitted come from them alone, and a trained model that has seen others of the data set is refused. All
        of it by default.
    overrides : sequence of str
        Of the recipe, such as ``steps.add.load=high``.
    hosts_in_memory : int
        Cases that a process keeps, with the copy it last made of each.
    progress : Progress, optional
        Told how the preparation is getting on.
    engine : Engine
        Who harvests.
    device : str
        Where kernels run, as in :func:`lesionsynth.run.session.run`.

    Raises
    ------
    LesionsynthError
        As a run would: bad input, a recipe that cannot be used, no donors.

    Notes
    -----
    It may be sent to other processes, before and after it was used: each opens files of its own.
    """

    def __init__(
        self,
        recipe: str | Path | Recipe,
        root: str | Path,
        folder: str | Path,
        *,
        subjects: Sequence[str] | None = None,
        overrides: Sequence[str] = (),
        hosts_in_memory: int = 4,
        progress: Progress | None = None,
        engine: Engine = ALONE,
        device: str = "cpu",
    ) -> None:
        given = recipe if isinstance(recipe, Recipe) else load_recipe(str(recipe), overrides)
        chosen = given.input.subjects if subjects is None else tuple(subjects)
        own = given.model_copy(
            update={
                "input": given.input.model_copy(update={"subjects": chosen}),
                "folds": FoldSpec(strategy="none"),
                "output": given.output.model_copy(update={"originals": "omit", "copies": 1}),
            }
        )
        prepared = session.plan(own, Path(root), Path(folder), progress or Unheard(), engine)
        self._space = replace(prepared.space, device=device)
        (self._block,) = {job.block for job in prepared.jobs}
        self._fit = Fit.read(self._space.fits, self._block)
        self._most = max(1, hosts_in_memory)
        self._open: OrderedDict[str, tuple[HostJobs, Canvas | None]] = OrderedDict()
        self._process = os.getpid()
        self._inherited: list[Any] = []
        self.hosts: tuple[str, ...] = tuple(job.host for job in prepared.jobs)
        """Ids of the cases that copies can be made of, sorted."""
        self.channels: tuple[str, ...] = self._space.cohort.channels
        """Names of the channels."""

    def __getstate__(self) -> dict[str, Any]:
        """Without open files."""
        return {**vars(self), "_open": OrderedDict(), "_inherited": []}

    def copy(self, host: str, number: int) -> Sample:
        """Copy `number` of a case; the case itself where no edit is possible.

        Raises
        ------
        InputError
            If there is no such host, or the number is no whole one from 0.
        """
        if not isinstance(number, Integral) or number < 0:
            raise InputError(f"copies are numbered from 0, and there is no copy {number}.", case=host)
        maker, canvas = self._of(host)
        files = self._space.cohort.case(host)
        job = job_of(self._space.recipe, self._fit, maker.host.load, files, number, self._block)
        self._open[host] = maker, None  # of an edit that breaks off nobody knows what the canvas holds
        try:
            canvas, reports = maker.edit(job, canvas)
        except NoRoomError:
            return self.original(host)
        self._open[host] = maker, canvas
        draws = [draw for report in reports.values() for draw in report.draws]
        return Sample(
            job.case,
            host,
            files.subject,
            canvas.values(_WHOLE),
            canvas.label.copy(),
            maker.host.grid.affine.copy(),
            draws,
        )

    def original(self, host: str) -> Sample:
        """A case as it is."""
        case = self._of(host)[0].host
        affine = case.grid.affine.copy()
        return Sample(host, host, case.files.subject, case.values(), case.label.copy(), affine, [])

    def chance(self, host: str, number: int) -> float:
        """A number from 0 to 1 that is drawn for a copy."""
        return float(stream(self._space.recipe.seed, host, number, "replaced").random())

    def _of(self, host: str) -> tuple[HostJobs, Canvas | None]:
        """The opened host and the canvas of its last copy; those not asked for longest are closed."""
        if self._process != os.getpid():
            # Files that a fork has inherited are its parent's: neither to be used nor to be closed here.
            self._inherited.append(self._open)
            self._open, self._process = OrderedDict(), os.getpid()
        if host not in self.hosts:
            raise InputError(
                f"there is no host {host}; there are {', '.join(self.hosts[:3])}, ...",
                file=self._space.cohort.root,
            )
        if host not in self._open:
            while len(self._open) >= self._most:
                with closing(self._open.popitem(last=False)[1][0]):
                    pass
            self._open[host] = HostJobs(self._space, self._space.cohort.case(host)), None
        self._open.move_to_end(host)
        return self._open[host]


class _Epoch:
    """A number that all processes share, so that workers that live on see it change.

    A worker is sent the number itself, however it is started; any other copy has one of its own.
    """

    def __init__(self) -> None:
        self._epoch = RawValue("q", 0)  # a lock would bind it to one way of starting processes

    def __getstate__(self) -> dict[str, Any]:
        """With the shared number for a process that is being started, with its value for anybody else."""
        return vars(self) if get_spawning_popen() is not None else {**vars(self), "_epoch": self.epoch}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """As it was; a copy of its own begins at the epoch of the other."""
        vars(self).update(state)
        if isinstance(self._epoch, int):
            self._epoch = RawValue("q", self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Ask for the copies of an epoch from now on; call it before the loader is iterated."""
        self._epoch.value = epoch

    @property
    def epoch(self) -> int:
        """The epoch that copies are made for."""
        return int(self._epoch.value)


class SyntheticDataset(_Epoch):
    """A map-style data set for ``torch.utils.data.DataLoader``: item `i` is the epoch's copy of host `i`.

    Parameters
    ----------
    synthesis : Synthesis
    transform : callable, optional
        Applied to each item: a dict with "image" (C, i, j, k), "label" (1, i, j, k), "case", "host",
        "subject" and "affine", as MONAI's dictionary transforms take it.
    """

    def __init__(
        self, synthesis: Synthesis, transform: Callable[[dict[str, Any]], Any] | None = None
    ) -> None:
        super().__init__()
        self.synthesis, self.transform = synthesis, transform

    def __len__(self) -> int:
        """Number of hosts."""
        return len(self.synthesis.hosts)

    def __getitem__(self, index: int) -> Any:
        """The item; it depends on recipe, subjects, epoch and index alone."""
        item = _item(self.synthesis.copy(self.synthesis.hosts[index], self.epoch))
        return item if self.transform is None else self.transform(item)


class Synthesised(_Epoch):
    """A MONAI dictionary transform that replaces a case by a copy of it; what follows sees nothing else.

    Put it first, in the place of the transform that loads: it reads the case by its id under `case_key`.

    Parameters
    ----------
    synthesis : Synthesis
    probability : float
        Share of the cases that are replaced; the others are loaded as they are. Which ones follows from the
        seed of the recipe, the epoch and the case.
    case_key : str
        Key of the case's id.

    Raises
    ------
    InputError
        If the probability is not from 0 to 1; when called, if there is no such key or case.
    """

    def __init__(self, synthesis: Synthesis, probability: float = 0.5, case_key: str = "case") -> None:
        super().__init__()
        if not 0 <= probability <= 1:
            raise InputError(f"the probability should be from 0 to 1, got {probability}.")
        self.synthesis, self.probability, self.case_key = synthesis, probability, case_key

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """The dict with "image", "label" and the rest of an item, see :class:`SyntheticDataset`."""
        if self.case_key not in data:
            raise InputError(
                f"the dict has no key {self.case_key!r}; there are {', '.join(map(str, data)) or 'none'}.",
                remedy="Put the id of the case there, or name the key that holds it as case_key.",
            )
        host = str(data[self.case_key])
        replaced = self.synthesis.chance(host, self.epoch) < self.probability
        sample = self.synthesis.copy(host, self.epoch) if replaced else self.synthesis.original(host)
        return {**data, **_item(sample)}


def _item(sample: Sample) -> dict[str, Any]:
    return {
        "image": sample.image,
        "label": sample.label[None],
        "case": sample.case,
        "host": sample.host,
        "subject": sample.subject,
        "affine": sample.affine,
    }
