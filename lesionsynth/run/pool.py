"""Work in parallel over cases: no failure and no dead worker takes other cases with it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lesionsynth.errors import LesionsynthError
from lesionsynth.run.worker import settle


class Progress(Protocol):
    """Told how a stage is getting on."""

    def start(self, stage: str, total: int) -> None:
        """A stage of `total` items begins."""

    def advance(self, done: int = 1) -> None:
        """So many more are done."""

    def note(self, message: str) -> None:
        """Something the user should know."""


class Unheard:
    """Progress that nobody is told of."""

    def start(self, stage: str, total: int) -> None:
        """A stage begins."""

    def advance(self, done: int = 1, told: str = "") -> None:
        """Some items are done."""

    def note(self, message: str) -> None:
        """Something the user should know."""


@dataclass(frozen=True)
class Failure:
    """An item that could not be done, and why."""

    name: str
    stage: str
    error: LesionsynthError


class StageError(LesionsynthError):
    """An unexpected fault inside a worker, with the place where it happened."""


class WorkerDiedError(StageError):
    """A worker process that was ended twice by the same item, the second time alone."""


@dataclass(frozen=True)
class Engine:
    """Where the work is done.

    Parameters
    ----------
    n_jobs : int
        Worker processes of this machine, where with 1 everything happens in this one; or threads of all
        workers of the scheduler.
    mem_mb : float or None
        Memory that all of them may take together (:func:`lesionsynth.run.machine.bounded`).
    scheduler : str or None
        Address of a Dask scheduler, whose workers do the work instead.
    """

    n_jobs: int = 1
    mem_mb: float | None = None
    scheduler: str | None = None


ALONE = Engine()
"""This process."""


def run_all(
    work: Callable[..., Any],
    items: Sequence[tuple[str, tuple[Any, ...]]],
    *,
    stage: str,
    engine: Engine,
    progress: Progress,
    weight: Callable[[Any], int] = lambda result: 1,
    total: int | None = None,
    shielded: bool = False,
) -> Iterator[Any]:
    """Do `work(*arguments)` for each item; yield results and :class:`Failure` as they come.

    Parameters
    ----------
    work : callable
        A module-level function.
    items : sequence of (str, tuple)
        Name, for messages, and arguments.
    stage : str
        Shown to the user.
    engine : Engine
    progress : Progress
    weight : callable
        How much a result advances the progress.
    total : int, optional
        Sum of all weights; the number of items by default.
    shielded : bool
        Whether a single item, too, goes to another process where there are workers: it may end its own.
    """
    progress.start(stage, len(items) if total is None else total)
    tasks = [(number, (work, name, stage, arguments)) for number, (name, arguments) in enumerate(items)]
    if not engine.scheduler and (engine.n_jobs == 1 or (len(items) <= 1 and not shielded)):
        results: Iterator[Any] = (_guarded(*task) for _, task in tasks)
    else:
        results = _surviving(tasks, engine, progress)
    for result in results:
        yield result
        progress.advance(1 if isinstance(result, Failure) else weight(result))


Task = tuple[int, tuple[Callable[..., Any], str, str, tuple[Any, ...]]]


def _surviving(tasks: list[Task], engine: Engine, progress: Progress) -> Iterator[Any]:
    """Results of all tasks, whatever happens to the processes that work on them.

    When a worker process ends, whoever ended it, all tasks in flight are lost. Each of them is tried once
    more in a process of its own; a task that ends that one too has failed. Then the others go on.
    """
    while tasks:
        left = dict(tasks)
        try:
            for number, result in _parallel(tasks, engine):
                del left[number]
                yield result
            return
        except _ended(engine) as error:
            progress.note(f"a worker process was ended ({_signal(error)}); its cases are tried again.")
        in_flight = list(left.items())[: _AHEAD * engine.n_jobs]
        for number, task in in_flight:
            try:
                ((_, result),) = _parallel([(number, task)], engine)
            except _ended(engine) as error:
                result = Failure(task[1], task[2], _died(task[1], error))
            del left[number]
            yield result
        tasks = list(left.items())


_AHEAD = 2
"""Tasks handed out for each worker, so that none waits."""


def _parallel(tasks: Sequence[Task], engine: Engine) -> Iterator[tuple[int, Any]]:
    """Results with their numbers, in the order in which they are ready."""
    import joblib

    # loky replaces a worker that has grown by what a library like torch takes; nothing is lost by it.
    warnings.filterwarnings("ignore", message="A worker stopped while some jobs")
    # One thread inside each worker: several BLAS threads in each make the whole slower than serial.
    where: dict[str, Any] = {"backend": "loky", "inner_max_num_threads": 1}
    n_jobs = engine.n_jobs
    if engine.scheduler is not None:
        where, n_jobs = {"backend": "dask", "scheduler_host": engine.scheduler}, -1
    with joblib.parallel_config(**where):
        pool = joblib.Parallel(
            n_jobs=n_jobs,
            return_as="generator_unordered",
            pre_dispatch=f"{_AHEAD}*n_jobs",
            batch_size=1,
        )
        results = pool(joblib.delayed(_numbered)(number, *task) for number, task in tasks)
        try:
            yield from results
        finally:
            results.close()


def _numbered(number: int, *task: Any) -> tuple[int, Any]:
    return number, _guarded(*task)


def _ended(engine: Engine) -> tuple[type[Exception], ...]:
    """Exceptions that say that a worker process is gone, and what it did with it."""
    if engine.scheduler is not None:
        from distributed import KilledWorker

        return (KilledWorker,)
    from joblib.externals.loky.process_executor import BrokenProcessPool

    return (BrokenProcessPool,)


def _signal(error: Exception) -> str:
    """What ended a worker, as far as it is known."""
    found = re.search(r"(SIG[A-Z]+|EXIT)\((-?\d+)\)", str(error))
    return f"{found.group(1)} {found.group(2)}" if found else type(error).__name__


def _died(name: str, error: Exception) -> WorkerDiedError:
    return WorkerDiedError(
        f"its worker process was ended twice ({_signal(error)}), the second time while it worked alone.",
        case=name,
        remedy="SIGKILL mostly means that memory ran out: give the job more, or fewer workers (-j, --mem).",
    )


def _guarded(work: Callable[..., Any], name: str, stage: str, arguments: tuple[Any, ...]) -> Any:
    """A failure as a value: exceptions from workers would end the whole batch."""
    settle()
    try:
        return work(*arguments)
    except Exception as error:
        return Failure(name, stage, as_known(error, name))


def as_known(error: Exception, case: str) -> LesionsynthError:
    """An error that names the case, whatever was raised: a bug in one case must not end the batch."""
    if isinstance(error, LesionsynthError):
        return error
    if isinstance(error, MemoryError):
        return StageError("ran out of memory.", case=case, remedy="Use fewer workers (-j, --mem).")
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "?"
    message = f"unexpected {type(error).__name__} at {place}: {error}."
    return StageError(message, case=case, remedy="Please report this.")
