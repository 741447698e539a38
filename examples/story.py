"""Tells what the demonstration does, with the time each thing took, and checks what it promises."""

import time


class Story:
    """Prints chapters, events and proofs; `broken` counts the promises that were not kept."""

    def __init__(self) -> None:
        self.broken = 0
        self._chapter = 0
        self._began = time.monotonic()

    def chapter(self, title: str) -> None:
        self._chapter += 1
        self._began = time.monotonic()
        print(f"\n{self._chapter}. {title}\n", flush=True)

    def tell(self, event: str) -> None:
        print(f"   {time.monotonic() - self._began:7.3f} s   {event}", flush=True)

    def check(self, promise: str, kept: bool) -> None:
        self.broken += not kept
        print(f"             {'✓' if kept else '✗ NOT SO:'} {promise}", flush=True)

    def finish(self) -> int:
        """Say how it went; answers the exit code."""
        if self.broken:
            print(f"\n{self.broken} promises were not kept.")
            return 1
        print("\nEverything happened as promised.")
        return 0
