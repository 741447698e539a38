"""The usual question and answer in bytes say what dnslib says; what is unusual is left to it."""

from ipaddress import IPv4Address

import pytest
from dnslib import EDNS0, QTYPE, DNSHeader, DNSQuestion, DNSRecord
from hypothesis import given
from hypothesis import strategies as st
from tests.providers.network.conftest import network, port

from skep.model.host import NetworkConfig
from skep.providers.local.network import wire
from skep.providers.local.network.directory import Directory
from skep.providers.local.network.dns import answer, usual_answer

NET = network()
WEB = [port(NET, 10 + number, "shop", ("web", f"web-{number}")) for number in range(20)]
DOWN = port(NET, 40, "shop", ("db", "db-0"))
ASKER = WEB[0].address


def directory() -> Directory:
    made = Directory(lambda replica: replica != DOWN.replica)
    for one in (*WEB, DOWN):
        made.add(one)
    return made


def asked(name: str, kind: str = "A", size: int | None = None) -> bytes:
    query = DNSRecord.question(name, kind)
    if size is not None:
        query.add_ar(EDNS0(udp_len=size))
    return bytes(query.pack())


def shown(packet: bytes) -> tuple[object, ...]:
    """All of a reply, whatever the order of its records."""
    reply = DNSRecord.parse(packet)
    records = sorted((str(one.rname), one.rtype, one.ttl, str(one.rdata)) for one in reply.rr)
    return str(reply.header), str(reply.q), records, [str(one) for one in reply.ar]


@pytest.mark.parametrize("size", [None, 512, 1232, 4096])
@pytest.mark.parametrize("kind", ["A", "AAAA"])
@pytest.mark.parametrize("name", ["web-1", "Web-1.Shop", "db", "db.shop", "nobody", "web"])
@pytest.mark.parametrize("net", [NET, network(internal=True)], ids=["open", "internal"])
def test_the_usual_question_is_answered_as_dnslib_does(
    net: NetworkConfig, name: str, kind: str, size: int | None
) -> None:
    packet, known = asked(name, kind, size), directory()

    usual = usual_answer(packet, ASKER, net, known)

    slow = answer(DNSRecord.parse(packet), ASKER, net, known)
    assert slow is not None
    if usual is None:
        assert len(slow.pack()) > 300  # many addresses, which may not fit
    else:
        assert shown(usual) == shown(bytes(slow.pack()))


def test_the_world_outside_and_what_is_unusual_are_left_to_others() -> None:
    mail, other_class = asked("web", "MX"), DNSRecord(q=DNSQuestion("web", QTYPE.A, 3)).pack()
    reply = DNSRecord(DNSHeader(qr=1), q=DNSQuestion("web")).pack()
    reverse = asked("2.0.1.10.in-addr.arpa")

    for packet in (mail, other_class, reply, reverse, asked("example.com"), asked("ein\\032name"), b""):
        assert usual_answer(bytes(packet), ASKER, NET, directory()) is None


def test_what_does_not_fit_is_not_cut_here() -> None:
    packet = asked("web")
    many = [IPv4Address("10.0.0.0") + number for number in range(60)]

    found = wire.question(packet)

    assert found is not None
    assert wire.answer(found, many, 5) is None


@given(st.binary(max_size=80))
def test_whatever_comes_is_no_error(packet: bytes) -> None:
    found = wire.question(packet)

    assert found is None or found.text in packet


@given(st.binary(max_size=60))
def test_a_question_with_anything_behind_it_is_no_error(rest: bytes) -> None:
    packet = asked("web")[:-5] + rest

    wire.question(packet)
    wire.question(asked("web", size=1232)[:-4] + rest)
