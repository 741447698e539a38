"""One of many: keeps this worker's lease, and takes up runs, requests and signals that concern it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import msgspec
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.flow.errors import CommitFailed, Fenced, FlowFault
from skep.flow.execution.ledger import Ledger
from skep.flow.execution.orders import Orders
from skep.flow.execution.policing import POLICIES
from skep.flow.execution.roster import Roster
from skep.flow.execution.tenure import Tenure
from skep.flow.runs import Request, Signal
from skep.flow.steps import RunId
from skep.flow.storage import inbox, records
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
        self._adopting: asyncio.Task[None] | None = None
        self._adopt_more = self._adopt_dead = False

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
            if self._adopting is not None:
                self._adopting.cancel()
                await asyncio.wait([self._adopting])

    async def _look(self, topics: set[str], *, renew: bool) -> None:
        try:
            await _survived(self._look_at(topics, renew=renew))
        except Fenced:
            with suppress(Fenced):  # the next look finds it
                await _survived(self._fenced())

    async def _look_at(self, topics: set[str], *, renew: bool) -> None:
        everything = ANYTHING in topics
        mine = everything or worker_topic(self._tenure.member.id) in topics
        runs, requests, signals = everything or RUNS in topics, mine, mine
        dead = False
        if renew:
            news = await self._tenure.member.renew()
            dead, runs, requests = news.dead, runs or news.unowned, requests or news.requests
            signals = signals or news.signals
        if runs or dead:
            self._take_up(dead=dead)
        if requests:
            await self._answer()
        if signals:
            await self._deliver_signals()
        if everything or POLICIES in topics:
            await self._limits()

    def _take_up(self, *, dead: bool) -> None:
        """Beside the beat: to fetch the code of what is taken over may take longer than a lease."""
        self._adopt_more, self._adopt_dead = True, self._adopt_dead or dead
        if self._adopting is None or self._adopting.done():
            self._adopting = asyncio.create_task(self._adopt(), name="flow-adopting")

    async def _adopt(self) -> None:
        while self._adopt_more:
            dead, self._adopt_more, self._adopt_dead = self._adopt_dead, False, False
            with suppress(Fenced):  # the next look finds it
                await _survived(self._tenure.adopt(dead=dead))
        self._hear(worker_topic(self._tenure.member.id))  # what was asked of them meanwhile

    async def _answer(self) -> None:
        async with self._database.read() as connection:
            found = await inbox.requests_for(connection, self._tenure.member.id)
            requests = [request for request in found if not await self._comes(connection, request.run)]
        for request in requests:
            reply = self._carry_out(request)
            self._ledger.journal.answer(request.id, msgspec.json.encode(reply))
            self._ledger.journal.afterwards(partial(self._wakeups.notify, reply_topic(request.id)))
        if requests:
            await self._ledger.journal.flushed()

    async def _comes(self, connection: AsyncConnection, run: RunId) -> bool:
        """It is about to be taken up here, and will be asked then."""
        if run in self._roster.runs:
            return False
        record = await records.run(connection, run)
        return record is not None and not record.state.ended

    def _carry_out(self, request: Request) -> Reply:
        run = self._roster.runs.get(request.run)
        if run is None:
            return Reply(error=f"run {request.run} has ended")
        try:
            body = msgspec.json.decode(request.body, type=dict[str, object])
            return Reply(self._orders.carry_out(run, request.kind, body, request.by))
        except FlowFault as error:
            return Reply(error=error.message)
        except Exception as error:  # asked by another version of this program, perhaps
            log.exception("flow.defect")
            return Reply(error=f"{request.kind} cannot be carried out: {error!r}")

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


async def _survived(work: Awaitable[None]) -> None:
    """Whatever goes wrong, the next look may go well.  Raises Fenced alone."""
    try:
        await work
    except Fenced:
        raise
    except CommitFailed as error:
        log.warning("flow.database_away", error=str(error))
    except Exception:
        log.exception("flow.defect")
