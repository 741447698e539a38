#!/usr/bin/python3 -ISB
"""The IPAM plug-in of the test cluster's nodes: pods get the address that they ask for, or any of the node's.

It is asked as Calico's is, by the annotation `cni.projectcalico.org/ipAddrs`, and refuses in the same words.
On its node it knows who has which address; of others it asks the network, where nodes answer for their pods
(proxy ARP).  A script of its own: nodes have Debian's Python and nothing of ours.

Format: https://www.cni.dev/docs/spec/ (version 0.4.0); annotations are passed by containerd as the capability
`io.kubernetes.cri.pod-annotations`.
"""

import json
import os
import socket
import struct
import subprocess
import sys
import time
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

ANNOTATION = "cni.projectcalico.org/ipAddrs"
CAPABILITY = "io.kubernetes.cri.pod-annotations"
OTHERWISE = "/usr/lib/cni/host-local"
_HELD = Path("/var/lib/cni/held")
_NIC, _ARP, _ASKED, _ANSWERED = "eth0", 0x0806, 1, 2
_PATIENCE = 0.3
"""Seconds for an answer of another node, which is there within one thousandth."""


class Refused(Exception):
    """In words for whoever asked."""


def main() -> int:
    conf = json.load(sys.stdin)
    command, container = os.environ["CNI_COMMAND"], os.environ.get("CNI_CONTAINERID", "")
    wanted = (conf.get("runtimeConfig") or {}).get(CAPABILITY, {}).get(ANNOTATION)
    if command == "ADD" and wanted:
        print(json.dumps(_given(conf, json.loads(wanted), container)))
        return 0
    if command == "DEL":
        _give_back(container)
    rest = conf | {"ipam": conf["ipam"]["otherwise"]}
    return subprocess.run([OTHERWISE], input=json.dumps(rest).encode(), check=False).returncode


def _given(conf: dict[str, Any], asked: list[str], container: str) -> dict[str, Any]:
    """What CNI answers once the address is the container's."""
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
    _HELD.mkdir(parents=True, exist_ok=True)
    taken = Refused(f"resource already exists: {address}: Address already assigned in block")
    if address in (pool[0], pool[1], pool[-1]):
        raise taken
    try:
        with (_HELD / str(address)).open("x") as file:
            file.write(container)
    except FileExistsError:
        if (_HELD / str(address)).read_text() != container:
            raise taken from None
        return
    if _answers(address, node):
        _give_back(container)
        raise taken


def _give_back(container: str) -> None:
    for file in _HELD.glob("*"):
        if file.read_text() == container:
            file.unlink(missing_ok=True)


def _answers(address: IPv4Address, node: IPv4Address) -> bool:
    """Whether some other node has it."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ARP)) as wire:
        wire.bind((_NIC, _ARP))
        own = wire.getsockname()[4]
        head = struct.pack("!6s6sHHHBBH", b"\xff" * 6, own, _ARP, 1, 0x0800, 6, 4, _ASKED)
        wire.send(head + own + node.packed + bytes(6) + address.packed)
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


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Refused as error:
        print(json.dumps({"cniVersion": "0.4.0", "code": 100, "msg": str(error)}))
        sys.exit(1)
