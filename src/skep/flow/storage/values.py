"""Rows of the engine as values for statements, in the order of their columns."""

import hashlib
from collections.abc import Iterable

import msgspec

from skep.flow.runs import RunRow, StepRow
from skep.flow.steps import RunId
from skep.flow.storage.statements import Values

LONGEST_MESSAGE = 4000
LARGEST_RESULT = 64 * 1024
"""Bytes of JSON that stand in the row of a step; what is larger is a blob."""
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def new_run(run: RunRow) -> Values:
    return (
        run.id,
        run.flow,
        run.definition,
        text(run.title),
        run.tenant,
        msgspec.json.encode(run.labels).decode(),
        run.key,
        run.input,
        msgspec.json.encode(run.locks).decode(),
        run.total,
        run.created,
        run.parent,
        int(run.priority),
        run.deadline,
        *_progress(run),
    )


def changed_run(run: RunRow) -> Values:
    return (run.total, run.deadline, *_progress(run), run.id)


def labels(runs: Iterable[RunRow]) -> list[Values]:
    return [(run.id, key, text(value)) for run in runs for key, value in run.labels.items()]


def step(run: RunId, name: str, row: StepRow) -> Values:
    return (
        run,
        name,
        row.state.value,
        row.attempts,
        row.undo_attempts,
        row.result if row.blob is None else None,
        row.blob,
        text(row.error),
        text(row.message),
        row.started,
        row.finished,
    )


def hash_of(content: bytes) -> str:
    """SHA-256 in hexadecimal: the name of a blob."""
    return hashlib.sha256(content).hexdigest()


def text(message: str) -> str:
    """What every database takes: no longer than a page, no NUL (PostgreSQL), no halves of surrogate pairs."""
    if not message:
        return ""
    if len(message) > LONGEST_MESSAGE:
        message = message[:LONGEST_MESSAGE]
    if not message.isascii():
        message = message.encode("utf-8", "replace").decode()
    return message.replace("\0", _REPLACEMENT) if "\0" in message else message


def _progress(run: RunRow) -> Values:
    return (
        run.state.value,
        run.cause,
        text(run.error),
        run.output,
        run.epoch,
        run.round,
        run.crashes,
        run.paused,
        run.worker,
        run.started,
        run.finished,
    )
