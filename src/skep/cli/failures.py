"""How the command ends: exit codes, and errors that say what to do next."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes, the same for every command.  `exec` passes on the code of the command it ran."""

    OK = 0
    FAILED = 1
    """The work was tried and failed: a run, a build, a defect."""
    INVALID = 2
    """Wrong usage or input: an option, a Compose file, a name."""
    NOT_FOUND = 3
    AUTH = 4
    """No token, a wrong one, or a role that is not enough."""
    CONFLICT = 5
    """Something stands in the way, or is full."""
    UNREACHABLE = 6
    """The server does not answer."""
    INTERRUPTED = 130
    """Ctrl-C."""


_EXIT_BY_CODE = {
    "invalid-input": Exit.INVALID,
    "unsupported": Exit.INVALID,
    "too-large": Exit.INVALID,
    "not-found": Exit.NOT_FOUND,
    "unauthenticated": Exit.AUTH,
    "forbidden": Exit.AUTH,
    "conflict": Exit.CONFLICT,
    "exhausted": Exit.CONFLICT,
    "unavailable": Exit.UNREACHABLE,
    "too-many": Exit.UNREACHABLE,
}

_HINT_BY_CODE = {
    "unauthenticated": "Log in with `skep login URL`, or give a token with --token or SKEP_TOKEN.",
    "forbidden": "Ask an admin, or act as another user with --token.",
    "unavailable": "Try again in a moment.",
}


class Failure(Exception):
    """Ends the command: `message` for people, `hint` what to do, `exit` for scripts."""

    def __init__(self, message: str, exit: Exit = Exit.FAILED, hint: str = "") -> None:  # noqa: A002
        super().__init__(message)
        self.message = message
        self.exit = exit
        self.hint = hint


def from_problem(code: str, detail: str) -> Failure:
    """The failure for a problem document of the API."""
    return Failure(detail, _EXIT_BY_CODE.get(code, Exit.FAILED), _HINT_BY_CODE.get(code, ""))


def unreachable(url: str, reason: str = "") -> Failure:
    why = f" ({reason})" if reason else ""
    return Failure(f"skep does not answer at {url}{why}: is it up?", Exit.UNREACHABLE, "Try `skep up`.")
