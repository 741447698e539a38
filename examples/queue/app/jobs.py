"""The work: counting primes takes a while and needs nothing."""

import socket


def count_primes(below):
    sieve = bytearray([1]) * below
    sieve[:2] = b"\0\0"
    for number in range(2, int(below**0.5) + 1):
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(range(number * number, below, number)))
    return {"primes": sum(sieve), "below": below, "worker": socket.gethostname()}
