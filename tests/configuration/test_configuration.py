"""The configuration file, the environment over it, and errors that name the key."""

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest

from skep.configuration import Configuration, read
from skep.model.errors import InvalidInput

GIB = 1024**3


def write(folder: Path, text: str) -> dict[str, str]:
    """The environment that names the folder, in which the file lies."""
    (folder / "skep.yaml").write_text(text)
    return {"SKEP_ETC": str(folder)}


def test_without_file_and_environment_everything_has_its_default(tmp_path: Path) -> None:
    assert read({"SKEP_ETC": str(tmp_path)}) == Configuration(etc=tmp_path)


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert read(write(tmp_path, "# nothing\n")) == Configuration(etc=tmp_path)


def test_the_file_is_read(tmp_path: Path) -> None:
    found = read(
        write(
            tmp_path,
            "data: /srv/skep\npool_size: 20GiB\ndefault_memory: 512m\nnetworks: 10.0.0.0/9\n"
            "dns: [192.0.2.1, 192.0.2.2]\ndefault_pids: 100\n",
        )
    )

    assert found.data == Path("/srv/skep")
    assert (found.pool_size, found.default_memory, found.default_pids) == (20 * GIB, GIB // 2, 100)
    assert found.networks == IPv4Network("10.0.0.0/9")
    assert found.dns == ("192.0.2.1", "192.0.2.2")


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "listen: 127.0.0.1:1\npool_size: 1GiB\ndns: [192.0.2.9]\n")

    found = read(
        file
        | {
            "SKEP_LISTEN": "127.0.0.1:2",
            "SKEP_DNS": "192.0.2.1,192.0.2.2",
            "SKEP_PRIVATE": "192.0.2.0/24,10.0.0.0/16",
            "SKEP_PRIVATE6": "fd00:9::/64",
            "SKEP_POOL_DEVICE": "/dev/vdb",
            "SKEP_DEFAULT_PIDS": "7",
            "SKEP_POOL_SIZE": "",
        }
    )

    assert found.address == ("127.0.0.1", 2)
    assert found.dns == ("192.0.2.1", "192.0.2.2")
    assert found.private == (IPv4Network("192.0.2.0/24"), IPv4Network("10.0.0.0/16"))
    assert found.private6 == (IPv6Network("fd00:9::/64"),)
    assert (found.pool_device, found.default_pids, found.pool_size) == (Path("/dev/vdb"), 7, GIB)


@pytest.mark.parametrize(
    ("text", "size"),
    [("1024", 1024), ("1k", 1024), ("1.5 MiB", 1536 * 1024), ("20GB", 20 * GIB), ("2T", 2048 * GIB)],
)
def test_sizes_may_have_units(tmp_path: Path, text: str, size: int) -> None:
    assert read({"SKEP_ETC": str(tmp_path), "SKEP_DEFAULT_DISK": text}).default_disk == size


def test_the_database_lies_in_the_data_unless_it_is_named() -> None:
    assert Configuration(data=Path("/d")).database_url == "sqlite+aiosqlite:////d/skep.db"
    assert Configuration(database="postgresql+asyncpg://h/skep").database_url == "postgresql+asyncpg://h/skep"


def test_runs_are_kept_for_spans_of_time_or_for_ever(tmp_path: Path) -> None:
    found = read(write(tmp_path, "keep_runs: 12h\nkeep_failed_runs: 1.5d\nkeep_archived_runs: forever\n"))

    kept = found.retention
    assert (kept.keep, kept.keep_failed, kept.archived) == (12 * 3600, 36 * 3600, None)
    assert Configuration().retention.keep == 30 * 86_400


def test_installations_of_other_names_have_links_of_their_own_unless_they_say_which(tmp_path: Path) -> None:
    usual, other = read(write(tmp_path, "")), read(write(tmp_path, "instance: second\n"))
    said = read(write(tmp_path, "instance: second\nlinks: 10.9.0.0/16\n"))

    assert str(usual.links) == "100.100.0.0/16"
    assert not usual.links.overlaps(other.links)
    assert str(said.links) == "10.9.0.0/16"


def test_an_address_may_be_ipv6() -> None:
    assert Configuration(listen="[::1]:80").address == ("::1", 80)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pool_size: many\n", "pool_size"),
        ("pool_size: -1\n", "pool_size"),
        ("default_pids: several\n", "default_pids"),
        ("poolsize: 1GiB\n", "poolsize"),
        ("networks: 10.0.0.0/40\n", "networks"),
        ("links: here\n", "links"),
        ("listen: localhost\n", "listen"),
        ("listen: localhost:http\n", "listen"),
        ("dns: 5\n", "dns"),
        ("instance: ../etc\n", "instance"),
        ("keep_runs: 30\n", "keep_runs"),
        ("keep_failed_runs: a while\n", "keep_failed_runs"),
        ("metrics: everybody\n", "metrics"),
        ("unconfined_bundles: perhaps\n", "unconfined_bundles"),
        ("- a\n- b\n", "must be a mapping"),
        ("a: [\n", "skep.yaml"),
        ("data: 1\ndata: 2\n", "given twice"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(write(tmp_path, text))

    assert words in caught.value.message


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "skep.yaml").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(InvalidInput, match=r"Cannot read .*skep\.yaml"):
        read({"SKEP_ETC": str(tmp_path)})


def test_the_bus_is_the_url_of_a_broker(tmp_path: Path) -> None:
    assert read({"SKEP_ETC": str(tmp_path)}).bus == ""
    assert (
        read({"SKEP_ETC": str(tmp_path), "SKEP_BUS": "amqps://u:p%2F@h:5671/v"}).bus
        == "amqps://u:p%2F@h:5671/v"
    )


@pytest.mark.parametrize("url", ["http://u:sesame@h", "amqp://h", "amqp:/u:sesame@h", "u:sesame"])
def test_a_bus_that_is_none_is_refused_without_showing_its_password(tmp_path: Path, url: str) -> None:
    with pytest.raises(InvalidInput, match="bus: ") as caught:
        read({"SKEP_ETC": str(tmp_path), "SKEP_BUS": url})

    assert "sesame" not in str(caught.value)


def test_a_configuration_that_is_shown_shows_no_password(tmp_path: Path) -> None:
    found = Configuration(bus="amqp://u:sesame@h/", database="postgresql+asyncpg://u:sesame@h/")

    assert "sesame" not in f"{found} {found!r}"


@pytest.mark.parametrize(
    ("settings", "tls", "url"),
    [
        ({}, False, ""),
        ({"tls": "on"}, True, ""),
        ({"listen": "10.0.0.1:443"}, True, "https://10.0.0.1:443"),
        ({"listen": "10.0.0.1:443", "tls": "off"}, False, ""),
        ({"listen": "0.0.0.0:443"}, True, ""),
        ({"listen": "0.0.0.0:443", "public_host": "skep.example"}, True, "https://skep.example:443"),
        ({"listen": "[fd00::1]:443"}, True, "https://[fd00::1]:443"),
        ({"api_url": "https://skep.example/"}, False, "https://skep.example"),
        ({"listen": "localhost:1"}, False, ""),
    ],
)
def test_the_api_has_tls_everywhere_but_on_loopback(settings: dict[str, str], tls: bool, url: str) -> None:
    found = Configuration(**settings)  # type: ignore[arg-type]

    assert (found.uses_tls, found.url) == (tls, url)


@pytest.mark.parametrize("key", ["tls_certificate", "tls_key", "authority_certificate", "authority_key"])
def test_a_certificate_needs_its_key(tmp_path: Path, key: str) -> None:
    with pytest.raises(InvalidInput, match="one is nothing without the other"):
        read(write(tmp_path, f"{key}: /etc/file.pem\n"))


def test_a_bare_on_or_off_is_what_it_says(tmp_path: Path) -> None:
    assert read(write(tmp_path, "tls: on\n")).uses_tls
    assert not read(write(tmp_path, "tls: off\nlisten: 10.0.0.1:1\n")).uses_tls


def test_keys_and_tokens_that_the_operator_keeps_elsewhere_are_taken_from_there(tmp_path: Path) -> None:
    usual = read(write(tmp_path, ""))
    given = read(write(tmp_path, "installation_key: /keys/seal\nadmin_token: /keys/admin\n"))

    assert (usual.seal, usual.admin_token) == (tmp_path / "installation.key", None)
    assert (given.seal, given.admin_token) == (Path("/keys/seal"), Path("/keys/admin"))


def test_health_is_told_where_it_is_asked_for_alone(tmp_path: Path) -> None:
    assert read(write(tmp_path, "")).health_address is None
    assert read(write(tmp_path, "health: 0.0.0.0:7539\n")).health_address == ("0.0.0.0", 7539)
    with pytest.raises(InvalidInput, match="health"):
        read(write(tmp_path, "health: everywhere\n"))
