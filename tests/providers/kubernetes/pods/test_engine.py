"""What is promised of containers in a cluster beyond what every engine promises."""

import asyncio
import json
from typing import Any

import msgspec
import pytest
from tests.providers.kubernetes.yard import ALWAYS, Yard

from skep.model.errors import NotFound, Unavailable
from skep.model.host import (
    ContainerFile,
    ContainerMount,
    ContainerSpec,
    ContainerState,
    ExecSpec,
)
from skep.model.ids import DiskId, Seconds, new_id
from skep.providers.kubernetes.pods.engine import ClusterEngine

pytestmark = [pytest.mark.root, pytest.mark.kubernetes, pytest.mark.timeout(900)]
SLEEP = ("/bin/sleep", "1000")


def replicas(place: Yard, count: int) -> list[ContainerSpec]:
    return [
        place.spec(*SLEEP, restart=ALWAYS, name=f"shop/web-{number}", hostname=f"web-{number}")
        for number in range(count)
    ]


async def started(engine: ClusterEngine, specs: list[ContainerSpec]) -> None:
    await asyncio.gather(*(engine.start(spec) for spec in specs))
    await asyncio.gather(*(engine.wait_ready(spec.id) for spec in specs))


def listed(place: Yard, kind: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads(place.kubectl("get", kind, "--output=json"))["items"]
    return items


def pods_of(place: Yard) -> dict[str, str]:
    """Containers with their pods."""
    return {
        pod["metadata"]["labels"].get("skep.dev/container", "?"): pod["metadata"]["name"]
        for pod in listed(place, "pods")
        if "deletionTimestamp" not in pod["metadata"]
    }


def ledgers(place: Yard) -> list[str]:
    found = json.loads(place.kubectl("get", "configmaps", "--selector=skep.dev/carrier", "--output=json"))
    return [one["metadata"]["uid"] for one in found["items"]]


def budgets(place: Yard) -> list[str]:
    return [one["metadata"]["name"] for one in listed(place, "poddisruptionbudgets")]


async def until(holds: Any) -> None:
    """Looked at in a thread: kubectl would keep the engine from hearing anything."""
    async with asyncio.timeout(120):
        while not await asyncio.to_thread(holds):
            await asyncio.sleep(0.5)


async def told_apart(place: Yard) -> dict[str, str]:
    """The same, once all bear their names: what runs is told soon after it does."""
    await until(lambda: "?" not in pods_of(place))
    return pods_of(place)


async def test_replicas_of_a_revision_are_one_deployment_of_which_exactly_the_asked_for_ends(
    engine: ClusterEngine, place: Yard
) -> None:
    specs = replicas(place, 4)
    await started(engine, specs)
    (deployment,) = listed(place, "deployments")
    before = await told_apart(place)

    await engine.stop(specs[1].id, 0.1)
    (smaller,) = listed(place, "deployments")
    states = [(await engine.inspect(spec.id)).state for spec in specs]
    await until(lambda: len(pods_of(place)) == 3)
    kept = pods_of(place)
    await engine.start(specs[1])
    again = (await engine.inspect(specs[1].id)).state
    await asyncio.gather(*(engine.remove(spec.id) for spec in specs))

    assert (deployment["spec"]["replicas"], smaller["spec"]["replicas"]) == (4, 3)
    assert set(before) == {spec.id for spec in specs}
    assert kept == {key: pod for key, pod in before.items() if key != specs[1].id}
    assert [state.value for state in states] == ["running", "exited", "running", "running"]
    assert again is ContainerState.RUNNING
    assert await engine.list() == []
    await until(lambda: not listed(place, "deployments") + listed(place, "secrets,configmaps,pods")[2:])


async def test_no_further_pod_begins_while_the_only_one_ends(engine: ClusterEngine, place: Yard) -> None:
    """The image's own command takes its time to end."""
    (spec,) = replicas(place, 1)
    await started(engine, [spec])
    await told_apart(place)

    await engine.stop(spec.id, 1)

    made = [one for one in listed(place, "events") if one["reason"] == "SuccessfulCreate"]
    assert len(made) == 1
    assert (await engine.inspect(spec.id)).state is ContainerState.EXITED


async def test_another_process_knows_all_of_it(place: Yard) -> None:
    specs = replicas(place, 2)
    gone = place.spec("/bin/sh", "-c", "echo well; exit 3", name="shop/job-0")
    async with place.engine() as first:
        await started(first, specs)
        await first.stop(specs[1].id, 0.1)
        await first.start(gone)
        await first.wait_exit(gone.id)
        known = {status.id: status for status in await first.list()}

    async with place.engine() as second:
        found = {status.id: status for status in await second.list()}
        said = [line.text async for line in second.logs(gone.id)]
        await second.start(specs[1])
        await second.wait_ready(specs[1].id)
        with pytest.raises(Unavailable, match="exited with 3"):
            await second.wait_ready(gone.id)

    assert found == known
    assert said == ["well"]


async def test_a_start_that_was_cut_short_is_made_whole_by_the_next(place: Yard) -> None:
    (spec,) = replicas(place, 1)
    async with place.engine() as first:
        await started(first, [spec])
    place.kubectl("delete", "secrets", "--selector=skep.dev/carrier")
    place.kubectl("delete", "pods", "--all", "--grace-period=1")

    async with place.engine() as second, asyncio.timeout(120):
        await started(second, [spec])
        states = [status.state for status in await second.list()]

    assert states == [ContainerState.RUNNING]


async def test_what_others_delete_or_change_is_mended(engine: ClusterEngine, place: Yard) -> None:
    specs = replicas(place, 2)
    await started(engine, specs)
    before = await told_apart(place)

    place.kubectl("delete", "pod", before[specs[0].id], "--wait=false", "--grace-period=1")
    await until(lambda: pods_of(place).get(specs[0].id) not in (None, before[specs[0].id]))
    await engine.wait_ready(specs[0].id)
    name = listed(place, "deployments")[0]["metadata"]["name"]
    place.kubectl("scale", "deployment", name, "--replicas=1")
    await until(lambda: listed(place, "deployments")[0]["spec"]["replicas"] == 2)
    place.kubectl("delete", "deployment", name, "--wait=false")
    await until(lambda: [one["metadata"]["name"] for one in listed(place, "deployments")] == [name])
    await until(lambda: len(pods_of(place)) == 2)
    await until(lambda: budgets(place) == ["shop.web"])
    place.kubectl("delete", "poddisruptionbudgets", "--all")
    await until(lambda: budgets(place) == ["shop.web"])
    (ledger,) = ledgers(place)
    place.kubectl("delete", "configmap", name, "--wait=false")  # it owns all the others
    await until(lambda: ledgers(place) not in ([], [ledger]) and len(listed(place, "secrets")) == 2)
    await until(lambda: len(pods_of(place)) == 2)
    await asyncio.gather(*(engine.wait_ready(spec.id) for spec in specs))

    states = [await engine.inspect(spec.id) for spec in specs]
    assert {status.state for status in states} == {ContainerState.RUNNING}
    assert states[0].restarts >= 1


async def test_a_pod_that_skep_made_and_somebody_deleted_is_told_as_ended_without_a_code(
    engine: ClusterEngine, place: Yard
) -> None:
    spec = place.spec(*SLEEP)
    await started(engine, [spec])

    pods = await told_apart(place)
    place.kubectl("delete", "pod", pods[spec.id], "--wait=false", "--grace-period=1")
    await engine.wait_exit(spec.id)
    status = await engine.inspect(spec.id)
    await engine.start(spec)

    assert status.exit_code in (None, 137, 143)
    assert (await engine.inspect(spec.id)).state is ContainerState.RUNNING


async def test_a_replica_with_a_disk_keeps_it_and_finds_there_what_its_image_had(
    engine: ClusterEngine, place: Yard
) -> None:
    disk = DiskId(new_id())
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": f"disk-{disk}"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "64Mi"}}},
    }
    place.kubectl("apply", "--filename=-", stdin=json.dumps(claim))
    mount = ContainerMount(target="/bin", disk=disk, copy_up=True)
    script = "ls /bin/busybox; cat /bin/kept; echo once >> /bin/kept; exec sleep 1000"
    spec = place.spec("/bin/sh", "-c", script, restart=ALWAYS, mounts=(mount,), name="shop/db-0")

    await started(engine, [spec])
    (made,) = listed(place, "statefulsets")
    await engine.restart(spec.id)
    follower = msgspec.structs.replace(spec, id=type(spec.id)(new_id()))
    await engine.stop(spec.id, 0.1)
    await started(engine, [follower])
    said = [line.text async for line in engine.logs(follower.id)]

    assert made["spec"]["replicas"] == 1
    assert [line for line in said if "No such" not in line] == ["/bin/busybox", "once", "once"]
    assert list(pods_of(place)) == [follower.id]


async def test_environment_files_and_what_a_user_is_are_as_specified(
    engine: ClusterEngine, place: Yard
) -> None:
    place.heard.files = {"sha256:aa": b"of a file", "sha256:bb": b"of a secret"}
    files = (
        ContainerFile(target="/etc/shop/config", digest="sha256:aa", secret=False),
        ContainerFile(target="/run/secrets/key", digest="sha256:bb", secret=True, uid=1000, mode=0o400),
    )
    script = 'echo "$WORD $(id -u):$(id -g) $(cat /etc/shop/config) $(cat /run/secrets/key) $(pwd) $1"'
    spec = place.spec(
        *("/bin/sh", "-c", script, "sh", "$(WORD)"),
        environment={"PATH": "/bin", "WORD": "a $(b) c"},
        files=files,
        user="1000:2000",
        working_dir="/tmp",
        name="shop/job-0",
    )

    await engine.start(spec)
    code = await engine.wait_exit(spec.id)

    said = [line.text async for line in engine.logs(spec.id)]
    assert code == 0
    assert said == ["a $(b) c 1000:2000 of a file of a secret /tmp $(WORD)"]


async def test_commands_have_a_terminal_input_and_an_exit_code(engine: ClusterEngine, place: Yard) -> None:
    spec = place.spec(*SLEEP)
    await started(engine, [spec])
    # The size comes beside the input: a quick command may ask before it is there.
    sized = 'until [ -n "$(stty size 2>/dev/null)" ]; do sleep 0.1; done; stty size'
    script = f'read word; {sized}; echo "<$word $HOW $(pwd)>"; echo ill >&2; exit 7'
    asked = ExecSpec(
        args=("/bin/sh", "-c", script),
        tty=True,
        stdin=True,
        columns=91,
        rows=31,
        environment={"HOW": "it's"},
        working_dir="/tmp",
    )

    terminal = await engine.exec(spec.id, asked)
    await terminal.write(b"hello\n")
    shown = b"".join([chunk async for _, chunk in terminal.output()])
    code = await terminal.wait()
    await terminal.close()
    apart = await engine.exec(spec.id, ExecSpec(args=("/bin/sh", "-c", "echo out; echo err >&2")))
    chunks = sorted([chunk async for chunk in apart.output()])
    await apart.close()
    nothing = await engine.exec(spec.id, ExecSpec(args=("/bin/nothing",)))
    async for _ in nothing.output():
        pass
    missing = await nothing.wait()
    await nothing.close()

    assert (code, missing) == (7, 127)
    assert b"31 91" in shown
    assert b"<hello it's /tmp>" in shown
    assert chunks == [(1, b"out\n"), (2, b"err\n")]


async def test_followed_logs_go_on_through_a_restart_and_changes_are_told(
    engine: ClusterEngine, place: Yard
) -> None:
    script = "echo begun; sleep 1000"
    spec = place.spec("/bin/sh", "-c", script, restart=ALWAYS)
    await started(engine, [spec])
    lines: list[str] = []

    async def read() -> None:
        async for line in engine.logs(spec.id, follow=True):
            lines.append(line.text)  # noqa: PERF401 - who waits looks at it meanwhile

    reading = asyncio.create_task(read())
    await until(lambda: len(lines) == 1)
    await engine.restart(spec.id)
    await until(lambda: len(lines) == 2)
    await engine.remove(spec.id)
    async with asyncio.timeout(60):
        await reading
    await until(lambda: place.heard.gone == [spec.id])

    assert lines == ["begun", "begun"]
    states = [status.state.value for status in place.heard.statuses if status.id == spec.id]
    assert states[0] == "created"
    assert states.count("running") >= 2
    with pytest.raises(NotFound):
        await engine.inspect(spec.id)


async def test_the_stop_signal_that_was_asked_for_is_sent(engine: ClusterEngine, place: Yard) -> None:
    traps = "trap 'echo usr1; exit 5' USR1; trap 'echo term; exit 6' TERM"
    script = f"{traps}; echo ready; while :; do sleep 0.1; done"
    spec = place.spec(
        *("/bin/sh", "-c", script), stop_signal="SIGUSR1", stop_grace_period=Seconds(20), name="shop/job-0"
    )
    await started(engine, [spec])
    lines: list[str] = []

    async def read() -> None:
        async for line in engine.logs(spec.id, follow=True):
            lines.append(line.text)  # noqa: PERF401 - the log goes with the pod

    reading = asyncio.create_task(read())
    await until(lambda: lines == ["ready"])
    await engine.stop(spec.id)
    await engine.remove(spec.id)
    await reading

    assert lines == ["ready", "usr1"]


async def test_usage_is_what_kubelet_measures(engine: ClusterEngine, place: Yard) -> None:
    spec = place.spec("/bin/sh", "-c", "while :; do :; done", cpus=0.2, memory=64 * 1024 * 1024)
    await started(engine, [spec])

    async def used() -> float:
        try:
            return (await engine.usage(spec.id)).cpu_seconds
        except Exception:
            return 0.0

    async with asyncio.timeout(180):
        while await used() == 0.0:
            await asyncio.sleep(1)
    found = await engine.usage(spec.id)
    await engine.remove(spec.id)

    assert found.memory > 0
    assert found.memory_limit == 64 * 1024 * 1024
