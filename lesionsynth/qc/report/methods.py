"""The methods section of a paper for one run: sentences of what was used, with citations and BibTeX."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import lesionsynth
from lesionsynth.plugins.contracts import OperationSpec, SourceSpec
from lesionsynth.recipe.model import FoldSpec, Recipe
from lesionsynth.spec import summary_of

_CITED = re.compile(r"\[((?:@\w+)(?:; ?@\w+)*)\]")
_KEY = re.compile(r"@(\w+)")
_FIELD = re.compile(r"^  (\w+) = \{(.*)\},$", re.MULTILINE)
_TISSUES = {
    "map": "Tissue was taken from label images that were given.",
    "mixture": "Tissue was found by a mixture of three Gaussians on the intensities inside the brain.",
    "organ": "Lesions were kept to the organ label.",
    "mask": "Everything that was not air counted as one tissue.",
}
_CHANGED = "All other voxels of a copy's images are those of its host."


@dataclass(frozen=True)
class Run:
    """What a run has come to, as far as the section tells it.

    Parameters
    ----------
    recipe : Recipe
    made, hosts, subjects : int
        Synthetic cases, the cases that they were made of, and whose these are.
    tissues : sequence of str
        Ways in which the tissue of the cases was found (`tissue_kind` of the bank).
    has_folds : bool
        Whether splits were made.
    """

    recipe: Recipe
    made: int
    hosts: int
    subjects: int
    tissues: Sequence[str]
    has_folds: bool


@dataclass(frozen=True)
class Reference:
    """One entry of the bibliography: its key, as BibTeX, in words, and where it is found on the web."""

    key: str
    bibtex: str
    text: str
    link: str


@dataclass(frozen=True)
class Methods:
    """The section: sentences with numbers in brackets for citations, and what these stand for."""

    sentences: tuple[str, ...]
    references: tuple[Reference, ...]

    @property
    def bibtex(self) -> str:
        """All references."""
        return "\n\n".join(reference.bibtex for reference in self.references) + "\n"


def methods_of(run: Run) -> Methods:
    """The methods section of a run."""
    told = dict.fromkeys(_sentences(run))  # what two steps share is said once
    keys: dict[str, int] = {}

    def number(match: re.Match[str]) -> str:
        cited = _KEY.findall(match.group(1))
        # A kind of another package may cite what is not in our bibliography: its key then stands in the text.
        found = [str(keys.setdefault(k, len(keys) + 1)) if k in bibliography() else k for k in cited]
        return f"[{', '.join(found)}]"

    sentences = tuple(_CITED.sub(number, sentence) for sentence in told)
    return Methods(sentences, tuple(bibliography()[key] for key in keys))


def _sentences(run: Run) -> Iterator[str]:
    recipe = run.recipe
    each = "each and fold" if recipe.folds.strategy == "per_fold" else "each"
    yield (
        f"With lesionsynth {lesionsynth.__version__}, {_counted(run.made, 'synthetic case')} "
        f"{'was' if run.made == 1 else 'were'} made of {_counted(run.hosts, 'case')} of "
        f"{_counted(run.subjects, 'subject')}, up to {recipe.output.copies} of {each} (seed {recipe.seed})."
    )
    yield from recipe.folds.methods() if run.has_folds else FoldSpec(strategy="none").methods()
    if recipe.input.resample != "none":
        yield f"Channels on another grid than the label map were resampled to it ({recipe.input.resample})."
    yield from (_TISSUES[kind] for kind in sorted(set(run.tissues)))
    for step in recipe.steps.values():
        sources = [recipe.sources[name] for name in step.source_names()]
        replaced = {s for source in sources if source.own_geometry for s in _geometry_of(step)}
        own = [sentence for sentence in _told(step) if sentence not in replaced]
        yield from own[:1]
        for source in sources:
            yield from _told(source)
        yield from own[1:]
    if any(step.uses_map for step in recipe.steps.values()):
        yield from recipe.likelihood.methods()
    yield _CHANGED


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _told(kind: OperationSpec | SourceSpec) -> list[str]:
    """What a kind says; its name and summary first where it says nothing of itself, as a plug-in may."""
    told = list(kind.methods())
    if told == list(kind.methods_of_parts()):
        told.insert(0, f"Kind {kind.kind}: {summary_of(type(kind))}.")
    return told


def _geometry_of(step: object) -> list[str]:
    geometry = getattr(step, "geometry", None)
    return [] if geometry is None else list(geometry.methods())


@cache
def bibliography() -> dict[str, Reference]:
    """Everything that methods may cite, by key."""
    text = (resources.files("lesionsynth.qc.report") / "references.bib").read_text("utf-8")
    entries = [entry.strip() for entry in text.split("\n\n") if entry.strip()]
    return {reference.key: reference for reference in map(_reference, entries)}


def _reference(entry: str) -> Reference:
    head = re.match(r"@\w+\{(\w+),", entry)
    assert head is not None, entry
    fields = {name: value.replace("{", "").replace("}", "") for name, value in _FIELD.findall(entry)}
    where = fields.get("journal") or fields.get("booktitle") or ""
    number = f"({fields['number']})" if "number" in fields else ""
    volume = f" {fields['volume']}{number}" if "volume" in fields else ""
    parts = [_authors(fields.get("author", "")), fields["title"], where + volume, fields.get("year", "")]
    doi, arxiv = fields.get("doi"), fields.get("eprint")
    link = f"https://doi.org/{doi}" if doi else f"https://arxiv.org/abs/{arxiv}" if arxiv else ""
    return Reference(head.group(1), entry, ". ".join(part for part in parts if part) + ".", link)


def _authors(field: str) -> str:
    """Family names, and "et al." for the fourth and further ones."""
    names = [name.partition(",")[0] for name in field.split(" and ") if name]
    more = "others" in names or len(names) > 3
    shown = [name for name in names if name != "others"][: 1 if more else 3]
    return ", ".join(shown) + (" et al" if more else "")
