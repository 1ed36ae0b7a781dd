"""What layouts without a description have in common: a walk through folders, and fixed labels."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from lesionsynth.domain.case import Cohort
from lesionsynth.domain.roles import guess_roles
from lesionsynth.errors import InputError


def _differ(values: dict[str, int]) -> dict[str, int]:
    if len(set(values.values())) < len(values):
        raise ValueError("two labels have the same value")
    return values


Labels = Annotated[
    dict[str, Annotated[int, Field(ge=0, le=65535)]], Field(min_length=1), AfterValidator(_differ)
]
"""Label names and values."""


def cannot_hold(kind: str, cohort: Cohort, why: str) -> InputError:
    """The error of a cohort that does not fit into a layout."""
    return InputError(
        f"the layout {kind} cannot hold this data set: {why}",
        file=cohort.root,
        remedy="Say it in the keys of the layout, where it has such, or choose another output.layout.",
    )


def require_roles(kind: str, labels: Mapping[str, int], cohort: Cohort) -> None:
    """Refuse a cohort whose label values mean something else in a layout, which does not write their names.

    Raises
    ------
    InputError
    """
    if cohort.layout == kind:
        return
    roles = {labels[name]: role for name, role in guess_roles(labels).items()}
    for name, value in cohort.labels.values.items():
        role = cohort.labels.roles[name]
        if labels.get(name) != value and roles.get(value) != role:
            known = ", ".join(f"{v} {n}" for n, v in labels.items())
            raise cannot_hold(kind, cohort, f"its label {value} is {name} ({role}), not one of {known}.")


def folders_below(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every folder from `root` down with the names of its files, in order, without what is hidden.

    Links to folders are followed; a folder that is met again by one is passed over, so that a circle of
    links ends.
    """
    seen: set[tuple[int, int]] = set()
    for folder, below, names in os.walk(root, followlinks=True):
        about = Path(folder).stat()
        if (about.st_dev, about.st_ino) in seen:
            below.clear()
            continue
        seen.add((about.st_dev, about.st_ino))
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield Path(folder), sorted(name for name in names if not name.startswith("."))
