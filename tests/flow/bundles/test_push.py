"""A bundle that cannot work is refused when it is pushed, with every reason, and leaves nothing behind."""

import time
from pathlib import Path

import pytest
from tests.flow.bundles import samples
from tests.flow.workshop import Workshop

from skep.flow import Database, FlowEngine, Registry
from skep.flow.bundles.bundles import Bundles
from skep.flow.bundles.loading import VersionLoader
from skep.flow.bundles.refusals import BundleRefused

pytestmark = pytest.mark.sqlite

NOTE = """
@step
async def note(cx: Context[None], text: str) -> int:
    return len(text)
"""


async def test_a_good_bundle_is_kept_and_not_yet_in_force(bundles: Bundles, tmp_path: Path) -> None:
    info = await bundles.push(samples.greeting(tmp_path / "b", "1", process="own"), by="ann")

    assert (info.name, info.version, info.by, info.active) == ("greeting", "1", "ann", False)
    assert [found.hash for found in await bundles.list()] == [info.hash]
    assert "greet" not in bundles.view().flows()


async def test_the_same_files_again_are_the_same_bundle(bundles: Bundles, tmp_path: Path) -> None:
    directory = samples.greeting(tmp_path / "b", "1")
    first = await bundles.push(directory, by="ann")

    second = await bundles.push(directory, by="bob")

    assert second == first
    assert len(await bundles.list()) == 1


async def test_all_reasons_are_told_at_once(bundles: Bundles, tmp_path: Path) -> None:
    flow = """
        flow: wrong
        input: {size: int}
        steps:
          a: {use: one.note, with: {text: $input.size}}
          b: {use: one.nothing}
        """
    directory = samples.single(tmp_path / "b", NOTE, flow=flow)

    with pytest.raises(BundleRefused) as refused:
        await bundles.push(directory)

    told = "\n".join(refused.value.reasons)
    assert "flow.yaml:" in told
    assert "wants str, but $input.size is int" in told
    assert "there is no step 'one.nothing'" in told
    assert await bundles.list() == []


BROKEN = {
    "def broken(:\n": r"one_code\.py:3: SyntaxError",
    "import nothing_of_that_name\n": r"one_code\.py:3: ModuleNotFoundError: .*nothing_of_that_name",
    "import litestar\n" + NOTE: "ModuleNotFoundError: No module named 'litestar'",
    "@step\nasync def bad(cx: Context[None], x: complex) -> int: ...\n": "type complex cannot be told",
    "@step\nasync def bad(cx: Context[None], x) -> int: ...\n": "must give parameter 'x' a type",
    "raise SystemExit(3)\n": r"one_code\.py:3: SystemExit: 3",
    "os._exit(4)\n": "its process died while the code was loaded: exit 4",
    "x = 1\n": "one_code defines no steps",
    "@step(kind='transactional')\nasync def enter(cx: Context[None]) -> int: ...\n": (
        "step one.enter is transactional: that needs 'process: worker'"
    ),
}


async def test_code_that_cannot_be_loaded_is_refused(bundles: Bundles, tmp_path: Path) -> None:
    for number, (code, reason) in enumerate(BROKEN.items()):
        directory = samples.single(tmp_path / str(number), code)

        with pytest.raises(BundleRefused, match=reason):
            await bundles.push(directory)

    assert await bundles.list() == []


async def test_code_that_never_ends_loading_is_refused_in_time(
    database: Database, registry: Registry, tmp_path: Path
) -> None:
    await FlowEngine.create_tables_in(database)
    directory = samples.single(tmp_path / "b", "import time\ntime.sleep(1000)\n")
    loader = VersionLoader(registry, tmp_path / "cache", offline=True, patience=2.0)
    began = time.monotonic()

    async with Bundles(database, registry, loader) as bundles:
        with pytest.raises(BundleRefused, match="not loaded after 2 s"):
            await bundles.push(directory)

    assert time.monotonic() - began < 8


async def test_names_of_the_program_and_of_others_are_taken(bundles: Bundles, tmp_path: Path) -> None:
    first = await bundles.push(samples.single(tmp_path / "first", NOTE))
    await bundles.activate(first.hash)
    same = samples.single(tmp_path / "second", NOTE, name="two")
    samples.write(same, {"bundle.yaml": 'bundle: two\nversion: "1"\nsteps: [two_code]\nprefix: one\n'})
    program = samples.single(
        tmp_path / "third", "@step\nasync def make(cx: Context[None]) -> int:\n    return 1\n"
    )
    samples.write(program, {"bundle.yaml": 'bundle: three\nversion: "1"\nsteps: [one_code]\nprefix: w\n'})

    with pytest.raises(BundleRefused, match=r"step one\.note is one of one 1 .* already"):
        await bundles.push(same)
    with pytest.raises(BundleRefused, match=r"step w\.make is the program's"):
        await bundles.push(program)


async def test_a_flow_of_the_program_is_replaced_only_by_who_says_so(
    bundles: Bundles, registry: Registry, flows: FlowEngine, shop: Workshop, tmp_path: Path
) -> None:
    registry.add_flow(
        "flow: inner\nsteps: {a: {use: w.measure, with: {text: ab}}}\noutput: {n: $a}", "i.yaml"
    )
    registry.add_flow("flow: outer\nsteps: {i: {flow: inner}}\noutput: {n: $i.n}", "o.yaml")
    flow = "flow: inner\nsteps: {a: {use: one.note, with: {text: abcd}}}\noutput: {n: $a}"
    silent = samples.single(tmp_path / "silent", NOTE, flow=flow)
    open_about_it = samples.single(
        tmp_path / "open", NOTE, flow=flow, head="rights: {overrides: [inner]}\nprocess: worker\n"
    )

    with pytest.raises(BundleRefused, match="flow inner is the program's"):
        await bundles.push(silent)
    info = await bundles.push(open_about_it)
    before = await flows.wait(await flows.start("outer", {}))
    await bundles.activate(info.hash)
    after = await flows.wait(await flows.start("outer", {}))

    assert (before.output, after.output) == ({"n": 2}, {"n": 4})


async def test_a_route_that_a_bundle_has_no_right_to_is_refused(bundles: Bundles, tmp_path: Path) -> None:
    flow = """
        flow: send
        input: {host: str}
        steps: {a: {use: one.note, with: {text: x}, on: agent.$input.host}}
        """
    denied = samples.single(tmp_path / "denied", NOTE, flow=flow)
    allowed = samples.single(tmp_path / "allowed", NOTE, flow=flow, head="rights: {routes: ['agent.*']}\n")

    with pytest.raises(BundleRefused, match="step a is sent to a route"):
        await bundles.push(denied)

    assert (await bundles.push(allowed)).name == "one"


async def test_a_bundle_inside_the_worker_may_be_forbidden(
    database: Database, registry: Registry, tmp_path: Path
) -> None:
    await FlowEngine.create_tables_in(database)
    loader = VersionLoader(registry, tmp_path / "cache", in_worker=False)

    async with Bundles(database, registry, loader) as bundles:
        with pytest.raises(BundleRefused, match="not allowed here"):
            await bundles.push(samples.greeting(tmp_path / "b", "1", process="worker"))
