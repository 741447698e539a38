"""Traffic between two network namespaces: `traffic.py serve PORT`, `stream ADDRESS PORT SECONDS` in bytes per
second, `ask ADDRESS PORT COUNT SERVER` in seconds of processor time per question.  One JSON number on stdout.

A question is measured by what both ends and the way between them cost one processor, on which both are: that
is the time it takes without the waking of idle processors, and what else runs on the machine adds nothing.
`SERVER` is the process that answers.
"""

import json
import os
import socket
import sys
import time

CHUNK = 1 << 20


def serve(port: int) -> None:
    """Count what comes and say how much; send back what is a question (begins with a zero)."""
    everywhere = os.sched_getaffinity(0)
    with socket.create_server(("0.0.0.0", port)) as listener:
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection:
                asked = connection.recv(1) == b"\0"
                os.sched_setaffinity(0, {max(everywhere)} if asked else everywhere)
                (echo if asked else count)(connection)


def echo(connection: socket.socket) -> None:
    while question := connection.recv(64):
        connection.sendall(question)


def count(connection: socket.socket) -> None:
    buffer, total, began = bytearray(CHUNK), 0, time.monotonic()
    while got := connection.recv_into(buffer):
        total += got
    connection.sendall(json.dumps(total / (time.monotonic() - began)).encode())


def stream(address: str, port: int, seconds: float) -> float:
    with socket.create_connection((address, port), timeout=20) as connection:
        block, end = b"\1" * CHUNK, time.monotonic() + seconds
        while time.monotonic() < end:
            connection.sendall(block)
        connection.shutdown(socket.SHUT_WR)
        return float(connection.recv(100))


def ask(address: str, port: int, count: int, server: int) -> float:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    clock = ~server << 3 | 2  # of the process with that id, as clock_getcpuclockid(3) has it
    with socket.create_connection((address, port), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(b"\0")
        began = time.process_time() + time.clock_gettime(clock)
        for _ in range(count):
            connection.sendall(b"x" * 64)
            connection.recv(64)
        return (time.process_time() + time.clock_gettime(clock) - began) / count


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", port]:
            serve(int(port))
        case ["stream", address, port, seconds]:
            print(json.dumps(stream(address, int(port), float(seconds))))
        case ["ask", address, port, number, server]:
            print(json.dumps(ask(address, int(port), int(number), int(server))))
