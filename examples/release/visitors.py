"""Many who keep asking the shop by its name, and count what they get."""

import http.client
import threading
import time
from dataclasses import dataclass

PATIENCE = 10.0


@dataclass(frozen=True)
class Count:
    """`pause`: the longest time without an answer, in seconds."""

    answered: int
    failed: int
    pause: float

    def __str__(self) -> str:
        return f"{self.answered} answered, {self.failed} failed, longest pause {self.pause * 1000:.0f} ms"


class Visitors:
    """Threads that ask one path after the other; half of them open a connection for each question."""

    def __init__(self, port: int, host: str, paths: tuple[str, ...], threads: int = 8) -> None:
        self._port, self._host, self._paths = port, host, paths
        self._lock = threading.Lock()
        self._enough = threading.Event()
        self._ends: list[float] = [time.monotonic()]
        self._failed = 0
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
            failed, self._failed = self._failed, 0
        ends.sort()
        now = time.monotonic()
        pauses = [after - before for before, after in zip(ends, [*ends[1:], now], strict=True)]
        return Count(answered=len(ends) - 1, failed=failed, pause=max(pauses))

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
            well = self._ask(connection, path, keep_alive)
            with self._lock:
                if well:
                    self._ends.append(time.monotonic())
                else:
                    self._failed += 1
            if not (well and keep_alive):
                connection.close()

    def _ask(self, connection: http.client.HTTPConnection, path: str, keep_alive: bool) -> bool:
        headers = {"Host": self._host} | ({} if keep_alive else {"Connection": "close"})
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            return False
        return answer.status == 200
