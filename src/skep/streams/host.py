"""What a host and who asks it say to each other over a stream, beside bytes.

- `GET /logs/CONTAINER?follow&tail&since`: a `LogItem` per line of JSON; empty lines keep it alive
- `/exec/CONTAINER`, a WebSocket: text, an ExecSpec; then as `streams/sessions.py` says, with `Said` as text
  of the host: first when the process has started, last when it has ended
- `GET` and `PUT /images/DIGEST`: an OCI layout in a tar, out of the host's store and into it
- `GET` and `PUT /disks/ID`: what a disk holds, as `streams/sealing.py` says
- `PUT /spool/NAME`: an upload
- an error before anything else is a `Fault` as JSON, with any status but 200
"""

import msgspec

from skep.model.faults import Fault
from skep.model.host import LogLine

LARGEST_MESSAGE = 1024 * 1024
"""Bytes of one message of an exec session."""


class LogItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line, or the error with which the log ends."""

    line: LogLine | None = None
    fault: Fault | None = None


class Said(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`exit` is the code (128 + signal when killed)."""

    started: bool = False
    exit: int | None = None
    fault: Fault | None = None
