"""`python -m skep.main VERB`; the `skep` command calls it for the verbs of the same names."""

import argparse
import gc
import os
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from importlib import import_module

import uvloop

from skep import configuration
from skep.flow import CommitFailed
from skep.main.process import log_events, must_be_root
from skep.model.errors import SkepError

VERBS: dict[str, tuple[str, dict[str, bool]]] = {
    "up": ("skep.main.up:run", {}),
    "serve": ("skep.main.serve:run", {}),
    "migrate": ("skep.main.migrate:run", {}),
    "worker": ("skep.main.worker:run", {}),
    "agent": ("skep.main.agent:run", {}),
    "down": ("skep.main.teardown:tear_down", {"purge": False}),
    "box": ("skep.main.box_controls:run", {}),
    "purge": ("skep.main.purge:run", {}),
}
"""A process imports what it is made of, and nothing of the others."""
WITHOUT_ROOT = {"serve", "worker", "migrate"}
"""They touch nothing of the machine but their own files."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="skep.main", description=__doc__)
    parser.add_argument("verb", choices=list(VERBS))
    parser.add_argument("words", nargs="*", help="what `box` does, and to which host")
    parser.add_argument("--foreground", action="store_true", help="stay in the foreground (always so)")
    arguments = parser.parse_args()
    words = {"words": arguments.words} if arguments.verb == "box" else {}
    if arguments.words and not words:
        parser.error(f"{arguments.verb} takes no words")
    log_events()
    try:
        settings = configuration.read(os.environ)
        if arguments.verb not in WITHOUT_ROOT:
            must_be_root()
        uvloop.run(_work_of(arguments.verb)(settings, **words))
    except (SkepError, CommitFailed) as error:
        sys.exit(f"error: {error.message}")
    except OSError as error:
        sys.exit(f"error: {error}")


def _work_of(verb: str) -> Callable[..., Coroutine[None, None, None]]:
    path, arguments = VERBS[verb]
    module, _, name = path.partition(":")
    gc.disable()  # what is imported stays: to look through it for garbage is a seventh of a start
    try:
        return partial(getattr(import_module(module), name), **arguments)
    finally:
        gc.enable()


if __name__ == "__main__":
    main()
