"""Bounds of a fuzz run: how many examples, how long one may take, how much memory it may ask for."""

from __future__ import annotations

import os
import re
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from hypothesis import HealthCheck, settings

from lesionsynth.errors import LesionsynthError

Result = TypeVar("Result")

LENGTH = int(os.environ.get("LESIONSYNTH_FUZZ", "1"))
"""So many times the examples of an ordinary run; from 2 on they are new ones each time."""
SECONDS = 5.0
MEGABYTES = 768


def fuzzed(examples: int) -> settings:
    """Settings of a bounded run that is the same on every machine, or of a longer random one."""
    return settings(
        max_examples=examples * LENGTH,
        derandomize=LENGTH == 1,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@contextmanager
def bounded(seconds: float = SECONDS, megabytes: int = MEGABYTES) -> Iterator[None]:
    """Raise TimeoutError or MemoryError where the block hangs or asks for much more memory than there was."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"more than {seconds} s")

    usual = resource.getrlimit(resource.RLIMIT_AS)
    statm = Path("/proc/self/statm")
    if statm.is_file():
        mapped = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + (megabytes << 20), usual[1]))
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, usual)


def clear(message: str, *named: object) -> None:
    """The message is one that a user can act upon: no bug in disguise, and it names what it is about."""
    assert not re.search(r"unexpected \w+ at |Please report|Traceback|ran out of memory", message), message
    assert any(str(name) in message for name in named) or not named, message


def result_or_error(
    call: Callable[[], Result], *named: object, seconds: float = SECONDS
) -> Result | LesionsynthError:
    """What `call` gives, or its error, which has to name one of `named`; anything else is raised."""
    try:
        with bounded(seconds):
            return call()
    except LesionsynthError as error:
        clear(str(error), *named)
        return error
