"""What the test cluster decides by itself."""

import json
import os
from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from dnslib import RCODE, DNSRecord
from tests.cluster.kubernetes import address_plugin, audit, build, dns, layout, snapshots, storage
from tests.cluster.kubernetes.__main__ import kubectl_words
from tests.cluster.kubernetes.layout import DEFAULT_NAME, Layout
from tests.cluster.kubernetes.machine import Machine
from tests.cluster.kubernetes.progress import Failed
from tests.cluster.kubernetes.shared import name_for
from tests.cluster.kubernetes.source import source_entries

KEYRING = Path("/usr/share/keyrings/debian.gpg")


def test_sources_come_from_where_packages_come_from() -> None:
    targets = (
        "Packages|Debian|http://mirror/debian/|bookworm|main\n"
        "Translations|Debian|http://mirror/debian/|bookworm|main\n"
        "Packages|Debian|http://mirror/debian/|bookworm|contrib\n"
        "Packages|Somebody|http://elsewhere/apt/|stable|main\n"
    )

    assert source_entries(targets, KEYRING) == (
        f"deb-src [signed-by={KEYRING}] http://mirror/debian/ bookworm main\n"
    )


@pytest.mark.parametrize(
    ("words", "name", "forwarded"),
    [
        (["get", "pods", "--name=x"], None, ["get", "pods", "--name=x"]),
        (["--namespace", "a", "get", "pods"], None, ["--namespace", "a", "get", "pods"]),
        (["--name", "mine", "--namespace=a", "get", "pods"], "mine", ["--namespace=a", "get", "pods"]),
        (["--name=mine", "--help"], "mine", ["--help"]),
        ([], None, []),
    ],
)
def test_kubectl_has_all_words_but_the_name_of_a_cluster_in_front(
    words: list[str], name: str | None, forwarded: list[str]
) -> None:
    assert kubectl_words(words) == (name, forwarded)


def test_definitions_that_were_not_written_to_their_end_are_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instead of Go's programs: a generator that is killed the first time."""
    work, tree = tmp_path / "work", tmp_path / "gopath/src/k8s.io/kubernetes"
    for folder in ("pkg/generated/openapi", "pkg/apis", "cmd", "plugin", "vendor/k8s.io/api"):
        (tree / folder).mkdir(parents=True)
    (tree / "pkg/apis/doc.go").write_text("// +k8s:openapi-gen=true\npackage apis\n")
    made = tree / "pkg/generated/openapi/zz_generated.openapi.go"
    ends = iter((Failed("killed"), None))

    def generator(command: Sequence[str | Path], *_: object) -> None:
        base = Path(command[command.index("-o") + 1], "k8s.io/kubernetes/pkg/generated/openapi")
        base.mkdir(parents=True, exist_ok=True)
        end = next(ends)
        (base / made.name).write_text("" if end else "whole")
        if end:
            raise end

    monkeypatch.setattr(build, "_go", lambda *_: None)
    monkeypatch.setattr(build, "run_long", generator)

    with pytest.raises(Failed):
        build._generate(work, tmp_path / "gopath")
    left = made.exists()
    build._generate(work, tmp_path / "gopath")

    assert not left
    assert made.read_text() == "whole"


def test_clusters_of_different_numbers_share_no_address() -> None:
    one, other = Layout("one", 0), Layout("other", 1)

    for network in ("underlay", "pods", "services"):
        assert not getattr(one, network).overlaps(getattr(other, network))
    assert len({one.address(machine) for machine in one.machines}) == 4


def test_processes_that_share_the_tests_have_a_cluster_each_and_one_of_them_that_of_a_process_alone() -> None:
    names = [name_for(worker) for worker in ("", "gw0", "gw1", "gw12")]

    assert names == [DEFAULT_NAME, DEFAULT_NAME, f"{DEFAULT_NAME}1", f"{DEFAULT_NAME}12"]


def test_a_file_of_a_machine_that_is_as_it_shall_be_is_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "STATE", tmp_path)
    machine = Machine(Layout("one", 0), "node-1")
    machine.write("/var/lib/file", b"so")
    file = machine.disk / "lib/file"
    os.utime(file, (1, 1))

    machine.write("/var/lib/file", b"so")
    as_before = file.stat().st_mtime
    machine.write("/var/lib/file", b"otherwise")

    assert as_before == 1
    assert file.read_bytes() == b"otherwise"


def test_an_address_is_a_pods_while_there_is_a_route_to_it_alone() -> None:
    routes = (
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
        "vethc80a3dda\t15C8400A\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n"
        "eth0\t00C8400A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    )
    addresses = ("10.64.200.21", "10.64.200.22", "10.64.200.0")

    found = [address_plugin.has_route(IPv4Address(one).packed, routes) for one in addresses]

    assert found == [True, False, False]


def test_names_of_wires_fit_into_the_kernel() -> None:
    largest = Layout("large", 63, nodes=99)

    assert max(len(largest.wire(machine)) for machine in (*largest.machines, "host")) <= 15


def test_a_claim_gets_a_volume_once_its_pod_has_a_node() -> None:
    waiting, placed = _claim("1"), _claim("2", node="node-2")

    (action,) = storage.actions([waiting, placed], [])

    assert isinstance(action, storage.Provision)
    assert action.node == "node-2"
    assert action.volume["spec"]["claimRef"]["uid"] == "2"


def test_a_claim_that_has_its_volume_is_left_alone_until_it_wants_more() -> None:
    kept, growing = _claim("1", node="node-1", has="1Gi"), _claim("2", "2Gi", node="node-1", has="1Gi")

    found = list(storage.actions([kept, growing], [_volume("1", "Bound"), _volume("2", "Bound")]))

    path = "/api/v1/namespaces/shop/persistentvolumeclaims/claim-2"
    assert found == [storage.Grow(path, "pvc-2", "2Gi")]


def test_a_volume_that_was_released_is_removed_from_its_node() -> None:
    found = list(storage.actions([], [_volume("1", "Released"), _volume("2", "Bound")]))

    assert found == [storage.Remove("node-1", "pvc-1")]


def test_claims_and_volumes_of_other_classes_are_left_alone() -> None:
    claim, volume = _claim("1", node="node-1"), _volume("2", "Released")
    claim["spec"]["storageClassName"] = "fast"
    volume["metadata"]["annotations"] = {}

    assert list(storage.actions([claim], [volume])) == []


def test_a_claim_of_a_snapshot_waits_for_it_and_begins_with_its_copy() -> None:
    claim = _claim("2", node="node-2")
    claim["spec"]["dataSource"] = {"apiGroup": snapshots.GROUP, "kind": "VolumeSnapshot", "name": "kept"}
    waiting = snapshots.contents_by_claim([claim], [_snapshot()])
    kept = snapshots.contents_by_claim([claim], [_snapshot(ready=True)])

    (action,) = storage.actions([claim], [], kept)

    assert list(storage.actions([claim], [], waiting)) == []
    assert isinstance(action, storage.Provision)
    assert action.content == "snapcontent-s1"


def test_a_snapshot_is_held_then_copied_and_forgotten_when_nothing_is_made_of_it_any_more() -> None:
    claim, volume = _claim("1", has="1Gi"), _volume("1", "Bound")
    claim["spec"]["volumeName"], claim["status"]["phase"] = "pvc-1", "Bound"
    user = _claim("2")
    user["spec"]["dataSource"] = {"kind": "VolumeSnapshot", "name": "kept"}

    new = _kept(_snapshot(finalizers=[]), claim, volume)
    held = _kept(_snapshot(), claim, volume)
    done = _kept(_snapshot(ready=True), claim, volume)
    used = _kept(_snapshot(ready=True, deletionTimestamp="now"), claim, user, volume)
    gone = _kept(_snapshot(ready=True, deletionTimestamp="now"), claim, volume)

    path = "/apis/snapshot.storage.k8s.io/v1/namespaces/shop/volumesnapshots/kept"
    assert new == [snapshots.Hold(path)]
    (copied,) = held
    assert isinstance(copied, snapshots.Copy)
    assert (copied.node, copied.volume, copied.size) == ("node-1", "pvc-1", "1Gi")
    assert copied.content["spec"]["volumeSnapshotRef"]["uid"] == "s1"
    assert (done, used) == ([], [])
    assert gone == [snapshots.Forget(path, "snapcontent-s1", keep=False)]


def test_a_snapshot_of_what_is_not_bound_says_so_once() -> None:
    (refused,) = _kept(_snapshot(), _claim("1"))
    assert isinstance(refused, snapshots.Refuse)

    told = _snapshot()
    told["status"] = {"error": {"message": refused.why}}

    assert "not bound" in refused.why
    assert _kept(told, _claim("1")) == []


def test_a_service_is_called_by_its_address_and_a_headless_one_by_those_of_its_pods() -> None:
    web = _service("web", clusterIP="10.128.0.7")
    db = _service("db", clusterIP="None")
    addresses = [{"ip": "10.64.1.2", "hostname": "db-0"}, {"ip": "10.64.2.2"}]
    pods = db | {"subsets": [{"addresses": addresses, "notReadyAddresses": [{"ip": "10.64.2.3"}]}]}

    assert dns.names([web, db], [pods]) == {
        "web.shop.svc.cluster.local": ("10.128.0.7",),
        "db.shop.svc.cluster.local": ("10.64.1.2", "10.64.2.2"),
        "db-0.db.shop.svc.cluster.local": ("10.64.1.2",),
    }


def test_a_host_name_of_several_endpoints_has_all_their_addresses_in_whatever_order() -> None:
    shop = _service("shop", clusterIP="None")
    addresses = [
        {"ip": ip, "hostname": name} for name in ("web", "front") for ip in ("10.64.1.2", "10.64.2.2")
    ]

    known = dns.names([shop], [shop | {"subsets": [{"addresses": addresses}]}])
    answers = {
        tuple(dns.answer(DNSRecord.question("web.shop.shop.svc.cluster.local."), known).short().split())
        for _ in range(50)
    }

    assert known["shop.shop.svc.cluster.local"] == ("10.64.1.2", "10.64.2.2")
    assert answers == {("10.64.1.2", "10.64.2.2"), ("10.64.2.2", "10.64.1.2")}


def test_names_that_are_not_of_the_cluster_do_not_exist() -> None:
    known = {"web.shop.svc.cluster.local": ("10.128.0.7",)}

    found = dns.answer(DNSRecord.question("web.shop.svc.cluster.local."), known)
    other = dns.answer(DNSRecord.question("web.shop.svc.cluster.local.", "AAAA"), known)
    absent = dns.answer(DNSRecord.question("web."), known)

    assert str(found.short()) == "10.128.0.7"
    assert (other.header.rcode, other.rr) == (RCODE.NOERROR, [])
    assert absent.header.rcode == RCODE.NXDOMAIN


def _service(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "shop", "name": name}, "spec": {"type": "ClusterIP"} | spec}


def _claim(uid: str, size: str = "1Gi", *, node: str = "", has: str = "") -> dict[str, Any]:
    notes = {"volume.kubernetes.io/selected-node": node} if node else {}
    return {
        "metadata": {"name": f"claim-{uid}", "namespace": "shop", "uid": uid, "annotations": notes},
        "spec": {
            "storageClassName": storage.CLASS,
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}},
        },
        "status": {"capacity": {"storage": has}} if has else {},
    }


def _volume(uid: str, phase: str) -> dict[str, Any]:
    (made,) = storage.actions([_claim(uid, node="node-1")], [])
    assert isinstance(made, storage.Provision)
    return made.volume | {"status": {"phase": phase}}


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"verb": "list", "objectRef": {"resource": "pods"}, "requestURI": "/api/v1/pods"}, "list pods"),
        ({"verb": "get", "objectRef": {"resource": "pods", "subresource": "log"}}, "get pods/log"),
        ({"verb": "get", "requestURI": "/version?timeout=5s"}, "get /version"),
    ],
)
def test_requests_are_counted_by_what_was_done_to_what(event: dict[str, Any], words: str) -> None:
    assert audit.called(event) == words


def test_only_requests_since_the_mark_are_counted(tmp_path: Path) -> None:
    machine = Machine(Layout("t", 0), "control")
    machine.folder = tmp_path
    log = tmp_path / "var/log/audit.jsonl"
    log.parent.mkdir(parents=True)
    before = json.dumps({"verb": "list", "objectRef": {"resource": "nodes"}}) + "\n"
    log.write_text(before)
    counted = audit.Audit(machine)

    log.write_text(before + json.dumps({"verb": "get", "requestURI": "/version"}) + '\n{"verb": "ge')

    assert counted.requests() == {"get /version": 1}


def _kept(snapshot: dict[str, Any], *things: dict[str, Any]) -> list[snapshots.Action]:
    claims = [one for one in things if one.get("kind") != "PersistentVolume"]
    volumes = [one for one in things if one.get("kind") == "PersistentVolume"]
    return list(snapshots.actions([snapshot], [snapshots.snapshot_class()], claims, volumes))


def _snapshot(*, ready: bool = False, **metadata: Any) -> dict[str, Any]:
    meta = {"name": "kept", "namespace": "shop", "uid": "s1", "finalizers": ["held"]}
    status = {"readyToUse": True, "boundVolumeSnapshotContentName": "snapcontent-s1"}
    return {
        "metadata": meta | metadata,
        "spec": {"volumeSnapshotClassName": "local-path", "source": {"persistentVolumeClaimName": "claim-1"}},
        "status": status if ready else {},
    }
