"""What the processes of hosts load: they start fast and stay small."""

import subprocess
import sys


def test_an_agent_loads_nothing_that_only_control_needs() -> None:
    program = "import sys, skep.main.agent; print(*sys.modules)"

    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    of_control = {
        "sqlalchemy",
        "alembic",
        "asyncpg",
        "skep.flow.engine",
        "skep.control.control",
        "skep.store",
    }
    assert of_control & set(loaded.stdout.split()) == set()
