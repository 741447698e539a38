"""Somebody who keeps asking the shop, whatever happens to the data centre."""

import threading
import time
from urllib.error import URLError
from urllib.request import urlopen

PAUSE = 0.1
PATIENCE = 5.0


class Customer:
    """Asks in a thread of its own, ten times a second at most, until `stop`."""

    def __init__(self, url: str) -> None:
        self.answered = 0
        self.failed = 0
        self.longest = 0.0
        """Seconds between two answers, at worst."""
        self._url = url
        self._last = time.monotonic()
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._ask_on, daemon=True)
        self._thread.start()

    def __str__(self) -> str:
        return (
            f"{self.answered} answered, {self.failed} failed; "
            f"at worst {self.longest:.1f} s passed from one answer to the next"
        )

    def is_served_again(self, patience: float = 30.0) -> bool:
        """Whether ten answers come in the time."""
        wanted, deadline = self.answered + 10, time.monotonic() + patience
        while self.answered < wanted and time.monotonic() < deadline:
            time.sleep(PAUSE)
        return self.answered >= wanted

    def stop(self) -> None:
        self._enough.set()
        self._thread.join()

    def _ask_on(self) -> None:
        while not self._enough.wait(PAUSE):
            if self._ask():
                now = time.monotonic()
                self.longest = max(self.longest, now - self._last)
                self._last = now
                self.answered += 1
            else:
                self.failed += 1

    def _ask(self) -> bool:
        try:
            with urlopen(self._url, timeout=PATIENCE) as answer:  # noqa: S310 - the shop's own
                return bool(answer.read().strip())
        except (URLError, OSError):
            return False
