"""Charts hold the numbers that they were given, and nothing that a page would take for code."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from lesionsynth.qc.report.charts import Series, histogram, intervals, scatter

NS = "{http://www.w3.org/2000/svg}"


def parsed(markup: str) -> ET.Element:
    return ET.fromstring(str.replace(markup, "<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def heights(markup: str, css: str) -> list[float]:
    """Heights of the steps of a series above the axis, in pixels."""
    (path,) = [p for p in parsed(markup).iter(f"{NS}path") if p.get("class") == f"line {css}"]
    ys = [float(y) for y in re.findall(r"V([\d.]+)", path.get("d", ""))]
    base = float(re.match(r"M[\d.]+ ([\d.]+)", path.get("d", "")).group(1))  # type: ignore[union-attr]
    return [base - y for y in ys[:-1]]


def series(name: str, *values: float) -> Series:
    return Series(name, name, np.array(values, dtype=float))


def test_steps_are_shares_in_common_bins() -> None:
    both = histogram("x", "mm", [series("a", 0.1, 0.1, 0.1, 20.1), series("b", 0.1, 20.1)])
    drawn, other = heights(both, "a"), heights(both, "b")
    assert len(drawn) == len(other) == 20
    assert drawn[0] == pytest.approx(3 * drawn[-1], abs=0.2)
    assert other[0] == pytest.approx(other[-1], abs=0.2)
    assert other[0] == pytest.approx(2 * drawn[-1], abs=0.2)  # a half against a quarter
    assert sum(height > 0.1 for height in drawn) == 2


def test_bins_of_logarithms() -> None:
    drawn = heights(histogram("x", "mm3", [series("a", 1, 10, 100, -5, 0)], log=True), "a")
    assert [n for n, height in enumerate(drawn) if height > 0.1] == [0, 10, 19]


def test_what_is_no_number_is_left_out() -> None:
    markup = histogram("x", "mm", [series("a", 1, np.nan, 3, np.inf), series("b")])
    assert "a: n 2, median 2, quartiles 1.5 to 2.5; b: none" in markup
    assert "nan" not in markup.lower()


def test_whole_numbers_have_bins_of_their_own() -> None:
    assert [h > 1 for h in heights(histogram("x", "n", [series("a", 1, 1, 2, 4)]), "a")] == [
        True,
        True,
        False,
        True,
    ]
    wide = heights(histogram("x", "n", [series("a", *range(41))]), "a")
    assert len(wide) == 14  # three numbers each
    assert wide[0] == pytest.approx(wide[7])


def test_large_numbers_are_written_out() -> None:
    assert "median 178,000" in histogram("x", "mm3", [series("a", 178000.0, 178000.25)], log=True)


@pytest.mark.parametrize("values", [(5.0,), (5.0, 5.0, 5.0), (0.0,), (-3.0, -3.0)])
def test_values_that_are_all_one(values: tuple[float, ...]) -> None:
    drawn = heights(histogram("x", "mm", [series("a", *values)]), "a")
    assert sum(height > 1 for height in drawn) == 1


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("ends", [(1e-6, 2e-6), (0.3, 0.4), (1, 7), (12, 4e5), (1e8, 1e9)])
def test_axes_have_a_few_round_numbers(ends: tuple[float, float], log: bool) -> None:
    root = parsed(histogram("x", "mm", [series("a", *ends)], log))
    texts = [t.text for t in root.iter(f"{NS}text") if t.get("text-anchor") == "middle"]
    numbers = [float(t.replace(",", "")) for t in texts if t and re.fullmatch(r"[-+.,\de]+", t)]
    assert 1 <= len(numbers) <= 7
    beyond = 0.06 * (ends[1] - ends[0])  # bins of whole numbers reach a little further
    assert all(ends[0] - beyond <= n <= ends[1] + beyond for n in numbers)


def test_nothing_to_show_is_said() -> None:
    assert "nothing to show" in histogram("Volume", "mm3", [series("a"), series("b", np.nan)])
    assert "nothing to show" in scatter("Load", "mL", "mL", [], 0.05)


def test_points_lie_where_their_numbers_are() -> None:
    root = parsed(
        scatter("Load", "target", "achieved", [(10, 10, "met"), (10, 5, "missed"), (0, 0, "met")], 0.05)
    )
    dots = [(c.get("class"), float(c.get("cx", 0)), float(c.get("cy", 0))) for c in root.iter(f"{NS}circle")]
    (_, x1, y1), (css, x2, y2), (_, x0, y0) = dots
    assert css == "dot missed"
    assert x1 == x2
    assert y0 - y2 == pytest.approx((y0 - y1) / 2, abs=0.2)
    assert x1 > x0
    assert "3 cases, 1 outside the tolerance" in root.get("aria-label", "")


def test_very_many_points_are_thinned() -> None:
    points = [(float(n), float(n), "met") for n in range(5000)]
    markup = scatter("Load", "target", "achieved", points, 0.05)
    assert 800 <= markup.count("<circle") <= 1000
    assert "5000 cases" in markup


def test_texts_are_escaped() -> None:
    evil = '"><script>alert(1)</script>'
    for markup in (
        histogram(evil, evil, [Series(evil, "real", np.array([1.0, 2.0]))]),
        scatter(evil, evil, evil, [(1, 1, "met")], 0.1),
        histogram(evil, "mm", [series("a")]),
    ):
        assert "<script" not in markup
        ET.fromstring(f"<div>{markup}</div>")


def test_intervals_lie_beside_the_line_of_no_difference() -> None:
    rows = [("one", 0.1, -0.1, 0.3), ("two & more", -0.2, None, None)]
    chart = intervals("T", "difference", rows)
    svg = ET.fromstring(str(chart))
    zero = float(re.findall(r"M([\d.]+)", next(p for p in svg.iter("path")).attrib["d"])[0])
    dots = [float(c.attrib["cx"]) for c in svg.iter("circle")]
    assert dots[1] < zero < dots[0]
    (line,) = (p.attrib["d"] for p in svg.iter("path") if "line" in p.attrib.get("class", ""))
    low, high = (float(v) for v in re.findall(r"[MH]([\d.]+)", line))
    assert low < zero < dots[0] < high
    assert (low + high) / 2 == pytest.approx(dots[0], abs=0.1)
    assert "one: +0.100, -0.100 to +0.300; two &amp; more: -0.200" in str(chart)
    assert "nothing to show" in intervals("T", "difference", [])
