"""Who may do what: a table of every use case, and how people prove who they are."""

import inspect
from collections.abc import AsyncIterator, Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import sqlalchemy as sa
from tests.control.installation import Installation, installation
from tests.control.simulation import DATA, app, service

from skep.control.callers import Caller, Role
from skep.control.control import Control
from skep.model.errors import Conflict, Forbidden, InvalidInput, NotFound, SkepError, Unauthenticated
from skep.model.groups import GroupRule
from skep.model.host import ExecSpec
from skep.model.images import BuildSpec
from skep.model.spec import AppSubnet
from skep.model.views.moves import MoveOrder
from skep.store.tables import tokens

SHOP = app(web=service(), db=service(mounts=(DATA,)))
SUBNET = AppSubnet(subnet="10.200.0.0/24")
RULE = GroupRule(protocol="tcp", ports="80")
TRUE = ExecSpec(args=("true",))
OVER = MoveOrder(to_zone="zone-2")
ANYBODY, MEMBERS, ADMINS = "anybody", "members", "admins"

Call = Callable[[Control, Caller], Any]

MATRIX: dict[str, tuple[str, Call]] = {
    "apps.show": (ANYBODY, lambda c, who: c.apps.show(who, "shop")),
    "releases.list": (ANYBODY, lambda c, who: c.releases.list(who, "shop")),
    "releases.show": (ANYBODY, lambda c, who: c.releases.show(who, "shop", 1)),
    "releases.diff": (ANYBODY, lambda c, who: c.releases.diff(who, "shop", 1)),
    "releases.rollback": (MEMBERS, lambda c, who: c.releases.rollback(who, "shop")),
    "apps.plan": (ANYBODY, lambda c, who: c.apps.plan(who, SHOP)),
    "apps.list": (ANYBODY, lambda c, who: c.apps.list(who)),
    "apps.apply": (MEMBERS, lambda c, who: c.apps.apply(who, SHOP)),
    "scaling.scale": (MEMBERS, lambda c, who: c.scaling.scale(who, "shop", {"web": 2})),
    "moving.plan": (ANYBODY, lambda c, who: c.moving.plan(who, "shop", OVER)),
    "moving.start": (MEMBERS, lambda c, who: c.moving.start(who, "shop", OVER)),
    "moving.confirm": (MEMBERS, lambda c, who: c.moving.confirm(who, "shop")),
    "rollouts.show": (ANYBODY, lambda c, who: c.rollouts.show(who, "shop")),
    "status.show": (ANYBODY, lambda c, who: c.status.show(who, "shop")),
    "rollouts.pause": (MEMBERS, lambda c, who: c.rollouts.pause(who, "shop")),
    "rollouts.resume": (MEMBERS, lambda c, who: c.rollouts.resume(who, "shop")),
    "rollouts.abort": (MEMBERS, lambda c, who: c.rollouts.abort(who, "shop")),
    "apps.stop": (MEMBERS, lambda c, who: c.apps.stop(who, "shop")),
    "apps.start": (MEMBERS, lambda c, who: c.apps.start(who, "shop")),
    "apps.restart": (MEMBERS, lambda c, who: c.apps.restart(who, "shop")),
    "apps.remove": (MEMBERS, lambda c, who: c.apps.remove(who, "shop")),
    "replicas.show": (ANYBODY, lambda c, who: c.replicas.show(who, "shop", "web-0")),
    "replicas.logs": (ANYBODY, lambda c, who: c.replicas.logs(who, "shop", "web-0")),
    "replicas.usage": (ANYBODY, lambda c, who: c.replicas.usage(who, "shop")),
    "replicas.list": (ANYBODY, lambda c, who: c.replicas.list(who, "shop")),
    "replicas.exec": (MEMBERS, lambda c, who: c.replicas.exec(who, "shop", "web-0", TRUE)),
    "images.list": (ANYBODY, lambda c, who: c.images.list(who)),
    "images.upload_path": (MEMBERS, lambda c, who: c.images.upload_path(who)),
    "images.pull": (MEMBERS, lambda c, who: c.images.pull(who, "redis:7")),
    "images.load": (MEMBERS, lambda c, who: c.images.load(who, Path("upload"), "redis:7")),
    "images.build": (MEMBERS, lambda c, who: c.images.build(who, Path("upload"), BuildSpec(), "redis:7")),
    "images.save": (MEMBERS, lambda c, who: c.images.save(who, "nothing:1")),
    "images.remove": (MEMBERS, lambda c, who: c.images.remove(who, "nothing:1")),
    "images.bootstrap": (ADMINS, lambda c, who: c.images.bootstrap(who, "bookworm", "debian:12")),
    "images.prune": (ADMINS, lambda c, who: c.images.prune(who)),
    "runs.show": (ANYBODY, lambda c, who: c.runs.show(who, "none")),
    "runs.glance": (ANYBODY, lambda c, who: c.runs.glance(who, "none")),
    "runs.follow": (ANYBODY, lambda c, who: c.runs.follow(who, "none")),
    "runs.list": (ANYBODY, lambda c, who: c.runs.list(who)),
    "runs.cancel": (MEMBERS, lambda c, who: c.runs.cancel(who, "none")),
    "runs.resolve": (ADMINS, lambda c, who: c.runs.resolve(who, "none", "step", "retry")),
    "runs.why": (ANYBODY, lambda c, who: c.runs.why(who, "none")),
    "runs.graph": (ANYBODY, lambda c, who: c.runs.graph(who, "none")),
    "runs.draw": (ANYBODY, lambda c, who: c.runs.draw(who, "none", "svg")),
    "runs.critical": (ANYBODY, lambda c, who: c.runs.critical(who, "none")),
    "runs.pause": (MEMBERS, lambda c, who: c.runs.pause(who, "none")),
    "runs.resume": (MEMBERS, lambda c, who: c.runs.resume(who, "none")),
    "runs.retry": (ADMINS, lambda c, who: c.runs.retry(who, "none")),
    "runs.rerun": (ADMINS, lambda c, who: c.runs.rerun(who, "none")),
    "runs.act": (MEMBERS, lambda c, who: c.runs.act(who, "cancel", runs=["none"])),
    "runs.approve": (MEMBERS, lambda c, who: c.runs.approve(who, "none", "step")),
    "runs.signal": (MEMBERS, lambda c, who: c.runs.signal(who, "none", "paid")),
    "flows.show": (ANYBODY, lambda c, who: c.flows.show(who, "replica.create")),
    "flows.draw": (ANYBODY, lambda c, who: c.flows.draw(who, "replica.create", "svg")),
    "flows.steps": (ANYBODY, lambda c, who: c.flows.steps(who)),
    "flows.check": (ANYBODY, lambda c, who: c.flows.check(who, {"a.yaml": ""})),
    "flows.preview": (ANYBODY, lambda c, who: c.flows.preview(who, {"a.yaml": ""}, "svg")),
    "flows.list": (ANYBODY, lambda c, who: c.flows.list(who)),
    "flows.start": (ADMINS, lambda c, who: c.flows.start(who, "nothing", {})),
    "bundles.show": (ADMINS, lambda c, who: c.bundles.show(who, "none")),
    "bundles.push": (ADMINS, lambda c, who: c.bundles.push(who, b"no bundle")),
    "bundles.preflight": (ADMINS, lambda c, who: c.bundles.preflight(who, "none")),
    "bundles.activate": (ADMINS, lambda c, who: c.bundles.activate(who, "none")),
    "bundles.rollback": (ADMINS, lambda c, who: c.bundles.rollback(who, "none")),
    "bundles.deactivate": (ADMINS, lambda c, who: c.bundles.deactivate(who, "none")),
    "bundles.collect": (ADMINS, lambda c, who: c.bundles.collect(who)),
    "bundles.list": (ADMINS, lambda c, who: c.bundles.list(who)),
    "schedules.put": (ADMINS, lambda c, who: c.schedules.put(who, "none", "nothing", {}, "@daily")),
    "schedules.remove": (ADMINS, lambda c, who: c.schedules.remove(who, "none")),
    "schedules.pause": (ADMINS, lambda c, who: c.schedules.pause(who, "none")),
    "schedules.resume": (ADMINS, lambda c, who: c.schedules.resume(who, "none")),
    "schedules.run": (ADMINS, lambda c, who: c.schedules.run(who, "none")),
    "schedules.list": (ANYBODY, lambda c, who: c.schedules.list(who)),
    "limits.put": (ADMINS, lambda c, who: c.limits.put(who, "builds", concurrency=2)),
    "limits.remove": (ADMINS, lambda c, who: c.limits.remove(who, "none")),
    "limits.list": (ANYBODY, lambda c, who: c.limits.list(who)),
    "metrics.render": (ADMINS, lambda c, who: c.metrics.render(who)),
    "disks.list": (ANYBODY, lambda c, who: c.disks.list(who)),
    "disks.resize": (MEMBERS, lambda c, who: c.disks.resize(who, "shop_data", 2 * 1024**2)),
    "disks.remove": (MEMBERS, lambda c, who: c.disks.remove(who, "shop_data")),
    "networks.ports": (ANYBODY, lambda c, who: c.networks.ports(who, "default")),
    "networks.list": (ANYBODY, lambda c, who: c.networks.list(who)),
    "networks.remove": (MEMBERS, lambda c, who: c.networks.remove(who, "default")),
    "networks.show": (ANYBODY, lambda c, who: c.networks.show(who, "default")),
    "networks.map": (ANYBODY, lambda c, who: c.networks.map(who, "default")),
    "networks.trace": (ANYBODY, lambda c, who: c.networks.trace(who, "shop/web-0", "shop/db-0")),
    "networks.create": (MEMBERS, lambda c, who: c.networks.create(who, "more")),
    "networks.add_subnet": (MEMBERS, lambda c, who: c.networks.add_subnet(who, "default", SUBNET)),
    "reservations.add": (MEMBERS, lambda c, who: c.reservations.add(who, "default", "10.1.0.9")),
    "reservations.remove": (MEMBERS, lambda c, who: c.reservations.remove(who, "default", "10.1.0.9")),
    "shares.list": (ANYBODY, lambda c, who: c.shares.list(who)),
    "shares.offer": (MEMBERS, lambda c, who: c.shares.offer(who, "default", "acme")),
    "shares.withdraw": (MEMBERS, lambda c, who: c.shares.withdraw(who, "default", "acme")),
    "shares.accept": (MEMBERS, lambda c, who: c.shares.accept(who, "default", "none")),
    "shares.leave": (MEMBERS, lambda c, who: c.shares.leave(who, "default/none")),
    "egress.list": (ANYBODY, lambda c, who: c.egress.list(who)),
    "egress.add": (ADMINS, lambda c, who: c.egress.add(who, "none", "203.0.113.9")),
    "egress.remove": (ADMINS, lambda c, who: c.egress.remove(who, "203.0.113.9")),
    "egress.assign": (MEMBERS, lambda c, who: c.egress.assign(who, "default")),
    "egress.unassign": (MEMBERS, lambda c, who: c.egress.unassign(who, "default")),
    "security_groups.list": (ANYBODY, lambda c, who: c.security_groups.list(who)),
    "security_groups.put": (MEMBERS, lambda c, who: c.security_groups.put(who, "web")),
    "security_groups.show": (ANYBODY, lambda c, who: c.security_groups.show(who, "none")),
    "security_groups.add_rule": (MEMBERS, lambda c, who: c.security_groups.add_rule(who, "none", RULE)),
    "security_groups.remove_rule": (MEMBERS, lambda c, who: c.security_groups.remove_rule(who, "none", "0")),
    "security_groups.remove": (MEMBERS, lambda c, who: c.security_groups.remove(who, "none")),
    "endpoints.list": (ANYBODY, lambda c, who: c.endpoints.list(who)),
    "endpoints.access": (ANYBODY, lambda c, who: c.endpoints.access(who, "none")),
    "certificates.list": (ANYBODY, lambda c, who: c.certificates.list(who)),
    "certificates.put": (MEMBERS, lambda c, who: c.certificates.put(who, "web", "", "")),
    "certificates.renew": (MEMBERS, lambda c, who: c.certificates.renew(who, "none.example.com")),
    "certificates.remove": (MEMBERS, lambda c, who: c.certificates.remove(who, "none")),
    "hosts.show": (ADMINS, lambda c, who: c.hosts.show(who, "host-1")),
    "hosts.cordon": (ADMINS, lambda c, who: c.hosts.cordon(who, "host-1")),
    "hosts.uncordon": (ADMINS, lambda c, who: c.hosts.uncordon(who, "host-1")),
    "hosts.drain": (ADMINS, lambda c, who: c.hosts.drain(who, "none")),
    "hosts.label": (ADMINS, lambda c, who: c.hosts.label(who, "host-1", {"disk": "ssd"})),
    "hosts.remove": (ADMINS, lambda c, who: c.hosts.remove(who, "none")),
    "zones.add": (ADMINS, lambda c, who: c.zones.add(who, "zone-9", "region")),
    "zones.remove": (ADMINS, lambda c, who: c.zones.remove(who, "none")),
    "clusters.check": (ADMINS, lambda c, who: c.clusters.check(who, "", None)),
    "cluster_zones.add": (ADMINS, lambda c, who: c.cluster_zones.add(who, "k8s", "", "none/none")),
    "cluster_zones.change": (ADMINS, lambda c, who: c.cluster_zones.change(who, "k8s")),
    "cluster_zones.show": (ADMINS, lambda c, who: c.cluster_zones.show(who, "k8s")),
    "cluster_zones.remove": (ADMINS, lambda c, who: c.cluster_zones.remove(who, "k8s")),
    "clusters.rights": (ADMINS, lambda c, who: c.clusters.rights(who)),
    "queues.list": (ADMINS, lambda c, who: c.queues.list(who)),
    "queues.dead": (ADMINS, lambda c, who: c.queues.dead(who)),
    "zones.list": (ADMINS, lambda c, who: c.zones.list(who)),
    "pools.put": (ADMINS, lambda c, who: c.pools.put(who, "gold", zone="zone")),
    "pools.remove": (ADMINS, lambda c, who: c.pools.remove(who, "none")),
    "pools.list": (ADMINS, lambda c, who: c.pools.list(who)),
    "hosts.list": (ADMINS, lambda c, who: c.hosts.list(who)),
    "tenants.create": (ADMINS, lambda c, who: c.tenants.create(who, f"for-{who.user_name}")),
    "tenants.remove": (ADMINS, lambda c, who: c.tenants.remove(who, "nobody")),
    "tenants.list": (ADMINS, lambda c, who: c.tenants.list(who)),
    "users.create": (ADMINS, lambda c, who: c.users.create(who, "new", "default", Role.VIEWER)),
    "users.remove": (ADMINS, lambda c, who: c.users.remove(who, "nobody")),
    "users.whoami": (ANYBODY, lambda c, who: c.users.whoami(who)),
    "users.list": (ANYBODY, lambda c, who: c.users.list(who)),
    "tokens.create": (ANYBODY, lambda c, who: c.tokens.create(who, "mine")),
    "tokens.revoke": (ANYBODY, lambda c, who: c.tokens.revoke(who, "none")),
    "tokens.list": (ANYBODY, lambda c, who: c.tokens.list(who)),
    "join_tokens.create": (ADMINS, lambda c, who: c.join_tokens.create(who, "zone")),
    "join_tokens.revoke": (ADMINS, lambda c, who: c.join_tokens.revoke(who, "none")),
    "join_tokens.list": (ADMINS, lambda c, who: c.join_tokens.list(who)),
    "events.follow": (ANYBODY, lambda c, who: c.events.follow(who)),
}
OF_THE_TENANT = [
    "apps.show",
    "releases.list",
    "releases.show",
    "releases.diff",
    "releases.rollback",
    "scaling.scale",
    "moving.plan",
    "moving.start",
    "moving.confirm",
    "rollouts.show",
    "rollouts.pause",
    "rollouts.resume",
    "rollouts.abort",
    "status.show",
    "apps.stop",
    "apps.start",
    "apps.restart",
    "apps.remove",
    "replicas.show",
    "replicas.logs",
    "replicas.usage",
    "replicas.list",
    "replicas.exec",
    "disks.resize",
    "disks.remove",
    "networks.ports",
    "networks.remove",
    "networks.show",
    "networks.map",
    "networks.trace",
    "networks.add_subnet",
    "reservations.add",
    "reservations.remove",
    "shares.offer",
    "shares.withdraw",
    "egress.assign",
    "egress.unassign",
]
"""Use cases that name a thing of one tenant."""
INTERNAL = {
    *("auth.authenticate", "apps.start_removal", "apps.release", "scaling.autoscale"),
    *("draining.move_off", "draining.outlook"),
    *(f"enrolment.{name}" for name in ("admit", "join", "renew", "belongs", "revoke", "forget")),
    *(f"authorities.{name}" for name in ("show", "signing", "issue", "record", "owner")),
    *(f"authorities.{name}" for name in ("recognise", "is_known", "identity")),
}
"""They take no caller: entrances and reconcilers answer for them; hosts prove themselves otherwise."""
ALLOWED = {
    Role.VIEWER: {ANYBODY},
    Role.MEMBER: {ANYBODY, MEMBERS},
    Role.ADMIN: {ANYBODY, MEMBERS, ADMINS},
}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Installation]:
    async with installation(tmp_path) as made:
        yield made


async def carry_out(control: Control, caller: Caller, case: str) -> None:
    """Ask; of what goes on for ever only its beginning."""
    asked = MATRIX[case][1](control, caller)
    if inspect.isasyncgen(asked):
        if case == "events.follow":
            await asked.aclose()
            return
        async for _ in asked:
            break
    elif inspect.isawaitable(asked):
        await asked


def use_cases() -> set[str]:
    """Every public method of control."""
    return {
        f"{part.name}.{name}"
        for part in fields(Control)
        for name, _ in inspect.getmembers(get_type_hints(Control)[part.name], inspect.isfunction)
        if not name.startswith("_")
    }


def test_every_use_case_has_a_row_in_the_table() -> None:
    assert use_cases() == set(MATRIX) | INTERNAL


@pytest.mark.parametrize("role", list(Role))
async def test_each_role_may_do_what_the_table_says(house: Installation, role: Role, tmp_path: Path) -> None:
    caller = await house.person("kim", role)
    await house.finish(await house.control.apps.apply(house.admin, SHOP))

    for case, (needed, _) in MATRIX.items():
        forbidden = False
        (tmp_path / "uploads" / "upload").touch()
        try:
            await carry_out(house.control, caller, case)
        except Forbidden:
            forbidden = True
        except SkepError:
            pass
        assert forbidden == (needed not in ALLOWED[role]), f"{case} by a {role}"


@pytest.mark.parametrize("case", OF_THE_TENANT)
async def test_what_belongs_to_another_tenant_is_not_found(house: Installation, case: str) -> None:
    await house.control.tenants.create(house.admin, "other")
    stranger = await house.person("kim", Role.MEMBER, "other")
    await house.finish(await house.control.apps.apply(house.admin, SHOP))

    with pytest.raises(NotFound):
        await carry_out(house.control, stranger, case)


async def test_lists_show_what_is_the_tenants_own(house: Installation) -> None:
    await house.control.tenants.create(house.admin, "other")
    stranger = await house.person("kim", Role.MEMBER, "other")
    accepted = await house.control.apps.apply(house.admin, SHOP)
    await house.finish(accepted)
    control = house.control

    assert await control.apps.list(stranger) == []
    assert await control.replicas.list(stranger) == []
    assert await control.replicas.usage(stranger) == []
    assert await control.runs.list(stranger) == []
    assert await control.disks.list(stranger) == []
    assert await control.networks.list(stranger) == []
    assert await control.networks.ports(stranger) == []
    assert [image.tenant for image in await control.images.list(stranger)] == [None]
    assert [user.name for user in await control.users.list(stranger)] == ["kim"]
    assert [token.user for token in await control.tokens.list(stranger)] == ["kim"]
    with pytest.raises(NotFound):
        await control.runs.show(stranger, str(accepted.run))
    with pytest.raises(NotFound):
        await control.runs.cancel(stranger, str(accepted.run))


async def test_images_for_everybody_are_the_operators_to_share_and_to_remove(house: Installation) -> None:
    member = await house.person("kim", Role.MEMBER)

    for asked in (
        house.control.images.pull(member, "redis:7", shared=True),
        house.control.images.load(member, Path("upload"), "redis:7", shared=True),
        house.control.images.remove(member, "busybox:1"),
    ):
        with pytest.raises(Forbidden):
            await asked


async def test_a_token_is_shown_once_and_kept_as_a_hash_only(house: Installation) -> None:
    made = await house.control.tokens.create(house.admin, "laptop")

    async with house.database.read() as connection:
        stored = (await connection.execute(sa.select(tokens))).all()
    assert made.secret.startswith("skep_")
    assert len(made.secret) >= 48
    assert made.secret not in str(stored)
    assert (await house.control.auth.authenticate(made.secret)).user_name == "admin"


async def test_unknown_expired_and_revoked_tokens_are_refused_alike(house: Installation) -> None:
    control = house.control
    expired = await control.tokens.create(house.admin, "short", expires_in=60)
    revoked = await control.tokens.create(house.admin, "gone")
    await control.auth.authenticate(expired.secret)
    await control.tokens.revoke(house.admin, revoked.token.id)
    house.clock.time += 60

    messages = set()
    for secret in (expired.secret, revoked.secret, "skep_unknown", ""):
        with pytest.raises(Unauthenticated) as caught:
            await control.auth.authenticate(secret)
        messages.add(caught.value.message)

    assert len(messages) == 1


async def test_a_token_must_live_for_a_while(house: Installation) -> None:
    with pytest.raises(InvalidInput):
        await house.control.tokens.create(house.admin, "no", expires_in=0)


async def test_people_make_and_revoke_their_own_tokens_only(house: Installation) -> None:
    control = house.control
    kim = await house.person("kim", Role.MEMBER)
    admins = (await control.tokens.create(house.admin, "laptop")).token

    with pytest.raises(Forbidden):
        await control.tokens.create(kim, "theirs", user="admin")
    with pytest.raises(NotFound):
        await control.tokens.revoke(kim, admins.id)

    own = await control.tokens.create(kim, "mine")
    await control.tokens.revoke(kim, own.token.id)
    assert admins.id in {token.id for token in await control.tokens.list(house.admin)}


async def test_a_removed_user_is_out_at_once(house: Installation) -> None:
    control = house.control
    await house.person("kim", Role.MEMBER)
    secret = (await control.tokens.create(house.admin, "login", user="kim")).secret

    await control.users.remove(house.admin, "kim")

    with pytest.raises(Unauthenticated):
        await control.auth.authenticate(secret)
    with pytest.raises(Conflict):
        await control.users.remove(house.admin, "admin")


async def test_only_admins_act_in_other_tenants(house: Installation) -> None:
    control = house.control
    await control.tenants.create(house.admin, "other")
    await house.person("kim", Role.MEMBER)
    kim = (await control.tokens.create(house.admin, "login", user="kim")).secret
    admin = (await control.tokens.create(house.admin, "login")).secret

    assert (await control.auth.authenticate(kim, "default")).tenant_name == "default"
    assert (await control.auth.authenticate(admin, "other")).tenant_name == "other"
    for tenant in ("other", "there-is-none"):
        with pytest.raises(Forbidden):
            await control.auth.authenticate(kim, tenant)
    with pytest.raises(NotFound):
        await control.auth.authenticate(admin, "there-is-none")


async def test_the_use_of_a_token_is_recorded_once_a_minute(house: Installation) -> None:
    control = house.control
    made = await control.tokens.create(house.admin, "laptop")
    seen = []
    for step in (0, 30, 31):
        house.clock.time += step
        await control.auth.authenticate(made.secret)
        found = {token.id: token for token in await control.tokens.list(house.admin)}
        seen.append(found[made.token.id].last_used)

    assert seen[0] == seen[1]
    assert seen[2] != seen[1]


async def test_names_of_users_and_tenants_are_unique(house: Installation) -> None:
    control = house.control
    await house.person("kim", Role.MEMBER)
    await control.tenants.create(house.admin, "other")

    with pytest.raises(Conflict):
        await control.users.create(house.admin, "kim", "other", Role.VIEWER)
    with pytest.raises(Conflict):
        await control.tenants.create(house.admin, "other")
    with pytest.raises(NotFound):
        await control.users.create(house.admin, "lee", "nowhere", Role.VIEWER)


async def test_a_tenant_goes_only_when_it_owns_nothing(house: Installation) -> None:
    control = house.control
    await control.tenants.create(house.admin, "other")
    member = await house.person("kim", Role.MEMBER, "other")
    await house.finish(await control.apps.apply(member, SHOP))
    with pytest.raises(Conflict, match="still owns shop"):
        await control.tenants.remove(house.admin, "other")
    await house.finish(await control.apps.remove(member, "shop", volumes=True))

    await control.tenants.remove(house.admin, "other")

    assert [tenant.name for tenant in await control.tenants.list(house.admin)] == ["default"]
    assert [user.name for user in await control.users.list(house.admin)] == ["admin"]
