"""The process itself: alone in its installation, on its address, as root, with a log.  Used by `main`."""

import asyncio
import fcntl
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import structlog

from skep.configuration import Configuration
from skep.model.errors import Conflict, Forbidden

_PATIENCE = 10.0
"""Seconds that a server which is ending has to give its place to the next one."""


@contextmanager
def listener_on(settings: Configuration) -> Iterator[socket.socket]:
    """The API's address, ours before anything is made.

    Raises:
        Conflict: somebody else has it, or it is none of this machine.
    """
    host, port = settings.address
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            reason = error.strerror or str(error)
            raise Conflict(
                f"skep cannot listen on {settings.listen}: {reason}. "
                "'listen' in skep.yaml, or SKEP_LISTEN, chooses another address."
            ) from error
        yield listener


@contextmanager
def alone(settings: Configuration) -> Iterator[None]:
    """One process per installation; its pid is in RUN/skep.pid while it lives.

    Raises:
        Conflict: another one is there, and stays.
    """
    settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    settings.data.chmod(0o700)  # whoever made it: what lies in images runs as root for whoever reaches it
    settings.run.mkdir(parents=True, exist_ok=True, mode=0o700)
    pid_file = settings.run / "skep.pid"
    with (settings.data / "skep.lock").open("w") as lock:
        if not _locked(lock, _PATIENCE):
            raise Conflict(f"skep is up already with {settings.data} (see {pid_file}).")
        pid_file.write_text(f"{os.getpid()}\n")
        try:
            yield
        finally:
            pid_file.unlink(missing_ok=True)


def _locked(lock: TextIO, patience: float) -> bool:
    """Whether the lock is ours, if need be after `patience` seconds: who has it may be about to end."""
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        else:
            return True


def stopped() -> asyncio.Event:
    """Set when somebody asks this process to end: SIGTERM or SIGINT."""
    event = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, event.set)
    return event


def collect_garbage_seldom() -> None:
    """What was imported stays for ever, and most objects die by their count: a fifth of the time of a busy
    process went into looking at them all again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def must_be_root() -> None:
    """Raises Forbidden: it is not."""
    if os.geteuid() != 0:
        raise Forbidden(
            "skep makes namespaces, mounts and containers, so it must be started as root: use sudo."
        )


def log_events() -> None:
    """Events with fields: one JSON object per line, or coloured text on a terminal."""
    # Plain tracebacks: the rich ones print the values of variables, and secrets are among them.
    on_terminal = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    renderer = on_terminal if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
