"""Workers that fail, raise and die: nothing else is lost with them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from lesionsynth.errors import InputError
from lesionsynth.run.pool import ALONE, Engine, Failure, StageError, WorkerDiedError, run_all
from tests.test_invariants import Silent

TWO = Engine(2)


def work(number: int, folder: Path, kind: str = "") -> int:
    """Note that it was begun; then do what `kind` says."""
    with (folder / f"{number}.txt").open("a") as stream:
        stream.write(f"{os.getpid()}\n")
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "exit":
        os._exit(3)
    if kind == "once" and len((folder / f"{number}.txt").read_text().split()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "raise":
        raise ZeroDivisionError("by nobody")
    if kind == "memory":
        raise MemoryError
    if kind == "known":
        raise InputError("is bad.", case=str(number), remedy="Mend it.")
    time.sleep(0.01)
    return number


def results(folder: Path, kinds: dict[int, str], n: int = 12, engine: Engine = TWO) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    items = [(str(i), (i, folder, kinds.get(i, ""))) for i in range(n)]
    silent = Silent()
    found = list(run_all(work, items, stage="work", engine=engine, progress=silent))
    assert len(found) == n
    return {f.name if isinstance(f, Failure) else str(f): f for f in found} | {"notes": silent.notes}


@pytest.mark.parametrize("engine", [ALONE, TWO], ids=["alone", "two"])
def test_what_is_raised_is_a_failure_with_case_and_place(tmp_path: Path, engine: Engine) -> None:
    found = results(tmp_path, {3: "raise", 5: "memory", 7: "known"}, engine=engine)
    assert [found[str(i)] for i in range(12) if i not in (3, 5, 7)] == [0, 1, 2, 4, 6, 8, 9, 10, 11]
    for number, kind, text in (
        ("3", StageError, "case 3: unexpected ZeroDivisionError at test_pool.py:"),
        ("5", StageError, "case 5: ran out of memory."),
        ("7", InputError, "case 7: is bad. Mend it."),
    ):
        assert type(found[number].error) is kind
        assert text in str(found[number].error)


@pytest.mark.parametrize(("kind", "said"), [("kill", "SIGKILL -9"), ("exit", "EXIT 3")])
def test_a_case_that_ends_its_worker_twice_has_failed_and_no_other(
    tmp_path: Path, kind: str, said: str
) -> None:
    found = results(tmp_path, {4: kind})
    assert [found[str(i)] for i in range(12) if i != 4] == [i for i in range(12) if i != 4]
    error = found["4"].error
    assert isinstance(error, WorkerDiedError)
    assert "case 4: its worker process was ended twice" in str(error)
    assert said in str(error)
    assert len((tmp_path / "4.txt").read_text().split()) == 2  # once among others, once alone
    (note,) = found["notes"]
    assert "a worker process was ended" in note


@pytest.mark.parametrize("number", [0, 7, 11])
def test_a_worker_that_is_ended_by_somebody_else_costs_nothing(tmp_path: Path, number: int) -> None:
    """One at a time: an item beside one that is ended is a suspect, and may not be ended again when alone."""
    found = results(tmp_path, {number: "once"})
    assert [found[str(i)] for i in range(12)] == list(range(12))


def test_two_cases_that_end_their_workers(tmp_path: Path) -> None:
    found = results(tmp_path, {0: "kill", 11: "exit"})
    assert [i for i in range(12) if isinstance(found[str(i)], Failure)] == [0, 11]
