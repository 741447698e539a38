"""The proof kit: fail anywhere, crash anywhere, repeat anywhere, and the world must look as promised.

For the tests of whoever writes flows; one line gives all laws for a flow:

    test_replica_create = prove("replica.create", {"replica": "web-0"}, registry=make_registry, world=MyWorld)

1. *Fail anywhere.*  Whichever step fails, before or after its effect, the world is as before the run.
2. *Crash anywhere.*  Whichever commit or step the process dies at, another engine on the same database ends
   the run, and the world is as without the crash; also while a failed run is being undone.
3. *Repeat anywhere.*  Every do and undo of an idempotent step is called twice, and the world is the same.
"""

from skep.flow.testing.crashing import BrokenAtCommit, CrashingDatabase
from skep.flow.testing.deliveries import Deliveries
from skep.flow.testing.injection import (
    Around,
    Failing,
    Injected,
    InjectingRegistry,
    failing,
    repeating,
    untouched,
)
from skep.flow.testing.laws import Proof, check_one_way, check_three_laws
from skep.flow.testing.proving import prove
from skep.flow.testing.trial import Answers, InStep, LawBroken, Operator, Trial
from skep.flow.testing.trials import Databases, Trials
from skep.flow.testing.virtual_time import Stuck, VirtualTime, in_virtual_time
from skep.flow.testing.worlds import World, Worlds, worlds_of

__all__ = [
    "Answers",
    "Around",
    "BrokenAtCommit",
    "CrashingDatabase",
    "Databases",
    "Deliveries",
    "Failing",
    "InStep",
    "Injected",
    "InjectingRegistry",
    "LawBroken",
    "Operator",
    "Proof",
    "Stuck",
    "Trial",
    "Trials",
    "VirtualTime",
    "World",
    "Worlds",
    "check_one_way",
    "check_three_laws",
    "failing",
    "in_virtual_time",
    "prove",
    "repeating",
    "untouched",
    "worlds_of",
]
