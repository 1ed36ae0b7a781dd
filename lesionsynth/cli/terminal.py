"""What commands share: options, progress on stderr, results on stdout."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

    from lesionsynth.recipe.model import Recipe

RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="Path of a recipe, or the name of a shipped one.")
]
InputFolder = Annotated[
    Path, typer.Option("--input", "-i", help="Folder of the data set.", show_default=False)
]
RunFolder = Annotated[Path, typer.Argument(metavar="OUTPUT", help="Output folder of a run.")]
MovedInput = Annotated[Path | None, typer.Option("--input", "-i", help="The input, where it has moved.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        help="Override a value of the recipe, such as steps.add.load=high.",
    ),
]
Workers = Annotated[
    str,
    typer.Option("--n-jobs", "-j", help="Worker processes; auto takes every core that the memory allows."),
]
Memory = Annotated[
    str | None,
    typer.Option("--mem", help="Memory for all workers, such as 16G: no more are started than fit into it."),
]
Scheduler = Annotated[
    str | None,
    typer.Option("--scheduler", metavar="ADDRESS", help="Dask scheduler whose workers do the work."),
]
OnDevice = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda or cuda:i; cuda never falls back to the CPU.")
]
Copies = Annotated[
    int | None,
    typer.Option("--copies", "-n", help="Synthetic cases per host (per fold with per_fold).", min=1),
]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of all randomness.", min=0)]
Update = Annotated[
    bool,
    typer.Option(
        "--update",
        help="Bring an output of another recipe, input or version to this one: what depends on the change is "
        "made again.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no notes.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="More detail.")]

_PLAIN_INTERVAL_S = 10.0


class Terminal:
    """Progress and notes on stderr: a bar in a terminal, lines elsewhere, nothing when quiet."""

    def __init__(self, quiet: bool, verbose: bool = False) -> None:
        self.quiet, self.verbose = quiet, verbose
        self._bar: RichProgress | None = None
        self._task: Any = None
        self._stage, self._total, self._done, self._told = "", 0, 0, ""
        self._started = self._spoken = 0.0

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self._finish()

    def start(self, stage: str, total: int) -> None:
        """A stage begins."""
        self._finish()
        self._stage, self._total, self._done = stage, total, 0
        self._started = self._spoken = time.monotonic()
        self._told = ""
        if self.quiet or total == 0 or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("{task.description:<12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._bar.start()
        self._task = self._bar.add_task(stage, total=total, rate="")

    def advance(self, done: int = 1, told: str = "") -> None:
        """Some items are done; `told` is shown beside the bar, or in a line of its own."""
        self._done += done
        self._told = told or self._told
        now = time.monotonic()
        rate = self._done / max(now - self._started, 1e-6)
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, rate=f"{rate:.2f}/s {self._told}")
        elif not self.quiet and told:
            print(f"{self._stage}: {self._done}/{self._total}, {told}", file=sys.stderr)
        elif not self.quiet and now - self._spoken >= _PLAIN_INTERVAL_S and self._done < self._total:
            self._spoken = now
            left = (self._total - self._done) / rate
            print(
                f"{self._stage}: {self._done}/{self._total}, {rate:.2f}/s, {left:.0f} s left", file=sys.stderr
            )

    def note(self, message: str) -> None:
        """Something the user should know."""
        if not self.quiet:
            self._say(message)

    def detail(self, message: str) -> None:
        """Something for those who asked for more."""
        if self.verbose:
            self._say(message)

    def _say(self, message: str) -> None:
        if self._bar is not None:
            self._bar.console.print(message, markup=False, highlight=False, soft_wrap=True)
        else:
            print(message, file=sys.stderr)

    def _finish(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        elif not self.quiet and self._total:
            seconds = time.monotonic() - self._started
            print(f"{self._stage}: {self._done}/{self._total} in {seconds:.1f} s", file=sys.stderr)
        self._total = 0


def print_json(value: object) -> None:
    """Print one JSON value on stdout."""
    print(json.dumps(value, indent=2))


def table(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print a table on stdout."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=title or None, box=None, title_justify="left", pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        shown.add_column(column, no_wrap=number == 0, overflow="fold")
    for row in rows:
        shown.add_row(*row)

    class Pipeable(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # for the command line to end quietly; rich would exit with 1

    # A pipe gets long lines rather than lines broken at 80 columns.
    Pipeable(markup=False, highlight=False, width=None if sys.stdout.isatty() else 200).print(shown)


def open_recipe(name: str, overrides: list[str] | None) -> Recipe:
    """The recipe with its overrides."""
    from lesionsynth.recipe.load import load_recipe

    return load_recipe(name, overrides or ())
