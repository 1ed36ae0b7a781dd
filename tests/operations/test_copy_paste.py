"""Copies of single lesions: where from, where to, and how they are altered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from lesionsynth.errors import NoRoomError
from lesionsynth.operations.copy_paste import CopyPaste, gamma_curve
from tests.operations.making import AFFINE, ball, bright, copies, image_of, labelled, write_cases

ALIKE = {"flip": 0, "rotate": {"p": 0}, "scale": {"p": 0}, "elastic": {"p": 0}}
PLAIN = {"kind": "copy_paste", "geometry": ALIKE, "blur": {"p": 0}, "gamma": {"p": 0}}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three cases of two lesions each."""
    cases = {}
    for number, name in enumerate(("a", "b", "c")):
        label = labelled(ball((7, 7, 7 + number), 2.2), ball((16, 14, 12), 1.5))
        cases[name] = (bright(image_of(number), label), label, AFFINE)
    return write_cases(tmp_path / "data", cases)


@pytest.mark.parametrize("pairing", ["inter", "intra", "both"])
def test_pairing_says_whose_lesions_are_pasted(root: Path, tmp_path: Path, pairing: str) -> None:
    own = [
        draw["subject"] == "a"
        for made in copies(root, tmp_path / "out", {**PLAIN, "pairing": pairing}, "a", n=8)
        for draw in made.draws
    ]
    assert len(own) == 8
    assert {"inter": not any(own), "intra": all(own), "both": any(own) and not all(own)}[pairing]


def test_unaltered_copies_are_the_donors_own_voxels_with_a_hard_edge(root: Path, tmp_path: Path) -> None:
    for made in copies(root, tmp_path / "out", {**PLAIN, "pairing": "intra"}, "b", n=3):
        (draw,) = made.draws
        taken = made.canvas.source >= 2
        assert np.array_equal(taken, (made.canvas.label == 1) & (made.host.label == 0))
        pasted = np.sort(made.canvas.raw[0][taken])
        assert set(pasted.tolist()) <= set(made.host.images[0].raw[made.host.label == 1].tolist())
        assert draw["volume_mm3"] == pytest.approx(taken.sum() * 8)


def test_a_source_with_ways_of_its_own_turns_and_bends_by_these(root: Path, tmp_path: Path) -> None:
    """As the report's methods say, which leave out what the step would have done."""
    ways = {"rotate": {"p": 0}, "scale": {"p": 0}, "elastic": {"p": 1}}
    source = {"donors": {"kind": "lesion_warp", "geometry": ways}}
    step = {"kind": "copy_paste", "geometry": {**ALIKE, "rotate": {"p": 1}}}
    draws = [draw for made in copies(root, tmp_path / "out", step, sources=source) for draw in made.draws]
    assert len(draws) > 2
    for draw in draws:
        assert draw["pose"]["elastic"] is not None
        assert draw["pose"]["rotation_deg"] == [0.0] * 3
        assert draw["pose"]["scale"] == [1.0] * 3


def test_as_many_lesions_as_drawn_and_none_twice(root: Path, tmp_path: Path) -> None:
    counts = []
    step = {**PLAIN, "lesions": [2, 4], "pairing": "inter"}
    for made in copies(root, tmp_path / "out", step, "a", n=6):
        donors = [draw["donor"]["lesion"] for draw in made.draws]
        assert len(set(donors)) == len(donors)
        counts.append(len(donors))
    assert min(counts) >= 2
    assert max(counts) <= 4
    assert len(set(counts)) > 1


def test_places_are_spread_evenly(root: Path, tmp_path: Path) -> None:
    centres = np.array(
        [
            draw["centre_vox"]
            for made in copies(root, tmp_path / "out", {**PLAIN, "lesions": [3, 3]}, "a", n=10)
            for draw in made.draws
        ]
    )
    assert (centres.min(axis=0) <= 4).all()
    assert (centres.max(axis=0) >= np.array([18, 16, 14])).all()


def test_blur_and_gamma_are_recorded_and_change_the_copy(root: Path, tmp_path: Path) -> None:
    kinds = {}
    altered = {"blur": {"p": 1, "sigma_mm": [2, 2]}, "gamma": {"p": 1, "factor": [2, 2]}}
    for name, step in (("plain", PLAIN), ("altered", {**PLAIN, **altered})):
        (made,) = copies(root, tmp_path / name, step, "a")
        kinds[name] = made
    draw = kinds["altered"].draws[0]
    assert (draw["blur_mm"], draw["gamma"]) == (2.0, 2.0)
    assert (kinds["plain"].draws[0]["blur_mm"], kinds["plain"].draws[0]["gamma"]) == (0.0, 1.0)
    spreads = [made.canvas.raw[0][made.canvas.source >= 2].std() for made in kinds.values()]
    assert spreads[1] > 1.5 * spreads[0]  # the blur reaches in from a dark surrounding


def test_gamma_keeps_mean_and_spread_and_order() -> None:
    image = np.stack([np.arange(27.0).reshape(3, 3, 3), np.full((3, 3, 3), 5.0)]).astype(np.float32)
    bent = gamma_curve(image, 2.0)
    assert bent[0].mean() == pytest.approx(13.0, abs=1e-4)
    assert bent[0].std() == pytest.approx(image[0].std(), rel=1e-5)
    assert (np.diff(bent[0].ravel()) > 0).all()
    assert np.diff(bent[0].ravel())[0] < np.diff(bent[0].ravel())[-1]
    assert np.array_equal(bent[1], image[1])
    assert np.allclose(gamma_curve(image, 1.0), image, atol=1e-4)


def test_a_host_without_lesions_takes_those_of_others(tmp_path: Path) -> None:
    label = labelled(ball((7, 7, 7), 2.2))
    cases = {"a": (image_of(0), labelled(), AFFINE), "b": (bright(image_of(1), label), label, AFFINE)}
    root = write_cases(tmp_path / "data", cases)
    (made,) = copies(root, tmp_path / "out", {**PLAIN, "pairing": "both"}, "a")
    assert [draw["case"] for draw in made.draws] == ["b"]
    with pytest.raises(NoRoomError, match="no donor"):
        list(copies(root, tmp_path / "intra", {**PLAIN, "pairing": "intra", "tries": 3}, "a"))


@pytest.mark.parametrize("pairing", ["intra", "both"])
def test_lesions_of_nobody_have_no_pairing(tmp_path: Path, pairing: str) -> None:
    """Which label a lesion has is asked of all donors: the host alone need not know."""
    label = labelled(ball((7, 7, 7), 2.2), values=(2,))
    cases = {
        "clean": (image_of(0), labelled(), AFFINE),
        "other": (bright(image_of(1), label), label, AFFINE),
    }
    root = write_cases(tmp_path / "data", cases)
    shapes = {"ell": {"kind": "ellipsoid", "contrast": [[8, 10]], "sizes": [{"radius_mm": 5}]}}
    step = {"kind": "copy_paste", "source": "ell", "pairing": pairing}
    made = list(copies(root, tmp_path / "out", step, "clean", n=4, sources=shapes))
    assert {int(v) for copy in made for v in np.unique(copy.canvas.label)} == {0, 2}


def test_an_invisible_copy_is_refused(tmp_path: Path) -> None:
    label = labelled(ball((7, 7, 7), 2.2))
    cases = {"a": (image_of(0, 600.0), labelled(), AFFINE), "b": (bright(image_of(1), label), label, AFFINE)}
    root = write_cases(tmp_path / "data", cases)
    with pytest.raises(NoRoomError, match="out of range"):
        list(copies(root, tmp_path / "out", {**PLAIN, "pairing": "inter", "tries": 5}, "a"))
    step = {**PLAIN, "pairing": "inter", "contrast": {"kind": "shell"}}
    (made,) = copies(root, tmp_path / "shell", step, "a")
    assert made.canvas.raw[0][made.canvas.source >= 2].mean() == pytest.approx(800, abs=20)


@pytest.mark.parametrize("count", [[0, 2], [3, 2], [-1, -1]])
def test_counts_start_at_one_and_are_ordered(count: list[int]) -> None:
    with pytest.raises(ValidationError, match="low"):
        CopyPaste.model_validate({"lesions": count})


def test_removed_lesions_come_back_elsewhere_and_no_others(root: Path, tmp_path: Path) -> None:
    steps = {
        "detach": {"kind": "inpaint", "share": [0.5, 0.5]},
        "attach": {**PLAIN, "pairing": "removed", "lesions": "removed", "blend": {"kind": "alpha"}},
    }
    moved = set()
    for made in copies(root, tmp_path / "out", {}, "a", n=4, steps=steps):
        out, back = made.draws
        assert out["edit"] == "remove"
        assert back["donor"] == {"lesion": f"a/{out['lesion']:04d}"}
        assert made.record["lesions"] == {"before": 2, "removed": 1, "inserted": 1, "after": 2}
        moved.add(out["lesion"])
    assert moved == {1, 2}


def test_nothing_removed_is_nothing_to_bring_back(root: Path, tmp_path: Path) -> None:
    with pytest.raises(NoRoomError, match="no step had anything to do"):
        list(copies(root, tmp_path / "out", {**PLAIN, "pairing": "removed", "lesions": "removed"}, "a"))
