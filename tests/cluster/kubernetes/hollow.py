"""Hollow nodes: kubelets that only say they run containers, for as many nodes as a test of scale needs.

Each takes about 60 MB.  They are one machine's programs, on ports of their own.
"""

from tests.cluster.kubernetes.certificates import Authority
from tests.cluster.kubernetes.machine import PROGRAMS, Machine

_FIRST_PORT = 20_000
_CONF = "/var/lib/kubernetes/{}.conf"
# The pretended container engine listens in /tmp under a fixed name.
_OWN_TMP = 'mount -t tmpfs -o mode=1777 tmp /tmp && exec "$@"'
_ALONE = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _OWN_TMP, "sh"]


def names(count: int) -> list[str]:
    return [f"hollow-{index}" for index in range(1, count + 1)]


def start(machine: Machine, authority: Authority, count: int) -> None:
    """So many nodes, called hollow-1 and so on; those that run already go on."""
    for index, name in enumerate(names(count)):
        machine.write(
            _CONF.format(name), authority.kubeconfig(name, f"system:node:{name}", ("system:nodes",))
        )
        ports = (_FIRST_PORT + 2 * index, _FIRST_PORT + 2 * index + 1)
        machine.start(name, [*_ALONE, *_command(name, *ports)])


def stop(machine: Machine) -> None:
    """All of them; their node objects stay."""
    machine.power_off()


def _command(name: str, port: int, read_only: int) -> list[str]:
    return [
        *(f"{PROGRAMS}/kubemark", "--morph=kubelet", f"--name={name}", f"--kubeconfig={_CONF.format(name)}"),
        *(f"--kubelet-port={port}", f"--kubelet-read-only-port={read_only}"),
        "--node-labels=skep.test/hollow=yes",
        # Whoever wants them says so: their containers do nothing.
        "--register-with-taints=skep.test/hollow=yes:NoSchedule",
    ]
