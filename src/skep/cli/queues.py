"""`skep bus`: what waits between the processes of an installation."""

from cyclopts import App

from skep.cli.common import DEFAULT, Common
from skep.cli.output import age, show
from skep.model.views.system import DeadLetterView, QueueView

app = App(name="bus", help="The bus: queues, dead letters.")


@app.command(name="ls")
def list_queues(*, common: Common = DEFAULT) -> None:
    """List what waits for hosts and workers. A queue with messages and no server is of somebody who is away.

    For admins.

    Example: `skep bus ls`
    """
    columns = [
        ("QUEUE", lambda one: one.key),
        ("WAITING", lambda one: one.waiting),
        ("SERVERS", lambda one: one.servers),
    ]
    show(common.connect().get("/v1/queues", list[QueueView]), columns, common.output)


@app.command
def dead(*, common: Common = DEFAULT) -> None:
    """List what was tried too often and given up, oldest first. Runs have noticed; it tells where to look.

    For admins.

    Example: `skep bus dead`
    """
    columns = [
        ("SINCE", lambda one: age(one.at)),
        ("QUEUE", lambda one: one.key),
        ("CALL", lambda one: one.method),
        ("ID", lambda one: one.id),
    ]
    show(common.connect().get("/v1/queues/dead", list[DeadLetterView]), columns, common.output)
