"""`skep up` with the test cluster as its zone: what the benches of `make bench-kubernetes` measure.

It speaks to the API server as a user of its own, whose requests are written down.
"""

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from tests.bench.installation import Installation
from tests.cluster.kubernetes import registry
from tests.cluster.kubernetes.audit import Audit
from tests.cluster.kubernetes.cluster import Cluster
from tests.cluster.kubernetes.progress import say
from tests.machines import busybox_archive

INSTANCE = "skephollow"
ZONE = "cluster"
IMAGE = "busybox:1"
PATIENCE = 1800.0
_OF_THE_HOST = (
    "get /version",
    *("list storageclasses", "list volumesnapshotclasses", "list ingressclasses", "list gateways"),
    *("list ippools", "list subnets"),
)
"""Signs of life, and what the cluster offers: the same for a thousand apps as for none."""


class Zone:
    """An installation whose only zone for apps is the cluster."""

    def __init__(self, skep: Installation, cluster: Cluster) -> None:
        self.skep = skep
        self.cluster = cluster
        self._audit = Audit(cluster.control)

    def mark(self) -> None:
        """Requests are counted from now on."""
        self._audit.mark()

    def requests(self) -> tuple[int, int, str]:
        """For apps, and for the host as such; and which those for apps were.

        Watches are in neither: each counts when it ends.
        """
        made = self._audit.requests()
        of_host = sum(made[one] for one in _OF_THE_HOST)
        rest = Counter({one: n for one, n in made.items() if not one.startswith("watch ")})
        for one in _OF_THE_HOST:
            del rest[one]
        return rest.total(), of_host, ", ".join(f"{n} {one}" for one, n in rest.most_common(5))

    def at_rest(self, seconds: float) -> tuple[int, int, str]:
        """The same, of a time in which nothing happens."""
        self.mark()
        time.sleep(seconds)
        return self.requests()


@contextmanager
def zone(cluster: Cluster) -> Iterator[Zone]:
    """Up, and led; nothing is left of it in the cluster."""
    with (
        registry.serve(cluster) as address,
        tempfile.TemporaryDirectory() as folder,
        Installation(
            instance=INSTANCE,
            networks="10.200.0.0/13",
            links="100.99.0.0/16",
            pool_size="1GiB",
            more={"SKEP_INSECURE_REGISTRIES": address},
        ) as skep,
    ):
        say("starting skep, with the cluster as a zone")
        skep.start()
        skep.command("image", "import", str(busybox_archive(Path(folder))), IMAGE, "--shared")
        kubeconfig = str(cluster.audited(Path(folder)))
        skep.command("zone", "add", ZONE, "--kubeconfig", kubeconfig, "--registry", f"{address}/skep")
        until(lambda: _leads(skep), "the cluster is led")
        yield Zone(skep, cluster)


def run_of(answer: httpx.Response) -> str:
    """Raises RuntimeError: it was refused."""
    if answer.is_error:
        raise RuntimeError(f"{answer.request.method} {answer.request.url}: {answer.text}")
    run: str = answer.json()["run"]
    return run


def until(true: Callable[[], bool], what: str, every: float = 0.2) -> None:
    """Raises TimeoutError: in vain."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {PATIENCE:.0f} s in vain until {what}")
        time.sleep(every)


def _leads(skep: Installation) -> bool:
    hosts = json.loads(skep.command("host", "ls", "--output=json"))
    return any(host["zone"] == ZONE and host["state"] == "ready" for host in hosts)
