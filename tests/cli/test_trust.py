"""Commands over TLS: whom they believe, and what makes a machine a host."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import msgspec
import pytest
import yaml
from tests.api.conftest import serving
from tests.cli.conftest import Skep
from tests.control.installation import Installation, installation

from skep.cli.settings import local_url
from skep.control.control import Control
from skep.trust.api_contexts import api_context
from skep.trust.peers import Role


@dataclass
class Served:
    made: Installation

    def as_control(self) -> Control:
        return self.made.control


@dataclass
class Site:
    """The command, as the admin of an installation that is served with TLS."""

    skep: Skep
    authority: str
    certificates: Path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    for name in ("home", "etc"):
        (folder / name).mkdir()
    found: list[Site] = []
    ready, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        try:
            async with installation(folder) as made:
                made.clock.time = time.time()
                addresses = [ip_address("127.0.0.1")]
                authorities = made.control.authorities
                await authorities.identity(folder / "serve", Role.SERVE, "serve-1", addresses=addresses)
                shown = await authorities.show()
                (folder / "ca.pem").write_text(shown.certificates)
                async with serving(Served(made), api_context(folder / "serve" / "identity.pem")) as url:
                    tokens = made.control.join_tokens
                    tokens._settings = msgspec.structs.replace(tokens._settings, api_url=url)
                    secret = (folder / "admin.token").read_text().strip()
                    skep = Skep(url, None, folder, secret)  # type: ignore[arg-type]  # a world of its own
                    found.append(Site(skep, shown.fingerprint, folder / "ca.pem"))
                    ready.set()
                    await asyncio.to_thread(stop.wait)
        finally:
            ready.set()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(60)
    try:
        yield found[0]
    finally:
        stop.set()
        thread.join(30)


@pytest.fixture(autouse=True)
def _as_new(site: Site) -> None:
    site.skep.extra = {}


def believed(site: Site) -> Skep:
    site.skep.extra = {"SKEP_CA": str(site.certificates)}
    return site.skep


def test_a_server_nobody_vouches_for_is_not_believed(site: Site) -> None:
    done = site.skep("whoami")

    assert done.returncode == 6
    assert "is not to be believed" in done.stderr
    assert "--ca sha256:" in done.stderr


def test_a_file_with_the_authority_makes_it_believed(site: Site) -> None:
    assert "Role:    admin" in believed(site)("whoami").stdout.replace("Role:   ", "Role:    ")


def test_a_login_with_the_fingerprint_is_remembered(site: Site) -> None:
    site.skep.extra = {"SKEP_URL": "", "SKEP_TOKEN": ""}

    done = site.skep("login", site.skep.url, "--ca", site.authority, stdin=f"{site.skep.token}\n")
    later = site.skep("whoami")

    assert (done.returncode, later.returncode) == (0, 0), done.stderr + later.stderr
    kept = yaml.safe_load((site.skep.directory / "home/.config/skep/config.yaml").read_text())
    assert "BEGIN CERTIFICATE" in kept["contexts"]["127.0.0.1"]["ca"]
    (site.skep.directory / "home/.config/skep/config.yaml").unlink()


@pytest.mark.parametrize("ca", ["sha256:" + "0" * 64, "sha256:short", "/no/such/file"])
def test_a_login_with_another_authority_sends_no_token(site: Site, ca: str) -> None:
    done = site.skep("login", site.skep.url, "--ca", ca, stdin=f"{site.skep.token}\n")

    assert done.returncode in (2, 4)
    assert "Traceback" not in done.stderr
    assert not (site.skep.directory / "home/.config/skep/config.yaml").exists()


def test_what_is_no_certificate_is_named(site: Site) -> None:
    (site.skep.directory / "junk.pem").write_text("junk")
    site.skep.extra = {"SKEP_CA": str(site.skep.directory / "junk.pem")}

    done = site.skep("whoami")

    assert (done.returncode, "cannot be used" in done.stderr) == (2, True)


def test_exec_believes_the_same_authority(site: Site) -> None:
    done = believed(site)("exec", "shop/web", "true")

    assert done.returncode == 3, done.stderr


def test_host_add_prints_one_command_which_makes_a_machine_a_host(site: Site, tmp_path: Path) -> None:
    skep = believed(site)
    added = skep.process("host", "add", "host-7", "--zone", "zone", "--expires", "10m")
    (line,) = added.stdout.splitlines()
    site.skep.extra = {"SKEP_URL": "", "SKEP_TOKEN": "", "SKEP_ETC": str(tmp_path / "etc")}

    joined = skep(*line.split()[1:])
    again = skep(*line.split()[1:])

    assert line.startswith(f"skep agent join {skep.url} --token skepjoin_")
    assert line.endswith(f"--ca {site.authority}")
    assert joined.returncode == 0, joined.stderr
    assert "This machine is host host-7 in zone zone of https://127.0.0.1" in joined.stderr
    assert (again.returncode, "already" in again.stderr) == (0, True)
    assert (tmp_path / "etc" / "agent" / "identity.pem").exists()
    listed = json.loads(believed(site)("host", "tokens", "-o", "json").stdout)
    assert [one["state"] for one in listed if one["host"] == "host-7"] == ["used"]


def test_a_join_token_is_revoked_and_then_opens_nothing(site: Site, tmp_path: Path) -> None:
    skep = believed(site)
    line = skep.process("host", "add", "host-8", "--zone", "zone").stdout
    listed = json.loads(skep("host", "tokens", "-o", "json").stdout)
    token = next(one["id"] for one in listed if one["host"] == "host-8")

    assert skep("host", "revoke", token).returncode == 0
    skep.extra = {"SKEP_ETC": str(tmp_path / "etc")}
    refused = skep(*line.split()[1:])

    assert (refused.returncode, refused.stdout) == (1, "")
    assert "skep host add" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_fingerprint_is_shown_to_whoever_may_ask(site: Site) -> None:
    assert believed(site)("host", "authority").stdout == f"{site.authority}\n"


def test_a_host_add_that_makes_no_sense_says_so(site: Site) -> None:
    for arguments, says in (
        (["--zone", "moon"], "no zone 'moon'"),
        (["host-1", "--zone", "zone"], "skep host rm host-1"),
        (["--zone", "zone", "--expires", "soon"], "no duration"),
    ):
        done = believed(site)("host", "add", *arguments)
        assert done.returncode != 0
        assert says in done.stderr


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({}, "http://127.0.0.1:7537"),
        ({"SKEP_LISTEN": "10.0.0.1:80"}, "https://10.0.0.1:80"),
        ({"SKEP_LISTEN": "0.0.0.0:80"}, "https://127.0.0.1:80"),
        ({"SKEP_LISTEN": "0.0.0.0:80", "SKEP_TLS": "off"}, "http://127.0.0.1:80"),
        ({"SKEP_LISTEN": "[::1]:80"}, "http://[::1]:80"),
        ({"SKEP_TLS": "on"}, "https://127.0.0.1:7537"),
    ],
)
def test_commands_know_how_the_server_of_their_machine_is_served(
    tmp_path: Path, settings: dict[str, str], url: str
) -> None:
    assert local_url({"SKEP_ETC": str(tmp_path), **settings}) == url
