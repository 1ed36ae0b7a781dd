"""What a process does once before its first case."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import threading
import time
from functools import cache

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Parameters of mallopt(3)."""
_LOOK_S = 0.5


@cache
def settle() -> None:
    """Have freed memory stay, and end with the run that it works for; the second call does nothing."""
    _keep_freed()
    if worker_number() is not None:
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def worker_number() -> int | None:
    """Number of this worker process, from 0; None in the process that starts workers."""
    name, _, number = multiprocessing.current_process().name.rpartition("-")
    return int(number) - 1 if name == "LokyProcess" and number.isdigit() else None


def _keep_freed() -> None:
    """Have freed volumes stay with the process, where the C library is glibc.

    It gives large blocks back to the system at once, which clears every page anew for the next volume of the
    same size: a third of the time of a case. Peak memory stays what it was.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return  # another C library, with habits of its own
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def _end_with(parent: int) -> None:
    """End this process when `parent` is gone: loky's workers would wait five minutes for more work."""
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os._exit(1)
