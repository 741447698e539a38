"""Streams that a client follows: server-sent events and lines of JSON."""

from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import msgspec
from litestar.openapi import ResponseSpec
from litestar.response import Stream

from skep.api.errors import problem_of
from skep.streams.pump import chunks

T = TypeVar("T")

EVENT_STREAM = "text/event-stream"
NDJSON = "application/x-ndjson"


def event_stream(
    items: AsyncIterator[T],
    *,
    event: Callable[[T], str] | None = None,
    identity: Callable[[T], object] | None = None,
) -> Stream:
    """Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

    `data` is the item as JSON, `id` what a client sends back as Last-Event-ID.  An error in the middle is
    an event `error` with the problem document, the regular end an event `end`.
    """

    def encode(item: T) -> bytes:
        head = f"id: {identity(item)}\n" if identity else ""
        head += f"event: {event(item)}\n" if event else ""
        return head.encode() + b"data: " + msgspec.json.encode(item) + b"\n\n"

    def fail(error: Exception) -> bytes:
        return b"event: error\ndata: " + msgspec.json.encode(problem_of(error)) + b"\n\n"

    sent = chunks(
        *(items, encode, fail),
        begin=b": skep\n\n",
        keep_alive=b": keep-alive\n\n",
        end=b"event: end\ndata: {}\n\n",
    )
    return Stream(sent, media_type=EVENT_STREAM, headers={"Cache-Control": "no-store"})


def json_lines(items: AsyncIterator[T]) -> Stream:
    """One JSON object per line; an error in the middle is a last line `{"error": problem}`."""

    def encode(item: T) -> bytes:
        return msgspec.json.encode(item) + b"\n"

    def fail(error: Exception) -> bytes:
        return msgspec.json.encode({"error": problem_of(error)}) + b"\n"

    return Stream(chunks(items, encode, fail), media_type=NDJSON, headers={"Cache-Control": "no-store"})


def answers(item: type, media_type: str) -> dict[int, ResponseSpec]:
    """For a handler that answers a stream of such items: what OpenAPI says about it."""
    return {200: ResponseSpec(item, media_type=media_type, description="A stream of these.")}
