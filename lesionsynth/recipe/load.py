"""Read a recipe: YAML with line numbers, overrides, and errors that say where and what was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from lesionsynth.errors import RecipeError
from lesionsynth.recipe.model import Recipe

_MAX_BYTES = 1 << 18
_MAX_NODES = 20_000
_MAX_DEPTH = 50
_MAX_BITS = 64  # Python refuses to print numbers that are much longer
_SUFFIXES = (".yaml", ".yml")
_DATE_TAG = "tag:yaml.org,2002:timestamp"  # a date is text here
_PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str", "int", "float", "bool", "null")}

AnySpec = TypeVar("AnySpec", bound=BaseModel)
Places = dict[tuple[str | int, ...], str]
"""File and line (or override) of each key."""


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
        with path.open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise RecipeError(f"is larger than {_MAX_BYTES} bytes.", file=path)
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot be read ({error}).", file=path) from None
    parsed, places = _parse(text, path)
    content = {} if parsed is None else parsed
    if not isinstance(content, dict):
        raise RecipeError("should hold keys and values.", file=path)
    return _validated(content, places, path, overrides)


def recipe_of(content: dict[str, Any], source: Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe that was resolved earlier, such as that of a lock, with overrides.

    Parameters
    ----------
    content : dict
        It is not changed.
    source : Path
        File that it is from, for messages.
    overrides : sequence of str
        As of :func:`load_recipe`.

    Raises
    ------
    RecipeError
        If this version cannot read it.
    """
    return _validated(deepcopy(content), {}, source, overrides)


def settings_of(
    model: type[AnySpec], content: Mapping[str, Any], source: str, overrides: Sequence[str], option: str
) -> AnySpec:
    """Settings other than a recipe's, such as a training's: a preset, with overrides.

    Parameters
    ----------
    model : type
        Of the settings.
    content : mapping
        Values of the preset.
    source : str
        What the preset is called, for messages.
    overrides : sequence of str
        As of :func:`load_recipe`.
    option : str
        By which they were given, for messages.

    Raises
    ------
    RecipeError
        If an override does not fit.
    """
    return _validated(dict(content), {}, Path(source), overrides, model, option)


def _validated(
    content: dict[str, Any],
    places: Places,
    path: Path,
    overrides: Sequence[str],
    model: type[AnySpec] = Recipe,  # type: ignore[assignment]
    option: str = "--set",
) -> AnySpec:
    for override in overrides:
        _override(content, places, override, option)
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise RecipeError("\n".join(_explain(error, content, places, path, model))) from None


def _parse(text: str, source: Path | str) -> tuple[Any, Places]:
    """Plain YAML values and the place of every key; duplicate keys and alias bombs are errors.

    `source` is the file, or the override, that the text is of.
    """
    places: Places = {}
    budget = [_MAX_NODES]

    def place(mark: yaml.Mark | None) -> str:
        return f"{source}:{mark.line + 1}" if mark is not None and isinstance(source, Path) else str(source)

    def check_tag(node: yaml.Node) -> None:
        if node.tag not in _PLAIN_TAGS:
            raise RecipeError(
                f"has the tag {node.tag!r}.",
                file=place(node.start_mark),
                remedy="Recipes hold plain values only; nothing in them is evaluated.",
            )

    def build(node: yaml.Node, where: tuple[str | int, ...]) -> Any:
        budget[0] -= 1
        if budget[0] < 0:
            raise RecipeError(f"has more than {_MAX_NODES} values.", file=source)
        if isinstance(node, yaml.ScalarNode) and node.tag == _DATE_TAG:
            return node.value
        check_tag(node)
        if isinstance(node, yaml.MappingNode):
            result: dict[str, Any] = {}
            for key_node, value_node in node.value:
                check_tag(key_node)
                if not isinstance(key_node, yaml.ScalarNode):
                    raise RecipeError("a key should be a word.", file=place(key_node.start_mark))
                key = str(key_node.value)
                if key in result:
                    raise RecipeError(f"the key {key!r} occurs twice.", file=place(key_node.start_mark))
                places[(*where, key)] = place(key_node.start_mark)
                result[key] = build(value_node, (*where, key))
            return result
        if isinstance(node, yaml.SequenceNode):
            items = []
            for number, item in enumerate(node.value):
                places[(*where, number)] = place(item.start_mark)
                items.append(build(item, (*where, number)))
            return items
        try:
            value = loader.construct_object(node)
        except (yaml.YAMLError, ArithmeticError, ValueError, LookupError):
            kind = node.tag.rpartition(":")[2]
            raise RecipeError(f"{node.value!r} is no {kind}.", file=place(node.start_mark)) from None
        if isinstance(value, int) and value.bit_length() > _MAX_BITS:
            raise RecipeError(
                f"has a whole number of {value.bit_length()} bits; {_MAX_BITS} are the most.",
                file=place(node.start_mark),
            )
        return value

    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        return (None if root is None else build(root, ())), places
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or getattr(error, "reason", error)
        where = place(getattr(error, "problem_mark", None))
        raise RecipeError(f"is not valid YAML ({problem}).", file=where) from None
    except RecursionError:
        raise RecipeError("is nested too deeply.", file=source) from None


def _override(content: dict[str, Any], places: Places, text: str, option: str) -> None:
    """Set one value; errors in it are then said to be in `text` and not in a line of the file."""
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise RecipeError(f"{option} {text}: should be dotted.key=value, such as steps.add.load=high.")
    if len(parts) > _MAX_DEPTH:
        raise RecipeError(f"{option} {text}: is nested too deeply.")
    parsed, inner = _parse(value, f"{option} {text}")
    node, said = content, f"{option} {text}"
    for depth, part in enumerate(parts[:-1], start=1):
        if depth == 2 and parts[0] in ("sources", "steps") and part not in node and parts[2] != "kind":
            known = f"there are {', '.join(node)}" if node else "there are none"
            raise RecipeError(
                f"{said}: there is no {parts[0]}.{part}; {known}.",
                remedy=f"Correct the name; a new one begins with its kind: {parts[0]}.{part}.kind=...",
            )
        if not isinstance(node.get(part), dict):
            node[part] = {}  # a scalar short form or a missing section gives way to its fields
            places[tuple(parts[:depth])] = said
        node = node[part]
    node[parts[-1]] = parsed
    here = tuple(parts)
    for where in [where for where in places if where[: len(here)] == here]:
        del places[where]
    places.update({here: said} | {(*here, *rest): said for rest in inner})


def _explain(
    error: ValidationError, content: Any, places: Places, path: Path, whole: type[BaseModel]
) -> Iterator[str]:
    """One line an error: place, key, what should be there."""
    for item in error.errors():
        kind, given = item["type"], item["input"]
        last = str(item["loc"][-1]) if item["loc"] else ""
        message = item["msg"].removeprefix("Value error, ").removeprefix("Input ")
        if isinstance(given, dict) and "literal[" in last:
            continue  # keys and values were meant; the model they are of tells what is wrong with them
        where = _visible(item["loc"], content, kind == "missing")
        if kind == "union_tag_invalid":
            where = (*where, "kind")
        # A rule over the whole recipe starts with the key that breaks it.
        at = where or tuple(message.split(maxsplit=1)[0].rstrip(":").split("."))
        known = (at[:n] for n in range(len(at), 0, -1) if at[:n] in places)
        place = next((places[prefix] for prefix in known), str(path))
        key = ".".join(map(str, where))
        if kind == "extra_forbidden":
            yield f"{place}: unknown key {key}.{_meant(str(where[-1]), _siblings(item['loc'], whole))}"
        elif kind == "union_tag_invalid":
            expected = item["ctx"]["expected_tags"].replace("'", "")
            found = str(item["ctx"]["tag"])
            meant = _meant(found, expected.split(", "))
            yield f"{place}: {key} should be one of {expected}, got {found!r}.{meant}"
        elif kind == "union_tag_not_found":
            yield f"{place}: {key} needs a `kind` beside its other keys."
        elif kind in ("model_type", "model_attributes_type", "dict_type"):
            yield f"{place}: {key} should hold keys and values, got {given!r}."
        elif last == "[key]":
            yield f"{place}: {key} is no name: a letter first, then letters, digits, _ and -."
        elif kind == "missing":
            yield f"{place}: {key} is missing."
        elif kind == "literal_error":
            expected = item["ctx"]["expected"].replace("'", "")
            choices = expected.replace(" or ", ", ").split(", ")
            yield f"{place}: {key} should be {expected}, got {given!r}.{_meant(str(given), choices)}"
        else:
            shown = f", got {given!r}" if not isinstance(given, dict | list) and "got" not in message else ""
            yield f"{place}: {key + ' ' if key else ''}{message}{shown}."


def _visible(location: tuple[str | int, ...], content: Any, is_missing: bool) -> tuple[str | int, ...]:
    """`location` without the union tags that pydantic puts in and the file does not have."""
    result: list[str | int] = []
    node = content
    for part in location:
        in_list = isinstance(node, list) and isinstance(part, int) and part < len(node)
        if in_list or (isinstance(node, Mapping) and part in node):
            node = node[part]
            result.append(part)
    return (*result, location[-1]) if is_missing else tuple(result)


def _siblings(location: tuple[str | int, ...], whole: type[BaseModel]) -> list[str]:
    """Keys that are known where an unknown one was found."""
    model: Any = whole
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
