"""Guess what a label means from its name, where the user has not said it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from lesionsynth.domain.case import Role

_NAMES: tuple[tuple[Role, str], ...] = (
    ("background", r"^background$"),
    ("ignore", r"^ignore$"),
    ("protected", r"other|protected|exclude|vessel|artefact|artifact"),
    (
        "lesion",
        r"lesion|tumou?r|wmh|hyperintens|stroke|infarct|gtv|cancer|metasta|plaque|haemorrhage|hemorrhage"
        r"|oedema|edema|necro|enhanc|nodule|sarcoma|glioma|cyst|^ms$|_ms$",
    ),
    ("organ", r"liver|brain|kidney|pancreas|lung|spleen|prostate|breast|colon|bone|spinal|cord|organ|tissue"),
)


def guess_roles(values: Mapping[str, int]) -> dict[str, Role]:
    """Role of each label by its name.

    A single foreground label is a lesion whatever its name. Labels whose names say nothing are missing
    from the result: the user has to be asked.
    """
    roles: dict[str, Role] = {}
    for name, value in values.items():
        found = next((role for role, pattern in _NAMES if re.search(pattern, name.lower())), None)
        if value == 0:
            found = "background"
        if found is not None:
            roles[name] = found
    foreground = [name for name, value in values.items() if value != 0]
    if len(foreground) == 1 and roles.get(foreground[0]) != "background":
        roles[foreground[0]] = "lesion"
    return roles
