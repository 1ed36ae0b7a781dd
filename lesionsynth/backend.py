"""The GPU, where there is one, and kernels that run on either. CuPy is imported here and nowhere else.

A kernel asks :func:`modules_of` for the modules that fit its arrays and moves nothing. Arrays travel in
:meth:`Device.run` only, so that everything else knows NumPy alone.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionsynth.errors import DeviceError

Modules = tuple[Any, Any]
"""The array module and its ``ndimage``."""

_MEMORY_SHARE = 0.9


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
        if self.name == "cpu":
            return np.asarray(kernel(*channels, *shared))
        import cupy

        parts = len(channels[0])
        size = parts
        while True:
            try:
                with cupy.cuda.Device(int(self.name.partition(":")[2])):
                    fixed = [cupy.asarray(array) for array in shared]
                    return np.concatenate(
                        [
                            cupy.asnumpy(
                                kernel(*(cupy.asarray(c[start : start + size]) for c in channels), *fixed)
                            )
                            for start in range(0, parts, size)
                        ]
                    )
            except cupy.cuda.memory.OutOfMemoryError:
                self.free()
                if size > 1:
                    size = (size + 1) // 2
                elif self.forced:
                    raise DeviceError(
                        f"{self.name} has too little memory for one channel of {channels[0].shape[1:]}.",
                        remedy="Use --device auto or cpu, or fewer workers on this GPU (-j).",
                    ) from None
                else:
                    break
        self.notes.append(f"{self.name} ran out of memory; {channels[0].shape[1:]} was done on the CPU")
        return np.asarray(kernel(*channels, *shared))

    def free(self) -> None:
        """Give the memory that the GPU library holds back, after a case or when it is short."""
        if self.name != "cpu":
            import cupy

            gc.collect()
            cupy.get_default_memory_pool().free_all_blocks()


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
    if count == 0:
        if wanted == "auto":
            return Device()
        raise DeviceError(f"no GPU can be used: {why}.", remedy="Use --device auto or cpu.")
    number = int(index) if index else worker % count
    if number >= count:
        raise DeviceError(
            f"there is no {wanted}: {count} GPU(s) were found.", remedy="See `lesionsynth doctor`."
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


def gpu_report() -> str:
    """One line on the GPU and CuPy; never raises."""
    count, why = _gpus()
    if count == 0:
        return f"none ({why})"
    import cupy

    properties = cupy.cuda.runtime.getDeviceProperties(0)
    memory = properties["totalGlobalMem"] / 2**30
    return f"{count} x {properties['name'].decode()}, {memory:.0f} GiB, CuPy {cupy.__version__}"
