"""What a tenant gets by asking for it in an app: nothing that leads out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.attack.prison import Prison, Prisoner, Seen
from tests.control.simulation import ALICE, app, service

from skep.control.apps.validation import check
from skep.control.callers import Role
from skep.model.errors import InvalidInput
from skep.model.host import ContainerMount
from skep.model.spec import Mount

pytestmark = pytest.mark.root
MEMBER = msgspec.structs.replace(ALICE, role=Role.MEMBER)


class Wish(msgspec.Struct, frozen=True):
    """What an app asks for, the same as a host would be told, and what it is good for."""

    asked: dict[str, Any]
    told: dict[str, Any]
    use: Callable[[Prisoner], Seen]


def mount(prisoner: Prisoner) -> Seen:
    return prisoner.attack("/attack/kernel", "mount", "/tmp", "tmpfs")


def read_host(prisoner: Prisoner) -> Seen:
    return prisoner.shell("test -e /of-the-host/passwd && echo won")


WISHES = {
    "every-capability": Wish({"cap_add": ("ALL",)}, {"cap_add": ("ALL",)}, mount),
    "capability-of-admins": Wish({"cap_add": ("CAP_SYS_ADMIN",)}, {"cap_add": ("CAP_SYS_ADMIN",)}, mount),
    "path-of-the-host": Wish(
        {"mounts": (Mount(type="bind", source="/etc", target="/of-the-host"),)},
        {"mounts": (ContainerMount(target="/of-the-host", path=Path("/etc"), read_only=True),)},
        read_host,
    ),
}


@pytest.mark.parametrize("name", WISHES)
def test_a_tenant_does_not_get_it_by_asking(name: str) -> None:
    with pytest.raises(InvalidInput):
        check(app(web=service(**WISHES[name].asked)), MEMBER)


@pytest.mark.parametrize("name", WISHES)
def test_a_container_that_gets_it_is_dangerous(prison: Prison, prisoner: Prisoner, name: str) -> None:
    wish = WISHES[name]
    assert not wish.use(prisoner).won
    dangerous = prison.admit(**wish.told)

    seen = wish.use(dangerous)
    prison.dismiss(dangerous)

    assert seen.won, seen
