"""The reference of all commands as Markdown: `python -m skep.cli.reference` writes what
`docs/reference/cli.md` holds; a test compares the two."""

from skep.cli.app import build
from skep.cli.failures import Exit

_MEANINGS = {
    Exit.OK: "It is done, or there was nothing to do.",
    Exit.FAILED: "The work was tried and failed: a run, a build, a defect.",
    Exit.INVALID: "Wrong usage or input: an option, a Compose file, a name.",
    Exit.NOT_FOUND: "There is no such thing, or it is not yours to see.",
    Exit.AUTH: "No token, a wrong one, or a role that is not enough.",
    Exit.CONFLICT: "Something stands in the way, or is full.",
    Exit.UNREACHABLE: "The server does not answer, or is not ready.",
    Exit.INTERRUPTED: "Ctrl-C. A run that was followed goes on.",
}

_HEAD = """\
# The command line

Made from the commands by `python -m skep.cli.reference > docs/reference/cli.md`; do not edit.

Commands find the server by `--url`, `SKEP_URL`, the login kept in `~/.config/skep/config.yaml`, or else take
the one of this machine with its admin token. What is asked for goes to stdout, what happens to stderr.

## Exit codes

| code | meaning |
|---|---|
"""


def markdown() -> str:
    """The whole page."""
    codes = "".join(f"| {code.value} | {meaning} |\n" for code, meaning in _MEANINGS.items())
    commands = build().generate_docs(output_format="markdown", heading_level=2, usage_name="skep")
    commands = commands.replace(" -m skep.cli.reference", "")  # cyclopts shows how it was started
    lines = [line.rstrip() for line in commands.splitlines()]
    note = "\n`skep exec` ends with the exit code of its command.\n\n"
    return _HEAD + codes + note + "\n".join(lines).strip() + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
