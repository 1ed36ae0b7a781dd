"""A device that every machine has: NumPy behind a wrapper that refuses to be mixed with NumPy, as CuPy does.

A kernel that runs on :class:`FakeArray` and gives what it gives on NumPy arrays uses the modules of its
arrays for everything, moves nothing by itself, and will run on CuPy as far as CuPy has the functions.
"""

from __future__ import annotations

import operator
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from lesionsynth import backend

# What CuPy 14 has of numpy, numpy.linalg, numpy.fft and scipy.ndimage, and the methods of its arrays, each
# with its parameters by inspect.signature; * where it knows none.
_PRESENT = {
    name: parameters
    for name, *parameters in map(
        str.split, (Path(__file__).parent / "cupy_names.txt").read_text().splitlines()
    )
}


class OutOfMemoryError(MemoryError):
    """As CuPy's: a fake GPU is full."""


class Memory:
    """Memory of a fake GPU: what its arrays hold, counted until the last of them is gone."""

    def __init__(self, total: float) -> None:
        self.limit = self.total = total
        self.used = self.peak = self.times_freed = 0
        self._held: set[int] = set()

    def hold(self, data: Any) -> None:
        while isinstance(data.base, np.ndarray):
            data = data.base
        if id(data) in self._held:
            return
        if self.used + data.nbytes > self.limit:
            raise OutOfMemoryError(f"{data.nbytes} bytes beside {self.used} of {self.limit}")
        self._held.add(id(data))
        self.used += data.nbytes
        self.peak = max(self.peak, self.used)
        weakref.finalize(data, self._let_go, id(data), data.nbytes)

    def _let_go(self, number: int, size: int) -> None:
        self._held.discard(number)
        self.used -= size


class FakeArray:
    """An array on the fake device; only functions of the fake modules and operators take it."""

    __array_ufunc__ = None  # NumPy's operators give way, and its functions refuse
    memory: Memory | None = None
    """Of the fake GPU that is used now; None without a limit."""

    def __init__(self, data: Any) -> None:
        self.data = np.asarray(data)
        if self.memory is not None:
            self.memory.hold(self.data)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("implicit conversion to a NumPy array is not allowed")

    def __array_function__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("a function of NumPy was given an array of the device")

    shape = property(lambda self: self.data.shape)
    ndim = property(lambda self: self.data.ndim)
    size = property(lambda self: self.data.size)
    dtype = property(lambda self: self.data.dtype)
    T = property(lambda self: FakeArray(self.data.T))

    def __len__(self) -> int:
        return len(self.data)

    def __bool__(self) -> bool:
        return bool(self.data)

    def __int__(self) -> int:
        return int(self.data)

    def __float__(self) -> float:
        return float(self.data)

    def __index__(self) -> int:
        return operator.index(self.data[()])

    def __iter__(self) -> Any:
        return (FakeArray(part) for part in self.data)

    def __getitem__(self, key: Any) -> Any:
        return _in(self.data[_out(key, "an index")])

    def __setitem__(self, key: Any, value: Any) -> None:
        self.data[_out(key, "an index")] = _out(value, "a value")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if f"ndarray.{name}" not in _PRESENT:
            raise AttributeError(f"CuPy's arrays have no {name}")
        return _wrap(getattr(self.data, name), f"ndarray.{name}")

    def item(self) -> Any:
        return self.data.item()


def _operator(name: str) -> Any:
    function = getattr(operator, name)

    def forth(self: FakeArray, *others: Any) -> Any:
        return _in(function(self.data, *(_out(other, "an operand") for other in others)))

    def back(self: FakeArray, other: Any) -> Any:
        return _in(function(_out(other, "an operand"), self.data))

    def in_place(self: FakeArray, other: Any) -> FakeArray:
        self.data = getattr(operator, f"i{name.strip('_')}")(self.data, _out(other, "an operand"))
        return self

    return forth, back, in_place


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and_", "or_", "xor", "matmul"):
    _plain = _name.strip("_")
    _forth, _back, _in_place = _operator(_name)
    setattr(FakeArray, f"__{_plain}__", _forth)
    setattr(FakeArray, f"__r{_plain}__", _back)
    setattr(FakeArray, f"__i{_plain}__", _in_place)
for _name in ("neg", "pos", "abs", "invert", "lt", "le", "gt", "ge", "eq", "ne"):
    setattr(FakeArray, f"__{_name}__", _operator(_name)[0])


def _out(value: Any, what: str) -> Any:
    """NumPy form of what the device may take: its own arrays, scalars, slices; never a NumPy array."""
    if isinstance(value, FakeArray):
        return value.data
    if isinstance(value, np.ndarray) and value.ndim > 0:
        raise TypeError(f"{what} is a NumPy array; the device takes its own arrays only")
    if isinstance(value, tuple | list):
        return type(value)(_out(part, what) for part in value)
    return value


def _in(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return FakeArray(value)
    if isinstance(value, tuple | list):
        return type(value)(_in(part) for part in value)
    return value


def _wrap(function: Any, name: str) -> Any:
    """A function of NumPy that takes what CuPy's takes, `name` being CuPy's without its module."""
    if not callable(function) or isinstance(function, type):
        return function
    known = _PRESENT[name]

    def call(*args: Any, **kwargs: Any) -> Any:
        unknown = set(kwargs) - set(known)
        if unknown and known != ["*"]:
            raise TypeError(f"CuPy's {name} has no {', '.join(sorted(unknown))}")
        args = tuple(_out(arg, f"an argument of {name}") for arg in args)
        kwargs = {key: _out(value, f"{key} of {name}") for key, value in kwargs.items()}
        if name in _NARROWER:
            _NARROWER[name](*args, **kwargs)
        return _in(function(*args, **kwargs))

    return call


def _made(array: Any, *args: Any, **kwargs: Any) -> FakeArray:
    """What ``asarray`` and ``array`` do: data come from the host, as a copy; the device's own stay there."""
    if isinstance(array, FakeArray):
        return _in(np.asarray(array.data, *args, **kwargs))
    return FakeArray(np.array(array, *args, **kwargs))


def _interp(x: Any, *args: Any, **kwargs: Any) -> None:
    if not x.flags.c_contiguous:
        raise NotImplementedError("CuPy's interp takes contiguous places only")


def _bincount(x: Any, weights: Any = None, minlength: Any = None) -> None:
    if x.size == 0:
        raise ValueError("CuPy's bincount takes the maximum of x, which is empty")
    if weights is not None:
        raise NotImplementedError("weights are added up in no fixed order on a GPU: sums would not repeat")


def _argsort(a: Any, axis: Any = -1, kind: Any = None) -> None:
    if kind not in (None, "stable"):
        raise ValueError("CuPy sorts stably only")


def _distance(image: Any, **kwargs: Any) -> None:
    if image.ndim not in (2, 3):
        raise NotImplementedError("CuPy's distances are those of 2-D and 3-D arrays")
    if image.all():
        raise ValueError("without any background CuPy's distances mean nothing")


def _morphology(image: Any, structure: Any = None, iterations: int = 1, **kwargs: Any) -> None:
    if iterations != 1 and not kwargs.get("brute_force"):
        raise NotImplementedError("CuPy repeats by brute force only")


# Where CuPy takes less than NumPy and SciPy do, or gives something else.
_NARROWER: dict[str, Callable[..., None]] = {
    "numpy.interp": _interp,
    "numpy.bincount": _bincount,
    "numpy.argsort": _argsort,
    "ndarray.argsort": lambda axis=-1, kind=None: _argsort(None, axis, kind),
    "ndimage.distance_transform_edt": _distance,
    "ndimage.binary_dilation": _morphology,
    "ndimage.binary_erosion": _morphology,
}


class FakeModule(ModuleType):
    """NumPy or scipy.ndimage, on arrays of the fake device."""

    def __init__(self, module: Any) -> None:
        super().__init__(f"fake.{module.__name__}")
        self._module = module

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        if isinstance(found, ModuleType):
            return FakeModule(found)
        if self._module is np and name in ("asarray", "array"):
            return _made
        full = f"{self._module.__name__.removeprefix('scipy.')}.{name}"
        if full not in _PRESENT:
            raise AttributeError(f"CuPy has no {self._module.__name__}.{name}")
        return _wrap(found, full)


def to_fake(array: Any) -> FakeArray:
    """Move to the fake device."""
    return FakeArray(np.array(array))


def to_numpy(array: FakeArray) -> Any:
    """Move back from the fake device."""
    assert isinstance(array, FakeArray), f"the kernel returned {type(array)}, not an array of the device"
    return array.data


FakeArray.__module__ = "fake.array"


class FakeGpus(ModuleType):
    """In place of the module ``cupy``: fake GPUs that hold so many bytes. Kernels really run on their arrays.

    Parameters
    ----------
    count : int
        Number of GPUs; with 0 there is CuPy and no GPU.
    total : float
        Bytes of each.
    """

    __version__ = "14.0.1"

    def __init__(self, count: int = 1, total: float = float("inf")) -> None:
        super().__init__("cupy")
        self.memories = [Memory(total) for _ in range(count)]
        self.cuda = SimpleNamespace(
            is_available=lambda: count > 0,
            Device=self._device,
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            runtime=SimpleNamespace(
                getDeviceCount=lambda: count,
                getDeviceProperties=lambda number: {"name": b"fake GPU", "totalGlobalMem": total},
            ),
        )

    @contextmanager
    def _device(self, number: int) -> Iterator[None]:
        before, FakeArray.memory = FakeArray.memory, self.memories[number]
        try:
            yield
        finally:
            FakeArray.memory = before

    def asarray(self, array: Any) -> FakeArray:
        return _made(array)

    def asnumpy(self, array: Any) -> Any:
        return to_numpy(array).copy()

    def get_default_memory_pool(self) -> Any:
        memory = FakeArray.memory
        assert memory is not None

        def set_limit(fraction: float) -> None:
            memory.limit = fraction * memory.total

        def free_all_blocks() -> None:
            memory.times_freed += 1

        return SimpleNamespace(set_limit=set_limit, free_all_blocks=free_all_blocks)


@pytest.fixture
def fake_gpus(monkeypatch: pytest.MonkeyPatch, fake_device: None) -> Callable[..., FakeGpus]:
    """Put fake GPUs in place of CuPy during a test."""

    def install(count: int = 1, total: float = float("inf")) -> FakeGpus:
        gpus = FakeGpus(count, total)
        monkeypatch.setitem(sys.modules, "cupy", gpus)
        monkeypatch.setattr(FakeArray, "memory", gpus.memories[0] if count else None)
        return gpus

    return install


@pytest.fixture
def fake_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the kernels know the fake device during a test."""
    monkeypatch.setitem(backend.KINDS, "fake", lambda: (FakeModule(np), FakeModule(ndimage)))


@dataclass(frozen=True)
class OtherDevice:
    """A device that is not the CPU: how arrays go there and come back."""

    put: Callable[[Any], Any]
    get: Callable[[Any], Any]


@pytest.fixture(params=["fake", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> OtherDevice:
    """The fake device everywhere, and a real one with `pytest -m gpu`."""
    if request.param == "cuda":
        cupy = pytest.importorskip("cupy")
        if not cupy.cuda.is_available():
            pytest.skip("no CUDA device")
        return OtherDevice(cupy.asarray, cupy.asnumpy)
    request.getfixturevalue("fake_device")
    return OtherDevice(to_fake, to_numpy)
