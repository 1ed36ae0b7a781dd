from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from lesionsynth.domain.lesion import Site
from lesionsynth.domain.likelihood import LikelihoodMap
from lesionsynth.editing.canvas import Canvas
from lesionsynth.editing.site import SiteFinder, SiteSpec
from lesionsynth.host import LoadedCase
from lesionsynth.kernels.tissue import FLUID, OUTSIDE, WHITE
from lesionsynth.likelihood.over_host import CentreDensity

MakeHost = Callable[..., LoadedCase]
CUBE = np.ones((3, 3, 3), np.uint16)
LOWER = (-1, -1, -1)


def finder(host: LoadedCase, spec: SiteSpec, where: np.ndarray | None = None) -> SiteFinder:
    """A finder that looks at all of `where` alike."""
    if where is None:
        return SiteFinder(Canvas(host), spec, CentreDensity(host))
    likelihood = LikelihoodMap(where.astype(np.float32) / where.sum(), host.grid, "grid", ())
    return SiteFinder(Canvas(host), spec, CentreDensity(host, lambda: likelihood))


def places(found: SiteFinder, n: int = 60, site: Site | None = None) -> list[tuple[int, int, int] | None]:
    return [found.find(CUBE, LOWER, site, np.random.default_rng(k)) for k in range(n)]


def test_lesions_lie_in_tissue_to_the_share_that_is_asked(make_host: MakeHost) -> None:
    tissue = np.full((24, 24, 24), OUTSIDE, np.uint8)
    tissue[8:16] = WHITE
    host = make_host(tissue=tissue)
    whole = places(finder(host, SiteSpec(inside=1.0, clipped=0.0, candidates=500)))
    assert {c[0] for c in whole if c} == set(range(9, 15))
    loose = places(finder(host, SiteSpec(inside=0.6, clipped=0.4, candidates=500)), 200)
    assert {c[0] for c in loose if c} == set(range(8, 16))


def test_fluid_is_not_a_place(make_host: MakeHost) -> None:
    tissue = np.full((24, 24, 24), WHITE, np.uint8)
    tissue[:, :, 12:] = FLUID
    found = places(finder(make_host(tissue=tissue), SiteSpec(clipped=0.0)))
    assert max(c[2] for c in found if c) == 10


def test_a_gap_is_kept_to_other_lesions(make_host: MakeHost) -> None:
    label = np.zeros((24, 24, 24), np.uint16)
    label[12, 12, 12] = 1
    near = np.zeros(label.shape, bool)
    near[8:17, 12, 12] = True
    spec = SiteSpec(overlap="avoid", gap_vox=1, clipped=0.0, candidates=500)
    found = {c[0] for c in places(finder(make_host(label=label), spec, near), 100) if c}
    assert found == {8, 9, 15, 16}
    merged = SiteSpec(overlap="merge", clipped=0.0, candidates=500)
    assert 12 in {c[0] for c in places(finder(make_host(label=label), merged, near), 100) if c}


@pytest.mark.parametrize("gap_vox", [0, 1, 2])
def test_the_gap_is_kept_over_edges_and_corners_too(make_host: MakeHost, gap_vox: int) -> None:
    """Lesions that touch by a corner are one, for whoever counts them."""
    label = np.zeros((24, 24, 24), np.uint16)
    label[12, 12, 12] = 1
    near = np.zeros(label.shape, bool)
    near[7:18, 7:18, 7:18] = True
    spec = SiteSpec(overlap="avoid", gap_vox=gap_vox, clipped=0.0, candidates=500)
    found = [c for c in places(finder(make_host(label=label), spec, near), 300) if c]
    # The lesion that is placed is a cube of three voxels.
    assert min(max(abs(x - 12) for x in c) for c in found) == 2 + gap_vox


def test_protected_labels_are_not_a_place(make_host: MakeHost) -> None:
    label = np.zeros((24, 24, 24), np.uint16)
    label[:12] = 3
    found = places(finder(make_host(label=label), SiteSpec(clipped=0.0)))
    assert min(c[0] for c in found if c) == 13


def test_the_donors_class_of_place_is_kept(make_host: MakeHost) -> None:
    tissue = np.full((24, 24, 24), OUTSIDE, np.uint8)
    tissue[2:22, 2:22, 2:22] = WHITE
    host = make_host(tissue=tissue)
    found = finder(host, SiteSpec(candidates=500))
    depth = [min(min(c) - 1, 22 - max(c)) for c in places(found, 100, Site("inside", 9.0, None)) if c]
    assert min(depth) == 5  # nearest voxel of the cube is more than 3 mm from the outside
    depth = [min(min(c) - 1, 22 - max(c)) for c in places(found, 100, Site("edge", 1.0, None)) if c]
    assert max(depth) == 4


def test_places_are_compared_only_where_tissues_are_told_apart_alike(make_host: MakeHost) -> None:
    """One case of a cohort may have another kind of tissue: its lesions, and as a host, fitted nowhere."""
    simple = make_host(tissue=np.full((24, 24, 24), WHITE, np.uint8))
    told_apart = replace(simple)
    vars(told_apart)["tissue_kind"] = "mixture"
    assert (simple.has_tissue_classes, told_apart.has_tissue_classes) == (False, True)
    for host, place in (
        (told_apart, "edge"),
        (told_apart, "inside"),
        (simple, "deep"),
        (simple, "juxtacortical"),
    ):
        found = places(finder(host, SiteSpec(candidates=64)), n=5, site=Site(place, 3.0, None))
        assert all(found), place


def test_no_place_is_none_and_never_the_next_best(make_host: MakeHost) -> None:
    tissue = np.full((24, 24, 24), OUTSIDE, np.uint8)
    tissue[10:12, 10:12, 10:12] = WHITE
    assert set(places(finder(make_host(tissue=tissue), SiteSpec(candidates=500)), 5)) == {None}


@pytest.mark.parametrize("candidates", [1, 5, 300])
def test_the_likelihood_decides(make_host: MakeHost, candidates: int) -> None:
    one = np.zeros((24, 24, 24), bool)
    one[7, 8, 9] = True
    found = places(finder(make_host(), SiteSpec(candidates=candidates), one), 3)
    assert set(found) == {(7, 8, 9)}
