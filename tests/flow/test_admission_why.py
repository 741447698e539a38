"""Whoever waits is told exactly for what, in a sentence."""

from datetime import UTC, datetime

from tests.flow.admission_world import World, ticket

from skep.flow.admission.policies import Policy
from skep.flow.admission.tickets import Use


def test_a_limit_names_its_key_how_much_is_in_use_and_by_whom() -> None:
    world = World(10)
    builds = (Use("builds", 2),)
    world.submit(ticket(1, limits=builds))
    world.submit(ticket(2, limits=builds))
    world.submit(waits := ticket(3, limits=builds))
    world.submit(ticket(4, limits=builds))

    reason = world.admission.why(waits)

    assert (reason.kind, reason.subject, reason.holders) == ("limit", "builds", ("r1/s", "r2/s"))
    assert reason.message == "builds is in use by 2 of 2: r1/s, r2/s. 1 other waits for it, too."


def test_a_limit_from_above_is_named_and_one_of_nothing_is_too() -> None:
    world = World(10, {"tenant/*": Policy(concurrency=1)})
    world.submit(ticket(1))
    world.submit(waits := ticket(2))

    assert world.admission.why(waits).subject == "tenant/acme"
    world.put("tenant/acme", Policy(concurrency=0))
    message = "Nothing that counts on tenant/acme may begin: its limit is 0."
    assert world.admission.why(waits).message == message


def test_many_holders_are_counted_and_a_few_named() -> None:
    world = World(64, {"tenant": Policy(concurrency=30)})
    for number in range(30):
        world.submit(ticket(number))
    world.submit(waits := ticket(99))

    reason = world.admission.why(waits)

    assert reason.message == "tenant is in use by 30 of 30: r0/s, r1/s, r2/s and 27 more."
    assert len(reason.holders) == 20


def test_a_rate_says_when_it_lets_the_next_one_pass() -> None:
    world = World(10)
    mail = (Use("mail", rate=0.5),)
    world.submit(ticket(1, limits=mail))
    world.submit(waits := ticket(2, limits=mail))
    world.now += 0.75

    reason = world.admission.why(waits)

    assert (reason.kind, reason.subject) == ("rate", "mail")
    assert reason.until == datetime.fromtimestamp(1.25, UTC)
    assert reason.message == "mail lets 0.5 a second pass, the next one at 00:00:01.250000 UTC."


def test_slots_say_who_has_them_and_who_goes_before() -> None:
    world = World(2)
    world.submit(ticket(1))
    world.submit(ticket(2, tenant="umbrella", priority=1))
    world.submit(ticket(3))
    world.submit(ticket(4, priority=0))
    world.submit(waits := ticket(5))

    reason = world.admission.why(waits)

    assert (reason.kind, reason.subject, reason.holders) == ("slot", "normal", ("r1/s", "r2/s"))
    assert reason.message == (
        "2 of 2 slots are taken (1 high, 1 normal; most by tenant acme 1, umbrella 1)."
        " 1 older step of its tenant goes before it. 1 step of higher priority goes before it."
    )


def test_slots_that_are_kept_for_higher_priorities_are_told_apart() -> None:
    world = World(2)
    world.submit(ticket(1, priority=4))
    world.submit(waits := ticket(2, priority=4))

    assert world.admission.why(waits).message == (
        "1 of 2 slots are all that bulk work may take (1 bulk; most by tenant acme 1)."
    )


def test_fairness_names_the_tenants_that_had_less() -> None:
    world = World(1)
    for number in range(4):
        world.submit(ticket(number))
    world.finish(world.running[0])
    world.finish(world.running[0])
    world.submit(ticket(10, tenant="umbrella"))
    world.submit(ticket(11, tenant="hooli"))

    reason = world.admission.why(world.waiting[0])

    assert (reason.kind, reason.subject) == ("fairness", "normal")
    assert reason.holders == ("umbrella", "hooli")
    assert reason.message.endswith("2 tenants that had less go before it: umbrella, hooli.")


def test_what_does_not_wait_is_told_so() -> None:
    world = World(1)
    world.submit(runs := ticket(1))

    assert world.admission.why(runs).kind == "running"
    assert world.admission.why(ticket(2)).message == "It has not asked for a slot yet."
