"""The data centre of the demonstration: hosts in a box, PostgreSQL, a worker more; in a temporary folder."""

import os
import secrets
import signal
import subprocess
from typing import Any, Self

from machine import ROOT, SKEP, Machine, free_port, output


class Centre(Machine):
    """Everything of it carries a name of its own, and is gone when the `with` ends."""

    def __init__(self) -> None:
        super().__init__("dc")
        self.subnet = f"198.19.{secrets.randbelow(256)}"
        self.worker: subprocess.Popen[bytes] | None = None
        self.environment |= {
            "SKEP_BOX_UNDERLAY": f"{self.subnet}.0/24",
            "SKEP_HOST_TIMEOUT": "5s",
            "SHOP_PORT": str(free_port()),
        }

    def __enter__(self) -> Self:
        self.environment["SKEP_DATABASE"] = self._database("start")
        return self

    def tear_down(self) -> None:
        if self.is_gone:
            return
        self.kill_worker()
        super().tear_down()
        if (self.folder / "postgresql").exists():
            self._database("stop")

    def start_worker(self) -> None:
        """One more process that carries out runs: same database, same broker."""
        broker = ROOT / "scripts" / "rabbitmq"
        bus = output([str(broker), "url", str(self.folder / "data-broker")])
        own = {
            "SKEP_BUS": bus,
            "SKEP_DATA": str(self.folder / "worker"),
            "SKEP_RUN": str(self.folder / "worker-run"),
        }
        with (self.folder / "worker.log").open("ab") as log:
            self.worker = subprocess.Popen(
                [SKEP, "worker"], env=self.environment | own, stdout=log, stderr=log, start_new_session=True
            )
        self.until(lambda: b"worker.up" in (self.folder / "worker.log").read_bytes())

    def kill_worker(self) -> None:
        """kill -9."""
        if self.worker is not None:
            self.worker.kill()
            self.worker.wait()

    def kill_control(self) -> None:
        """kill -9: API, one worker and all reconcilers at once; hosts go on."""
        os.kill(int((self.folder / "run" / "skep.pid").read_text()), signal.SIGKILL)

    def hosts(self) -> dict[str, str]:
        """Their states."""
        return {one["name"]: one["state"] for one in self.get("host", "ls")}

    def replicas(self, app: str = "shop") -> list[dict[str, Any]]:
        return super().replicas(app)

    def left(self) -> list[str]:
        """What is still on the machine that was ours."""
        addresses = output(["ip", "address"]).splitlines()
        return super().left() + [line for line in addresses if f" {self.subnet}." in line]

    def _database(self, verb: str) -> str:
        return output([str(ROOT / "scripts" / "postgresql"), verb, str(self.folder / "postgresql")])
