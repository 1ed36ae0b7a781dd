"""JSON files that others wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lesionsynth.errors import InputError


def read_json(path: Path) -> Any:
    """Value of a JSON file.

    Raises
    ------
    InputError
        If it cannot be read, is no JSON, is nested too deeply, or has a key twice.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_unique)
    except OSError as error:
        raise InputError(f"cannot be read as JSON ({error}).", file=path) from None
    except (ValueError, RecursionError) as error:
        remedy = "Correct it there; it has to be one JSON object or list, in UTF-8."
        raise InputError(f"cannot be read as JSON ({error}).", file=path, remedy=remedy) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; of two equal keys, which of the values was meant is not known."""
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {max(names, key=names.count)!r} occurs twice")
    return made
