"""Counting who is connected, from the kernel's tables."""

from skep.providers.local.connections import count, inbound

TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   1: 0300010A:0050 0900010A:D431 01 00000000:00000000 00:00000000 00000000     0        0 2 1
   2: 0100007F:0050 0100007F:D432 01 00000000:00000000 00:00000000 00000000     0        0 3 1
   3: 0300010A:A1B2 0500010A:1538 01 00000000:00000000 00:00000000 00000000     0        0 4 1
   4: 0300010A:0050 0900010A:D430 06 00000000:00000000 00:00000000 00000000     0        0 0 3
"""


def test_only_open_connections_from_outside_to_a_listening_port_count() -> None:
    assert count(TABLE) == 1


def test_connections_of_a_process_that_has_ended_are_none() -> None:
    assert inbound(2**30) == 0
