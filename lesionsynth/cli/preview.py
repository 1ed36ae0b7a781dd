"""The command preview."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lesionsynth.cli.app import app
from lesionsynth.cli.make import recipe_of
from lesionsynth.cli.terminal import (
    InputFolder,
    Memory,
    OnDevice,
    Overrides,
    Quiet,
    RecipeName,
    Seed,
    Terminal,
    Workers,
)

if TYPE_CHECKING:
    from lesionsynth.qc.preview import Variant

_MOST = 16


@app.command()
def preview(
    recipe: RecipeName,
    input_folder: InputFolder,
    case: Annotated[
        str | None,
        typer.Option("--case", "-c", help="Host; where not given, the first of the plan that can be edited."),
    ] = None,
    montage: Annotated[
        int | None,
        typer.Option("--montage", "-m", help="Show so many copies of the case.", min=1, max=_MOST),
    ] = None,
    sweep: Annotated[
        str | None,
        typer.Option(
            "--sweep",
            metavar="KEY=V1,V2,...",
            help="Show one copy with each value of a key, such as steps.add.blend.k=0.5,0.75,1.",
        ),
    ] = None,
    channel: Annotated[
        str | None,
        typer.Option("--channel", help="Channel shown; where not given, the one in which lesions stand out."),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Picture to write; its name ends with .png.")
    ] = Path("preview.png"),
    keep: Annotated[
        Path | None,
        typer.Option("--keep", help="Folder in which bank and maps stay, so that the next preview is quick."),
    ] = None,
    seed: Seed = None,
    overrides: Overrides = None,
    n_jobs: Workers = "1",
    mem: Memory = None,
    device: OnDevice = "auto",
    quiet: Quiet = False,
) -> None:
    """Make one case in memory and draw it: host, synthetic, difference, lesion outlines, source map."""
    import tempfile

    from lesionsynth import nifti
    from lesionsynth.qc.pictures.mosaic import png_bytes
    from lesionsynth.qc.preview import Wish, picture, variants
    from lesionsynth.run.machine import engine_of

    if montage is not None and sweep is not None:
        raise typer.BadParameter("--montage and --sweep exclude each other.")
    if output.suffix.lower() != ".png":
        raise typer.BadParameter(f"--output {output}: the name of the picture should end with .png.")
    if sweep is not None:
        texts = [[*(overrides or ()), said] for said in _values(sweep)]
        wishes = [Wish(text[-1], recipe_of(recipe, text, None, seed), 0) for text in texts]
    else:
        parsed = recipe_of(recipe, overrides, None, seed)
        if montage is not None and montage > parsed.output.copies:
            parsed = recipe_of(recipe, overrides, montage, seed)
        wishes = [Wish("", parsed, number) for number in range(montage or 1)]
    with ExitStack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lesionsynth-")))
        terminal = stack.enter_context(Terminal(quiet))
        engine = engine_of(n_jobs, mem)
        made = list(variants(wishes, input_folder, folder, case, channel, terminal, engine, device))
    drawn = picture(made, f"{recipe}, {input_folder.absolute().name}")
    nifti.write_bytes(output, png_bytes(drawn))
    if quiet:
        return
    for variant in made:
        print(f"{variant.title}: {variant.facts}".replace("\n", "; "))
    if sys.stdout.isatty():
        _show(made)
    print(f"{output}: {drawn.width} x {drawn.height} pixels")


def _values(sweep: str) -> list[str]:
    """KEY=V1,V2 as KEY=V1 and KEY=V2; commas in brackets or quotes belong to a value."""
    key, equals, text = sweep.partition("=")
    values, open_brackets, quote = [""], 0, ""
    for sign in text:
        if quote or sign in "'\"":
            quote = "" if sign == quote else quote or sign
        else:
            open_brackets += (sign in "[{") - (sign in "]}")
        if sign == "," and open_brackets == 0 and not quote:
            values.append("")
        else:
            values[-1] += sign
    if not key or not equals or not all(value.strip() for value in values):
        raise typer.BadParameter(
            f"--sweep {sweep}: should be KEY=V1,V2,..., such as steps.add.blend.k=0.5,0.75,1."
        )
    if len(values) > _MOST:
        raise typer.BadParameter(f"--sweep {sweep}: at most {_MOST} values are shown.")
    return [f"{key}={value.strip()}" for value in values]


def _show(made: list[Variant]) -> None:
    """Draw the first host and the copies, below each other where they are too wide, in half blocks.

    A character shows two pixels. Nothing is drawn where there are no colours, or no room for a picture.
    """
    from rich.console import Console
    from rich.segment import Segment, Segments
    from rich.style import Style

    console = Console()
    drawn = [(variant.title, variant.thumbs) for variant in made if variant.thumbs is not None]
    if console.color_system is None or console.no_color or not drawn:
        return
    pictures = [("host", drawn[0][1][0]), *((title, copy) for title, (_, copy) in drawn)]
    width = pictures[0][1].shape[1]
    room = (console.width + 1) // (width + 1)
    for first in range(0, len(pictures) if room else 0, max(1, room)):
        shown = pictures[first : first + room]
        print(" ".join(title[:width].ljust(width) for title, _ in shown).rstrip())
        parts: list[Segment] = []
        for row in range(0, shown[0][1].shape[0] - 1, 2):
            for number, (_, pixels) in enumerate(shown):
                parts += [Segment(" ")] if number else []
                for above, below in zip(pixels[row], pixels[row + 1], strict=True):
                    colours = ["rgb({},{},{})".format(*map(int, pixel)) for pixel in (above, below)]
                    parts.append(Segment("▀", Style(color=colours[0], bgcolor=colours[1])))
            parts.append(Segment.line())
        console.print(Segments(parts), end="")
