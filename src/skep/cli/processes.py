"""`skep serve`, `skep worker`, `skep agent`: the parts of an installation as processes of their own.

They stay in the foreground, for whatever runs the machine (systemd, a container engine) to look after them.
"""

import os
import sys

from skep.cli.failures import Exit, Failure


def serve() -> int:
    """Serve the API of an installation on many machines; workers carry out what it starts.

    Needs 'database' (PostgreSQL) and 'bus' (RabbitMQ) in skep.yaml. Several may serve at once.

    Example: `SKEP_LISTEN=10.0.0.1:7537 skep serve`
    """
    return become("serve")


def worker() -> int:
    """Carry out the runs of an installation on many machines. Several may work at once.

    Needs 'database' (PostgreSQL) and 'bus' (RabbitMQ) in skep.yaml. When it ends, others take up its runs.

    Example: `skep worker`
    """
    return become("worker")


def become(verb: str) -> int:
    """This process goes on as the other one; answers only if it cannot."""
    if os.geteuid() != 0:
        raise Failure("This needs root.", Exit.AUTH, "Try it with sudo.")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "skep.main", verb])  # noqa: S606
