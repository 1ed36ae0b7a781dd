"""The pages tell the truth: references are up to date, links lead somewhere, commands and recipes work."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from lesionsynth.cli.app import app
from lesionsynth.errors import ExitCode
from lesionsynth.plugins.registry import kinds
from lesionsynth.recipe.load import load_recipe, shipped

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    """Code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[list[str]]:
    """Every `lesionsynth ...` line of a page's shell blocks, as words, without the program."""
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("lesionsynth ")]


def anchors(page: Path) -> set[str]:
    """Names of a page's headings, as GitHub makes them."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE):
        kept = "".join(c for c in heading.lower().replace("&lt;", "<") if c.isalnum() or c in " -_")
        found.add(kept.replace(" ", "-"))
    return found


def parse(words: list[str]) -> str:
    """Parse a command line as the program would, without running it; returns the command's name."""
    command: Any = typer.main.get_command(app)
    name = "lesionsynth"
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


def generate(*arguments: str, script: Path = ROOT / "docs" / "generate.py") -> Any:
    return subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True)


def test_generated_pages_are_up_to_date() -> None:
    done = generate("--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_stale_page_is_noticed_and_written_anew(tmp_path: Path) -> None:
    script = tmp_path / "generate.py"
    script.write_text((ROOT / "docs" / "generate.py").read_text())
    for name in ("cli.md", "recipe.md"):
        (tmp_path / name).write_text((ROOT / "docs" / name).read_text())
    (tmp_path / "cli.md").write_text("old")
    done = generate("--check", script=script)
    assert done.returncode == 1
    assert "cli.md" in done.stdout
    assert "recipe.md" not in done.stdout
    assert (tmp_path / "cli.md").read_text() == "old"
    assert generate(script=script).returncode == 0
    assert generate("--check", script=script).returncode == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert linked.is_relative_to(ROOT)
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("page", ["README.md", "docs/recipe.md"])
def test_every_shipped_recipe_is_mentioned(page: str) -> None:
    text = (ROOT / page).read_text()
    assert shipped()
    for name in shipped():
        assert f"`{name}`" in text


@pytest.mark.parametrize("page", ["README.md", "docs/methods.md"])
@pytest.mark.parametrize("group", ["operations", "sources", "blends", "fills"])
def test_every_kind_is_mentioned(page: str, group: str) -> None:
    text = (ROOT / page).read_text()
    assert [kind for kind in kinds(group) if not re.search(rf"\b{kind}\b", text)] == []


def test_every_command_and_exit_code_is_documented() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    names = set(leaves(typer.main.get_command(app)))
    assert {"lesionsynth run", "lesionsynth bank ls"} <= names
    for name in names:
        assert f"## {name.removeprefix('lesionsynth ')}\n" in text
    for code in ExitCode:
        assert f"| {int(code)} | {code.name} | " in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_command_lines_parse(page: Path) -> None:
    for words in commands(page):
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_recipes_on_the_pages_are_valid(page: Path, tmp_path: Path) -> None:
    for block in blocks(page, "yaml"):
        content = yaml.safe_load(block)
        content.setdefault("steps", {"add": {"kind": "populate"}})
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(content))
        load_recipe(str(path))


def keys(value: Any, depth: int) -> set[str]:
    """Names of all fields of a JSON value, down to a depth."""
    if isinstance(value, list):
        return set().union(*(keys(entry, depth) for entry in value))
    if not isinstance(value, dict) or depth == 0:
        return set()
    return set(value).union(*(keys(entry, depth - 1) for entry in value.values()))


def assert_records_are_documented(output: Path) -> set[str]:
    """Every field of what a run writes is in docs/records.md; they are returned."""
    text = (ROOT / "docs" / "records.md").read_text()
    found = keys(yaml.safe_load((output / "recipe.lock.yaml").read_text()), 1)
    found |= set((output / "manifest.csv").read_text().splitlines()[0].split(","))
    found |= keys([json.loads(line) for line in (output / "plan.jsonl").read_text().splitlines()], 1)
    found |= keys([json.loads(p.read_text()) for p in (output / "likelihood").glob("*.json")], 1)
    for path in (output / "records").glob("*.json"):
        record = json.loads(path.read_text())
        found |= keys(record, 1) | keys(record["load_ml"], 1) | keys(record["steps"], 1)
        found |= keys([step["draws"] for step in record["steps"]], 2)
    assert {"typical_count", "input_hashes", "donor"} <= found
    assert {name for name in found if f"`{name}`" not in text} == set()
    return found


@pytest.fixture
def four_subjects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The present folder, with four subjects of the sample data."""
    for path in (ROOT / "sample_data").rglob("*"):
        if path.name == "dataset.json" or re.match(r"sub0[1-4]", path.name):
            link = tmp_path / path.relative_to(ROOT)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("recipe", "override", "fields"),
    [
        ("copy_paste", "seed=1", {"blur_mm", "gamma"}),
        ("ellipsoid", "steps.add.mass_effect={p: 1, min_volume_mm3: 0}", {"look", "strength", "from"}),
        ("relocate", "steps.detach.inpaint={kind: mirror, texture: spectrum}", {"filled", "spectrum"}),
    ],
)
def test_fields_of_draws_are_documented(
    four_subjects: Path, recipe: str, override: str, fields: set[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        app(["run", recipe, "-i", "sample_data", "-o", "made", "-n", "1", "-q", "--set", override])
    assert ended.value.code == 0
    assert fields <= assert_records_are_documented(four_subjects / "made")


def test_readmes_commands_run(four_subjects: Path, capsys: Any) -> None:
    """All of them, in order, as a reader would type them; to be quick with one copy, of four subjects."""
    tmp_path = four_subjects
    seen = set()
    for words in commands(ROOT / "README.md"):
        seen.add(words[0])
        extra = ["--copies", "1"] if words[0] in ("run", "plan") else []
        with pytest.raises(SystemExit) as ended:
            app([*words, *extra])
        assert ended.value.code == 0, f"lesionsynth {shlex.join(words)}: {capsys.readouterr()}"
    assert {"init", "check", "plan", "run", "replay", "list", "bank", "likelihood", "doctor"} <= seen
    for name in ("imagesTr/sub01__syn000_0000.nii.gz", "splits_final.json", "records/sub01__syn000.json"):
        assert (tmp_path / "expanded" / name).is_file()
    assert (tmp_path / "replayed" / "labelsTr" / "sub01__syn000.nii.gz").is_file()
    assert (tmp_path / "maps" / "likelihood" / "block0.nii.gz").is_file()
    assert (tmp_path / "high" / "source_maps").is_dir()
    for output, field in (("high", "contrast_kept"), ("carved", "lambda_mm"), ("blended", "k")):
        assert field in assert_records_are_documented(tmp_path / output)
