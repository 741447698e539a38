"""The moment at which pods are Ready, as a watch tells it: the same for skep and for kubectl."""

import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.cluster.kubernetes.cluster import Cluster

_LINE = '{.metadata.name} {.status.conditions[?(@.type=="Ready")].status}{"\\n"}'
_STARTS = 1.0
"""Seconds until a watch has begun."""
_PATIENCE = 900.0


class Watch:
    """Of pods, each with the moment at which it was seen to be Ready first."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._ready: dict[str, float] = {}
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, args=(lines,), daemon=True)
        self._thread.start()

    def all_ready(self, count: int) -> float:
        """When (`time.monotonic`) so many were.  Raises TimeoutError: they are not."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._ready) >= count, timeout=_PATIENCE):
                raise TimeoutError(f"{len(self._ready)} of {count} pods are Ready")
            return sorted(self._ready.values())[count - 1]

    def _read(self, lines: Iterator[str]) -> None:
        for line in lines:
            name, _, ready = line.strip().partition(" ")
            if ready == "True":
                with self._changed:
                    self._ready.setdefault(name, time.monotonic())
                    self._changed.notify_all()


@contextmanager
def watching(cluster: Cluster, *where: str) -> Iterator[Watch]:
    """`where`: which pods, as kubectl is told."""
    words: Sequence[str] = ("get", "pods", *where, "--watch", f"--output=jsonpath={_LINE}")
    with subprocess.Popen(cluster.kubectl_words(*words), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            time.sleep(_STARTS)
            yield Watch(iter(process.stdout))
        finally:
            process.terminate()
