"""How many replicas a drain may take away at a time."""

from typing import Any

from skep.model.ids import ContainerId, ReplicaId, TenantId
from skep.providers.kubernetes.pods.budgets import budgets
from skep.providers.kubernetes.pods.ledger import Entry, Ledger
from skep.providers.kubernetes.pods.naming import CarrierKind


def ledger(service: str, *wanted: bool, **more: Any) -> Ledger:
    entries = {
        ContainerId(f"{number}"): Entry(
            id=ContainerId(f"{number}"), replica=ReplicaId(f"{number}"), name="x", spec="x", wanted=one
        )
        for number, one in enumerate(wanted)
    }
    usual: dict[str, Any] = {
        "kind": CarrierKind.DEPLOYMENT,
        "name": f"shop-{service}-1",
        "namespace": "skep-t",
        "tenant": TenantId("t"),
        "app": "shop",
        "service": service,
        "template": {},
        "shape": "",
        "entries": entries,
    }
    return Ledger(**usual | more)


def test_a_service_of_several_replicas_has_one_budget_over_all_its_carriers() -> None:
    stateful = [ledger("db", True, kind=CarrierKind.STATEFUL_SET, name=f"shop-db-{one}") for one in "01"]

    found = budgets([ledger("web", True, True), ledger("web", True), *stateful], {"by": "skep"}, "v1")

    assert set(found) == {("skep-t", "shop.web"), ("skep-t", "shop.db")}
    web = found["skep-t", "shop.web"]
    assert web["apiVersion"] == "policy/v1"
    assert web["spec"] == {
        "maxUnavailable": "10%",
        "selector": {
            "matchLabels": {"skep.dev/tenant": "t", "skep.dev/app": "shop", "skep.dev/service": "web"},
            "matchExpressions": [{"key": "skep.dev/member", "operator": "Exists"}],
        },
    }
    assert web["metadata"]["labels"]["by"] == "skep"


def test_no_app_takes_the_budget_of_another_that_is_called_alike() -> None:
    both = ledger("c", True, True, app="a-b"), ledger("b-c", True, True, app="a")

    assert len(budgets(both, {}, "v1")) == 2


def test_what_may_go_as_a_whole_has_none() -> None:
    """A single replica, what is stopped, and pods that no controller makes anew."""
    alone, stopped = ledger("web", True), ledger("api", True, False)
    jobs = ledger("job", True, True, kind=CarrierKind.POD)

    assert budgets([alone, stopped, jobs], {}, "v1") == {}
