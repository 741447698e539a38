"""The steps of the demonstration: a travel office, its purse and its printer.

A step is a typed async function; the documents that use it are checked against what it takes and returns when
they are loaded.  What it acts upon comes as `cx.env`: here an `Office` in memory, where another program would
have its clients of services.
"""

import asyncio
from dataclasses import dataclass, field

import msgspec
from sqlalchemy import text

from skep.flow import Context, step


@dataclass
class Office:
    """The world outside of the flows, and what happened in it, in order."""

    bookings: dict[str, str] = field(default_factory=dict)
    reserved: dict[str, int] = field(default_factory=dict)
    sending: int = 0
    most_at_once: int = 0
    log: list[str] = field(default_factory=list)


class Booking(msgspec.Struct, frozen=True):
    number: str
    place: str


@step
async def book(cx: Context[Office], what: str, where: str, who: str) -> Booking:
    """Book it.  The key stays the same however often this is tried, so asking again books nothing more."""
    cx.env.bookings[cx.key] = f"{what} for {who}"
    cx.env.log.append(f"booked the {what}")
    return Booking(number=cx.key, place=f"{what} in {where}")


@book.undo
async def give_back(cx: Context[Office], what: str, where: str, who: str) -> None:
    """Gets what the step got, not what it returned: it may have died half-way.  Nothing there is fine too."""
    if cx.env.bookings.pop(cx.key.removesuffix("/undo"), None):
        cx.env.log.append(f"gave back the {what}")


@step
async def charge(cx: Context[Office], card: str, bookings: list[str]) -> str:
    if card == "declined":
        raise ValueError("the card was declined")
    return f"{len(bookings)} bookings charged to {card}"


@step
async def reserve(cx: Context[Office], item: str, price: int) -> None:
    cx.env.reserved[item] = price


@reserve.undo
async def release(cx: Context[Office], item: str, price: int) -> None:
    cx.env.reserved.pop(item, None)


@step(kind="transactional")
async def pay(cx: Context[Office], item: str, price: int) -> int:
    """Its writes commit together with its result, so there is exactly one row whatever dies in between."""
    await cx.tx.execute(text("INSERT INTO payments VALUES (:item, :price)"), {"item": item, "price": price})
    return int((await cx.tx.execute(text("SELECT sum(price) FROM payments"))).scalar_one())


@step
async def print_issue(cx: Context[Office], issue: str) -> str:
    return f"News from the office, {issue}"


@step
async def send(cx: Context[Office], reader: str, text: str) -> str:
    """Takes a moment, as mail does."""
    cx.env.sending += 1
    cx.env.most_at_once = max(cx.env.most_at_once, cx.env.sending)
    try:
        await asyncio.sleep(0.005)
    finally:
        cx.env.sending -= 1
    if "@" not in reader:
        raise ValueError(f"{reader!r} is no address")
    return f"{text} to {reader}"


@step
async def count(cx: Context[Office], letters: list[str | None]) -> int:
    return len([letter for letter in letters if letter is not None])
