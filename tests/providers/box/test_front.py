"""The way from the machine to the edges of a box."""

from ipaddress import IPv4Address
from pathlib import Path

from skep.providers.box.front import configuration
from skep.providers.local.edge.place import Place

HOSTS = [IPv4Address("198.18.0.11"), IPv4Address("198.18.0.12")]


def test_this_machine_alone_is_led_to_every_host() -> None:
    text = configuration(Place(Path("/run/box-edge")), (8080, 8443), HOSTS)

    assert "listen to_80\n    bind 127.0.0.1:8080\n    server host-1 198.18.0.11:80\n" in text
    assert "listen to_443\n    bind 127.0.0.1:8443\n    server host-1 198.18.0.11:443\n" in text
    assert text.count("server host-2 198.18.0.12:") == 2


def test_a_port_that_is_off_is_not_listened_on() -> None:
    text = configuration(Place(Path("/run/box-edge")), (8080, 0), HOSTS)

    assert text.count("bind ") == 1
