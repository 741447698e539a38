"""Whether this machine is still a host: one that was removed must not go on running what others run by now.

Signs of life are answered as long as all is well.  A host that was removed has no account on the bus any
more, so whoever has no answer for long asks the API.
"""

import asyncio

from skep.agent.joined import JoinedHost
from skep.agent.renewal import belongs
from skep.trust.identity import Identity


class Membership:
    """`silence`: seconds without an answer after which the API is asked.  `ended` is set when it is over."""

    def __init__(self, identity: Identity, joined: JoinedHost, silence: float) -> None:
        self.ended = asyncio.Event()
        self._identity = identity
        self._joined = joined
        self._silence = silence
        self._answered = asyncio.Event()

    def answered(self, known: bool) -> None:
        """A sign of life was; `known`: the host is."""
        self._answered.set()
        if not known:
            self.ended.set()

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._silence)
            if not self._answered.is_set() and not await belongs(self._identity, self._joined):
                self.ended.set()
            self._answered.clear()
