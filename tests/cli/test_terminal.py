"""What happens on a terminal."""

import fcntl
import struct
import termios

import pytest
from tests.cli.conftest import Skep
from tests.cli.test_commands import running, shop

__all__ = ["running", "shop"]


def test_exec_gives_a_terminal_and_follows_its_size(running: Skep) -> None:
    terminal = running.terminal("exec", "shop/web-0", "--", "sh")
    try:
        fcntl.ioctl(terminal.master, termios.TIOCSWINSZ, struct.pack("HHHH", 31, 91, 0, 0))
        terminal.type("test -t 0 && echo tty-$((40+2))\n")
        terminal.until("tty-42")
        fcntl.ioctl(terminal.master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 93, 0, 0))
        terminal.type("sleep 0.3; stty size\n")
        terminal.until("33 93")
        terminal.type("exit 9\n")
        assert terminal.wait() == 9
    finally:
        terminal.close()


def test_ctrl_c_in_exec_goes_to_the_command_and_the_terminal_is_restored(running: Skep) -> None:
    terminal = running.terminal("exec", "shop/web-0", "--", "sh", "-c", "echo begun; sleep 60; echo never")
    before = termios.tcgetattr(terminal.master)
    try:
        terminal.until("begun")
        terminal.type("\x03")
        code = terminal.wait()
        assert code == 130
        assert "never" not in terminal.seen
        assert termios.tcgetattr(terminal.master)[3] == before[3]
    finally:
        terminal.close()


def test_apply_draws_what_goes_on(shop: Skep) -> None:
    shop.world.pace = 0.05
    terminal = shop.terminal("apply", "--no-build")
    try:
        assert terminal.wait() == 0
        assert "apply shop" in terminal.seen
        assert "web-0" in terminal.seen
        assert "\x1b[" in terminal.seen
        assert "✓" in terminal.seen
        assert "http://127.0.0.1:8080" in terminal.seen
    finally:
        terminal.close()


def test_ctrl_c_in_apply_leaves_the_run_going(shop: Skep) -> None:
    shop.world.pace = 0.3
    terminal = shop.terminal("apply", "--no-build")
    try:
        terminal.until("web-0")
        terminal.type("\x03")
        assert terminal.wait() == 130
        assert "skep run follow" in terminal.seen
        assert "skep run cancel" in terminal.seen
        assert shop.world.cancelled == set()
    finally:
        terminal.close()


@pytest.mark.parametrize(("extra", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colour_is_for_terminals_that_want_it(running: Skep, extra: dict[str, str], coloured: bool) -> None:
    running.extra = extra
    terminal = running.terminal("ps")
    try:
        assert terminal.wait() == 0
        assert ("\x1b[32m" in terminal.seen) is coloured
    finally:
        terminal.close()
