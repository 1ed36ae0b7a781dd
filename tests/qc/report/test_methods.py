"""The methods section says and cites what was used, and nothing else."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import lesionsynth
from lesionsynth.editing import contrast
from lesionsynth.likelihood.spec import LikelihoodSpec
from lesionsynth.plugins import contracts
from lesionsynth.plugins.registry import kinds
from lesionsynth.qc.report.methods import bibliography, methods_of
from lesionsynth.recipe.load import load_recipe, shipped

ROOT = Path(__file__).parents[3]
PACKAGE = Path(lesionsynth.__file__).parent


def of(recipe: str, *overrides: str) -> tuple[str, list[str]]:
    """The text, and the keys cited."""
    made = methods_of(load_recipe(recipe, overrides), 8, 7, ["mixture"])
    return " ".join(made.sentences), [reference.key for reference in made.references]


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_recipe_has_a_section_with_its_references_in_order(name: str) -> None:
    text, keys = of(name)
    cited = [int(n) for group in re.findall(r"\[([\d, ]+)\]", text) for n in group.split(", ")]
    assert list(dict.fromkeys(cited)) == list(range(1, len(keys) + 1))
    assert "{" not in text
    assert "@" not in text
    assert "None" not in text
    assert text.startswith(f"With lesionsynth {lesionsynth.__version__}, ")


@pytest.mark.parametrize("group", ["operations", "sources", "blends", "fills"])
def test_every_kind_says_what_it_is(group: str) -> None:
    for name, kind in kinds(group).items():
        fields = {"source": "x"} if "source" in kind.model_fields else {}
        own = list(kind(**fields).methods())
        assert own, name
        assert all(sentence.endswith(".") and sentence[0].isupper() for sentence in own), own


@pytest.mark.parametrize(
    ("recipe", "overrides", "there", "not_there"),
    [
        (
            "lesionmix",
            [],
            ["basaran2023", "damelin2018"],
            ["huo2024", "telea2004", "galerne2011", "mattes2003"],
        ),
        ("soft_poisson", [], ["huo2024"], ["perez2003"]),
        ("lesionmix", ["steps.add.blend={kind: poisson}"], ["perez2003"], ["huo2024"]),
        ("lesionmix", ["steps.add.surplus=keep"], ["basaran2023"], ["damelin2018"]),
        ("lesionmix", ["steps.add.mass_effect.p=0.5"], ["bachcuadra2004"], []),
        ("lesionmix", ["steps.add.contrast.kind=histogram"], ["nyul2000"], []),
        ("lesionmix", ["likelihood.kind=affine"], ["mattes2003"], []),
        (
            "pseudo_healthy",
            ["steps.clean.inpaint.texture=spectrum"],
            ["galerne2011"],
            ["basaran2023", "mattes2003"],
        ),
        ("carve_mix", [], ["zhang2021", "zhang2023"], ["unser1999"]),
        ("lesion_warp", [], ["platscher2020"], []),
        ("relocate", [], ["zhang2021objectaug"], ["yang2021"]),
    ],
)
def test_cites_exactly_what_is_used(
    recipe: str, overrides: list[str], there: list[str], not_there: list[str]
) -> None:
    if recipe == "pseudo_healthy":
        step = next(iter(load_recipe(recipe).steps))
        overrides = [text.replace("steps.clean", f"steps.{step}") for text in overrides]
    _, keys = of(recipe, *overrides)
    assert set(there) <= set(keys)
    assert not set(not_there) & set(keys)


def test_values_are_those_of_the_recipe() -> None:
    text, _ = of(
        "soft_poisson", "steps.add.blend.k=[0.25, 0.75]", "steps.add.load=[5, 10]", "output.copies=3"
    )
    assert "with k from 0.25 to 0.75" in text
    assert "drawn evenly from 5 to 10 mL" in text
    assert "3 synthetic copies were made of each of 8 cases of 7 subjects (seed 2026)" in text


def test_a_source_with_a_geometry_of_its_own_replaces_the_steps() -> None:
    text, _ = of("lesion_warp")
    assert text.count("cubic B-splines [") == 1
    assert "probability 1 for each axis" in text
    assert "probability 0.5 for each axis" not in text


def test_a_kind_that_says_nothing_is_named() -> None:
    class Silent(contracts.OperationSpec):
        """Turn lesions into something else.

        In a way that is told here.
        """

        kind: str = "silent"

        def apply(self, canvas, context):  # type: ignore[no-untyped-def]
            raise NotImplementedError

        def replay(self, canvas, context, draws):  # type: ignore[no-untyped-def]
            raise NotImplementedError

    recipe = load_recipe("lesionmix").model_copy(update={"steps": {"turn": Silent()}})
    assert "Kind silent: Turn lesions into something else." in methods_of(recipe, 1, 1, []).sentences


def test_what_two_steps_share_is_said_once() -> None:
    made = methods_of(load_recipe("relocate"), 8, 8, ["mixture"])
    assert len(set(made.sentences)) == len(made.sentences)


def cited_in_the_code() -> set[str]:
    return {
        key
        for path in PACKAGE.rglob("*.py")
        for group in re.findall(r"\[((?:@\w+(?:; )?)+)\]", path.read_text())
        for key in re.findall(r"@(\w+)", group)
        if key != "key"
    }


def test_the_bibliography_holds_what_is_cited_and_no_more() -> None:
    assert cited_in_the_code() == set(bibliography())


def test_the_pages_name_every_reference() -> None:
    text = "".join(path.read_text() for path in (ROOT / "docs").rglob("methods.md"))
    for reference in bibliography().values():
        where = reference.link.rpartition("arxiv.org/abs/")[2].rpartition("doi.org/")[2]
        title = re.search(r"title = \{(.*)\}", reference.bibtex).group(1)  # type: ignore[union-attr]
        wanted = where or title.replace("{", "").replace("}", "").split(":")[-1].strip()
        assert re.sub(r"\s+", " ", wanted).lower() in re.sub(r"\s+", " ", text).lower(), reference.key


def test_bibtex_is_whole() -> None:
    made = methods_of(load_recipe("carve_mix"), 8, 8, ["mixture"])
    for entry in made.bibtex.strip().split("\n\n"):
        assert re.match(r"@(article|inproceedings|misc)\{\w+,\n", entry)
        assert entry.count("{") == entry.count("}")
        assert entry.endswith("\n}")


def test_every_choice_of_a_key_has_its_words() -> None:
    kinds_of_contrast = contrast.ContrastSpec.model_fields["kind"].annotation.__args__  # type: ignore[union-attr]
    for kind in kinds_of_contrast:
        assert list(contrast.ContrastSpec(kind=kind).methods())
    for kind in LikelihoodSpec.model_fields["kind"].annotation.__args__:  # type: ignore[union-attr]
        assert list(LikelihoodSpec(kind=kind, map="m.nii.gz").methods())
    assert set(contracts.Texture.__args__) == set(contracts._TEXTURES)  # type: ignore[attr-defined]
    assert inspect.isgeneratorfunction(LikelihoodSpec.methods)
