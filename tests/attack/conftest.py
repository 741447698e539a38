"""One prison for all attacks that leave it as it was."""

from collections.abc import Iterator

import pytest
from tests.attack.prison import Prison, Prisoner
from tests.attack.tenants import Tenants, settle


@pytest.fixture(scope="session")
def prison() -> Iterator[Prison]:
    made = Prison()
    try:
        made.open()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def prisoner(prison: Prison) -> Prisoner:
    """A container without a network."""
    return prison.admit()


@pytest.fixture(scope="session")
def tenants(prison: Prison) -> Tenants:
    return settle(prison)
