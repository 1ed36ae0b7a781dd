"""Pictures in rows and columns with headings, as one image."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from lesionsynth.qc.pictures.panels import ADDED, KEPT, REMOVED, Rgb

_GAP_PX = 6
_TEXT_PX = 14
_LINE_PX = 20
_GROUND, _INK = (17, 17, 17), (235, 235, 235)
LEGEND = (("lesion of the host", KEPT), ("added", ADDED), ("removed", REMOVED))


def mosaic(
    headings: Sequence[str],
    rows: Sequence[tuple[str, Sequence[Rgb | None]]],
    caption: Sequence[str] = (),
) -> Image.Image:
    """Lay pictures out under headings.

    Parameters
    ----------
    headings : sequence of str
        One a column; lines are broken at line feeds.
    rows : sequence of (str, sequence of ndarray)
        What stands above a row, and its pictures, (rows, columns, 3) uint8; None leaves a gap.
    caption : sequence of str
        Lines at the top.

    Returns
    -------
    PIL.Image.Image
        RGB.
    """
    font = ImageFont.load_default(_TEXT_PX)
    columns = len(headings)
    pictures = [[p for _, row in rows if (p := row[c]) is not None] for c in range(columns)]
    widths = [
        max([p.shape[1] for p in pictures[c]] + [int(_width(font, line)) for line in headings[c].split("\n")])
        for c in range(columns)
    ]
    heights = [max([p.shape[0] for p in row if p is not None], default=0) for _, row in rows]
    head = _LINE_PX * (len(caption) + 1 + max(h.count("\n") + 1 for h in headings)) + _GAP_PX
    lines = [_LINE_PX if name else 0 for name, _ in rows]
    width = max(
        sum(widths) + _GAP_PX * (columns + 1),
        *(int(_width(font, line)) + 2 * _GAP_PX for line in caption),
        *(int(_width(font, name)) + 2 * _GAP_PX for name, _ in rows),
        _legend_width(font),
    )
    height = head + sum(heights) + sum(lines) + _GAP_PX * (len(rows) + 1)
    image = Image.new("RGB", (width, height), _GROUND)
    draw = ImageDraw.Draw(image)
    y = _GAP_PX // 2
    for line in caption:
        draw.text((_GAP_PX, y), line, _INK, font)
        y += _LINE_PX
    _legend(draw, y, font)
    y += _LINE_PX
    lefts = [_GAP_PX + sum(widths[:c]) + _GAP_PX * c for c in range(columns)]
    for left, heading in zip(lefts, headings, strict=True):
        draw.multiline_text((left, y), heading, _INK, font)
    y = head
    for (name, row), tall, above in zip(rows, heights, lines, strict=True):
        if name:
            draw.text((_GAP_PX, y), name, _INK, font)
        y += above
        for left, picture in zip(lefts, row, strict=True):
            if picture is not None:
                image.paste(Image.fromarray(picture), (left, y))
        y += tall + _GAP_PX
    return image


def png_bytes(image: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _width(font: ImageFont.FreeTypeFont | ImageFont.ImageFont, text: str) -> float:
    return float(font.getlength(text))


def _legend_width(font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    return int(sum(_width(font, name) + 30 for name, _ in LEGEND)) + _GAP_PX


def _legend(draw: ImageDraw.ImageDraw, y: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> None:
    x = float(_GAP_PX)
    for name, colour in LEGEND:
        draw.rectangle((x, y + 4, x + 10, y + 14), outline=colour, width=2)
        draw.text((x + 15, y), name, _INK, font)
        x += _width(font, name) + 30
