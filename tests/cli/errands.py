"""Small steps and flows for the commands to act on."""

import sys

from skep.control.flows.catalogue import make_registry
from skep.flow import Context, Registry, step


@step
async def price(cx: Context[object], item: str) -> int:
    """What the item costs."""
    return len(item) * 10


@step(kind="idempotent", timeout=5)
async def pay(cx: Context[object], item: str, amount: int) -> str:
    """Pay for the item.

    Nothing is paid twice.
    """
    return f"{item} for {amount}"


@pay.undo
async def _give_back(cx: Context[object], item: str, amount: int) -> None:
    """Nothing was paid in earnest."""


@step
async def deliver(cx: Context[object], address: str) -> str:
    if address == "nowhere":
        raise ValueError("nobody lives there")
    return address


FLOWS = {
    "errand.buy.yaml": """
        flow: errand.buy
        input: {item: str, limit: int | None}
        steps:
          price: {use: errands.price, with: {item: $input.item}}
          ok: {wait: approval, with: {message: "Buy $input.item for $price?"}}
          paid: {use: errands.pay, with: {item: $input.item, amount: $price}, after: [ok]}
        output: {bought: $paid}
    """,
    "errand.hold.yaml": """
        flow: errand.hold
        input: {shelf: str}
        lock: [shelf/$input.shelf]
        steps:
          go: {wait: signal, with: {name: go}, as: int}
        output: {got: $go}
    """,
    "errand.post.yaml": """
        flow: errand.post
        input: {addresses: "list[str]"}
        steps:
          letters:
            use: errands.deliver
            each: $input.addresses
            with: {address: $item}
            failures: 2
        output: {letters: $letters}
    """,
    "errand.visit.yaml": """
        flow: errand.visit
        input: {address: str}
        on_failure: ask
        steps:
          there: {use: errands.deliver, with: {address: $input.address}}
    """,
    "errand.greet.yaml": """
        flow: errand.greet
        input: {name: str}
        steps:
          gate: {wait: signal, with: {name: go}}
          said: {use: errands.deliver, with: {address: "old $input.name"}, after: [gate]}
        output: {said: $said}
    """,
}


def registry() -> Registry:
    """The cloud's own, and the errands."""
    made = make_registry()
    made.add_module(sys.modules[__name__])
    made.add_documents(FLOWS)
    return made
