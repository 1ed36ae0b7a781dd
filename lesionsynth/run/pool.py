"""Work in parallel over cases, with progress, without letting one failure hide the others."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lesionsynth.errors import LesionsynthError
from lesionsynth.run.memory import keep_freed


class Progress(Protocol):
    """Told how a stage is getting on."""

    def start(self, stage: str, total: int) -> None:
        """A stage of `total` items begins."""

    def advance(self, done: int = 1) -> None:
        """So many more are done."""

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


def available_cores() -> int:
    """Cores this process may use: affinity, cgroup and Slurm, whichever is least."""
    import joblib

    cores: int = joblib.cpu_count()
    slurm = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return min(cores, int(slurm)) if slurm.isdigit() and int(slurm) > 0 else cores


def worker_number() -> int:
    """Number of this worker process, from 0; 0 in the main process too."""
    number = multiprocessing.current_process().name.rpartition("-")[2]
    return int(number) - 1 if number.isdigit() else 0


def run_all(
    work: Callable[..., Any],
    items: Sequence[tuple[str, tuple[Any, ...]]],
    *,
    stage: str,
    n_jobs: int,
    progress: Progress,
    weight: Callable[[Any], int] = lambda result: 1,
    total: int | None = None,
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
    n_jobs : int
        Worker processes; with 1 everything happens in this one.
    progress : Progress
    weight : callable
        How much a result advances the progress.
    total : int, optional
        Sum of all weights; the number of items by default.
    """
    progress.start(stage, len(items) if total is None else total)
    if n_jobs == 1 or len(items) <= 1:
        results: Iterator[Any] = (_guarded(work, name, stage, arguments) for name, arguments in items)
    else:
        results = _parallel(work, items, stage, n_jobs)
    for result in results:
        yield result
        progress.advance(1 if isinstance(result, Failure) else weight(result))


def _parallel(
    work: Callable[..., Any], items: Sequence[tuple[str, tuple[Any, ...]]], stage: str, n_jobs: int
) -> Iterator[Any]:
    import joblib

    # One thread inside each worker: several BLAS threads in each make the whole slower than serial.
    with joblib.parallel_config(backend="loky", inner_max_num_threads=1):
        pool = joblib.Parallel(
            n_jobs=min(n_jobs, len(items)), return_as="generator_unordered", pre_dispatch="2*n_jobs"
        )
        results = pool(joblib.delayed(_guarded)(work, name, stage, arguments) for name, arguments in items)
        try:
            yield from results
        finally:
            results.close()


def _guarded(work: Callable[..., Any], name: str, stage: str, arguments: tuple[Any, ...]) -> Any:
    """A failure as a value: exceptions from workers would end the whole batch."""
    keep_freed()
    try:
        return work(*arguments)
    except LesionsynthError as error:
        return Failure(name, stage, error)
    except MemoryError:
        return Failure(
            name, stage, StageError("ran out of memory.", case=name, remedy="Use fewer workers (-j).")
        )
    except Exception as error:  # a bug in one case must not end the batch, and must name the case
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "?"
        message = f"unexpected {type(error).__name__} at {place}: {error}."
        return Failure(name, stage, StageError(message, case=name, remedy="Please report this."))
