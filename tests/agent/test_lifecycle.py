"""Starting, stopping, exit codes, removal, restarts."""

import pytest
from tests.agent.conftest import Hive, Said

from skep.agent.supervisor import Supervisor
from skep.model.errors import NotFound
from skep.model.host import ContainerState

pytestmark = pytest.mark.root


async def test_a_container_runs_and_says_what_it_prints(engine: Supervisor, hive: Hive, said: Said) -> None:
    spec = hive.spec("echo hello from $HOSTNAME; echo oops >&2; exit 3")

    await engine.start(spec)

    assert "hello from web-0" in await said(spec.id)
    status = await engine.inspect(spec.id)
    assert (status.state, status.exit_code) == (ContainerState.EXITED, 3)


async def test_a_removed_container_leaves_nothing(engine: Supervisor, hive: Hive) -> None:
    spec = hive.spec()
    await engine.start(spec)

    await engine.remove(spec.id)

    assert hive.leftovers() == []
    assert not list((hive.data / "containers").iterdir())
    with pytest.raises(NotFound):
        await engine.inspect(spec.id)
