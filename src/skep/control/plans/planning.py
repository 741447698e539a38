"""Desired release against what is there, decided: which replicas are made, changed, kept or removed.

Pure: facts and ids in, plan out.  `facts.py` gathers the facts, `placing.py` chooses the hosts.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import msgspec

from skep.control.plans.comparing import difference, found, ordinals
from skep.control.plans.plans import DiskMove, Facts, Plan, ReplicaChange
from skep.control.plans.provisions import Provisions
from skep.model.ids import Bytes, ContainerId, DiskId, HostName, ReleaseId, ReplicaId, ServiceId
from skep.model.names import ServiceName
from skep.model.spec import AppSpec
from skep.store.disks import DiskRow
from skep.store.replicas import ReplicaRow


def make_plan(
    facts: Facts,
    spec: AppSpec,
    *,
    new_id: Callable[[], str],
    placing: Mapping[tuple[ServiceName, int], HostName],
    default_disk: Bytes,
    force_recreate: bool = False,
) -> Plan:
    """Compare and decide.  An image that is not here yet is pulled, and its service's replicas re-created.

    `placing` has a host for every replica that is not there yet, and for every stand-in (`placing.assign`).

    Raises:
        NotFound: an external network or volume does not exist.
        Conflict: a network or disk of that name is another app's, or would have to change.
    """
    provisions = Provisions(facts, spec, new_id, default_disk)
    return _Planner(facts, spec, new_id, placing, provisions, force_recreate).plan()


class _Planner:
    def __init__(
        self,
        facts: Facts,
        spec: AppSpec,
        new_id: Callable[[], str],
        placing: Mapping[tuple[ServiceName, int], HostName],
        provisions: Provisions,
        force_recreate: bool,
    ) -> None:
        self.facts = facts
        self.spec = spec
        self.new_id = new_id
        self.placing = placing
        self.provisions = provisions
        self.force_recreate = force_recreate
        self.known_services = {ServiceName(row.name): row.id for row in facts.services}

    def plan(self) -> Plan:
        self.provisions.must_fit()
        replicas = [change for name in self.spec.services for change in self._service(name)]
        replicas += [
            self._removal(row) for row in self.facts.replicas if row.service not in self.spec.services
        ]
        self.provisions.externals_must_exist()
        republish = tuple(name for name in self.spec.services if self._ports_changed(name))
        removed = {row.id for row in self.facts.services if ServiceName(row.name) not in self.spec.services}
        before = [
            row
            for row in self.facts.published
            if row.service_id in {self.known_services.get(name) for name in republish} | removed
        ]
        return Plan(
            app=self.facts.app,
            release=ReleaseId(self.new_id()),
            revision=self.facts.revision + 1,
            base_version=self.facts.version,
            pulls={n: s.image for n, s in self.spec.services.items() if n not in self.facts.images},
            images={ServiceName(n): info for n, info in self.facts.images.items()},
            networks=tuple(self.provisions.networks.values()),
            disks=tuple(self.provisions.disks.values()),
            services={
                name: self.known_services.get(name) or ServiceId(self.new_id()) for name in self.spec.services
            },
            known_services=self.known_services,
            new_services=tuple(name for name in self.spec.services if name not in self.known_services),
            removed_services=tuple(
                row.id for row in self.facts.services if ServiceName(row.name) not in self.spec.services
            ),
            replicas=tuple(replicas),
            republish=republish,
            published_before=tuple(before),
            published_on={row.service_id: self._hosts_of(row.service_id) for row in before},
            respecified=self.facts.current != self.spec,
            destination=self.facts.destination,
            moves=tuple(self._disk_move(name, row) for name, row in self.facts.moving.items()),
        )

    def _disk_move(self, name: str, row: DiskRow) -> DiskMove:
        made = self.provisions.disks.get(name)
        new = made or self.facts.disks[name]
        return DiskMove(
            name=name,
            source=row.id,
            source_host=row.host,
            target=new.id,
            target_host=new.host,
            copied=made is not None,
        )

    def _service(self, name: ServiceName) -> list[ReplicaChange]:
        wanted = ordinals(self.facts, self.spec, name)
        present = {row.ordinal: row for row in self.facts.replicas if row.service == name}
        changes = [
            self._existing(present[ordinal]) if ordinal in present else self._creation(name, ordinal)
            for ordinal in wanted
        ]
        return changes + [
            self._removal(row) for ordinal, row in sorted(present.items()) if ordinal not in wanted
        ]

    def _creation(self, name: ServiceName, ordinal: int) -> ReplicaChange:
        host = self.placing[name, ordinal]
        return ReplicaChange(
            action="create",
            replica=ReplicaId(self.new_id()),
            service=name,
            ordinal=ordinal,
            host=host,
            container=ContainerId(self.new_id()),
            system_disk=DiskId(self.new_id()),
            new_system_disk=self.provisions.system_disk_size(name),
            ports=self.provisions.ports_of(name, ordinal, None),
            disks=self.provisions.disks_of(name, ordinal, host),
        )

    def _existing(self, row: ReplicaRow) -> ReplicaChange:
        name = ServiceName(row.service)
        if self.facts.destination is not None:
            return self._stand_in(row, f"it moves to {self.facts.destination.words}")
        reason = difference(self.facts, self.spec, row, self.force_recreate)
        if reason and (name, row.ordinal) in self.placing:
            return self._stand_in(row, reason)
        action: Literal["update", "start", "keep"] = "update" if reason else "keep"
        if not reason and row.desired != "running":
            action, reason = "start", "it was stopped"
        if action != "update":
            return ReplicaChange(
                action=action,
                replica=row.id,
                service=name,
                ordinal=row.ordinal,
                host=row.host,
                container=row.container_id,
                before=found(row),
                reason=reason,
            )
        keep_disk = self.spec.services[name].x_skep.keep_system_disk
        return ReplicaChange(
            action="update",
            replica=row.id,
            service=name,
            ordinal=row.ordinal,
            host=row.host,
            container=ContainerId(self.new_id()),
            previous=row.container_id,
            system_disk=self.facts.containers[row.container_id].system_disk
            if keep_disk
            else DiskId(self.new_id()),
            new_system_disk=None if keep_disk else self.provisions.system_disk_size(name),
            ports=self.provisions.ports_of(name, row.ordinal, row.id),
            disks=self.provisions.disks_of(name, row.ordinal, row.host),
            snapshots=self.provisions.snapshots_of(name, row.ordinal),
            weight=row.weight,
            before=found(row),
            reason=reason,
        )

    def _stand_in(self, row: ReplicaRow, reason: str) -> ReplicaChange:
        made = self._creation(ServiceName(row.service), row.ordinal)
        return msgspec.structs.replace(
            made,
            action="stand-in",
            replaces=row.id,
            previous=row.container_id,
            previous_host=row.host,
            weight=row.weight,
            before=found(row),
            reason=reason,
        )

    def _hosts_of(self, service: ServiceId) -> tuple[HostName, ...]:
        return tuple(sorted({row.host for row in self.facts.replicas if row.service_id == service}))

    def _removal(self, row: ReplicaRow) -> ReplicaChange:
        return ReplicaChange(
            action="remove",
            replica=row.id,
            service=ServiceName(row.service),
            ordinal=row.ordinal,
            host=row.host,
            container=row.container_id,
            weight=row.weight,
            before=found(row),
        )

    def _ports_changed(self, name: ServiceName) -> bool:
        before = self.facts.current.services.get(name) if self.facts.current else None
        wanted = self.spec.services[name]
        if self.facts.destination is not None and wanted.ports:
            return True
        return (before.ports if before else ()) != wanted.ports or (
            bool(wanted.ports) and before is not None and before.replicas != wanted.replicas
        )
