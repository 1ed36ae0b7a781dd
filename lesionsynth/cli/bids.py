"""The command `lesionsynth-bids`: the command line that BIDS Apps share, over `lesionsynth run`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from lesionsynth import __version__
from lesionsynth.errors import LesionsynthError


def main() -> None:
    """Entry point."""
    from lesionsynth.cli.app import main as run

    known, others = _parser().parse_known_args()
    try:
        arguments = arguments_of(known, others)
    except LesionsynthError as error:
        print(f"lesionsynth-bids: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    run(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lesionsynth-bids",
        description="Make an expanded data set of a BIDS data set with lesion masks.",
        epilog="Behind these, every option of `lesionsynth run` may follow, such as --copies, --seed, --set.",
        allow_abbrev=False,
    )
    parser.add_argument("bids_dir", help="Folder of the data set, raw or derivative.")
    parser.add_argument("output_dir", help="Folder for the expanded data set, a BIDS derivative.")
    parser.add_argument(
        "analysis_level",
        choices=("participant", "group"),
        help="participant makes the data set; group merges the parts of a run with --shard.",
    )
    parser.add_argument(
        *("--participant-label", "--participant_label"),
        nargs="+",
        action="extend",
        default=[],
        metavar="LABEL",
        help="Use these participants only, as hosts and as donors (with or without sub-).",
    )
    parser.add_argument(
        *("--session-label", "--session_label"),
        nargs="+",
        action="extend",
        default=[],
        metavar="LABEL",
        help="Use these sessions only (with or without ses-).",
    )
    parser.add_argument("--recipe", default="lesionmix", help="Path or name of a recipe; lesionmix.")
    parser.add_argument(
        *("--n-cpus", "--n_cpus", "--nprocs"), default="auto", metavar="N", help="Worker processes; auto."
    )
    parser.add_argument(
        *("--mem", "--mem-mb"), metavar="MB", help="Memory for all workers, in MB or such as 16G."
    )
    parser.add_argument(
        *("-w", "--work-dir", "--work"), metavar="DIR", help="Folder of a fast local disk for bank and maps."
    )
    parser.add_argument("--version", action="version", version=f"lesionsynth {__version__}")
    return parser


def arguments_of(known: argparse.Namespace, others: Sequence[str]) -> list[str]:
    """What `lesionsynth` is called with.

    Raises
    ------
    LesionsynthError
        If the recipe cannot be read.
    """
    if known.analysis_level == "group":
        return ["finalize", known.output_dir, *others]
    arguments = ["run", known.recipe, "--input", known.bids_dir, "--output", known.output_dir]
    arguments += ["--n-jobs", known.n_cpus]
    if known.mem is not None:
        arguments += ["--mem", known.mem]
    if known.work_dir is not None:
        arguments += ["--work", known.work_dir]
    return [*arguments, "--set", f"input.layout={json.dumps(_layout(known))}", *others]


def _layout(known: argparse.Namespace) -> dict[str, Any]:
    """The recipe's own layout, where it is bids, with the participants and sessions that are asked for."""
    from lesionsynth.cli.terminal import open_recipe

    layout = open_recipe(known.recipe, None).input.layout
    own = layout.model_dump(mode="json") if not isinstance(layout, str) and layout.kind == "bids" else {}
    asked = {"participants": known.participant_label, "sessions": known.session_label}
    return {**own, "kind": "bids", **{key: labels for key, labels in asked.items() if labels}}
