"""What the rules of security groups mean."""

from ipaddress import IPv4Address, ip_address

import msgspec
import pytest

from skep.model.errors import InvalidInput
from skep.model.groups import Flow, GroupRule, admits, check_service, restricts, settled

WEB = Flow(
    direction="ingress",
    remote=IPv4Address("10.0.0.7"),
    protocol="tcp",
    port=80,
    remote_groups=frozenset({"web"}),
)


@pytest.mark.parametrize(
    ("rule", "admitted"),
    [
        (GroupRule(), True),
        (GroupRule(protocol="tcp"), True),
        (GroupRule(protocol="udp"), False),
        (GroupRule(protocol="tcp", ports="80"), True),
        (GroupRule(protocol="tcp", ports="81-90"), False),
        (GroupRule(cidr="10.0.0.0/29"), True),
        (GroupRule(cidr="10.0.0.0/30"), False),
        (GroupRule(group="web"), True),
        (GroupRule(group="db"), False),
        (GroupRule(direction="egress"), False),
    ],
)
def test_a_rule_admits_what_it_says(rule: GroupRule, admitted: bool) -> None:
    assert (admits({"db": [rule]}, WEB) is not None) == admitted


def test_the_group_and_the_rule_that_admit_are_named() -> None:
    refuses, lets = GroupRule(protocol="icmp"), GroupRule(protocol="tcp", ports="80")

    assert admits({"a": [refuses], "b": [refuses, lets]}, WEB) == ("b", lets)
    assert str(lets) == "ingress tcp 80 from anybody"


def test_without_a_protocol_anything_that_is_admitted_counts() -> None:
    anything = msgspec.structs.replace(WEB, protocol="", port=0)

    assert admits({"db": [GroupRule(protocol="udp", ports="53")]}, anything)
    assert not admits({"db": [GroupRule(cidr="192.0.2.0/24")]}, anything)


def test_only_rules_for_egress_restrict_what_goes_out() -> None:
    assert restricts([], "ingress")
    assert not restricts([GroupRule()], "egress")
    assert restricts([GroupRule(direction="egress")], "egress")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (GroupRule(protocol="tcp", ports="0"), "from 1 to 65535"),
        (GroupRule(protocol="tcp", ports="90-80"), "FIRST-LAST"),
        (GroupRule(protocol="tcp", ports="http"), "'http'"),
        (GroupRule(protocol="icmp", ports="8"), "has no ports"),
        (GroupRule(ports="80"), "has no ports"),
        (GroupRule(cidr="10.0.0.1/24"), "host bits"),
        (GroupRule(cidr="fd00::1/64"), "write it like|Write it like"),
        (GroupRule(cidr="10.0.0.0/8", group="web"), "not both"),
    ],
)
def test_what_cannot_be_is_refused_in_words_that_help(rule: GroupRule, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        settled(rule)


def test_equal_rules_are_the_same_rule_however_they_are_written() -> None:
    plain = settled(GroupRule(protocol="tcp", ports="80"))

    assert settled(GroupRule(protocol="tcp", ports="80-80", cidr="0.0.0.0/0")) == plain
    assert settled(GroupRule(protocol="tcp", ports="080")).id == plain.id


@pytest.mark.parametrize(("protocol", "port"), [("sctp", 1), ("icmp", 8), ("tcp", 0), ("udp", 65536)])
def test_nothing_listens_where_no_port_is(protocol: str, port: int) -> None:
    with pytest.raises(InvalidInput):
        check_service(protocol, port)


@pytest.mark.parametrize(
    ("cidr", "remote", "admitted"),
    [
        ("", "fd00::5", True),
        ("", "10.0.0.5", True),
        ("0.0.0.0/0", "fd00::5", True),
        ("10.0.0.0/8", "fd00::5", False),
        ("fd00::/64", "fd00::5", True),
        ("fd00::/64", "10.0.0.5", False),
        ("::/0", "10.0.0.5", False),
    ],
)
def test_a_rule_speaks_of_the_family_of_its_cidr_or_of_both(cidr: str, remote: str, admitted: bool) -> None:
    rule = settled(GroupRule(cidr=cidr))
    flow = Flow(direction="ingress", remote=ip_address(remote), protocol="tcp", port=80)

    assert bool(admits({"web": (rule,)}, flow)) is admitted
