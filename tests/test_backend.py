"""Devices: what can be asked for, what cannot, and that the fake device refuses to be mixed."""

from __future__ import annotations

import numpy as np
import pytest

from lesionsynth import backend
from lesionsynth.errors import DeviceError
from tests.fake_device import to_fake, to_numpy


def test_modules_of_numpy() -> None:
    xp, ndimage = backend.modules_of(np.zeros(2), np.zeros(3))
    assert xp is np
    assert ndimage.__name__ == "scipy.ndimage"


@pytest.mark.usefixtures("fake_device")
def test_arrays_of_two_libraries_are_refused() -> None:
    with pytest.raises(TypeError, match="one library"):
        backend.modules_of(np.zeros(2), to_fake([1.0]))
    with pytest.raises(TypeError, match="one library"):
        backend.modules_of()


@pytest.mark.usefixtures("fake_device")
def test_the_fake_device_refuses_numpy_arrays_as_cupy_does() -> None:
    one = to_fake([1.0, 2.0])
    xp, ndimage = backend.modules_of(one)
    with pytest.raises(TypeError):
        one + np.ones(2)
    with pytest.raises(TypeError):
        np.ones(2) + one
    with pytest.raises(TypeError):
        np.sqrt(one)
    with pytest.raises(TypeError):
        np.concatenate([one, one])
    with pytest.raises(TypeError):
        xp.maximum(one, np.ones(2))
    with pytest.raises(TypeError):
        one[np.array([0])]
    assert np.array_equal(to_numpy(xp.sqrt(one * one) + 1.0), [2.0, 3.0])
    assert np.array_equal(to_numpy(ndimage.uniform_filter(xp.asarray(np.ones(4)), 3)), np.ones(4))


def test_the_cpu_needs_nothing() -> None:
    device = backend.open_device("cpu")
    assert device.name == "cpu"
    doubled = device.run(lambda a, b: a * b, [np.ones((2, 3))], [np.full(3, 2.0)])
    assert np.array_equal(doubled, np.full((2, 3), 2.0))
    assert device.notes == []


@pytest.mark.parametrize("wanted", ["gpu", "cuda:x", "", "cuda:-1"])
def test_an_unknown_device_is_refused(wanted: str) -> None:
    with pytest.raises(DeviceError, match="not known"):
        backend.open_device(wanted)


@pytest.mark.skipif(backend._gpus()[0] > 0, reason="there is a GPU here")
def test_without_a_gpu_auto_is_the_cpu_and_cuda_an_error() -> None:
    assert backend.open_device("auto").name == "cpu"
    with pytest.raises(DeviceError, match="no GPU can be used"):
        backend.open_device("cuda:0")
