"""Every command on the pages is run, in order, as a reader would type it; or stands below with the reason."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from unittest import mock

import pytest

from lesionsynth.cli.app import main
from lesionsynth.cli.bids import main as bids_main
from tests.pages import PAGES, ROOT, Command, commands_of, page_id, steps

NOT_RUN = {
    # What makes an environment: the tests run in one.
    r"python3 -m venv \.venv|\. \.venv/bin/activate": "sets up the environment that the tests run in",
    r"pip install (\.|'\.\[(cuda1[23]|generative)\]'|'lesionsynth\[dask\]')": "changes the environment",
    r"pip install bids-validator-deno": "the extra bids-test, which `make test` installs",
    r"pre-commit install": "changes the checkout",
    # The tests themselves, and what takes minutes.
    r"make (demo|test)": "`make test` is this; `make demo` is `run lesionmix`, which the pages run",
    r"make gpu.*": "needs a GPU; the parity tests run on a stand-in, tests/fake_device.py",
    r"(CARVEMIX_FOLDER=\S+ FILL_DATA=\S+ FILL_STROKES=\S+ )?make bench.*": "minutes; peers from the network",
    r"\.venv/bin/python benchmarks/scale\.py.*": "minutes; tests/run/test_faults.py does the same in small",
    r"DATA=\S+ OUT=\S+ benchmarks/evidence\.sh .*": "an hour and more, on data of one's own",
    # Other programs.
    r"nnUNetv2_(plan_and_preprocess|train) .*": "nnU-Net is no dependency: tests/run/test_nnunet_takes_it.py",
    r"export nnUNet_raw=.*": "variables of nnU-Net; the folder is made in the next line",
    r"SHARDS=20 docs/how-to/hpc/submit\.sh .*": "needs Slurm: tests/slurm/test_slurm.py submits the script",
    r"apptainer .*": "needs Apptainer, and an image from the network",
    r"lesionsynth run .* --scheduler .*": "needs a Dask scheduler: tests/run/test_machine.py starts one",
    r"lesionsynth (run|train) .* --device cuda": "needs a GPU: tests/test_backend.py",
}
"""Commands that no test here runs, as patterns of the whole line, and why; what tests them elsewhere."""

OPTIONAL = {"bids-validator-deno"}
"""Programs of an extra: run where they are installed."""
BESIDE_PYTHON = str(Path(sys.executable).parent)
COPIES = {"run", "plan"}
"""Commands that are quick with one copy."""
ALL_SUBJECTS = {"docs/tutorial.md"}
"""Pages that are run as they stand, on all subjects, and whose output is compared."""
WITH_COMMANDS = [page for page in PAGES if any(isinstance(step, Command) for step in steps(page))]


def reason_not_to_run(line: str) -> str | None:
    """Why a command is not run; None for one that is."""
    program = line.split()[0]
    if program in OPTIONAL and not any(shutil.which(program, path=place) for place in (None, BESIDE_PYTHON)):
        return f"{program} is not installed"
    text = " ".join(line.partition("  #")[0].split())
    return next((why for pattern, why in NOT_RUN.items() if re.fullmatch(pattern, text)), None)


class Reader:
    """Does what a page says, in a folder that holds the sample data."""

    def __init__(self, folder: Path, as_it_stands: bool) -> None:
        self.folder, self.as_it_stands = folder, as_it_stands
        programs = folder.parent / "programs"
        programs.mkdir()
        for name in ("lesionsynth", "lesionsynth-bids"):
            module = "lesionsynth.cli.bids" if name.endswith("bids") else "lesionsynth.cli.app"
            script = f"#!{sys.executable}\nimport sys\nfrom {module} import main\nsys.exit(main())\n"
            (programs / name).write_text(script)
            (programs / name).chmod(0o755)
        (programs / "python3").symlink_to(sys.executable)
        self.environment = {
            **os.environ,
            "PATH": f"{programs}:{BESIDE_PYTHON}:{os.environ['PATH']}",
            "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
        }
        self.in_process = True

    def do(self, command: Command) -> tuple[int, str]:
        """Exit code and output of a command."""
        if command.line.startswith("pip install ./"):
            return self.install(command.words[2]), ""
        if command.simple and command.words[0] in ("lesionsynth", "lesionsynth-bids"):
            program, *words = command.words
            if not self.as_it_stands and COPIES & set(words[:1]) and not {"--copies", "-n"} & set(words):
                words += ["--copies", "1"]
            if self.in_process:
                return self.call(program, words)
            return self.shell(shlex.join([program, *words]))
        return self.shell(command.line)

    def call(self, program: str, words: list[str]) -> tuple[int, str]:
        """Run one of our programs in this process, which saves two seconds a command."""
        out = io.StringIO()
        argv, environment = mock.patch.object(sys, "argv", [program, *words]), mock.patch.dict(os.environ)
        with argv, environment, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            try:
                main() if program == "lesionsynth" else bids_main()
                code: object = 0
            except SystemExit as ended:
                code = ended.code or 0
        assert isinstance(code, int)
        return code, out.getvalue()

    def shell(self, line: str) -> tuple[int, str]:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            env=self.environment,
            timeout=120,
        )
        return done.returncode, done.stdout

    def install(self, name: str) -> int:
        """Put a package of one module beside the others, with its entry points, as pip would."""
        source, target = self.folder / name, self.folder.parent / "installed"
        project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
        about = target / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        about.mkdir(parents=True)
        metadata = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        (about / "METADATA").write_text(metadata)
        groups = project["entry-points"].items()
        points = "".join(f"[{g}]\n" + "".join(f"{k} = {v}\n" for k, v in e.items()) for g, e in groups)
        (about / "entry_points.txt").write_text(points)
        for module in source.glob("*.py"):
            (target / module.name).write_text(module.read_text())
        self.environment["PYTHONPATH"] = f"{target}:{self.environment['PYTHONPATH']}"
        self.in_process = False  # where the package is not known
        return 0


def fits(shown: list[str], output: str) -> bool:
    """Whether an output is as shown, where `...` stands for any part of a line, or for any lines."""
    parts = []
    for line in shown:
        parts.append(r"(?:.*\n)*?" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*") + r"[ ]*\n")
    return re.fullmatch("".join(parts), output if output.endswith("\n") else output + "\n") is not None


@pytest.fixture
def reader(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    """A reader in a folder with the sample data: of four subjects, unless the page needs all."""
    as_it_stands = page_id(request.param) in ALL_SUBJECTS
    folder = tmp_path / "here"
    for path in (ROOT / "sample_data").rglob("*"):
        if path.name == "dataset.json" or re.match(r"sub0[1-8]" if as_it_stands else r"sub0[1-4]", path.name):
            link = folder / path.relative_to(ROOT)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    monkeypatch.chdir(folder)
    return Reader(folder, as_it_stands)


@pytest.mark.parametrize(
    ("page", "reader"), [(p, p) for p in WITH_COMMANDS], ids=map(page_id, WITH_COMMANDS), indirect=["reader"]
)
def test_commands_run(page: Path, reader: Reader) -> None:
    printed = ""
    for step in steps(page):
        if not isinstance(step, Command):
            assert step.name is not None
            path = reader.folder / step.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(step.text)
        elif reason_not_to_run(step.line) is None:
            code, output = reader.do(step)
            assert code == step.exits, f"{step.line}\nexited with {code}:\n{output}"
            printed = output if step.opens else printed + output
            if reader.as_it_stands and step.shown:
                assert fits(step.shown, printed), f"{step.line}\nprinted:\n{printed}"


def test_no_reason_is_left_over() -> None:
    """A pattern that stands for no command any more would hide the next one."""
    lines = [step.line for page in WITH_COMMANDS for step in steps(page) if isinstance(step, Command)]
    texts = [" ".join(line.partition("  #")[0].split()) for line in lines]
    assert [p for p in NOT_RUN if not any(re.fullmatch(p, text) for text in texts)] == []


def test_output_that_differs_is_noticed() -> None:
    assert fits(["8 cases", "...", "... MB are free"], "8 cases\na\nb\n7 MB are free\n")
    assert fits(["8 cases", "..."], "8 cases\n")
    assert not fits(["8 cases", "..."], "9 cases\n")
    assert not fits(["8 cases"], "8 cases\nmore\n")


def test_a_command_that_fails_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    reader = Reader(tmp_path / "here", as_it_stands=True)
    assert reader.do(Command("lesionsynth run no_such_recipe -i a -o b"))[0] == 3
    assert reader.do(Command("no_such_program | cat"))[0] == 127
    assert reader.do(Command("lesionsynth --version | head -n 1"))[0] == 0


def test_commands_are_read_as_a_shell_would() -> None:
    text = "a \\\n  b   # note\n\nfor x in 1 2; do\n    c $x\ndone\nd  # exits with 6\n"
    found = commands_of(text)
    assert [c.line.split()[0] for c in found] == ["a", "for", "d"]
    assert [c.exits for c in found] == [0, 0, 6]
    assert [c.simple for c in found] == [True, False, True]
    assert found[0].words == ["a", "b"]
