"""Read a recipe: YAML with line numbers, overrides, and errors that say where and what was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from lesionsynth.errors import RecipeError
from lesionsynth.recipe.model import Recipe

_MAX_BYTES = 1 << 20
_MAX_NODES = 20_000
_SUFFIXES = (".yaml", ".yml")
_PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str", "int", "float", "bool", "null")}

Lines = dict[tuple[str | int, ...], int]


def shipped() -> dict[str, Path]:
    """Recipes that come with lesionsynth, by name."""
    inside = Path(str(resources.files("lesionsynth"))) / "recipe" / "shipped"
    # In a source tree, recipes/ lies at its top; a wheel carries it inside the package.
    folder = inside if inside.is_dir() else Path(__file__).parents[2] / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_recipe(name: str) -> Path:
    """Path of a recipe given by path or by the name of a shipped one."""
    path = Path(name)
    if path.suffix in _SUFFIXES or len(path.parts) > 1:
        if path.is_file():
            return path
        raise RecipeError("there is no such recipe file.", file=path)
    known = shipped()
    if name in known:
        return known[name]
    if path.is_file():
        return path
    raise RecipeError(
        f"there is no recipe called {name!r}.{_meant(name, known)}",
        remedy=f"Shipped recipes: {', '.join(known)}; or give the path of a .yaml file.",
    )


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read and validate a recipe.

    Parameters
    ----------
    name : str
        Path, or name of a shipped recipe.
    overrides : sequence of str
        ``dotted.key=value``, the value in YAML.

    Raises
    ------
    RecipeError
        With file, line, and what was probably meant.
    """
    path = find_recipe(name)
    try:
        data = path.read_bytes()
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot be read ({error}).", file=path) from None
    if len(data) > _MAX_BYTES:
        raise RecipeError(f"is larger than {_MAX_BYTES} bytes.", file=path)
    content, lines = _parse(text, path)
    if not isinstance(content, dict):
        raise RecipeError("should hold keys and values.", file=path)
    for override in overrides:
        _override(content, override)
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise RecipeError("\n".join(_explain(error, content, lines, path))) from None


def _parse(text: str, path: Path) -> tuple[Any, Lines]:
    """Plain YAML values and the line of every key; duplicate keys and alias bombs are errors."""
    lines: Lines = {}
    budget = [_MAX_NODES]

    def build(node: yaml.Node, where: tuple[str | int, ...]) -> Any:
        budget[0] -= 1
        if budget[0] < 0:
            raise RecipeError(f"has more than {_MAX_NODES} values.", file=path)
        if node.tag not in _PLAIN_TAGS:
            raise RecipeError(
                f"has the tag {node.tag!r}.",
                file=f"{path}:{node.start_mark.line + 1}",
                remedy="Recipes hold plain values only; nothing in them is evaluated.",
            )
        if isinstance(node, yaml.MappingNode):
            result: dict[str, Any] = {}
            for key_node, value_node in node.value:
                key = str(key_node.value)
                line = key_node.start_mark.line + 1
                if key in result:
                    raise RecipeError(f"the key {key!r} occurs twice.", file=f"{path}:{line}")
                lines[(*where, key)] = line
                result[key] = build(value_node, (*where, key))
            return result
        if isinstance(node, yaml.SequenceNode):
            items = []
            for number, item in enumerate(node.value):
                lines[(*where, number)] = item.start_mark.line + 1
                items.append(build(item, (*where, number)))
            return items
        try:
            return loader.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            raise RecipeError(
                f"cannot be read ({getattr(error, 'problem', error)}).",
                file=f"{path}:{node.start_mark.line + 1}",
            ) from None

    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        return ({} if root is None else build(root, ())), lines
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise RecipeError(f"is not valid YAML ({getattr(error, 'problem', error)}).", file=where) from None
    except RecursionError:
        raise RecipeError("is nested too deeply.", file=path) from None
    finally:
        loader.dispose()


def _override(content: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise RecipeError(f"--set {text}: should be dotted.key=value, such as steps.add.load=high.")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError:
        raise RecipeError(f"--set {text}: the value is not valid YAML.") from None
    node: Any = content
    for part in parts[:-1]:
        if not isinstance(node.get(part), dict):
            node[part] = {}  # a scalar short form or a missing section gives way to its fields
        node = node[part]
    node[parts[-1]] = parsed


def _explain(error: ValidationError, content: Any, lines: Lines, path: Path) -> Iterator[str]:
    """One line an error: file, line, key, what should be there."""
    for item in error.errors():
        where = _visible(item["loc"], content)
        line = next((lines[where[:n]] for n in range(len(where), 0, -1) if where[:n] in lines), None)
        place = f"{path}:{line}" if line is not None else str(path)
        key = ".".join(map(str, where))
        kind, given = item["type"], item.get("input")
        if kind == "extra_forbidden":
            yield f"{place}: unknown key {key}.{_meant(str(where[-1]), _siblings(item['loc'], content))}"
        elif kind == "union_tag_invalid":
            expected = item["ctx"]["expected_tags"].replace("'", "")
            found = str(item["ctx"]["tag"])
            yield f"{place}: {key}.kind should be one of {expected}, got {found!r}.{_meant(found, expected.split(', '))}"
        elif kind == "union_tag_not_found":
            yield f"{place}: {key} needs a `kind`."
        elif kind == "missing":
            yield f"{place}: {key} is missing."
        elif kind == "literal_error":
            expected = item["ctx"]["expected"].replace("'", "")
            choices = expected.replace(" or ", ", ").split(", ")
            yield f"{place}: {key} should be {expected}, got {given!r}.{_meant(str(given), choices)}"
        else:
            message = item["msg"].removeprefix("Value error, ").removeprefix("Input ")
            shown = f", got {given!r}" if not isinstance(given, dict | list) and "got" not in message else ""
            yield f"{place}: {key + ' ' if key else ''}{message}{shown}."


def _visible(location: tuple[str | int, ...], content: Any) -> tuple[str | int, ...]:
    """`location` without the union tags that pydantic puts in and the file does not have."""
    result: list[str | int] = []
    node = content
    for position, part in enumerate(location):
        last = position == len(location) - 1
        if (isinstance(node, Mapping) and part in node) or (
            isinstance(node, Sequence)
            and not isinstance(node, str)
            and isinstance(part, int)
            and part < len(node)
        ):
            result.append(part)
            node = node[part]
        elif last and isinstance(node, Mapping) and part != node.get("kind"):
            result.append(part)
    return tuple(result)


def _siblings(location: tuple[str | int, ...], content: Any) -> list[str]:
    """Keys that are known where an unknown one was found."""
    model: Any = Recipe
    for part in location[:-1]:
        model = _step_into(model, part)
        if model is None:
            return []
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def _step_into(annotation: Any, part: str | int) -> Any:
    """Model that the field or union tag `part` of a model (or of a union of models) leads to."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if isinstance(part, str) and part in annotation.model_fields:
            field = annotation.model_fields[part].annotation
            models = list(_models_in(field))
            is_mapping = getattr(field, "__origin__", None) is dict
            return models[0] if len(models) == 1 and not is_mapping else tuple(models) or None
        return annotation if part in (annotation.__name__, _kind_of(annotation)) else None
    if isinstance(annotation, tuple):
        tagged = next((m for m in annotation if part in (m.__name__, _kind_of(m))), None)
        # A name of the user's own (of a step, of a source) leads to the same choice of kinds.
        return tagged or (annotation if len(annotation) > 1 else annotation[0])
    return None


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models_in(argument)


def _kind_of(model: type[BaseModel]) -> Any:
    field = model.model_fields.get("kind")
    return None if field is None else field.default


def _meant(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]}?" if close else ""
