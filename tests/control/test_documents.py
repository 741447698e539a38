"""The flow documents that are generated for apps: they fit the steps, and follow `depends_on`."""

from collections.abc import Iterator

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.control.samples import HOST, carried_out, ids, known, nothing, plan, replicas_that_can_stay
from tests.control.simulation import DATA, app, service
from tests.control.strategies import apps

from skep.control.flows import documents, writing
from skep.control.flows.catalogue import make_registry
from skep.control.plans.plans import Facts, Plan
from skep.documents import load
from skep.flow import Flow
from skep.model.host import ContainerState, ContainerStatus
from skep.model.ids import AppId
from skep.model.names import ServiceName
from skep.model.spec import AppSpec, Dependency, PublishedPort

REGISTRY = make_registry()


def parsed(document: str) -> Flow:
    return REGISTRY.parse(document, "<generated>")


def released(spec: AppSpec) -> Facts:
    before = known(nothing(), spec)
    return carried_out(before, plan(before, spec), spec)


def ancestors(flow: Flow) -> dict[str, set[str]]:
    """Of each step the steps that have ended before it begins."""
    found: dict[str, set[str]] = {}
    for step in flow.plan.steps:
        before = [flow.plan.steps[index].name for index in step.after]
        found[step.name] = set(before).union(*(found[name] for name in before))
    return found


def belonging_to(flow: Flow, replica: str) -> Iterator[str]:
    """The steps that make, start or remove the replica, without those that look at it."""
    for step in flow.plan.steps:
        if step.name == replica or step.name.startswith(f"{replica}."):
            yield step.name


def removal(spec: AppSpec, facts: Facts) -> str:
    return documents.remove(
        AppId("app"),
        spec,
        replicas=facts.replicas,
        containers=[(row.id, HOST) for row in facts.containers.values()],
        sandboxes=[(row.id, HOST) for row in facts.replicas],
        disks=[(row.id, HOST) for row in facts.disks.values()],
        services=[(row.id, HOST) for row in facts.services],
        networks=[(row.id, HOST) for row in facts.networks.values()],
    )


@settings(max_examples=40, deadline=None)
@given(apps(), apps(), st.booleans(), st.booleans())
def test_every_apply_fits_the_steps(before: AppSpec, after: AppSpec, here: bool, in_cluster: bool) -> None:
    facts = released(before)
    facts = known(facts, after) if here else msgspec.structs.replace(facts, images={})
    with replicas_that_can_stay():
        made = msgspec.structs.replace(plan(facts, after, new_id=ids("later")), in_cluster=in_cluster)

    flow = parsed(documents.apply(made, after, HOST))

    names = [step.name for step in flow.plan.steps]
    assert (names[0], names[-1]) == ("begin", "finish")
    assert ancestors(flow)["finish"] == set(names) - {"finish"}


@settings(deadline=None)
@given(apps())
def test_nothing_starts_before_what_it_depends_on(spec: AppSpec) -> None:
    made = plan(known(nothing(), spec), spec)
    flow = parsed(documents.apply(made, spec, HOST))
    before = ancestors(flow)
    awaited = {
        "service_started": "",
        "service_healthy": "-ready",
        "service_completed_successfully": "-completed",
    }

    for change in made.replicas:
        for other, dependency in spec.services[change.service].depends_on.items():
            for number in range(spec.services[other].replicas):
                node = f"{other}-{number}{awaited[dependency.condition]}"
                needed = set(belonging_to(flow, node))
                assert needed
                for step in belonging_to(flow, change.name):
                    assert needed <= before[step]


@settings(deadline=None)
@given(apps())
def test_switching_fits_the_steps_and_stops_users_before_used(spec: AppSpec) -> None:
    rows = released(spec).replicas
    for make in (documents.switch_on, documents.restart):
        parsed(make(AppId("app"), spec, rows))

    before = ancestors(parsed(documents.switch_off(AppId("app"), spec, rows)))

    for row in rows:
        for other in spec.services[ServiceName(row.service)].depends_on:
            for number in range(spec.services[other].replicas):
                assert row.name in before[f"{other}-{number}"]


@settings(deadline=None)
@given(apps())
def test_hosts_hear_who_is_wanted_before_anything_is_switched_on(spec: AppSpec) -> None:
    rows = released(spec).replicas

    before = ancestors(parsed(documents.switch_on(AppId("app"), spec, rows)))

    assert all({"want", "expected"} <= before[row.name] for row in rows)


@settings(deadline=None)
@given(apps())
def test_a_removal_goes_from_users_to_used_and_ends_with_the_rows(spec: AppSpec) -> None:
    facts = released(spec)

    flow = parsed(removal(spec, facts))

    before = ancestors(flow)
    containers = {row.name for row in facts.replicas}
    unpublished = {name for name in before if name.startswith("unpublish-")}
    sandboxes = {name for name in before if name.startswith("sandbox-")}
    for row in facts.replicas:
        assert unpublished <= before[row.name]
        for other in spec.services[ServiceName(row.service)].depends_on:
            for number in range(spec.services[other].replicas):
                assert row.name in before[f"{other}-{number}"]
    for name in before:
        if name.startswith(("sandbox-", "disk-")):
            assert containers <= before[name]
        if name.startswith("network-"):
            assert sandboxes <= before[name]
    assert before["forget"] == set(before) - {"forget"}


@settings(deadline=None)
@given(apps())
def test_restoring_fits_the_steps(spec: AppSpec) -> None:
    missing = [(row, number % 2 == 0) for number, row in enumerate(released(spec).replicas)]

    if missing:
        assert len(parsed(documents.restore(AppId("app"), missing)).plan.steps) == len(missing)


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=4))
def test_text_stays_text_whatever_it_looks_like(values: dict[str, str]) -> None:
    text = writing.document("f", "lock", {"step": {"with": {"values": list(values.values())}}})

    assert load(text, "f").data["steps"]["step"]["with"]["values"] == list(values.values())


class WithoutLibyaml(yaml.SafeDumper):
    ignore_aliases = writing._Dumper.ignore_aliases


WithoutLibyaml.add_representer(str, writing._text)


@settings(deadline=None)
@given(apps())
def test_documents_are_the_same_where_pyyaml_has_no_libyaml(spec: AppSpec) -> None:
    made = plan(nothing(), spec)

    text = documents.apply(made, spec, HOST)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "_Dumper", WithoutLibyaml)
        other = documents.apply(made, spec, HOST)

    assert issubclass(writing._Dumper, yaml.CSafeDumper)
    assert text == other


@pytest.mark.parametrize("name", ["1e3", "08", "0x10", "null", "on", "1_000"])
def test_a_service_may_be_called_what_yaml_takes_for_something_else(name: str) -> None:
    spec = msgspec.structs.replace(app(), services={ServiceName(name): service()})
    made = plan(nothing(), spec)

    parsed(documents.apply(made, spec, HOST))


def test_the_document_of_a_small_app_is_as_people_read_it() -> None:
    spec = app(
        web=service(
            ports=(PublishedPort(target=80),),
            depends_on={ServiceName("db"): Dependency(condition="service_healthy")},
        ),
        db=service(mounts=(DATA,)),
    )
    made = plan(known(nothing(), spec), spec)

    steps = yaml.safe_load(documents.apply(made, spec, HOST))["steps"]

    disk = next(name for name in steps if name.startswith("disk-"))
    assert {name: step.get("after", []) for name, step in steps.items()} == {
        "begin": [],
        "prepare": ["begin"],
        disk: ["prepare"],
        "web-0": ["prepare", "db-0-ready", "db-admitted"],
        "web-0-ready": ["web-0"],
        "web-admit": ["web-0-ready"],
        "web-admitted": ["web-admit"],
        "db-0": ["prepare", disk],
        "db-0-ready": ["db-0"],
        "db-admit": ["db-0-ready"],
        "db-admitted": ["db-admit"],
        "web-publish": ["prepare", "web-admit"],
        "finish": [name for name in steps if name != "finish"],
    }
    assert steps["db-0"]["flow"] == "replica.create"


def change(found: str) -> Plan:
    spec = app(web=service())
    facts = released(spec)
    (row,) = facts.replicas
    status = ContainerStatus(id=row.container_id, replica=row.id, state=ContainerState.EXITED, exit_code=0)
    row = msgspec.structs.replace(
        row,
        desired="stopped" if found == "stopped" else "running",
        status=status if found == "ended" else None,
    )
    facts = msgspec.structs.replace(facts, replicas=(row,))
    return plan(known(facts, spec), spec, force=True, new_id=ids("later"))


@pytest.mark.parametrize(("found", "running"), [("running", True), ("stopped", False), ("ended", False)])
def test_only_what_ran_runs_again_when_an_update_fails(found: str, running: bool) -> None:
    document = yaml.safe_load(documents.apply(change(found), app(web=service()), HOST))

    assert document["steps"]["web-0-stop"]["with"]["running"] is running
