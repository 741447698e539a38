"""kill -9 of anything, in a loop, under load: nothing is lost, doubled or leaked, and it soon goes on.

SKEP_CRASHES=100 makes it as many kills as the acceptance asks for; every day it is fewer.  SKEP_SEED repeats
one that went wrong, SKEP_VICTIMS=worker,broker kills nothing else.
"""

import os
import random
import secrets
from pathlib import Path

import pytest
from tests.cluster.accounts import until_in_order
from tests.cluster.datacentre import data_centre
from tests.cluster.siege import KINDS, besiege
from tests.machines import busybox_archive

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(3600)]

KILLS = int(os.environ.get("SKEP_CRASHES", "6"))
SEED = int(os.environ.get("SKEP_SEED") or secrets.randbelow(2**31))
VICTIMS = [kind for kind in os.environ.get("SKEP_VICTIMS", "").split(",") if kind] or KINDS
STUCK = 120.0
"""Seconds after which things do not go on by themselves; how soon they do is measured by `make bench-ha`."""


async def test_kills_of_anything_under_load_lose_double_and_leak_nothing(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    async with data_centre(tmp_path) as centre:
        await centre.load(busybox_archive(tmp_path))

        siege = await besiege(centre, random.Random(SEED), KILLS, VICTIMS)

        print(siege)
        await until_in_order(centre, siege.customers)
        assert siege.lost == []
        assert siege.unexcused == []
        assert [one for one in siege.recoveries if one.took > STUCK] == []
