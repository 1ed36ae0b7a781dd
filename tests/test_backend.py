"""Devices: what can be asked for, what cannot, and that the fake device refuses to be mixed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lesionsynth import backend
from lesionsynth.backend import Device
from lesionsynth.errors import DeviceError
from lesionsynth.recipe.model import Recipe
from lesionsynth.run.job import HostJobs
from lesionsynth.run.prepare import prepare
from tests.fake_device import FakeArray, FakeGpus, to_fake, to_numpy
from tests.test_invariants import MakeData, Silent

FakeGpusOf = Callable[..., FakeGpus]


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
    with pytest.raises(AttributeError, match="CuPy has no"):
        xp.nditer(one)
    with pytest.raises(TypeError, match="has no where"):
        xp.sqrt(one, where=one > 1)
    with pytest.raises(TypeError, match="has no initial"):
        one.max(initial=0.0)
    with pytest.raises(ValueError, match="empty"):
        xp.bincount(to_fake(np.zeros(0, int)))
    with pytest.raises(NotImplementedError, match="no fixed order"):
        xp.bincount(to_fake([0, 1]), one)
    with pytest.raises(NotImplementedError, match="contiguous"):
        xp.interp(to_fake(np.zeros((3, 3)))[:, 1], one, one)
    with pytest.raises(ValueError, match="background"):
        ndimage.distance_transform_edt(to_fake(np.ones((3, 3, 3), bool)))
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


def test_without_a_gpu_auto_is_the_cpu_and_cuda_an_error(fake_gpus: FakeGpusOf) -> None:
    fake_gpus(count=0)
    assert backend.open_device("auto") == Device()
    with pytest.raises(DeviceError, match=r"no GPU can be used: .*--device auto or cpu"):
        backend.open_device("cuda:0")
    assert "finds no CUDA device" in backend.gpu_report()


def test_a_gpu_that_does_not_work_is_none(fake_gpus: FakeGpusOf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one whose CUDA libraries are not installed: found when they are first used."""

    def missing(self: Any, other: Any) -> None:
        raise ImportError("libcublas.so.12: cannot open shared object file")

    fake_gpus()
    assert backend.gpu_report().startswith("1 x fake GPU")
    monkeypatch.setattr(FakeArray, "__matmul__", missing)
    assert backend.open_device("auto") == Device()
    with pytest.raises(DeviceError, match="libcublas"):
        backend.open_device("cuda")
    assert "libcublas" in backend.gpu_report()


def test_workers_take_gpus_in_turn_and_share_their_memory(fake_gpus: FakeGpusOf) -> None:
    gpus = fake_gpus(count=2, total=1000)
    found = [backend.open_device("auto", worker, 5) for worker in range(5)]
    assert [device.name for device in found] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1", "cuda:0"]
    assert not any(device.forced for device in found)
    assert [memory.limit for memory in gpus.memories] == [300, 300]  # three workers on the fuller GPU
    assert backend.open_device("cuda:1", 0, 5) == Device("cuda:1", forced=True)
    assert gpus.memories[1].limit == 180  # all five are on it
    with pytest.raises(DeviceError, match="no cuda:2"):
        backend.open_device("cuda:2")


def test_memory_is_given_back_on_the_gpu_that_held_it(fake_gpus: FakeGpusOf) -> None:
    gpus = fake_gpus(count=2)
    Device("cuda:1").free()
    Device().free()
    assert [memory.times_freed for memory in gpus.memories] == [0, 1]


def squared_sum(channels: Any, weight: Any) -> Any:
    """A kernel that needs some room beside its arrays."""
    xp, _ = backend.modules_of(channels, weight)
    square = channels * channels
    return xp.sqrt(square) * weight


CHANNELS = np.random.default_rng(0).normal(size=(5, 10, 10, 10))
WEIGHT = np.arange(1000.0).reshape(10, 10, 10)
ONE = WEIGHT.nbytes


@pytest.mark.parametrize(("room", "most"), [(25, 5), (13, 3), (6, 1)])
def test_channels_go_to_the_gpu_in_parts_that_fit(fake_gpus: FakeGpusOf, room: int, most: int) -> None:
    gpus = fake_gpus(total=room * ONE)
    device = backend.open_device("cuda")
    gpus.memories[0].limit = room * ONE
    sizes = []

    def kernel(channels: Any, weight: Any) -> Any:
        result = squared_sum(channels, weight)
        sizes.append(len(channels))
        return result

    found = device.run(kernel, [CHANNELS], [WEIGHT])
    np.testing.assert_allclose(found, squared_sum(CHANNELS, WEIGHT), rtol=1e-15)
    assert max(sizes) == most
    assert sum(sizes) == 5
    assert gpus.memories[0].used == 0
    assert device.notes == []


def test_a_gpu_that_is_too_small_leaves_it_to_the_cpu_and_says_so(fake_gpus: FakeGpusOf) -> None:
    gpus = fake_gpus(total=2 * ONE)
    device = backend.open_device("auto")
    found = device.run(squared_sum, [CHANNELS], [WEIGHT])
    assert np.array_equal(found, squared_sum(CHANNELS, WEIGHT))
    assert device.notes == ["cuda:0 ran out of memory; (10, 10, 10) was done on the CPU"]
    assert gpus.memories[0].used == 0  # nothing is held while the CPU works
    with pytest.raises(DeviceError, match=r"too little memory .*--device auto or cpu, or fewer workers"):
        backend.open_device("cuda").run(squared_sum, [CHANNELS], [WEIGHT])


class CUBLASError(RuntimeError):
    __module__ = "cupy_backends.cuda.libs.cublas"


def test_a_library_of_cuda_may_be_what_runs_out_of_memory(fake_gpus: FakeGpusOf) -> None:
    fake_gpus()

    def raising(error: Exception) -> Callable[..., Any]:
        def kernel(channels: Any) -> Any:
            if isinstance(channels, np.ndarray):
                return channels
            raise error

        return kernel

    device = Device("cuda:0")
    assert np.array_equal(
        device.run(raising(CUBLASError("CUBLAS_STATUS_ALLOC_FAILED")), [CHANNELS]), CHANNELS
    )
    assert len(device.notes) == 1
    for error in (CUBLASError("CUBLAS_STATUS_NOT_SUPPORTED"), MemoryError(), RuntimeError("ALLOC_FAILED")):
        with pytest.raises(type(error)):
            device.run(raising(error), [CHANNELS])


STEPS = {
    "fewer": {"kind": "inpaint", "share": [0.5, 0.5], "inpaint": {"kind": "biharmonic"}},
    "carve": {"kind": "carve_mix"},
    "more": {"kind": "populate", "load": 30.0, "blend": {"kind": "soft_poisson"}},
}


def made(root: Path, output: Path, device: str) -> tuple[list[np.ndarray], np.ndarray, dict[str, Any]]:
    """Images, label map and record of a copy of the first case."""
    recipe = Recipe.model_validate({"seed": 3, "steps": STEPS, "folds": {"strategy": "none"}})
    prepared = prepare(recipe, root, output, Silent())
    maker = HostJobs(replace(prepared.space, device=device), prepared.space.cohort.cases[0])
    canvas, record, _ = maker.make(prepared.jobs[0])
    return [image.copy() for image in canvas.raw], canvas.label.copy(), record


def job_on(device: str, root: Path, folder: Path) -> dict[str, Any]:
    """Compare a copy made on a GPU with the CPU's; the GPU's record.

    Labels have to be equal to the voxel, intensities to one step of the stored integers.
    """
    images, label, here = made(root, folder / "cpu", "cpu")
    other_images, other_label, there = made(root, folder / "gpu", device)
    assert {d["edit"] for step in here["steps"] for d in step["draws"]} == {"insert", "remove"}
    assert np.array_equal(other_label, label)
    for other, image in zip(other_images, images, strict=True):
        difference = np.abs(other.astype(np.int64) - image)
        assert difference.max() <= 1
        assert (difference > 0).mean() < 1e-3
    assert (here["device"], there["warnings"]) == ("cpu", [])
    return there


def test_a_whole_job_on_a_gpu_gives_what_the_cpu_gives(
    make_nnunet: MakeData, tmp_path: Path, fake_gpus: FakeGpusOf
) -> None:
    gpus = fake_gpus(count=2)
    assert job_on("cuda:1", make_nnunet(3), tmp_path)["device"] == "cuda:1"
    assert gpus.memories[1].peak > 100_000
    assert gpus.memories[1].times_freed >= 1
    assert gpus.memories[0].peak == 0


@pytest.mark.gpu
def test_a_whole_job_on_a_real_gpu(make_nnunet: MakeData, tmp_path: Path) -> None:
    """Twice the same as well: a case is replayed from its record and its hashes compared."""
    if backend.gpu_report().startswith("none"):
        pytest.skip(backend.gpu_report())
    root = make_nnunet(3)
    first, second = (job_on("cuda", root, tmp_path / name) for name in ("first", "second"))
    assert first["hashes"] == second["hashes"]


def test_a_whole_job_on_a_gpu_that_is_too_small_is_done_on_the_cpu(
    make_nnunet: MakeData, tmp_path: Path, fake_gpus: FakeGpusOf
) -> None:
    root = make_nnunet(3)
    images, label, record = made(root, tmp_path / "cpu", "cpu")
    fake_gpus(total=20_000)
    other_images, other_label, other = made(root, tmp_path / "gpu", "auto")
    assert np.array_equal(other_label, label)
    assert all(np.array_equal(there, here) for there, here in zip(other_images, images, strict=True))
    assert other["device"] == "cuda:0"
    assert other["warnings"]
    assert all("was done on the CPU" in warning for warning in other["warnings"])
    assert [step["draws"] for step in other["steps"]] == [step["draws"] for step in record["steps"]]
    with pytest.raises(DeviceError, match="too little memory"):
        made(root, tmp_path / "forced", "cuda")
