"""The pages tell the truth: references are up to date, links lead somewhere, recipes are valid."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from lesionsynth.cli.app import app
from lesionsynth.errors import ExitCode
from lesionsynth.generative.specs import SPECS
from lesionsynth.plugins.registry import kinds
from lesionsynth.recipe.load import load_recipe, settings_of, shipped
from lesionsynth.run.models import used
from tests.pages import DOCS, PAGES, ROOT, blocks, headings, page_id, program_lines

PAGE_IDS = [page_id(page) for page in PAGES]


def parse(words: list[str]) -> str:
    """Parse a command line as the program would, without running it; returns the command's name."""
    command: Any = typer.main.get_command(app)
    name = "lesionsynth"
    if words == ["--version"]:
        return name
    while hasattr(command, "commands"):
        assert words[0] in command.commands, f"{name} has no command {words[0]}"
        name, command, words = f"{name} {words[0]}", command.commands[words[0]], words[1:]
    command.make_context(name, list(words))
    return name


def leaves(group: Any, name: str = "lesionsynth") -> Iterator[str]:
    """Full name of every command."""
    for word, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, f"{name} {word}")
        else:
            yield f"{name} {word}"


def generate(*arguments: str, script: Path = DOCS / "generate.py") -> Any:
    return subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True)


def test_generated_pages_are_up_to_date() -> None:
    done = generate("--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_stale_page_is_noticed_and_written_anew(tmp_path: Path) -> None:
    for name in ("generate.py", "record_fields.py"):
        (tmp_path / name).write_text((DOCS / name).read_text())
    (tmp_path / "reference").mkdir()
    for name in ("cli.md", "recipe.md", "records.md", "records.md.in"):
        (tmp_path / "reference" / name).write_text((DOCS / "reference" / name).read_text())
    script, stale = tmp_path / "generate.py", tmp_path / "reference" / "cli.md"
    stale.write_text("old")
    done = generate("--check", script=script)
    assert done.returncode == 1
    assert "cli.md" in done.stdout
    assert "recipe.md" not in done.stdout
    assert "records.md" not in done.stdout
    assert stale.read_text() == "old"
    assert generate(script=script).returncode == 0
    assert generate("--check", script=script).returncode == 0


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert linked.is_relative_to(ROOT)
        assert not anchor or anchor in headings(linked), target


@pytest.mark.parametrize("page", ["README.md", "docs/reference/recipe.md"])
def test_every_shipped_recipe_is_mentioned(page: str) -> None:
    text = (ROOT / page).read_text()
    assert shipped()
    for name in shipped():
        assert f"`{name}`" in text


@pytest.mark.parametrize("name", sorted(shipped()))
def test_a_recipe_of_a_model_says_how_to_train_it(name: str) -> None:
    """By a command that works, with settings that exist, into the folder that the recipe takes it from."""
    lines = re.findall(r"^#   lesionsynth (.*)$", shipped()[name].read_text(), re.MULTILINE)
    folders = []
    for line in lines:
        words = shlex.split(line)
        assert parse(words).startswith("lesionsynth train ")
        settings = [after for word, after in pairwise(words) if word == "--train"]
        settings_of(SPECS[words[1]], {}, "full", settings, "--train")  # type: ignore[index]
        folders.append(words[words.index("--output") + 1])
    assert folders == [path for _, path, _ in used(load_recipe(name))]


@pytest.mark.parametrize("page", ["README.md", "docs/explanation/methods.md"])
@pytest.mark.parametrize("group", ["operations", "sources", "blends", "fills"])
def test_every_kind_is_mentioned(page: str, group: str) -> None:
    text = (ROOT / page).read_text()
    assert [kind for kind in kinds(group) if not re.search(rf"\b{kind}\b", text)] == []


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "README.md").read_text()
    for page in DOCS.rglob("*.md"):
        assert page.name == "README.md" or f"]({page.relative_to(DOCS).as_posix()})" in index


def test_every_command_and_exit_code_is_documented() -> None:
    text = (DOCS / "reference" / "cli.md").read_text()
    names = set(leaves(typer.main.get_command(app)))
    assert {"lesionsynth run", "lesionsynth bank ls"} <= names
    for name in names:
        assert f"## {name.removeprefix('lesionsynth ')}\n" in text
    for code in ExitCode:
        assert f"| {int(code)} | {code.name} | " in text


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_command_lines_parse(page: Path) -> None:
    for words in program_lines(page):
        parse(words)


def test_wrong_command_lines_do_not_parse() -> None:
    usage_error = typer.BadParameter.__mro__[1]
    with pytest.raises(AssertionError, match="no command bake"):
        parse(["bake", "x"])
    for line in (
        "run lesionmix",
        "run lesionmix -i a -o b --colour red",
        "run lesionmix -i a -o b -n 0",
        "bank ls",
    ):
        with pytest.raises(usage_error):
            parse(shlex.split(line))


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_recipes_on_the_pages_are_valid(page: Path, tmp_path: Path) -> None:
    for block in blocks(page):
        if (
            block.language != "yaml" or page.name == "add-an-operation.md"
        ):  # a kind that is not installed here
            continue
        content = yaml.safe_load(block.text)
        content.setdefault("steps", {"add": {"kind": "populate"}})
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(content))
        load_recipe(str(path))
