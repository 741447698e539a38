"""How many replicas, how much each may use, and when one is started again."""

import re
from collections.abc import Callable
from typing import Literal, TypeVar

from skep.compose.cursor import Cursor
from skep.model.spec import Resources, RestartPolicy, Ulimit

MOST_REPLICAS = 10_000
LEAST_MEMORY = 4 * 1024 * 1024
_MOST = 2**63 - 1
_RLIMITS = frozenset(
    {"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc"}
    | {"rss", "rtprio", "rttime", "sigpending", "stack"}
)

Condition = Literal["no", "on-failure", "always", "unless-stopped"]
T = TypeVar("T", int, float)


def read_replicas(service: Cursor) -> int:
    """`scale` or `deploy.replicas`, which may not differ; 1 without either."""
    found = _same(
        service.get("scale"), service.get("deploy").get("replicas"), lambda at: at.integer(0, MOST_REPLICAS)
    )
    return 1 if found is None else found


def read_resources(service: Cursor) -> Resources:
    """`deploy.resources` and the older `cpus`, `mem_limit`, `mem_reservation`, `pids_limit`."""
    limits = service.get("deploy").get("resources").get("limits")
    reserved = service.get("deploy").get("resources").get("reservations")
    memory = _same(service.get("mem_limit"), limits.get("memory"), _memory)
    reservation = _same(service.get("mem_reservation"), reserved.get("memory"), Cursor.size)
    if memory and reservation and reservation > memory:
        at = reserved.get("memory") if reserved.has("memory") else service.get("mem_reservation")
        at.error("more memory is reserved than the limit allows")
    return Resources(
        cpus=_same(service.get("cpus"), limits.get("cpus"), _cpus) or None,
        memory=memory or None,
        memory_reservation=reservation or None,
        pids=_same(service.get("pids_limit"), limits.get("pids"), _pids) or None,
    )


def _same(older: Cursor, newer: Cursor, read: Callable[[Cursor], T | None]) -> T | None:
    """The value of a setting that has two places; different values are an error."""
    old, new = read(older), read(newer)
    if old is not None and new is not None and old != new:
        newer.error(f"differs from {older.path.rsplit('.', 1)[-1]} at {older.position}")
    return old if new is None else new


def _memory(cursor: Cursor) -> int | None:
    size = cursor.size()
    if size and size < LEAST_MEMORY:
        cursor.error("must be at least 4m")
        return None
    return size


def _cpus(cursor: Cursor) -> float | None:
    return cursor.number(0, 1024)


def _pids(cursor: Cursor) -> int | None:
    """-1 and 0 mean "no limit of its own"."""
    number = cursor.integer(-1, 4_194_304)
    return None if number is None else max(number, 0)


def read_ulimits(cursor: Cursor) -> dict[str, Ulimit]:
    result: dict[str, Ulimit] = {}
    for name, limit in cursor.entries():
        if name not in _RLIMITS:
            limit.error(f"{name[:20]!r} is no limit of Linux: {', '.join(sorted(_RLIMITS))}")
            continue
        soft, hard = limit.get("soft").integer(-1, _MOST), limit.get("hard").integer(-1, _MOST)
        if soft is None or hard is None:
            continue
        if hard != -1 and (soft == -1 or soft > hard):
            limit.error("the soft limit is above the hard one")
            continue
        result[name] = Ulimit(soft=soft, hard=hard)
    return result


_RESTART = re.compile(r"(no|always|on-failure|unless-stopped)(?::(\d{1,9}))?")
_CONDITIONS: dict[str, Condition] = {
    "none": "no",
    "no": "no",
    "on-failure": "on-failure",
    "any": "always",
    "always": "always",
    "unless-stopped": "unless-stopped",
}


def read_restart(service: Cursor) -> RestartPolicy | None:
    """`deploy.restart_policy`, else `restart`; None where the file says neither."""
    policy = service.get("deploy").get("restart_policy")
    return _read_policy(policy) if policy.exists else _read_short(service.get("restart"))


def _read_short(cursor: Cursor) -> RestartPolicy | None:
    text = cursor.text()
    if not text:
        return None
    match = _RESTART.fullmatch(text)
    if not match or (match[2] and match[1] != "on-failure"):
        cursor.error(f"{text[:40]!r}: must be no, always, unless-stopped, on-failure or on-failure:5")
        return None
    return RestartPolicy(condition=_CONDITIONS[match[1]], max_attempts=int(match[2] or 0) or None)


def _read_policy(policy: Cursor) -> RestartPolicy | None:
    text = policy.get("condition").text() or "any"
    if text not in _CONDITIONS:
        policy.get("condition").error(f"{text[:40]!r}: must be none, on-failure or any")
        return None
    default = RestartPolicy()
    delay, window = policy.get("delay").duration(), policy.get("window").duration()
    return RestartPolicy(
        condition=_CONDITIONS[text],
        max_attempts=policy.get("max_attempts").integer(0, 1_000_000) or None,
        delay=default.delay if delay is None else delay,
        window=default.window if window is None else window,
    )
