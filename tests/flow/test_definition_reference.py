"""The examples of the reference are flows."""

import re
from pathlib import Path
from typing import NewType

import msgspec

from skep.flow import Registry, step
from skep.flow.definition.draft import KEYS as FLOW_KEYS
from skep.flow.definition.draft_steps import KEYS as STEP_KEYS
from skep.flow.steps import Context

REFERENCE = Path(__file__).parents[2] / "docs/reference/flows.md"
HostName = NewType("HostName", str)


class Place(msgspec.Struct):
    host: HostName
    port: int


class Payment(msgspec.Struct):
    reference: str


class Check(msgspec.Struct):
    risky: bool
    port: int


@step
async def check(cx: Context[None], version: str) -> Check:
    return Check(version == "", 0)


@step
async def roll(cx: Context[None], host: HostName, version: str, position: int = 0) -> Place:
    return Place(host, position)


@step
async def note(cx: Context[None], text: str) -> str:
    return text


@step
async def gather(cx: Context[None], hosts: list[str], options: object) -> None: ...


@step
async def probe(cx: Context[None]) -> None: ...


@step
async def count(cx: Context[None], rolled: list[Place | None]) -> int:
    return len(rolled)


def test_every_example_of_the_reference_is_a_flow() -> None:
    registry = Registry()
    for code in (check, roll, note, gather, probe, count):
        registry.add_step(code, f"fleet.{code.name}")
    registry.add_type(HostName, Place, Payment)

    examples = re.findall(r"```yaml\n(.*?)```", REFERENCE.read_text(), re.DOTALL)

    flows = registry.add_documents({f"example {n}": text for n, text in enumerate(examples)})
    assert len(flows) == 11


def test_the_reference_names_every_key() -> None:
    text = REFERENCE.read_text()

    assert not {key for key in FLOW_KEYS | STEP_KEYS if f"`{key}`" not in text}
