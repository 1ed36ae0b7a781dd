"""The command `lesionsynth`."""

from __future__ import annotations

import io
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from lesionsynth import __version__
from lesionsynth.errors import ExitCode, LesionsynthError


class Commands(TyperGroup):
    """Turns expected errors into one message and the exit code of their class."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be in any encoding
        try:
            return super().invoke(ctx)
        except LesionsynthError as error:
            print(f"lesionsynth: {error}", file=sys.stderr)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            print("lesionsynth: stopped. The same command continues.", file=sys.stderr)
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        except BrokenPipeError:
            sys.stderr.close()
            raise typer.Exit(ExitCode.OK) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Make larger, better lesion-segmentation data sets from NIfTI images, lesion masks and a recipe.",
    epilog="Start with: lesionsynth init DATASET. Exit codes and all options: docs/reference/cli.md.",
)


def _version(value: bool) -> None:
    if value:
        print(f"lesionsynth {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Entry point, for the words on the command line or for others.

    A fault that nobody foresaw is a bug: said in one line, with the place to report.
    """
    # Cases run in parallel, never solves inside one: several BLAS threads a worker are slower than one.
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    try:
        app(arguments)
    except Exception as error:
        if os.environ.get("LESIONSYNTH_DEBUG"):
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        print(
            f"lesionsynth: unexpected {type(error).__name__} at {Path(place.filename).name}:{place.lineno}: "
            f"{error}. "
            "Please report this; with LESIONSYNTH_DEBUG=1 the whole traceback is shown.",
            file=sys.stderr,
        )
        sys.exit(ExitCode.INTERNAL)


# Each module adds its commands to `app`.
from lesionsynth.cli import audit, bank, convert, dataset, make  # noqa: E402, F401, I001
from lesionsynth.cli import generate, preview, realism, report, shards, tell, train, trial  # noqa: E402, F401
