"""What a service waits for, and what it calls other services by: `depends_on` and `links`."""

from collections.abc import Mapping

from msgspec.structs import replace

from skep.compose.attachments import DEFAULT
from skep.compose.cursor import Cursor
from skep.model.names import ServiceName
from skep.model.spec import Dependency, NetworkAttachment, ServiceSpec

Dependencies = dict[ServiceName, Dependency]
_CONDITIONS = ("service_started", "service_healthy", "service_completed_successfully")


def read_dependencies(service: Cursor, enabled: frozenset[str], disabled: frozenset[str]) -> Dependencies:
    """`depends_on` and the targets of `links`.

    A dependency on a service that is not there is an error, or left out if it is not required.
    """
    result: Dependencies = {}
    for name, entry in service.get("depends_on").entries():
        dependency = _dependency(entry)
        if name in enabled:
            result[ServiceName(name)] = dependency
        elif dependency.required:
            entry.error(_absent(name, disabled))
        elif name not in disabled:
            entry.warn(f"left out: there is no service {name[:60]!r}")
    for link, target, _ in _links(service):
        if target in enabled:
            result.setdefault(ServiceName(target), Dependency(restart=True))
        else:
            link.error(_absent(target, disabled))
    return result


def _dependency(entry: Cursor) -> Dependency:
    text = entry.get("condition").text() or _CONDITIONS[0]
    condition = next(known for known in _CONDITIONS if known == text)
    required, restart = entry.get("required").boolean(default=True), entry.get("restart").boolean()
    return Dependency(condition=condition, required=required, restart=restart)  # type: ignore[arg-type]


def _absent(name: str, disabled: frozenset[str]) -> str:
    if name in disabled:
        return f"the service {name!r} belongs to a profile that is not enabled"
    return f"there is no service {name[:60]!r}"


def _links(service: Cursor) -> list[tuple[Cursor, str, str]]:
    """Each link with the service it names and the name it wants for it."""
    result = []
    for item in service.get("links").items():
        target, _, alias = (item.text() or "").partition(":")
        result.append((item, target, alias or target))
    return result


def with_link_aliases(cursors: Mapping[str, Cursor], specs: dict[str, ServiceSpec]) -> dict[str, ServiceSpec]:
    """The services with the names that links of others give them, in the networks they share."""
    result = dict(specs)
    for name, cursor in cursors.items():
        for item, target, alias in _links(cursor):
            if alias == target or target not in result:
                continue
            if alias in result:
                item.error(f"the alias {alias!r} is the name of another service")
                continue
            shared = _networks(result[name]) & _networks(result[target])
            if not shared:
                item.error(f"{name} and {target} have no network in common")
            result[target] = _with_alias(result[target], alias, shared)
    return result


def _networks(spec: ServiceSpec) -> set[str]:
    return set(spec.networks) or {DEFAULT}


def _with_alias(spec: ServiceSpec, alias: str, networks: set[str]) -> ServiceSpec:
    attachments = dict(spec.networks or {DEFAULT: NetworkAttachment()})
    for network in networks:
        old = attachments[network]
        attachments[network] = replace(old, aliases=tuple(dict.fromkeys((*old.aliases, alias))))
    return replace(spec, networks=attachments)
