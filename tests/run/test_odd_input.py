"""Data at the limits of what there is: a whole run gives the right result or a clear error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from lesionsynth.errors import InputError, LeakError
from lesionsynth.recipe.model import Recipe
from lesionsynth.run import session
from tests.conftest import write_nifti
from tests.test_invariants import Silent, records

Volume = NDArray[Any]
ISO = (2.0, 2.0, 2.0)


def ball(shape: tuple[int, int, int], centre: tuple[float, ...], radius: float) -> Volume:
    grid = np.indices(shape)
    return sum((grid[a] - centre[a]) ** 2 for a in range(3)) <= radius**2


def tissue_image(shape: tuple[int, int, int], label: Volume, seed: int, dtype: str = "int16") -> Volume:
    """Noisy tissue with bright lesions and three voxels of air at one side where there is room."""
    image = np.random.default_rng(seed).normal(100, 6, shape)
    image[label > 0] += 60
    if shape[0] > 6:
        image[:3] = 0
    return image.astype(dtype)


@pytest.fixture
def make_data(tmp_path: Path) -> Callable[..., Path]:
    """Write cases given as (list of channels, label, spacing) as an nnU-Net raw data set."""

    def make(cases: list[tuple[list[Volume], Volume, tuple[float, float, float]]]) -> Path:
        root = tmp_path / "data"
        for number, (channels, label, spacing) in enumerate(cases):
            affine = np.diag([*spacing, 1.0])
            for channel, image in enumerate(channels):
                write_nifti(root / "imagesTr" / f"c{number}_{channel:04d}.nii.gz", image, affine)
            write_nifti(root / "labelsTr" / f"c{number}.nii.gz", label.astype(np.uint8), affine)
        about = {
            "channel_names": {str(c): f"CH{c}" for c in range(len(cases[0][0]))},
            "labels": {"background": 0, "lesion": 1},
            "numTraining": len(cases),
            "file_ending": ".nii.gz",
        }
        (root / "dataset.json").write_text(json.dumps(about))
        return root

    return make


def simple(
    shape: tuple[int, int, int] = (20, 22, 18),
    spacing: tuple[float, float, float] = ISO,
    lesions: tuple[tuple[tuple[float, ...], float], ...] = (((10, 7, 9), 2.6), ((13, 15, 8), 1.8)),
    dtype: str = "int16",
    n: int = 4,
) -> list[tuple[list[Volume], Volume, tuple[float, float, float]]]:
    cases = []
    for seed in range(n):
        label = np.zeros(shape, bool)
        for centre, radius in lesions:
            label |= ball(shape, tuple(c + 0.5 * (seed % 2) for c in centre), radius)
        cases.append(([tissue_image(shape, label, seed, dtype)], label, spacing))
    return cases


def made(
    root: Path, tmp_path: Path, step: dict[str, Any] | None = None, **keys: Any
) -> tuple[session.Outcome, Path]:
    recipe = Recipe.model_validate(
        {
            "steps": {"add": step or {"kind": "populate", "load": "uniform"}},
            "output": {"copies": 1, "source_map": True, "originals": "omit"},
            "folds": {"strategy": "none"},
            **keys,
        }
    )
    output = tmp_path / "out"
    return session.run(recipe, root, output, Silent()), output


def check(root: Path, output: Path) -> int:
    """Every synthetic case differs from its host only where its source map says so; number of cases."""
    found = list(records(output).values())
    for record in found:
        host, case = record["host"]["case"], record["case"]
        source = np.asanyarray(nib.load(output / "source_maps" / f"{case}.nii.gz").dataobj)
        for image in sorted((root / "imagesTr").glob(f"{host}_*.nii.gz")):
            before = nib.load(image)
            after = nib.load(output / "imagesTr" / image.name.replace(host, case))
            assert after.header.get_data_dtype() == before.header.get_data_dtype()
            assert np.array_equal(after.affine, before.affine)
            kept = source == 0
            assert np.array_equal(
                np.asanyarray(after.dataobj)[kept], np.asanyarray(before.dataobj)[kept], equal_nan=True
            )
        label = np.asanyarray(nib.load(output / "labelsTr" / f"{case}.nii.gz").dataobj)
        volume = abs(np.linalg.det(nib.load(output / "labelsTr" / f"{case}.nii.gz").affine[:3, :3]))
        assert set(np.unique(label)) <= {0, 1}
        assert (label > 0).sum() * volume / 1000 == pytest.approx(record["load_ml"]["after"], abs=1e-5)
    return len(found)


def test_ordinary_data_as_a_measure(make_data: Callable[..., Path], tmp_path: Path) -> None:
    root = make_data(simple())
    outcome, output = made(root, tmp_path)
    assert check(root, output) == 4
    assert not outcome.failures


def test_a_lesion_larger_than_the_host(make_data: Callable[..., Path], tmp_path: Path) -> None:
    large = simple((30, 30, 30), lesions=(((15, 15, 15), 9.0),), n=1)
    small = simple((9, 10, 8), lesions=(((6, 5, 4), 1.5),), n=3)
    root = make_data(large + small)
    outcome, output = made(root, tmp_path, {"kind": "populate", "load": [5, 6], "tries": 20})
    check(root, output)
    assert {row["case"] for row in outcome.done} | {f.name for f in outcome.failures}
    for row in outcome.done:
        assert row["load_after_ml"] <= 6.5


def test_lesions_at_the_border_of_the_volume(make_data: Callable[..., Path], tmp_path: Path) -> None:
    root = make_data(simple(lesions=(((19, 21, 17), 3.2), ((12, 0, 9), 2.5))))
    with pytest.raises(LeakError, match=r"Of its 8 lesions all are specks .* or cut by the border"):
        made(root, tmp_path / "cut")
    outcome, output = made(root, tmp_path, bank={"at_border": "keep"})
    assert check(root, output) == 4
    removed, _ = made(root, tmp_path / "again", {"kind": "inpaint", "lesions": "all"})
    assert all(row["load_after_ml"] == 0 for row in removed.done)
    assert not outcome.failures


def test_a_lesion_without_tissue_around_it_stays_and_the_record_warns(
    make_data: Callable[..., Path], tmp_path: Path
) -> None:
    cases = []
    for (image,), label, spacing in simple():
        label = label.copy()
        label[0, 4:6, 4:6] = True  # in the air
        cases.append(([image], label, spacing))
    root = make_data(cases)
    outcome, output = made(root, tmp_path, {"kind": "inpaint", "lesions": "all"})
    assert check(root, output) == 4
    for record, row in zip(records(output).values(), outcome.done, strict=True):
        assert record["load_ml"]["after"] == pytest.approx(4 * 8 / 1000)
        assert record["warnings"] == row["warnings"]
        assert record["warnings"] == ["1 lesion(s) could not be removed: no clean tissue to fill from"]


def test_donors_thinner_than_a_voxel_of_the_host(make_data: Callable[..., Path], tmp_path: Path) -> None:
    fine = []
    for images, label, _ in simple((24, 26, 24), n=2):
        thin = np.zeros_like(label)
        thin[8:16, 8:18, 12] = True  # 0.8 mm thick
        fine.append(
            ([np.where(thin, 160, np.minimum(images[0], 115)).astype("int16")], thin, (0.8, 0.8, 0.8))
        )
    coarse = simple((14, 14, 12), (4.0, 4.0, 4.0), lesions=(((8, 7, 6), 1.2),), n=2)
    root = make_data(fine + coarse)
    _, output = made(root, tmp_path, {"kind": "populate", "load": [0.4, 0.8], "tries": 30})
    check(root, output)


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((40, 42, 3), (1.0, 1.0, 5.0)), ((40, 42, 1), (1.0, 1.0, 5.0)), ((30, 32, 6), (0.8, 0.8, 8.0))],
    ids=["3 slices", "1 slice", "spacing 1:10"],
)
@pytest.mark.parametrize("step", [{"kind": "populate", "load": [0.05, 0.6]}, {"kind": "inpaint"}])
def test_flat_volumes(
    make_data: Callable[..., Path],
    tmp_path: Path,
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    step: dict[str, Any],
) -> None:
    cases = []
    for seed in range(4):
        label = np.zeros(shape, bool)
        for centre in ((15, 12), (24, 20 + seed)):
            flat = (np.indices(shape)[0] - centre[0]) ** 2 + (np.indices(shape)[1] - centre[1]) ** 2 <= 10
            label[:, :, : max(1, shape[2] - 1)] |= flat[:, :, : max(1, shape[2] - 1)]
        cases.append(([tissue_image(shape, label, seed)], label, spacing))
    root = make_data(cases)
    outcome, output = made(root, tmp_path, step, bank={"at_border": "keep"})
    assert check(root, output) == 4, outcome.failures


@pytest.mark.parametrize("step", [{"kind": "populate", "load": [0.1, 0.8]}, {"kind": "inpaint"}])
def test_a_constant_and_an_all_zero_channel(
    make_data: Callable[..., Path], tmp_path: Path, step: dict[str, Any]
) -> None:
    cases = []
    for images, label, spacing in simple():
        cases.append(
            ([*images, np.full(label.shape, 7, "int16"), np.zeros(label.shape, "float32")], label, spacing)
        )
    root = make_data(cases)
    outcome, output = made(root, tmp_path, step)
    assert check(root, output) == 4, outcome.failures
    for record in records(output).values():
        for channel, level in ((1, 7), (2, 0)):
            path = output / "imagesTr" / f"{record['case']}_{channel:04d}.nii.gz"
            assert np.array_equal(np.unique(np.asanyarray(nib.load(path).dataobj)), [level])


def test_nothing_but_constant_images(make_data: Callable[..., Path], tmp_path: Path) -> None:
    cases = [([np.full(label.shape, 50, "int16")], label, spacing) for _, label, spacing in simple()]
    root = make_data(cases)
    outcome, output = made(root, tmp_path)
    # Lesions that cannot be seen must not be labelled.
    assert check(root, output) == 0
    assert len(outcome.failures) == 4


def test_a_narrow_dtype_is_clipped_and_says_so(make_data: Callable[..., Path], tmp_path: Path) -> None:
    cases = []
    for seed, (_, label, spacing) in enumerate(simple()):
        image = np.random.default_rng(seed).normal(225, 8, label.shape)
        image[label] += 40 if seed == 0 else 24
        cases.append(([np.clip(image, 0, 255).astype("uint8")], label, spacing))
    root = make_data(cases)
    outcome, output = made(root, tmp_path)
    assert check(root, output) >= 1
    assert sum(row["clipped_voxels"] for row in outcome.done) > 0


@pytest.mark.parametrize("dtype", ["complex64", "rgb"])
def test_complex_and_colour_images_are_refused(
    make_data: Callable[..., Path], tmp_path: Path, dtype: str
) -> None:
    cases = simple()
    root = make_data(cases)
    (channel,), _, spacing = cases[0]
    if dtype == "rgb":
        image = np.zeros(channel.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    else:
        image = channel.astype(dtype)
    write_nifti(root / "imagesTr" / "c0_0000.nii.gz", image, np.diag([*spacing, 1.0]))
    with pytest.raises(InputError, match=r"c0_0000\.nii\.gz: has voxels of type .*Convert it"):
        made(root, tmp_path)
    assert not (tmp_path / "out").exists()
