"""`skep scale`."""

from skep.cli.apps import AppArgument
from skep.cli.common import DEFAULT, Common
from skep.cli.failures import Exit, Failure
from skep.cli.follow import finish
from skep.model.views.base import Accepted


def scale(app: AppArgument, /, *counts: str, wait: bool = True, common: Common = DEFAULT) -> None:
    """Change how many replicas services have, and nothing else.

    When there are to be fewer, those go first that do not serve, then those where most of the others are,
    then the newest. Of a service with a disk for each replica the highest numbers go, and their disks stay.

    Examples: `skep scale shop web=3`; `skep scale shop web=3 worker=0`

    Parameters
    ----------
    app
        Name of the app.
    counts
        SERVICE=N, one or several.
    wait
        Follow the work to its end.
    """
    if not counts:
        raise Failure("Nothing to scale.", Exit.INVALID, f"Say for example: skep scale {app} web=3")
    wanted = dict(_count(one) for one in counts)
    client = common.connect()
    accepted = client.post(f"/v1/apps/{app}/scale", Accepted, {"replicas": wanted})
    finish(client, accepted, wait=wait)


def _count(given: str) -> tuple[str, int]:
    service, equals, number = given.partition("=")
    if not (service and equals and number.isascii() and number.isdecimal()):
        raise Failure(f"{given!r} is not SERVICE=N.", Exit.INVALID, "Write it like web=3.")
    return service, int(number)
