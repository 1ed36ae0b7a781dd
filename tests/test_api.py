"""Synthesis inside a training makes what a run writes."""

from __future__ import annotations

import copy
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose, RandFlipd, ToTensord
from torch.utils.data import DataLoader

from lesionsynth.api import Sample, Synthesis, Synthesised, SyntheticDataset
from lesionsynth.editing.canvas import Canvas
from lesionsynth.errors import InputError, OutputError
from lesionsynth.recipe.load import load_recipe
from lesionsynth.run import session
from tests.conftest import write_phantoms
from tests.pages import DOCS, ROOT
from tests.test_invariants import Silent

FEW = ["steps.add.load=[2, 8]"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, phantoms) -> Path:
    return write_phantoms(tmp_path_factory.mktemp("api") / "data", phantoms[:4])


@pytest.fixture(scope="module")
def synthesis(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Synthesis:
    return Synthesis("lesionmix", root, tmp_path_factory.mktemp("api") / "work", overrides=FEW)


def same(one: Sample, other: Sample) -> bool:
    return (
        one.case == other.case
        and np.array_equal(one.image, other.image)
        and np.array_equal(one.label, other.label)
        and one.draws == other.draws
    )


def test_a_copy_is_voxel_for_voxel_the_one_that_a_run_writes(
    synthesis: Synthesis, root: Path, tmp_path: Path
) -> None:
    recipe = load_recipe("lesionmix", [*FEW, "output.copies=2", "folds.strategy=none"])
    assert not session.run(recipe, root, tmp_path / "out", Silent()).failures
    assert synthesis.hosts == ("case1", "case2", "case3", "case4")
    assert synthesis.channels == ("FLAIR", "T1")
    for host in synthesis.hosts:
        for number in (1, 0):
            sample = synthesis.copy(host, number)
            assert (sample.case, sample.host, sample.synthetic) == (f"{host}__syn00{number}", host, True)
            label = nib.load(tmp_path / "out" / "labelsTr" / f"{sample.case}.nii.gz")
            assert np.array_equal(np.asarray(label.dataobj), sample.label)
            assert np.array_equal(label.affine, sample.affine)
            for channel in (0, 1):
                path = tmp_path / "out" / "imagesTr" / f"{sample.case}_{channel:04d}.nii.gz"
                assert np.array_equal(np.asarray(nib.load(path).dataobj), sample.image[channel])


@pytest.mark.parametrize("name", ["lesionmix", "soft_poisson", "carve_mix", "lesion_warp", "intensity_bump"])
def test_in_which_units_a_case_is_does_not_matter(name: str, phantoms, tmp_path: Path) -> None:
    """MR intensities are in any units: with one case in an eighth of them, all else is the same."""
    samples = []
    for folder, factor in (("one", 1.0), ("other", 0.125)):
        root = write_phantoms(tmp_path / folder / "data", phantoms[:3])
        for path in sorted(root.glob("imagesTr/*.nii.gz")):
            image = nib.load(path)
            values = np.asarray(image.dataobj, dtype=np.float32)
            scale = np.float32(factor if path.name.startswith("case2") else 1.0)
            nib.save(nib.Nifti1Image(values * scale, image.affine), path)
        made = Synthesis(name, root, tmp_path / folder / "work")
        samples.append([made.copy(host, number) for host in made.hosts for number in (0, 1)])
    assert any(draw["edit"] == "insert" for sample in samples[0] for draw in sample.draws)
    for one, other in zip(*samples, strict=True):
        scale = 8.0 if one.host == "case2" else 1.0
        assert np.array_equal(one.label, other.label)
        np.testing.assert_allclose(other.image * scale, one.image, rtol=1e-5, atol=1e-3)


def test_an_original_is_the_file_as_it_is(synthesis: Synthesis, root: Path) -> None:
    sample = synthesis.original("case2")
    assert (sample.case, sample.synthetic) == ("case2", False)
    for channel in (0, 1):
        stored = nib.load(root / "imagesTr" / f"case2_{channel:04d}.nii.gz")
        assert np.array_equal(np.asarray(stored.dataobj), sample.image[channel])


def test_what_was_given_out_does_not_change_with_the_next_copy(synthesis: Synthesis) -> None:
    first = synthesis.copy("case1", 0)
    kept = first.image.copy(), first.label.copy()
    synthesis.copy("case1", 1)
    assert np.array_equal(first.image, kept[0])
    assert np.array_equal(first.label, kept[1])


def test_order_memory_and_process_do_not_matter(synthesis: Synthesis, root: Path, tmp_path: Path) -> None:
    wanted = [("case1", 3), ("case2", 0), ("case1", 0), ("case3", 1), ("case1", 3)]
    first = [synthesis.copy(*one) for one in wanted]
    assert same(first[0], first[-1])
    forgetful = Synthesis("lesionmix", root, tmp_path / "w", overrides=FEW, hosts_in_memory=1)
    for sample, one in reversed(list(zip(first, wanted, strict=True))):
        assert same(sample, forgetful.copy(*one))
    again = pickle.loads(pickle.dumps(synthesis))
    assert same(again.copy("case1", 3), first[0])
    with ProcessPoolExecutor(1) as pool:
        assert same(pool.submit(synthesis.copy, "case1", 3).result(), first[0])


def test_only_the_subjects_that_are_named_take_part(root: Path, tmp_path: Path) -> None:
    synthesis = Synthesis("lesionmix", root, tmp_path / "w", overrides=FEW, subjects=["case1", "case3"])
    assert synthesis.hosts == ("case1", "case3")
    draws = [draw for n in range(4) for host in synthesis.hosts for draw in synthesis.copy(host, n).draws]
    donors = {draw["subject"] for draw in draws if draw["edit"] == "insert"}
    assert donors <= {"case1", "case3"}
    with pytest.raises(InputError, match="no host case2; there are case1, case3"):
        synthesis.copy("case2", 0)


def test_a_folder_is_for_one_recipe_and_its_subjects(root: Path, tmp_path: Path) -> None:
    """Else the first would go on with the donors of the second."""
    first = Synthesis("lesionmix", root, tmp_path / "w", overrides=FEW, subjects=["case1", "case2"])
    with pytest.raises(OutputError, match=r"another recipe: input\.subjects"):
        Synthesis("lesionmix", root, tmp_path / "w", overrides=FEW, subjects=["case3", "case4"])
    again = Synthesis("lesionmix", root, tmp_path / "w", overrides=FEW, subjects=["case1", "case2"])
    assert same(first.copy("case1", 0), again.copy("case1", 0))


def test_a_case_that_cannot_be_edited_is_given_as_it_is(root: Path, tmp_path: Path) -> None:
    impossible = ["steps.add.check.min_contrast=900", "steps.add.surplus=keep", "steps.add.replace=0"]
    synthesis = Synthesis("lesionmix", root, tmp_path / "w", overrides=[*FEW, *impossible])
    sample = synthesis.copy("case1", 0)
    assert (sample.case, sample.synthetic) == ("case1", False)
    assert same(sample, synthesis.original("case1"))


def as_arrays(batch: dict) -> tuple[list[str], torch.Tensor, torch.Tensor]:
    return batch["case"], batch["image"], batch["label"]


def of_both(item: dict) -> dict:
    """What a collate function can put together."""
    return {key: item[key] for key in ("case", "image", "label")}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_the_copies_of_the_epoch_whatever_the_workers(
    synthesis: Synthesis, workers: int
) -> None:
    dataset = SyntheticDataset(synthesis, of_both)
    assert len(dataset) == 4
    loader = DataLoader(dataset, batch_size=2, num_workers=workers, persistent_workers=workers > 0)
    for epoch in (0, 2, 0):
        dataset.set_epoch(epoch)
        found = [as_arrays(batch) for batch in loader]
        names = [name for names, *_ in found for name in names]
        assert names == [f"{host}__syn00{epoch}" for host in synthesis.hosts]
        images, labels = (torch.cat([part[k] for part in found]) for k in (1, 2))
        for number, host in enumerate(synthesis.hosts):
            expected = synthesis.copy(host, epoch)
            assert np.array_equal(images[number].numpy(), expected.image)
            assert np.array_equal(labels[number, 0].numpy(), expected.label)
    del loader


@pytest.mark.parametrize("context", ["spawn", "forkserver"])
def test_workers_that_inherit_nothing_follow_the_epoch_too(synthesis: Synthesis, context: str) -> None:
    dataset = SyntheticDataset(synthesis, of_both)
    loader = DataLoader(
        dataset, batch_size=4, num_workers=1, persistent_workers=True, multiprocessing_context=context
    )
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        (batch,) = loader
        assert batch["case"] == [f"{host}__syn00{epoch}" for host in synthesis.hosts]
    del loader


def test_a_deep_copy_has_an_epoch_of_its_own(synthesis: Synthesis) -> None:
    for one in (SyntheticDataset(synthesis), Compose([Synthesised(synthesis)]).transforms[0]):
        one.set_epoch(3)
        other = copy.deepcopy(one)
        assert other.epoch == 3
        other.set_epoch(5)
        assert (one.epoch, other.epoch) == (3, 5)


def test_what_is_given_out_is_the_callers_alone(synthesis: Synthesis) -> None:
    for give in (lambda: synthesis.original("case1"), lambda: synthesis.copy("case1", 0)):
        sample, kept = give(), give()
        for array in (sample.image, sample.label, sample.affine):
            array[:] = 0
        again = give()
        assert same(again, kept)
        assert np.array_equal(again.affine, kept.affine)
        assert again.affine.any()


def test_a_monai_transform_replaces_some_cases(synthesis: Synthesis) -> None:
    replace = Synthesised(synthesis, probability=0.5)
    pipeline = Compose([replace, RandFlipd(("image", "label"), prob=1.0), ToTensord(("image", "label"))])
    seen = set()
    for epoch in range(6):
        replace.set_epoch(epoch)
        item = pipeline({"case": "case3", "fold": 1})
        assert item["image"].shape == (2, 24, 30, 25)
        assert item["label"].shape == (1, 24, 30, 25)
        assert (item["fold"], item["host"]) == (1, "case3")
        seen.add(item["case"] == "case3")
        wanted = synthesis.copy("case3", epoch) if item["case"] != "case3" else synthesis.original("case3")
        assert sorted(np.unique(item["label"])) == sorted(np.unique(wanted.label))
    assert seen == {True, False}
    assert Synthesised(synthesis, 0.0)({"case": "case1"})["case"] == "case1"
    assert Synthesised(synthesis, 1.0)({"case": "case1"})["case"] == "case1__syn000"


def test_it_needs_no_torch(make_nnunet: Callable[..., Path], tmp_path: Path) -> None:
    root, work = str(make_nnunet(3)), str(tmp_path / "w")
    code = (
        "import sys\n"
        "from lesionsynth.api import Synthesis, SyntheticDataset\n"
        f"item = SyntheticDataset(Synthesis('lesionmix', {root!r}, {work!r}))[0]\n"
        "assert item['image'].shape == (2, 24, 30, 25)\n"
        "assert 'torch' not in sys.modules and 'monai' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_example_of_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (DOCS / "how-to" / "on-the-fly.md").read_text()
    (tmp_path / "sample_data").symlink_to(ROOT / "sample_data")
    monkeypatch.chdir(tmp_path)
    told: list[tuple[object, ...]] = []
    names: dict[str, object] = {"print": lambda *words: told.append(words)}
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(code, names)
    assert [words[0] for words in told[:-1]] == [0, 0, 0, 1, 1, 1]
    assert all(words[2] > 0 for words in told[:-1])
    assert str(told[-1][0]).startswith("sub02")


def test_an_edit_that_breaks_off_leaves_nothing_to_the_next_copy(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthesis = Synthesis("lesionmix", root, tmp_path / "w", overrides=FEW)
    wanted = synthesis.copy("case1", 1)
    insert, calls = Canvas.insert, []

    def breaking(self: Canvas, box: Any, *given: Any) -> int:
        calls.append(box)
        if len(calls) == 2:
            self.label[:] = 1  # beyond what its source map tells
            raise MemoryError
        return insert(self, box, *given)

    with monkeypatch.context() as broken:
        broken.setattr(Canvas, "insert", breaking)
        with pytest.raises(MemoryError):
            _ = [synthesis.copy("case1", number) for number in range(2, 20)]
    assert same(synthesis.copy("case1", 1), wanted)


def test_a_number_below_0_is_refused(synthesis: Synthesis) -> None:
    with pytest.raises(InputError, match="numbered from 0"):
        synthesis.copy("case1", -1)


@pytest.mark.parametrize("number", [1.5, "1", None])
def test_a_number_that_is_none_is_refused(synthesis: Synthesis, number: Any) -> None:
    with pytest.raises(InputError, match="numbered from 0"):
        synthesis.copy("case1", number)
    assert same(synthesis.copy("case1", np.int64(1)), synthesis.copy("case1", 1))


@pytest.mark.parametrize("probability", [-0.1, 2, float("nan")])
def test_a_probability_that_is_none_is_refused(synthesis: Synthesis, probability: float) -> None:
    with pytest.raises(InputError, match="from 0 to 1"):
        Synthesised(synthesis, probability)


def test_a_transform_that_is_not_told_the_case_says_so(synthesis: Synthesis) -> None:
    with pytest.raises(InputError, match="no key 'case'; there are image, fold"):
        Synthesised(synthesis)({"image": 1, "fold": 2})


def test_an_unknown_case_is_refused_by_the_transform_too(synthesis: Synthesis) -> None:
    for probability in (0.0, 1.0):
        with pytest.raises(InputError, match="no host case9"):
            Synthesised(synthesis, probability)({"case": "case9"})
