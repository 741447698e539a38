"""Fixed addresses in a test cluster: a plug-in of ours that is asked as Calico's is, and a pool to ask for.

The pool is on the wire that joins the machines: each node answers there for the addresses of its pods, so no
machine has to be told where one is.  What Calico has beside is not there, so only the group of its API server
is served: nobody takes that for a network that enforces policies.
"""

from pathlib import Path
from typing import Any

from tests.cluster.kubernetes import address_plugin
from tests.cluster.kubernetes.custom import definition
from tests.cluster.kubernetes.layout import Layout
from tests.cluster.kubernetes.machine import Machine

PROGRAMS = "/var/lib/cni/programs"
"""Where nodes have network plug-ins: Debian's, and ours."""
DEBIANS = Path("/usr/lib/cni")
RECIPE = 2
"""The first of `build.RECIPE` whose API server survives a pool."""
_PLUGIN = "fixed-address"
Object = dict[str, Any]


def furnish(machine: Machine) -> None:
    """Lay the plug-ins where containerd looks for them; pods may be made meanwhile."""
    machine.write(f"{PROGRAMS}/{_PLUGIN}.new", Path(address_plugin.__file__).read_bytes())
    folder = machine.disk / Path(PROGRAMS).relative_to("/var")
    (folder / f"{_PLUGIN}.new").chmod(0o755)
    (folder / f"{_PLUGIN}.new").rename(folder / _PLUGIN)
    for program in DEBIANS.iterdir():
        if not (folder / program.name).is_symlink():
            (folder / program.name).symlink_to(program)


def attachment(machine: Machine) -> Object:
    """How pods of the node are attached, and get their addresses."""
    layout = machine.layout
    ranges = [[{"subnet": str(layout.pods_of(machine.name))}]]
    return {
        "type": "ptp",
        "ipMasq": False,
        "capabilities": {address_plugin.CAPABILITY: True},
        "ipam": {
            "type": _PLUGIN,
            "pool": str(layout.fixed),
            "node": str(machine.address),
            "otherwise": {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]},
        },
    }


def announcement(machine: Machine) -> Object:
    """Of the address, at the end of the chain."""
    return {"type": _PLUGIN, "pool": str(machine.layout.fixed)}


def pools() -> Object:
    """The kind, as Calico's API server has it."""
    return definition(("projectcalico.org", "v3"), "ippools", "IPPool", "Cluster")


def pool(layout: Layout) -> Object:
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": "IPPool",
        "metadata": {"name": "fixed"},
        "spec": {"cidr": str(layout.fixed), "assignmentMode": "Manual", "allowedUses": ["Workload"]},
    }
