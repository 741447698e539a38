"""Reads a tutorial: the `console` blocks of a Markdown file as commands with the output they promise."""

import re
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
PROMPT = "$ "


@dataclass(frozen=True)
class Command:
    """A line after the prompt, and the lines below it, in which `…` stands for anything."""

    line: str
    expected: tuple[str, ...]

    def missing(self, output: str) -> list[str]:
        """The expected lines that the output lacks; spacing and order do not matter."""
        return [line for line in self.expected if not pattern(line).search(output)]


def read(path: Path) -> list[Command]:
    return [command for block in _BLOCK.findall(path.read_text()) for command in parse(block)]


def parse(block: str) -> list[Command]:
    """Raises ValueError: output comes before the first command."""
    commands: list[Command] = []
    for line in filter(None, block.splitlines()):
        if line.startswith(PROMPT):
            commands.append(Command(line.removeprefix(PROMPT), ()))
        elif commands:
            last = commands.pop()
            commands.append(Command(last.line, (*last.expected, line)))
        else:
            raise ValueError(f"output before any command: {line}")
    return commands


def pattern(line: str) -> re.Pattern[str]:
    """`… api-0 … running …`: the words in this order on one line."""
    parts = (r"[ \t]+".join(map(re.escape, part.split())) for part in line.split("…"))
    return re.compile(r"[^\n]*".join(parts))
