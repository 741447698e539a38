"""Several versions side by side: runs stay with theirs, new ones see the new one, at no moment none."""

import asyncio
import sys
from pathlib import Path

import pytest
from tests.flow.bundles import samples

from skep.flow import Database, FlowEngine, Registry, RunState
from skep.flow.bundles.bundles import Bundles
from skep.flow.bundles.loading import VersionLoader
from skep.flow.bundles.refusals import BundleRefused, UnknownBundle


@pytest.fixture
async def two(bundles: Bundles, tmp_path: Path) -> list[str]:
    """The hashes of two versions of one bundle."""
    return [
        (await bundles.push(samples.greeting(tmp_path / version, version), by="ann")).hash for version in "12"
    ]


async def test_a_run_ends_with_the_code_that_it_began_with(
    bundles: Bundles, flows: FlowEngine, two: list[str]
) -> None:
    await bundles.activate(two[0])
    old = await flows.start("greet", {"name": "Ann"})
    await bundles.activate(two[1])
    new = await flows.start("greet", {"name": "Bob"})

    for run in (old, new):
        await flows.signal(run, "go")
    records = [await flows.wait(run, 20) for run in (old, new)]

    assert [record.output["said"] for record in records] == [
        "hello 1, Ann (hello 1)",
        "hello 2, Bob (hello 2)",
    ]


@pytest.mark.sqlite
async def test_no_start_fails_and_no_run_mixes_versions_during_fifty_activations(
    bundles: Bundles, flows: FlowEngine, two: list[str]
) -> None:
    await bundles.activate(two[0])
    over = asyncio.Event()
    said: list[str] = []

    async def traffic() -> None:
        while not over.is_set():
            record = await flows.wait(await flows.start("hello", {"name": "x"}), 20)
            assert record.state is RunState.SUCCEEDED, record.error
            said.append(record.output["said"])

    clients = [asyncio.create_task(traffic()) for _ in range(4)]
    for turn in range(50):
        await bundles.activate(two[turn % 2])
    over.set()
    await asyncio.gather(*clients)

    assert set(said) == {"hello 1, x (hello 1)", "hello 2, x (hello 2)"}


@pytest.mark.sqlite
async def test_a_restart_finds_the_code_of_runs_and_of_new_ones(
    database: Database, registry: Registry, loader: VersionLoader, bundles: Bundles, two: list[str]
) -> None:
    async with FlowEngine(database, bundles.registry, lambda _route: None, grace=0.0) as engine:
        await bundles.activate(two[0])
        old = await engine.start("greet", {"name": "Ann"})
        await bundles.activate(two[1])
    await bundles.shelf.close()

    async with (
        Bundles(database, registry, loader) as again,
        FlowEngine(database, again.registry, lambda _route: None) as engine,
    ):
        await engine.signal(old, "go")
        new = await engine.start("hello", {"name": "Bob"})
        records = [await engine.wait(run, 20) for run in (old, new)]

    assert [record.output["said"] for record in records] == [
        "hello 1, Ann (hello 1)",
        "hello 2, Bob (hello 2)",
    ]


async def test_another_process_goes_on_with_the_old_code_until_it_looks(
    database: Database, registry: Registry, bundles: Bundles, two: list[str], tmp_path: Path
) -> None:
    await bundles.activate(two[0])
    async with Bundles(database, registry, VersionLoader(registry, tmp_path / "other")) as other:
        await bundles.activate(two[1])
        before = other.view().flow("hello").plan.bundle
        changed = await other.refresh()
        after = other.view().flow("hello").plan.bundle
        unchanged = await other.refresh()

    assert (before, changed, after, unchanged) == (two[0], True, two[1], False)


async def test_a_rollback_puts_the_version_before_in_force(bundles: Bundles, two: list[str]) -> None:
    await bundles.activate(two[0])
    await bundles.activate(two[1])

    info = await bundles.rollback("greeting", by="ann")

    assert info.hash == two[0]
    assert (await bundles.active())["greeting"].version == "1"
    with pytest.raises(UnknownBundle):
        await bundles.rollback("nothing")


@pytest.mark.sqlite
async def test_what_is_deactivated_is_gone_for_new_runs_only(
    bundles: Bundles, flows: FlowEngine, two: list[str]
) -> None:
    await bundles.activate(two[0])
    run = await flows.start("greet", {"name": "Ann"})

    await bundles.deactivate("greeting")
    await flows.signal(run, "go")

    assert (await flows.wait(run, 20)).state is RunState.SUCCEEDED
    assert await bundles.active() == {}
    assert bundles.view().flows() == []


@pytest.mark.sqlite
async def test_what_another_needs_cannot_be_deactivated(
    bundles: Bundles, two: list[str], tmp_path: Path
) -> None:
    await bundles.activate(two[0])
    flow = "flow: twice\nsteps: {a: {flow: hello, with: {name: x}}, b: {flow: hello, with: {name: y}}}"
    code = "@step\nasync def nothing(cx: Context[None]) -> None: ...\n"
    user = await bundles.push(samples.single(tmp_path / "user", code, flow=flow, head="process: worker\n"))
    await bundles.activate(user.hash)

    with pytest.raises(BundleRefused, match="there is no flow 'hello'"):
        await bundles.deactivate("greeting")

    assert "hello" in bundles.view().flows()


async def test_only_what_nobody_needs_is_forgotten(
    bundles: Bundles, flows: FlowEngine, tmp_path: Path
) -> None:
    hashes = []
    for version in "1234":
        info = await bundles.push(samples.greeting(tmp_path / version, version))
        hashes.append(info.hash)
        await bundles.activate(info.hash)
        if version == "1":
            run = await flows.start("greet", {"name": "Ann"})

    first = await bundles.gc(keep=1)
    await flows.signal(run, "go")
    record = await flows.wait(run, 20)
    second = await bundles.gc(keep=1)

    assert {info.version for info in first} == {"2", "3"}
    assert record.output["said"] == "hello 1, Ann (hello 1)"
    assert {info.version for info in second} == {"1"}
    assert list(bundles.shelf.loaded) == [hashes[3]]
    assert not any(name.startswith(f"skep_bundle_{hashes[0][:20]}") for name in sys.modules)
    assert any(name.startswith(f"skep_bundle_{hashes[3][:20]}") for name in sys.modules)


@pytest.mark.sqlite
async def test_what_was_in_force_a_moment_ago_is_kept(
    database: Database, registry: Registry, loader: VersionLoader, tmp_path: Path
) -> None:
    await FlowEngine.create_tables_in(database)
    now = [1000.0]
    async with Bundles(database, registry, loader, clock=lambda: now[0], idle=60.0) as bundles:
        for version in "12":
            info = await bundles.push(samples.greeting(tmp_path / version, version))
            await bundles.activate(info.hash)

        soon = await bundles.gc(keep=1)
        now[0] += 61
        later = await bundles.gc(keep=1)

    assert (len(soon), len(later)) == (0, 1)


@pytest.mark.sqlite
async def test_a_run_whose_version_cannot_be_loaded_needs_an_operator(
    database: Database, registry: Registry, bundles: Bundles, two: list[str], tmp_path: Path
) -> None:
    async with FlowEngine(database, bundles.registry, lambda _route: None, grace=0.0) as engine:
        await bundles.activate(two[0])
        run = await engine.start("greet", {"name": "Ann"})
        await bundles.activate(two[1])
    forbidding = VersionLoader(registry, tmp_path / "damaged")
    home = tmp_path / "damaged" / "code" / two[0]
    samples.write(home, {"greeting/steps.py": "import gone\n"})
    await bundles.shelf.close()

    async with (
        Bundles(database, registry, forbidding) as again,
        FlowEngine(database, again.registry, lambda _route: None) as engine,
    ):
        record = await engine.get(run)

    assert record.state is RunState.NEEDS_OPERATOR
    assert two[0][:12] in record.error
