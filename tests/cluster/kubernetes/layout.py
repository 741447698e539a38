"""Names and addresses of a test cluster: everything follows from its name and its number.

Clusters of different names live side by side.  A number is an octet of each of its networks.
"""

import os
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import msgspec

STATE = Path(os.environ.get("SKEP_KUBERNETES_STATE", "/var/lib/skep-kubernetes"))
NUMBERS = range(64)
DEFAULT_NAME = os.environ.get("SKEP_KUBERNETES_NAME", "test")
"""Of the cluster that tests use, and commands that name none."""
CONTROL = "control"
HOLLOW = "hollow"
_RECORD = "cluster.json"


class Layout(msgspec.Struct, frozen=True):
    """Kept in the cluster's folder while there is one."""

    name: str
    number: int
    nodes: int = 2
    registries: tuple[str, ...] = ()
    """Addresses (HOST:PORT) that nodes pull from without TLS."""
    recipe: int = 1
    """Of the programs that it was raised with (`build.RECIPE`)."""

    @property
    def folder(self) -> Path:
        return STATE / self.name

    @property
    def prefix(self) -> str:
        """What names of namespaces begin with; control groups are called so."""
        return f"k8s-{self.name}"

    @property
    def node_names(self) -> tuple[str, ...]:
        return tuple(f"node-{index}" for index in range(1, self.nodes + 1))

    @property
    def machines(self) -> tuple[str, ...]:
        """All that have an address of their own."""
        return (CONTROL, *self.node_names, HOLLOW)

    def namespace(self, machine: str) -> str:
        return f"{self.prefix}-{machine}"

    def wire(self, machine: str) -> str:
        """The name of the network device that leads to it; at most 15 characters."""
        return f"k8s{self.number}-{machine}"

    # addresses

    @property
    def underlay(self) -> IPv4Network:
        """Where the machines meet."""
        return IPv4Network(f"198.19.{self.number}.0/24")

    @property
    def gateway(self) -> IPv4Address:
        """This machine, as nodes and pods see it: what is to be reached from them listens here."""
        return self.underlay[1]

    def address(self, machine: str) -> IPv4Address:
        return self.underlay[10 + self.machines.index(machine)]

    @property
    def pods(self) -> IPv4Network:
        return IPv4Network(f"10.{64 + self.number}.0.0/16")

    def pods_of(self, node: str) -> IPv4Network:
        return list(self.pods.subnets(new_prefix=24))[1 + self.node_names.index(node)]

    @property
    def fixed(self) -> IPv4Network:
        """Of the pods that ask for an address, on whatever node they are."""
        return list(self.pods.subnets(new_prefix=24))[200]

    @property
    def services(self) -> IPv4Network:
        return IPv4Network(f"10.{128 + self.number}.0.0/16")

    @property
    def dns(self) -> IPv4Address:
        """What pods ask for names."""
        return self.services[10]

    @property
    def api(self) -> str:
        return f"https://{self.address(CONTROL)}:6443"

    @property
    def kubeconfig(self) -> Path:
        """Of the cluster's administrator."""
        return self.folder / "admin.conf"


def saved(name: str) -> Layout | None:
    """What was made, or begun, under that name."""
    with suppress(FileNotFoundError):
        return msgspec.json.decode((STATE / name / _RECORD).read_bytes(), type=Layout)
    return None


def save(layout: Layout) -> None:
    """In one go: others look for free numbers at any time."""
    layout.folder.mkdir(parents=True, exist_ok=True)
    part = layout.folder / f"{_RECORD}.part"
    part.write_bytes(msgspec.json.format(msgspec.json.encode(layout)))
    part.replace(layout.folder / _RECORD)


def used_numbers() -> set[int]:
    """Of this machine's clusters."""
    found = (saved(path.name) for path in STATE.glob("*") if path.is_dir())
    return {layout.number for layout in found if layout is not None}
