"""`skep exec`: a command in a running replica, with the terminal of the caller."""

import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from skep.cli.client import headers, problem_failure
from skep.cli.common import DEFAULT, Common
from skep.cli.failures import Exit, Failure, unreachable
from skep.cli.names import complete_replica, split
from skep.cli.settings import Context, resolve
from skep.cli.trust import tls
from skep.model.host import ExecSpec


def execute(
    target: Annotated[str, Parameter(completer=complete_replica)],
    /,
    *command: Annotated[str, Parameter(allow_leading_hyphen=True)],
    tty: Annotated[bool | None, Parameter(name=["--tty", "-t"], negative=["--no-tty", "-T"])] = None,
    stdin: Annotated[bool, Parameter(name=["--stdin", "-i"], negative="--no-stdin")] = True,
    env: Annotated[tuple[str, ...], Parameter(name=["--env", "-e"])] = (),
    workdir: Annotated[str | None, Parameter(name=["--workdir", "-w"])] = None,
    user: Annotated[str | None, Parameter(name=["--user", "-u"])] = None,
    common: Common = DEFAULT,
) -> int:
    """Run a command in a replica. Its exit code becomes that of skep.

    Examples: `skep exec shop/db-0 -- sh`; `skep exec shop/web -- cat /etc/hosts`

    Parameters
    ----------
    target
        APP/REPLICA, or APP/SERVICE for its first replica.
    command
        The command with its arguments; without one, `sh`.
    tty
        Give it a terminal; by default when this is one.
    stdin
        Pass on what is typed or piped in.
    env
        NAME=VALUE, an environment variable for the command.
    workdir
        Directory to start in.
    user
        User to run as.
    """
    app, replica = split(target)
    if replica is None:
        raise Failure("Which replica?", Exit.INVALID, f"Write {app}/NAME; `skep ps {app}` lists them.")
    terminal = sys.stdin.isatty() and sys.stdout.isatty() if tty is None else tty
    size = shutil.get_terminal_size()
    spec = ExecSpec(
        args=command or ("sh",),
        tty=terminal,
        stdin=stdin,
        environment=dict(_variable(one) for one in env),
        working_dir=workdir,
        user=user,
        columns=size.columns,
        rows=size.lines,
    )
    context = resolve(common.url, common.token, common.tenant)
    with _connect(context, f"/v1/apps/{app}/replicas/{replica}/exec") as socket:
        socket.send(msgspec.json.encode(spec).decode())
        with _raw(terminal and sys.stdin.isatty()), _resizing(socket, terminal):
            return _converse(socket, stdin)


def _variable(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not name:
        raise Failure(f"{text!r} is not NAME=VALUE.", Exit.INVALID)
    return name, value


@contextmanager
def _connect(context: Context, path: str) -> Iterator[ClientConnection]:
    address = "ws" + context.url.removeprefix("http") + path
    try:
        with connect(
            address,
            additional_headers=headers(context),
            ssl=tls(context),
            open_timeout=10,
            max_size=None,
            proxy=None,
            compression=None,
        ) as socket:
            yield socket
    except InvalidStatus as error:
        raise problem_failure(bytes(error.response.body or b"")) from error
    except (OSError, TimeoutError) as error:
        raise unreachable(context.url, str(error)) from error


def _converse(socket: ClientConnection, stdin: bool) -> int:
    if stdin:
        threading.Thread(target=_send_stdin, args=(socket,), daemon=True).start()
    try:
        for message in socket:
            if isinstance(message, bytes):
                _write(2 if message[0] == 2 else 1, message[1:])
                continue
            end = json.loads(message)
            if "exit" in end:
                return int(end["exit"])
            raise problem_failure(json.dumps(end["error"]))
    except ConnectionClosed as error:
        raise Failure(f"The connection broke: {error}", Exit.UNREACHABLE) from error
    raise Failure("The server ended the connection; the command may have been killed.", Exit.UNREACHABLE)


def _send_stdin(socket: ClientConnection) -> None:
    """Runs beside the conversation and is left behind when that ends."""
    try:
        while data := os.read(0, 32_768):
            socket.send(b"\x00" + data)
        socket.send('{"eof": true}')
    except (ConnectionClosed, OSError):
        return


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


@contextmanager
def _raw(wanted: bool) -> Iterator[None]:
    """The terminal hands over every key as it is; its former mode comes back in any case."""
    if not wanted:
        yield
        return
    import termios
    import tty

    before = termios.tcgetattr(0)
    tty.setraw(0, termios.TCSADRAIN)  # what was typed ahead is not lost
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextmanager
def _resizing(socket: ClientConnection, wanted: bool) -> Iterator[None]:
    """Tell the other side when the window changes."""
    if not wanted:
        yield
        return

    def tell(*_: Any) -> None:
        size = os.get_terminal_size(0) if os.isatty(0) else shutil.get_terminal_size()
        message = json.dumps({"resize": [size.columns, size.lines]})
        threading.Thread(target=_quietly_send, args=(socket, message), daemon=True).start()

    before = signal.signal(signal.SIGWINCH, tell)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def _quietly_send(socket: ClientConnection, message: str) -> None:
    """From a thread of its own: a signal may arrive while the main thread holds the socket's lock."""
    try:
        socket.send(message)
    except ConnectionClosed:
        return
