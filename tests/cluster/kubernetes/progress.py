"""What a long piece of work says meanwhile, and how it fails."""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO


class Failed(Exception):
    """The test cluster cannot be had; the text says what to do."""


def say(text: str) -> None:
    print(f"==> {text}", file=sys.stderr, flush=True)


def run(command: Sequence[str | Path], *, stdin: str | None = None, folder: Path | None = None) -> str:
    """What the command prints.

    Raises:
        Failed: it ended badly; with what it complained about.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            cwd=folder,
            text=True,
            capture_output=True,
            check=False,
            input=stdin or "",
        )
    except FileNotFoundError:
        raise Failed(f"{words[0]} is missing: scripts/install --kubernetes") from None
    if done.returncode:
        raise Failed(f"{' '.join(words)}: {(done.stderr or done.stdout).strip()[-4000:]}")
    return done.stdout


def run_long(command: Sequence[str | Path], environment: Mapping[str, str], folder: Path, what: str) -> None:
    """Run something that prints a line per piece; say every half minute how many there were.

    Raises:
        Failed: it ended badly; with the end of what it printed.
    """
    with subprocess.Popen(
        [str(word) for word in command],
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        last = list(_counted(process.stdout, what))[-30:]
    if process.returncode:
        raise Failed(f"{what} failed:\n{''.join(last)}")


def _counted(lines: IO[str], what: str) -> Iterator[str]:
    begun = said = time.monotonic()
    for number, line in enumerate(lines, 1):
        if time.monotonic() - said > 30:
            said = time.monotonic()
            say(f"{what}: {number} packages so far, {said - begun:.0f} s")
        yield line
