"""Damaged recipes: an error that names the file, or a recipe that means what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lesionsynth.errors import LesionsynthError, RecipeError
from lesionsynth.recipe.load import load_recipe, shipped
from lesionsynth.recipe.model import Recipe, resolved
from tests.fuzz.limits import fuzzed, result_or_error

MINIMAL = "steps:\n  add:\n    kind: populate\n"
HUGE = (
    "0x" + "f" * 5000,
    "0b" + "1" * 20_000,
    ":".join(["1"] * 3000),
    ":".join(["1"] * 400) + ".5",
    "9" * 4000,
)
FRAGMENTS = (
    *HUGE,
    *("!!python/object/apply:os.system [id]", "!!python/name:os.system", "!!binary AAAA", "!!set {a}"),
    *("&a [*a]", "*a", "&a {a: *a}", "<<: {a: 1}", "!!int ''", "!!float _", "!!bool 7", "!!null x", "!x y"),
    *("\t", "\t- a", "---", "...", "%YAML 9.9", "%TAG ! !x", "'", '"', "[", "]", "{", "}", "|", ">", "@"),
    *(
        "`",
        '"\\ud800"',
        '"\\0"',
        '"\\x1b[31m"',
        "\u2028",
        "\u202e",
        "é²",
        "日本",
        "~",
        "null",
        "yes",
        "? [a]",
    ),
    *(".nan", "0o17", "1_000", "-0", "1e999", "-.inf", "-1", "2001-01-01", "12:30:45", "1e400", "0.1e-400"),
    *("[" * 400, "{a: " * 400, "- " * 400, "[[[[[]]]]]", "{a: {b: {c: {}}}}", "a: 1\na: 2", "a" * 5000),
    *("'{case}.nii'", "'{é²}{case}.nii.gz'"),
)
WORDS = ("", "auto", "same", "none", "real", "nnunet", "pattern", "{case}.nii.gz", "(a+)+b", "(")
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 1, 2**31, 2**63, 2**64, 10**400, float("nan"), float("inf")])
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(WORDS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6) | st.just("kind"), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = (
    *("seed", "description", "output.copies", "steps.add.load", "steps.add", "input.layout", "folds.count"),
    *("input.subject", "input.masks.path", "sources.donors", "bank.margin_mm", "output.layout.images"),
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recipes") / "recipe.yaml"


def load(path: Path, text: str | bytes, *overrides: str) -> Recipe | LesionsynthError:
    """A recipe of plain values that can be written and read again, or an error that names the file."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode(errors="surrogatepass"))
    named = (path, *(f"--set {override}" for override in overrides))
    recipe = result_or_error(lambda: load_recipe(str(path), overrides), *named)
    if isinstance(recipe, Recipe):
        written = json.dumps(resolved(recipe), allow_nan=False)
        assert Recipe.model_validate(json.loads(written)) == recipe
        locked = yaml.safe_load(yaml.safe_dump(resolved(recipe)).encode())
        assert Recipe.model_validate(locked) == recipe
    else:
        assert isinstance(recipe, RecipeError)
    return recipe


def places(node: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every key of a tree of values."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield (*where, key)
        yield from places(value, (*where, key))


@fuzzed(150)
@given(st.sampled_from(sorted(shipped())), st.data())
def test_shipped_recipes_with_other_values(path: Path, name: str, data: st.DataObject) -> None:
    content = yaml.safe_load(shipped()[name].read_text())
    for _ in range(data.draw(st.integers(1, 3))):
        known = list(places(content))
        if not known:
            break
        *above, key = data.draw(st.sampled_from(known))
        node = content
        for part in above:
            node = node[part]
        match data.draw(st.sampled_from(["value", "remove", "rename", "add"])):
            case "value":
                node[key] = data.draw(VALUES)
            case "remove":
                del node[key]
            case "rename" if isinstance(node, dict):
                node[data.draw(st.text(max_size=5) | st.just(f"{key}s"))] = node.pop(key)
            case "add" if isinstance(node, dict):
                node[data.draw(st.sampled_from(["kind", "load", "layout", "x", ""]))] = data.draw(VALUES)
    load(path, yaml.safe_dump(content, allow_unicode=True))


@fuzzed(200)
@given(st.sampled_from(sorted(shipped())), st.data())
def test_shipped_recipes_with_other_text(path: Path, name: str, data: st.DataObject) -> None:
    lines = shipped()[name].read_text().splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        number = data.draw(st.integers(0, len(lines) - 1))
        fragment = data.draw(st.sampled_from(FRAGMENTS) | st.text(max_size=8))
        key, colon, _ = lines[number].partition(":")
        match data.draw(st.sampled_from(["value", "value", "insert", "indent", "repeat", "behind"])):
            case "value":
                lines[number] = f"{key}{colon} {fragment}"
            case "insert":
                lines.insert(number, fragment)
            case "indent":
                lines[number] = data.draw(st.sampled_from(["\t", " ", "   "])) + lines[number]
            case "repeat":
                lines.append(lines[number])
            case "behind":
                lines[number] += fragment
    load(path, "\n".join(lines))


@fuzzed(100)
@given(
    st.sampled_from(sorted(shipped())),
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_shipped_recipes_with_other_bytes(path: Path, name: str, flips: list[tuple[int, int]]) -> None:
    data = bytearray(shipped()[name].read_bytes())
    for place, value in flips:
        data[place % len(data)] = value
    load(path, bytes(data))


@fuzzed(150)
@given(
    st.sampled_from(KEYS),
    st.sampled_from(FRAGMENTS) | st.text(max_size=20).filter(lambda text: "\0" not in text),
)
def test_overrides(path: Path, key: str, value: str) -> None:
    load(path, MINIMAL, f"{key}={value}")


@pytest.mark.parametrize("value", HUGE)
@pytest.mark.parametrize("key", ["seed: {}", "description: {}", "output: {{copies: {}}}", "folds: {}"])
def test_numbers_that_python_will_not_print(path: Path, key: str, value: str) -> None:
    said = str(load(path, MINIMAL + key.format(value) + "\n"))
    assert said.startswith(f"{path}:4: ")


@pytest.mark.parametrize(
    "expression", ["(" * 3000 + "a" + ")" * 3000, "(a{1,99999999999999})", "(a", "(?P<a>b)(?P=c)", "(a)\\2"]
)
def test_expressions_that_python_does_not_take(path: Path, expression: str) -> None:
    assert f"{path}:5: input.subject is not a regular expression" in str(
        load(path, MINIMAL + f"input:\n  subject: '{expression}'\n")
    )


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        ("{a²}_{case}.nii.gz", "'{a²}' is no field"),
        ("{subject}{case}.nii.gz", "has two fields side by side"),
        ("a\\0{case}.nii.gz", "holds a character that no path can hold"),
        ("/{case}.nii.gz", "should lie below the input"),
        ("../{case}.nii.gz", "should lie below the input"),
    ],
)
def test_patterns_that_find_nothing(path: Path, pattern: str, fault: str) -> None:
    layout = f'{{kind: pattern, images: {{F: "i/{{case}}.nii.gz"}}, label: "{pattern}"}}'
    assert fault in str(load(path, MINIMAL + f"input: {{layout: {layout}}}\n"))


@pytest.mark.parametrize(
    ("labels", "fault"),
    [
        ("{background: 0, lesion: -1}", "labels.lesion"),
        ("{background: 0, lesion: 65536}", "labels.lesion"),
        ("{background: 0, a: 1, b: 1}", "two labels have the same value"),
        ("{}", "labels"),
    ],
)
def test_labels_that_no_map_can_hold(path: Path, labels: str, fault: str) -> None:
    layout = f'{{kind: pattern, images: {{F: "i/{{case}}.nii"}}, label: "{{case}}.nii.gz", labels: {labels}}}'
    assert fault in str(load(path, MINIMAL + f"input: {{layout: {layout}}}\n"))


def test_an_override_of_endless_depth(path: Path) -> None:
    assert "--set output.a.a" in str(load(path, MINIMAL, f"output.{'.'.join('a' * 30_000)}=1"))
