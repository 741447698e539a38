"""`skep up` where it cannot work: one line that says what to do, exit code 1, nothing left behind."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from tests.cluster.server import MAIN, environment
from tests.machines import configuration, leftover

from skep.configuration import Configuration
from skep.main.database import refusal

TOOLS = {
    "runc": "runc",
    "conmon": "conmon",
    "nft": "nftables",
    "mkfs.btrfs": "btrfs-progs",
    "skopeo": "skopeo",
    "buildah": "buildah",
}

AS_NOBODY = "import skep.flow as f, skep.main.__main__ as m, os; f.load(); os.setuid(65534); m.main()"
"""Who may not read where Python is has it loaded before."""


def up(settings: Configuration, verb: str = "up", **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MAIN, verb],
        env=os.environ | environment(settings) | changes,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def said(done: subprocess.CompletedProcess[str]) -> str:
    """The one line on stderr that is no event; there is no traceback."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


@pytest.mark.root
def test_without_root_it_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, "up"],
        env=os.environ | environment(configuration(tmp_path)),
        capture_output=True,
        text=True,
        check=False,
    )

    assert "root" in said(done)


@pytest.mark.root
@pytest.mark.parametrize("verb", ["serve", "worker"])
def test_processes_that_run_no_containers_need_no_root(tmp_path: Path, verb: str) -> None:
    loaded = f"import skep.main.{verb}"  # Python itself may lie where nobody else may look

    done = subprocess.run(
        [sys.executable, "-c", f"{loaded}; {AS_NOBODY}", verb],
        env=os.environ | environment(configuration(tmp_path)) | {"SKEP_ETC": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert "'database' and 'bus' must be set" in said(done)


@pytest.mark.root
@pytest.mark.parametrize("tool", TOOLS)
async def test_a_missing_program_is_named_with_its_package(tmp_path: Path, tool: str) -> None:
    settings = configuration(tmp_path)

    done = without(tool, settings)

    assert f"apt-get install {TOOLS[tool]}" in said(done)
    assert await leftover(settings.instance, tmp_path) == []


def without(tool: str, settings: Configuration) -> subprocess.CompletedProcess[str]:
    """Start it in a mount namespace of its own, where the program is not."""
    folders = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
    found = {Path(folder, tool).resolve() for folder in folders if Path(folder, tool).exists()}
    hide = " && ".join(f"mount --bind /dev/null {path}" for path in found)
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", f'{hide} && exec "$0" "$@"', *MAIN, "up"],
        env=os.environ | environment(settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.root
@pytest.mark.parametrize(
    ("key", "value", "hint"),
    [
        ("SKEP_POOL_SIZE", "much", "pool_size"),
        ("SKEP_LISTEN", "127.0.0.1", "listen"),
        ("SKEP_LISTEN", "127.0.0.1:http", "listen"),
        ("SKEP_LISTEN", "127.0.0.1:99999", "listen"),
        ("SKEP_NETWORKS", "10.0.0.0/33", "networks"),
        ("SKEP_INSTANCE", "Not A Name", "instance"),
        ("SKEP_DATABASE", "nonsense", "database"),
        ("SKEP_POOL_DEVICE", "/dev/does-not-exist", "/dev/does-not-exist"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, key: str, value: str, hint: str) -> None:
    assert hint in said(up(configuration(tmp_path), **{key: value}))


@pytest.mark.root
def test_a_broken_configuration_file_is_named_with_the_place(tmp_path: Path) -> None:
    settings = configuration(tmp_path)
    settings.etc.mkdir()
    (settings.etc / "skep.yaml").write_text("pool_size: 1GiB\nunknown_key: 1\n")
    unknown = said(up(settings))
    (settings.etc / "skep.yaml").write_text("pool_size: [1GiB\n")

    assert "unknown_key" in unknown
    assert "skep.yaml" in said(up(settings))


@pytest.mark.root
def test_an_address_that_is_taken_is_named(tmp_path: Path) -> None:
    settings = configuration(tmp_path)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(settings.address)
        taken.listen()

        assert settings.listen in said(up(settings))
    assert list(settings.data.iterdir()) == [settings.data / "skep.lock"]


@pytest.mark.root
def test_a_database_that_is_none_is_named(tmp_path: Path) -> None:
    settings = configuration(tmp_path)
    settings.data.mkdir()
    (settings.data / "skep.db").write_text("this is not a database" * 100)

    assert "skep.db" in said(up(settings))


@pytest.mark.root
@pytest.mark.parametrize("verb", ["serve", "worker"])
def test_a_database_that_does_not_answer_is_named_with_what_to_do(tmp_path: Path, verb: str) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        database = f"postgresql+asyncpg://skep:sesame@127.0.0.1:{port}/cloud"

        done = up(
            configuration(tmp_path),
            verb,
            SKEP_DATABASE=database,
            SKEP_BUS=f"amqp://skep:sesame@127.0.0.1:{port}",
        )

    assert f"postgresql+asyncpg://skep@127.0.0.1:{port}/cloud cannot be used" in said(done)
    assert "whether PostgreSQL runs there" in said(done)
    assert f'"broker": "amqp://skep@127.0.0.1:{port}' in done.stderr
    assert "sesame" not in done.stderr


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (asyncpg.InvalidPasswordError("no"), "pg_hba.conf"),
        (asyncpg.InvalidCatalogNameError("no"), "CREATE DATABASE"),
        (TimeoutError(), "TimeoutError. Look whether PostgreSQL runs there"),
        (asyncpg.InsufficientPrivilegeError("no"), "setting 'database'"),
    ],
)
def test_what_a_database_says_comes_with_what_to_do(error: Exception, advice: str) -> None:
    told = refusal("postgresql+asyncpg://skep:sesame@db.example:5432/cloud", error)

    assert told.startswith("The database postgresql+asyncpg://skep@db.example:5432/cloud cannot be used: ")
    assert advice in told
    assert "sesame" not in told + refusal("sesame://:sesame", ValueError("no"))
