"""Recipes: errors name file and line, nothing is evaluated, nothing explodes."""

from __future__ import annotations

import re
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lesionsynth.errors import ExitCode, RecipeError
from lesionsynth.recipe.load import find_recipe, load_recipe, recipe_of, shipped
from lesionsynth.recipe.model import Recipe, deciding, resolved

MINIMAL = "steps:\n  add:\n    kind: populate\n"


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "recipe.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def fault(folder: Path, text: str | bytes, *overrides: str) -> str:
    """Message about a recipe, with the name of its file left out of the path."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(write(folder, text)), overrides)
    assert caught.value.exit_code == ExitCode.RECIPE
    return str(caught.value).replace(f"{folder}/", "")


class TestFind:
    @pytest.mark.parametrize("name", sorted(shipped()))
    def test_shipped_ones_load(self, name: str) -> None:
        recipe = load_recipe(name)
        assert recipe.description
        assert recipe == load_recipe(str(shipped()[name]))
        assert Recipe.model_validate(resolved(recipe)) == recipe

    def test_every_file_in_recipes_is_shipped(self) -> None:
        folder = Path(__file__).parents[2] / "recipes"
        assert {path.stem for path in folder.glob("*.yaml")} == set(shipped())

    def test_a_path_counts_before_a_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        write(tmp_path, MINIMAL).rename("lesionmix.yaml")
        assert find_recipe("lesionmix.yaml") == Path("lesionmix.yaml")
        assert find_recipe("lesionmix") == shipped()["lesionmix"]
        (tmp_path / "plain").write_text(MINIMAL)
        assert find_recipe("plain") == Path("plain")

    @pytest.mark.parametrize(
        ("name", "match"),
        [
            ("lesionmx", "no recipe called 'lesionmx'. Did you mean lesionmix?"),
            ("zzz", "no recipe called 'zzz'. Shipped recipes: carve_mix, "),
            ("zzz.yaml", "zzz.yaml: there is no such recipe file."),
            ("sub/zzz", "sub/zzz: there is no such recipe file."),
            (".", "no recipe called '.'"),
        ],
    )
    def test_unknown_ones(self, name: str, match: str) -> None:
        with pytest.raises(RecipeError, match=re.escape(match)):
            find_recipe(name)


class TestErrors:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "steps:\n  add:\n    kind: populate\n    laod: high\n",
                "recipe.yaml:4: unknown key steps.add.laod. Did you mean load?",
            ),
            (
                MINIMAL + "input: {layout: nnunt}\n",
                "recipe.yaml:4: input.layout.kind should be one of bids, decathlon, lits, nnunet, pattern, "
                "wmh2017, got 'nnunt'. "
                "Did you mean nnunet?",
            ),
            (MINIMAL + "output: 3\n", "recipe.yaml:4: output should hold keys and values, got 3."),
            (MINIMAL + "sed: 3\n", "recipe.yaml:4: unknown key sed. Did you mean seed?"),
            (MINIMAL + "xyzzy: 3\n", "recipe.yaml:4: unknown key xyzzy."),
            (
                MINIMAL + "input:\n  # comment\n\n  layout: {kind: pattern, imges: x}\n",
                "recipe.yaml:7: unknown key input.layout.imges. Did you mean images?",
            ),
            (
                "steps:\n  add:\n    kind: populte\n",
                "recipe.yaml:3: steps.add.kind should be one of carve_mix, copy_paste, inpaint, "
                "populate, self_mix, translate, got 'populte'. "
                "Did you mean populate?",
            ),
            (
                "steps:\n  add:\n    load: high\n",
                "recipe.yaml:2: steps.add needs a `kind` beside its other keys.",
            ),
            (
                "steps:\n  add:\n    kind: populate\n    load: hihg\n",
                "recipe.yaml:4: steps.add.load should be low, medium, high, uniform, gaussian, real, fixed, "
                "range or log_range, got 'hihg'. Did you mean high?",
            ),
            (
                MINIMAL + "folds:\n  strategy: blocks\n",
                "recipe.yaml:5: folds.strategy should be block, per_fold or none, got 'blocks'. "
                "Did you mean block?",
            ),
            (MINIMAL + "seed: -1\n", "recipe.yaml:4: seed should be greater than or equal to 0, got -1."),
            (MINIMAL + "seed: [1]\n", "recipe.yaml:4: seed should be a valid integer."),
            (MINIMAL + "seed: .nan\n", "recipe.yaml:4: seed should be a finite number, got nan."),
            (
                "steps:\n  add:\n    kind: populate\n    geometry:\n      rotate: {degrees: [30, 10]}\n",
                "recipe.yaml:5: steps.add.geometry.rotate.degrees should be [low, high] with low <= high, "
                "got [30, 10].",
            ),
            (MINIMAL + "likelihood:\n  smoothing_mm: .inf\n", "recipe.yaml:5: likelihood.smoothing_mm "),
            ("version: 1\n", "recipe.yaml: steps is missing."),
            ("", "recipe.yaml: steps is missing."),
            ("# nothing\n", "recipe.yaml: steps is missing."),
            ("steps: {}\n", "recipe.yaml:1: steps: at least one step is needed."),
            ("steps:\n", "recipe.yaml:1: steps should hold keys and values, got None."),
            ("- a\n", "recipe.yaml: should hold keys and values."),
            ("words\n", "recipe.yaml: should hold keys and values."),
            ("steps:\n  1st:\n    kind: inpaint\n", "recipe.yaml:2: steps.1st is no name: a letter first"),
            ("version: 2\n" + MINIMAL, "recipe.yaml:1: version should be 1, got 2."),
            (
                "steps:\n  add:\n    kind: populate\n    source: others\n",
                "recipe.yaml:4: steps.add.source names 'others', which `sources` does not declare; declared "
                "are donors.",
            ),
            (
                MINIMAL + "input:\n  subject: '(a'\n",
                "recipe.yaml:5: input.subject is not a regular expression",
            ),
            (
                MINIMAL + "input:\n  subject: a\n",
                "recipe.yaml:5: input.subject should have exactly one group",
            ),
            (
                MINIMAL + "input:\n  masks: {path: m.nii}\n",
                "recipe.yaml:5: input.masks.path should hold {subject}",
            ),
        ],
    )
    def test_say_where_and_what_was_meant(self, tmp_path: Path, text: str, message: str) -> None:
        assert fault(tmp_path, text).startswith(message)

    def test_several_are_told_together(self, tmp_path: Path) -> None:
        lines = fault(
            tmp_path, "sed: 1\n" + MINIMAL + "output:\n  copies: 0\n  original: copy\n"
        ).splitlines()
        assert [line.split(": ")[0] for line in lines] == ["recipe.yaml:6", "recipe.yaml:7", "recipe.yaml:1"]


class TestYaml:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (MINIMAL + "seed: 1\nseed: 2\n", "recipe.yaml:5: the key 'seed' occurs twice."),
            (
                "steps:\n  add: {kind: populate, kind: inpaint}\n",
                "recipe.yaml:2: the key 'kind' occurs twice.",
            ),
            ("a: [\n", "recipe.yaml:2: is not valid YAML ("),
            ("a: 1\n\tb: 2\n", "recipe.yaml:2: is not valid YAML ("),
            ("a: 'open\n", "recipe.yaml:2: is not valid YAML ("),
            ("a: 1\n---\nb: 2\n", "recipe.yaml:2: is not valid YAML ("),
            ("a: *nowhere\n", "recipe.yaml:1: is not valid YAML ("),
            ("a: \x00\n", "recipe.yaml: is not valid YAML (special characters are not allowed)."),
            ("? [a, b]\n: 1\n", "recipe.yaml:1: a key should be a word."),
            ("<<: {a: 1}\n", "recipe.yaml:1: has the tag"),
            (b"a: \xff\n", "recipe.yaml: cannot be read ('utf-8' codec"),
        ],
    )
    def test_broken_files(self, tmp_path: Path, text: str | bytes, message: str) -> None:
        assert fault(tmp_path, text).startswith(message)

    @pytest.mark.parametrize(
        "value",
        [
            "!!python/object/apply:os.system ['touch {marker}']",
            "!!python/object/new:os.system ['touch {marker}']",
            "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{marker}']]",
            "!!python/name:os.system ''",
            "!!python/module:os ''",
            "!!python/tuple [1, 2]",
            "!!python/object:lesionsynth.recipe.model.Recipe {{}}",
            "!!binary aGVsbG8=",
            "!!set {{a, b}}",
            "!!timestamp {{a: 1}}",
            "!local x",
            "!<tag:example.org,2000:x> y",
        ],
    )
    @pytest.mark.parametrize("place", ["description: {}", "steps: {{a: {}}}", "{}: 1", "seed: [1, {}]"])
    def test_tags_are_refused_and_nothing_runs(self, tmp_path: Path, value: str, place: str) -> None:
        marker = tmp_path / "marker"
        message = fault(tmp_path, "version: 1\n" + place.format(value.format(marker=marker)) + "\n")
        assert re.match(r"recipe\.yaml:2: (has the tag '(tag:|!)|a key should be a word)", message)
        assert not marker.exists()

    def test_plain_tags_are_plain_values(self, tmp_path: Path) -> None:
        recipe = load_recipe(str(write(tmp_path, MINIMAL + "seed: !!int 7\ndescription: !!str 5\n")))
        assert (recipe.seed, recipe.description) == (7, "5")

    @pytest.mark.parametrize("value", ["!!int x", "!!float {}", "!!bool maybe"])
    def test_values_that_do_not_fit_their_tag(self, tmp_path: Path, value: str) -> None:
        assert fault(tmp_path, MINIMAL + f"seed: {value}\n").startswith("recipe.yaml:4: ")

    def test_a_date_is_text(self, tmp_path: Path) -> None:
        for date in ("2026-01-01", "2026-13-45", "2026-01-01T10:00:00Z"):
            assert load_recipe(str(write(tmp_path, MINIMAL + f"description: {date}\n"))).description == date

    def test_a_byte_order_mark_and_windows_lines_are_fine(self, tmp_path: Path) -> None:
        text = "\ufeff" + MINIMAL.replace("\n", "\r\n") + "description: ä\r\n"
        assert load_recipe(str(write(tmp_path, text))).description == "ä"

    def test_anchors_and_aliases_work(self, tmp_path: Path) -> None:
        text = "steps:\n  a: &s {kind: populate, load: low}\n  b: *s\n"
        recipe = load_recipe(str(write(tmp_path, text)))
        assert recipe.steps["a"] == recipe.steps["b"]


class TestBombs:
    """Refused with one message, before they grow."""

    def test_a_billion_laughs(self, tmp_path: Path) -> None:
        lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
        lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, 12)]
        tracemalloc.start()
        try:
            assert "has more than 20000 values." in fault(tmp_path, "\n".join(lines))
            assert tracemalloc.get_traced_memory()[1] < 50 << 20
        finally:
            tracemalloc.stop()

    def test_an_alias_of_itself(self, tmp_path: Path) -> None:
        for text in ("a: &a [*a]\n", "a: &a {b: *a, c: *a}\n"):
            assert "nested too deeply" in fault(tmp_path, text)

    @pytest.mark.parametrize("bracket", ["[", "{a: ", "- "])
    def test_deep_nesting(self, tmp_path: Path, bracket: str) -> None:
        assert "nested too deeply" in fault(tmp_path, bracket * 5000)

    def test_many_values(self, tmp_path: Path) -> None:
        assert "has more than 20000 values." in fault(tmp_path, "a: [" + "1," * 21_000 + "1]\n")

    def test_a_huge_file(self, tmp_path: Path) -> None:
        path = write(tmp_path, MINIMAL)
        with path.open("r+b") as stream:
            stream.truncate(1 << 40)  # sparse
        with pytest.raises(RecipeError, match="is larger than 262144 bytes"):
            load_recipe(str(path))

    def test_a_huge_number(self, tmp_path: Path) -> None:
        assert fault(tmp_path, MINIMAL + f"seed: {'9' * 5000}\n").startswith("recipe.yaml:4: ")


class TestOverrides:
    def with_set(self, folder: Path, *overrides: str) -> Recipe:
        return load_recipe(str(write(folder, MINIMAL + "output: {copies: 2}\n")), overrides)

    def test_scalars_of_every_kind(self, tmp_path: Path) -> None:
        recipe = self.with_set(
            tmp_path,
            "seed=7",
            "description=a=b",
            "output.source_map=true",
            "output.copies=3",
            "folds.count=auto",
        )
        assert (recipe.seed, recipe.description, recipe.output.source_map) == (7, "a=b", True)
        assert (recipe.output.copies, recipe.folds.count) == (3, "auto")
        assert self.with_set(tmp_path, "description='2'").description == "2"

    @pytest.mark.parametrize("load", ["high", "{kind: fixed, ml: 3}", "5", "[5, 10]"])
    def test_short_and_long_forms(self, tmp_path: Path, load: str) -> None:
        long = yaml.safe_dump({"steps": {"add": {"kind": "populate", "load": yaml.safe_load(load)}}})
        expected = load_recipe(str(write(tmp_path, long))).steps
        assert self.with_set(tmp_path, f"steps.add.load={load}").steps == expected

    def test_a_missing_section_is_made_and_a_short_form_gives_way(self, tmp_path: Path) -> None:
        recipe = self.with_set(
            tmp_path, "steps.add.load=high", "steps.add.load.kind=low", "bank.min_voxels=5"
        )
        assert recipe.steps["add"].model_dump()["load"]["kind"] == "low"
        assert recipe.bank.min_voxels == 5

    def test_a_step_can_be_added_and_the_last_one_counts(self, tmp_path: Path) -> None:
        recipe = self.with_set(tmp_path, "steps.remove={kind: inpaint}", "seed=1", "seed=2")
        assert list(recipe.steps) == ["add", "remove"]
        assert recipe.seed == 2

    def test_spaces_around_the_key_do_not_matter(self, tmp_path: Path) -> None:
        assert self.with_set(tmp_path, " seed = 7").seed == 7

    @pytest.mark.parametrize("text", ["seed", "", "=3", "a..b=3", ".a=3", "a.=3"])
    def test_what_is_no_assignment(self, tmp_path: Path, text: str) -> None:
        assert fault(tmp_path, MINIMAL, text).startswith(f"--set {text}: should be dotted.key=value")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("seed=-1", "seed should be greater than or equal to 0, got -1."),
            ("seed=", "seed should be a valid integer, got None."),
            ("sed=1", "unknown key sed. Did you mean seed?"),
            ("steps.add.load=hihg", "steps.add.load should be low, medium, high"),
            ("steps.ad.load=high", "there is no steps.ad; there are add. Correct the name; a new one begins"),
            ("steps.add={kind: populate, laod: 3}", "unknown key steps.add.laod. Did you mean load?"),
            ("output.copies.x=1", "output.copies should be a valid integer"),
        ],
    )
    def test_errors_name_the_override_and_no_line_of_the_file(
        self, tmp_path: Path, text: str, message: str
    ) -> None:
        assert f"--set {text}: {message}" in fault(tmp_path, MINIMAL + "output: {copies: 2}\n", text)

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ("[", "is not valid YAML"),
            ("!!python/object/apply:os.system [id]", "has the tag"),
            ("{a: 1, a: 2}", "the key 'a' occurs twice."),
            ("[" * 5000, "is nested too deeply"),
        ],
    )
    def test_values_obey_the_rules_of_the_file(self, tmp_path: Path, value: str, message: str) -> None:
        assert fault(tmp_path, MINIMAL, f"description={value}").startswith(
            f"--set description={value}: {message}"
        )


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.text(max_size=60), st.binary(max_size=60)))
def test_any_text_is_a_recipe_or_a_recipe_error(tmp_path: Path, text: str | bytes) -> None:
    data = text.encode(errors="replace") if isinstance(text, str) else text
    for content in (data, MINIMAL.encode() + b"description: " + data, b"steps: " + data):
        with suppress(RecipeError):
            load_recipe(str(write(tmp_path, content)))


class TestOneNumberForAPair:
    @pytest.mark.parametrize(("given", "pair"), [("0.5", (0.5, 0.5)), ("1", (1, 1)), ("[0.5, 1]", (0.5, 1))])
    def test_stands_for_both_ends(self, given: str, pair: tuple[float, float]) -> None:
        recipe = load_recipe("soft_poisson", [f"steps.add.blend.k={given}"])
        assert resolved(recipe)["steps"]["add"]["blend"]["k"] == list(pair)

    def test_keeps_the_bounds_of_the_pair(self, tmp_path: Path) -> None:
        text = MINIMAL + "    blend: {kind: soft_poisson, k: 1.5}\n"
        assert "should lie within 0 and 1" in fault(tmp_path, text)
        text = MINIMAL + "    geometry: {scale: {factor: 20}}\n"
        assert "should be from 0.1 to 10" in fault(tmp_path, text)

    @pytest.mark.parametrize("given", ["true", "half", "[1]", "[1, 2, 3]"])
    def test_other_values_are_refused(self, tmp_path: Path, given: str) -> None:
        text = MINIMAL + f"    blend: {{kind: soft_poisson, k: {given}}}\n"
        assert "recipe.yaml:4" in fault(tmp_path, text)

    def test_is_in_the_schema(self) -> None:
        blend = Recipe.model_json_schema()["$defs"]["SoftPoisson"]["properties"]["k"]
        assert {"type": "number"} in blend["anyOf"]


def test_a_resolved_recipe_is_read_again_with_overrides(tmp_path: Path) -> None:
    """As that of a lock, whose file is named where it cannot be read; it is not changed."""
    first = load_recipe("lesionmix")
    content = resolved(first)
    assert recipe_of(content, tmp_path) == first
    assert recipe_of(content, tmp_path, ["realism.max_auc_host=0.7"]).realism.max_auc_host == 0.7
    assert content == resolved(first)
    with pytest.raises(RecipeError, match=r"x\.yaml.*unknown key zzz"):
        recipe_of({**content, "zzz": 1}, tmp_path / "x.yaml")
    with pytest.raises(RecipeError, match=r"--set realism\.max_auc_host=2: .*less than or equal to 1"):
        recipe_of(content, tmp_path, ["realism.max_auc_host=2"])


def test_limits_do_not_decide_what_is_made() -> None:
    one, other = load_recipe("lesionmix"), load_recipe("lesionmix", ["realism.max_ks={seam: 0.1}"])
    assert one != other
    assert deciding(one) == deciding(other)
    assert deciding(one) == deciding(load_recipe("lesionmix", ["training.share=0.25"]))
    assert deciding(one) != deciding(load_recipe("lesionmix", ["seed=1"]))
