"""Releases that nobody notices: `make demo-release`, as root.

The shop, with two web and two API servers, is asked all the time by visitors through shop.localhost, while it
is released: rolling, atomically, as a canary that answers with errors and is taken back, and back to before.
Ends with 1 if something that is promised was not seen.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from machine import ROOT, Machine, free_port
from story import Story
from visitors import Count, Visitors

HERE = Path(__file__).parent
SHOP = ROOT / "examples/shop/compose.yaml"
HOST = "shop.localhost"
PATHS = ("/", "/api/shop")
BASE = "SKEP_DEMO_BASE"
"""Names an archive of debian:bookworm, in place of making one from the Debian archive."""


class Demonstration:
    def __init__(self, story: Story, machine: Machine, port: int) -> None:
        self.story = story
        self.machine = machine
        self.port = port

    def tell(self) -> None:
        self.open()
        visitors = Visitors(self.port, HOST, PATHS)
        self.story.tell(f"visitors begin to ask http://{HOST}:{self.port} for {' and '.join(PATHS)}")
        self.rolling(visitors)
        self.atomic(visitors)
        self.canary(visitors)
        self.rollback(visitors)
        visitors.stop()

    def open(self) -> None:
        story, machine = self.story, self.machine
        story.chapter("The shop opens")
        machine.up()
        if base := os.environ.get(BASE):
            machine.skep("image", "import", base, "debian:bookworm", "--shared")
        else:
            machine.skep("image", "bootstrap", "debian")
        story.tell("debian:bookworm is there; the images of the shop are built on it")
        self.apply("rolling", "Shop")
        self.show("ps", "shop")

    def rolling(self, visitors: Visitors) -> None:
        self.story.chapter("A rolling release: one replica after the other")
        visitors.count()
        self.apply("rolling", "Shop of honey")
        self.seen(visitors.count(), "Shop of honey")

    def atomic(self, visitors: Visitors) -> None:
        self.story.chapter("An atomic release: a full second set, then one switch")
        visitors.count()
        self.apply("atomic", "Shop of candles")
        self.seen(visitors.count(), "Shop of candles")

    def canary(self, visitors: Visitors) -> None:
        self.story.chapter("A canary that answers one question in five with an error")
        visitors.count()
        try:
            self.apply("canary", "Broken shop", faults="5")
            taken_back = False
        except RuntimeError as error:
            self.story.tell(f"skep apply says: {str(error).splitlines()[-1]}")
            taken_back = True
        count = visitors.count()
        self.story.check("the canary was taken back by itself", taken_back)
        self.story.tell(f"visitors: {count} (the canary's share of them)")
        self.story.check("no more than a small part met the canary", count.failed < count.answered / 10)
        self.story.check("the shop is the one of before", self.title() == "Shop of candles")

    def rollback(self, visitors: Visitors) -> None:
        self.story.chapter("Back to the release before, under load")
        visitors.count()
        self.machine.skep("rollback", "shop")
        self.seen(visitors.count(), "Shop of honey")
        self.show("releases", "shop")

    def seen(self, count: Count, title: str) -> None:
        self.story.tell(f"visitors: {count}")
        self.story.check("no question failed", count.failed == 0)
        self.story.check(f"the shop is {title!r} now", self.title() == title)

    def apply(self, strategy: str, title: str, faults: str = "") -> None:
        self.machine.environment |= {"STRATEGY": strategy, "SHOP_TITLE": title, "SHOP_FAULTS": faults}
        self.machine.skep("apply", str(SHOP), str(HERE / "overlay.yaml"))
        self.story.tell(f"skep apply: {title!r} is released")

    def title(self) -> Any:
        """Of the release that is in force, as the API server says it."""
        detail = self.machine.get("show", "shop")
        return detail["spec"]["services"]["api"]["environment"]["SHOP_TITLE"]

    def show(self, *words: str) -> None:
        lines = self.machine.skep(*words).splitlines()
        print("\n".join(["", f"   $ skep {' '.join(words)}", *(f"   {line}" for line in lines), ""]))


def main() -> int:
    if os.geteuid() != 0:
        sys.exit("error: this makes namespaces, mounts and containers: use sudo.")
    story, port = Story(), free_port()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was made is taken down
    with Machine("rel") as machine:
        machine.environment |= {
            "SKEP_EDGE_HTTP": str(port),
            "SKEP_EDGE_HTTPS": "0",
            "SHOP_PORT": str(free_port()),
        }
        Demonstration(story, machine, port).tell()
        story.chapter("Everything is taken down")
        machine.tear_down()
        left = machine.left()
        story.check(f"nothing is left ({', '.join(left) or 'nothing'})", not left)
    return story.finish()


if __name__ == "__main__":
    sys.exit(main())
