"""An output folder: may it be written, is it ours, and what was it made for."""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lesionsynth import nifti
from lesionsynth.errors import LesionsynthError, OutputError
from lesionsynth.json_file import read_json
from lesionsynth.run.workspace import LOCK, read_lock


def check_output(root: Path, output: Path, marker: str = LOCK) -> None:
    """Refuse outputs inside the input, inputs inside the output, and folders that cannot be written.

    A folder that is not empty must hold `marker`, the file by which our own output is known.
    """
    inner, outer = output.resolve(), root.resolve()
    if inner == outer or inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise OutputError(
            "the output folder must not lie inside the input, nor the input inside it.",
            file=output,
            remedy="Choose a folder elsewhere.",
        )
    if output.exists() and not output.is_dir():
        raise OutputError("the output is a file; a folder was expected.", file=output)
    if output.is_dir() and any(output.iterdir()) and not (output / marker).is_file():
        raise OutputError(
            "the output folder holds other files.", file=output, remedy="Choose a new or an empty folder."
        )
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise OutputError(
            f"the output folder cannot be written ({error.strerror or error}).",
            file=output,
            remedy="Choose another folder or correct its permissions.",
        ) from None


def refuse_other(output: Path, marker: str, about: Mapping[str, Any]) -> None:
    """Refuse a folder whose `marker` says that it is for something else than `about`.

    Raises
    ------
    OutputError
        With the first keys that differ.
    """
    path = output / marker
    if not path.is_file():
        return
    try:
        there = read_json(path)
    except LesionsynthError:
        there = None
    there = there if isinstance(there, dict) else {}
    changed = sorted(changed_keys({key: there.get(key) for key in about}, dict(about)))
    if changed:
        more = ", ..." if len(changed) > 3 else ""
        raise OutputError(
            f"the folder was made for something else: {', '.join(changed[:3])}{more} differ.",
            file=output,
            remedy="Choose another folder, or remove this one.",
        )


def claim(output: Path, marker: str, about: Mapping[str, Any]) -> None:
    """Make a folder one for `about`, by a file `marker`; refuse it as :func:`refuse_other` does."""
    refuse_other(output, marker, about)
    if not (output / marker).is_file():
        nifti.write_bytes(output / marker, (json.dumps(about, indent=1) + "\n").encode())


@contextmanager
def as_it_was_on_error(output: Path) -> Iterator[None]:
    """A run that cannot start leaves no new folder and no half-made output behind.

    One that is interrupted does: it is continued. What another run has made there meanwhile stays.
    """
    if output.is_dir() and any(output.iterdir()):
        yield
        return
    new = [folder for folder in (output, *output.parents) if not folder.exists()]
    try:
        yield
    except Exception:
        if (read_lock(output) or {}).get("begun_by") == this_process():
            for path in output.iterdir():
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
        with suppress(OSError):  # one that is not empty ends it
            for folder in new:
                folder.rmdir()
        raise


def this_process() -> str:
    """By what a lock tells who has begun an output."""
    return f"{platform.node()} {os.getpid()}"


def changed_keys(one: Any, other: Any, name: str = "") -> Iterator[str]:
    """Dotted keys in which two JSON values differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() | other.keys():
            yield from changed_keys(one.get(key), other.get(key), f"{name}.{key}" if name else str(key))
    elif one != other:
        yield name
