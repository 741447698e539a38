"""The words of the flow engine as those of skep's errors."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from skep.flow import FlowError, InputError, UnknownFlow, UnknownRun, WrongState
from skep.flow.bundles.refusals import BundleRefused, UnknownBundle
from skep.flow.errors import CommitFailed, FlowFault, Unloadable
from skep.flow.schedules.schedule import UnknownSchedule, WrongSchedule
from skep.model.errors import Conflict, InvalidInput, NotFound, SkepError

_KINDS: tuple[tuple[type[FlowFault], type[SkepError], str], ...] = (
    (UnknownRun, NotFound, "See 'skep run ls'."),
    (UnknownFlow, NotFound, "See 'skep flow ls'."),
    (UnknownBundle, NotFound, "See 'skep bundle ls'."),
    (UnknownSchedule, NotFound, "See 'skep schedule ls'."),
    (InputError, InvalidInput, ""),
    (WrongSchedule, InvalidInput, ""),
    (BundleRefused, InvalidInput, ""),
    (FlowError, InvalidInput, ""),
    (WrongState, Conflict, ""),
    (Unloadable, Conflict, ""),
)

_BUNDLE = re.compile(r"\S+ \S+ \([0-9a-f]{12}\): ")
"""How a message begins that is about a version of a bundle: its name stays as it is written."""


@contextmanager
def translated() -> Iterator[None]:
    """What goes wrong within, as what the caller can do about it."""
    try:
        yield
    except CommitFailed:
        raise
    except FlowFault as error:
        for fault, kind, hint in _KINDS:
            if isinstance(error, fault):
                raise kind(sentence(error.message, hint)) from error
        raise


def sentence(message: str, hint: str = "") -> str:
    """With a capital letter, unless it begins with the name of something, and a full stop."""
    word = message.partition(" ")[0]
    named = not word.isalpha() or _BUNDLE.match(message)
    whole = message if named else f"{message[:1].upper()}{message[1:]}"
    whole = whole if whole.endswith((".", "!", "?")) or "\n" in whole else f"{whole}."
    return f"{whole} {hint}".strip()
