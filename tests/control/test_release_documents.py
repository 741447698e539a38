"""The documents of releases: what each strategy does, in which order.  Pure."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.control.samples import (
    DEFAULT_DISK,
    HOST,
    Everywhere,
    carried_out,
    ids,
    known,
    nothing,
    plan,
    replicas_that_can_stay,
)
from tests.control.simulation import DATA, app, service
from tests.control.strategies import apps
from tests.control.test_documents import ancestors

from skep.control.apps import strategies
from skep.control.flows.catalogue import make_registry
from skep.control.flows.rollouts import apply
from skep.control.plans.planning import make_plan
from skep.control.plans.plans import Facts, Plan
from skep.flow import Flow
from skep.model.errors import InvalidInput
from skep.model.ids import HostName
from skep.model.names import ServiceName
from skep.model.spec import (
    AppExtensions,
    AppSpec,
    Dependency,
    Extensions,
    HealthCheck,
    NetworkAttachment,
    ReleasePolicy,
    ServiceSpec,
    UpdateConfig,
)

REGISTRY = make_registry()
CHECK = HealthCheck(test=("CMD", "true"))
FIXED = NetworkAttachment(mac_address="02:00:00:00:00:01")
START_FIRST = UpdateConfig(order="start-first")


def policy(spec: AppSpec, **values: Any) -> AppSpec:
    return msgspec.structs.replace(spec, x_skep=AppExtensions(release=ReleasePolicy(**values)))


def released(spec: AppSpec) -> Facts:
    before = known(nothing(), spec)
    return carried_out(before, plan(before, spec), spec)


class Beside(Everywhere):
    """One host for all, with a stand-in for those that are asked for."""

    def __init__(self, positions: list[tuple[ServiceName, int]]) -> None:
        super().__init__(dict.fromkeys(positions, HOST))


def change(facts: Facts, spec: AppSpec) -> Plan:
    facts = known(facts, spec)
    return make_plan(
        facts,
        spec,
        new_id=ids("later"),
        placing=Beside(strategies.stand_ins(facts, spec)),
        default_disk=DEFAULT_DISK,
    )


def changed(before: AppSpec, after: AppSpec) -> tuple[dict[str, Any], dict[str, set[str]]]:
    """The steps, and of each what has ended before."""
    document = apply(change(released(before), after), after, HOST)
    flow: Flow = REGISTRY.parse(document, "<generated>")
    return yaml.safe_load(document), ancestors(flow)


def web(program: str = "1000", **changes: Any) -> ServiceSpec:
    return service("sleep", program, **{"replicas": 3, "healthcheck": CHECK} | changes)


@settings(max_examples=30, deadline=None)
@given(apps(), apps(), st.sampled_from(["rolling", "atomic", "canary"]), st.sampled_from([START_FIRST, None]))
def test_every_release_fits_the_steps(
    before: AppSpec, after: AppSpec, strategy: str, update: UpdateConfig | None
) -> None:
    services = {
        name: msgspec.structs.replace(one, update=update or one.update)
        for name, one in after.services.items()
    }
    after = policy(msgspec.structs.replace(after, services=services), strategy=strategy, unchecked=True)
    with replicas_that_can_stay():
        made = change(released(before), after)

    flow = REGISTRY.parse(apply(made, after, HOST), "<generated>")

    names = [step.name for step in flow.plan.steps]
    assert ancestors(flow)["finish"] == set(names) - {"finish"}


def test_a_rolling_release_withdraws_drains_and_stops_before_it_starts_in_the_same_place() -> None:
    document, before = changed(app(web=web()), app(web=web("2000")))

    order = ["web-batch-1-withdraw", "web-batch-1-withdrawn", "web-0-drain", "web-0-stop", "web-0"]
    order += [
        "web-0-ready",
        "web-0-proven",
        "web-batch-1-recall",
        "web-batch-1-admit",
        "web-batch-1-admitted",
    ]
    for earlier, later in pairwise(order):
        assert earlier in before[later]
    assert "web-0-furnish.plug" in before["web-batch-1-withdraw"]
    assert "web-batch-1-admitted" in before["web-1-furnish.plug"]
    assert list(document["steps"]["web-batch-3-admit"]["with"]["weights"].values()) == [100]


@pytest.mark.parametrize(("parallelism", "batches"), [(1, 3), (2, 2), (0, 1)])
def test_so_many_are_replaced_at_a_time_as_the_service_says(parallelism: int, batches: int) -> None:
    update = UpdateConfig(parallelism=parallelism, delay=5)

    document, before = changed(app(web=web()), app(web=web("2000", update=update)))

    withdrawals = [name for name in document["steps"] if name.endswith("-withdraw")]
    waits = [name for name in document["steps"] if name.endswith("-wait")]
    assert (len(withdrawals), len(waits)) == (batches, batches - 1)
    assert all(f"web-batch-{number + 1}-admitted" in before[wait] for number, wait in enumerate(waits))


def test_start_first_proves_the_new_one_beside_the_old_one() -> None:
    document, before = changed(app(web=web(replicas=1)), app(web=web("2000", replicas=1, update=START_FIRST)))

    order = ["web-0.start", "web-0-ready", "web-0-proven", "web-batch-1-admit", "web-batch-1-admitted"]
    order += ["web-0-drain", "web-0-old"]
    for earlier, later in pairwise(order):
        assert earlier in before[later]
    (old, new) = sorted(document["steps"]["web-batch-1-admit"]["with"]["weights"].items())
    assert (old[1], new[1]) == (0, 100)


def test_more_failures_than_none_are_judged_over_all_batches() -> None:
    update = UpdateConfig(max_failure_ratio=0.4, failure_action="pause")

    document, before = changed(app(web=web()), app(web=web("2000", update=update)))

    assert document["steps"]["web-batch-2-verdict"]["with"]["earlier"] == "${web-batch-1-verdict.problems}"
    assert document["steps"]["web-batch-1-approval"]["when"] == "${web-batch-1-verdict.over}"
    assert "web-batch-1-approval" in before["web-batch-1-admit"]


def test_an_atomic_release_switches_all_services_in_one_transaction() -> None:
    spec = app(web=web(), api=web(replicas=2), gone=web(replicas=1))
    after = policy(app(web=web("2000"), api=web("2000", replicas=2)), strategy="atomic", drain=7)

    document, before = changed(spec, after)

    shifts = [name for name, step in document["steps"].items() if step.get("use") == "traffic.shift"]
    weights = document["steps"]["switch-shift"]["with"]["weights"]
    assert shifts == ["switch-shift"]
    assert sorted(weights.values()) == [0] * 6 + [100] * 5
    assert {f"web-{number}-proven" for number in range(3)} | {"api-0-proven", "api-1-proven"} <= before[
        "switch-shift"
    ]
    assert document["steps"]["drain"]["with"]["duration"] == "7s"
    assert {"switch-announce", "drain"} <= before["web-0-old"] & before["gone-0-old"]


def test_what_cannot_stand_beside_itself_is_replaced_in_its_place_before_the_switch() -> None:
    spec = app(web=web(), db=web(replicas=1, mounts=(DATA,)))
    after = policy(app(web=web("2000"), db=web("2000", replicas=1, mounts=(DATA,))), strategy="atomic")

    _, before = changed(spec, after)

    assert {"db-0-snapshot", "db-batch-1-admitted"} <= before["switch-shift"]


def test_a_canary_gets_its_share_in_steps_and_is_compared_after_each() -> None:
    after = policy(app(web=web("2000")), strategy="canary", steps=(5, 50), interval=30)

    document, before = changed(app(web=web()), after)

    shares = [
        sorted(document["steps"][f"canary-{share}-percent-shift"]["with"]["weights"].values())
        for share in (5, 50)
    ]
    assert shares == [[5] * 3 + [95] * 3, [50] * 6]
    assert "web-at-5-percent-judged" in before["canary-50-percent-shift"]
    assert {"web-at-50-percent-judged", "web-0-well-at-50-percent"} <= before["switch-shift"]
    assert document["steps"]["canary-5-percent-wait"]["with"]["duration"] == "30s"


def test_a_deadline_is_that_of_the_run() -> None:
    document, _ = changed(app(web=web()), policy(app(web=web("2000")), deadline=90))

    assert document["timeout"] == "90s"


def test_what_a_release_takes_away_stops_when_all_else_is_in_force() -> None:
    _, before = changed(app(web=web()), app(web=web("2000", replicas=1)))

    assert "web-batch-1-admitted" in before["leaving-shift"]
    assert {"leaving-announce", "web-2-drain"} <= before["web-2-old"]


def test_stateful_replicas_go_one_by_one_the_highest_first_and_their_disks_are_kept() -> None:
    stateful: Callable[..., ServiceSpec] = lambda program: web(  # noqa: E731
        program,
        mounts=(DATA,),
        x_skep=Extensions(stateful=True),
        update=UpdateConfig(parallelism=0, order="start-first"),
    )

    document, before = changed(app(db=stateful("1000")), app(db=stateful("2000")))

    assert "db-2-ready" in before["db-1-stop"]
    assert "db-1-ready" in before["db-0-stop"]
    assert "db-2-stop" in before["db-2-snapshot"]
    assert "db-2-snapshot" in before["db-2"]
    kept = document["steps"]["db-2-snapshot"]["with"]
    assert kept["restore"] == list(kept["snapshots"])


def test_a_disk_that_several_replicas_use_is_kept_but_not_brought_back_under_them() -> None:
    document, _ = changed(app(web=web(mounts=(DATA,))), app(web=web("2000", mounts=(DATA,))))

    kept = document["steps"]["web-0-snapshot"]["with"]
    assert (len(kept["snapshots"]), kept["restore"]) == (1, [])


@pytest.mark.parametrize(
    ("alone", "reason"),
    [
        (web(mounts=(DATA,)), "its data disks are on this host"),
        (
            web(networks={"default": NetworkAttachment(mac_address="02:00:00:00:00:01")}),
            "its address is fixed",
        ),
        (web(x_skep=Extensions(stateful=True)), "it is stateful"),
        (web(x_skep=Extensions(keep_system_disk=True)), "it keeps its system disk"),
    ],
)
def test_why_a_service_has_no_stand_ins_is_said(alone: ServiceSpec, reason: str) -> None:
    before = app(web=alone)
    after = app(web=msgspec.structs.replace(alone, command=("sleep", "5"), update=START_FIRST))
    made = change(released(before), after)

    assert {one.action for one in made.replicas} == {"update"}
    assert any(reason in remark for remark in strategies.remarks(made, after))


@pytest.mark.parametrize("strategy", ["atomic", "canary"])
def test_without_a_health_check_nothing_is_proven_so_it_is_refused(strategy: str) -> None:
    bare = app(web=web(healthcheck=None))
    after = policy(app(web=web("2000", healthcheck=None)), strategy=strategy)
    made = change(released(bare), after)

    with pytest.raises(InvalidInput, match="service 'web' has none"):
        strategies.must_be_checked(made, after)
    strategies.must_be_checked(made, policy(after, strategy=strategy, unchecked=True))


def test_a_rolling_release_without_a_health_check_says_so() -> None:
    after = app(web=web("2000", healthcheck=None))

    assert (
        "No health check: service 'web'"
        in strategies.remarks(change(released(app(web=web())), after), after)[0]
    )


def test_who_waits_for_a_healthy_service_waits_until_connections_are_led_to_it() -> None:
    spec = app(web=web(depends_on={ServiceName("db"): Dependency(condition="service_healthy")}), db=web())

    flow = REGISTRY.parse(apply(change(nothing(), spec), spec, HostName("host-1")), "<generated>")

    assert {"db-0-ready", "db-admitted"} <= ancestors(flow)["web-0.plug"]
