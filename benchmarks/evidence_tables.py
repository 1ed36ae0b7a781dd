"""The tables of docs/evidence.md, as Markdown, from the folders of trials.

python benchmarks/evidence_tables.py OUT/ms OUT/sarcoma ...
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median

MEANS = {
    "dice_at_val": "Dice",
    "auprc": "AUPRC",
    "sensitivity_at_val": "sensitivity",
    "ppv_at_val": "precision",
    "f1_at_val": "F1",
    "hd95_mm_at_val": "HD95, mm",
}
RATIO = "volume_ratio_at_val"
DIFFERENCES = ("dice_at_val", "auprc")

Line = Mapping[str, str]


def main(trials: Sequence[str]) -> None:
    """Print the table of each fraction of each trial: of NAME-results.csv and NAME-comparison.csv."""
    for name in trials:
        results, comparisons = (read(Path(f"{name}-{table}.csv")) for table in ("results", "comparison"))
        for fraction in dict.fromkeys(line["fraction"] for line in results):
            own = [line for line in results if line["fraction"] == fraction]
            print(f"\n{Path(name).name}, fraction {fraction}\n")
            print(table(lines_of(own, [c for c in comparisons if c["fraction"] == fraction])))


def read(path: Path) -> list[dict[str, str]]:
    """Lines of a CSV file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def lines_of(results: Sequence[Line], comparisons: Sequence[Line]) -> list[list[str]]:
    """Means of each arm, and its paired differences to the arm without synthetic data."""
    head = ["", *MEANS.values(), "volume ratio (median)"]
    head += [f"{MEANS[name]}, difference [95 %]" for name in DIFFERENCES]
    lines = [[*head, "training sets that gain", "from, to", "detectable"]]
    without = dice_by_set(results, "none")
    for arm in dict.fromkeys(line["recipe"] for line in results):
        told = {c["measure"]: c for c in comparisons if c["recipe"] == arm}
        line = [f"`{arm}`"]
        for name in MEANS:
            line.append(f"{float(told[name]['mean']):.{1 if name.startswith('hd95') else 3}f}")
        line.append(f"{median(float(r[RATIO]) for r in results if r['recipe'] == arm and r[RATIO]):.1f}")
        line += [difference(told[name]) for name in DIFFERENCES]
        if arm == "none":
            lines.append([*line, "", "", ""])
            continue
        gains = [dice - without[key] for key, dice in dice_by_set(results, arm).items() if key in without]
        detectable = told["dice_at_val"]["detectable"]
        line += [
            f"{sum(gain > 0 for gain in gains)} of {len(gains)}",
            f"{min(gains):+.2f}, {max(gains):+.2f}",
        ]
        lines.append([*line, f"{float(detectable):.3f}" if detectable else ""])
    return lines


def difference(told: Line) -> str:
    """A paired difference and its interval."""
    if not told["difference"]:
        return ""
    interval = f" [{float(told['low']):+.3f}, {float(told['high']):+.3f}]" if told["low"] else ""
    return f"{float(told['difference']):+.3f}{interval}"


def dice_by_set(results: Sequence[Line], arm: str) -> dict[tuple[str, str], float]:
    """Mean Dice of the test cases by seed and fold, which say who trains."""
    found: dict[tuple[str, str], list[float]] = {}
    for line in results:
        if line["recipe"] == arm and line["dice_at_val"]:
            found.setdefault((line["seed"], line["fold"]), []).append(float(line["dice_at_val"]))
    return {key: fmean(values) for key, values in found.items()}


def table(lines: Sequence[Sequence[str]]) -> str:
    """Lines, the first one the head, as Markdown."""
    head, *rest = lines
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *rest))


if __name__ == "__main__":
    main(sys.argv[1:])
