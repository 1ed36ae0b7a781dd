"""A copy of what every job reads, on a disk of the node: network file systems are slow at small reads."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from lesionsynth.bank.store import INDEX
from lesionsynth.digest import digest_json
from lesionsynth.errors import OutputError
from lesionsynth.run.models import MODELS
from lesionsynth.run.workspace import BANK, Workspace, plan_digest

_LIKELIHOOD = "likelihood"


def staged(space: Workspace, work: Path) -> Workspace:
    """The workspace with bank and maps under `work`, shared by all runs of this output's plan on the node.

    Lesions and maps are copied; tissue and zones, of which a job reads its host's alone, are linked.

    Raises
    ------
    OutputError
        If they cannot be copied.
    """
    target = work / f"lesionsynth-{digest_json([plan_digest(space.output), str(space.output.resolve())])}"
    try:
        if not target.is_dir():
            work.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".lesionsynth-", dir=work) as folder:
                made = Path(folder) / "made"
                (made / BANK).mkdir(parents=True)
                shutil.copyfile(space.bank / INDEX, made / BANK / INDEX)
                shutil.copytree(space.bank / "lesions", made / BANK / "lesions")
                shutil.copytree(space.fits / _LIKELIHOOD, made / _LIKELIHOOD)
                if (space.fits / MODELS).is_dir():
                    shutil.copytree(space.fits / MODELS, made / MODELS)
                for name in ("tissue", "zones"):
                    (made / BANK / name).symlink_to((space.bank / name).resolve())
                _move(made, target)
    except OSError as error:
        raise OutputError(
            f"bank and maps cannot be copied there ({error.strerror or error}).",
            file=work,
            remedy="Give --work a folder of a disk with room, or leave it out.",
        ) from None
    return replace(space, bank=target / BANK, fits=target)


def _move(made: Path, target: Path) -> None:
    """Rename a folder that another process may just have made too, with the same content."""
    try:
        os.rename(made, target)
    except OSError:
        if not target.is_dir():
            raise
