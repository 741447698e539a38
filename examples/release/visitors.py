"""Many who keep asking the shop by its name, and count what they get."""

import http.client
import threading
import time
from collections import Counter
from dataclasses import dataclass

PATIENCE = 10.0


@dataclass(frozen=True)
class Count:
    """`pause`: the longest time without an answer, in seconds.  `reasons`: of failures, and how many each."""

    answered: int
    reasons: Counter[str]
    pause: float

    @property
    def failed(self) -> int:
        return self.reasons.total()

    def __str__(self) -> str:
        why = "".join(f" ({number} x {reason})" for reason, number in self.reasons.most_common(3))
        return (
            f"{self.answered} answered, {self.failed} failed{why}, longest pause {self.pause * 1000:.0f} ms"
        )


class Visitors:
    """Threads that ask one path after the other; half of them open a connection for each question."""

    def __init__(self, port: int, host: str, paths: tuple[str, ...], threads: int = 8) -> None:
        self._port, self._host, self._paths = port, host, paths
        self._lock = threading.Lock()
        self._enough = threading.Event()
        self._ends: list[float] = [time.monotonic()]
        self._reasons = Counter[str]()
        self._threads = [
            threading.Thread(target=self._ask_on, args=(number % 2 == 0,), daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def count(self) -> Count:
        """Since the last time it was asked."""
        with self._lock:
            ends, self._ends = self._ends, self._ends[-1:]
            reasons, self._reasons = self._reasons, Counter[str]()
        ends.sort()
        now = time.monotonic()
        pauses = [after - before for before, after in zip(ends, [*ends[1:], now], strict=True)]
        return Count(answered=len(ends) - 1, reasons=reasons, pause=max(pauses))

    def stop(self) -> None:
        self._enough.set()
        for thread in self._threads:
            thread.join()

    def _ask_on(self, keep_alive: bool) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        number = 0
        while not self._enough.wait(0.01):
            path = self._paths[number % len(self._paths)]
            number += 1
            wrong = self._ask(connection, path, keep_alive)
            with self._lock:
                if wrong:
                    self._reasons[f"{path}: {wrong}"] += 1
                else:
                    self._ends.append(time.monotonic())
            if wrong or not keep_alive:
                connection.close()

    def _ask(self, connection: http.client.HTTPConnection, path: str, keep_alive: bool) -> str:
        """What went wrong; "" is well."""
        headers = {"Host": self._host} | ({} if keep_alive else {"Connection": "close"})
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            return repr(error)
        return "" if answer.status == 200 else str(answer.status)
