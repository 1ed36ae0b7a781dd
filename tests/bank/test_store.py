from __future__ import annotations

import builtins
import json
import pickle
import sqlite3
import sys
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

from lesionsynth import gzip_io
from lesionsynth.bank.store import INDEX, Entry, Harvested, LesionBank, write_case, write_index
from lesionsynth.errors import InputError, OutputError
from lesionsynth.kernels.tissue import WHITE
from tests.bank.making import bank_of, make_bank, make_case, make_lesion, make_summary

EVERYBODY = ("A", "B", "M")


def three_cases():
    """Cases a (subject A), b (subject B) and the mask of M."""
    return [
        (
            make_summary("b", "B"),
            [make_lesion("b/0001", "B", volume_mm3=20.0, classes=(1, 2), channels=2, seed=1)],
        ),
        (
            make_summary("a", "A"),
            [
                make_lesion("a/0001", "A", volume_mm3=500.0, classes=(12,), seed=2),
                make_lesion("a/0003", "A", volume_mm3=50.0, classes=(2,), seed=3, shape=(5, 3, 4)),
            ],
        ),
        (
            make_summary("M/mask", "M", has_images=False),
            [make_lesion("M/mask/0001", "M", volume_mm3=70.0, channels=0, seed=4)],
        ),
    ]


@pytest.fixture
def bank(tmp_path):
    with make_bank(tmp_path / "bank", three_cases(), {"key": "k"}) as opened:
        yield opened


def names(bank, **filters):
    return [bank.info(int(n)).lesion for n in bank.candidates(EVERYBODY, **filters).ids]


def test_lesions_come_back_bit_for_bit(bank):
    for _, lesions in three_cases():
        for lesion in lesions:
            read = bank.read(lesion.info.lesion)
            assert read.info == lesion.info
            for name in ("image", "label", "rim"):
                was, now = getattr(lesion, name), getattr(read, name)
                assert now.dtype == was.dtype
                np.testing.assert_array_equal(now, was)


def test_lesions_read_last_are_kept_within_bounds(bank, monkeypatch):
    first = bank.read("a/0001")
    assert bank.read("a/0001") is first
    monkeypatch.setattr("lesionsynth.bank.store._KEPT_BYTES", first.image.nbytes)
    bank.read("b/0001")
    again = bank.read("a/0001")
    assert again is not first
    np.testing.assert_array_equal(again.image, first.image)


def test_shapes_without_images_are_kept_within_bounds(bank, monkeypatch):
    monkeypatch.setattr("lesionsynth.bank.store._KEPT_BYTES", 100)
    assert bank.read("M/mask/0001").label.nbytes > 100
    assert bank.read("M/mask/0001") is not bank.read("M/mask/0001")


def test_harvested_lesions_come_back_bit_for_bit(tmp_path):
    rng = np.random.default_rng(0)
    label = (rng.random((14, 14, 14)) > 0.97).astype(np.uint16)
    case = make_case(label, rng.normal(size=(2, 14, 14, 14)))
    with bank_of(tmp_path, case) as bank:
        for info, mask in bank.shapes(["A"]):
            lesion = bank.read(info.lesion)
            np.testing.assert_array_equal(mask, lesion.label)
            box = tuple(slice(o, o + n) for o, n in zip(info.origin_vox, info.shape_vox, strict=True))
            np.testing.assert_array_equal(lesion.image, case.values()[(slice(None), *box)])
        np.testing.assert_array_equal(bank.tissue("a"), case.tissue)
        known = bank.known(bank.case("a"))
        np.testing.assert_array_equal(known.tissue, case.tissue)
        np.testing.assert_array_equal(known.read_zones(), case.zones)
        assert known.read_zones().dtype == np.uint8
        assert (known.tissue_stats, known.tissue_kind) == (case.tissue_stats, case.tissue_kind)


def test_cases_come_back_without_their_tissue_and_sorted(bank):
    assert [c.case for c in bank.cases()] == ["M/mask", "a", "b"]
    was, now = make_summary("a", "A"), bank.case("a")
    assert now.tissue is None
    for name in (
        "subject",
        "load",
        "has_images",
        "tissue_kind",
        "tissue_box",
        "tissue_stats",
        "quantiles",
        "source_hashes",
        "resampled",
    ):
        assert getattr(now, name) == getattr(was, name)
    assert now.grid.shape == was.grid.shape
    np.testing.assert_array_equal(now.grid.affine, was.grid.affine)
    np.testing.assert_array_equal(bank.tissue("a"), was.tissue)
    assert bank.about["key"] == "k"
    assert not bank.case("M/mask").has_images


def test_the_index_does_not_depend_on_the_order_of_writing(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    make_bank(one, three_cases()).close()
    make_bank(two, three_cases()[::-1]).close()
    files = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(two) for p in two.rglob("*") if p.is_file())
    for file in files:
        assert (one / file).read_bytes() == (two / file).read_bytes()


def test_candidates_are_sorted_and_filtered(bank):
    assert names(bank) == ["a/0001", "a/0003", "b/0001"]
    assert names(bank, with_image=False) == ["M/mask/0001", "a/0001", "a/0003", "b/0001"]
    assert names(bank, min_volume_mm3=50.0) == ["a/0001", "a/0003"]
    assert names(bank, max_volume_mm3=50.0) == ["a/0003", "b/0001"]
    assert names(bank, lesion_class=2) == ["a/0003", "b/0001"]
    assert names(bank, lesion_class=1) == ["b/0001"]  # and not class 12
    assert names(bank, lesion_class=3) == []
    pool = bank.candidates(["B", "A", "A", "nobody"])
    assert pool.subject.tolist() == ["A", "A", "B"]
    assert pool.volume_mm3.tolist() == [500.0, 50.0, 20.0]
    assert bank.candidates([]).ids.size == 0
    everybody = bank.candidates(EVERYBODY, with_image=False)  # M/mask comes before a and b
    assert everybody.subject.tolist() == ["M", "A", "A", "B"]
    assert everybody.volume_mm3.tolist() == [70.0, 500.0, 50.0, 20.0]


def test_infos_and_shapes_keep_to_their_subjects(bank):
    assert [i.lesion for i in bank.infos(["B", "M"])] == ["M/mask/0001", "b/0001"]
    assert [i.lesion for i in bank.infos()] == ["M/mask/0001", "a/0001", "a/0003", "b/0001"]
    assert [i.lesion for i, _ in bank.shapes(["A"])] == ["a/0001", "a/0003"]


def test_any_number_of_subjects_with_any_names(tmp_path):
    names = ['a "quoted" one', "äö 7", "[1]", "7"]
    cases = [(make_summary(n, n), [make_lesion(f"{n}/0001", n)]) for n in names]
    with make_bank(tmp_path, cases) as bank:
        crowd = [f"S{n}" for n in range(40_000)]
        assert [i.subject for i in bank.infos([*crowd, *names])] == sorted(names)
        assert list(bank.infos([])) == []


def test_a_bank_without_lesions_or_cases(tmp_path):
    with make_bank(tmp_path / "a", [(make_summary("a", "A"), [])]) as bank:
        assert bank.candidates(["A"]).ids.size == 0
        assert list(bank.shapes(["A"])) == []
    with make_bank(tmp_path / "b", []) as bank:
        assert bank.cases() == []


def test_files_of_different_cases_never_collide(tmp_path):
    awkward = ["a/mask", "a.mask", "a%2Fmask", "A.mask", "../a", "ä b"]
    cases = [(make_summary(n, n), [make_lesion(f"{n}/0001", n, seed=s)]) for s, n in enumerate(awkward)]
    with make_bank(tmp_path / "bank", cases) as bank:
        for summary, (lesion,) in cases:
            np.testing.assert_array_equal(bank.read(lesion.info.lesion).image, lesion.image)
            np.testing.assert_array_equal(bank.tissue(summary.case), summary.tissue)
    assert [p.name for p in tmp_path.iterdir()] == ["bank"]


def test_ordinary_cases_keep_their_names(tmp_path):
    make_bank(tmp_path, [(make_summary("sub-01_ses-2", "A"), [])]).close()
    assert (tmp_path / "tissue" / "sub-01_ses-2.nii.gz").is_file()
    assert (tmp_path / "lesions" / "sub-01_ses-2.bin").is_file()


def test_a_bank_is_read_only(bank):
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        bank._db.execute("DELETE FROM lesions")


def test_unknown_names(bank):
    with pytest.raises(InputError, match="no case x"):
        bank.case("x")
    with pytest.raises(InputError, match="no lesion x"):
        bank.read("x")
    with pytest.raises(InputError, match="no lesion 99"):
        bank.info(99)


def test_no_bank_and_one_of_another_format(tmp_path):
    with pytest.raises(InputError, match="no lesion bank here"):
        LesionBank(tmp_path)
    make_bank(tmp_path, []).close()
    change(tmp_path, "UPDATE about SET value = '99' WHERE key = 'format'")
    with pytest.raises(InputError, match="format 99"):
        LesionBank(tmp_path)


def change(folder, statement, *values):
    connection = sqlite3.connect(folder / INDEX)
    connection.execute(statement, values)
    connection.commit()
    connection.close()


def use_everything(folder):
    """Call every method of a bank."""
    with LesionBank(folder) as bank:
        bank.cases()
        bank.case("a")
        bank.candidates(EVERYBODY, with_image=False)
        for info in list(bank.infos()):
            bank.read(info.lesion)
        list(bank.shapes(EVERYBODY))
        bank.tissue("a")
        bank.info(1)


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_index_is_one_clear_error(bank, keep):
    path = bank.folder / INDEX
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(InputError, match="damaged"):
        use_everything(bank.folder)


@pytest.mark.parametrize("seed", range(12))
def test_a_scrambled_index_is_an_error_or_harmless(bank, seed):
    rng = np.random.default_rng(seed)
    path = bank.folder / INDEX
    data = bytearray(path.read_bytes())
    start = int(rng.integers(16, len(data) - 200))
    data[start : start + 200] = rng.bytes(200)
    path.write_bytes(bytes(data))
    with suppress(InputError):
        use_everything(bank.folder)


SHAPE_BECOMES = (
    """UPDATE lesions SET details = replace(details, '"shape_vox": [3, 4, 5]', '"shape_vox": {}')"""
)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE lesions SET details = 'no json'",
        "UPDATE lesions SET details = '{}'",
        "UPDATE lesions SET details = '[]'",
        "UPDATE lesions SET file = '../../etc/passwd'",
        "UPDATE lesions SET file = '/etc/passwd'",
        "UPDATE lesions SET file = x'00ff'",
        "UPDATE lesions SET file = 'lesions'",
        "UPDATE lesions SET file = 'lesions/gone.bin'",
        "UPDATE lesions SET start = -5",
        "UPDATE lesions SET start = 1",
        "UPDATE lesions SET start = 'soon'",
        "UPDATE lesions SET start = 1 << 62",
        "UPDATE lesions SET mask_bytes = -1",
        "UPDATE lesions SET mask_bytes = 3",
        "UPDATE lesions SET image_bytes = image_bytes - 1",
        "UPDATE lesions SET volume_mm3 = 'big'",
        "UPDATE cases SET details = 'no json'",
        "UPDATE cases SET details = replace(details, 'affine', 'x')",
        "UPDATE cases SET load_ml = 'much'",
        SHAPE_BECOMES.format("[3, 4, 6]"),
        SHAPE_BECOMES.format("[-3, -4, 5]"),
        SHAPE_BECOMES.format("[99999, 99999, 99999]"),
        SHAPE_BECOMES.format('"x"'),
    ],
)
def test_a_damaged_entry_is_one_clear_error(bank, statement):
    change(bank.folder, statement)
    with pytest.raises(InputError, match="damaged") as error:
        use_everything(bank.folder)
    assert "run the same command again" in str(error.value)


def test_a_damaged_blob_is_one_clear_error(bank):
    blob = bank.folder / "lesions" / "a.bin"
    data = bytearray(blob.read_bytes())
    data[len(data) // 3] ^= 0xFF
    blob.write_bytes(bytes(data))
    with pytest.raises(InputError, match="damaged"):
        use_everything(bank.folder)
    blob.write_bytes(data[:20])
    with pytest.raises(InputError, match="damaged"):
        use_everything(bank.folder)
    blob.unlink()
    with pytest.raises(InputError, match="damaged"):
        use_everything(bank.folder)


def test_a_link_out_of_the_bank_is_not_followed(bank, tmp_path):
    blob = bank.folder / "lesions" / "a.bin"
    outside = tmp_path / "outside.bin"
    blob.rename(outside)
    blob.symlink_to(outside)
    with pytest.raises(InputError, match="outside"):
        bank.read("a/0001")


def test_nothing_is_unpickled(bank, monkeypatch):
    class Bomb:
        def __reduce__(self):
            return (builtins.exec, ("raise SystemExit('unpickled')",))

    blob = bank.folder / "lesions" / "a.bin"
    packed = gzip_io.compress(pickle.dumps(Bomb()).ljust(3 * 60, b"."))
    blob.write_bytes(packed)
    change(bank.folder, "UPDATE lesions SET mask_bytes = ? WHERE name = 'a/0001'", len(packed))
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.delattr(pickle, name)
    with LesionBank(bank.folder) as again:
        label = next(mask for info, mask in again.shapes(["A"]) if info.lesion == "a/0001")
    assert label.tobytes() == pickle.dumps(Bomb()).ljust(180, b".")[:120]


def test_an_index_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_index(tmp_path / "file" / "bank", [], {})
    (tmp_path / "bank" / INDEX).mkdir(parents=True)
    with pytest.raises(OutputError, match="cannot be written"):
        write_index(tmp_path / "bank", [], {})
    assert [p.name for p in (tmp_path / "bank").iterdir()] == [INDEX]


def test_an_index_replaces_the_one_before_it(tmp_path):
    make_bank(tmp_path, three_cases()).close()
    with make_bank(tmp_path, three_cases()[:1]) as bank:
        assert [c.case for c in bank.cases()] == ["b"]
    assert not list(tmp_path.glob(".tmp-*"))


N_CASES, PER_CASE = 200, 100


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """20,000 entries that share one blob."""
    folder = tmp_path_factory.mktemp("large")
    lesion = make_lesion("x/0001", "X")
    (entry,) = write_case(folder, make_summary("x", "X", has_images=False), [lesion]).entries
    harvested = []
    for c in range(N_CASES):
        case = f"c{c:04d}"
        infos = [
            replace(
                entry.info, lesion=f"{case}/{n:04d}", case=case, subject=f"S{c // 2}", volume_mm3=float(n)
            )
            for n in range(1, PER_CASE + 1)
        ]
        entries = tuple(Entry(info, 0, entry.mask_bytes, entry.image_bytes) for info in infos)
        summary = make_summary(case, f"S{c // 2}", has_images=False)
        harvested.append(Harvested(summary, entries, "lesions/x.bin"))
    write_index(folder, harvested, {})
    with LesionBank(folder) as bank:
        yield bank


def test_candidates_of_a_large_bank_are_compact_columns(large):
    pool = large.candidates([f"S{n}" for n in range(100)])
    assert pool.ids.size == N_CASES * PER_CASE
    assert pool.ids.dtype == np.int64
    assert pool.volume_mm3.dtype == np.float64
    assert len({id(s) for s in pool.subject}) == 100  # one string a subject, not one a lesion
    assert pool.ids.nbytes + pool.volume_mm3.nbytes + pool.subject.nbytes == 24 * pool.ids.size
    assert (np.diff(pool.ids) > 0).all()
    few = large.candidates(["S7"], min_volume_mm3=99.5)
    assert [large.info(int(i)).lesion for i in few.ids] == ["c0014/0100", "c0015/0100"]


def test_entries_are_iterated_one_at_a_time(large):
    entries = large.infos()
    assert next(entries).lesion == "c0000/0001"
    assert sys.getsizeof(entries) < 1000
    entries.close()


def test_reading_a_lesion_touches_its_bytes_only(bank):
    row = "SELECT start, mask_bytes, image_bytes FROM lesions WHERE name = 'a/0003'"
    ((start, mask, image),) = bank._db.execute(row)
    assert start > 0
    blob = bank.folder / "lesions" / "a.bin"
    data = bytearray(len(blob.read_bytes()))
    data[start : start + mask + image] = blob.read_bytes()[start : start + mask + image]
    blob.write_bytes(data)  # all other bytes are gone
    (bank.folder / "lesions" / "b.bin").unlink()
    expected = three_cases()[1][1][1]
    np.testing.assert_array_equal(bank.read("a/0003").image, expected.image)
    np.testing.assert_array_equal(bank.read("a/0003").label, expected.label)


def test_the_index_keeps_plain_json(bank):
    for (details,) in bank._db.execute("SELECT details FROM lesions UNION SELECT details FROM cases"):
        assert isinstance(json.loads(details), dict)


def test_a_tissue_map_that_is_gone_is_one_clear_error(bank):
    (bank.folder / "tissue" / "a.nii.gz").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        bank.tissue("a")
    assert (make_summary("a", "A").tissue == WHITE).any()


def test_lesions_of_a_case_are_those_with_an_image(tmp_path):
    cases = [
        (make_summary("a1", "A"), [make_lesion("a1/0001", "A"), make_lesion("a1/0002", "A")]),
        (make_summary("a2", "A"), [make_lesion("a2/0001", "A")]),
        (make_summary("b", "B"), [make_lesion("b/0001", "B")]),
    ]
    with make_bank(tmp_path, cases) as bank:
        assert [info.lesion for info in bank.of_case("A", "a1")] == ["a1/0001", "a1/0002"]
        assert bank.of_case("A", "b") == bank.of_case("B", "") == []
