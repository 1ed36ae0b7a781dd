"""Numbers of the report, against the files of the output."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from lesionsynth.bank.store import LesionBank
from lesionsynth.qc.report.gather import Copy, gather, shown_first, worked_minutes
from lesionsynth.recipe.load import load_recipe
from lesionsynth.run import session
from lesionsynth.run.prepare import read_prepared
from tests.test_invariants import Silent

VOXEL_ML = 0.064


def records(output: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted((output / "records").glob("*.json"))]


def label(output: Path, case: str) -> np.ndarray:
    return np.asanyarray(nib.load(output / "labelsTr" / f"{case}.nii.gz").dataobj) == 1


@pytest.fixture
def facts(finished: Path):  # type: ignore[no-untyped-def]
    return gather(finished, read_prepared(finished))


def test_loads_and_counts_are_those_of_the_label_maps(finished: Path, facts) -> None:  # type: ignore[no-untyped-def]
    assert (facts.planned, len(facts.copies), facts.originals, facts.subjects) == (8, 8, 4, 4)
    for copy in facts.copies:
        mask = label(finished, copy.case)
        assert copy.after_ml == pytest.approx(mask.sum() * VOXEL_ML, abs=1e-3)
        assert copy.after == _count(mask)
        assert copy.before_ml == pytest.approx(label(finished, copy.host).sum() * VOXEL_ML, abs=1e-3)
    real = [
        (label(finished, f"case{k}").sum() * VOXEL_ML, _count(label(finished, f"case{k}")))
        for k in (1, 2, 3, 4)
    ]
    assert [n for _, n in facts.real_loads] == [n for _, n in real]
    assert [ml for ml, _ in facts.real_loads] == pytest.approx([ml for ml, _ in real])


def _count(mask: np.ndarray) -> int:
    return int(ndimage.label(mask, np.ones((3, 3, 3)))[1])


def test_added_lesions_make_up_what_was_added(finished: Path, facts) -> None:  # type: ignore[no-untyped-def]
    added_ml = sum(copy.after_ml - copy.before_ml for copy in facts.copies)
    assert sum(facts.added.volume_mm3) / 1000 == pytest.approx(added_ml, rel=1e-6)
    assert len(facts.added.volume_mm3) == sum(copy.inserted for copy in facts.copies) > 10
    assert sum(copy.removed for copy in facts.copies) == 0
    assert facts.looked_at == (4, 8)


def test_of_many_cases_those_are_counted_whose_lesions_were_looked_at(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "part"
    shutil.copytree(finished, output)
    prepared = read_prepared(output)
    (output / "records" / f"{prepared.jobs[0].case}.json").unlink()
    monkeypatch.setattr("lesionsynth.qc.report.gather.MOST_LESION_CASES", 4)
    part = gather(output, prepared)
    shown = {job.case for job in prepared.jobs[2::2]}
    assert part.looked_at == (4, len(shown)) == (4, 3)
    assert len(part.added.volume_mm3) == sum(c.inserted for c in part.copies if c.case in shown)


def test_contrasts_are_in_spreads_of_the_hosts_tissue(finished: Path, facts) -> None:  # type: ignore[no-untyped-def]
    expected: list[list[float]] = [[], []]
    with LesionBank(finished / "bank") as bank:
        for record in records(finished):
            spreads = [spread for _, spread in bank.case(record["host"]["case"]).tissue_stats]
            for draw in record["steps"][0]["draws"]:
                for channel, spread in enumerate(spreads):
                    expected[channel].append(draw["measures"]["contrast_achieved"][channel] / spread)
    assert facts.added.contrast == expected
    # Bright on FLAIR and dark on T1, as the real ones.
    for real, added, sign in zip(facts.real.contrast, facts.added.contrast, (1, -1), strict=True):
        assert sign * np.median(real) > 0.5
        assert sign * np.median(added) > 0.5


def test_positions_are_where_the_lesions_are(finished: Path, facts) -> None:  # type: ignore[no-untyped-def]
    at = np.array(facts.added.position)
    assert at.shape == (len(facts.added.volume_mm3), 3)
    assert ((at > 0) & (at < 1)).all()
    record, image = records(finished)[0], nib.load(finished / "labelsTr/case1.nii.gz")
    centre = np.array(record["steps"][0]["draws"][0]["centre_vox"])
    with LesionBank(finished / "bank") as bank:
        box = bank.case("case1").tissue_box
    assert box is not None
    share = [(c + 0.5 - b.start) / (b.stop - b.start) for c, b in zip(centre, box, strict=True)]
    for axis, code in enumerate(nib.aff2axcodes(image.affine)):
        world = "LRPAIS".index(code) // 2
        assert at[0, world] == pytest.approx(share[axis] if code in "RAS" else 1 - share[axis])


def test_refusals_are_counted_by_step_and_reason(finished: Path, facts) -> None:  # type: ignore[no-untyped-def]
    expected: Counter[tuple[str, str]] = Counter()
    for record in records(finished):
        for why, count in record["steps"][0]["rejected"].items():
            expected["add", why] += count
    assert facts.refused == expected
    assert sum(copy.refused for copy in facts.copies) == sum(expected.values())


def test_disk_is_what_the_files_take(finished: Path, facts) -> None:  # type: ignore[no-untyped-def]
    total = sum(path.stat().st_size for path in finished.rglob("*") if path.is_file())
    total -= (finished / "report.html").stat().st_size
    assert sum(facts.bytes.values()) == total
    images = sum(path.stat().st_size for path in (finished / "imagesTr").iterdir())
    assert facts.bytes["imagesTr"] == images


def test_time_is_that_between_files_without_pauses() -> None:
    assert worked_minutes([100, 160, 40, 220]) == 3
    assert worked_minutes([0, 60, 60 + 7200, 120 + 7200]) == 2  # continued two hours later
    assert worked_minutes([100.0, 100.01, 100.02]) is None  # copied
    assert worked_minutes([100]) is None


def test_masks_alone_count_in_loads_and_volumes(make_nnunet, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    root = make_nnunet(4)
    (root / "masks").mkdir()
    (root / "labelsTr/case4.nii.gz").rename(root / "masks/case4.nii.gz")
    for path in root.glob("imagesTr/case4_*"):
        path.unlink()
    recipe = load_recipe("lesionmix", ["input.masks.path=masks/{subject}.nii.gz", "folds.strategy=none"])
    session.plan(recipe, root, tmp_path / "out", Silent())
    facts = gather(tmp_path / "out", read_prepared(tmp_path / "out"))
    mask = np.asanyarray(nib.load(root / "masks/case4.nii.gz").dataobj) == 1
    assert (facts.originals, facts.masks, len(facts.real_loads)) == (3, 1, 4)
    assert any(n == _count(mask) and ml == pytest.approx(mask.sum() * VOXEL_ML) for ml, n in facts.real_loads)
    assert len(facts.real.volume_mm3) > len(facts.real.position) == len(facts.real.contrast[0])


def copy_of(number: int, **more: object) -> Copy:
    values: dict = {
        "case": f"c{number:02d}",
        "host": "c",
        "before_ml": 1.0,
        "target_ml": 1.0,
        "after_ml": 1.0,
        "shortfall": False,
        "inserted": 1,
        "removed": 0,
        "after": 1,
        "refused": 0,
        "least_contrast_kept": 1.0,
        "clipped_vox": 0,
        "warnings": (),
    }
    return Copy(**(values | more))


def test_what_stands_out_is_shown_first_and_the_rest_is_spread() -> None:
    copies = [copy_of(n) for n in range(32)]
    copies[9] = copy_of(9, warnings=("x",))
    copies[20] = copy_of(20, shortfall=True)
    copies[21] = copy_of(21, clipped_vox=3)
    copies[5] = copy_of(5, least_contrast_kept=0.4)
    copies[30] = copy_of(30, after_ml=9.0)
    shown = shown_first(copies)
    assert sorted(copy.case for copy, _ in shown) == [copy.case for copy in copies]
    assert [copy.case for copy, why in shown if why] == ["c09", "c20", "c21", "c05", "c30"]
    others = sorted(int(copy.case[1:]) for copy, why in shown[5:9])
    gaps = np.diff([*others, 32])
    assert gaps.max() <= 12, others
    assert shown_first([]) == []
