"""The demonstration of the flow engine keeps all its promises, with one command."""

import subprocess
import sys

import pytest
from tests.docs.conftest import ROOT

STORIES = 4


@pytest.mark.slow
def test_the_demonstration_of_flows_keeps_its_promises() -> None:
    done = subprocess.run(
        [sys.executable, "examples/flows/demo.py"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )

    assert done.returncode == 0, done.stdout
    assert all(f"\n{number}. " in done.stdout for number in range(1, STORIES + 1)), done.stdout
    assert done.stdout.count("✓") >= 2 * STORIES, done.stdout
