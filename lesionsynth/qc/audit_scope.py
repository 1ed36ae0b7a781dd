"""What the parts of an audit hand to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lesionsynth import nifti
from lesionsynth.domain.case import CaseFiles, Cohort
from lesionsynth.domain.finding import Finding
from lesionsynth.errors import LesionsynthError
from lesionsynth.plugins.contracts import LayoutSpec
from lesionsynth.qc.audit_evidence import Donor, Weights
from lesionsynth.recipe.model import Recipe

SOURCE_MAPS, LESION_MAPS = "source_maps", "lesion_maps"


@dataclass(frozen=True)
class Scope:
    """What is audited. Sent to the workers, so that its cohort holds no cases."""

    output: Path
    recipe: Recipe
    cohort: Cohort
    layout: LayoutSpec

    def files_of(self, files: CaseFiles, case: str, synthetic: bool) -> list[str]:
        """Paths in the output that a case should have: of each channel, of the label map, maps of its own.

        A 4-D file is there once for each of its channels.
        """
        layout, cohort = self.layout, self.cohort
        paths = [layout.image_path(files, case, k, cohort) for k in range(len(cohort.channels))]
        paths.append(layout.label_path(files, case, cohort))
        maps = {SOURCE_MAPS: self.recipe.output.source_map, LESION_MAPS: self.recipe.output.lesion_map}
        if synthetic:
            paths += [Path(folder) / f"{case}{cohort.file_ending}" for folder, made in maps.items() if made]
        return [path.as_posix() for path in paths]

    def is_there(self, name: str) -> bool:
        """Whether a path in the output is a file, reached without a link that could lead elsewhere."""
        path = self.output / name
        within = (path, *(p for p in path.parents if p != self.output and p.is_relative_to(self.output)))
        return path.is_file() and not any(part.is_symlink() for part in within)

    def read(self, case: str, name: str, cure: str, count: int) -> tuple[nifti.Image, ...] | Finding:
        """The `count` volumes of an image of the output, or what is wrong with it."""
        if not self.is_there(name):
            return Finding("error", "the file is missing.", cure, case, name)
        try:
            return nifti.read_series(self.output / name, count)
        except LesionsynthError as error:
            return Finding("error", error.message, cure, case, name)


@dataclass(frozen=True)
class Evidence:
    """What is needed of one synthetic case to judge the whole output.

    Parameters
    ----------
    case, host, block : str
    host_subject : str
        As the record says.
    donors : tuple of Donor
        Of the record and of its draws.
    fitted_on : tuple of str
        Subjects that the block's fits were made on.
    weights : tuple of Weights
        Trained models, and subjects that they were trained on.
    hashes : dict of str to str
        The record's digests of the voxels of each file.
    row : dict of str to object
        What the manifest should say, but for the digest.
    """

    case: str
    host: str
    block: str
    host_subject: str
    donors: tuple[Donor, ...]
    fitted_on: tuple[str, ...]
    weights: tuple[Weights, ...]
    hashes: Mapping[str, str]
    row: Mapping[str, object]


@dataclass(frozen=True)
class HostAudit:
    """Findings of one host or mask with all that was made of it, and what else was seen.

    `inputs` holds digests of input files by their names, `ml` and `count` are the load of its label map.
    """

    name: str
    findings: tuple[Finding, ...]
    evidence: tuple[Evidence, ...]
    inputs: Mapping[str, str]
    ml: float
    count: int
