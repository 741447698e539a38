"""All laws for a flow, in one line of a test module:

    test_replica_create = prove("replica.create", {"replica": "web-0"}, registry=make_registry, world=MyWorld)

pytest then shows one test per law, `test_replica_create[crash anywhere]` and so on.
"""

import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from skep.flow.definition.plan import Flow
from skep.flow.definition.registry import Registry
from skep.flow.testing import laws
from skep.flow.testing.injection import Injected
from skep.flow.testing.laws import Law
from skep.flow.testing.trial import Answers, LawBroken, Operator
from skep.flow.testing.trials import Trials
from skep.flow.testing.virtual_time import VirtualTime
from skep.flow.testing.worlds import World, worlds_of

FOREVER = 365 * 24 * 3600.0
"""Virtual seconds: longer than whatever a flow waits for."""


def prove(
    flow: str | Flow,
    input: Mapping[str, object],  # noqa: A002
    *,
    registry: Registry | Callable[[], Registry],
    world: Callable[[], World | AbstractAsyncContextManager[World]],
    databases: str = "tmp_path",
    operator: Operator | None = None,
    answers: Answers | None = None,
    every: int = 1,
    only: Mapping[str, Law] = laws.ALL,
) -> Callable[[str, Any], None]:
    """A test for pytest, parametrised by the laws; in virtual time, so that no waiting takes long.

    `world` makes a fresh world, or opens one (`async with`).  `databases`: the fixture that says where the
    trials get their databases from, a folder for SQLite files or `Databases`.  `operator` decides for
    at-most-once steps that a crash left in doubt.  `answers` says what steps are told that wait for an
    approval or a signal; without it everything is approved.  `every`: try each n-th crash point only.
    """
    import pytest  # the kit ships with the engine, pytest does not
    from structlog.testing import capture_logs

    @pytest.mark.parametrize("law", list(only))
    def test(law: str, request: pytest.FixtureRequest) -> None:
        """A law that every flow keeps."""
        trials = Trials(
            registry if isinstance(registry, Registry) else registry(),
            flow,
            input,
            worlds_of(world),
            request.getfixturevalue(databases),
            operator,
            answers,
            every,
            timeout=FOREVER,
        )
        broken = None
        with capture_logs() as logs:  # tracebacks of injected failures are no news, and longer than all else
            try:
                VirtualTime().run(_check(only[law], trials))
            except LawBroken as error:
                broken = error
        if broken is not None:
            pytest.fail(f"LawBroken: {broken}{_own_failure(logs)}", pytrace=False)

    return test


async def _check(law: Law, trials: Trials) -> None:
    await law(trials)


def _own_failure(logs: Iterable[Mapping[str, Any]]) -> str:
    """The traceback of the last failure that no trial injected."""
    errors = [entry["exc_info"] for entry in logs if isinstance(entry.get("exc_info"), Exception)]
    own = [error for error in errors if not isinstance(error, Injected)]
    return "\n\n" + "".join(traceback.format_exception(own[-1])) if own else ""
