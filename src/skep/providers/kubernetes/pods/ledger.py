"""What skep must not forget of the containers of one carrier: kept in the cluster itself, in a ConfigMap.

It owns everything else that is made for them, so that nothing is left once it is gone.
"""

import json
from typing import Any

import msgspec

from skep.model.host import HostStruct
from skep.model.ids import ContainerId, ReplicaId, Seconds, TenantId
from skep.model.restarts import History
from skep.model.spec import RestartPolicy
from skep.providers.kubernetes.pods.naming import CarrierKind

KEY = "carrier.json"


class Exit(HostStruct, frozen=True, kw_only=True):
    """How a container ended for good, or until its next start.  No code: nobody saw it."""

    code: int | None = None
    oom: bool = False
    error: str = ""
    at: float | None = None


class Entry(HostStruct, frozen=True, kw_only=True):
    """One container.  `spec`: what it was last started with, as a digest."""

    id: ContainerId
    replica: ReplicaId
    name: str
    spec: str
    wanted: bool = True
    ports: bool = False
    grace: Seconds = Seconds(10.0)
    checked: Seconds | None = None
    """Seconds from a start until what was never well is unwell; None: its health is not checked."""
    restart: RestartPolicy = RestartPolicy()
    attempt: int = 1
    """Of pods that skep makes itself: each start has its own."""
    restarts: int = 0
    """Those that the pod there is now has not counted."""
    history: History = History()
    exit: Exit | None = None
    again: bool = False
    """It ended, and its policy starts it again at the end of a delay."""
    begun: float | None = None
    """When it first ran."""
    memory_limit: int | None = None


class Ledger(HostStruct, frozen=True, kw_only=True):
    """`template` is that of the pods of those that are wanted."""

    kind: CarrierKind
    name: str
    namespace: str
    tenant: TenantId
    app: str
    service: str
    template: dict[str, Any]
    shape: str
    entries: dict[ContainerId, Entry] = msgspec.field(default_factory=dict)

    @property
    def wanted(self) -> list[Entry]:
        return [entry for entry in self.entries.values() if entry.wanted]

    def says_as_much_as(self, other: "Ledger | None") -> bool:
        """Whether nothing is forgotten if the other is what is kept.

        Pods that a controller keeps say themselves that they have begun.
        """
        return other is not None and (self == other or self._lasting() == other._lasting())

    def _lasting(self) -> "Ledger":
        if self.kind is CarrierKind.POD:
            return self
        kept = {key: msgspec.structs.replace(one, begun=None) for key, one in self.entries.items()}
        return msgspec.structs.replace(self, entries=kept)

    def with_entry(self, entry: Entry) -> "Ledger":
        return msgspec.structs.replace(self, entries=self.entries | {entry.id: entry})

    def without(self, container: ContainerId) -> "Ledger":
        kept = {key: entry for key, entry in self.entries.items() if key != container}
        return msgspec.structs.replace(self, entries=kept)


def written(ledger: Ledger, labels: dict[str, str]) -> dict[str, Any]:
    """The manifest of the ConfigMap."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": ledger.name, "namespace": ledger.namespace, "labels": labels},
        "data": {KEY: msgspec.json.encode(ledger).decode()},
    }


def read(data: dict[str, str]) -> Ledger:
    """Raises ValueError: it is none."""
    try:
        return msgspec.json.decode(data[KEY], type=Ledger)
    except (KeyError, msgspec.DecodeError, json.JSONDecodeError) as error:
        raise ValueError(str(error)) from error
