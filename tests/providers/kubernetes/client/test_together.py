"""Work that many want is done for all of them."""

import asyncio

from skep.providers.kubernetes.client.together import Together


class Work:
    def __init__(self) -> None:
        self.rounds = 0
        self.may_end = asyncio.Event()
        self.fails = False

    async def __call__(self) -> None:
        self.rounds += 1
        await self.may_end.wait()
        if self.fails:
            raise ValueError(self.rounds)


async def test_all_who_come_while_it_is_under_way_share_the_next_round() -> None:
    work = Work()
    together = Together(work)

    first = asyncio.create_task(together.done())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    others = [asyncio.create_task(together.done()) for _ in range(100)]
    await asyncio.sleep(0)
    work.may_end.set()
    await asyncio.gather(first, *others)

    assert work.rounds == 2


async def test_who_gives_up_does_not_end_it_for_others() -> None:
    work = Work()
    together = Together(work)
    hurried, patient = (asyncio.create_task(together.done()) for _ in range(2))
    await asyncio.sleep(0)

    hurried.cancel()
    await asyncio.sleep(0)
    work.may_end.set()
    await patient

    assert (work.rounds, hurried.cancelled()) == (1, True)


async def test_everybody_hears_of_what_went_wrong_and_the_next_round_begins_anew() -> None:
    work = Work()
    work.may_end.set()
    work.fails = True
    together = Together(work)

    failed = await asyncio.gather(*(together.done() for _ in range(3)), return_exceptions=True)
    work.fails = False
    await together.done()

    assert [str(one) for one in failed] == ["1", "1", "1"]
    assert work.rounds == 2


async def test_who_leaves_waits_for_what_is_under_way() -> None:
    work = Work()
    together = Together(work)
    await together.rest()
    under_way = asyncio.create_task(together.done())
    await asyncio.sleep(0)

    leaving = asyncio.create_task(together.rest())
    await asyncio.sleep(0.01)
    early = leaving.done()
    work.may_end.set()
    await leaving

    assert (early, work.rounds) == (False, 1)
    await under_way
