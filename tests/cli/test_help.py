"""Help, version, completion, and the commands that tell what there is."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

import lesionsynth
from lesionsynth.cli.app import app
from lesionsynth.plugins import registry
from lesionsynth.recipe.load import shipped

PROGRAM = Path(sys.executable).with_name("lesionsynth")


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


def every_command(group: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    found: dict[tuple[str, ...], Any] = {}
    for name, command in group.commands.items():
        found[(*path, name)] = command
        if hasattr(command, "commands"):
            found |= every_command(command, (*path, name))
    return found


COMMANDS = every_command(typer.main.get_command(app))


def test_the_commands_that_are_promised() -> None:
    assert {" ".join(name) for name in COMMANDS} == {
        *("init", "check", "run", "plan", "finalize", "status", "replay", "list", "schema", "doctor"),
        *("audit", "realism", "convert", "preview", "report", "trial"),
        *("train", "train lesion-autoencoder", "train mask-gan", "train hvae", "train translation"),
        *(
            "bank",
            "bank build",
            "bank ls",
            "bank show",
            "generate",
            "generate hvae",
            "likelihood",
            "likelihood build",
        ),
    }


@pytest.mark.parametrize("name", COMMANDS, ids=" ".join)
def test_every_command_and_option_says_what_it_does(name: tuple[str, ...]) -> None:
    command = COMMANDS[name]
    assert command.help
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{' '.join(name)} {parameter.name} has no help"
    for flag in ("--help", "-h"):
        shown = invoke(*name, flag)
        assert command.help.split()[0] in shown


def test_help_lists_every_command() -> None:
    shown = invoke("--help")
    assert all(f" {name[0]} " in shown for name in COMMANDS)


def test_version() -> None:
    assert invoke("--version") == f"lesionsynth {lesionsynth.__version__}\n"


def test_nothing_given_shows_the_help() -> None:
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 2
    assert "Usage" in result.output


@pytest.mark.parametrize("arguments", [["zzz"], ["run"], ["run", "lesionmix"], ["check", "--zzz"], ["-j"]])
def test_wrong_usage(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "Usage" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["--version"], ["bank", "ls", "--help"]]
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys\nfrom lesionsynth.cli.app import app\n"
        f"try: app({arguments!r})\nexcept SystemExit as done: assert not done.code\n"
        "heavy = {'numpy', 'scipy', 'nibabel', 'numba', 'SimpleITK', 'joblib', 'yaml'}\n"
        "print(*sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == "\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    environment = {**os.environ, "_LESIONSYNTH_COMPLETE": f"source_{shell}"}
    done = subprocess.run([PROGRAM], env=environment, capture_output=True, text=True, check=True)
    assert "_LESIONSYNTH_COMPLETE" in done.stdout
    assert "lesionsynth" in done.stdout


def test_completion_of_a_command() -> None:
    environment = {
        **os.environ,
        "_LESIONSYNTH_COMPLETE": "complete_bash",
        "COMP_WORDS": "lesionsynth ba",
        "COMP_CWORD": "1",
    }
    done = subprocess.run([PROGRAM], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["bank"]


def test_module_and_program_are_the_same() -> None:
    for command in ([PROGRAM], [sys.executable, "-m", "lesionsynth"]):
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout == f"lesionsynth {lesionsynth.__version__}\n"


def test_a_pipe_that_is_closed_early_is_no_fault() -> None:
    line = f"set -o pipefail; '{PROGRAM}' list | head -n 1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


class TestList:
    def test_json_has_every_kind_and_recipe_with_a_line(self) -> None:
        found = json.loads(invoke("list", "--json"))
        assert set(found) == {*registry.GROUPS, "recipes"}
        for group in registry.GROUPS:
            assert set(found[group]) == set(registry.kinds(group))
        assert set(found["recipes"]) == set(shipped())
        assert all(text and "\n" not in text for entries in found.values() for text in entries.values())

    def test_text_has_them_on_one_line_each(self) -> None:
        found = json.loads(invoke("list", "--json"))
        # A source and a recipe may have one name: each group's part by itself.
        headings = "|".join(found)
        _, *parts = re.split(rf"^({headings}) *$", invoke("list"), flags=re.MULTILINE)
        shown = dict(zip(parts[::2], parts[1::2], strict=True))
        assert list(shown) == list(found)
        for group, entries in found.items():
            for name, text in entries.items():
                (line,) = [line for line in shown[group].splitlines() if line.split()[:1] == [name]]
                assert text[:30] in line


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return dict(json.loads(invoke("schema")))


class TestSchema:
    def test_is_a_json_schema_of_a_recipe(self, schema: dict[str, Any]) -> None:
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert schema["type"] == "object"
        assert schema["required"] == ["steps"]
        assert schema["additionalProperties"] is False
        assert {"seed", "input", "output", "folds", "bank", "sources", "steps"} <= set(schema["properties"])

    def test_every_reference_leads_somewhere(self, schema: dict[str, Any]) -> None:
        references = set(re.findall(r'"\$ref": "#/\$defs/([^"]+)"', json.dumps(schema)))
        assert references
        assert references <= set(schema["$defs"])

    def test_every_registered_kind_is_in_it(self, schema: dict[str, Any]) -> None:
        known = {
            d["properties"]["kind"].get("const")
            for d in schema["$defs"].values()
            if "kind" in d.get("properties", {})
        }
        for group in registry.GROUPS:
            assert set(registry.kinds(group)) <= known

    def test_every_key_is_described(self, schema: dict[str, Any]) -> None:
        for name, model in schema["$defs"].items():
            for key, entry in model.get("properties", {}).items():
                described = "description" in entry or "$ref" in entry or key == "kind" or "allOf" in entry
                assert described or "discriminator" in entry, f"{name}.{key}"

    def test_goes_to_a_file(self, schema: dict[str, Any], tmp_path: Path) -> None:
        path = tmp_path / "deep" / "schema.json"
        assert f"$schema={path}" in invoke("schema", "--output", str(path))
        assert json.loads(path.read_text()) == schema


class TestDoctor:
    def test_tells_the_same_as_json_and_as_text(self) -> None:
        facts = json.loads(invoke("doctor", "--json"))
        assert set(facts) == {"lesionsynth", "python", "packages", "cores", "memory", "gpu", "gzip", "disk"}
        assert facts["lesionsynth"] == lesionsynth.__version__
        assert re.match(r"\d+ usable of \d+$", facts["cores"])
        assert re.search(r"numpy \d", facts["packages"])
        assert "(missing)" in facts["packages"] or "cupy" in facts["packages"]
        shown = " ".join(invoke("doctor").split())
        for name in ("cores", "gzip"):
            assert f"{name} {facts[name]}" in shown
