"""Pieces of other cases on a canvas: labels, instances and the account of lesions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from lesionsynth.editing.canvas import FIRST_DONOR, Canvas
from lesionsynth.host import LoadedCase

Make = Callable[..., LoadedCase]
ALL = (slice(0, 24),) * 3


def bar() -> np.ndarray:
    label = np.zeros((24, 24, 24), np.uint16)
    label[4, 2:22, 4] = 1
    return label


def replaced(host: LoadedCase, region: np.ndarray, label: np.ndarray) -> Canvas:
    canvas = Canvas(host)
    values = np.full((2, 24, 24, 24), 77, np.float32)
    canvas.replace(ALL, values, region, label.astype(np.uint16))
    assert (canvas.raw[0][region] == 77).all()
    assert np.array_equal(canvas.raw[1][~region], host.images[1].raw[~region])
    assert np.array_equal(canvas.source, np.where(region, FIRST_DONOR, 0))
    assert canvas.load_ml == pytest.approx(np.count_nonzero(np.isin(canvas.label, (1, 4))) / 1000)
    assert np.array_equal(canvas.instances > 0, np.isin(canvas.label, (1, 4)))
    assert set(np.unique(canvas.instances)) - {0} == set(canvas.boxes)
    for instance, box in canvas.boxes.items():
        assert (canvas.instances == instance).sum() == (canvas.instances[box] == instance).sum()
    return canvas


def test_what_is_cut_in_two_is_two_and_the_larger_keeps_its_number(make_host: Make) -> None:
    region = np.zeros((24, 24, 24), bool)
    region[3:6, 6:9, 3:6] = True
    canvas = replaced(make_host(label=bar()), region, np.zeros_like(region))
    assert sorted(canvas.boxes) == [1, 2]
    assert canvas.volume_mm3(1) == 13
    assert canvas.volume_mm3(2) == 4


def test_what_is_covered_is_gone_and_every_piece_that_comes_counts(make_host: Make) -> None:
    region = np.zeros((24, 24, 24), bool)
    region[3:6, 1:23, 3:8] = True
    label = np.zeros(region.shape)
    label[4, 3, 4] = 1
    label[4, 4, 5] = 4  # touches by an edge: the same lesion
    label[4, 15, 6] = 1
    label[4, 20, 6] = 2  # an organ's label comes along, and is no lesion
    canvas = replaced(make_host(label=bar()), region, label)
    assert sorted(canvas.boxes) == [2, 3]
    assert canvas.volume_mm3(2) == 2
    assert canvas.label[4, 20, 6] == 2


def test_a_piece_without_lesions_only_takes_away(make_host: Make) -> None:
    region = np.zeros((24, 24, 24), bool)
    region[4, 2:5, 4] = True
    canvas = replaced(make_host(label=bar()), region, np.zeros_like(region))
    assert sorted(canvas.boxes) == [1]
    assert canvas.volume_mm3(1) == 17


def test_reset_undoes_numbers_in_slices_that_were_not_edited(make_host: Make) -> None:
    label = np.moveaxis(bar(), 1, 2)  # along the slices
    host = make_host(label=label)
    region = np.zeros((24, 24, 24), bool)
    region[3:6, 3:6, 6:9] = True
    canvas = replaced(host, region, np.zeros_like(region))
    assert sorted(canvas.boxes) == [1, 2]
    canvas.reset()
    assert np.array_equal(canvas.instances, host.lesions[0])
    assert sorted(canvas.boxes) == [1]
    assert np.array_equal(canvas.label, host.label)


def test_a_canvas_in_spare_volumes_is_the_host(make_host: Make) -> None:
    first, second = make_host(label=bar()), make_host(label=np.moveaxis(bar(), 0, 2))
    spent = Canvas(first)
    for volume in spent.volumes:
        volume[:] = 9
    spare = [*spent.volumes, np.zeros((3, 3, 3), np.int16)]
    canvas = Canvas(second, spare=spare)
    assert [volume.shape for volume in spare] == [(3, 3, 3)]  # all that fits was taken
    assert any(np.shares_memory(volume, spent.raw[0]) for volume in canvas.volumes)
    fresh = Canvas(second)
    assert all(np.array_equal(a, b) for a, b in zip(canvas.raw, fresh.raw, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(canvas.volumes, fresh.volumes, strict=True))
    assert not any(np.shares_memory(a, b) for n, a in enumerate(canvas.volumes) for b in canvas.volumes[:n])
    assert not canvas.changes()
