"""What processes load: they start fast and stay small."""

import subprocess
import sys


def test_an_agent_loads_nothing_that_only_control_needs() -> None:
    of_control = {
        "sqlalchemy",
        "alembic",
        "asyncpg",
        "skep.flow.engine",
        "skep.control.control",
        "skep.store",
    }
    assert of_control & loaded("skep.main.agent") == set()


def test_one_machine_loads_neither_what_migrates_nor_what_speaks_to_brokers_and_clusters() -> None:
    for_others = {"alembic", "aio_pika", "lightkube", "skep.bus.management", "skep.providers.kubernetes.host"}

    assert for_others & loaded("skep.main.up") == set()


def loaded(module: str) -> set[str]:
    program = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())
