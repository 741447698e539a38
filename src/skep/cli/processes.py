"""`skep serve`, `skep worker`, `skep agent`: the parts of an installation as processes of their own.

They stay in the foreground, for whatever runs the machine (systemd, a container engine) to look after them.
Only who runs containers must be root.
"""

import os
import sys

from skep.cli.failures import Exit, Failure


def serve() -> int:
    """Serve the API of an installation on many machines; workers carry out what it starts.

    Needs 'database' (PostgreSQL) and 'bus' (RabbitMQ) in skep.yaml. Several may serve at once.

    Example: `SKEP_LISTEN=10.0.0.1:7537 skep serve`
    """
    return become("serve", root=False)


def worker() -> int:
    """Carry out the runs of an installation on many machines. Several may work at once.

    Needs 'database' (PostgreSQL) and 'bus' (RabbitMQ) in skep.yaml. When it ends, others take up its runs.

    Example: `skep worker`
    """
    return become("worker", root=False)


def migrate() -> int:
    """Bring the database to the schema of this version, and make what every installation has.

    Every process does so when it starts, unless its setting 'migrations' is 'await': then it waits for this.
    What is done already is left alone. Processes of the release before go on meanwhile.

    Example: `skep migrate`
    """
    return become("migrate", root=False)


def become(verb: str, *, root: bool = True) -> int:
    """This process goes on as the other one; answers only if it cannot."""
    if root and os.geteuid() != 0:
        raise Failure("This needs root.", Exit.AUTH, "Try it with sudo.")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "skep.main", verb])  # noqa: S606
