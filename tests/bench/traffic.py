"""Traffic between two network namespaces: `traffic.py serve PORT`, `stream ADDRESS PORT SECONDS` in bytes per
second, `ask ADDRESS PORT SECONDS` in seconds per question.  One JSON list or number on stdout."""

import json
import socket
import sys
import time

CHUNK = 1 << 20


def serve(port: int) -> None:
    """Count what comes and say how much; send back what is a question (begins with a zero)."""
    with socket.create_server(("0.0.0.0", port)) as listener:
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection:
                (echo if connection.recv(1) == b"\0" else count)(connection)


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


def ask(address: str, port: int, seconds: float) -> list[float]:
    with socket.create_connection((address, port), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(b"\0")
        took, end = [], time.monotonic() + seconds
        while (began := time.perf_counter()) and time.monotonic() < end:
            connection.sendall(b"x" * 64)
            connection.recv(64)
            took.append(time.perf_counter() - began)
        return took


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", port]:
            serve(int(port))
        case ["stream", address, port, seconds]:
            print(json.dumps(stream(address, int(port), float(seconds))))
        case ["ask", address, port, seconds]:
            print(json.dumps(ask(address, int(port), float(seconds))))
