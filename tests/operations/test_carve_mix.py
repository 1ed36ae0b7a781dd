"""CarveMix: equal to the published script where asked for, and free of its faults otherwise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from lesionsynth.domain.grid import Grid
from lesionsynth.errors import NoRoomError
from lesionsynth.kernels.carve import deepest_of_all_mm
from lesionsynth.operations.carve_mix import draw_limit_mm, onto_host
from tests.operations.making import (
    AFFINE,
    SHAPE,
    ball,
    bright,
    copies,
    image_of,
    labelled,
    write_cases,
)

Case = tuple[NDArray[np.int16], NDArray[np.uint8], NDArray[np.float64]]
PLAIN = {"kind": "carve_mix", "contrast": "absolute"}
COMPATIBLE = {"kind": "carve_mix", "mode": "compatible"}
BIG, TINY = ball((8, 8, 8), 4.2), ball((17, 14, 12), 1.0)
HOST_LESION = ball((10, 9, 8), 2.5)
HOST = (bright(image_of(0), labelled(HOST_LESION)), labelled(HOST_LESION), AFFINE)


def donor_of(*lesions: NDArray[np.bool_], values: tuple[int, ...] = (), seed: int = 1) -> Case:
    label = labelled(*lesions, values=values)
    return bright(image_of(seed), label), label, AFFINE


def published(host: Case, donor: Case, limit_mm: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Image and label by the paper's formula on whole volumes, as its script rounds them."""
    spacing = np.linalg.norm(host[2][:3, :3], axis=0)
    inside = ndimage.distance_transform_edt(donor[1], sampling=spacing)
    outside = ndimage.distance_transform_edt(1 - donor[1].astype(float), sampling=spacing)
    taken = np.where(donor[1], -inside, outside) < limit_mm
    image, label = (np.where(taken, donor[k], host[k]).astype(np.float32) for k in (0, 1))
    return image, label


def test_limits_are_drawn_as_published() -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([draw_limit_mm(rng, 6.0) for _ in range(20000)])
    assert drawn.min() == pytest.approx(-3.0, abs=0.01)
    assert drawn.max() == pytest.approx(6.0, abs=0.01)
    assert np.mean(drawn < 0) == pytest.approx(0.5, abs=0.02)
    assert np.median(drawn[drawn < 0]) == pytest.approx(-1.5, abs=0.1)
    assert np.median(drawn[drawn > 0]) == pytest.approx(3.0, abs=0.1)


@pytest.mark.parametrize("values", [(1, 1), (1, 2)])
def test_compatible_is_the_published_formula_bit_for_bit(tmp_path: Path, values: tuple[int, int]) -> None:
    donor = donor_of(BIG, TINY, values=values)
    root = write_cases(tmp_path / "data", {"host": HOST, "donor": donor})
    signs = set()
    for made in copies(root, tmp_path / "out", COMPATIBLE, "host", n=6):
        (draw,) = made.draws
        image, label = published(HOST, donor, draw["lambda_mm"])
        assert np.array_equal(made.canvas.raw[0], image)
        assert np.array_equal(made.canvas.label, label)
        assert made.record["donors"] == [{"case": "donor", "subject": "donor", "lesion": None}]
        signs.add(draw["lambda_mm"] > 0)
    assert signs == {True, False}


def test_compatible_refuses_what_the_script_cannot_do(tmp_path: Path) -> None:
    no_ones = donor_of(BIG, values=(2,))
    other_shape = (np.full((9, 9, 9), 400, np.int16), np.pad(np.ones((3, 3, 3), np.uint8), 3), AFFINE)
    root = write_cases(tmp_path / "data", {"host": HOST, "a": no_ones, "b": other_shape})
    with pytest.raises(NoRoomError, match="grid of another shape") as raised:
        list(copies(root, tmp_path / "out", COMPATIBLE, "host"))
    assert "no voxel of label 1" in str(raised.value)


def test_every_lesion_has_its_own_limit_and_small_ones_do_not_vanish(tmp_path: Path) -> None:
    root = write_cases(tmp_path / "data", {"host": HOST, "donor": donor_of(BIG, TINY)})
    shrunk = 0
    for made in copies(root, tmp_path / "out", PLAIN, "host", n=6):
        big, tiny = made.draws
        assert big["lambda_mm"] != tiny["lambda_mm"]
        assert tiny["volume_mm3"] > 0
        assert made.canvas.label[17, 14, 12] == 1
        shrunk += big["lambda_mm"] < 0 and tiny["lambda_mm"] < 0
    assert shrunk
    _, label = published(HOST, donor_of(BIG, TINY), -0.49 * deepest_of_all_mm(labelled(BIG), (2.0, 2.0, 2.0)))
    assert label[8, 8, 8] == 1
    assert label[17, 14, 12] == 0  # what the fault looks like


def test_image_and_label_come_from_the_same_place_of_the_donor(tmp_path: Path) -> None:
    donor = donor_of(BIG, TINY)
    root = write_cases(tmp_path / "data", {"host": HOST, "donor": donor})
    for made in copies(root, tmp_path / "out", PLAIN, "host", n=4):
        taken = made.canvas.source >= 2
        assert np.array_equal(made.canvas.raw[0], np.where(taken, donor[0], HOST[0]))
        assert np.array_equal(made.canvas.label, np.where(taken, donor[1], HOST[1]))


def test_classes_do_not_matter_to_distances_and_are_kept(tmp_path: Path) -> None:
    core = ball((8, 8, 8), 2.0)
    one, two = donor_of(BIG), donor_of(BIG, core, values=(1, 2))
    two = (one[0], two[1], AFFINE)
    taken = []
    for name, donor in (("one", one), ("two", two)):
        root = write_cases(tmp_path / name, {"host": HOST, "donor": donor})
        (made,) = copies(root, tmp_path / f"{name}-out", PLAIN, "host")
        taken.append(made.canvas.source >= 2)
    assert np.array_equal(*taken)
    assert np.array_equal(made.canvas.label == 2, core & taken[1])


@pytest.mark.parametrize(
    ("axes", "flips"), [((0, 1, 2), (True, False, False)), ((2, 0, 1), (False, True, True))]
)
def test_orientation_of_the_files_does_not_matter(
    tmp_path: Path, axes: tuple[int, int, int], flips: tuple[bool, bool, bool]
) -> None:
    donor = donor_of(BIG, TINY)
    image, label, affine = donor[0], donor[1], donor[2].copy()
    for axis in np.flatnonzero(flips):
        image, label = np.flip(image, axis), np.flip(label, axis)
        affine[:3, 3] += affine[:3, axis] * (SHAPE[axis] - 1)
        affine[:3, axis] *= -1
    affine[:3, :3] = affine[:3, list(axes)]
    affine[:3, 3] += 0.01  # as the rounding of headers leaves it
    turned = (np.transpose(image, axes), np.transpose(label, axes), affine)
    root = write_cases(tmp_path / "data", {"host": HOST, "donor": turned})
    (made,) = copies(root, tmp_path / "out", PLAIN, "host")
    taken = made.canvas.source >= 2
    assert taken.any()
    assert np.array_equal(made.canvas.raw[0], np.where(taken, donor[0], HOST[0]))
    assert np.array_equal(made.canvas.label, np.where(taken, donor[1], HOST[1]))


def test_another_grid_is_resampled_to_the_same_place_in_the_world(tmp_path: Path) -> None:
    coarse = np.diag([3.0, 2.5, 2.0, 1.0])
    shape = (16, 18, 20)
    points = np.indices(shape).reshape(3, -1) * np.array([[3.0], [2.5], [2.0]])
    lesion = (np.linalg.norm(points - np.array([[16.0], [18.0], [16.0]]), axis=0) < 8.5).reshape(shape)
    donor = (np.where(lesion, 600, 400).astype(np.int16), lesion.astype(np.uint8), coarse)
    root = write_cases(tmp_path / "data", {"host": (image_of(0), labelled(TINY), AFFINE), "donor": donor})
    (made,) = copies(root, tmp_path / "out", PLAIN, "host")
    carved = (made.canvas.source >= 2) & (made.canvas.label == 1)
    assert np.argwhere(carved).mean(axis=0) * 2 == pytest.approx([16, 18, 16], abs=1.0)
    assert made.canvas.raw[0][carved].min() > 450


def test_a_donor_that_lies_elsewhere_gives_way_to_another(tmp_path: Path) -> None:
    away = AFFINE.copy()
    away[0, 3] = 500.0
    image, label, _ = donor_of(BIG)
    root = write_cases(tmp_path / "data", {"host": HOST, "a": (image, label, away), "b": donor_of(TINY)})
    seen = set()
    for made in copies(root, tmp_path / "out", PLAIN, "host", n=4):
        assert {draw["case"] for draw in made.draws} == {"b"}
        seen |= made.rejected
    assert seen == {"lands outside of the host's tissue"}


def test_donors_are_other_subjects_with_lesions(tmp_path: Path) -> None:
    healthy = (image_of(4), labelled(), AFFINE)
    cases = {"a_ses-1": HOST, "a_ses-2": donor_of(BIG, seed=2), "b": healthy, "c": donor_of(TINY, seed=3)}
    root = write_cases(tmp_path / "data", cases)
    for step in (PLAIN, COMPATIBLE):
        for made in copies(root, tmp_path / str(step["kind"]) / str(len(step)), step, "a_ses-1", n=6):
            assert {draw["subject"] for draw in made.draws} == {"c"}
            assert made.record["own_subject_donors"] == 0
    alone = write_cases(tmp_path / "alone", {"a_ses-1": HOST, "a_ses-2": donor_of(BIG), "b": healthy})
    with pytest.raises(NoRoomError, match="no donor case with lesions"):
        list(copies(alone, tmp_path / "alone-out", PLAIN, "a_ses-1"))


def test_several_donors_are_different_cases(tmp_path: Path) -> None:
    cases = {"host": HOST, "a": donor_of(BIG, seed=2), "b": donor_of(TINY, seed=3)}
    root = write_cases(tmp_path / "data", cases)
    (made,) = copies(root, tmp_path / "out", {**PLAIN, "donors": 3}, "host")
    assert sorted(draw["case"] for draw in made.draws) == ["a", "b"]
    assert made.rejected == {"no donor case with lesions"}


def test_the_same_pairs_come_again(tmp_path: Path) -> None:
    cases = {"host": HOST, "a": donor_of(BIG, seed=2), "b": donor_of(TINY, seed=3)}
    root = write_cases(tmp_path / "data", cases)
    runs = [
        [made.draws for made in copies(root, tmp_path / name, PLAIN, n=2)] for name in ("first", "second")
    ]
    assert runs[0] == runs[1]


def test_protected_voxels_and_what_lies_outside_stay_the_hosts(tmp_path: Path) -> None:
    image, label = image_of(0), labelled(ball((8, 8, 8), 2.0), values=(3,))
    image[:6] = 0
    host = (image, label | labelled(TINY), AFFINE)
    donor_image, donor_label, _ = donor_of(BIG)
    donor_image[:, :4] = 0
    root = write_cases(tmp_path / "data", {"host": host, "donor": (donor_image, donor_label, AFFINE)})
    far = 0
    for made in copies(root, tmp_path / "out", {**PLAIN, "inside": 0.1}, "host", n=6):
        taken = made.canvas.source >= 2
        assert not taken[label == 3].any()
        assert not taken[made.host.tissue == 0].any()
        assert not taken[:, :3].any()  # a voxel beyond its air is the donor's edge
        far += made.draws[0]["lambda_mm"] > 4.0
    assert far


def test_protected_labels_of_the_donor_stay_with_it(tmp_path: Path) -> None:
    """On another grid a voxel can be more of the donor's vessel than of either class beside it."""
    x, y, _ = np.indices(SHAPE)
    donor = donor_of(BIG, BIG & (y >= 8), BIG & (x >= 9), values=(1, 2, 3))
    shifted = AFFINE.copy()
    shifted[:2, 3] = 0.9, 1.0
    host = (image_of(0), labelled(TINY), shifted)
    root = write_cases(tmp_path / "data", {"host": host, "donor": donor})
    for made in copies(root, tmp_path / "out", {**PLAIN, "inside": 0.1}, "host", n=8):
        assert (made.canvas.label == 2).any()
        assert not (made.canvas.label == 3).any()


def test_contrast_follows_the_hosts_surroundings(tmp_path: Path) -> None:
    label = labelled(BIG)
    dim = (bright(image_of(5, level=500.0), label), label, AFFINE)
    host = (image_of(0), labelled(TINY), AFFINE)
    root = write_cases(tmp_path / "data", {"host": host, "donor": dim})
    for contrast, expected in (("shell", 400.0 + 200.0), ("absolute", 700.0)):
        (made,) = copies(root, tmp_path / contrast, {"kind": "carve_mix", "contrast": contrast}, "host")
        taken = (made.canvas.source >= 2) & (made.canvas.label == 1)
        assert np.median(made.canvas.raw[0][taken]) == pytest.approx(expected, abs=20)


def test_a_lesion_that_cannot_be_seen_is_left_out(tmp_path: Path) -> None:
    label = labelled(BIG)
    like_the_host = (bright(image_of(5, level=200.0), label), label, AFFINE)
    host = (image_of(0), labelled(TINY), AFFINE)
    root = write_cases(tmp_path / "data", {"host": host, "a": like_the_host, "b": donor_of(BIG)})
    step = {"kind": "carve_mix", "contrast": "absolute"}
    seen = set()
    for made in copies(root, tmp_path / "out", step, "host", n=4):
        assert {draw["case"] for draw in made.draws} == {"b"}
        seen |= made.rejected
    assert seen == {"visibility out of range"}


def test_a_lesion_that_is_cut_in_two_counts_as_two(tmp_path: Path) -> None:
    bar = np.zeros(SHAPE, bool)
    bar[8, 2:20, 8] = bar[9, 2:20, 8] = True
    host = (bright(image_of(0), labelled(bar)), labelled(bar), AFFINE)
    blob = ball((8, 10, 8), 3.0)
    root = write_cases(tmp_path / "data", {"host": host, "donor": donor_of(blob)})
    (made,) = copies(root, tmp_path / "out", PLAIN, "host")
    left = {int(v) for v in np.unique(made.canvas.instances[made.canvas.source == 0])} - {0}
    assert len(left) == 2
    assert 1 in left
    assert made.record["lesions"]["after"] == 3


def test_labels_keep_their_type(tmp_path: Path) -> None:
    root = write_cases(tmp_path / "data", {"host": HOST, "donor": donor_of(BIG)})
    (made,) = copies(root, tmp_path / "out", PLAIN, "host")
    assert made.canvas.label_image().raw.dtype == np.uint8
    assert made.canvas.label_image().header_bytes == made.host.label_image.header_bytes


def test_where_a_crop_lies_on_a_host() -> None:
    host = Grid((10, 10, 10), np.diag([1.0, 1.0, 1.0, 1.0]))
    flipped = np.diag([-1.0, 1.0, 1.0, 1.0])
    flipped[0, 3] = 9.0
    box, warp = onto_host(Grid((10, 10, 10), flipped), host, (slice(0, 3), slice(2, 4), slice(5, 6)))  # type: ignore[misc]
    assert box == (slice(7, 10), slice(2, 4), slice(5, 6))
    assert warp.is_exact
    away = np.eye(4)
    away[1, 3] = 20.0
    assert onto_host(Grid((10, 10, 10), away), host, (slice(0, 3), slice(2, 4), slice(5, 6))) is None
