"""`make bench-release`: what clients notice of releases, beside a recreate as Compose does it (podman).

A web service of four replicas is changed again and again while it is asked: by wrk through the endpoint, with
and without keep-alive, and through the virtual IP from a container; by probers that open a connection for
each request; by one long download and one WebSocket that must not be cut.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

import httpx
from tests.bench.installation import Installation, Json, free_port
from tests.bench.podman import Podman
from tests.bench.release_images import release_archive
from tests.bench.release_load import Counted, Held, Prober, Wrk
from tests.bench.report import Report, Target

from skep.providers.local.network.naming import Names

IMAGE = "release-bench:latest"
SITE = "site.localhost"
REPLICAS = 4
NONE = Target("at most", 0)
DRAIN = 40
"""Seconds for which what is old keeps connections that last: longer than the load."""
LEAD = 3.0
"""Seconds of load before a release begins."""


class Site:
    """The app that is released, and how its releases come into force."""

    def __init__(self, skep: Installation) -> None:
        self._skep = skep
        self._revision = 0

    @property
    def revision(self) -> str:
        return f"r{self._revision}"

    def release(self, policy: Json, update: Json, **environment: str) -> str:
        """Apply the next revision; answers its run."""
        self._revision += 1
        web = {
            "image": IMAGE,
            "command": ["python3", "/server.py"],
            "environment": {"REVISION": self.revision} | environment,
            "expose": ["8080"],
            "replicas": REPLICAS,
            "healthcheck": {
                "test": ["CMD", "curl", "-fsS", "-o", "/dev/null", "http://127.0.0.1:8080/"],
                "interval": 2,
                "start_period": 20,
                "start_interval": 0.5,
            },
            "stop_grace_period": 60,
            "update": update,
            "rollback": update,
            "x_skep": {"endpoints": [{"host": SITE, "port": 8080}]},
        }
        spec = {"name": "site", "services": {"web": web}, "x_skep": {"release": policy}}
        answer = self._skep.http.post("/v1/apps/site/releases", json=spec)
        return self._accepted(answer.raise_for_status().json())

    def rollback(self) -> str:
        answer = self._skep.http.post("/v1/apps/site/rollback", json={})
        return self._accepted(answer.raise_for_status().json())

    @staticmethod
    def _accepted(answer: Json) -> str:
        if answer["run"] is None:
            raise RuntimeError(answer["message"])
        return str(answer["run"])


class Crowd:
    """All clients at once, for `seconds`."""

    def __init__(self, edge: str, virtual_ip: str, namespace: str, seconds: int) -> None:
        self._seconds = seconds
        self._wrks = {
            "endpoint, keep-alive": Wrk(edge, SITE, seconds, keep_alive=True),
            "endpoint, new connections": Wrk(edge, SITE, seconds, keep_alive=False),
        }
        if virtual_ip:
            inside = f"http://{virtual_ip}:8080"
            self._wrks["virtual IP"] = Wrk(inside, "web", seconds, keep_alive=False, namespace=namespace)
        self.prober = Prober(edge, SITE)
        self._held = Held(edge, SITE, seconds - 2)

    def finish(self) -> dict[str, Counted]:
        counted = {name: wrk.finish() for name, wrk in self._wrks.items()}
        self._held.finish()
        return counted

    @property
    def cut(self) -> list[str]:
        return self._held.cut


class Bench:
    def __init__(self, report: Report, skep: Installation, edge: str, seconds: int) -> None:
        self.report = report
        self.skep = skep
        self.edge = edge
        self.seconds = seconds
        self.site = Site(skep)
        self.virtual_ip = self.namespace = ""

    def open(self) -> None:
        """The first release, and a container from which the virtual IP is asked."""
        self.skep.wait_run(self.site.release({}, {}))
        client = {"image": IMAGE, "command": ["sleep", "100000"]}
        run = self.skep.apply("client", {"client": client})
        if run is not None:
            self.skep.wait_run(run)
        (replica,) = self.skep.http.get("/v1/replicas", params={"app": "client"}).raise_for_status().json()
        self.namespace = Names(self.skep.instance).sandbox(replica["id"]).name
        found = self.skep.command("exec", "client/client-0", "getent", "ahostsv4", "web.site")
        self.virtual_ip = found.split()[0]

    def measure(self, name: str, policy: Json, update: Json, *, at_once: bool = False) -> None:
        """Release the next revision under load.  `at_once`: nobody may see the old one after the new one."""
        crowd = self._under_load(name, lambda: self.site.release(policy, update))
        if at_once:
            late = crowd.prober.late(self.site.revision)
            self.report.add(f"{name}: old after new", late, "requests", target=NONE)

    def measure_rollback(self, name: str) -> None:
        self._under_load(name, self.site.rollback)

    def _under_load(self, name: str, change: Callable[[], str]) -> Crowd:
        crowd = Crowd(self.edge, self.virtual_ip, self.namespace, self.seconds)
        with crowd.prober:
            time.sleep(LEAD)
            began = time.monotonic()
            self.skep.wait_run(change())
            took = time.monotonic() - began
            counted = crowd.finish()
        for way, seen in counted.items():
            note = f"{seen.requests} at {seen.rate:.0f}/s, p99 {seen.p99 * 1000:.0f} ms; it took {took:.1f} s"
            failed = seen.failed + seen.status
            self.report.add(f"{name}: failed, {way}", failed, "requests", target=NONE, note=note)
        prober = crowd.prober
        self.report.add(f"{name}: failed, one by one", prober.failed, "requests", target=NONE)
        self.report.add(f"{name}: longest pause", prober.pause(), "s")
        self.report.add(f"{name}: cut", len(crowd.cut), "connections", target=NONE, note="; ".join(crowd.cut))
        return crowd


class Recreated:
    """The peer: one container on a published port, removed and made again, as `compose up` does it."""

    def __init__(self, podman: Podman) -> None:
        self._podman = podman
        self._port = free_port()
        self._revision = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def recreate(self) -> None:
        self._revision += 1
        self._podman.remove_all()
        self._podman.publish(
            "site", IMAGE, ["python3", "/server.py"], f"{self._port}:8080", f"REVISION=r{self._revision}"
        )

    def until_it_answers(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with suppress(httpx.HTTPError):
                if httpx.get(self.url, trust_env=False).is_success:
                    return
            time.sleep(0.05)
        raise TimeoutError(f"{self.url} does not answer")


def measure_peer(report: Report, podman: Podman, seconds: int) -> None:
    site = Recreated(podman)
    site.recreate()
    site.until_it_answers()
    wrk = Wrk(site.url, SITE, seconds, keep_alive=False)
    with Prober(site.url, SITE, threads=1) as prober:
        time.sleep(LEAD)
        site.recreate()
        seen = wrk.finish()
    note = f"{seen.requests} answered; the port refuses at once, so failures are as many as a client tries"
    report.add("podman recreate: failed", seen.failed + seen.status, "requests", note=note)
    report.add("podman recreate: longest pause", prober.pause(), "s")


def main() -> None:
    arguments = parse_arguments()
    if os.geteuid() != 0:
        sys.exit("error: containers need root: run it with sudo.")
    report, archive, port = Report(), release_archive(), free_port()
    with ExitStack() as stack:
        skep = stack.enter_context(
            Installation(
                instance="skeprel",
                networks="10.80.0.0/12",
                links="100.102.0.0/16",
                pool_size="20GiB",
                edge_http=port,
            )
        )
        try:
            skep.start()
            skep.import_image(archive, IMAGE)
            bench = Bench(report, skep, f"http://127.0.0.1:{port}", arguments.seconds)
            bench.open()
            bench.measure("rolling, start-first", {}, {"order": "start-first"})
            bench.measure("rolling, stop-first", {}, {"order": "stop-first"})
            bench.measure("atomic", {"strategy": "atomic", "drain": DRAIN}, {}, at_once=True)
            bench.measure("canary", {"strategy": "canary", "steps": [25], "interval": 5, "drain": DRAIN}, {})
            bench.measure_rollback("rollback")
            if Podman.usable():
                peer = stack.enter_context(Podman())
                peer.prepare(archive, IMAGE)
                measure_peer(report, peer, arguments.seconds)
        finally:
            report.print_table()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=40, help="load per release")
    return parser.parse_args()


if __name__ == "__main__":
    main()
