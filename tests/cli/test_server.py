"""`skep up`, `down` and `purge` of an installation of its own on this machine."""

import fcntl
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.cli.conftest import Skep


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def installation(skep: Skep, tmp_path: Path) -> Iterator[Skep]:
    listen = f"127.0.0.1:{free_port()}"
    skep.extra = {
        "SKEP_URL": "",
        "SKEP_TOKEN": "",
        "SKEP_INSTANCE": f"c{secrets.token_hex(2)}",
        "SKEP_DATA": str(tmp_path / "data"),
        "SKEP_RUN": str(tmp_path / "run"),
        "SKEP_LOG": str(tmp_path / "log"),
        "SKEP_LISTEN": listen,
        "SKEP_POOL_SIZE": "1GiB",
        "SKEP_NETWORKS": "10.76.0.0/16",
        "SKEP_LINKS": "100.102.0.0/16",
    }
    try:
        yield skep
    finally:
        skep.process("purge", "--yes")


@pytest.mark.root
def test_a_server_comes_up_in_the_background_and_goes_down(installation: Skep, tmp_path: Path) -> None:
    up = installation.process("up")

    assert up.returncode == 0, up.stderr
    url = up.stdout.split()[1]
    assert httpx.get(f"{url}/readyz").status_code == 200
    assert str(tmp_path / "etc" / "admin.token") in up.stdout
    assert "Role:   admin" in installation("whoami").stdout
    again = installation.process("up")
    assert (again.returncode, "already" in again.stderr) == (0, True)
    assert installation.process("down").returncode == 0
    assert installation("status").returncode == 6
    assert installation.process("down").returncode == 0


@pytest.mark.root
def test_a_server_comes_up_while_the_last_one_is_ending(installation: Skep, tmp_path: Path) -> None:
    assert installation.process("up").returncode == 0
    pid = tmp_path / "run" / "skep.pid"
    last = int(pid.read_text())

    os.kill(last, signal.SIGTERM)
    while pid.exists():
        time.sleep(0.05)
    with (tmp_path / "data" / "skep.lock").open() as lock:  # as if it took its time after that
        fcntl.flock(lock, fcntl.LOCK_EX)
        later = threading.Timer(1.5, fcntl.flock, (lock, fcntl.LOCK_UN))
        later.start()
        up = installation.process("up")
        later.join()

    assert up.returncode == 0, up.stderr
    assert int(pid.read_text()) != last


@pytest.mark.root
def test_a_server_that_cannot_start_says_why(installation: Skep) -> None:
    installation.extra["SKEP_NETWORKS"] = "nonsense"

    up = installation.process("up")

    assert up.returncode == 1
    assert "nonsense" in up.stderr
    assert "Traceback" not in up.stderr


@pytest.mark.root
def test_a_server_with_tls_is_believed_by_the_commands_of_its_machine(
    installation: Skep, tmp_path: Path
) -> None:
    installation.extra["SKEP_TLS"] = "on"

    up = installation.process("up")

    assert up.returncode == 0, up.stderr
    assert "https://127.0.0.1" in up.stdout
    assert "Role:   admin" in installation("whoami").stdout
    assert installation("status").returncode == 0
    refused = installation("host", "add", "--zone", "zone-1")
    assert "no bus" in refused.stderr
    assert (tmp_path / "etc" / "installation.key").stat().st_mode & 0o777 == 0o600
