"""What one user asks of the API server, as its audit log has it: of no other anything is written.

Format: https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from tests.cluster.kubernetes.machine import Machine

USER = "audited"
"""May everything, as the administrator."""
_POLICY = "/var/lib/kubernetes/audit.json"
_LOG = "/var/log/audit.jsonl"
_RULES = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [{"level": "Metadata", "users": [USER]}, {"level": "None"}],
}


def furnish(machine: Machine) -> None:
    """Lay the policy down where the API server looks for it."""
    machine.write(_POLICY, json.dumps(_RULES).encode())


def flags() -> list[str]:
    """Of the API server."""
    return [f"--audit-policy-file={_POLICY}", f"--audit-log-path={_LOG}"]


class Audit:
    """Of the control plane on that machine, from now on; `mark` begins anew."""

    def __init__(self, machine: Machine) -> None:
        self._log = machine.disk / Path(_LOG).relative_to("/var")
        self._from = 0
        self.mark()

    def mark(self) -> None:
        self._from = self._log.stat().st_size if self._log.exists() else 0

    def requests(self) -> Counter[str]:
        """Those that have ended since, by verb and resource: `list pods`.  A watch counts when it ends."""
        if not self._log.exists():
            return Counter()
        with self._log.open() as log:
            log.seek(self._from)
            return Counter(called(json.loads(line)) for line in log if line.endswith("\n"))


def called(event: dict[str, Any]) -> str:
    """A request in two words."""
    of = event.get("objectRef")
    if of is None or "resource" not in of:
        return f"{event['verb']} {event['requestURI'].partition('?')[0]}"
    part = f"/{of['subresource']}" if of.get("subresource") else ""
    return f"{event['verb']} {of['resource']}{part}"
