"""The page of a trial: one HTML file with its charts and tables, which needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

import lesionsynth
from lesionsynth.qc.report.charts import intervals
from lesionsynth.trial.compare import NONE, Comparison, Row, Varied, varied
from lesionsynth.trial.wish import Wish

TITLES = {
    "dice": "Dice at 0.5",
    "dice_at_val": "Dice",
    "auprc": "Area under precision over recall",
    "sensitivity_at_val": "Sensitivity of lesions",
    "ppv_at_val": "Precision of lesions",
    "f1_at_val": "F1 of lesions",
    "hd95_mm_at_val": "HD95, mm",
    "volume_ratio_at_val": "Volume, found over true",
    "sensitivity_small_at_val": "Sensitivity, below 100 mm3",
    "sensitivity_medium_at_val": "Sensitivity, 100 to 1000 mm3",
    "sensitivity_large_at_val": "Sensitivity, from 1000 mm3",
}
"""What is compared, and its name on the page. `results.csv` has more."""
ONE_PAIR = (
    "With one seed and one fold each arm is one network, and intervals are over test subjects: they hold for "
    "these very networks. Trained again, with another seed, they would differ by more or by less; how much "
    "is not in the interval, and one without 0 does not show that the recipe helps."
)
"""What intervals do not say where nothing but test subjects varies."""
_CHARTS = ("dice_at_val", "auprc", "f1_at_val", "volume_ratio_at_val")


def render(
    name: str,
    wish: Wish,
    rows: Sequence[Row],
    comparisons: Sequence[Comparison],
    cells: Sequence[dict[str, Any]],
    failed: dict[str, str],
    left: int,
) -> str:
    """The HTML of a trial; every text in it is escaped."""
    ours = resources.files("lesionsynth")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    shares = sorted({arm.share for arm in wish.arms if arm.recipe is not None and not arm.searched})
    fractions = sorted({cell["fraction"] for cell in cells})
    page = {
        "name": name,
        "version": lesionsynth.__version__,
        "css": Markup((ours / "qc/report/page.css").read_text("utf-8")),  # noqa: S704 - a file of this package
        "spec": wish.spec,
        "nnunet": wish.nnunet,
        "rare": "" if wish.prevalence is None else f"{100 * wish.prevalence:g} %",
        "shares": " or ".join(f"{100 * share:.0f} %" for share in shares) or "none",
        "searched": any(arm.searched for arm in wish.arms),
        "cells": cells,
        "left": left,
        "failed": failed,
        "seeds": {cell["seed"] for cell in cells},
        "tested": {row.subject for row in rows},
        "intervals": _intervals(varied(rows)),
        "optimistic": any(cell["validation"] == cell["train"] for cell in cells),
        "sides": [_sides(cells, fraction) for fraction in fractions],
        "costs": _costs(cells),
        "charts": [(TITLES[measure], _chart(comparisons, measure)) for measure in _CHARTS],
        "power": _power(comparisons, varied(rows)),
        "tables": [(f"Fraction {f:g}", _lines(comparisons, f)) for f in fractions],
        "transfers": [(f"Fraction {f:g}", *_transfers(rows, f)) for f in fractions],
    }
    return environment.from_string((ours / "trial/page.html").read_text("utf-8")).render(page)


def _sides(cells: Sequence[dict[str, Any]], fraction: float) -> list[str]:
    """Numbers of subjects on each side, over the cells of a fraction."""
    found = [f"{fraction:g}"]
    for side in ("train", "validation", "test"):
        sizes = sorted({len(cell[side]) for cell in cells if cell["fraction"] == fraction})
        found.append(" or ".join(map(str, sizes)))
    return found


def _costs(cells: Sequence[dict[str, Any]]) -> list[list[str]]:
    """What the networks of an arm took: copies and mean seconds, by stage; nnU-Net tells no seconds."""
    lines = []
    for arm, fraction in dict.fromkeys((cell["arm"], cell["fraction"]) for cell in cells):
        own = [c for c in cells if (c["arm"], c["fraction"]) == (arm, fraction) and c.get("seconds")]
        if own:
            means = [
                np.mean([cell["seconds"].get(stage, 0.0) for cell in own])
                for stage in ("synthesis", "training", "testing")
            ]
            copies = np.mean([cell["synthetic"] for cell in own])
            lines.append([arm, f"{fraction:g}", f"{copies:.0f}", *(f"{mean:.0f}" for mean in means)])
    return lines


def _chart(comparisons: Sequence[Comparison], measure: str) -> Markup:
    shown = [c for c in comparisons if c.measure == measure and c.difference is not None]
    several = len({c.fraction for c in shown}) > 1
    rows = [
        (f"{c.recipe}, {c.fraction:g}" if several else c.recipe, c.difference or 0.0, c.low, c.high)
        for c in sorted(shown, key=lambda c: c.fraction)
    ]
    return intervals(TITLES[measure], f"difference to {NONE}", rows)


def _intervals(basis: Mapping[float, Varied]) -> list[str]:
    """What the intervals are over and hold for; by fraction where that differs."""
    fractions: dict[str, list[str]] = {}
    for fraction, what in sorted(basis.items()):
        if what.over_folds:
            said = (
                "Intervals are over seeds and folds, both taken for random. Test subjects of a fold share "
                "networks and training subjects, and count as one."
            )
        elif what.is_one_pair:
            said = ONE_PAIR
        else:
            said = (
                "Intervals are over seeds and test subjects, both taken for random, and hold for the "
                "training subjects of this fold alone."
            )
        fractions.setdefault(said, []).append(f"{fraction:g}")
    if len(fractions) == 1:
        return list(fractions)
    return [f"Fraction {', '.join(where)}: {said}" for said, where in fractions.items()]


def _power(comparisons: Sequence[Comparison], basis: Mapping[float, Varied]) -> str:
    """What differences in Dice could have been shown."""
    found = sorted(
        c.detectable for c in comparisons if c.measure == "dice_at_val" and c.detectable is not None
    )
    if not found:
        return "So few networks cannot tell how large a difference would have to be: use more seeds or folds."
    sizes = f"{found[0]:.3f}" if len(found) == 1 else f"{found[0]:.3f} to {found[-1]:.3f}, by arm,"
    units = "folds" if any(what.over_folds for what in basis.values()) else "test subjects"
    return (
        f"With so many seeds and {units} a difference in Dice of {sizes} would be shown with a "
        "probability of 80 % (5 % level, two-sided). Smaller ones need more."
    )


def _lines(comparisons: Sequence[Comparison], fraction: float) -> list[list[str]]:
    lines = []
    for measure, title in TITLES.items():
        for c in comparisons:
            if (c.measure, c.fraction) == (measure, fraction):
                interval = "" if c.low is None else f"{c.low:+.3f} to {c.high:+.3f}"
                lines.append(
                    [
                        title,
                        c.recipe,
                        f"{c.mean:.3f}",
                        f"{c.spread:.3f}",
                        "" if c.difference is None else f"{c.difference:+.3f}",
                        interval,
                        "" if c.better is None else f"{100 * c.better:.0f} % of {c.pairs}",
                        "" if c.detectable is None else f"{c.detectable:.3f}",
                    ]
                )
    return lines


def _transfers(rows: Sequence[Row], fraction: float) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Arms, and for each test case the means of its seeds."""
    own = [row for row in rows if row.fraction == fraction]
    recipes = list(dict.fromkeys(row.recipe for row in own))
    found = []
    for case in sorted({row.case for row in own}):
        values = [
            [row.values["dice_at_val"] for row in own if (row.case, row.recipe) == (case, recipe)]
            for recipe in recipes
        ]
        means = [f"{np.mean([v for v in value if v is not None]):.3f}" if value else "" for value in values]
        found.append((case, means))
    return recipes, found
