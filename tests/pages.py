"""The pages and what is on them: code blocks, command lines, headings."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]

_BLOCK = re.compile(
    r"^(?:[^\n]*`(?P<name>[\w./-]+)`:\n\n)?(?P<indent> *)```(?P<language>\w+)\n(?P<text>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
_EXIT = re.compile(r"# exits with (\d+)$")


def page_id(page: Path) -> str:
    """A page's path, as a test's name."""
    return page.relative_to(ROOT).as_posix()


@dataclass
class Block:
    """A code block; `name` is the file that it stands for, where the line above it ends in one."""

    language: str
    text: str
    name: str | None = None


@dataclass
class Command:
    """A shell command of a page, and the exit code that the page names.

    `opens`: the first of its block; `shown`, of the last of a block: what the page shows the block to print.
    """

    line: str
    exits: int = 0
    opens: bool = False
    shown: list[str] = field(default_factory=list)

    @property
    def words(self) -> list[str]:
        """The words; of a simple command only."""
        return shlex.split(self.line, comments=True)

    @property
    def simple(self) -> bool:
        """Whether it is one call of a program: no pipe, no loop, no variable."""
        unquoted = re.sub(r"'[^']*'", "", self.line.partition("  #")[0])
        return not re.search(r"[|&;<>$`\n]", unquoted)


def blocks(page: Path) -> list[Block]:
    """Every code block of a page in order."""
    found = []
    for match in _BLOCK.finditer(page.read_text()):
        indent = match["indent"]
        text = "".join(line.removeprefix(indent) for line in match["text"].splitlines(keepends=True))
        found.append(Block(match["language"], text, match["name"]))
    return found


def commands_of(text: str) -> list[Command]:
    """Commands of a shell block: lines that are continued, and loops to their end, are one."""
    found, open_lines = [], ""
    for line in text.replace("\\\n", " ").splitlines():
        open_lines += ("\n" if open_lines else "") + line
        if not line.strip() or (open_lines.startswith("for ") and line != "done"):
            continue
        exits = _EXIT.search(line)
        found.append(Command(open_lines, int(exits[1]) if exits else 0))
        open_lines = ""
    assert not open_lines.strip(), open_lines
    return found


def steps(page: Path) -> list[Block | Command]:
    """What a reader does on a page, in order: files written, commands typed."""
    found: list[Block | Command] = []
    last: Command | None = None
    for block in blocks(page):
        if block.language == "bash":
            commands = commands_of(block.text)
            commands[0].opens = True
            found += commands
            last = found[-1] if isinstance(found[-1], Command) else None
            continue
        if block.name is not None:
            found.append(block)
        elif block.language == "text" and last is not None:
            last.shown = block.text.splitlines()
        last = None
    return found


def program_lines(page: Path) -> list[list[str]]:
    """Every `lesionsynth ...` command of a page as words, without the program."""
    found = (step.line for step in steps(page) if isinstance(step, Command))
    lines = [line.partition(" | ")[0] for line in found if line.startswith("lesionsynth ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def headings(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE):
        kept = "".join(c for c in heading.lower().replace("&lt;", "<") if c.isalnum() or c in " -_")
        found.add(kept.replace(" ", "-"))
    return found
