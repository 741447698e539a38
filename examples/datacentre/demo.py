"""A demonstration of skep on many hosts: `make demo-dc`, as root.

Six hosts in three zones on this machine, PostgreSQL, RabbitMQ and one worker more, in a temporary directory;
the shop across them; a host and the processes of control killed while a customer keeps asking.
Ends with 1 if something that is promised was not seen.  `--quick`: three hosts and a shop of busybox.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from centre import ROOT, Centre
from customer import Customer
from story import Story

HERE = Path(__file__).parent
SHOWN = 40
TAKEN_OVER = 10.0
"""Seconds after which somebody else surely has the runs of a process that died."""
BASE = "SKEP_DEMO_BASE"
"""Names an archive of debian:bookworm, in place of making one from the Debian archive."""


class Demonstration:
    def __init__(self, story: Story, centre: Centre, *, quick: bool) -> None:
        self.story = story
        self.centre = centre
        self.hosts = 3 if quick else 6
        self.compose = HERE / "small" / "compose.yaml" if quick else ROOT / "examples/shop/compose.yaml"
        self.path = "/cgi-bin/shop" if quick else "/api/shop"
        self.quick = quick

    def tell(self) -> None:
        self.hosts_come_up()
        customer = self.the_shop_opens()
        victim = self.a_host_dies(customer)
        self.processes_die(customer)
        self.the_host_comes_back(victim, customer)
        customer.stop()
        self.story.tell(f"the customer, all in all: {customer}")

    def hosts_come_up(self) -> None:
        story, centre = self.story, self.centre
        story.chapter(f"{self.hosts} hosts in 3 zones, PostgreSQL, RabbitMQ, one worker more")
        centre.up("--hosts", str(self.hosts), "--zones", "3")
        story.tell("skep up: control answers")
        centre.start_worker()
        story.tell("skep worker: it works with control on the same database and broker")
        ready = centre.until(lambda: list(centre.hosts().values()) == ["ready"] * self.hosts)
        self.show("host", "ls")
        story.check(f"all {self.hosts} hosts have joined and are ready", ready)

    def the_shop_opens(self) -> Customer:
        story, centre = self.story, self.centre
        story.chapter(f"The shop across them  ({self.compose.relative_to(ROOT)})")
        self.make_images()
        centre.skep("apply", str(self.compose))
        story.tell("skep apply: done")
        self.show("ps")
        self.show("net", "map")
        replicas = centre.replicas()
        zones = {one["name"]: one["zone"] for one in centre.get("host", "ls")}
        story.check("every replica runs", {one["state"] for one in replicas} == {"running"})
        story.check(
            "the two API servers are in different zones",
            len({zones[one["host"]] for one in replicas if one["service"] == "api"}) == 2,
        )
        url = centre.get("show", "shop")["app"]["urls"][0]
        story.tell(f"a customer begins to ask {url}{self.path}")
        customer = Customer(url + self.path)
        story.check("the published port answers on the address of its host", customer.is_served_again())
        if not self.quick:
            self.buy(url)
        return customer

    def make_images(self) -> None:
        archive = self.centre.folder / "busybox.tar"
        self.run(str(ROOT / "scripts" / "base-image"), str(archive))
        self.centre.skep("image", "import", str(archive), "busybox:latest", "--shared")
        if self.quick:
            return
        if base := os.environ.get(BASE):
            self.centre.skep("image", "import", base, "debian:bookworm", "--shared")
        else:
            self.centre.skep("image", "bootstrap", "debian")
        self.story.tell("debian:bookworm is there; the images of the shop are built on it")

    def buy(self, url: str) -> None:
        said = self.run(str(ROOT / "examples/shop/check.sh"), url)
        self.story.check(f"an order went through web, API and database ({said})", "shop answers" in said)

    def a_host_dies(self, customer: Customer) -> str:
        story, centre = self.story, self.centre
        story.chapter("A host loses its power")
        needed = {one["host"] for one in centre.replicas() if one["service"] != "api"}
        victim = next(
            one["host"] for one in centre.replicas() if one["service"] == "api" and one["host"] not in needed
        )
        failed = customer.failed
        centre.skep("box", "kill", victim)
        story.tell(f"skep box kill {victim}, which runs an API server")
        lost = centre.until(lambda: centre.hosts()[victim] == "lost")
        self.show("host", "ls")
        self.show("ps")
        states = {one["host"]: one["state"] for one in centre.replicas()}
        story.check(f"{victim} is lost, and all others are ready", lost and self.others_are_ready(victim))
        story.check("what it ran is unknown, not dead", states.pop(victim) == "unknown")
        story.check("all that the others run goes on", set(states.values()) == {"running"})
        story.check("the customer is served by the API server that is left", customer.is_served_again())
        story.tell(f"the customer: {customer.failed - failed} questions failed meanwhile; {customer}")
        return str(victim)

    def processes_die(self, customer: Customer) -> None:
        story, centre = self.story, self.centre
        story.chapter("Control is killed, and then the worker that took over  (errand.yaml)")
        centre.skep("apply", str(HERE / "errand.yaml"), "--no-wait")
        run = next(one["id"] for one in centre.get("run", "ls") if "errand" in one["title"])
        first = self.worker_of(run)
        story.tell(f"a run that takes its time has begun; {first} has it")
        served = customer.answered
        centre.kill_control()
        story.tell("kill -9 of control: no API any more")
        story.check("the customer does not notice", customer.is_served_again(10))
        time.sleep(TAKEN_OVER)
        centre.up()
        story.tell("skep up: control is there again")
        taken = centre.until(lambda: self.worker_of(run) not in ("", first))
        second = self.worker_of(run)
        story.check(f"{second} has taken the run over", taken and second.startswith("worker"))
        centre.kill_worker()
        story.tell("kill -9 of that worker")
        ended = centre.until(lambda: self.state_of(run) in ("succeeded", "failed"), 120)
        story.tell(f"the run: {self.state_of(run)}, in the end by {self.worker_of(run) or second}")
        story.check("the run has outlived both", ended and self.state_of(run) == "succeeded")
        story.check("its replica was made once", len(centre.replicas("errand")) == 1)
        story.tell(f"the customer: {customer.answered - served} answers meanwhile")

    def the_host_comes_back(self, victim: str, customer: Customer) -> None:
        story, centre = self.story, self.centre
        story.chapter(f"{victim} is switched on again")
        before = {one["started"] for one in centre.replicas() if one["host"] == victim}
        centre.skep("box", "start", victim)
        ready = centre.until(lambda: centre.hosts()[victim] == "ready")
        runs = centre.until(
            lambda: all(
                one["state"] == "running" and (one["host"] != victim or one["started"] not in before)
                for one in centre.replicas()
            )
        )
        self.show("ps", "shop")
        story.check(f"{victim} is ready", ready)
        story.check("everything runs, on the hosts and addresses where it was", runs)
        story.check("the customer is served", customer.is_served_again())

    def others_are_ready(self, victim: str) -> bool:
        return {state for host, state in self.centre.hosts().items() if host != victim} == {"ready"}

    def state_of(self, run: str) -> str:
        return str(self.centre.get("run", "show", run)["run"]["state"])

    def worker_of(self, run: str) -> str:
        return str(self.centre.get("run", "show", run)["run"]["worker"])

    def show(self, *words: str) -> None:
        """What a command prints, as it stands on the terminal."""
        lines = self.centre.skep(*words).splitlines()
        print("\n".join(["", f"   $ skep {' '.join(words)}", *(f"   {line}" for line in lines[:SHOWN]), ""]))

    def run(self, *command: str) -> str:
        return subprocess.run(
            command, env=self.centre.environment, check=True, capture_output=True, text=True
        ).stdout.strip()


def main() -> int:
    if os.geteuid() != 0:
        sys.exit("error: this makes namespaces, mounts and containers: use sudo.")
    story = Story()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was made is taken down
    with Centre() as centre:
        Demonstration(story, centre, quick="--quick" in sys.argv).tell()
        story.chapter("Everything is taken down")
        centre.tear_down()
        left = centre.left()
        story.tell(f"left: {', '.join(left) or 'nothing'}")
        story.check("no namespace, link, mount, loop device, cgroup, table or process is left", not left)
    return story.finish()


if __name__ == "__main__":
    sys.exit(main())
