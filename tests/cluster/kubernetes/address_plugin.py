#!/usr/bin/python3 -ISB
"""The address plug-in of the test cluster's nodes: pods get the address that they ask for, or any free one.

It is asked as Calico's is, by the annotation `cni.projectcalico.org/ipAddrs`, and refuses in the same words.
On its node it knows who has which address; of others it asks the network, where nodes answer for their pods
(proxy ARP).  A script of its own: nodes have Debian's Python and nothing of ours.

It is called twice for a pod: for IPAM, and at the end of the chain, once the node answers for the address.
Then all are told where it is now.  Who had called it on another node would else go on sending there: that one
passes on what it gets and sees no answer, so the rules of kube-proxy drop what comes next as INVALID.

Nearly all pods ask for no address: what only the others need is imported by them.  Else most of what a node
does for a pod that begins would be this script.

Format: https://www.cni.dev/docs/spec/ (version 0.4.0); annotations are passed by containerd as the capability
`io.kubernetes.cri.pod-annotations`.
"""

# ruff: noqa: PTH103, PTH108, PTH110, PTH123, PTH208 -- pathlib is one of these imports

from __future__ import annotations

import json
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from ipaddress import IPv4Address, IPv4Network
    from typing import Any, NoReturn

ANNOTATION = "cni.projectcalico.org/ipAddrs"
CAPABILITY = "io.kubernetes.cri.pod-annotations"
OTHERWISE = "/usr/lib/cni/host-local"
_HELD = "/var/lib/cni/held"
"""A file per address that was asked for, of whose pod has it."""
_ROUTES = "/proc/net/route"
_NIC, _ARP, _ASKED, _ANSWERED = "eth0", 0x0806, 1, 2
_PATIENCE = 0.3
"""Seconds for an answer of another node, which is there within one thousandth."""


class Refused(Exception):
    """In words for whoever asked."""


def main() -> int:
    conf = json.load(sys.stdin)
    command, container = os.environ["CNI_COMMAND"], os.environ.get("CNI_CONTAINERID", "")
    if "ipam" not in conf:
        return _attached(conf, command)
    wanted = (conf.get("runtimeConfig") or {}).get(CAPABILITY, {}).get(ANNOTATION)
    if command == "ADD" and wanted:
        print(json.dumps(_given(conf, json.loads(wanted), container)))
        return 0
    if command == "DEL":
        _give_back(container)
    return _otherwise(conf | {"ipam": conf["ipam"]["otherwise"]})


def _otherwise(conf: dict[str, Any]) -> NoReturn:
    """A pipe holds more than any configuration is long."""
    read, write = os.pipe()
    os.write(write, json.dumps(conf).encode())
    os.close(write)
    os.dup2(read, sys.stdin.fileno())
    os.execv(OTHERWISE, [OTHERWISE])


def _attached(conf: dict[str, Any], command: str) -> int:
    """What was before it in the chain has done its work, and answers so."""
    if command == "ADD":
        for one in conf["prevResult"]["ips"]:
            address = one["address"].partition("/")[0]
            if os.path.exists(f"{_HELD}/{address}"):
                _announce(address)
        print(json.dumps(conf["prevResult"]))
    return 0


def _given(conf: dict[str, Any], asked: list[str], container: str) -> dict[str, Any]:
    """What CNI answers once the address is the container's."""
    from ipaddress import IPv4Address, IPv4Network

    ipam = conf["ipam"]
    if len(asked) != 1:
        raise Refused("Can not have more than one IPv4 address in ipAddrs annotation")
    address, pool = IPv4Address(asked[0]), IPv4Network(ipam["pool"])
    if address not in pool:
        raise Refused("The provided IP address is not in a configured pool")
    _hold(address, pool, container, IPv4Address(ipam["node"]))
    return {
        "cniVersion": conf["cniVersion"],
        "ips": [{"version": "4", "address": f"{address}/{pool.prefixlen}", "gateway": str(pool[1])}],
        "routes": [{"dst": "0.0.0.0/0"}],
    }


def _hold(address: IPv4Address, pool: IPv4Network, container: str, node: IPv4Address) -> None:
    os.makedirs(_HELD, exist_ok=True)
    taken = Refused(f"resource already exists: {address}: Address already assigned in block")
    if address in (pool[0], pool[1], pool[-1]):
        raise taken
    try:
        with open(f"{_HELD}/{address}", "x") as file:
            file.write(container)
    except FileExistsError:
        if _read(f"{_HELD}/{address}") != container:
            raise taken from None
        return
    if has_route(address.packed, _read(_ROUTES)) or _answers(address, node):
        _give_back(container)
        raise taken


def _give_back(container: str) -> None:
    for name in os.listdir(_HELD) if os.path.exists(_HELD) else ():
        if container and _read(f"{_HELD}/{name}") == container:
            os.unlink(f"{_HELD}/{name}")


def _read(path: str) -> str:
    """Empty of what another call has removed meanwhile."""
    try:
        with open(path) as file:
            return file.read()
    except FileNotFoundError:
        return ""


def has_route(address: bytes, routes: str) -> bool:
    """Whether a pod of this node still has it: IPAM hears of the end before the pod's device goes.

    With that goes its route.  The next pod would get none: `ptp` is content with one that is there.
    """
    own = f"{int.from_bytes(address, sys.byteorder):08X}"
    found = (line.split() for line in routes.splitlines())
    return any(line[1] == own and line[7] == "FFFFFFFF" for line in found)


def _announce(text: str) -> None:
    """By an ARP announcement (RFC 5227, section 3): who knows another node for it forgets that at once."""
    from ipaddress import IPv4Address

    address = IPv4Address(text)
    with _wire() as wire:
        wire.send(_request(wire, address, address))


def _answers(address: IPv4Address, node: IPv4Address) -> bool:
    """Whether some other node has it."""
    import struct
    import time

    with _wire() as wire:
        wire.send(_request(wire, node, address))
        end = time.monotonic() + _PATIENCE
        while (left := end - time.monotonic()) > 0:
            wire.settimeout(left)
            try:
                frame = wire.recv(64)
            except TimeoutError:
                return False
            if frame[20:22] == struct.pack("!H", _ANSWERED) and frame[28:32] == address.packed:
                return True
    return False


def _wire() -> socket.socket:
    import socket

    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ARP))
    wire.bind((_NIC, _ARP))
    return wire


def _request(wire: socket.socket, sender: IPv4Address, target: IPv4Address) -> bytes:
    import struct

    own = wire.getsockname()[4]
    head = struct.pack("!6s6sHHHBBH", b"\xff" * 6, own, _ARP, 1, 0x0800, 6, 4, _ASKED)
    return bytes(head + own + sender.packed + bytes(6) + target.packed)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Refused as error:
        print(json.dumps({"cniVersion": "0.4.0", "code": 100, "msg": str(error)}))
        sys.exit(1)
