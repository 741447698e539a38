"""Services that cannot run together."""

import pytest
import yaml
from tests.compose.conftest import Load

from skep.compose import ComposeError, to_app_spec
from skep.model.spec import AppNetwork, AppSubnet, AppVolume


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{a: {depends_on: [b]}, b: {depends_on: [c]}, c: {depends_on: [b]}, d: {}}", "circle: b → c → b"),
        ("{a: {depends_on: [a]}}", "circle: a → a"),
        ("{a: {depends_on: [b]}}", "there is no service 'b'"),
        ("{a: {ports: ['80:1']}, b: {ports: ['127.0.0.1:80:2']}}", "published by the service a already"),
        ("{a: {ports: ['80:1', '80:2']}}", "services.a.ports[1]: port 80/tcp is published"),
        ("{a: {networks: &n {default: {ipv4_address: 10.0.0.9}}}, b: {networks: *n}}",
         "belongs to the service a already"),
        ("{a: {depends_on: {b: {condition: service_healthy}}}, b: {healthcheck: {disable: on}}}", "never"),
        ("{a: {configs: [c]}}", "the config 'c' is not defined"),
        ("{a: {secrets: [s]}}", "the secret 's' is not defined"),
        ("{A: {}}", "'A' is not a valid name"),
        ("{a: {links: ['b:x']}}", "there is no service 'b'"),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused(load: Load, text: str, words: str) -> None:
    with pytest.raises(ComposeError) as caught:
        load(_with_images(text))

    assert words in caught.value.message


def _with_images(services: str) -> str:
    """The cases stay short: every service gets an image here."""
    made = {name: {"image": "x", **body} for name, body in yaml.safe_load(services).items()}
    return yaml.safe_dump({"services": made}, sort_keys=False)


def test_ports_on_different_addresses_and_protocols_live_together(load: Load) -> None:
    load("services: {a: {image: x, ports: ['127.0.0.1:80:1', '127.0.0.2:80:1', '80:1/udp']}}")


def test_all_problems_are_told_at_once_in_order(load: Load) -> None:
    with pytest.raises(ComposeError) as caught:
        load("services:\n  a:\n    image: x\n    cap_add: [FLY]\n    stop_signal: X\n  b:\n    hostname: b\n")

    assert [position.line for position, _ in caught.value.errors] == [4, 5, 6]
    assert len(caught.value.message.splitlines()) == 3


def test_waiting_for_health_without_a_check_is_warned_about(load: Load) -> None:
    text = "services: {a: {image: x, depends_on: {b: {condition: service_healthy}}}, b: {image: x}}"

    assert "services.a.depends_on.b: b has no healthcheck here" in str(load(text).warnings[0])


def test_dependencies_that_are_not_required_may_be_missing(load: Load) -> None:
    text = "services: {a: {image: x, depends_on: {b: {condition: service_started, required: false}}}}"

    assert load(text).services["a"].spec.depends_on == {}
    assert "left out" in str(load(text).warnings[0])


def test_resources_of_the_project(load: Load) -> None:
    text = """services:
  a: {image: x, networks: [n, e, f, w, s, six], volumes: ['v:/v', 'o:/o', 'e:/e']}
networks:
  n:
    internal: true
    labels: [a=b]
    ipam: {config: [{subnet: 10.9.0.0/16, gateway: 10.9.0.1}]}
  e: {external: true, name: theirs}
  f: {external: true, name: acme/back}
  w: {ipam: {config: [{subnet: 10.8.0.0/24}, {subnet: 10.7.0.0/24, gateway: 10.7.0.9}]}}
  s: {ipam: {config: [{subnet: 'fd00:1::/64', gateway: 'fd00:1::9'}, {subnet: 10.6.0.0/24}]}}
  six: {enable_ipv6: true}
  unused: {driver: macvlan}
volumes:
  v: {x-skep: {size: 10g}}
  o: {driver: local, driver_opts: {size: 5g}}
  e: {external: {name: disk}}
"""
    project = load(text)

    assert project.networks == {
        "n": AppNetwork(subnet="10.9.0.0/16", gateway="10.9.0.1", internal=True, labels={"a": "b"}),
        "e": AppNetwork(external="theirs"),
        "f": AppNetwork(external="acme/back"),
        "s": AppNetwork(
            subnet="10.6.0.0/24", subnets=(AppSubnet(subnet="fd00:1::/64", gateway="fd00:1::9"),)
        ),
        "six": AppNetwork(enable_ipv6=True),
        "w": AppNetwork(subnet="10.8.0.0/24", subnets=(AppSubnet(subnet="10.7.0.0/24", gateway="10.7.0.9"),)),
    }
    assert project.volumes == {
        "v": AppVolume(size=10 << 30),
        "o": AppVolume(size=5 << 30),
        "e": AppVolume(external="disk"),
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("volumes: {v: {driver: nfs}}", "volumes.v.driver: the driver 'nfs'"),
        ("volumes: {v: {driver_opts: {device: /dev/sda}}}", "not mounted"),
        ("volumes: {v: {x-skep: {sice: 1g}}}", "unknown key 'sice'"),
        ("volumes: {v: {x-skep: {size: -1}}}", "no size"),
        ("networks: {n: {driver: macvlan}}", "the driver 'macvlan'"),
        ("networks: {n: {ipam: {config: [{subnet: 10.0.0.1/24}]}}}", "no subnet"),
        ("networks: {n: {ipam: {config: [{subnet: 10.0.0.0/31}]}}}", "from /8 to /29"),
        (
            "networks: {n: {ipam: {config: [{subnet: 10.0.0.0/24, gateway: 10.1.0.1}]}}}",
            "no address of a machine",
        ),
        (
            "networks: {n: {ipam: {config: [{subnet: 10.0.0.0/24}, {subnet: 10.0.0.128/25}]}}}",
            "10.0.0.128/25 overlaps 10.0.0.0/24",
        ),
        (
            "networks: {n: {ipam: {config: [{subnet: 'fd00:1::/64'}, {subnet: 'fd00:2::/64'}]}}}",
            "one IPv6 subnet",
        ),
        ("networks: {n: {ipam: {config: [{subnet: 'fd00:1::/127'}]}}}", "from /32 to /120"),
        ("networks: {n: {enable_ipv4: false}}", "enable_ipv4 is not supported"),
        ("configs: {c: {external: true}}", "external is not supported"),
        ("networks: {n: {external: true, name: a/b/c}}", "is no valid name"),
        ("volumes: {v: {external: true, name: a/b}}", "is no valid name"),
        ("configs: {c: {}}", "exactly one of file, environment or content"),
        ("configs: {c: {file: a, content: b}}", "exactly one of"),
        ("configs: {c: {environment: GONE}}", "GONE is not set"),
        ("configs: {c: {content: x, template_driver: golang}}", "template_driver is not supported"),
    ],
)
def test_resources_that_cannot_be_made_are_refused(load: Load, text: str, words: str) -> None:
    service = "{image: x, networks: [n], volumes: ['v:/v'], configs: [c]}"
    rest = {"networks": "{n: }", "volumes": "{v: }", "configs": "{c: {content: x}}"}
    rest.pop(text.split(":")[0])
    others = "\n".join(f"{key}: {value}" for key, value in rest.items())

    with pytest.raises(ComposeError) as caught:
        load(f"services: {{a: {service}}}\n{text}\n{others}")

    assert words in caught.value.message


def test_an_image_that_was_not_built_cannot_be_released(load: Load) -> None:
    project = load("services:\n  a: {build: .}", files={"Dockerfile": "FROM scratch"})

    assert to_app_spec(project, {"a": "shop/a:1"}).services["a"].image == "shop/a:1"  # type: ignore[index]
    with pytest.raises(ComposeError, match=r"compose.yaml:2: services.a: its image has not been built"):
        to_app_spec(project, {})
