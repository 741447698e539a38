"""Writing flow documents: what every generated one is made of."""

import re
from collections.abc import Iterable
from typing import Any

import yaml

from skep.documents import resolve
from skep.model.ids import HostName
from skep.store.replicas import ReplicaRow


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """The one in C where PyYAML was built with it: ten times faster."""

    def ignore_aliases(self, data: Any) -> bool:
        """A value that is named twice is written twice: people read it, and our reader counts aliases."""
        return True


def _text(dumper: Any, value: str) -> yaml.Node:
    """Quoted where our reader would take it for something else: it and PyYAML differ about `1e3` and `08`."""
    node: yaml.Node = dumper.represent_scalar(
        "tag:yaml.org,2002:str", value, style=None if resolve(value) == value else "'"
    )
    return node


_Dumper.add_representer(str, _text)

Step = dict[str, Any]
Steps = dict[str, Step]
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")


def document(flow: str, lock: str, steps: Steps, timeout: float | None = None) -> str:
    content: dict[str, Any] = {"flow": flow, "lock": [lock]}
    if timeout is not None:
        content["timeout"] = f"{timeout:g}s"
    text: str = yaml.dump(content | {"steps": steps}, Dumper=_Dumper, sort_keys=False)
    return text


def route(use: str, host: HostName, values: dict[str, Any], after: Iterable[str]) -> Step:
    return {"use": use, "on": f"agent.{host}", "with": values, "after": list(after)}


def on_host(row: ReplicaRow, use: str, values: dict[str, Any]) -> Step:
    return {"use": use, "on": f"agent.{row.host}", "with": values}


def named(kind: str, name: str, identity: str, taken: set[str], host: str = "") -> str:
    """A step's name that people recognise; with the identity instead where it is `taken`, which it is now.

    What is done on several hosts names the `host` from the second on.
    """
    candidates = [f"{kind}-{safe(name)}".rstrip("-")]
    candidates += [f"{candidates[0]}-{safe(host)}"] if host else []
    candidates += [f"{kind}-{identity}", f"{kind}-{identity}-{safe(host)}"]
    step = next(candidate for candidate in candidates if candidate not in taken)
    taken.add(step)
    return step


def safe(name: str) -> str:
    return _UNSAFE.sub("-", name)
