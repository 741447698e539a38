"""A test cluster as a whole: up, down, and everything of it one by one.

`up` and `down` may be repeated, also after one of them failed or was killed; they wait for each other.
"""

import fcntl
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from tests.cluster.kubernetes import (
    addresses,
    audit,
    build,
    cgroups,
    control_plane,
    dns,
    hollow,
    images,
    ingress,
    layout,
    node,
    snapshots,
    storage,
    wires,
)
from tests.cluster.kubernetes.certificates import Authority
from tests.cluster.kubernetes.layout import CONTROL, HOLLOW, Layout
from tests.cluster.kubernetes.machine import Machine, wait_until
from tests.cluster.kubernetes.progress import Failed, run, say

_ROOT = Path(__file__).parents[3]
_STARTED = 300.0
"""Seconds for what takes a few on an idle machine; test machines are busy."""
_ADMINISTRATORS = "system:masters"


class Cluster:
    """Of that layout, whether it is there or not."""

    def __init__(self, plan: Layout) -> None:
        self.layout = plan
        self.control = Machine(plan, CONTROL)
        self.nodes = {name: Machine(plan, name) for name in plan.node_names}
        self.hollow = Machine(plan, HOLLOW)

    @property
    def kubeconfig(self) -> Path:
        """Of its administrator."""
        return self.layout.kubeconfig

    def audited(self, folder: Path) -> Path:
        """The kubeconfig, in that folder, of a user whose requests are written down: see `audit`."""
        path = folder / "audited.conf"
        path.touch(mode=0o600)
        path.write_bytes(self._authority().kubeconfig("audited", audit.USER, (_ADMINISTRATORS,)))
        return path

    @property
    def machines(self) -> list[Machine]:
        return [self.control, *self.nodes.values(), self.hollow]

    # as a whole

    def up(self) -> None:
        """Everything runs and every node is Ready; what runs already is left alone.

        Raises:
            Failed: it cannot be; what was begun is there for `down`, and to look at.
        """
        build.programs()
        with _alone(self.layout.name):
            layout.save(self.layout)
            wires.make(self.layout)
            self._administrate()
            self.start(self.control)
            for machine in self.nodes.values():
                self.start(machine)
            for thing in (storage.storage_class(), *ingress.objects(self.layout), *dns.objects(self.layout)):
                self._apply(thing)
            for part in (storage, dns, ingress):
                self._start_beside(part.PROGRAM, part.__name__)
            if self.layout.recipe >= snapshots.RECIPE:  # one that was raised before goes on without
                self._keep_snapshots()
            if self.layout.recipe >= addresses.RECIPE:
                self._offer_addresses()
            say(f"waiting for {self.layout.nodes} nodes to be Ready")
            self.until(lambda: set(self.nodes) <= self.ready(), "every node is Ready")

    def down(self) -> None:
        """Nothing of it is left, whatever there was."""
        with _alone(self.layout.name):
            # The network last: it tells whose processes are ours, even of those that nobody wrote down.
            for machine in self.machines:
                with suppress(OSError):
                    machine.power_off()
            for pid in wires.pids(self.layout):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not wires.pids(self.layout), _STARTED, "its processes have ended")
            cgroups.remove(self.layout.prefix)
            wires.remove(self.layout)
            if self.layout.folder.exists():
                shutil.rmtree(self.layout.folder)
        if left := cgroups.left(self.layout.prefix):
            raise Failed(
                f"control groups are left, of processes that do not end: {', '.join(map(str, left))}"
            )

    # one by one

    def start(self, machine: Machine) -> None:
        """Switch it on if it is off, and start of its programs what does not run.

        Raises:
            Failed: they do not come to life.
        """
        machine.boot(build.programs())
        if machine is self.control:
            self._start_control()
        elif machine is not self.hollow:
            self._start_node(machine)

    def commands(self, machine: Machine) -> dict[str, list[str]]:
        """What its programs are started with, by name, in order."""
        if machine is self.control:
            return control_plane.commands(self.layout)
        return {} if machine is self.hollow else node.commands(machine)

    def launch(self, machine: Machine, program: str) -> None:
        """Start one program of a machine that is on, without waiting for it."""
        machine.start(program, self.commands(machine)[program])

    def start_hollow(self, count: int) -> list[str]:
        """So many more nodes that only say they run containers; answers their names once they are Ready.

        Raises:
            Failed: they do not become Ready.
        """
        self.start(self.hollow)
        hollow.start(self.hollow, self._authority(), count)
        wanted = set(hollow.names(count))
        say(f"waiting for {count} hollow nodes to be Ready")
        self.until(lambda: wanted <= self.ready(), f"{count} hollow nodes are Ready")
        return hollow.names(count)

    def stop_hollow(self) -> None:
        """They, and what the API has of them, are gone."""
        hollow.stop(self.hollow)
        self.kubectl(
            "delete", "node", "--selector=skep.test/hollow=yes", "--ignore-not-found", "--wait=false"
        )

    def load(self, archive: Path) -> None:
        """The images of an OCI archive, on every node."""
        for machine in self.nodes.values():
            node.load(machine, archive)

    def trust(self, registry: str) -> None:
        """Nodes pull from that registry (HOST:PORT) without TLS, from now on, until they are made anew."""
        for machine in self.nodes.values():
            node.trust(machine, registry)

    # what it says

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        """What it prints, as the administrator.  Raises Failed: what it complains about."""
        return run(self.kubectl_words(*words), stdin=stdin)

    def kubectl_words(self, *words: str) -> list[str | Path]:
        """The command line of it."""
        return [build.programs() / "kubectl", f"--kubeconfig={self.kubeconfig}", *words]

    def get(self, *words: str) -> Any:
        """What `kubectl get` says, decoded."""
        return json.loads(self.kubectl("get", *words, "--output=json"))

    def ready(self) -> set[str]:
        """The nodes that are; none while the API server does not answer."""
        with suppress(Failed):
            return {n["metadata"]["name"] for n in self.get("nodes")["items"] if _is_ready(n)}
        return set()

    def answers(self) -> bool:
        """Whether the API server is ready."""
        with suppress(Failed):
            return self.kubectl("get", "--raw", "/readyz", "--request-timeout=5s") == "ok"
        return False

    def until(self, true: Callable[[], bool], what: str, patience: float = _STARTED) -> None:
        """Raises Failed: it is still not so when patience ends; with what the programs said last."""
        try:
            wait_until(true, patience, what, every=0.5)
        except Failed as error:
            raise Failed(f"{error}\n{self.said()}") from None

    def said(self) -> str:
        """The end of every log."""
        logs = [(m, path.stem) for m in self.machines for path in sorted((m.disk / "log").glob("*.log"))]
        return "\n".join(f"--- {m.name} {program}\n{m.said(program)}" for m, program in logs)

    # within

    def _start_control(self) -> None:
        control_plane.furnish(self.control, self._authority())
        say("starting etcd and the API server")
        for program in (control_plane.ETCD, control_plane.APISERVER):
            self.launch(self.control, program)
        self.until(self.answers, "the API server is ready")
        for program in (control_plane.MANAGER, control_plane.SCHEDULER):
            self.launch(self.control, program)

    def _start_node(self, machine: Machine) -> None:
        node.furnish(machine, self._authority())
        say(f"starting {machine.name}")
        self.launch(machine, node.CONTAINERD)
        self.until(lambda: node.answers(machine), f"containerd of {machine.name} answers")
        if images.BUSYBOX not in node.containerd(machine, "images", "ls", "--quiet").split():
            node.load(machine, images.archive(machine.folder))
        for program in (node.KUBELET, node.PROXY):
            self.launch(machine, program)

    def _authority(self) -> Authority:
        return Authority(self.layout.folder / "authority", self.layout.api)

    def _administrate(self) -> None:
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_bytes(self._authority().kubeconfig("admin", "admin", (_ADMINISTRATORS,)))

    def _start_beside(self, program: str, module: str, *words: str) -> None:
        command = [sys.executable, "-m", module, self.layout.name, *words]
        paths = {"PYTHONPATH": f"{_ROOT}:{_ROOT / 'src'}", "SKEP_KUBERNETES_STATE": str(layout.STATE)}
        self.control.start_beside(program, command, paths)

    def _keep_snapshots(self) -> None:
        for thing in snapshots.definitions():
            self._apply(thing)
        self.until(lambda: self._applied(snapshots.snapshot_class()), "the API serves snapshots")
        self._start_beside(snapshots.PROGRAM, snapshots.__name__)

    def _offer_addresses(self) -> None:
        self._apply(addresses.pools())
        self.until(lambda: self._applied(addresses.pool(self.layout)), "the API serves pools of addresses")

    def _applied(self, thing: object) -> bool:
        """Whether its kind is served already."""
        with suppress(Failed):
            self._apply(thing)
            return True
        return False

    def _apply(self, thing: object) -> None:
        self.kubectl("apply", "--filename=-", stdin=msgspec.json.encode(thing).decode())


def planned(
    name: str, *, nodes: int = 2, number: int | None = None, registries: Sequence[str] = ()
) -> Layout:
    """What there is under that name, or else a new plan, written down at once: all who ask get the same."""
    with _alone("plans"):
        if (found := layout.saved(name)) is not None:
            return found
        free = wires.free_number() if number is None else number
        layout.save(Layout(name, free, nodes, tuple(registries), build.RECIPE))
    return planned(name)


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Nobody else raises or removes a cluster of that name meanwhile."""
    layout.STATE.mkdir(parents=True, exist_ok=True)
    with (layout.STATE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_ready(thing: dict[str, Any]) -> bool:
    conditions = thing["status"].get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
