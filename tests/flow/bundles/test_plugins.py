"""Plug-ins that are installed beside the program: found by their entry points, with the same checks."""

from pathlib import Path

import pytest
from tests.flow.bundles import samples

from skep.flow import Registry
from skep.flow.bundles.plugins import add_entry_points
from skep.flow.bundles.refusals import BundleRefused

STEPS = """
from skep.flow import Context, step

@step
async def note(cx: Context[None], text: str) -> int:
    return len(text)
"""


def install(site: Path, name: str, steps: str, flow: str) -> None:
    """What an installer leaves of a distribution."""
    info = f"{name}-1.0.dist-info"
    points = f"[skep.steps]\n{name} = {name}.code\n[skep.flows]\n{name} = {name}\n"
    samples.write(
        site,
        {
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
            f"{info}/entry_points.txt": points,
            f"{name}/__init__.py": "",
            f"{name}/code.py": steps,
            f"{name}/{name}.yaml": flow,
        },
    )


def test_steps_and_flows_of_installed_plug_ins_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = "flow: plugged\nsteps: {a: {use: skeptest_good.note, with: {text: x}}}\n"
    install(tmp_path, "skeptest_good", STEPS, flow)
    monkeypatch.syspath_prepend(tmp_path)

    registry = add_entry_points(Registry())

    assert list(registry.steps) == ["skeptest_good.note"]
    assert registry.flows() == ["plugged"]


def test_a_broken_plug_in_is_named_with_every_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "skeptest_one", "import nothing_at_all\n", "flow: one\nsteps: {a: {use: one.a}}\n")
    install(tmp_path, "skeptest_two", STEPS.replace("text: str", "text"), "flow: [\n")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(BundleRefused) as refused:
        add_entry_points(Registry())

    told = "\n".join(refused.value.reasons)
    for wanted in (
        "skeptest_one 1.0: ModuleNotFoundError",
        "there is no step 'one.a'",
        "must give parameter",
    ):
        assert wanted in told
    assert "skeptest_two 1.0: skeptest_two.yaml" in told
