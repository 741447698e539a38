"""A process that has imported all that the processes of bundles need, and does nothing but fork them.

A fork costs a few milliseconds and shares its memory; a Python that imports all that anew costs a second.  It
has one thread and has never seen code of a bundle.
"""

import gc
import os
import select
import signal
import socket
import traceback

from skep.flow.bundles import child
from skep.flow.bundles.confinement import die_with_parent

MOST_DESCRIPTORS = 4096


def main(descriptor: int) -> None:
    """Serve the worker at the other end of the socket until it closes it.

    A message with two descriptors asks for a process: its channel and its output.  One without is the number
    of a process to be killed.  Answers: `born PID` in the order of asking, `died PID CODE`.
    """
    die_with_parent()
    door = socket.socket(fileno=descriptor)
    ears, mouth = socket.socketpair()
    for end in (ears, mouth):
        end.setblocking(False)
    signal.set_wakeup_fd(mouth.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    gc.freeze()
    nursery = _Nursery(door)
    while True:
        ready, _, _ = select.select([door, ears], [], [])
        if ears in ready:
            ears.recv(4096)
            nursery.reap()
        if door in ready and not nursery.serve():
            os._exit(0)  # the kernel kills whoever is left


class _Nursery:
    def __init__(self, door: socket.socket) -> None:
        self._door = door
        self._children: set[int] = set()

    def serve(self) -> bool:
        """False once the worker is gone."""
        message, descriptors, _, _ = socket.recv_fds(self._door, 64, 2)
        if not message:
            return False
        if descriptors:
            self._fork(*descriptors)
        elif int(message) in self._children:
            os.kill(int(message), signal.SIGKILL)
        return True

    def reap(self) -> None:
        while self._children:
            number, status = os.waitpid(-1, os.WNOHANG)
            if number == 0:
                return
            self._children.discard(number)
            self._door.send(f"died {number} {os.waitstatus_to_exitcode(status)}".encode())

    def _fork(self, channel: int, output: int) -> None:
        number = os.fork()
        if number == 0:
            self._become(channel, output)
        os.close(channel)
        os.close(output)
        self._children.add(number)
        self._door.send(f"born {number}".encode())

    def _become(self, channel: int, output: int) -> None:
        """Never returns."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.closerange(3, channel)  # the door among them: nobody but the worker may ask for processes
            os.closerange(channel + 1, MOST_DESCRIPTORS)
            child.main(channel)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
