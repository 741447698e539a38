"""The networks of a test cluster: a switch in a namespace of its own, a wire to each machine, and routes.

Pods of a node are behind its address; so are services, behind the first node's, for whoever is no node.
Those with a fixed address are as if they were on the wire: their node answers for them.
"""

from ipaddress import IPv4Address
from pathlib import Path

from tests.cluster.kubernetes.layout import CONTROL, HOLLOW, NUMBERS, Layout, used_numbers
from tests.cluster.kubernetes.progress import Failed, run

_SWITCH = "switch"
_BRIDGE = "bridge"
_NIC = "eth0"


def make(layout: Layout) -> None:
    """All of it, however much of it is there.

    Raises:
        Failed: the machine has these addresses elsewhere.
    """
    _make_switch(layout)
    for machine in layout.machines:
        _make_machine(layout, machine)
    for machine in (CONTROL, HOLLOW):
        _route_to_pods(_ip_in(layout, machine), layout)
    for node in layout.node_names:
        _route_to_pods(_ip_in(layout, node), layout, but=node)
        _answer_for_pods(layout, node)
    for machine in layout.machines:
        _route_to_fixed(_ip_in(layout, machine), layout, _NIC)
    _route_to_fixed(["ip"], layout, layout.wire("host"))


def remove(layout: Layout) -> None:
    """All of it; what is absent is success.  Devices and routes end with their namespaces."""
    if _there(layout.wire("host")):
        run(["ip", "link", "del", layout.wire("host")])
    for path in namespaces(layout):
        run(["ip", "netns", "del", path.name])


def namespaces(layout: Layout) -> list[Path]:
    return sorted(Path("/run/netns").glob(f"{layout.prefix}-*"))


def pids(layout: Layout) -> set[int]:
    """Of what is in any of the namespaces."""
    return {
        int(pid) for path in namespaces(layout) for pid in run(["ip", "netns", "pids", path.name]).split()
    }


def cut(layout: Layout, machine: str) -> None:
    """Pull its cable."""
    run([*_switch(layout), "link", "set", layout.wire(machine), "down"])


def mend(layout: Layout, machine: str) -> None:
    run([*_switch(layout), "link", "set", layout.wire(machine), "up"])


def _make_switch(layout: Layout) -> None:
    if not Path("/run/netns", layout.namespace(_SWITCH)).exists():
        run(["ip", "netns", "add", layout.namespace(_SWITCH)])
        run([*_switch(layout), "link", "add", _BRIDGE, "type", "bridge"])
        run([*_switch(layout), "link", "set", _BRIDGE, "up"])
    wire = layout.wire("host")
    if not _there(wire):
        _must_be_free(layout)
        peer = ["peer", "name", layout.wire("up"), "netns", layout.namespace(_SWITCH)]
        run(["ip", "link", "add", wire, "type", "veth", *peer])
    run([*_switch(layout), "link", "set", layout.wire("up"), "master", _BRIDGE, "up"])
    run(["ip", "address", "replace", f"{layout.gateway}/{layout.underlay.prefixlen}", "dev", wire])
    run(["ip", "link", "set", wire, "up"])
    _route_to_pods(["ip"], layout)


def _make_machine(layout: Layout, machine: str) -> None:
    namespace, inside = layout.namespace(machine), _ip_in(layout, machine)
    if not Path("/run/netns", namespace).exists():
        run(["ip", "netns", "add", namespace])
        wire = layout.wire(machine)
        peer = ["peer", "name", _NIC, "netns", namespace]
        run([*_switch(layout), "link", "add", wire, "type", "veth", *peer])
        run([*_switch(layout), "link", "set", wire, "master", _BRIDGE, "up"])
    run([*inside, "link", "set", "lo", "up"])
    address = f"{layout.address(machine)}/{layout.underlay.prefixlen}"
    run([*inside, "address", "replace", address, "dev", _NIC])
    run([*inside, "link", "set", _NIC, "up"])
    run([*inside, "route", "replace", "default", "via", str(layout.gateway)])
    _set(layout, machine, "ip_forward", 1)


def _route_to_pods(ip: list[str], layout: Layout, but: str = "") -> None:
    """Nodes reach services themselves."""
    for node in layout.node_names:
        if node != but:
            _route(ip, str(layout.pods_of(node)), layout.address(node))
    if not but:
        _route(ip, str(layout.services), layout.address(layout.node_names[0]))


def _route_to_fixed(ip: list[str], layout: Layout, device: str) -> None:
    run([*ip, "route", "replace", str(layout.fixed), "dev", device])


def _answer_for_pods(layout: Layout, node: str) -> None:
    """At once: by default a machine that answers for others lets them be first."""
    _set(layout, node, f"neigh/{_NIC}/proxy_delay", 0)
    _set(layout, node, f"conf/{_NIC}/proxy_arp", 1)


def _set(layout: Layout, machine: str, setting: str, value: int) -> None:
    write = ["sh", "-c", f"echo {value} >/proc/sys/net/ipv4/{setting}"]
    run(["ip", "netns", "exec", layout.namespace(machine), *write])


def _route(ip: list[str], to: str, via: IPv4Address) -> None:
    run([*ip, "route", "replace", to, "via", str(via)])


def free_number() -> int:
    """One whose addresses neither another cluster nor the machine has."""
    used = used_numbers()
    free = (number for number in NUMBERS if number not in used and not _routes(Layout("", number)))
    return next(free)


def _must_be_free(layout: Layout) -> None:
    if routes := _routes(layout):
        raise Failed(
            f"This machine routes {routes!r}, which cluster {layout.name!r} would use: take it down and give "
            "it another --number."
        )


def _routes(layout: Layout) -> str:
    """What leads to its networks, or to a part of them."""
    networks = (layout.underlay, layout.pods, layout.services)
    return " ".join(
        run(["ip", "-4", "route", "show", "root", str(network)]).strip() for network in networks
    ).strip()


def _switch(layout: Layout) -> list[str]:
    return _ip_in(layout, _SWITCH)


def _ip_in(layout: Layout, machine: str) -> list[str]:
    return ["ip", "-netns", layout.namespace(machine)]


def _there(device: str) -> bool:
    return Path("/sys/class/net", device).exists()
