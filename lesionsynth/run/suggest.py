"""A first recipe for a data set, with comments on what was seen."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from lesionsynth.domain.case import Cohort
from lesionsynth.errors import InputError
from lesionsynth.host import load_case
from lesionsynth.plugins import registry
from lesionsynth.plugins.contracts import LayoutSpec
from lesionsynth.recipe.model import FoldSpec, InputSpec
from lesionsynth.run.cohort import find_layout, open_cohort, require_folder
from lesionsynth.run.fit import typical_count
from lesionsynth.run.folds import find_splits
from lesionsynth.tissue import TissueSpec

_CASES_LOOKED_AT = 12

_UNKNOWN = """\
# lesionsynth did not recognise the layout of {root}.
# Correct the paths below, then: lesionsynth check THIS_FILE --input {quoted}
version: 1
seed: 2026

input:
  layout:
    kind: pattern
    # {{subject}}, {{case}} and any other name in braces stand for one part of a path.
    images:
      FLAIR: "{{subject}}/{{case}}_FLAIR.nii.gz"
      T1: "{{subject}}/{{case}}_T1.nii.gz"
    label: "{{subject}}/{{case}}_mask.nii.gz"
    labels: {{background: 0, lesion: 1}}
{found}
steps:
  add:
    kind: populate
    load: uniform
    contrast: {{kind: host_lesions}}
"""

_KNOWN = """\
# Recipe for {root}
# {summary}
# {loads}
# {tissue}
#
# Next:  lesionsynth check THIS_FILE --input {quoted}
#        lesionsynth run THIS_FILE --input {quoted} --output OUTPUT -j auto
version: 1
seed: 2026

input:
  layout: {{kind: {layout}}}
{subject}{resample}  # What the labels mean: lesion, organ (comes back where a lesion is removed),
  # protected (never touched), ignore, background.
  roles: {roles}{unclear}

output:
  copies: 4          # synthetic cases per host
  originals: copy    # copy, link, omit

folds:
  # {folds}
  strategy: {strategy}    # block, per_fold, none

tissue:
  kind: auto         # {tissue_hint}

likelihood:
  kind: auto         # {likelihood_hint}
  weighting: lesions # lesions, voxels, distance
  smoothing_mm: 5

sources:
  donors:
    kind: lesion_bank
    choice: stratified   # every size class equally likely; uniform: every lesion
    own_subject: avoid   # avoid, forbid, allow

steps:
  add:
    kind: populate
    # low, medium, high, uniform, gaussian, real: of the loads here; a number of mL, or a range [5, 10]: where
    # others are to be expected. In trials nothing helped more than that where lesions were rare.
    load: uniform
    replace: auto        # share of the host's own lesions removed first; {replace_hint}
    contrast:
      kind: host_lesions # as strong as the host's own lesions where it has five or more, else as in the donor
    blend:
      kind: alpha        # alpha, soft_poisson, poisson, rim, hard
"""


def is_recognised(root: Path) -> bool:
    """Whether the data set has a layout that is known without being told."""
    known = registry.kinds("layouts").values()
    return any(issubclass(kind, LayoutSpec) and kind.recognises(root) for kind in known)


def suggest_recipe(root: Path) -> str:
    """Text of a commented recipe for the data set at `root`."""
    require_folder(root)
    if not is_recognised(root):
        files = sorted(p.relative_to(root).as_posix() for p in root.rglob("*.nii*"))[:5]
        if not files and not any(path.is_symlink() for path in root.rglob("*")):  # these may lead to some
            raise InputError("holds no NIfTI file (.nii, .nii.gz).", file=root, remedy="Check the path.")
        found = "".join(f"    # found: {name}\n" for name in files)
        return _UNKNOWN.format(root=root, quoted=shlex.quote(str(root)), found=found)
    unclear = _unclear_labels(root)
    # Resampled where that is needed, so that such a data set can be looked at too.
    _, cohort, _ = open_cohort(InputSpec(roles=dict.fromkeys(unclear, "lesion"), resample="linear"), root)
    step = max(1, len(cohort.cases) // _CASES_LOOKED_AT)
    looked = [load_case(files, cohort, TissueSpec()) for files in cohort.cases[::step][:_CASES_LOOKED_AT]]
    loads = [case.load for case in looked]
    same = all(case.grid.same_as(looked[0].grid) for case in looked)
    resampled = sorted({name for case in looked for name in case.resampled})
    kind = looked[0].tissue_kind
    single = typical_count([load.count for load in loads]) <= 1
    alone = len(cohort.subjects) < 4
    return _KNOWN.format(
        root=root,
        quoted=shlex.quote(str(root)),
        summary=f"{len(cohort.cases)} cases of {len(cohort.subjects)} subjects; "
        f"channels {', '.join(cohort.channels)}; "
        f"grids: {looked[0].grid.describe() if same else 'different ones'}",
        loads=f"lesion load in {len(loads)} cases: {min(x.ml for x in loads):.2f} to "
        f"{max(x.ml for x in loads):.2f} mL, {min(x.count for x in loads)} to "
        f"{max(x.count for x in loads)} lesions",
        tissue=f"tissue: {_TISSUE[kind]}",
        layout=cohort.layout,
        subject=_subject_lines(cohort),
        resample=_RESAMPLE.format(names=", ".join(resampled)) if resampled else "",
        roles="{" + ", ".join(f"{_quoted(n)}: {r}" for n, r in cohort.labels.roles.items()) + "}",
        unclear=f"  # CORRECT THIS: what {', '.join(unclear)} means is a guess" if unclear else "",
        folds=find_splits(cohort, FoldSpec(), 2026)[1]
        + (" Few subjects: with none everything is training data." if alone else ""),
        strategy="none" if alone else "block",
        tissue_hint=f"found here: {kind}; others: map, mixture, organ, mask",
        likelihood_hint="found here: grid, since the grids are equal"
        if same
        else "found here: organ (box of the tissue); affine registers instead",
        replace_hint="auto does so here, since cases hold one lesion" if single else "auto: none here",
    )


_RESAMPLE = """\
  # On another grid than the label map: {names}. Originals are resampled in the output too.
  resample: linear     # cubic; none refuses them
"""

_TISSUE = {
    "map": "from a map",
    "mixture": "fluid, grey and white matter by a mixture of Gaussians in the skull-stripped brain (a\n"
    "# fallback; tissue.map with labels of FreeSurfer, SynthSeg or FAST is better)",
    "organ": "the organ label",
    "mask": "everything that is not air",
}


def _unclear_labels(root: Path) -> list[str]:
    """Labels whose names say nothing of their role."""
    labels = find_layout(InputSpec(), root).scan(root).cohort.labels
    return [name for name in labels.values if name not in labels.roles]


def _subject_lines(cohort: Cohort) -> str:
    if len(cohort.subjects) < len(cohort.cases):
        return f"  # {len(cohort.cases)} cases belong to {len(cohort.subjects)} subjects by their ids.\n"
    return (
        "  # Every case counts as a person of its own. If several are of one, say how ids name the person:\n"
        "  # subject: (sub\\d+)_.*\n"
    )


def _quoted(name: str) -> str:
    """A YAML key: plain where that is safe."""
    return name if re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) else json.dumps(name)
