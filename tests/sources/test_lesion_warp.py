from __future__ import annotations

import numpy as np

from lesionsynth.bank.store import LesionBank
from lesionsynth.domain.grid import Grid
from lesionsynth.editing.geometry import draw_geometry, warp_of
from lesionsynth.kernels.deform import warp_label
from lesionsynth.plugins.contracts import Donors, Wanted
from lesionsynth.sources.lesion_bank import LesionBankSource
from lesionsynth.sources.lesion_warp import LesionWarp


def test_the_lesion_is_the_banks_own_and_is_chosen_as_there(cubes: LesionBank) -> None:
    donors, wanted = Donors(cubes, ("A", "B")), Wanted(0, 1e9, "A", "a")
    for seed in range(10):
        one, other = (
            s.draw(np.random.default_rng(seed), donors, wanted) for s in (LesionWarp(), LesionBankSource())
        )
        assert one == other
        assert one is not None
        np.testing.assert_array_equal(LesionWarp().lesion(one, donors).image, cubes.read(one["lesion"]).image)


def test_it_brings_a_strong_bending_that_keeps_the_lesion_in_one_volume(cubes: LesionBank) -> None:
    source, lesion = LesionWarp(), cubes.read("b/0002")
    grid = Grid((40, 40, 40), np.eye(4))
    plain = warp_label(lesion.label, warp_of(lesion, {**_still(), "elastic": None}, grid, 0.0))
    for seed in range(5):
        pose = draw_geometry(source.own_geometry, lesion, np.random.default_rng(seed), grid)
        assert pose["elastic"] is not None
        assert np.std(pose["elastic"]["control_mm"]) > 1.0
        bent = warp_label(lesion.label, warp_of(lesion, {**_still(), "elastic": pose["elastic"]}, grid, 0.0))
        assert 0.5 < np.count_nonzero(bent) / np.count_nonzero(plain) < 2.0
        assert bent.shape != plain.shape or (bent != plain).any()


def test_on_a_few_slices_lesions_stay_in_their_plane(cubes: LesionBank) -> None:
    """Turned out of it, a strip would be left where a disc was."""
    lesion = cubes.read("b/0002")
    spec = LesionWarp.model_validate(
        {"geometry": {"rotate": {"p": 1}, "scale": {"p": 1}, "elastic": {"p": 1}}}
    ).own_geometry
    turned = np.array([[0, 0, 5.0, 0], [1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 0, 1]])
    for affine, across in ((np.diag([1.0, 1.0, 5.0, 1.0]), 2), (turned, 0)):
        flat, deep = Grid((40, 40, 2), affine), Grid((40, 40, 20), affine)
        pose, free = (draw_geometry(spec, lesion, np.random.default_rng(3), grid) for grid in (flat, deep))
        for axis in range(3):
            own = axis == across
            assert pose["rotation_deg"][axis] == (free["rotation_deg"][axis] if own else 0.0)
            assert pose["scale"][axis] == (1.0 if own else free["scale"][axis])
            bend, usual = (np.array(p["elastic"]["control_mm"])[axis] for p in (pose, free))
            assert (bend == (0.0 if own else usual)).all()
        assert all(free["rotation_deg"])


def test_the_geometry_can_be_set() -> None:
    source = LesionWarp.model_validate({"geometry": {"flip": 0, "elastic": {"p": 0.25}}})
    assert source.own_geometry.elastic.p == 0.25
    assert source.own_geometry.rotate.p == 0.5  # what is not given is the step's default


def _still() -> dict[str, object]:
    return {"flips": [False] * 3, "rotation_deg": [0.0] * 3, "scale": [1.0] * 3, "fit": 1.0}
