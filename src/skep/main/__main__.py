"""`python -m skep.main VERB`; the `skep` command calls it for the verbs of the same names."""

import argparse
import os
import sys
from collections.abc import Callable, Coroutine

import uvloop

from skep import configuration
from skep.configuration import Configuration
from skep.flow import CommitFailed
from skep.main import agent, serve, up, worker
from skep.main.process import log_events, must_be_root
from skep.main.teardown import tear_down
from skep.model.errors import SkepError

Verb = Callable[[Configuration], Coroutine[None, None, None]]

VERBS: dict[str, Verb] = {
    "up": up.run,
    "serve": serve.run,
    "worker": worker.run,
    "agent": agent.run,
    "down": lambda settings: tear_down(settings, purge=False),
    "purge": lambda settings: tear_down(settings, purge=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="skep.main", description=__doc__)
    parser.add_argument("verb", choices=list(VERBS))
    parser.add_argument("--foreground", action="store_true", help="stay in the foreground (always so)")
    arguments = parser.parse_args()
    log_events()
    try:
        settings = configuration.read(os.environ)
        must_be_root()
        uvloop.run(VERBS[arguments.verb](settings))
    except (SkepError, CommitFailed) as error:
        sys.exit(f"error: {error.message}")
    except OSError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
