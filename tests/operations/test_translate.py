"""The whole image painted anew by a small trained translation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import ndimage

from lesionsynth.bank.store import LesionBank
from lesionsynth.domain.grid import bounding_box, grown
from lesionsynth.editing.canvas import TRANSLATED, Canvas, inserted
from lesionsynth.editing.insertion import surroundings
from lesionsynth.errors import InputError, RecipeError
from lesionsynth.generative.translation_models import open_translation
from lesionsynth.host import LoadedCase, load_case
from lesionsynth.kernels.tissue import GREY, WHITE
from lesionsynth.likelihood.over_host import CentreDensity
from lesionsynth.operations.translate import Translate
from lesionsynth.plugins.contracts import Donors, ModelUse, StepContext, StepReport
from lesionsynth.plugins.registry import create
from lesionsynth.qc.audit import audit
from lesionsynth.qc.report.gather import gather
from lesionsynth.qc.report.methods import Run, methods_of
from lesionsynth.recipe.load import load_recipe
from lesionsynth.recipe.model import InputSpec
from lesionsynth.rng import stream
from lesionsynth.run import session
from lesionsynth.run.cohort import open_cohort
from lesionsynth.run.pool import Engine
from lesionsynth.run.prepare import read_prepared
from lesionsynth.tissue import TissueSpec
from tests.test_invariants import Silent

LESION = (slice(9, 13), slice(12, 16), slice(12, 16))
"""Where a lesion is put in, in white matter."""


@pytest.fixture(scope="module")
def path(translations: Callable[[str], Path]) -> Path:
    return translations("pix2pix") / "all.safetensors"


@pytest.fixture(scope="module")
def host(masks_of_phantoms: Path) -> LoadedCase:
    _, cohort, _ = open_cohort(InputSpec(), masks_of_phantoms)
    return load_case(cohort.case("case4"), cohort, TissueSpec())


@pytest.fixture(scope="module")
def donors(path: Path) -> Iterator[Donors]:
    with LesionBank(path.parent / "bank") as bank:
        yield Donors(bank, ("case1", "case2", "case3"), models={"m": path})


def with_lesion(host: LoadedCase) -> Canvas:
    """A canvas of the host with one more lesion, as dark as it is bright in truth."""
    canvas = Canvas(host)
    mask = np.ones([s.stop - s.start for s in LESION], dtype=bool)
    canvas.insert(LESION, 0.5 * canvas.values(LESION), mask, mask.astype(np.uint16))
    return canvas


def painted(
    host: LoadedCase, donors: Donors, canvas: Canvas | None = None, **fields: Any
) -> tuple[Canvas, StepReport]:
    canvas = with_lesion(host) if canvas is None else canvas
    context = StepContext(
        step="paint",
        target=None,
        streams=partial(stream, 1, host.files.case, 0, "paint"),
        sources={},
        donors=donors,
        centres=CentreDensity(host),
        typical_count=5,
    )
    return canvas, Translate(**{"model": "m", **fields}).apply(canvas, context)


def test_all_tissue_is_what_the_network_makes_of_the_map(
    host: LoadedCase, donors: Donors, path: Path
) -> None:
    canvas, report = painted(host, donors, blend=create("blends", "hard"), min_contrast=0, noise=0)
    model = open_translation(path)
    classes = model.semantics.with_lesions(model.semantics.tissue_of(host), canvas.label)
    box = bounding_box(classes > 0)
    assert box is not None
    box = grown(box, (1, 1, 1), host.grid.shape)
    expected = np.zeros((2, *host.grid.shape), dtype=np.float32)
    expected[(slice(None), *box)] = model.translated(host, classes, box)
    deep = ndimage.binary_erosion(classes > 0)
    for raw, image, units, (level, spread) in zip(
        canvas.raw, host.images, expected, host.tissue_stats, strict=True
    ):
        known = image.values()[classes > 0]
        made = np.clip(level + spread * units, known.min(), known.max())
        np.testing.assert_allclose(raw[deep], np.rint(made[deep]), atol=1)
        assert np.array_equal(raw[classes == 0], image.raw[classes == 0])
        assert (raw[deep] != image.raw[deep]).mean() > 0.9
    (draw,) = report.draws
    assert draw["volume_mm3"] == pytest.approx((classes > 0).sum() * host.grid.voxel_volume_mm3, rel=0.2)


def test_lesions_stay_where_they_are_and_are_painted_as_lesions(host: LoadedCase, donors: Donors) -> None:
    before = with_lesion(host)
    canvas, report = painted(host, donors)
    assert np.array_equal(canvas.label, before.label)
    assert np.array_equal(canvas.instances, before.instances)
    assert canvas.load_ml == before.load_ml
    added = inserted(before.source)
    assert np.array_equal(canvas.source[added], before.source[added])
    assert set(np.unique(canvas.source[~added])) == {0, TRANSLATED}
    around = ndimage.binary_dilation(added, iterations=2) & ~added & host.clean_tissue
    # It was half as bright as its tissue in the canvas; on FLAIR lesions are bright.
    assert before.raw[0][added].mean() < before.raw[0][around].mean()
    assert canvas.raw[0][added].mean() > canvas.raw[0][around].mean() + host.tissue_stats[0][1]
    (draw,) = report.draws
    assert draw["visible"].keys() == {str(number) for number in canvas.boxes}


def test_the_outer_edge_fades_into_the_host(host: LoadedCase, donors: Donors) -> None:
    hard, _ = painted(host, donors, blend=create("blends", "hard"), min_contrast=0, noise=0)
    soft, _ = painted(host, donors, min_contrast=0, noise=0)
    tissue = (host.tissue > 0) & (host.label == 0)
    edge = tissue & ~ndimage.binary_erosion(tissue)
    inside = ndimage.binary_erosion(tissue, iterations=4)
    change = {
        name: np.abs(canvas.raw[0].astype(float) - host.images[0].raw)
        for name, canvas in (("hard", hard), ("soft", soft))
    }
    assert change["soft"][edge].mean() < 0.7 * change["hard"][edge].mean()
    np.testing.assert_allclose(change["soft"][inside], change["hard"][inside], atol=1)


def test_noise_is_as_strong_as_in_the_hosts_tissue(host: LoadedCase, donors: Donors) -> None:
    smooth, noisy, strong = (painted(host, donors, noise=n, min_contrast=0)[0].raw[0] for n in (0, 1, 2))
    inside = ndimage.binary_erosion(host.clean_away(2), iterations=1)
    added = (noisy.astype(float) - smooth)[inside]
    step = np.diff(host.images[0].values(), axis=0)[host.clean_away(2)[1:] & host.clean_away(2)[:-1]]
    assert added.mean() == pytest.approx(0, abs=0.3 * added.std())
    assert 0.5 < added.std() / (step.std() / np.sqrt(2)) < 1.5
    assert (strong.astype(float) - smooth)[inside].std() == pytest.approx(2 * added.std(), rel=0.1)


def test_a_lesion_that_would_be_too_pale_keeps_its_look(host: LoadedCase, donors: Donors) -> None:
    before = with_lesion(host)
    canvas, report = painted(host, donors, min_contrast=1000)
    (draw,) = report.draws
    assert draw["spared"]
    assert report.rejected == {"visibility out of range": len(draw["spared"])}
    kept = np.isin(canvas.instances, draw["spared"])
    other = (canvas.instances > 0) & ~kept
    for raw, former in zip(canvas.raw, before.raw, strict=True):
        assert np.array_equal(raw[kept], former[kept])
        if other.any():
            assert (raw[other] != former[other]).any()
    near = ndimage.binary_dilation(kept) & (canvas.instances == 0)
    far = host.clean_tissue & ~ndimage.binary_dilation(kept, iterations=3)
    assert np.array_equal(canvas.raw[0][near], before.raw[0][near])
    whole, _ = painted(host, donors, min_contrast=0)
    change, most = (
        np.abs(painting.raw[0][far].astype(float) - before.raw[0][far]) for painting in (canvas, whole)
    )
    assert (change <= most + 1).all()  # what is kept fades into what is painted
    assert change.mean() > 0.3 * most.mean() > 1


def test_contrasts_are_those_of_the_canvas_as_it_is_left(host: LoadedCase, donors: Donors) -> None:
    for least in (0, 3, 1000):
        canvas, report = painted(host, donors, min_contrast=least)
        (draw,) = report.draws
        assert draw["contrast"].keys() == draw["visible"].keys() == {str(n) for n in canvas.boxes}
        spreads = [spread for _, spread in host.tissue_stats]
        for number, contrast in draw["contrast"].items():
            box = canvas.boxes[int(number)]
            mask = canvas.instances[box] == int(number)
            levels, _ = surroundings(canvas, box, mask)
            left = canvas.values(box)[:, mask].mean(axis=1) - levels
            np.testing.assert_allclose(contrast, left, atol=1)  # voxels are whole numbers
            seen = max(abs(c) / s for c, s in zip(contrast, spreads, strict=True))
            assert draw["visible"][number] == pytest.approx(seen, abs=1e-3)
            if int(number) not in draw["spared"]:
                assert seen >= least or seen > 0


def test_a_lesion_where_the_map_knows_no_tissue_keeps_its_look(host: LoadedCase, donors: Donors) -> None:
    canvas = with_lesion(host)
    number = max(canvas.boxes)
    tissue = host.tissue.copy()
    tissue[LESION] = 0
    before = canvas.values(LESION)
    _, report = painted(replace(host, tissue=tissue), replace(donors, cache={}), canvas=None, min_contrast=0)
    assert report.draws[0]["spared"] == [number]
    assert report.rejected == {"outside the tissue of the map": 1}
    changed, _ = painted(replace(host, tissue=tissue), replace(donors, cache={}), min_contrast=0)
    assert np.array_equal(changed.values(LESION), before)


def test_what_a_blend_leaves_alone_is_the_hosts(host: LoadedCase, donors: Donors) -> None:
    blend = create("blends", "soft_poisson")
    canvas, report = painted(host, donors, blend=blend, min_contrast=0)
    claimed = canvas.source == TRANSLATED
    differs = np.any([r != i.raw for r, i in zip(canvas.raw, host.images, strict=True)], axis=0)
    assert not (differs & (canvas.source == 0)).any()
    # Rounded to whole numbers some are the host's again.
    assert differs[claimed].mean() > 0.8
    for raw, image in zip(canvas.raw, host.images, strict=True):
        tissue = image.values()[(host.tissue > 0) | (host.label > 0)]
        assert tissue.min() - 1 <= raw[claimed].min()
        assert raw[claimed].max() <= tissue.max() + 1
    assert report.draws[0]["noise"] == 1


def test_noise_that_nothing_is_known_of_is_recorded_as_none(host: LoadedCase, donors: Donors) -> None:
    grey = np.where(host.tissue == WHITE, GREY, host.tissue).astype(np.uint8)
    _, report = painted(replace(host, tissue=grey), replace(donors, cache={}))
    assert report.draws[0]["noise"] == 0


def test_poisson_is_refused() -> None:
    with pytest.raises(ValidationError, match="cannot be poisson"):
        Translate(model="m", blend=create("blends", "poisson"))


def test_a_channel_without_spread_is_left_alone(host: LoadedCase, donors: Donors) -> None:
    """As thresholded perfusion: most of the tissue is 0, and networks see nothing of it."""
    level, spread = host.tissue_stats[0]
    flat = replace(host)
    vars(flat)["tissue_stats"] = [(level, spread), (host.tissue_stats[1][0], 0.0)]
    canvas, _ = painted(flat, donors)
    assert (canvas.raw[0] != with_lesion(flat).raw[0]).any()
    assert np.array_equal(canvas.raw[1], with_lesion(flat).raw[1])


def test_protected_and_missing_voxels_stay(host: LoadedCase, donors: Donors) -> None:
    missing = np.zeros(host.grid.shape, dtype=bool)
    missing[10:12, 5:8, 10:14] = True
    missing &= host.label == 0
    canvas, _ = painted(replace(host, missing=missing), donors)
    assert np.array_equal(canvas.raw[0][missing], host.images[0].raw[missing])
    assert not canvas.source[missing].any()


def test_it_needs_a_model_of_this_data(host: LoadedCase, donors: Donors) -> None:
    assert Translate(model="m").models_used() == {"m": ModelUse(("translation",), images=True)}
    with pytest.raises(InputError, match="no trained model is named") as caught:
        painted(host, replace(donors, models={}), model="")
    assert "lesionsynth train translation" in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("steps", "match"),
    [
        ({"paint": {"kind": "translate"}}, "none adds or removes lesions.*paint has to follow"),
        (
            {"paint": {"kind": "translate"}, "add": {"kind": "populate"}},
            r"steps\.paint has to come after steps\.add",
        ),
    ],
)
def test_it_follows_the_steps_that_edit_lesions(steps: dict[str, Any], match: str, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(json.dumps({"version": 1, "steps": steps}))
    with pytest.raises(RecipeError, match=match):
        load_recipe(str(recipe))


def test_a_run_records_its_weights_and_passes_the_audit(
    path: Path, masks_of_phantoms: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(
        "translation_image",
        [f"steps.paint.model={path}", "folds.strategy=none", "output.copies=1", "output.source_map=true"],
    )
    outcome = session.run(recipe, masks_of_phantoms, tmp_path / "out", Silent())
    assert not outcome.failures
    assert not audit(tmp_path / "out", masks_of_phantoms, Engine(), Silent(), replay=True).findings
    records = [json.loads(file.read_text()) for file in sorted((tmp_path / "out" / "records").iterdir())]
    assert len(records) == 4
    for record in records:
        assert record["weights"][0]["subjects"] == ["case1", "case2", "case3", "case4"]
        assert [draw["edit"] for draw in record["steps"][-1]["draws"]] == ["translate"]
        assert len(record["steps"][0]["draws"]) == sum(record["lesions"][k] for k in ("removed", "inserted"))
    facts = gather(tmp_path / "out", read_prepared(tmp_path / "out"))
    # The report tells of the lesions as they were painted, not as they were put in.
    with LesionBank(tmp_path / "out" / "bank") as bank:
        spreads = {case.case: case.tissue_stats[0][1] for case in bank.cases()}
    expected = [
        draw["contrast"][number][0] / spreads[record["host"]["case"]]
        for record in records
        for draw in record["steps"][-1]["draws"]
        for number in draw["contrast"]
        if int(number) > record["lesions"]["before"]
    ]
    np.testing.assert_allclose(sorted(facts.added.contrast[0]), sorted(expected))
    told = methods_of(Run(recipe, 4, 4, 4, ["mixture"], False)).sentences
    assert any("painted anew by a network" in sentence for sentence in told)


def test_the_model_is_found_before_the_run(masks_of_phantoms: Path, tmp_path: Path) -> None:
    recipe = load_recipe("translation_image", ["steps.paint.model=nowhere", "folds.strategy=none"])
    with pytest.raises(InputError, match=r"the model of steps\.paint is not there") as caught:
        session.run(recipe, masks_of_phantoms, tmp_path / "out", Silent())
    assert "--set steps.paint.model=FOLDER" in str(caught.value.remedy)
    assert not (tmp_path / "out").exists()
