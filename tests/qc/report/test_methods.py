"""The methods section says and cites what was used, and nothing else."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import lesionsynth
from lesionsynth.editing import contrast
from lesionsynth.likelihood.spec import LikelihoodSpec
from lesionsynth.plugins import contracts
from lesionsynth.plugins.registry import kinds
from lesionsynth.qc.report.methods import Run, bibliography, methods_of
from lesionsynth.recipe.load import load_recipe, shipped
from lesionsynth.recipe.model import Recipe

ROOT = Path(__file__).parents[3]
PACKAGE = Path(lesionsynth.__file__).parent


def run_of(recipe: Recipe, **more: Any) -> Run:
    return replace(Run(recipe, 30, 8, 7, ["mixture"], True), **more)


def of(recipe: str, *overrides: str) -> tuple[str, list[str]]:
    """The text, and the keys cited."""
    made = methods_of(run_of(load_recipe(recipe, overrides)))
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


GEOMETRY = ["unser1999", "cardoso2015"]
CITED = {
    "lesionmix": ["basaran2023", *GEOMETRY, "damelin2018"],
    "soft_poisson": ["basaran2023", *GEOMETRY, "huo2024", "damelin2018"],
    "soft_poisson_aae": ["basaran2023", "huo2024", "makhzani2015", *GEOMETRY, "damelin2018"],
    "hvae": ["basaran2023", "kebaili2023", *GEOMETRY, "huo2024", "damelin2018"],
    "translation_pix2pix": ["basaran2023", "platscher2020", *GEOMETRY, "huo2024", "damelin2018"],
    "translation_spade": ["basaran2023", "platscher2020", *GEOMETRY, "huo2024", "damelin2018"],
    "translation_image": ["basaran2023", *GEOMETRY, "damelin2018", "platscher2020"],
    "translation_cyclegan": ["basaran2023", "platscher2020", *GEOMETRY, "huo2024", "damelin2018"],
    "open_ms": ["basaran2023", *GEOMETRY, "damelin2018"],
    "lesion_warp": ["basaran2023", "platscher2020", *GEOMETRY, "damelin2018"],
    "mask_library": ["basaran2023", *GEOMETRY, "damelin2018"],
    "intensity_bump": ["basaran2023", "lesionscynth", *GEOMETRY, "damelin2018"],
    "ellipsoid": ["basaran2023", "hu2023", *GEOMETRY, "damelin2018"],
    "lesionmix_published": ["basaran2023", *GEOMETRY, "telea2004"],
    "pseudo_healthy": ["damelin2018"],
    "relocate": ["damelin2018", "zhang2021objectaug", *GEOMETRY],
    "carve_mix": ["zhang2021", "zhang2023"],
    "carve_mix_compatible": ["zhang2021", "zhang2023"],
    "copy_paste": ["yang2021", *GEOMETRY],
    "self_mix": ["zhu2022", *GEOMETRY],
}
"""What the methods section of each shipped recipe cites, in order."""


@pytest.mark.parametrize("name", sorted(shipped()))
def test_cites_exactly_what_is_used(name: str) -> None:
    assert of(name)[1] == CITED[name]


@pytest.mark.parametrize(
    ("overrides", "more", "less"),
    [
        (["steps.add.blend={kind: poisson}"], {"perez2003"}, set()),
        (["steps.add.blend={kind: rim}"], set(), set()),
        (["steps.add.surplus=keep"], set(), {"damelin2018"}),
        (["steps.add.mass_effect.p=0.5"], {"bachcuadra2004"}, set()),
        (["steps.add.contrast.kind=histogram"], {"nyul2000"}, set()),
        (["likelihood.kind=affine"], {"mattes2003"}, set()),
        (
            ["steps.add.inpaint={kind: trend, texture: spectrum}"],
            {"matheron1973", "galerne2011"},
            {"damelin2018"},
        ),
    ],
)
def test_a_change_of_the_recipe_changes_what_is_cited(
    overrides: list[str], more: set[str], less: set[str]
) -> None:
    assert set(of("lesionmix", *overrides)[1]) == (set(CITED["lesionmix"]) | more) - less


@pytest.mark.parametrize("name", sorted(shipped()))
def test_a_map_is_told_where_places_are_drawn_from_one(name: str) -> None:
    text, _ = of(name, "likelihood.kind=affine") if name != "open_ms" else of(name)
    uses = any(step.uses_map for step in load_recipe(name).steps.values())
    assert ("likelihood map" in text) == uses
    assert uses == (
        name
        not in {"pseudo_healthy", "relocate", "carve_mix", "carve_mix_compatible", "copy_paste", "self_mix"}
    )


def test_lesions_that_are_removed_first_are_told() -> None:
    assert "the host's own were removed first" in of("lesionmix")[0]
    assert (
        "Of the host's own lesions 25 % were removed first." in of("lesionmix", "steps.add.replace=0.25")[0]
    )
    text, _ = of("lesionmix", "steps.add.replace=0")
    assert "removed first" not in text
    assert "one lesion was exchanged" in text
    assert "exchanged" not in of("lesionmix", "steps.add.surplus=keep")[0]


def test_limits_that_let_everything_pass_are_not_told() -> None:
    assert "drawn again" not in of("lesionmix_published")[0]
    assert "its contrast was not 0.25 to 4 times what was intended" in of("copy_paste")[0]


def test_what_was_made_is_told_and_not_what_was_planned() -> None:
    recipe = load_recipe("lesionmix", ["output.copies=5"])
    text = methods_of(run_of(recipe, made=1, hosts=1, subjects=1)).sentences[0]
    assert "1 synthetic case was made of 1 case of 1 subject, up to 5 of each (seed 2026)." in text
    alone = " ".join(methods_of(run_of(recipe, has_folds=False)).sentences)
    assert "no folds were kept apart" in alone
    assert "validation fold" not in alone
    assert "resampled to it (cubic)" in of("lesionmix", "input.resample=cubic")[0]


def test_values_are_those_of_the_recipe() -> None:
    text, _ = of(
        "soft_poisson", "steps.add.blend.k=[0.25, 0.75]", "steps.add.load=[5, 10]", "output.copies=3"
    )
    assert "with k from 0.25 to 0.75" in text
    assert "drawn evenly from the range 5 to 10 mL" in text
    assert "30 synthetic cases were made of 8 cases of 7 subjects, up to 3 of each (seed 2026)" in text


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

    class Citing(Silent):
        """Cite what the bibliography does not have."""

        method = "Lesions were turned [@nobody1900; @telea2004]."

    class Filling(Silent):
        """Fill what nobody sees."""

        inpaint: contracts.FillSpec = load_recipe("lesionmix").steps["add"].inpaint

    steps = {"turn": Silent(), "cite": Citing(), "fill": Filling()}
    made = methods_of(run_of(load_recipe("lesionmix").model_copy(update={"steps": steps})))
    assert "Kind silent: Turn lesions into something else." in made.sentences
    assert "Lesions were turned [nobody1900, 1]." in made.sentences
    named = made.sentences.index("Kind silent: Fill what nobody sees.")
    assert "were filled" in made.sentences[named + 1], "it says what its parts do"
    assert [reference.key for reference in made.references] == ["telea2004", "damelin2018"]


def test_what_two_steps_share_is_said_once() -> None:
    made = methods_of(run_of(load_recipe("relocate")))
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
    made = methods_of(run_of(load_recipe("carve_mix")))
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
