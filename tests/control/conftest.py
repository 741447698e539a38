"""Control on real parts: every test gets an installation of its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.machines import Machine, busybox_archive, configuration, leftover, machine

from skep.control.reconcilers import reconciler


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return busybox_archive(tmp_path_factory.mktemp("busybox"))


@pytest.fixture
async def cloud(tmp_path: Path, archive: Path) -> AsyncIterator[Machine]:
    settings = configuration(tmp_path)
    async with machine(settings, archive) as result:
        yield result
    assert await leftover(settings.instance, tmp_path) == []


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reconcilers look several times a second, where nothing tells them of the damage."""
    monkeypatch.setattr(reconciler, "INTERVAL", 0.3)
