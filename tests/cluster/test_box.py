"""A data centre in a box, as somebody at a terminal has it: `skep up --hosts 3 --zones 3`.

One box for the whole file; the tests are a story and come in this order.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.bench.installation import free_port
from tests.machines import busybox_archive, traces

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

HOSTS = 3
COMPOSE = """
name: six
services:
  web:
    image: busybox:1
    command:
      - sh
      - -c
      - hostname > /data/index.html; echo here is $$(hostname); exec httpd -f -p 80 -h /data
    ports: ["PORT:80"]
    stop_grace_period: 500ms
    deploy: {replicas: 6, resources: {limits: {memory: 32M}}}
"""
Json = dict[str, Any]


class Someone:
    """Types commands; the box is in directories of its own."""

    def __init__(self, folder: Path) -> None:
        number = secrets.randbelow(200)
        self.folder = folder
        self.instance = f"t{secrets.token_hex(3)}"
        self.subnet = f"198.18.{number + 20}"
        self.port = free_port()
        listen = f"127.0.0.1:{free_port()}"
        self.url = f"http://{listen}"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SKEP_")},
            "SKEP_INSTANCE": self.instance,
            **{f"SKEP_{name.upper()}": str(folder / name) for name in ("data", "run", "etc", "log")},
            "SKEP_LISTEN": listen,
            "SKEP_URL": self.url,
            "SKEP_BOX_UNDERLAY": f"{self.subnet}.0/24",
            "SKEP_POOL_SIZE": "1GiB",
            "SKEP_HOST_TIMEOUT": "3s",
        }

    def type(self, line: str, *, fails: bool = False, **variables: str) -> str:
        """What the command `skep …` prints, on both outputs."""
        done = subprocess.run(
            f"{Path(sys.executable).with_name('skep')} {line}",
            shell=True,
            env=self.environment | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
            check=False,
        )
        assert (done.returncode != 0) == fails, f"skep {line}: {done.returncode}\n{done.stdout}{self.log()}"
        return done.stdout

    def log(self) -> str:
        path = self.folder / "log" / "skep.log"
        return path.read_text()[-3000:] if path.exists() else ""

    def up(self, words: str = "") -> None:
        self.type(f"up {words}")
        self.environment["SKEP_TOKEN"] = (self.folder / "etc" / "admin.token").read_text().strip()

    def ask(self, path: str) -> Any:
        answer = httpx.get(
            f"{self.url}/v1{path}",
            headers={"Authorization": f"Bearer {self.environment['SKEP_TOKEN']}"},
            timeout=10,
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    def hosts(self) -> dict[str, str]:
        return {one["name"]: one["state"] for one in self.ask("/hosts")}

    def replicas(self) -> dict[str, Json]:
        return {one["name"]: one for one in self.ask("/replicas?app=six")}

    def until(self, true: Callable[[], bool], timeout: float = 40) -> None:
        deadline = time.monotonic() + timeout
        while not true():
            assert time.monotonic() < deadline, f"{self.hosts()}\n{self.replicas()}\n{self.log()}"
            time.sleep(0.1)

    def until_well(self) -> None:
        self.until(lambda: set(self.hosts().values()) == {"ready"})
        self.until(lambda: {one["state"] for one in self.replicas().values()} == {"running"})

    def of(self, host: str) -> list[str]:
        """The replicas there."""
        return [name for name, one in self.replicas().items() if one["host"] == host]

    def fetch(self, host: str) -> str:
        """What answers on the published port of the host."""
        address = f"{self.subnet}.{10 + int(host.removeprefix('host-'))}"
        return httpx.get(f"http://{address}:{self.port}/", timeout=5).text.strip()

    def answers(self, host: str) -> bool:
        try:
            return bool(self.fetch(host))
        except httpx.HTTPError:
            return False

    def pid(self, host: str = "") -> int:
        return int((self.folder / "run" / (f"hosts/{host}" if host else "") / "skep.pid").read_text())

    def runs(self, host: str) -> bool:
        """Its agent does."""
        return (self.folder / "run" / "hosts" / host / "skep.pid").exists()

    def containers(self, host: str) -> set[int]:
        """Processes of the host's containers."""
        group = f"{self.instance}-{host.removeprefix('host-')}"
        paths = Path("/sys/fs/cgroup").glob(f"*/{group}/*/cgroup.procs")
        return {int(line) for path in paths for line in path.read_text().split()}

    def left(self) -> list[str]:
        """Everything on the machine that is the box's."""
        names = [self.instance, *(f"{self.instance}-{number}" for number in range(1, HOSTS + 2))]
        found = [trace for name in names for trace in traces(name, self.folder)]
        found += [f"cgroup {path}" for name in names for path in Path("/sys/fs/cgroup").glob(f"*/{name}")]
        links = subprocess.check_output(["ip", "address"], text=True)
        found += [f"link {line}" for line in links.splitlines() if f" {self.subnet}." in line]
        tables = subprocess.check_output(["nft", "list", "tables"], text=True)
        found += [f"nft {line}" for line in tables.splitlines() if f" {self.instance}" in line]
        found += [f"process {pid}" for pid in self._processes()]
        return sorted(set(found))

    def _processes(self) -> Iterator[str]:
        for path in Path("/proc").glob("[0-9]*"):
            try:
                environment = (path / "environ").read_bytes()
            except OSError:
                continue
            if f"{self.folder}/data".encode() in environment and int(path.name) != os.getpid():
                yield f"{path.name} {(path / 'cmdline').read_bytes().decode()[:200]}"


@pytest.fixture(scope="module")
def someone() -> Iterator[Someone]:
    folder = Path(tempfile.mkdtemp(prefix="skep-box-"))
    folder.chmod(0o755)  # the broker has a user of its own
    person = Someone(folder)
    try:
        yield person
    finally:
        person.type("purge --yes")
        shutil.rmtree(folder)


def test_what_makes_no_sense_is_refused_before_anything_is_made(someone: Someone) -> None:
    zones = someone.type("up --hosts 2 --zones 3", fails=True)
    small = someone.type("up --hosts 9", fails=True, SKEP_BOX_UNDERLAY="198.18.7.0/28")
    taken = someone.type("up --hosts 2", fails=True, SKEP_BOX_UNDERLAY="127.0.0.0/24")

    assert "no more zones than hosts" in zones
    assert "addresses for 4 hosts, not for 9" in small
    assert "is taken: lo has 127.0.0.1" in taken
    assert someone.left() == []


def test_hosts_of_a_box_are_there_with_one_command_that_may_be_repeated(someone: Someone) -> None:
    someone.up(f"--hosts {HOSTS} --zones {HOSTS}")
    someone.until(lambda: list(someone.hosts().values()) == ["ready"] * HOSTS)

    again = someone.type(f"up --hosts {HOSTS}")
    fewer = someone.type("up --hosts 2", fails=True)
    zones = {one["name"]: one["zone"] for one in someone.ask("/hosts")}

    assert "up already" in again
    assert "not fewer" in fewer
    assert zones == {f"host-{number}": f"zone-{number}" for number in range(1, HOSTS + 1)}


def test_an_app_spreads_over_the_hosts_and_is_one_network(someone: Someone) -> None:
    archive = busybox_archive(someone.folder)
    (someone.folder / "compose.yaml").write_text(COMPOSE.replace("PORT", str(someone.port)))
    someone.type(f"image import {archive} busybox:1 --shared")

    said = someone.type(f"apply {someone.folder}/compose.yaml")

    replicas = someone.replicas()
    first, last = replicas["web-0"], next(one for one in replicas.values() if one["host"] == "host-3")
    assert (
        sorted(one["host"] for one in replicas.values()) == ["host-1"] * 2 + ["host-2"] * 2 + ["host-3"] * 2
    )
    assert f"http://{someone.subnet}.11:{someone.port}" in said
    for one in replicas.values():
        there = someone.type(f"exec six/{first['name']} -- wget -qO- http://{one['addresses'][0]}/")
        assert there.strip() == one["name"]
    assert someone.type(f"exec six/{last['name']} -- wget -qO- http://web-0/").strip() == "web-0"


def test_published_ports_answer_on_every_host(someone: Someone) -> None:
    answers = {host: someone.fetch(host) for host in someone.hosts()}

    assert all(answers[host] in someone.of(host) for host in answers)


def test_logs_commands_and_figures_come_from_whichever_host_has_them(someone: Someone) -> None:
    logs = someone.type("logs six/web")
    names = [someone.type(f"exec six/web-{number} -- hostname").strip() for number in range(6)]
    usage = json.loads(someone.type("stats six -o json"))

    assert all(f"here is web-{number}" in logs for number in range(6))
    assert names == [f"web-{number}" for number in range(6)]
    assert [one["memory"] > 0 for one in usage] == [True] * 6


def test_an_image_is_built_and_runs_on_every_host(someone: Someone) -> None:
    context = someone.folder / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM busybox:1\nRUN echo built > /built\n")
    (context / "compose.yaml").write_text(
        "name: made\nservices:\n  one:\n    build: .\n    command: [sleep, '1000']\n"
        "    stop_grace_period: 500ms\n    deploy: {replicas: 3}\n"
    )

    someone.type(f"apply {context}/compose.yaml")

    assert [someone.type(f"exec made/one-{number} -- cat /built").strip() for number in range(3)] == [
        "built"
    ] * 3
    assert {one["host"] for one in someone.ask("/replicas?app=made")} == set(someone.hosts())
    someone.type("rm made --volumes --yes")


def test_an_agent_that_is_killed_leaves_its_containers_to_the_next(someone: Someone) -> None:
    before = someone.containers("host-2")

    os.kill(someone.pid("host-2"), 9)
    while_gone = someone.fetch("host-2")
    someone.until(lambda: someone.hosts()["host-2"] == "lost")
    someone.type("box start host-2")
    someone.until_well()

    assert while_gone in someone.of("host-2")
    assert len(before) >= 2
    assert someone.containers("host-2") == before
    assert someone.type(f"exec six/{while_gone} -- hostname").strip() == while_gone


def test_hosts_go_on_without_control_and_are_found_by_the_next(someone: Someone) -> None:
    before = {host: someone.containers(host) for host in someone.hosts()}
    agents = {host: someone.pid(host) for host in before}

    os.kill(someone.pid(), 9)
    answers = [someone.answers(host) for host in before]
    someone.up()
    someone.until_well()

    assert all(answers)
    assert {host: someone.pid(host) for host in before} == agents
    assert {host: someone.containers(host) for host in before} == before
    assert someone.type("exec six/web-5 -- hostname").strip() == "web-5"


def test_a_host_whose_cable_is_pulled_is_lost_and_comes_back(someone: Someone) -> None:
    there = someone.of("host-3")
    before = someone.containers("host-3")

    someone.type("box cut host-3")
    someone.until(lambda: someone.hosts()["host-3"] == "lost")
    states = {name: one["state"] for name, one in someone.replicas().items()}
    reached = {host: someone.answers(host) for host in someone.hosts()}
    listed = someone.type("box ls")
    someone.type("box mend host-3")
    someone.until_well()

    assert {name for name, state in states.items() if state == "unknown"} == set(there)
    assert reached == {"host-1": True, "host-2": True, "host-3": False}
    assert [line.split()[3] for line in listed.splitlines()[1:]] == ["in", "in", "cut"]
    assert someone.containers("host-3") == before
    assert someone.fetch("host-3") in there


def test_a_host_whose_power_is_cut_comes_back_with_its_disks(someone: Someone) -> None:
    there = someone.of("host-2")
    written = "echo kept > /data/kept; sync"
    someone.type(f"exec six/{there[0]} -- sh -c '{written}'")

    someone.type("box kill host-2")
    dead = someone.containers("host-2")
    someone.until(lambda: someone.hosts()["host-2"] == "lost")
    others = someone.answers("host-1") and someone.answers("host-3")
    someone.type("box start host-2")
    someone.until_well()

    assert dead == set()
    assert others
    assert someone.type(f"exec six/{there[0]} -- cat /data/kept").strip() == "kept"


def test_the_logs_of_the_processes_are_events_and_nothing_else(someone: Someone) -> None:
    logs = [someone.folder / "log" / "skep.log", *(someone.folder / "data" / "hosts").glob("*/agent.log")]

    lines = [line for log in logs for line in log.read_text().splitlines()]
    refusals = [line for line in lines if line.startswith("error: ")]

    assert len(logs) == HOSTS + 1
    assert all(json.loads(line)["event"] for line in lines if line not in refusals)


def test_what_was_taken_down_comes_back(someone: Someone) -> None:
    someone.type("down")
    stopped = [path for path in someone.left() if not path.startswith("cgroup")]
    someone.up()
    someone.until(lambda: all(len(someone.containers(host)) >= 2 for host in someone.hosts()))
    someone.until_well()

    assert stopped == []
    assert someone.type("exec six/web-4 -- wget -qO- http://web-0/").strip() == "web-0"


def test_a_box_grows_while_its_containers_go_on(someone: Someone) -> None:
    before = someone.containers("host-1")

    someone.up(f"--hosts {HOSTS + 1}")
    someone.until(lambda: someone.hosts().get("host-4") == "ready")
    someone.until_well()

    assert someone.containers("host-1") == before


@pytest.mark.timeout(300)
def test_what_a_host_ran_that_is_off_for_sure_runs_elsewhere_and_it_does_not_come_back(
    someone: Someone,
) -> None:
    there = someone.of("host-3")
    before = {name: one["addresses"] for name, one in someone.replicas().items()}

    someone.type("box cut host-3")
    someone.until(lambda: someone.hosts()["host-3"] == "lost")
    someone.type("host rm host-3 --fenced")
    someone.until(lambda: not someone.of("host-3"))
    someone.until_well()
    someone.until(lambda: "host-3" not in someone.hosts())
    names = [someone.type(f"exec six/{name} -- hostname").strip() for name in there]
    alone = someone.containers("host-3")
    someone.type("box mend host-3")
    someone.until(lambda: not someone.containers("host-3") and not someone.runs("host-3"))
    someone.type("down")
    someone.up()
    someone.until_well()

    assert names == there
    assert {name: one["addresses"] for name, one in someone.replicas().items()} == before
    assert len(alone) >= 2  # who is cut off cannot know
    assert "host-3" not in someone.hosts()
    assert not someone.runs("host-3")
    assert "was removed" in someone.type("box start host-3", fails=True)


def test_nothing_is_left_even_if_half_of_it_was_missing_already(someone: Someone) -> None:
    (someone.folder / "data" / "box.json").unlink()
    subprocess.run(["ip", "netns", "delete", f"{someone.instance}-host-3"], check=True)

    someone.type("purge --yes")

    assert someone.left() == []
    assert {path.name for path in someone.folder.iterdir()} <= {
        "etc",
        "log",
        "busybox.tar",
        "compose.yaml",
        "context",
    }
    assert list((someone.folder / "etc").iterdir()) == []
