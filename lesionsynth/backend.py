"""The GPU, where there is one, and kernels that run on either. CuPy is imported here and nowhere else.

A kernel asks :func:`modules_of` for the modules that fit its arrays and moves nothing. Arrays travel in
:meth:`Device.run` only, so that everything else knows NumPy alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionsynth.errors import DeviceError

Modules = tuple[Any, Any]
"""The array module and its ``ndimage``."""

_MEMORY_SHARE = 0.9
# What the driver, the runtime and the libraries of CUDA call it.
_OUT_OF_MEMORY = ("ALLOC_FAILED", "MemoryAllocation", "OUT_OF_MEMORY")


def _numpy() -> Modules:
    from scipy import ndimage

    return np, ndimage


def _cupy() -> Modules:
    import cupy
    import cupyx.scipy.ndimage

    return cupy, cupyx.scipy.ndimage


KINDS: dict[str, Callable[[], Modules]] = {"numpy": _numpy, "cupy": _cupy}
"""Array libraries by the package of their array type."""


def modules_of(*arrays: Any) -> Modules:
    """Array module and ``ndimage`` that the given arrays belong to.

    Raises
    ------
    TypeError
        If they belong to different libraries: nothing is moved in silence.
    """
    kinds = {type(array).__module__.split(".")[0] for array in arrays}
    if len(kinds) != 1:
        raise TypeError(f"arrays of one library were expected, got {', '.join(sorted(kinds)) or 'none'}")
    return KINDS[kinds.pop()]()


def on_cpu(*arrays: Any) -> bool:
    """Whether the arrays are NumPy's, so that a compiled kernel may take them."""
    return modules_of(*arrays)[0] is np


@dataclass
class Device:
    """Where kernels run: "cpu", or "cuda:i" with a fallback to the CPU unless `forced`.

    `notes` collects what a record should say, such as that the GPU ran out of memory.
    """

    name: str = "cpu"
    forced: bool = False
    notes: list[str] = field(default_factory=list)

    def run(
        self,
        kernel: Callable[..., Any],
        channels: Sequence[NDArray[Any]],
        shared: Sequence[NDArray[Any]] = (),
    ) -> NDArray[Any]:
        """Do ``kernel(*channels, *shared)`` on this device; arrays come from the host and return there.

        Parameters
        ----------
        kernel : callable
            Returns one array whose first axis is that of `channels`, and treats channels independently.
        channels : sequence of ndarray, (C, ...)
        shared : sequence of ndarray

        Returns
        -------
        ndarray, (C, ...)

        Raises
        ------
        DeviceError
            If the GPU has too little memory even for one channel, and a GPU was demanded.
        """
        size = len(channels[0])
        while self.name != "cpu":
            done = self._in_parts(kernel, channels, shared, size)
            if done is not None:
                return done
            # Only now has the failed attempt let go of its arrays.
            self.free()
            if size > 1:
                size = (size + 1) // 2
                continue
            if self.forced:
                raise DeviceError(
                    f"{self.name} has too little memory for one channel of {channels[0].shape[1:]}.",
                    remedy="Use --device auto or cpu, or fewer workers on this GPU (-j).",
                )
            self.notes.append(f"{self.name} ran out of memory; {channels[0].shape[1:]} was done on the CPU")
            break
        return np.asarray(kernel(*channels, *shared))

    def _in_parts(
        self,
        kernel: Callable[..., Any],
        channels: Sequence[NDArray[Any]],
        shared: Sequence[NDArray[Any]],
        size: int,
    ) -> NDArray[Any] | None:
        """Do so many channels at a time on the GPU; None where that is too much for its memory."""
        import cupy

        try:
            with self._current():
                fixed = [cupy.asarray(array) for array in shared]
                return np.concatenate(
                    [
                        cupy.asnumpy(
                            kernel(*(cupy.asarray(c[start : start + size]) for c in channels), *fixed)
                        )
                        for start in range(0, len(channels[0]), size)
                    ]
                )
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
        return None

    def free(self) -> None:
        """Give the memory that the GPU library holds back, after a case or when it is short."""
        if self.name != "cpu":
            import cupy

            with self._current():  # the pool of another GPU would be emptied otherwise
                cupy.get_default_memory_pool().free_all_blocks()

    def _current(self) -> Any:
        """Context in which the GPU library works on this GPU."""
        import cupy

        return cupy.cuda.Device(int(self.name.partition(":")[2]))


def _is_out_of_memory(error: Exception) -> bool:
    """Whether the GPU's memory is what failed: in CuPy's pool, in the driver, or in a library of CUDA."""
    import cupy

    if isinstance(error, cupy.cuda.memory.OutOfMemoryError):
        return True
    kind = type(error).__module__.partition(".")[0]
    return kind.startswith("cupy") and any(word in str(error) for word in _OUT_OF_MEMORY)


def open_device(wanted: str, worker: int = 0, workers: int = 1) -> Device:
    """Find the device that ``--device`` asks for: auto, cpu, cuda or cuda:i.

    Parameters
    ----------
    wanted : str
    worker, workers : int
        Number of this worker process and of all: they take GPUs in turn and share their memory.

    Raises
    ------
    DeviceError
        If a GPU is demanded and there is none, or the name is not known.
    """
    if wanted == "cpu":
        return Device()
    kind, _, index = wanted.partition(":")
    if wanted != "auto" and (kind != "cuda" or not (index.isdigit() or wanted == "cuda")):
        raise DeviceError(f"the device {wanted!r} is not known.", remedy="Use auto, cpu, cuda or cuda:i.")
    count, why = _gpus()
    number = int(index) if index else worker % max(count, 1)
    if count and number >= count:
        raise DeviceError(
            f"there is no {wanted}: {count} GPU(s) were found.", remedy="See `lesionsynth doctor`."
        )
    why = why or _fault(number)
    if why:
        if wanted == "auto":
            return Device()
        raise DeviceError(
            f"no GPU can be used: {why}.", remedy="Use --device auto or cpu, or see `lesionsynth doctor`."
        )
    import cupy

    sharing = workers if index else -(-workers // count)
    with cupy.cuda.Device(number):
        cupy.get_default_memory_pool().set_limit(fraction=_MEMORY_SHARE / sharing)
    return Device(f"cuda:{number}", forced=wanted != "auto")


def _gpus() -> tuple[int, str]:
    """Number of usable GPUs, and why there is none."""
    try:
        import cupy
    except ImportError:
        return 0, "CuPy is not installed (pip install 'lesionsynth[cuda12]' or 'lesionsynth[cuda13]')"
    try:
        if not cupy.cuda.is_available():
            return 0, f"CuPy {cupy.__version__} finds no CUDA device"
        return int(cupy.cuda.runtime.getDeviceCount()), ""
    except Exception as error:  # a broken driver must not stop a run that may use the CPU
        return 0, f"CuPy cannot use the driver ({error})"


def _fault(number: int) -> str:
    """Why a GPU cannot compute, or nothing: CuPy loads CUDA's libraries only when they are first used."""
    import cupy

    try:
        with cupy.cuda.Device(number):
            one = cupy.asarray(np.ones((1, 1), dtype=np.float32))
            wrong = float((one @ one + one)[0, 0]) != 2.0
    except Exception as error:
        return f"CuPy {cupy.__version__} fails on cuda:{number} ({type(error).__name__}: {error})"
    return f"CuPy {cupy.__version__} computes wrong values on cuda:{number}" if wrong else ""


def gpu_report() -> str:
    """One line on the GPU and CuPy; never raises."""
    count, why = _gpus()
    why = why or _fault(0)
    if why:
        return f"none ({why})"
    import cupy

    properties = cupy.cuda.runtime.getDeviceProperties(0)
    memory = properties["totalGlobalMem"] / 2**30
    return f"{count} x {properties['name'].decode()}, {memory:.0f} GiB, CuPy {cupy.__version__}"
