"""A device that every machine has: NumPy behind a wrapper that refuses to be mixed with NumPy, as CuPy does.

A kernel that runs on :class:`FakeArray` and gives what it gives on NumPy arrays uses the modules of its
arrays for everything, moves nothing by itself, and will run on CuPy as far as CuPy has the functions.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from lesionsynth import backend

# What CuPy 14 has of numpy, numpy.linalg, numpy.fft and scipy.ndimage (names of dir(cupy) and its modules).
_PRESENT = set((Path(__file__).parent / "cupy_names.txt").read_text().split())


class FakeArray:
    """An array on the fake device; only functions of the fake modules and operators take it."""

    __array_ufunc__ = None  # NumPy's operators give way, and its functions refuse

    def __init__(self, data: Any) -> None:
        self.data = np.asarray(data)

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
        return _wrap(getattr(self.data, name), f"method {name}")

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


def _wrap(function: Any, what: str, makes: bool = False) -> Any:
    if not callable(function) or isinstance(function, type):
        return function

    def call(*args: Any, **kwargs: Any) -> Any:
        if not makes:
            args = tuple(_out(arg, f"an argument of {what}") for arg in args)
            kwargs = {key: _out(value, f"{key} of {what}") for key, value in kwargs.items()}
        return _in(function(*args, **kwargs))

    return call


class FakeModule(ModuleType):
    """NumPy or scipy.ndimage, on arrays of the fake device."""

    def __init__(self, module: Any) -> None:
        super().__init__(f"fake.{module.__name__}")
        self._module = module

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        if isinstance(found, ModuleType):
            return FakeModule(found)
        if f"{self._module.__name__.removeprefix('scipy.')}.{name}" not in _PRESENT:
            raise AttributeError(f"CuPy has no {self._module.__name__}.{name}")
        # These take data from the host, in CuPy too.
        return _wrap(found, name, makes=name in ("asarray", "array") and self._module is np)


def to_fake(array: Any) -> FakeArray:
    """Move to the fake device."""
    return FakeArray(np.array(array))


def to_numpy(array: FakeArray) -> Any:
    """Move back from the fake device."""
    assert isinstance(array, FakeArray), f"the kernel returned {type(array)}, not an array of the device"
    return array.data


FakeArray.__module__ = "fake.array"


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
        return OtherDevice(cupy.asarray, cupy.asnumpy)
    request.getfixturevalue("fake_device")
    return OtherDevice(to_fake, to_numpy)
