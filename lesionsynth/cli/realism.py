"""The command that asks whether the synthetic looks like the real: realism."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lesionsynth.cli.app import app
from lesionsynth.cli.terminal import AsJson, Overrides, Quiet, Terminal, Workers, print_json, table
from lesionsynth.errors import ExitCode

if TYPE_CHECKING:
    from lesionsynth.qc.realism.compare import Realism
    from lesionsynth.qc.realism.two_sample import Estimate

_DONOR_FLOOR = 0.8
"""About what moving real lesions within their own patient by flips reaches; see docs/reference/realism.md."""

_FEW_HOSTS, _TURNED = 4, 0.4


@app.command()
def realism(
    real: Annotated[Path, typer.Argument(metavar="REAL", help="Folder of the real data set.")],
    synthetic: Annotated[
        Path,
        typer.Argument(
            metavar="SYNTH", help="Output folder of a run on it, or a data set with the same channels."
        ),
    ],
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", "-r", help="Recipe with the limits; that of the output's lock by default."),
    ] = None,
    overrides: Overrides = None,
    n_jobs: Workers = "1",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write the result as JSON, such as SYNTH/realism.json."
        ),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Say how far synthetic lesions can be told from real ones; exit 1 beyond the limits of the recipe."""
    from lesionsynth import nifti
    from lesionsynth.cli.terminal import open_recipe
    from lesionsynth.qc.realism.compare import compare
    from lesionsynth.run.machine import engine_of

    given = None if recipe is None else open_recipe(recipe, overrides)
    with Terminal(quiet) as terminal:
        found = compare(real, synthetic, given, engine_of(n_jobs, None), terminal, overrides or ())
    if output is not None:
        text = json.dumps(found.as_json(), indent=1) + "\n"
        nifti.write_bytes(output.absolute(), text.encode())
    if as_json:
        print_json(found.as_json())
    else:
        _tell(found)
    if found.breaches:
        raise typer.Exit(ExitCode.FINDINGS)


def _tell(found: Realism) -> None:
    """Print all figures, and what they mean."""
    for what, n in (("real", found.n_real), ("synthetic", found.n_synthetic)):
        kind = "added lesions" if what == "synthetic" else "lesions"
        print(
            f"{what}: {n.lesions_looked_at} of {n.lesions} {kind} in {n.cases_looked_at} of {n.cases} cases"
        )
    for note in found.notes:
        print(f"note: {note}")
    rows: list[tuple[str, ...]] = [
        (
            row.feature,
            _number(row.real),
            _number(row.synthetic),
            _number(row.synthetic / row.real if row.real and row.synthetic is not None else None),
            f"{row.ks:.2f}",
            _number(row.wasserstein),
            f"{row.n_real}/{row.n_synthetic}",
        )
        for row in found.features
    ]
    print()
    columns = ("feature", "real", "synthetic", "ratio", "KS", "moved by", "n real/synthetic")
    table("Lesions, medians: KS 0 alike, 1 apart; moved by: in spreads of the real ones", columns, rows)
    lesions, fills, memory = found.lesions, found.fills, found.memorised
    print()
    table(
        "A classifier that tells made from real: 0.5 it cannot, 1 always",
        ("", "area", "95 % interval", "real halves (sd)", "n real/synthetic", "kept apart"),
        [
            _area("lesions, by donor", lesions.by_donor, "donor lesions", lesions.floor_by_donor),
            _area("lesions, by host", lesions.by_host, "hosts", lesions.floor_by_host),
            _area("their surroundings alone", lesions.place, "donor lesions"),
            _area("fills, by place", fills.by_place, "places", fills.floor),
            _area("fills, by host", fills.by_host, "hosts"),
            _area("their surroundings alone", fills.place, "places"),
        ],
    )
    print()
    if memory.near_share is None:
        print(f"memorised: not judged ({memory.note}).")
    else:
        print(
            f"memorised: {memory.near_share:.0%} of {memory.n_added} added lesions are nearer to a real one "
            f"that was at hand than 1 in 20 of {memory.n_held_out} held-out real ones ({memory.how}). "
            "New lesions should have about 5%; real ones that were only moved have more. "
            f"Median distance {memory.added:.2f}, held out {memory.held_out:.2f}."
        )
        if memory.coverage < 1:
            print(
                f"{memory.coverage:.0%} of the real lesions were looked at: copies of others seem new "
                "(realism.cases)."
            )
    print()
    for line in _verdict(found):
        print(line)
    for breach in found.breaches:
        print(f"beyond the limit: {breach}")


def _area(name: str, found: Estimate, kept_apart: str, floor: Estimate | None = None) -> tuple[str, ...]:
    sizes = f"{found.n_real}/{found.n_synthetic}"
    halves = ""
    if floor is not None and floor.value is not None and floor.high is not None:
        halves = f"{floor.value:.2f} ({floor.high - floor.value:.2f})"
    if found.value is None:
        return (name, "-", "", halves, sizes, "")  # the verdict says why
    interval = f"{_number(found.low)} to {_number(found.high)}"
    return (name, f"{found.value:.2f}", interval, halves, sizes, f"{found.n_groups} {kept_apart}")


def _number(value: float | None) -> str:
    """A number with three digits; a dash where there is none."""
    if value is None:
        return "-"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _verdict(found: Realism) -> list[str]:
    """What the areas mean, in words."""
    lines = []
    for what, estimate in (
        ("added lesions, by donor", found.lesions.by_donor),
        ("added lesions, by host", found.lesions.by_host),
        ("filled places", found.fills.by_place),
    ):
        if estimate.value is None:
            lines.append(f"{what}: not judged ({estimate.note}).")
        else:
            lines.append(f"{what}: {_in_words(estimate.value)} ({estimate.value:.2f}).")
    hosts = found.lesions.by_host
    if hosts.value is not None and (hosts.value < _TURNED or hosts.n_both < _FEW_HOSTS):
        lines.append(
            f"By host says little here: {hosts.n_both} host(s) hold real and added lesions. Below 0.5, what "
            "gives a lesion away in one host is how real ones look in another."
        )
    if found.lesions.by_donor.value is not None:
        lines.append(
            "By donor is the strict test: real lesions that were only moved reach about "
            f"{_DONOR_FLOOR:g} in it. See docs/reference/realism.md."
        )
    return lines


def _in_words(area: float) -> str:
    for limit, words in (
        (_TURNED, "what is learned of some turns round in others, which says little"),
        (0.6, "can hardly be told from real"),
        (0.75, "can be told from real now and then"),
        (0.9, "can be told from real more often than not"),
        (0.97, "can mostly be told from real"),
    ):
        if area < limit:
            return words
    return "can be told from real nearly always"
