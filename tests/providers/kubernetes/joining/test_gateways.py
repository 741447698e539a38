"""Which gateways lead requests into namespaces that do not exist yet."""

from typing import Any

from skep.providers.kubernetes.joining.gateways import Gateway, open_gateways


def gateway(name: str, *allowed: str | None) -> Any:
    listeners = [
        {"name": "http"} | ({"allowedRoutes": {"namespaces": {"from": one}}} if one else {})
        for one in allowed
    ]
    return Gateway.from_dict(
        {"metadata": {"name": name, "namespace": "infra"}, "spec": {"listeners": listeners}}
    )


def test_those_count_that_take_routes_of_all_namespaces_at_any_listener() -> None:
    found = [
        gateway("open", "All"),
        gateway("half", "Same", "All"),
        gateway("own", "Same"),
        gateway("usual", None),
    ]

    assert open_gateways(found) == [("infra", "half"), ("infra", "open")]
