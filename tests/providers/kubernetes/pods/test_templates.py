"""The table of docs/decisions/0024, row by row: what a specification becomes in a pod."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest
from tests.providers.kubernetes.pods.specs import ALWAYS, NEVER, spec

from skep.model.errors import InvalidInput
from skep.model.host import ContainerFile, ContainerMount, FixedAddress
from skep.model.ids import Bytes, DiskId, Seconds
from skep.model.spec import HealthCheck, RestartPolicy, Ulimit
from skep.providers.kubernetes.joining.addressing import Plugin
from skep.providers.kubernetes.pods import addresses
from skep.providers.kubernetes.pods.probes import given_up_after
from skep.providers.kubernetes.pods.templates import Given, template

GIVEN = Given(image="registry/shop@sha256:aa", secret="shop-web", claim=lambda disk: f"disk-{disk}")
DISK = DiskId("01hd0000000000000002")


def pod(given: Given = GIVEN, **changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = template(spec(**changes), given)["spec"]
    return made


def main(given: Given = GIVEN, **changes: Any) -> dict[str, Any]:
    (container,) = pod(given, **changes)["containers"]
    found: dict[str, Any] = container
    return found


def test_arguments_are_passed_as_they_are() -> None:
    made = main(args=("sh", "-c", "echo $HOME $(date)"))

    assert made["command"] == ["sh", "-c", "echo $$HOME $$(date)"]
    assert "args" not in made
    assert made["image"] == "registry/shop@sha256:aa"


def test_the_environment_is_read_from_a_secret() -> None:
    made = main(environment={"KEY": "secret"})

    assert made["envFrom"] == [{"secretRef": {"name": "shop-web-env"}}]
    assert "secret'" not in str(made)
    assert "envFrom" not in main(environment={})


def test_the_working_directory_is_set() -> None:
    assert main(working_dir="/app")["workingDir"] == "/app"


@pytest.mark.parametrize(
    ("user", "image", "wanted"),
    [
        ("1000", "", {"runAsUser": 1000}),
        ("1000:2000", "", {"runAsUser": 1000, "runAsGroup": 2000}),
        ("root", "", {"runAsUser": 0}),
        ("", "", {}),
        ("node", "node", {}),
        ("node:node", "node:node", {}),
        ("1000", "1000", {"runAsUser": 1000}),
    ],
)
def test_users_are_numbers_and_what_the_image_says_is_left_to_it(
    user: str, image: str, wanted: dict[str, int]
) -> None:
    context = main(Given(image="i", image_user=image), user=user)["securityContext"]

    assert {key: value for key, value in context.items() if key.startswith("runAs")} == wanted


def test_further_groups_are_supplemental() -> None:
    assert pod(group_add=("27", "root"))["securityContext"]["supplementalGroups"] == [27, 0]


def test_limits_are_no_reservations() -> None:
    made = main(memory=Bytes(2**30), cpus=1.5)["resources"]
    reserved = main(memory=Bytes(2**30), memory_reservation=Bytes(2**29))["resources"]
    small = main(memory=Bytes(2**22), cpus=0.001)["resources"]

    assert made == {
        "limits": {"cpu": "1500m", "memory": str(2**30)},
        "requests": {"cpu": "10m", "memory": str(2**25)},
    }
    assert reserved["requests"] == {"cpu": "10m", "memory": str(2**29)}
    assert small["requests"] == {"cpu": "1m", "memory": str(2**22)}


def test_the_system_disk_is_a_limit_on_what_is_written_to_the_node() -> None:
    made = main(Given(image="i", system_size=Bytes(2**30)))["resources"]

    assert (made["limits"]["ephemeral-storage"], made["requests"]["ephemeral-storage"]) == (str(2**30), "0")


def test_capabilities_are_the_baseline_and_what_was_added_or_dropped() -> None:
    usual = main()["securityContext"]
    fewer = main(cap_drop=("ALL",), cap_add=("NET_BIND_SERVICE",))["securityContext"]
    without = main(cap_drop=("CAP_KILL",))["securityContext"]

    assert usual["capabilities"]["drop"] == ["ALL"]
    assert {"CHOWN", "SETUID", "KILL"} < set(usual["capabilities"]["add"])
    assert "NET_RAW" not in usual["capabilities"]["add"]
    assert fewer["capabilities"] == {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}
    assert "KILL" not in without["capabilities"]["add"]


def test_nothing_gets_more_than_it_had_and_nobody_talks_to_the_cluster() -> None:
    made = pod()

    assert made["securityContext"] == {"seccompProfile": {"type": "RuntimeDefault"}}
    assert made["containers"][0]["securityContext"]["allowPrivilegeEscalation"] is False
    assert (made["automountServiceAccountToken"], made["enableServiceLinks"]) == (False, False)


def test_safe_sysctls_are_set() -> None:
    made = pod(sysctls={"net.ipv4.tcp_syncookies": "1"})["securityContext"]

    assert made["sysctls"] == [{"name": "net.ipv4.tcp_syncookies", "value": "1"}]


def test_a_read_only_root_is_one() -> None:
    assert main(read_only=True)["securityContext"]["readOnlyRootFilesystem"] is True


def test_tmpfs_and_shared_memory_are_directories_in_memory() -> None:
    made = pod(mounts=(ContainerMount(target="/tmp", size=Bytes(4096)),), shm_size=Bytes(2**27))

    assert made["volumes"] == [
        {"name": "mount-0", "emptyDir": {"medium": "Memory", "sizeLimit": "4096"}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": str(2**27)}},
    ]
    assert [one["mountPath"] for one in made["containers"][0]["volumeMounts"]] == ["/tmp", "/dev/shm"]
    assert "volumes" not in pod()


def test_disks_are_claims_that_first_receive_what_the_image_has() -> None:
    mounts = (
        ContainerMount(target="/data", disk=DISK, copy_up=True),
        ContainerMount(target="/more", disk=DISK, read_only=True),
    )
    made = pod(mounts=mounts)

    claim = {"claimName": f"disk-{DISK}"}
    assert [one["persistentVolumeClaim"] for one in made["volumes"]] == [claim, claim]
    assert made["containers"][0]["volumeMounts"] == [
        {"name": "mount-0", "mountPath": "/data", "subPath": "data", "readOnly": False},
        {"name": "mount-1", "mountPath": "/more", "subPath": "data", "readOnly": True},
    ]
    (copy,) = made["initContainers"]
    assert (copy["image"], copy["command"][-1]) == ("registry/shop@sha256:aa", "/data")


def test_configs_and_secrets_are_files_of_a_secret_at_their_places() -> None:
    files = (
        ContainerFile(target="/etc/a", digest="sha256:aa", secret=False),
        ContainerFile(target="/run/b", digest="sha256:bb", secret=True, uid=7, mode=0o400),
    )
    made = pod(files=files)

    assert made["volumes"] == [
        {
            "name": "files",
            "secret": {
                "secretName": "shop-web-files",
                "items": [
                    {"key": "sha256-aa", "path": "0", "mode": 0o444},
                    {"key": "sha256-bb", "path": "1", "mode": 0o404},
                ],
            },
        }
    ]
    assert made["containers"][0]["volumeMounts"] == [
        {"name": "files", "mountPath": "/etc/a", "subPath": "0", "readOnly": True},
        {"name": "files", "mountPath": "/run/b", "subPath": "1", "readOnly": True},
    ]


def test_a_health_check_is_a_readiness_probe_and_ends_nothing() -> None:
    check = HealthCheck(test=("CMD-SHELL", "curl x"), interval=30, timeout=5, retries=3)
    made = main(healthcheck=check)

    assert made["readinessProbe"] == {
        "exec": {"command": ["/bin/sh", "-c", "curl x"]},
        "timeoutSeconds": 5,
        "periodSeconds": 30,
        "failureThreshold": 3,
    }
    assert {"livenessProbe", "startupProbe"}.isdisjoint(made)
    assert "readinessProbe" not in main(healthcheck=HealthCheck(test=("NONE",)))


def test_with_a_start_period_it_is_looked_at_more_often_and_is_as_patient() -> None:
    check = HealthCheck(test=("CMD", "x"), interval=30, retries=3, start_period=60, start_interval=5)

    probe = main(healthcheck=check)["readinessProbe"]

    assert (probe["periodSeconds"], probe["failureThreshold"]) == (5, 18)
    assert (given_up_after(check) or 0) > 60 + 3 * 30


def test_restart_policies_are_kubelets_or_skeps_own() -> None:
    assert pod(restart=ALWAYS)["restartPolicy"] == "Always"
    assert pod(restart=NEVER)["restartPolicy"] == "Never"
    assert pod(restart=RestartPolicy(condition="on-failure"))["restartPolicy"] == "Never"
    assert pod(restart=RestartPolicy(condition="always", max_attempts=3))["restartPolicy"] == "Never"


def test_the_grace_period_is_whole_seconds_and_never_none() -> None:
    assert pod(stop_grace_period=Seconds(2.5))["terminationGracePeriodSeconds"] == 3
    assert pod(stop_grace_period=Seconds(0.0))["terminationGracePeriodSeconds"] == 1


def test_another_stop_signal_is_sent_before_kubelet_sends_its_own() -> None:
    hook = main(stop_signal="SIGQUIT")["lifecycle"]["preStop"]["exec"]["command"]

    assert hook[2].startswith("kill -s QUIT 1;")
    assert "lifecycle" not in main(stop_signal="SIGTERM")


def test_a_terminal_and_an_open_input_are_had() -> None:
    both, one = main(tty=True), main(stdin_open=True)

    assert (both["tty"], both["stdin"], one["stdin"]) == (True, True, True)
    assert "tty" not in one


def test_extra_hosts_are_aliases() -> None:
    made = pod(extra_hosts={"a": "10.0.0.1", "b": "10.0.0.1", "c": "fd00::1"})

    assert made["hostAliases"] == [
        {"ip": "10.0.0.1", "hostnames": ["a", "b"]},
        {"ip": "fd00::1", "hostnames": ["c"]},
    ]


def test_labels_are_kept_as_they_were_written() -> None:
    made = template(spec(labels={"any thing": "at all"}), GIVEN)

    assert made["metadata"]["annotations"] == {"skep.dev/labels": '{"any thing": "at all"}'}


@pytest.mark.parametrize(
    ("plugin", "wanted"),
    [
        (
            Plugin.CALICO,
            {
                "cni.projectcalico.org/ipAddrs": '["10.9.0.7", "fd09::7"]',
                "cni.projectcalico.org/hwAddr": "02:00:00:00:00:01",
            },
        ),
        (
            Plugin.KUBE_OVN,
            {
                "ovn.kubernetes.io/ip_address": "10.9.0.7,fd09::7",
            },
        ),
    ],
)
def test_a_fixed_address_is_asked_for_as_the_network_plug_in_has_it(
    plugin: Plugin, wanted: dict[str, str]
) -> None:
    whole = FixedAddress(
        address=IPv4Address("10.9.0.7"), address6=IPv6Address("fd09::7"), mac="02:00:00:00:00:01"
    )
    asking = [spec(fixed=one) for one in (whole, FixedAddress(mac=whole.mac), None)]

    made = [addresses.asked(one, plugin) for one in asking]

    mac = {key: value for key, value in wanted.items() if value == whole.mac}
    assert made == [wanted, mac, {}]
    noted = template(asking[0], replace(GIVEN, annotations=made[0]))["metadata"]["annotations"]
    assert noted.items() >= wanted.items()


def test_an_address_that_nothing_gives_is_refused() -> None:
    with pytest.raises(InvalidInput, match="nothing in this cluster gives pods the address"):
        addresses.asked(spec(fixed=FixedAddress(address=IPv4Address("10.9.0.7"))), None)


def test_host_names_are_what_was_asked_for_where_a_pod_may_have_one() -> None:
    assert "hostname" not in pod()
    assert pod(hostname="shop")["hostname"] == "shop"
    assert pod(restart=NEVER)["hostname"] == "web-0"


def test_names_are_looked_up_where_pods_are_told_to() -> None:
    made = pod(Given(image="i", dns={"dnsPolicy": "None"}))

    assert made["dnsPolicy"] == "None"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"init": True}, "init"),
        ({"ulimits": {"nofile": Ulimit(soft=1, hard=1)}}, "ulimit 'nofile'"),
        ({"user": "node"}, "user 'node'"),
        ({"user": "1:wheel"}, "group 'wheel'"),
        ({"group_add": ("wheel",)}, "group 'wheel'"),
        ({"cap_add": ("SYS_ADMIN",)}, "SYS_ADMIN"),
        ({"cap_add": ("ALL",)}, "ALL"),
        ({"sysctls": {"kernel.msgmax": "1"}}, "kernel.msgmax"),
        ({"mounts": (ContainerMount(target="/x", path=Path("/srv")),)}, "/x is a path of the host"),
        ({"mounts": (ContainerMount(target="/x", mode=0o700),)}, "mode of /x"),
        ({"extra_hosts": {"h": "host-gateway"}}, "host-gateway"),
        ({"environment": {"A B": "x"}}, "'A B'"),
        ({"args": ()}, "no command"),
    ],
)
def test_what_a_cluster_cannot_do_is_refused_by_name(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        template(spec(**changes), GIVEN)
