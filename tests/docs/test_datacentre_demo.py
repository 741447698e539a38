"""The demonstration of many hosts keeps all its promises, with one command."""

import subprocess
import sys

import pytest
from tests.docs.conftest import ROOT

STORIES = 6


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_demonstration_of_a_data_centre_keeps_its_promises() -> None:
    done = subprocess.run(
        [sys.executable, "examples/datacentre/demo.py", "--quick"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
        check=False,
    )

    assert done.returncode == 0, done.stdout
    assert all(f"\n{number}. " in done.stdout for number in range(1, STORIES + 1)), done.stdout
    assert "left: nothing" in done.stdout, done.stdout
