"""One of many: keeps this worker's lease, and takes up runs, requests and signals that concern it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import msgspec
import structlog

from skep.flow.errors import CommitFailed, Fenced, FlowFault
from skep.flow.execution.ledger import Ledger
from skep.flow.execution.orders import Orders
from skep.flow.execution.policing import POLICIES
from skep.flow.execution.roster import Roster
from skep.flow.execution.tenure import Tenure
from skep.flow.runs import Request, Signal
from skep.flow.steps import RunId
from skep.flow.storage import inbox
from skep.flow.storage.database import Database
from skep.flow.storage.wakeups import ANYTHING, PERMITS, RUNS, Wakeups, reply_topic, worker_topic

log = structlog.get_logger(__name__)


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of a request."""

    answer: object = None
    error: str = ""


class Sharing:
    """`beat`: seconds between two looks, a third of a lease.  `deliver` gives a signal to a run that goes on
    here; `fenced` begins anew under another name; `limits` and `permits` look at those again."""

    def __init__(
        self,
        database: Database,
        wakeups: Wakeups,
        ledger: Ledger,
        orders: Orders,
        roster: Roster,
        tenure: Tenure,
        *,
        beat: float,
        deliver: Callable[[RunId, Signal], None],
        fenced: Callable[[], Awaitable[None]],
        limits: Callable[[], Awaitable[None]],
        permits: Callable[[], None],
    ) -> None:
        self._database = database
        self._wakeups = wakeups
        self._ledger = ledger
        self._orders = orders
        self._roster = roster
        self._tenure = tenure
        self._beat = beat
        self._deliver = deliver
        self._fenced = fenced
        self._limits = limits
        self._permits = permits
        self._woken = asyncio.Event()
        self._topics: set[str] = set()

    async def run(self) -> None:
        """For as long as the engine is open."""
        end = self._wakeups.listen(self._hear)
        loop = asyncio.get_running_loop()
        next_beat = loop.time() + self._beat
        try:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(next_beat):
                        await self._woken.wait()
                topics, self._topics = self._topics, set()
                self._woken.clear()
                due = loop.time() >= next_beat
                if due:
                    next_beat = loop.time() + self._beat
                await self._look(topics, renew=due)
        finally:
            end()

    async def _look(self, topics: set[str], *, renew: bool) -> None:
        try:
            everything = ANYTHING in topics
            mine = everything or worker_topic(self._tenure.member.id) in topics
            runs, requests, signals = everything or RUNS in topics, mine, mine
            dead = False
            if renew:
                news = await self._tenure.member.renew()
                dead, runs, requests = news.dead, runs or news.unowned, requests or news.requests
                signals = signals or news.signals
            if runs or dead:
                await self._tenure.adopt(dead=dead)
            if requests:
                await self._answer()
            if signals:
                await self._deliver_signals()
            if everything or POLICIES in topics:
                await self._limits()
        except Fenced:
            await self._fenced()
        except CommitFailed as error:
            log.warning("flow.database_away", error=str(error))
        except Exception:
            log.exception("flow.defect")

    async def _answer(self) -> None:
        async with self._database.read() as connection:
            requests = await inbox.requests_for(connection, self._tenure.member.id)
        for request in requests:
            reply = self._carry_out(request)
            self._ledger.journal.answer(request.id, msgspec.json.encode(reply))
            self._ledger.journal.afterwards(partial(self._wakeups.notify, reply_topic(request.id)))
        if requests:
            await self._ledger.journal.flushed()

    def _carry_out(self, request: Request) -> Reply:
        run = self._roster.runs.get(request.run)
        if run is None:
            return Reply(error=f"run {request.run} has ended")
        try:
            body = msgspec.json.decode(request.body, type=dict[str, object])
            return Reply(self._orders.carry_out(run, request.kind, body, request.by))
        except FlowFault as error:
            return Reply(error=error.message)

    async def _deliver_signals(self) -> None:
        async with self._database.read() as connection:
            signals = await inbox.signals_for(connection, self._tenure.member.id)
        for run, signal in signals:
            self._deliver(run, signal)

    def _hear(self, topic: str) -> None:
        if topic in (ANYTHING, PERMITS):
            self._permits()
        if topic in (ANYTHING, RUNS, POLICIES, worker_topic(self._tenure.member.id)):
            self._topics.add(topic)
            self._woken.set()
