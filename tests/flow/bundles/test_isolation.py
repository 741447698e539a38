"""Steps of a bundle in a process of its own: confined for real, and replaced when it dies."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
from tests.flow.bundles import samples

from skep.flow import FlowEngine, RunRecord, RunState
from skep.flow.bundles import process
from skep.flow.bundles.bundles import Bundles
from skep.flow.bundles.isolation import Isolation

pytestmark = [pytest.mark.sqlite, pytest.mark.root]

LOOK = """
import socket
@step
async def look(cx: Context[None], path: str) -> dict[str, str]:
    found = {"uid": str(os.getuid()), "env": str(cx.env), "key": cx.key}
    found["secret"] = os.environ.get("SECRET", "")
    for name, attempt in {
        "read": lambda: open(path).read(),
        "write": lambda: open(__file__, "w"),
        "connect": lambda: socket.create_connection(("127.0.0.1", 9), 1),
        "interfaces": lambda: [name for _, name in socket.if_nameindex()],
        "become_root": lambda: os.setuid(0),
        "parent": lambda: os.kill(os.getppid(), 0) if os.getppid() else "nobody",
    }.items():
        try:
            found[name] = str(attempt())
        except OSError as error:
            found[name] = type(error).__name__
    return found
"""


async def activated(bundles: Bundles, directory: Path) -> Isolation:
    info = await bundles.push(directory)
    await bundles.activate(info.hash)
    isolation = bundles.shelf.loaded[info.hash].isolation
    assert isolation is not None
    return isolation


def flow_of(use: str, arguments: str = "") -> str:
    return f"flow: go\nsteps: {{a: {{use: {use}, with: {{{arguments}}}}}}}\noutput: {{a: $a}}\n"


async def finished(flows: FlowEngine, run_of: str = "go") -> RunRecord:
    return await flows.wait(await flows.start(run_of, {}), 20)


async def test_a_step_is_confined(
    bundles: Bundles, flows: FlowEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "of the worker")
    secret = tmp_path / "secret"
    secret.write_text("x")
    await activated(
        bundles, samples.single(tmp_path / "b", LOOK, flow=flow_of("one.look", f"path: {secret}"))
    )

    run = await finished(flows)

    assert run.state is RunState.SUCCEEDED, run.error
    found = run.output["a"]
    assert int(found.pop("uid")) > 1_000_000
    assert found == {
        "env": "None",
        "key": f"{run.id}/a",
        "secret": "",
        "read": "FileNotFoundError",
        "write": "OSError",
        "connect": "OSError",
        "interfaces": "['lo']",
        "become_root": "PermissionError",
        "parent": "nobody",
    }


async def test_a_bundle_with_the_right_to_it_has_the_network(
    bundles: Bundles, flows: FlowEngine, tmp_path: Path
) -> None:
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    code = """
        @step
        async def reach(cx: Context[None], port: int) -> str:
            try:
                (await asyncio.open_connection("127.0.0.1", port))[1].close()
            except OSError as error:
                return "refused"
            return "reached"
        """
    for name, head in (("yes", "rights: {network: true}\n"), ("no", "")):
        flow = flow_of(f"{name}.reach", f"port: {port}").replace("flow: go", f"flow: {name}")
        await activated(bundles, samples.single(tmp_path / name, code, name=name, flow=flow, head=head))

    answers = [(await finished(flows, name)).output["a"] for name in ("yes", "no")]
    server.close()

    assert answers == ["reached", "refused"]


async def test_a_bundle_may_use_every_name_of_the_library(
    bundles: Bundles, flows: FlowEngine, tmp_path: Path
) -> None:
    """Though nothing that the library needs is to be found in its process any more."""
    code = """
        from skep.flow import CommitFailed, Database, FlowEngine, Priority, Registry

        @step
        async def name(cx: Context[None]) -> str:
            return FlowEngine.__name__
        """
    await activated(bundles, samples.single(tmp_path / "b", code, flow=flow_of("one.name")))

    assert (await finished(flows)).output == {"a": "FlowEngine"}


async def test_a_process_killed_in_the_middle_of_a_call_is_replaced_and_the_step_done_again(
    bundles: Bundles, flows: FlowEngine, tmp_path: Path
) -> None:
    code = """
        @step
        async def wait(cx: Context[None]) -> int:
            cx.progress("here")
            if cx.attempt == 1:
                await asyncio.sleep(1000)
            return cx.attempt
        """
    isolation = await activated(bundles, samples.single(tmp_path / "b", code, flow=flow_of("one.wait")))
    run = await flows.start("go", {})
    first = await said(flows, run, "here", isolation)
    os.kill(first, signal.SIGKILL)

    record = await flows.wait(run, 20)

    assert (record.state, record.output) == (RunState.SUCCEEDED, {"a": 2})
    assert isolation.pid not in (None, first)


async def test_processes_end_with_what_forked_them_and_others_take_their_place(
    bundles: Bundles, flows: FlowEngine, tmp_path: Path
) -> None:
    code = """
        @step
        async def wait(cx: Context[None]) -> int:
            cx.progress("here")
            if cx.attempt == 1:
                await asyncio.sleep(1000)
            return cx.attempt
        """
    isolation = await activated(bundles, samples.single(tmp_path / "b", code, flow=flow_of("one.wait")))
    run = await flows.start("go", {})
    first = await said(flows, run, "here", isolation)
    inner = int(Path(f"/proc/{first}/task/{first}/children").read_text())
    os.kill(int(Path(f"/proc/{first}/stat").read_text().rpartition(")")[2].split()[1]), signal.SIGKILL)

    record = await flows.wait(run, 20)

    assert record.output == {"a": 2}
    assert isolation.pid not in (None, first)
    assert not any(_lives(process) for process in (first, inner))


async def test_what_may_be_done_only_once_is_in_doubt_when_its_process_dies(
    bundles: Bundles, flows: FlowEngine, tmp_path: Path
) -> None:
    code = """
        @step(kind="at-most-once")
        async def wait(cx: Context[None]) -> int:
            cx.progress("here")
            await asyncio.sleep(1000)
            return 1
        """
    isolation = await activated(bundles, samples.single(tmp_path / "b", code, flow=flow_of("one.wait")))
    run = await flows.start("go", {})
    os.kill(await said(flows, run, "here", isolation), signal.SIGKILL)

    async for event in flows.follow(run):
        if event.kind == "in-doubt":
            break

    assert (await flows.get(run)).state is RunState.NEEDS_OPERATOR


async def test_a_step_that_always_kills_its_process_fails(
    bundles: Bundles, flows: FlowEngine, tmp_path: Path
) -> None:
    code = """
        @step
        async def crash(cx: Context[None]) -> int:
            os._exit(7)
        """
    await activated(bundles, samples.single(tmp_path / "b", code, flow=flow_of("one.crash")))

    record = await finished(flows)

    assert record.state is RunState.FAILED
    assert "exit 7; so it did 3 times during this step" in record.error


async def test_a_step_that_takes_all_memory_is_named_and_others_go_on(
    bundles: Bundles, flows: FlowEngine, tmp_path: Path
) -> None:
    code = """
        @step
        async def hog(cx: Context[None]) -> int:
            kept = []
            while True:
                kept.append(bytearray(8 * 1024 * 1024))
        @step
        async def fine(cx: Context[None]) -> int:
            return 1
        """
    directory = samples.single(
        tmp_path / "b", code, flow=flow_of("one.hog"), head="rights: {memory: 64MiB}\n"
    )
    samples.write(directory, {"fine.yaml": flow_of("one.fine").replace("flow: go", "flow: fine")})
    await activated(bundles, directory)

    failed, fine = await finished(flows), await finished(flows, "fine")

    assert failed.state is RunState.FAILED
    assert "one.hog used up the memory of one 1" in failed.error
    assert fine.output == {"a": 1}


async def test_what_a_step_raises_or_returns_is_its_outcome(
    bundles: Bundles, flows: FlowEngine, tmp_path: Path
) -> None:
    code = """
        @step
        async def later(cx: Context[None]) -> int:
            if cx.attempt < 3:
                raise Retry("not yet", after=0.01)
            return cx.attempt
        @step
        async def fail(cx: Context[None]) -> int:
            raise ValueError("as it should")
        @step
        async def garbage(cx: Context[None]) -> int:
            return "not a number"
        """
    directory = samples.single(tmp_path / "b", code, flow=flow_of("one.later"))
    for name in ("fail", "garbage"):
        text = flow_of(f"one.{name}").replace("flow: go", f"flow: {name}")
        samples.write(directory, {f"{name}.yaml": text})
    await activated(bundles, directory)

    records = [await finished(flows, name) for name in ("go", "fail", "garbage")]

    assert records[0].output == {"a": 3}
    assert [record.error for record in records[1:]] == [
        "step a: as it should",
        "step a: returned str, which is not int: Expected `int`, got `str`",
    ]


async def test_a_step_is_undone_by_its_own_undo(bundles: Bundles, flows: FlowEngine, tmp_path: Path) -> None:
    code = """
        @step
        async def put(cx: Context[None], name: str) -> str:
            open(f"/tmp/{name}", "w").close()
            return name
        @put.undo
        async def take(cx: Context[None], name: str) -> None:
            cx.progress(f"{cx.key.rpartition('/')[2]} {os.path.exists('/tmp/x')}")
        @step
        async def fail(cx: Context[None]) -> None:
            raise ValueError("no")
        """
    flow = "flow: go\nsteps: {a: {use: one.put, with: {name: x}}, b: {use: one.fail, after: [a]}}\n"
    await activated(bundles, samples.single(tmp_path / "b", code, flow=flow))

    record = await finished(flows)

    said = [event.message for event in await flows.history(record.id) if event.kind == "progress"]
    assert record.state is RunState.FAILED
    assert said == ["undo True"]


async def test_a_cancelled_step_hears_of_it(bundles: Bundles, flows: FlowEngine, tmp_path: Path) -> None:
    code = """
        @step
        async def wait(cx: Context[None]) -> int:
            cx.progress("here")
            try:
                await asyncio.sleep(1000)
            finally:
                cx.progress("cleaning up")
            return 1
        """
    isolation = await activated(bundles, samples.single(tmp_path / "b", code, flow=flow_of("one.wait")))
    run = await flows.start("go", {})
    first = await said(flows, run, "here", isolation)

    await flows.cancel(run)
    record = await flows.wait(run, 20)

    assert record.state is RunState.CANCELLED
    assert "cleaning up" in [event.message for event in await flows.history(run)]
    assert isolation.pid == first


async def test_a_step_that_does_not_listen_loses_its_process(
    bundles: Bundles, flows: FlowEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "GRACE", 0.3)
    code = """
        @step(timeout=0.3)
        async def spin(cx: Context[None]) -> int:
            while True:
                pass
        """
    isolation = await activated(bundles, samples.single(tmp_path / "b", code, flow=flow_of("one.spin")))
    first = isolation.pid

    record = await finished(flows)

    assert record.error == "step a: took longer than 0.3 s"
    await isolation.warm()
    assert isolation.pid not in (None, first)


async def test_many_calls_share_one_process(bundles: Bundles, flows: FlowEngine, tmp_path: Path) -> None:
    code = """
        entered = []
        everybody = asyncio.Event()
        @step
        async def meet(cx: Context[None]) -> int:
            entered.append(cx.key)
            if len(entered) == 20:
                everybody.set()
            await everybody.wait()
            return os.getpid()
        """
    await activated(bundles, samples.single(tmp_path / "b", code, flow=flow_of("one.meet")))

    records = await asyncio.gather(*(finished(flows) for _ in range(20)))

    assert {record.state for record in records} == {RunState.SUCCEEDED}


async def test_bundles_may_require_different_versions_of_a_package(
    bundles: Bundles, flows: FlowEngine, tmp_path: Path
) -> None:
    code = """
        import skeptest_tiny
        @step
        async def version(cx: Context[None]) -> str:
            return skeptest_tiny.VERSION
        """
    for name, version in (("one", "1.0"), ("two", "2.0")):
        flow = flow_of(f"{name}.version").replace("flow: go", f"flow: {name}")
        directory = samples.single(
            tmp_path / name, code, name=name, flow=flow, head=f'requirements: ["skeptest-tiny=={version}"]\n'
        )
        samples.wheel(directory / "wheels", "skeptest_tiny", version, f"VERSION = {version!r}\n")
        await activated(bundles, directory)

    answers = [(await finished(flows, name)).output["a"] for name in ("one", "two")]

    assert answers == ["1.0", "2.0"]


async def test_requirements_that_cannot_be_met_are_a_reason(bundles: Bundles, tmp_path: Path) -> None:
    from skep.flow.bundles.refusals import BundleRefused

    code = "@step\nasync def nothing(cx: Context[None]) -> None: ...\n"
    for wanted in ("skeptest-absent==1", "msgspec<0.1"):
        directory = samples.single(tmp_path / wanted[:5], code, head=f'requirements: ["{wanted}"]\n')
        with pytest.raises(BundleRefused, match="requirements cannot be installed"):
            await bundles.push(directory)


async def said(flows: FlowEngine, run: str, message: str, isolation: Isolation) -> int:
    """The process that the run's step is in, once it has said so."""
    async for event in flows.follow(run):  # type: ignore[arg-type]
        if event.message == message:
            break
    assert isolation.pid is not None
    return isolation.pid


def _lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
