"""Makes new runs of flows, and unfinished runs out of what the tables say."""

import re
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from skep.flow.definition import hints
from skep.flow.definition.expressions import INPUT, Expression, Reference, evaluate, follow
from skep.flow.definition.graph import Graph
from skep.flow.definition.hints import Hint, describe
from skep.flow.definition.plan import Flow, Plan
from skep.flow.definition.registry import Bound, Registry
from skep.flow.errors import InputError, UnknownRun, Unloadable
from skep.flow.execution.active import ActiveRun
from skep.flow.execution.attempt import message_of
from skep.flow.execution.execution import Execution
from skep.flow.execution.restoring import restore
from skep.flow.runs import Claim, Priority, RunState, StoredRun
from skep.flow.steps import RunId
from skep.flow.storage import unfinished
from skep.flow.storage.database import Database

LONGEST_WORD = 2000
"""Characters of a title, a key, a label, the name of a signal."""
_STORABLE = re.compile(r"[^\x00\ud800-\udfff]*")


class RunIds:
    """Ids that sort by age: 12 hexadecimal digits of milliseconds since 1970, 4 of a count, 8 random ones."""

    def __init__(self) -> None:
        self._last = 0
        self._mutex = threading.Lock()

    def __call__(self) -> str:
        with self._mutex:
            self._last = max(self._last + 1, (time.time_ns() // 1_000_000) << 16)
            return f"{self._last:016x}{secrets.token_hex(4)}"


def check_input(flow: str, types: Mapping[str, Hint], given: Mapping[str, object]) -> dict[str, object]:
    """The input as the flow's types; what may be None may be left out.

    Raises:
        InputError: names every input that is missing, unknown or of another type.
    """
    wrong = [f"there is no input {name!r}" for name in given if name not in types]
    values: dict[str, object] = {}
    for name, hint in types.items():
        if name not in given and not hints.fits(None, hint):
            wrong.append(f"input {name!r} ({describe(hint)}) is missing")
            continue
        try:
            values[name] = msgspec.convert(msgspec.to_builtins(given.get(name)), hint)
        except (msgspec.ValidationError, TypeError) as error:
            wrong.append(f"input {name!r} must be {describe(hint)}: {error}")
    if wrong:
        raise InputError(f"flow {flow}: {'; '.join(wrong)}")
    return values


def check_words(**words: object) -> None:
    """What names something is a text that every database takes, of at most so many characters.

    Raises:
        InputError: names the first that is not.
    """
    for name, word in words.items():
        if word is None:
            continue
        if not isinstance(word, str):
            raise InputError(f"{name} must be a text, not {type(word).__name__}")
        if len(word) > LONGEST_WORD or not _STORABLE.fullmatch(word):
            raise InputError(
                f"{name} must be at most {LONGEST_WORD} characters long, without NUL and half characters"
            )


def claims_of(plan: Plan, values: Mapping[str, object]) -> tuple[Claim, ...]:
    """What a run holds from before its first step: its locks, and its limits as keys with a capacity."""
    claims = dict.fromkeys((str(_of_input(plan, lock, values)) for lock in plan.locks), 1)
    for limit in plan.limits:
        key = str(_of_input(plan, limit.key, values))
        claims[key] = min(claims.get(key, limit.concurrency or 1), limit.concurrency or 1)
    return tuple(Claim(key, claims[key]) for key in sorted(claims))


def priority_of(plan: Plan, values: Mapping[str, object], asked: Priority | None) -> Priority:
    """Raises InputError: it names none of the five."""
    if asked is not None:
        return Priority(asked)
    if plan.priority is None:
        return Priority.NORMAL
    value = _of_input(plan, plan.priority, values)
    try:
        return Priority[value.upper()] if isinstance(value, str) else Priority(value)  # type: ignore[arg-type]
    except (KeyError, ValueError) as error:
        known = ", ".join(priority.name.lower() for priority in Priority)
        raise InputError(f"flow {plan.flow}: {value!r} is no priority; there are {known}") from error


def _of_input(plan: Plan, value: Expression, values: Mapping[str, object]) -> object:
    def lookup(reference: Reference) -> object:
        if reference.source != INPUT:
            raise InputError(f"flow {plan.flow}: {reference} is not known before the first step")
        name, *path = reference.path
        return follow(values[name], tuple(path))

    return evaluate(value, lookup)


MOST_PLANS = 1000
"""Plans kept joined with code: generated ones are without number, and joining takes milliseconds."""

Prepare = Callable[[Sequence[bytes]], Awaitable[None]]
"""Fetches the code that stored plans need, as far as that is possible."""


async def nothing_to_prepare(_contents: Sequence[bytes]) -> None:
    """All code is here."""


class Loader:
    """Plans joined with code, kept by hash while the engine is open."""

    def __init__(self, registry: Registry, prepare: Prepare = nothing_to_prepare) -> None:
        self.registry = registry
        self.prepare = prepare
        self._bound: dict[str, Bound] = {}

    async def fetch(self, database: Database, run: RunId) -> StoredRun:
        """A run as it is stored, its code at hand.  Raises UnknownRun."""
        async with database.read() as connection:
            stored = await unfinished.load(connection, [run])
        if not stored:
            raise UnknownRun(f"there is no run {run}")
        await self.prepare([stored[0].content])
        return stored[0]

    def forget(self, bundle: str) -> None:
        """The code of that bundle leaves memory."""
        for definition, bound in list(self._bound.items()):
            if any(owner == bundle for owner, _ in bound.codes):
                del self._bound[definition]

    def bind(self, flow: Flow) -> Bound:
        if flow.hash not in self._bound:
            self._keep(flow.hash, self.registry.bind(flow.plan))
        return self._bound[flow.hash]

    def _keep(self, definition: str, bound: Bound) -> None:
        while len(self._bound) >= MOST_PLANS:
            del self._bound[next(iter(self._bound))]
        self._bound[definition] = bound

    def load(self, stored: StoredRun) -> ActiveRun:
        """A run to go on with; if it cannot be loaded, one that needs an operator and says why."""
        try:
            return self._load(stored)
        except Unloadable as error:
            return isolated(stored, str(error))

    def _load(self, stored: StoredRun) -> ActiveRun:
        row = stored.row
        if row.definition not in self._bound:
            self._keep(row.definition, self.registry.load(stored.content))
        bound = self._bound[row.definition]
        try:
            values = check_input(row.flow, bound.types, msgspec.json.decode(row.input))
            execution = Execution(bound.graph, values)
            run = ActiveRun(row, bound, execution, sequence=stored.sequence, signals=stored.signals)
            run.heard = {signal.id for signal in stored.signals}
            run.dropped = restore(execution, bound, stored)
        except (InputError, msgspec.DecodeError, LookupError, ValueError, TypeError) as error:
            raise Unloadable(
                f"what the run has stored does not fit today's code: {message_of(error)}"
            ) from error
        return run


def isolated(stored: StoredRun, reason: str) -> ActiveRun:
    """A run that needs its operator as a whole."""
    nothing = Execution(Graph(Plan(stored.row.flow, {}, ())), {})
    stored.row.state, stored.row.error = RunState.NEEDS_OPERATOR, reason
    return ActiveRun(stored.row, None, nothing, sequence=stored.sequence, signals=stored.signals)
